"""What rows are to be predicted as: labels, or probabilities of the classes."""

from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from fastsoftmax._arguments import targets_of
from fastsoftmax.arrays import Array
from fastsoftmax.blas import product


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


def are_probabilities(y: Any) -> bool:
    """Whether y has a column for each class; a single column is a column vector of labels."""
    try:
        shape = np.asarray(y).shape
    except ValueError:  # rows of different lengths
        return False
    return len(shape) == 2 and shape[1] > 1


# ---- targets that decide which classes there are ----


def new_targets(y: Any, classes: Any = None) -> Targets:
    """Return probabilities, or labels with the classes that occur among them.

    classes holds the labels of the columns of probabilities; None for 0, 1, ...
    """
    if are_probabilities(y):
        return _new_probabilities(y, classes)
    if classes is not None:
        raise ValueError(
            "classes names the columns of a y of shape (n_rows, n_classes) that holds "
            f"probabilities; y has the shape {np.shape(y)}"
        )
    return new_labels(y)


def new_labels(y: Any) -> Targets:
    """Return labels with the classes that occur among them."""
    if type(y) is not np.ndarray or y.ndim != 1:
        y = column_or_1d(y, warn=True)
    plain = y.dtype.kind in "biu"  # these are labels in any case: the check takes 0.1 ms
    if not plain:
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


def _new_probabilities(y: Any, classes: Any) -> Targets:
    """Return probabilities with columns in the order of sorted labels and rows of the sum 1."""
    n_classes = np.shape(y)[1]
    columns = np.arange(n_classes) if classes is None else np.asarray(classes)
    if columns.shape != (n_classes,):
        raise ValueError(
            f"classes must have a label for each of the {n_classes} columns of y, got {classes!r}"
        )
    if len(np.unique(columns)) < n_classes:
        raise ValueError(f"classes must be different from each other, got {classes!r}")
    order = np.argsort(columns, kind="stable")
    probs = checked_probabilities(y, n_classes, np.dtype(np.float64))[:, order]
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


def known_targets(y: Any, classes: Array, real: np.dtype[Any]) -> Targets:
    """Return probabilities in a number type, or labels, of sorted classes."""
    if are_probabilities(y):
        return Targets(classes, None, checked_probabilities(y, len(classes), real))
    return known_labels(y, classes, "y")


def known_labels(y: Any, classes: Array, name: str, seen: Array | None = None) -> Targets:
    """Return labels that must be among `classes`.

    seen: labels of the fit, also those that it leaves out as all their rows have weight 0.
    """
    y = column_or_1d(y, warn=True)
    position: Array = np.clip(np.searchsorted(classes, y), 0, len(classes) - 1)
    unknown = classes[position] != y
    if unknown.any():
        label = y[unknown][0]
        if seen is not None and (seen == label).any():
            raise ValueError(
                f"{name} holds a label that the fit leaves out, as all rows of it have weight 0: "
                f"{label!r}"
            )
        raise ValueError(f"{name} holds a label that is none of the classes: {label!r}")
    return Targets(classes, position.astype(np.int32))


def checked_probabilities(y: Any, n_classes: int, real: np.dtype[Any]) -> Array:
    """Return y of shape (n_rows, n_classes), checked, in a number type."""
    y = np.asarray(y)
    if y.shape[1] != n_classes:
        raise ValueError(f"y must have a column for each of {n_classes} classes, got {y.shape}")
    try:
        probs = targets_of(y, len(y), n_classes, real)[1]
    except ValueError as error:
        raise ValueError(
            f"y of shape {y.shape} must hold probabilities of the classes (labels are 1d): {error}"
        ) from error
    assert probs is not None
    return probs
