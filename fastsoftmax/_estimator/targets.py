"""What rows are to be predicted as: labels, or probabilities of the classes.

scikit-learn converts nullable integers to float64, where 2^53 and 2^53 + 1 are one number, and
does not say which label is missing. So labels are read here, before it sees them.
"""

import math
import warnings
from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.exceptions import DataConversionWarning

from fastsoftmax._arguments import checked_targets, plain
from fastsoftmax._estimator.label_numbers import numbered_labels, numbers_among
from fastsoftmax.arrays import MOST_CLASSES, Array
from fastsoftmax.blas import product

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


class Given(NamedTuple):
    """What users pass as y, as numpy's arrays: either labels or columns, the other is None."""

    labels: Array | None  # (n_rows,) of their own type, none missing
    columns: Array | None = None  # (n_rows, n_classes) numbers
    names: Array | None = None  # (n_classes,) the labels of the columns, where y names them

    @property
    def values(self) -> Array:
        """The labels or the columns: an array with a row for each row of X."""
        values = self.labels if self.columns is None else self.columns
        assert values is not None
        return values


class Targets(NamedTuple):
    """The targets of some rows: either labels or probabilities, the other is None."""

    classes: Array  # (n_classes,) labels of the classes, sorted
    labels: Array | None  # (n_rows,) class numbers, int32
    probs: Array | None = None  # (n_rows, n_classes)

    @property
    def most_likely(self) -> Array:
        """(n_rows,) the class number of each row, of probabilities that of the largest."""
        if self.labels is not None:
            return self.labels
        assert self.probs is not None
        return np.asarray(self.probs.argmax(axis=1))

    def masses(self, row_weights: Array) -> Array:
        """(n_classes,) the sum of the row weights of each class, of probabilities their shares."""
        if self.probs is not None:
            return np.asarray(product(row_weights, self.probs))
        return np.bincount(self.most_likely, row_weights, minlength=len(self.classes))

    def of_rows(self, rows: Array) -> Self:
        """Return the targets of the rows with these numbers."""
        labels = None if self.labels is None else self.labels[rows]
        return self._replace(labels=labels, probs=None if self.probs is None else self.probs[rows])


# ---- labels as users pass them, as an array of their own type, of which none is missing ----


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
    """Return a list, or whatever else has no shape, as an array; anything else as it is."""
    if isinstance(getattr(y, "shape", None), tuple):
        return y
    try:
        array = np.asarray(y)
    except ValueError:
        raise ValueError(
            f"{name} must hold a label for each row, or as many probabilities for each row as for "
            "any other, got rows of different lengths"
        ) from None
    # numpy turns the numbers of a list into strings, beside strings
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
        missing = [
            type(v).__name__ in _NOTHING or (isinstance(v, float | np.generic) and bool(v != v))
            for v in values
        ]
        _refuse_missing(np.array(missing), name, place)
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
        pairs = zip(numbers.tolist(), values, strict=True)
        if all(number == value or not math.isfinite(number) for number, value in pairs):
            return numbers
        raise ValueError(f"{name} holds both fractions and integers too large for float64")
    if len(types) > 1:
        found = " and ".join(sorted({t.__name__ for t in types}))
        raise TypeError(f"{name} must hold labels of one type, got {found}")
    return array


def _refuse_missing(missing: Array, name: str, place: str) -> None:
    """Raise a ValueError that says where the first label is missing."""
    if missing.any():
        raise ValueError(f"{name} lacks a label in {place} {int(missing.argmax())}")


# ---- from what users pass ----


def given_targets(y: Any, name: str = "y") -> Given:
    """Return y as arrays. With more than one column it is probabilities, also where it is sparse.

    The columns of a frame name the classes, unless they have default names.
    """
    if isinstance(y, Given):
        return y
    y = as_array(y, name)
    if len(y.shape) != 2 or y.shape[1] < 2:
        return Given(label_array(y, name))
    return Given(None, _columns_of(y, name), _names_of(y, name))


