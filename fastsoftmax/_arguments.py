"""Checks of arguments, and their conversion to what the kernels take."""

import math
import numbers
import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastsoftmax.arrays import Array
from fastsoftmax.foreign_arrays import as_array
from fastsoftmax.processors import available_cpus, default_threads

# How far the sum of a row of probabilities may be from 1, by the size of the floats that they came
# in. A softmax computed in float16 is off by up to 1e-2 (ten roundings of 5e-4 in the sum of 1000
# exponentials), one in float32 by up to 1e-6, and by more where it went through logarithms.
_SUM_TOLERANCES = {2: 1e-2, 4: 1e-4}


@contextmanager
def argument_named(name: str) -> Iterator[None]:
    """Name the argument in errors of functions of others that do not."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if re.search(rf"\b{name}\b", str(error)):
            raise
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: {error}") from error


def plain(value: Any) -> Any:
    """Return a number, bool or string of numpy as Python's, whose repr is not np.int64(0)."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind in "biufSU" else value


def as_real(name: str, value: ArrayLike) -> tuple[Array, np.dtype[Any]]:
    """Return (value in the dtype of the computation, dtype of the result)."""
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
    """Return the array in a dtype; the array itself if it has that dtype."""
    with np.errstate(all="ignore"):  # numbers too large for float16 become inf
        return array.astype(dtype, copy=False)


def adjacent_rows(rows: Array) -> Array:
    """Return rows that a kernel can read: `rows` itself if possible, otherwise a copy."""
    return rows if has_adjacent_rows(rows) else _native_copy(rows)


def features_in_place(X: Array) -> Array:
    """Return a feature matrix that the kernels can read: X itself, of any strides, or a copy."""
    return X if are_readable(X) else _native_copy(X)


def _native_copy(array: Array) -> Array:
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def are_readable(X: Array) -> bool:
    """Whether every element is aligned and in the byte order of this machine."""
    flags = X.flags
    if not (flags.aligned and X.dtype.isnative):
        return False
    return flags.c_contiguous or all(stride % X.itemsize == 0 for stride in X.strides)


def has_adjacent_rows(rows: Array) -> bool:
    """Whether the numbers of each row are adjacent and aligned; rows may have any stride."""
    row_stride, stride = rows.strides
    together = stride == rows.itemsize and row_stride % rows.itemsize == 0
    return together and rows.flags.aligned and rows.dtype.isnative


def weighted_targets(
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    shape: tuple[int, int],
    real: np.dtype[Any],
    ignore_index: int | None,
) -> tuple[Array | None, Array | None, Array]:
    """(labels or None, probabilities or None, row weights) of `shape` (n_rows, n_classes), checked.

    Rows with the label `ignore_index` get weight 0, and rows of weight 0 may have any target.
    """
    y = np.asarray(y)
    row_weights = checked_row_weights(sample_weight, shape[0], real)
    row_weights = without_ignored(y, row_weights, ignore_index)
    labels, probs = checked_targets(y, *shape, real, row_weights)
    return labels, probs, row_weights


def without_ignored(y: Array, row_weights: Array, ignore_index: int | None) -> Array:
    """Return the row weights with 0 for rows with the label `ignore_index`; None for no such."""
    if ignore_index is None:
        return row_weights
    try:
        ignored = y == operator.index(ignore_index)
    except TypeError:
        raise TypeError(f"ignore_index must be None or an integer, got {ignore_index!r}") from None
    if y.ndim != 1:
        raise ValueError(
            f"ignore_index is for labels, got ignore_index={ignore_index} for y of shape {y.shape}"
        )
    if np.shape(ignored) != row_weights.shape:  # the check of y says what is wrong
        return row_weights
    return np.where(ignored, row_weights.dtype.type(0.0), row_weights)


def checked_targets(
    y: ArrayLike,
    n_rows: int,
    n_classes: int,
    real: np.dtype[Any],
    row_weights: Array | None = None,
) -> tuple[Array | None, Array | None]:
    """Return (labels, None) or (None, probabilities), checked, as the kernels take them."""
    y = as_array(y, "y")
    if y.ndim != 2:
        return class_indices(y, n_rows, n_classes, row_weights=row_weights), None
    if y.shape != (n_rows, n_classes):
        raise ValueError(
            f"y must be of shape ({n_rows},) or ({n_rows}, {n_classes}), got {y.shape}"
        )
    given = y.dtype
    y, _ = as_real("y", y)
    if n_rows:
        y = _distributions(y, given, real, row_weights)
    return None, np.require(y, real, ["C", "A"])


