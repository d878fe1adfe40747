"""What rows are to be predicted as: labels, or probabilities of the classes."""

from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets

from fastsoftmax._arguments import checked_targets
from fastsoftmax._estimator.labels import as_array, class_labels, kind_of, label_array
from fastsoftmax.arrays import Array
from fastsoftmax.blas import product


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
    plain = y.dtype.kind in "biu"  # these are labels in any case: the check takes 0.1 ms
    if not plain:
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    if plain and 2 * len(classes) > len(y):
        check_classification_targets(y)  # warns of that
    if len(classes) < 2:
        raise ValueError(
            "y must hold at least 2 classes: this classifier needs samples of at least two, but "
            f"the data contains only one class: {classes[0]!r}"
        )
    return Targets(classes, labels.reshape(-1).astype(np.int32))


def _new_probabilities(y: Array, classes: Any, row_weights: Array | None) -> Targets:
    """Return probabilities with columns in the order of sorted labels and rows of the sum 1."""
    n_classes = y.shape[1]
    columns = np.arange(n_classes) if classes is None else class_labels(classes)
    if columns.shape != (n_classes,):
        raise ValueError(
            f"classes must have a label for each of the {n_classes} columns of y, got {classes!r}"
        )
    if len(np.unique(columns)) < n_classes:
        raise ValueError(f"classes must be different from each other, got {classes!r}")
    order = np.argsort(columns, kind="stable")
    real = np.dtype(np.float64)
    probs = _checked_probabilities(y, n_classes, real, row_weights=row_weights)[:, order]
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
            f"leave only one class: {classes[present][0]!r}"
        )
    return Targets(classes[present], numbers_among(present)[labels])


def numbers_among(present: Array) -> Array:
    """(n_classes,) the numbers of the classes that are present among themselves; 0 of others."""
    return np.where(present, np.cumsum(present) - 1, 0).astype(np.int32)


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
        position = known_labels(given.names, classes, f"the header of {name}")
        columns = np.zeros((len(given.values), len(classes)), dtype=given.values.dtype)
        columns[:, position.most_likely] = given.values
    probs = _checked_probabilities(columns, len(classes), real, name, row_weights)
    return Targets(classes, None, probs)


def known_labels(
    y: Array,
    classes: Array,
    name: str = "y",
    *,
    seen: Array | None = None,
    row_weights: Array | None = None,
) -> Targets:
    """Return labels that must be among `classes`, except those of rows of weight 0.

    seen: labels of the fit, also those that it leaves out as all their rows have weight 0.
    """
    check_kind(y, classes, name)
    sought = y
    if y.dtype.kind in "iu" and classes.dtype.kind in "iu":
        sought = y.astype(classes.dtype, copy=False)  # int64 and uint64 would meet as float64
    position: Array = np.clip(np.searchsorted(classes, sought), 0, len(classes) - 1)
    unknown = classes[position] != y
    if unknown.any() and row_weights is not None:
        unknown &= row_weights > 0.0
    if unknown.any():
        label = y[unknown][0]
        if seen is not None and (seen == label).any():
            raise ValueError(
                f"{name} holds a label that the fit leaves out, as all rows of it have weight 0: "
                f"{label!r}"
            )
        raise ValueError(f"{name} holds a label that is none of the classes: {label!r}")
    return Targets(classes, position.astype(np.int32))


def check_kind(y: Array, classes: Array, name: str = "y") -> None:
    """Raise a ValueError where no label can be one of the classes, such as strings of numbers."""
    found, known = kind_of(y), kind_of(classes)
    if found != known and len(y):
        raise ValueError(
            f"{name} holds a label that is none of the classes: {y[0]!r}. It holds {found}, "
            f"and the classes are {known}"
        )


def _checked_probabilities(
    y: Array,
    n_classes: int,
    real: np.dtype[Any],
    name: str = "y",
    row_weights: Array | None = None,
) -> Array:
    """Return y of shape (n_rows, n_classes), checked, in a number type."""
    if y.shape[1] != n_classes:
        raise ValueError(
            f"{name} must have a column for each of {n_classes} classes, got {y.shape}"
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
