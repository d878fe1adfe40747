"""Softmax, cross-entropy and their relatives as functions of arrays.

Conventions
-----------
- float32 and float64 are computed and returned in their own precision. float16 is computed in
  float32 and returned as float16; integers and booleans count as float64. Any other dtype is a
  TypeError.
- Arrays may have any strides and either byte order, and may be read-only. Inputs are never written
  to, unless one is given as `out`. They are copied only where their dtype is not computed in, or
  where the numbers of a row do not lie side by side.
- Special rows: NaN anywhere, +inf, or nothing but -inf make softmax and log_softmax of that row
  NaN; beside finite numbers, -inf has probability exactly 0.
- Logarithms are natural.
- `backend` is "auto" (the compiled kernels where they were built), "native" or "numpy"; `n_jobs`
  is a number of threads, None for as many as OpenMP allows. Neither changes an answer by more than
  rounding, and n_jobs not by a bit.
"""

import math
import numbers
import operator
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastsoftmax.backend import resolve_backend

__all__ = [
    "accuracy",
    "cross_entropy",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "softmax",
]

Array = NDArray[Any]
Axis = int | Sequence[int] | None


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
        Of the shape of x; `out` where that was given.

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
    error of x_k - max is carried into the exponential: without that, a gap of 100 costs 50 ulp.

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
        Of the shape of x; `out` where that was given.

    Examples
    --------
    >>> from fastsoftmax.functional import log_softmax
    >>> log_softmax([0.0, -50.0, -2000.0]).tolist()
    [-1.9287498479639178e-22, -50.0, -2000.0]
    """
    return _map_rows("log_softmax_rows", x, axis, out, backend, n_jobs)


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
        A sum over an axis of length 0 is 0, so its logarithm is -inf; so is that of nothing but
        -inf. +inf gives +inf, and NaN gives NaN. `out` where that was given.

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
    x, dtype = _as_real("x", x)
    axes = _normalize_axis(x.ndim, axis)
    shape = tuple(
        1 if i in axes else length for i, length in enumerate(x.shape) if keepdims or i not in axes
    )
    if out is not None:
        _check_out(out, shape, dtype)
    rows = _as_rows(x, axes)
    kernels = resolve_backend(backend)
    n_threads = _n_threads(n_jobs, kernels)
    sums = np.full(len(rows), -np.inf, dtype=x.dtype)
    if rows.shape[1]:
        kernels.logsumexp_rows(sums, _adjacent(rows), n_threads=n_threads)
    result = _cast(sums.reshape(shape), dtype)
    if out is not None:
        out[...] = result
        return out
    return result[()]


@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., reduction: Literal["mean", "sum"] = ...,
    return_grad: Literal[False] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> float: ...  # fmt: skip
@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., reduction: Literal["mean", "sum"] = ...,
    return_grad: Literal[True], backend: str = ..., n_jobs: int | None = ...,
) -> tuple[float, Array]: ...  # fmt: skip
@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., reduction: Literal["none"],
    return_grad: Literal[False] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> Array: ...  # fmt: skip
@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., reduction: Literal["none"],
    return_grad: Literal[True], backend: str = ..., n_jobs: int | None = ...,
) -> tuple[Array, Array]: ...  # fmt: skip
def cross_entropy(
    logits: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    return_grad: bool = False,
    backend: str = "auto",
    n_jobs: int | None = None,
) -> Any:
    """Cross-entropy of the softmax of logits against labels or distributions.

    With t_i the target distribution of row i and s_i its weight, row i costs

        s_i * CE_i,    CE_i = log(sum_j exp(z_ij)) - sum_k t_ik z_ik,

    and "mean" is sum_i s_i CE_i / sum_i s_i.

    Parameters
    ----------
    logits : array_like of shape (n, K)
        Logits z, K >= 1.
    y : array_like of shape (n,) or (n, K)
        Class indices in [0, K), of any integer type or bool; or one distribution over the classes
        for each row, that sums to 1 within 1e-5 (1e-3 for float16).
    sample_weight : array_like of shape (n,), optional
        Weights s, finite and >= 0; 1 by default. A row of weight 0 counts as absent, whatever its
        logits.
    label_smoothing : float, default=0.0
        e in [0, 1]: the targets become (1 - e) t + e / K.
    reduction : {"mean", "sum", "none"}, default="mean"
        The weighted mean of CE, the weighted sum, or s_i * CE_i for each row.
    return_grad : bool, default=False
        Return the gradient by the logits too.
    backend, n_jobs
        See the conventions of this module.

    Returns
    -------
    loss : float, or ndarray of shape (n,) for reduction="none"
        Accurate relative to itself also near zero. Sums are taken in float64.
    grad : ndarray of shape (n, K)
        Only with return_grad: the gradient of loss, or of its sum for reduction="none".

    Raises
    ------
    ValueError
        If shapes disagree or K = 0; if a label is out of range, a distribution does not sum to 1
        or has a negative value; if a weight is negative, infinite or NaN; for the mean, if the
        weights sum to 0, as they do for n = 0; if label_smoothing or reduction is not as above.
    TypeError
        If logits are not real, or y is neither integers nor an array of shape (n, K). Labels of
        a float dtype are not rounded.

    Notes
    -----
    A target of 0 on a logit of -inf costs nothing, a positive one costs inf.

    Examples
    --------
    >>> from fastsoftmax.functional import cross_entropy
    >>> cross_entropy([[50.0, 0.0], [0.0, 50.0]], [0, 1])
    1.9287498479639178e-22
    >>> loss, grad = cross_entropy([[0.0, 0.0]], [[0.25, 0.75]], return_grad=True)
    >>> grad
    array([[ 0.25, -0.25]])
    """
    _check_reduction(reduction, ("mean", "sum", "none"))
    z, dtype = _as_real("logits", logits)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"logits must be of shape (n, K) with K >= 1, got shape {z.shape}")
    z = _adjacent(z)
    n_rows, n_classes = z.shape
    labels, probs = _targets(y, n_rows, n_classes, z.dtype)
    weights = _row_weights(sample_weight, n_rows, z.dtype)
    total = _total_weight(weights, reduction)
    smoothing = _smoothing(label_smoothing)
    kernels = resolve_backend(backend)
    loss = np.empty(n_rows, dtype=z.dtype)
    grad = np.empty(z.shape, dtype=z.dtype) if return_grad else None
    kernels.cross_entropy_rows(
        loss, grad, z, labels, probs, weights, smoothing, n_threads=_n_threads(n_jobs, kernels)
    )
    absent = weights == 0.0  # 0 * inf or 0 * NaN would be NaN
    loss[absent] = 0.0
    if grad is not None:
        grad[absent] = 0.0
        if reduction == "mean":
            grad /= total
        grad = _cast(grad, dtype)
    if reduction == "none":
        result: Any = _cast(loss, dtype)
    else:
        result = float(loss.sum(dtype=np.float64)) / total
    return (result, grad) if return_grad else result


@overload
def linear_cross_entropy(
    X: ArrayLike, W: ArrayLike, b: ArrayLike, y: ArrayLike, *,
    sample_weight: ArrayLike | None = ..., label_smoothing: float = ..., reduction: str = ...,
    return_grad: Literal[True] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> tuple[float, Array, Array]: ...  # fmt: skip
@overload
def linear_cross_entropy(
    X: ArrayLike, W: ArrayLike, b: None, y: ArrayLike, *,
    sample_weight: ArrayLike | None = ..., label_smoothing: float = ..., reduction: str = ...,
    return_grad: Literal[True] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> tuple[float, Array, None]: ...  # fmt: skip
@overload
def linear_cross_entropy(
    X: ArrayLike, W: ArrayLike, b: ArrayLike | None, y: ArrayLike, *,
    sample_weight: ArrayLike | None = ..., label_smoothing: float = ..., reduction: str = ...,
    return_grad: Literal[False], backend: str = ..., n_jobs: int | None = ...,
) -> float: ...  # fmt: skip
def linear_cross_entropy(
    X: ArrayLike,
    W: ArrayLike,
    b: ArrayLike | None,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    return_grad: bool = True,
    backend: str = "auto",
    n_jobs: int | None = None,
) -> Any:
    """Cross-entropy of the logits X W^T + b, and its gradients, without an n x K array.

    The same value as ``cross_entropy(X @ W.T + b, y, ...)``, computed over blocks of rows in one
    pass, so that memory does not grow with n x K.

    Parameters
    ----------
    X : array_like of shape (n, d)
        Features. Used in place where it has the dtype of the computation, that of
        ``numpy.result_type(X, W, b)`` (float64 if all are integers).
    W : array_like of shape (K, d)
        Class weights, K >= 1.
    b : array_like of shape (K,) or None
        Biases; None for none.
    y, sample_weight, label_smoothing
        As for `cross_entropy`.
    reduction : {"mean", "sum"}, default="mean"
        The weighted mean of the cross-entropy over the rows, or its weighted sum.
    return_grad : bool, default=True
        Return the gradients; without them the pass costs half.
    backend, n_jobs
        See the conventions of this module.

    Returns
    -------
    loss : float
        In nats.
    grad_W : ndarray of shape (K, d)
        Gradient of loss by W.
    grad_b : ndarray of shape (K,) or None
        Gradient of loss by b; None where b is.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy` does.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax.functional import linear_cross_entropy
    >>> X, y = np.array([[1.0, 2.0], [3.0, 4.0]]), [0, 1]
    >>> loss, grad_W, grad_b = linear_cross_entropy(X, np.zeros((2, 2)), np.zeros(2), y)
    >>> grad_W
    array([[ 0.5,  0.5],
           [-0.5, -0.5]])
    """
    _check_reduction(reduction, ("mean", "sum"))
    X, W, bias, dtype = _affine_arguments(X, W, b)
    n_rows, n_classes = len(X), len(W)
    labels, probs = _targets(y, n_rows, n_classes, X.dtype)
    weights = _row_weights(sample_weight, n_rows, X.dtype)
    total = _total_weight(weights, reduction)
    smoothing = _smoothing(label_smoothing)
    kernels = resolve_backend(backend)
    n_threads = _n_threads(n_jobs, kernels)
    grads = (np.empty(W.shape), np.empty(n_classes)) if return_grad else ()

    def add_up(rows: Any) -> float:
        if n_classes == 1:  # to loss_grad, one row of weights is the log-odds of two classes
            with np.errstate(all="ignore"):
                logits = X[rows] @ W[0] + bias
            for grad in grads:
                grad.fill(0.0)
            return 0.0 if np.isfinite(logits).all() else math.nan
        loss, _ = kernels.loss_grad(
            *(grads or (None, None)),
            X[rows],
            None if labels is None else labels[rows],
            None if probs is None else probs[rows],
            weights[rows],
            smoothing,
            W,
            bias,
            n_classes,
            n_threads=n_threads,
        )
        return float(loss)

    loss = add_up(slice(None))
    if not math.isfinite(loss) and not weights.all():
        loss = add_up(weights > 0.0)  # 0 * inf or 0 * NaN: leave those rows out
    if not return_grad:
        return loss / total
    grad_W, grad_b = (_cast(np.divide(grad, total), dtype) for grad in grads)
    return loss / total, grad_W, None if b is None else grad_b


def accuracy(
    y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Weighted share of rows whose predicted class is the true one.

    Parameters
    ----------
    y_true : array_like of shape (n,)
        True labels: of any type beside predicted labels, class indices beside scores.
    y_pred : array_like of shape (n,) or (n, K)
        Predicted labels; or a score for each class, such as logits or probabilities, of which the
        largest counts (the first of equal ones). A row of scores with a NaN is a miss. Scores of
        the positive class alone, of shape (n,), are not guessed at: pass ``scores > 0``, or
        labels.
    sample_weight : array_like of shape (n,), optional
        Weights, finite and >= 0; 1 by default.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If shapes disagree; if y_pred is 1-d with fractions or NaN (scores, not labels); if a class
        index is out of range; if a weight is not finite and >= 0, or they sum to 0 (as for n = 0).
    TypeError
        If labels are strings on one side and numbers on the other; if scores are not real.

    Examples
    --------
    >>> from fastsoftmax.functional import accuracy
    >>> accuracy(["cat", "dog"], ["cat", "cat"])
    0.5
    >>> accuracy([0, 1], [[2.0, 1.0], [0.1, 0.3]])
    1.0
    """
    truth, predicted = np.asarray(y_true), np.asarray(y_pred)
    if predicted.ndim == 2:
        scores = _as_real("y_pred", predicted)[0]
        if scores.shape[1] == 0:
            raise ValueError(f"y_pred must have at least one class, got shape {scores.shape}")
        truth = _labels(truth, len(scores), scores.shape[1], name="y_true")
        hits = scores.argmax(axis=1) == truth
        hits &= ~np.isnan(scores.max(axis=1))
    else:
        if truth.ndim != 1 or truth.shape != predicted.shape:
            raise ValueError(
                f"y_true must be of shape (n,) and y_pred of shape (n,) or (n, K), "
                f"got shapes {truth.shape} and {predicted.shape}"
            )
        if predicted.dtype.kind == "f" and not np.array_equal(predicted, np.trunc(predicted)):
            raise ValueError(
                "y_pred of shape (n,) must hold labels, got fractions or NaN: pass `scores > 0`, "
                "or scores of shape (n, K)"
            )
        text = [a.dtype.kind in "US" for a in (truth, predicted)]
        if text[0] != text[1] and "O" not in (truth.dtype.kind, predicted.dtype.kind):
            raise TypeError(
                f"y_true and y_pred must hold labels of one type, "
                f"got dtypes {truth.dtype} and {predicted.dtype}"
            )
        hits = truth == predicted
    weights = _row_weights(sample_weight, len(truth), np.dtype(np.float64))
    return float(weights[hits.astype(bool)].sum()) / _total_weight(weights, "mean")


def _map_rows(
    kernel: str, x: ArrayLike, axis: Axis, out: Array | None, backend: str, n_jobs: int | None
) -> Array:
    """Apply a kernel (n, K) -> (n, K) along the axes."""
    given = np.asarray(x)
    x, dtype = _as_real("x", given)
    axes = _normalize_axis(x.ndim, axis)
    if out is not None:
        _check_out(out, x.shape, dtype)
    rows = _as_rows(x, axes)
    if rows.shape[1] == 0:
        raise ValueError(f"x must have at least one class along axis={axis}, got shape {x.shape}")
    rows = _adjacent(rows)
    kernels = resolve_backend(backend)
    target = None if out is None else _direct_target(out, axes, rows)
    direct = target is not None
    if target is None:
        # Rows that had to be copied are ours, and the kernels work in place.
        ours = not np.may_share_memory(rows, given)
        target = rows if ours else np.empty(rows.shape, dtype=rows.dtype)
    getattr(kernels, kernel)(target, rows, n_threads=_n_threads(n_jobs, kernels))
    if direct and out is not None:
        return out
    last = range(x.ndim - len(axes), x.ndim)
    moved = target.reshape(np.moveaxis(x, axes, last).shape)
    result = _cast(np.moveaxis(moved, last, axes), dtype)
    if out is None:
        return result
    out[...] = result
    return out


def _direct_target(out: Array, axes: tuple[int, ...], rows: Array) -> Array | None:
    """Return out as rows that a kernel can write while it reads `rows`; None if it cannot."""
    target = _as_rows(out, axes)
    if target.dtype != rows.dtype or not np.may_share_memory(target, out):
        return None
    n_rows, n_classes = target.shape
    if _adjacent(target) is not target:
        return None
    if n_rows > 1 and abs(target.strides[0]) < n_classes * target.itemsize:
        return None
    same = target.ctypes.data == rows.ctypes.data and target.strides == rows.strides
    return target if same or not np.may_share_memory(target, rows) else None


def _as_rows(x: Array, axes: tuple[int, ...]) -> Array:
    """Return x as (n, K), the axes together along K; a view where that is possible."""
    n_left = x.ndim - len(axes)
    moved = np.moveaxis(x, axes, range(n_left, x.ndim))
    shape = math.prod(moved.shape[:n_left]), math.prod(moved.shape[n_left:])
    return moved.reshape(shape)


def _adjacent(rows: Array) -> Array:
    """Return rows whose numbers lie side by side, aligned: `rows` itself where it is such."""
    row_stride, stride = rows.strides
    if stride == rows.itemsize and row_stride % rows.itemsize == 0 and rows.flags.aligned:
        return rows
    return np.array(rows, order="C")


def _as_real(name: str, value: ArrayLike) -> tuple[Array, np.dtype[Any]]:
    """Return (value in the dtype that it is computed in, dtype of the result)."""
    array = np.asarray(value)
    dtype = _real_dtype(name, array.dtype)
    return array.astype(_compute_dtype(dtype), copy=False), dtype


def _real_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return dtype.newbyteorder("=")
    raise TypeError(
        f"{name} must hold real numbers of at most 64 bits, got an array of dtype {dtype}"
    )


def _compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(all="ignore"):  # what is too large for float16 becomes inf
        return array.astype(dtype, copy=False)


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


def _affine_arguments(
    X: ArrayLike, W: ArrayLike, b: ArrayLike | None
) -> tuple[Array, Array, Array, np.dtype[Any]]:
    """Return X, W and b (zeros for None) in one dtype, and the dtype of the result."""
    x, weights = np.asarray(X), np.asarray(W)
    bias = np.zeros(len(weights) if weights.ndim else 0, dtype=np.bool_) if b is None else b
    bias = np.asarray(bias)
    for name, array in (("X", x), ("W", weights), ("b", bias)):
        _real_dtype(name, array.dtype)
    if x.ndim != 2 or weights.ndim != 2 or x.shape[1] != weights.shape[1] or not len(weights):
        raise ValueError(
            f"X must be of shape (n, d) and W of shape (K, d) with K >= 1, "
            f"got shapes {x.shape} and {weights.shape}"
        )
    if bias.shape != (len(weights),):
        raise ValueError(f"b must be of shape ({len(weights)},), got {bias.shape}")
    dtype = _real_dtype("X", np.result_type(x, weights, bias))
    real = _compute_dtype(dtype)
    x, weights = (_adjacent(a.astype(real, copy=False)) for a in (x, weights))
    return x, np.ascontiguousarray(weights), bias.astype(real), dtype


def _targets(
    y: ArrayLike, n_rows: int, n_classes: int, real: np.dtype[Any]
) -> tuple[Array | None, Array | None]:
    """Return (labels, None) or (None, probabilities), checked, as the kernels take them."""
    y = np.asarray(y)
    if y.ndim != 2:
        return _labels(y, n_rows, n_classes), None
    if y.shape != (n_rows, n_classes):
        raise ValueError(
            f"y must be of shape ({n_rows},) or ({n_rows}, {n_classes}), got {y.shape}"
        )
    tolerance = 1e-3 if y.dtype == np.float16 else 1e-5
    y, _ = _as_real("y", y)
    if n_rows:
        low, sums = y.min(), y.sum(axis=1, dtype=np.float64)
        if not low >= 0.0:
            raise ValueError(f"y must hold probabilities, got {low}")
        wrong = np.flatnonzero(~(np.abs(sums - 1.0) <= tolerance))
        if wrong.size:
            raise ValueError(
                f"each row of y must sum to 1 within {tolerance}, "
                f"got a sum of {sums[wrong[0]]} in row {wrong[0]}"
            )
    return None, np.require(y, real, ["C", "A"])


def _labels(y: Array, n_rows: int, n_classes: int, name: str = "y") -> Array:
    if y.shape != (n_rows,):
        raise ValueError(f"{name} must be of shape ({n_rows},), got {y.shape}")
    if y.size and y.dtype.kind not in "biu":
        raise TypeError(f"{name} must hold integer class indices, got an array of dtype {y.dtype}")
    if y.size and not (y.min() >= 0 and y.max() < n_classes):
        wrong = np.flatnonzero((y < 0) | (y >= n_classes))[0]
        raise ValueError(
            f"{name} must hold class indices in [0, {n_classes}), got {y[wrong]} in row {wrong}"
        )
    return np.require(y, np.int32, ["C", "A"])


def _row_weights(sample_weight: ArrayLike | None, n_rows: int, real: np.dtype[Any]) -> Array:
    if sample_weight is None:
        return np.ones(n_rows, dtype=real)
    given = np.asarray(sample_weight)
    if given.shape != (n_rows,):
        raise ValueError(f"sample_weight must be of shape ({n_rows},), got {given.shape}")
    weights = _cast(_as_real("sample_weight", given)[0], real)
    wrong = np.flatnonzero(~((weights >= 0.0) & (weights < np.inf)))
    if wrong.size:
        raise ValueError(
            f"sample_weight must be finite and >= 0, got {given[wrong[0]]} in row {wrong[0]}"
        )
    return np.require(weights, requirements=["C", "A"])


def _total_weight(weights: Array, reduction: str) -> float:
    """Return what a sum over rows is divided by."""
    if reduction != "mean":
        return 1.0
    with np.errstate(over="ignore"):
        total = float(weights.sum(dtype=np.float64))
    if not 0.0 < total < math.inf:
        raise ValueError(
            f"a mean over rows needs weights with a finite sum > 0, "
            f"got {len(weights)} rows with a sum of {total}"
        )
    return total


def _check_reduction(reduction: str, accepted: tuple[str, ...]) -> None:
    if reduction not in accepted:
        raise ValueError(f"reduction must be one of {accepted}, got {reduction!r}")


def _smoothing(label_smoothing: Any) -> float:
    if not isinstance(label_smoothing, numbers.Real):
        raise TypeError(f"label_smoothing must be a number, got {label_smoothing!r}")
    smoothing = float(label_smoothing)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing!r}")
    return smoothing


def _n_threads(n_jobs: int | None, kernels: ModuleType) -> int:
    most = int(kernels.max_threads())
    if n_jobs is None:
        return most
    n_jobs = operator.index(n_jobs)
    if n_jobs == 0:
        raise ValueError("n_jobs must be None or an integer other than 0, got 0")
    return n_jobs if n_jobs > 0 else max(1, most + 1 + n_jobs)