def _distributions(
    y: Array, given: np.dtype[Any], real: np.dtype[Any], row_weights: Array | None
) -> Array:
    """Return rows of probabilities, checked, with sums of 1 as far as rounding goes.

    given is the type that they came in. Rows are divided by their sums, in float64, where those
    differ from 1 by more than the rounding of a sum of that type.
    """
    sums = y.sum(axis=1, dtype=np.float64)
    errors = np.abs(sums - 1.0)
    rounding = 16.0 * float(np.finfo(y.dtype).eps)
    if errors.max() <= rounding and y.min() >= 0.0:
        return y
    tolerance = _SUM_TOLERANCES.get(given.itemsize if given.kind == "f" else 0, 1e-5)
    low = y.min(axis=1)
    negative, off = ~(low >= 0.0), ~(errors <= tolerance)
    y = np.array(y, dtype=real)
    if row_weights is not None:
        unused = (row_weights == 0.0) & (negative | off)
        y[unused], errors[unused] = 1.0 / y.shape[1], 0.0
        negative, off = negative & ~unused, off & ~unused
    if negative.any():
        row = int(negative.argmax())
        raise ValueError(f"y must hold probabilities, got {low[row]} in row {row}")
    if off.any():
        row = int(off.argmax())
        raise ValueError(
            f"each row of y must sum to 1 within {tolerance}, got a sum of {sums[row]} in row {row}"
        )
    rounded = errors > rounding
    y[rounded] = y[rounded] / sums[rounded, np.newaxis]
    return y


def class_indices(
    y: Array, n_rows: int, n_classes: int, name: str = "y", row_weights: Array | None = None
) -> Array:
    """Return labels as int32, checked to lie in [0, n_classes).

    Rows of weight 0 may have any labels; those become 0 where they lie outside.
    """
    if y.shape != (n_rows,):
        raise ValueError(f"{name} must be of shape ({n_rows},), got {y.shape}")
    if y.size and y.dtype.kind not in "biu":
        raise TypeError(f"{name} must hold integer class indices, got an array of dtype {y.dtype}")
    if y.size and not (y.min() >= 0 and y.max() < n_classes):
        outside = (y < 0) | (y >= n_classes)
        wrong = np.flatnonzero(outside if row_weights is None else outside & (row_weights > 0.0))
        if wrong.size:
            raise ValueError(
                f"{name} must hold class indices in [0, {n_classes}), got {y[wrong[0]]} in row "
                f"{wrong[0]}"
            )
        y = np.where(outside, 0, y)
    return np.require(y, np.int32, ["C", "A"])


def checked_row_weights(sample_weight: ArrayLike | None, n_rows: int, real: np.dtype[Any]) -> Array:
    """Return row weights; ones for None."""
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


def reduction_divisor(row_weights: Array, reduction: str) -> float:
    """Return the divisor of a sum over rows."""
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
    """Raise a ValueError unless the reduction is accepted."""
    if reduction not in accepted:
        raise ValueError(f"reduction must be one of {accepted}, got {reduction!r}")


def checked_smoothing(label_smoothing: Any) -> float:
    """Return label_smoothing as a float in [0, 1]."""
    if not isinstance(label_smoothing, numbers.Real):
        raise TypeError(f"label_smoothing must be a number, got {label_smoothing!r}")
    smoothing = float(label_smoothing)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing!r}")
    return smoothing


def thread_count(n_jobs: int | None, kernels: ModuleType) -> int:
    """Return the number of threads for n_jobs: None is the default, -1 all CPUs, -2 all but one."""
    if n_jobs is None:
        return default_threads(kernels).n_threads
    n_jobs = operator.index(n_jobs)
    if n_jobs == 0:
        raise ValueError("n_jobs must be None or an integer other than 0, got 0")
    if n_jobs > 0:
        return n_jobs
    return max(1, available_cpus().n_threads + 1 + n_jobs)
