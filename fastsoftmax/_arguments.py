"""Arguments checked and brought into the form that the kernels take."""

import math
import numbers
import operator
import os
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastsoftmax.arrays import Array
from fastsoftmax.foreign_arrays import as_array


def as_real(name: str, value: ArrayLike) -> tuple[Array, np.dtype[Any]]:
    """Return (value in the dtype that it is computed in, dtype of the result)."""
    array = as_array(value, name)
    dtype = real_dtype(name, array.dtype)
    return array.astype(compute_dtype(dtype), copy=False), dtype


def real_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of a result for arguments of a dtype."""
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return dtype.newbyteorder("=")
    raise TypeError(
        f"{name} must hold real numbers of at most 64 bits, got an array of dtype {dtype}"
    )


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a result of a dtype is computed."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array in a dtype; the array itself where it has that dtype."""
    with np.errstate(all="ignore"):  # what is too large for float16 becomes inf
        return array.astype(dtype, copy=False)


def adjacent_rows(rows: Array) -> Array:
    """Return rows that a kernel can read: `rows` itself where it can, otherwise a copy."""
    if has_adjacent_rows(rows):
        return rows
    return np.array(rows, dtype=rows.dtype.newbyteorder("="), order="C")


def features_in_place(X: Array) -> Array:
    """Return a matrix of features that the kernels can read: X itself except in rare cases.

    The strides of X may be anything.
    """
    if are_readable(X):
        return X
    return np.array(X, dtype=X.dtype.newbyteorder("="), order="C")


def are_readable(X: Array) -> bool:
    """Whether every element is aligned, and in the byte order of this machine."""
    whole = all(stride % X.itemsize == 0 for stride in X.strides)
    return bool(whole and X.flags.aligned and X.dtype.isnative)


def has_adjacent_rows(rows: Array) -> bool:
    """Whether the numbers of a row are adjacent and aligned; rows may be any distance apart."""
    row_stride, stride = rows.strides
    together = stride == rows.itemsize and row_stride % rows.itemsize == 0
    return together and rows.flags.aligned and rows.dtype.isnative


def targets_of(
    y: ArrayLike, n_rows: int, n_classes: int, real: np.dtype[Any]
) -> tuple[Array | None, Array | None]:
    """Return (labels, None) or (None, probabilities), checked, as the kernels take them."""
    y = as_array(y, "y")
    if y.ndim != 2:
        return class_indices(y, n_rows, n_classes), None
    if y.shape != (n_rows, n_classes):
        raise ValueError(
            f"y must be of shape ({n_rows},) or ({n_rows}, {n_classes}), got {y.shape}"
        )
    tolerance = 1e-3 if y.dtype == np.float16 else 1e-5
    y, _ = as_real("y", y)
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


def class_indices(y: Array, n_rows: int, n_classes: int, name: str = "y") -> Array:
    """Return labels as int32, checked to lie in [0, n_classes)."""
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


def row_weights_of(sample_weight: ArrayLike | None, n_rows: int, real: np.dtype[Any]) -> Array:
    """Return row weights, checked; ones for None."""
    if sample_weight is None:
        return np.ones(n_rows, dtype=real)
    given = as_array(sample_weight, "sample_weight")
    if given.shape != (n_rows,):
        raise ValueError(f"sample_weight must be of shape ({n_rows},), got {given.shape}")
    row_weights = cast(as_real("sample_weight", given)[0], real)
    wrong = np.flatnonzero(~((row_weights >= 0.0) & (row_weights < np.inf)))
    if wrong.size:
        raise ValueError(
            f"sample_weight must be finite and >= 0, got {given[wrong[0]]} in row {wrong[0]}"
        )
    return np.require(row_weights, requirements=["C", "A"])


def divisor_of(row_weights: Array, reduction: str) -> float:
    """Return what a sum over rows is divided by."""
    if reduction != "mean":
        return 1.0
    with np.errstate(over="ignore"):
        total = float(row_weights.sum(dtype=np.float64))
    if not 0.0 < total < math.inf:
        raise ValueError(
            f"a mean over rows needs weights with a finite sum > 0, "
            f"got {len(row_weights)} rows with a sum of {total}"
        )
    return total


def check_reduction(reduction: str, accepted: tuple[str, ...]) -> None:
    """Raise a ValueError unless the reduction is an accepted one."""
    if reduction not in accepted:
        raise ValueError(f"reduction must be one of {accepted}, got {reduction!r}")


def smoothing_of(label_smoothing: Any) -> float:
    """Return label_smoothing as a float in [0, 1]."""
    if not isinstance(label_smoothing, numbers.Real):
        raise TypeError(f"label_smoothing must be a number, got {label_smoothing!r}")
    smoothing = float(label_smoothing)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing!r}")
    return smoothing


def thread_count(n_jobs: int | None, kernels: ModuleType) -> int:
    """Return the number of threads: None for what OpenMP is allowed, -1 for all CPUs."""
    if n_jobs is None:
        return max(1, int(kernels.max_threads()))
    n_jobs = operator.index(n_jobs)
    if n_jobs == 0:
        raise ValueError("n_jobs must be None or an integer other than 0, got 0")
    if n_jobs > 0:
        return n_jobs
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        available = os.cpu_count() or 1
    return max(1, available + 1 + n_jobs)
