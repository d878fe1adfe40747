"""Softmax, cross-entropy and related functions of arrays.

Conventions
-----------
- float32 and float64 are computed and returned in their own precision. float16 is computed in
  float32 and returned as float16; integers and booleans count as float64. Any other dtype is a
  TypeError.
- Frames, tensors and other arrays in the memory of the CPU are read as arrays of numpy, without a
  copy if possible (bfloat16 becomes float32). Results are arrays of numpy.
- Arrays may have any strides and either byte order, and may be read-only. Inputs are never written
  to, unless one is given as `out`. They are copied only if the computation uses another dtype, or
  if the numbers of a row are not adjacent.
- Special rows: softmax and log_softmax of a row are NaN if the row has a NaN or a +inf, or if all
  its logits are -inf. A logit of -inf beside finite ones has a probability of exactly 0.
- Logarithms are natural.
- `backend` is "native" (the compiled kernels), "numpy", or "auto" (the compiled kernels if they
  were built). It changes results by rounding errors only.
- `n_jobs` is the number of threads. None means as many as are allowed, -1 all CPUs, and -2 all but
  one. It changes no bit of a result.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastsoftmax._arguments import (
    adjacent_rows,
    as_real,
    cast,
    has_adjacent_rows,
    thread_count,
)
from fastsoftmax.arrays import Array
from fastsoftmax.backend import resolve_backend
from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.foreign_arrays import as_array
from fastsoftmax.losses import accuracy, cross_entropy, linear_cross_entropy

__all__ = [
    "accuracy",
    "cross_entropy",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "softmax",
]

Axis = int | Sequence[int] | None


@own_arithmetic
def softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    out: Array | None = None,
    backend: str = "auto",
    n_jobs: int | None = None,
) -> Array:
    """Probabilities exp(x_k) / sum_j exp(x_j) along an axis.

    Parameters
    ----------
    x : array_like of real numbers
        Logits, with at least one dimension.
    axis : int, tuple of int or None, default=-1
        The axis or axes over which the result sums to 1; None for all of them together.
    out : ndarray, optional
        Where to store the result, of its shape and dtype. It may be x or overlap it.
    backend, n_jobs
        See the conventions of this module.

    Returns
    -------
    ndarray
        Of the shape of x; `out` if that was given.

    Raises
    ------
    ValueError
        If x is 0-d, if there is no class (the axis has length 0), or if out does not fit.
    TypeError
        If x is not real, or out is of another dtype than the result.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    Computed as exp(x_k - max) / (1 + sum over the others of exp(x_j - max)) [1]_. The rounding
    error of x_k - max is passed on to the exponential; otherwise a difference of 100 costs 50 ulp.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham (2021), "Accurately computing the log-sum-exp
       and softmax functions", IMA Journal of Numerical Analysis 41(4), 2311-2330, Section 4.

    Examples
    --------
    >>> from fastsoftmax.functional import softmax
    >>> softmax([[0.0, 0.0], [1000.0, -1000.0]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    return _map_rows("softmax_rows", x, axis, out, backend, n_jobs)


@own_arithmetic
def log_softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    out: Array | None = None,
    backend: str = "auto",
    n_jobs: int | None = None,
) -> Array:
    """Logarithms of the softmax, x_k - log(sum_j exp(x_j)), along an axis.

    Every value is accurate to a few ulp, also where the probability rounds to 1 or underflows.
    Arguments, result and errors are those of `softmax`.

    Parameters
    ----------
    x : array_like of real numbers
        Logits, with at least one dimension.
    axis : int, tuple of int or None, default=-1
        The axis or axes of the classes; None for all of them together.
    out : ndarray, optional
        Where to store the result, of its shape and dtype. It may be x or overlap it.
    backend, n_jobs
        See the conventions of this module.

    Returns
    -------
    ndarray
        Of the shape of x; `out` if that was given.

    Examples
    --------
    >>> from fastsoftmax.functional import log_softmax
    >>> log_softmax([0.0, -50.0, -2000.0]).tolist()
    [-1.9287498479639178e-22, -50.0, -2000.0]
    """
    return _map_rows("log_softmax_rows", x, axis, out, backend, n_jobs)


@own_arithmetic
def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    keepdims: bool = False,
    out: Array | None = None,
    backend: str = "auto",
    n_jobs: int | None = None,
) -> Any:
    """Logarithm of the sum of exponentials, log(sum_j exp(x_j)), along an axis.

    Parameters
    ----------
    x : array_like of real numbers
        With at least one dimension.
    axis : int, tuple of int or None, default=-1
        The axis or axes to sum over; None for all of them.
    keepdims : bool, default=False
        Keep the axes that were summed over, with length 1.
    out : ndarray, optional
        Where to store the result, of its shape and dtype. It may overlap x.
    backend, n_jobs
        See the conventions of this module.

    Returns
    -------
    ndarray, or a numpy scalar where no axis is left
        -inf for an axis of length 0 (a sum of 0) and for values that are all -inf. +inf gives +inf,
        and NaN gives NaN. `out` if that was given.

    Raises
    ------
    ValueError
        If x is 0-d, or if out does not fit.
    TypeError
        If x is not real, or out is of another dtype than the result.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    Computed as max + log1p(sum over the others of exp(x_j - max)); see `softmax` for the source.

    Examples
    --------
    >>> from fastsoftmax.functional import logsumexp
    >>> print(logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    """
    x, dtype = as_real("x", x)
    axes = _normalize_axis(x.ndim, axis)
    shape = tuple(
        1 if i in axes else length for i, length in enumerate(x.shape) if keepdims or i not in axes
    )
    if out is not None:
        _check_out(out, shape, dtype)
    rows = _as_rows(x, axes)
    kernels = resolve_backend(backend)
    n_threads = thread_count(n_jobs, kernels)
    sums = np.full(len(rows), -np.inf, dtype=x.dtype)
    if rows.shape[1]:
        kernels.logsumexp_rows(sums, adjacent_rows(rows), n_threads=n_threads)
    result = _stored(cast(sums.reshape(shape), dtype), out)
    return result[()] if out is None else out