def _columns_of(y: Any, name: str) -> Array:
    """(n_rows, n_classes) the numbers in the columns of an array, a frame or a sparse matrix."""
    if hasattr(y, "toarray"):
        return np.asarray(y.toarray())
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        row = int(np.ma.getmaskarray(y).any(axis=1).argmax())
        raise ValueError(f"{name} lacks a probability in row {row}")
    array = np.asarray(y)
    if array.dtype.kind != "O":
        return array
    if hasattr(y, "iloc"):  # of pandas: columns of different types, or with its own
        types = [getattr(t, "numpy_dtype", getattr(t, "subtype", t)) for t in y.dtypes]
        numbers = all(isinstance(t, np.dtype) and t.kind in "biuf" for t in types)
        if numbers:
            return np.asarray(y.to_numpy(np.result_type(*types, np.float16), na_value=np.nan))
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} of shape {array.shape} must hold probabilities of the classes, got objects "
            "that are not all numbers"
        ) from None


def _names_of(y: Any, name: str) -> Array | None:
    """(n_classes,) the labels that name the columns; None where there are none, or default ones."""
    given = getattr(y, "column_names", getattr(y, "columns", None))
    if given is None:
        return None
    names = label_array(given, f"the header of {name}", "place")
    numbered = names.dtype.kind in "iu" and np.array_equal(names, np.arange(len(names)))
    default = [f"column_{k}" for k in range(len(names))]  # of polars
    return None if numbered or names.tolist() == default else names


# ---- targets that decide which classes there are ----


def new_targets(given: Given, classes: Any = None, sample_weight: Any = None) -> Targets:
    """Return probabilities, or labels with the classes that occur among them.

    classes holds the labels of the columns of probabilities; None for their names, or 0, 1, ...
    Rows of weight 0 may have any probabilities.
    """
    if given.columns is not None:
        names = given.names if classes is None else classes
        weights = None if sample_weight is None else np.asarray(sample_weight)
        return _new_probabilities(given.columns, names, weights)
    if classes is not None:
        raise ValueError(
            "classes names the columns of a y of shape (n_rows, n_classes) that holds "
            f"probabilities; y has the shape {given.values.shape}"
        )
    return new_labels(given)


def new_labels(given: Given) -> Targets:
    """Return labels with the classes that occur among them."""
    y = given.values
    if y.ndim != 1:
        raise ValueError(f"y should be a 1d array, got an array of shape {y.shape} instead.")
    classes, labels = numbered_labels(y)
    if len(classes) < 2:
        raise ValueError(
            "y must hold at least 2 classes, but the data contains only one class: "
            f"{plain(classes[0])!r}"
        )
    return Targets(classes, labels)


def _new_probabilities(y: Array, classes: Any, row_weights: Array | None) -> Targets:
    """Return probabilities with columns in the order of sorted labels and rows of the sum 1."""
    n_classes = y.shape[1]
    if n_classes > MOST_CLASSES:
        raise ValueError(
            f"y must have at most {MOST_CLASSES} columns, one a class, got {n_classes}"
        )
    columns = np.arange(n_classes) if classes is None else class_labels(classes)
    if columns.shape != (n_classes,):
        raise ValueError(
            f"classes must have a label for each of the {n_classes} columns of y, got {classes!r}"
        )
    if len(np.unique(columns)) < n_classes:
        raise ValueError(f"classes must be different from each other, got {classes!r}")
    order = np.argsort(columns, kind="stable")
    probs = _checked_probabilities(y, n_classes, np.dtype(float), row_weights=row_weights)[:, order]
    return Targets(columns[order], None, probs / probs.sum(axis=1, keepdims=True))


def with_weight(targets: Targets, row_weights: Array, *, smoothed: bool) -> Targets:
    """Return the targets without classes of which every row has weight 0, as if without those rows.

    Rows with the label of a class that is left out get the class number 0, at weight 0. Of
    probabilities no class may lack weight, except where smoothing gives it some.
    """
    present = targets.masses(row_weights) > 0.0
    classes, labels = targets.classes, targets.labels
    if labels is None:
        if not (present.all() or smoothed):
            raise ValueError(
                "y must give every class a probability above 0 in a row with a weight above 0, "
                f"but gives none to class {classes[~present].tolist()[0]!r}: leave its column out"
            )
        return targets
    if present.all():
        return targets
    if present.sum() < 2:
        raise ValueError(
            "y must hold at least 2 classes with a weight above 0: sample_weight and class_weight "
            f"leave only one class: {plain(classes[present][0])!r}"
        )
    return Targets(classes[present], numbers_among(present)[labels])


