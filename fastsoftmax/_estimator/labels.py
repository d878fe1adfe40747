"""Labels as users pass them, as an array of their own type, of which none is missing.

scikit-learn converts nullable integers to float64, where 2^53 and 2^53 + 1 are one number, and
does not say which label is missing. So labels are read here, before it sees them.
"""

import math
import warnings
from collections.abc import Iterable
from datetime import date
from typing import Any

import numpy as np
from sklearn.exceptions import DataConversionWarning

from fastsoftmax.arrays import Array

# Names of the types of None, pandas.NA and NaT: pandas need not be installed.
_NOTHING = ("NoneType", "NAType", "NaTType")
# What labels of each kind of numpy are called in errors.
_KINDS = {
    **dict.fromkeys("biuf", "numbers"),
    **dict.fromkeys("UT", "strings"),
    "S": "bytes",
    "M": "dates",
    "m": "durations",
}


def label_array(y: Any, name: str = "y", place: str = "row") -> Array:
    """(n_rows,) the labels, none missing; `name` and `place` are for errors.

    Integers, booleans, floats and dates keep their type, also those of pandas, Arrow and polars.
    Strings become str or object as numpy has them, objects that are numbers become numbers.
    """
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biu":
        return y
    y = _column(as_array(y, name), name)
    if isinstance(y, np.ma.MaskedArray):
        _refuse_missing(np.ma.getmaskarray(y), name, place)
    if isinstance(getattr(y, "dtype", None), np.dtype):
        array = np.asarray(y)
    else:
        array = _foreign(y, name, place)
    if array.dtype.kind in "OT":
        array = _objects(array.astype(object, copy=False), name, place)
    if array.dtype.kind in "fMm":
        _refuse_missing(array != array, name, place)  # NaN and NaT
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must hold labels, got complex numbers")
    return array


def as_array(y: Any, name: str = "y") -> Any:
    """Return a list, or whatever else has no shape, as an array; anything else as it is.

    numpy would turn the numbers of a list into strings, beside strings.
    """
    if isinstance(getattr(y, "shape", None), tuple):
        return y
    try:
        array = np.asarray(y)
    except ValueError:
        raise ValueError(
            f"{name} must hold a label for each row, or as many probabilities for each row as for "
            "any other, got rows of different lengths"
        ) from None
    converted = array.ndim == 1 and array.dtype.kind in "fUSc" and isinstance(y, list | tuple)
    if converted and set(map(type, y)) not in ({float}, {str}):
        return np.fromiter(y, dtype=object, count=len(y))
    return array


def class_labels(classes: Any) -> Array:
    """Return the argument `classes` as labels in its order; with its shape where that is wrong."""
    whole = isinstance(classes, str | bytes) or hasattr(classes, "__array__")
    if isinstance(classes, Iterable) and not whole:
        classes = list(classes)
    classes = as_array(classes, "classes")
    if len(classes.shape) != 1:
        return np.asarray(classes)
    return label_array(classes, "classes", "place")


def kind_of(labels: Array) -> str:
    """Return what labels are: those of one kind can be compared with each other."""
    if labels.dtype.kind != "O":
        return _KINDS.get(labels.dtype.kind, "objects")
    first = labels[0] if labels.size else None
    if isinstance(first, date):
        return "dates"
    return "strings" if isinstance(first, str) else "objects"


def _column(y: Any, name: str) -> Any:
    """Return y with one dimension, a single column with scikit-learn's warning."""
    shape, is_sparse = tuple(y.shape), hasattr(y, "toarray")
    if len(shape) == 1 and not is_sparse:
        return y
    if len(shape) != 2 or shape[1] != 1 or is_sparse:
        form = "a sparse array" if is_sparse else "an array"
        raise ValueError(f"{name} should be a 1d array, got {form} of shape {shape} instead.")
    warnings.warn(
        f"A column-vector {name} was passed when a 1d array was expected. Please change the shape "
        f"of {name} to (n_samples,), for example using ravel().",
        DataConversionWarning,
        stacklevel=2,
    )
    if hasattr(y, "columns"):
        return y.iloc[:, 0] if hasattr(y, "iloc") else y[:, 0]
    return y.ravel() if isinstance(y, np.ndarray) else np.asarray(y).ravel()


def _foreign(y: Any, name: str, place: str) -> Array:
    """Return labels of pandas' own types, of Arrow, polars and others, as numpy's."""
    missing = getattr(y, "isna", None) or getattr(y, "is_null", None)
    if missing is not None:
        _refuse_missing(np.asarray(missing(), dtype=bool), name, place)
    categories = getattr(y.dtype, "categories", None)
    codes = getattr(getattr(y, "cat", y), "codes", None)
    if codes is not None and categories is not None and hasattr(categories, "dtype"):
        labels = label_array(categories, name, place)
        return np.take(labels, np.asarray(codes))
    dtype = getattr(y.dtype, "numpy_dtype", None)
    plain = isinstance(dtype, np.dtype) and dtype.kind in "biuf"
    return np.asarray(y, dtype=dtype) if plain else np.asarray(y)


def _objects(array: Array, name: str, place: str) -> Array:
    """Return objects as numbers if they are, otherwise as they are; they must be of one type."""
    values = array.tolist()
    types = set(map(type, values))
    if any(t.__name__ in _NOTHING or issubclass(t, float | np.generic) for t in types):
        _refuse_missing(np.fromiter(map(_is_missing, values), bool, len(values)), name, place)
    if not types or all(issubclass(t, str) for t in types):
        return array
    if all(issubclass(t, bool | np.bool_) for t in types):
        return array.astype(bool)
    if all(issubclass(t, bool | np.bool_ | int | np.integer) for t in types):
        integers = np.array([int(value) for value in values])
        if integers.dtype.kind in "iu":
            return integers
        raise ValueError(
            f"{name} must hold integers that one type of 64 bits can hold, got {min(values)} to "
            f"{max(values)}"
        )
    if all(issubclass(t, bool | np.bool_ | int | np.integer | float | np.floating) for t in types):
        numbers = np.array([float(value) for value in values])
        if all(map(_same, numbers.tolist(), values)):
            return numbers
        raise ValueError(f"{name} holds both fractions and integers too large for float64")
    if len(types) > 1:
        found = " and ".join(sorted({t.__name__ for t in types}))
        raise TypeError(f"{name} must hold labels of one type, got {found}")
    return array


def _is_missing(value: Any) -> bool:
    """Whether an object stands for a missing label."""
    if type(value).__name__ in _NOTHING:
        return True
    return isinstance(value, float | np.generic) and bool(value != value)


def _same(number: float, value: Any) -> bool:
    """Whether a float is the number that it was made of."""
    return not math.isfinite(number) or number == value


def _refuse_missing(missing: Array, name: str, place: str) -> None:
    """Raise a ValueError that says where the first label is missing."""
    if missing.any():
        raise ValueError(f"{name} lacks a label in {place} {int(missing.argmax())}")