def _map_rows(
    kernel: str, x: ArrayLike, axis: Axis, out: Array | None, backend: str, n_jobs: int | None
) -> Array:
    """Apply a kernel (n, K) -> (n, K) along the axes."""
    given = as_array(x, "x")
    x, dtype = as_real("x", given)
    axes = _normalize_axis(x.ndim, axis)
    if out is not None:
        _check_out(out, x.shape, dtype)
    rows = _as_rows(x, axes)
    if rows.shape[1] == 0:
        raise ValueError(f"x must have at least one class along axis={axis}, got shape {x.shape}")
    rows = adjacent_rows(rows)
    kernels = resolve_backend(backend)
    direct = None if out is None else _direct_target(out, axes, rows)
    target = direct
    if target is None:
        # A copy of the rows belongs to us, so the kernels can work in place.
        ours = not np.may_share_memory(rows, given)
        target = rows if ours else np.empty(rows.shape, dtype=rows.dtype)
    getattr(kernels, kernel)(target, rows, n_threads=thread_count(n_jobs, kernels))
    if direct is not None and out is not None:
        return out
    last = range(x.ndim - len(axes), x.ndim)
    moved = target.reshape(np.moveaxis(x, axes, last).shape)
    return _stored(cast(np.moveaxis(moved, last, axes), dtype), out)


def _stored(result: Array, out: Array | None) -> Array:
    if out is None:
        return result
    out[...] = result
    return out


def _direct_target(out: Array, axes: tuple[int, ...], rows: Array) -> Array | None:
    """Return out as rows that a kernel can write while it reads `rows`, or None."""
    target = _as_rows(out, axes)
    if target.dtype != rows.dtype or not np.may_share_memory(target, out):
        return None
    n_rows, n_classes = target.shape
    overlaps = n_rows > 1 and abs(target.strides[0]) < n_classes * target.itemsize
    if overlaps or not has_adjacent_rows(target):
        return None
    same = target.ctypes.data == rows.ctypes.data and target.strides == rows.strides
    return target if same or not np.may_share_memory(target, rows) else None


def _as_rows(x: Array, axes: tuple[int, ...]) -> Array:
    """Return x as (n, K), all given axes along K; a view if possible."""
    n_left = x.ndim - len(axes)
    moved = np.moveaxis(x, axes, range(n_left, x.ndim))
    shape = math.prod(moved.shape[:n_left]), math.prod(moved.shape[n_left:])
    return moved.reshape(shape)


def _normalize_axis(ndim: int, axis: Axis) -> tuple[int, ...]:
    if ndim == 0:
        raise ValueError("x must have at least one dimension, got a 0-d array")
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, Sequence) else (axis,)
    axes = []
    for i in map(operator.index, given):
        if not -ndim <= i < ndim:
            raise np.exceptions.AxisError(i, ndim)
        axes.append(i % ndim)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis must not name an axis twice, got axis={axis}")
    return tuple(sorted(axes))


def _check_out(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must be of shape {shape}, got {out.shape}")
    if out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out must be of dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