# ---- targets among known classes ----


def known_targets(
    given: Given,
    classes: Array,
    real: np.dtype[Any],
    name: str = "y",
    *,
    seen: Array | None = None,
    row_weights: Array | None = None,
) -> Targets:
    """Return probabilities in a number type, or labels, of sorted classes.

    Columns without names are those of the classes in their order. Columns with names are found by
    them, and a class that has none of them has no probability.
    """
    if given.labels is not None:
        return known_labels(given.labels, classes, name, seen=seen, row_weights=row_weights)
    columns = given.values
    if given.names is not None:
        position = known_labels(given.names, classes, f"the header of {name}", place="place")
        columns = np.zeros((len(given.values), len(classes)), dtype=given.values.dtype)
        columns[:, position.most_likely] = given.values
    probs = _checked_probabilities(columns, len(classes), real, name, row_weights)
    return Targets(classes, None, probs)


def known_labels(
    y: Array,
    classes: Array,
    name: str = "y",
    *,
    seen: Array | None = None,  # of the fit, also those left out as all their rows have weight 0
    row_weights: Array | None = None,
    place: str = "row",
) -> Targets:
    """Return labels that must be among `classes`, except those of rows of weight 0."""
    check_kind(y, classes, name)
    sought, last = y, len(classes) - 1
    are_integers = y.dtype.kind in "iu" and classes.dtype.kind in "iu"
    if are_integers:
        sought = y.astype(classes.dtype, copy=False)  # int64 and uint64 would meet as float64
    if are_integers and int(classes[-1]) - int(classes[0]) == last:  # 0, 1, ...: no search
        wide = np.int64 if classes.dtype.kind == "i" else np.uint64
        least = wide(classes[0])
        position: Array = np.clip(sought, classes[0], classes[-1]).astype(wide) - least
    else:
        position = np.clip(np.searchsorted(classes, sought), 0, last)
    unknown = classes[position] != y
    if unknown.any() and row_weights is not None:
        unknown &= row_weights > 0.0
    if unknown.any():
        row = int(unknown.argmax())
        label = plain(y[row])
        if seen is not None and (seen == label).any():
            raise ValueError(
                f"{name} holds a label that the fit leaves out, as all rows of it have weight 0: "
                f"{label!r}"
            )
        raise ValueError(
            f"{name} holds a label that is none of the classes: {label!r} in {place} {row}"
        )
    return Targets(classes, position.astype(np.int32))


def check_kind(y: Array, classes: Array, name: str = "y") -> None:
    """Raise a ValueError where no label can be one of the classes, such as strings of numbers."""
    found, known = kind_of(y), kind_of(classes)
    if found != known and len(y):
        raise ValueError(
            f"{name} holds a label that is none of the classes: {plain(y[0])!r}. It holds {found}, "
            f"and the classes are {known}"
        )


def _checked_probabilities(
    y: Array, n_classes: int, real: np.dtype[Any], name: str = "y", row_weights: Array | None = None
) -> Array:
    """Return y of shape (n_rows, n_classes), checked, in a number type."""
    if y.shape[1] != n_classes:
        raise ValueError(
            f"{name} must have a column for each of {n_classes} classes, got the shape {y.shape}"
        )
    if row_weights is not None and row_weights.shape != (len(y),):
        row_weights = None  # their own check says what is wrong
    try:
        probs = checked_targets(y, len(y), n_classes, real, row_weights)[1]
    except ValueError as error:
        raise ValueError(
            f"{name} of shape {y.shape} must hold probabilities of the classes (labels are 1d): "
            f"{error}"
        ) from error
    assert probs is not None
    return probs
