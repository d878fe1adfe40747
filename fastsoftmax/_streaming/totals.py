"""What a pass over batches finds of their targets and row weights."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_consistent_length

from fastsoftmax._arguments import argument_named
from fastsoftmax._estimator.batch_source import Batch, BatchSource, naming
from fastsoftmax._estimator.label_numbers import numbered_labels
from fastsoftmax._estimator.rows import checked_class_weights
from fastsoftmax._estimator.targets import (
    Given,
    class_labels,
    given_targets,
    kind_of,
    known_targets,
)
from fastsoftmax.arrays import Array


class Totals(NamedTuple):
    """What a pass over the batches finds."""

    classes: Array  # labels, sorted
    by_class: Array | None  # weight of each class, None for 1
    n_rows: int
    weight: float  # sum of sample weights times class weights
    masses: Array | None = None  # that sum for each class


class LabelMasses(NamedTuple):
    """The labels of a batch, with the sum of the row weights of each."""

    labels: list[Any]
    masses: Array
    kind: str  # of the targets
    dtype: np.dtype[Any]
    n_rows: int


class Totalling:
    """Targets and row weights of batches, added up; without classes, they are found."""

    def __init__(self, classes: Any, class_weight: Any) -> None:
        self._given, self._class_weight = classes, class_weight
        self._known = None if classes is None else labels_of(classes)
        self._mass: dict[Any, float] = {}
        self._kinds: dict[str, np.dtype[Any]] = {}
        self._n_rows = 0

    def see(self, batch: Batch) -> None:
        """Add a batch, whose targets are checked."""
        self.add(label_masses(batch, self._known, self._given))

    def add(self, found: LabelMasses) -> None:
        """Add what was found of a batch."""
        kind, dtype = found.kind, found.dtype
        self._kinds[kind] = np.result_type(dtype, self._kinds.get(kind, dtype))
        self._n_rows += found.n_rows
        for label, weight in zip(found.labels, found.masses, strict=True):
            self._mass[label] = self._mass.get(label, 0.0) + float(weight)

    def totals(self) -> Totals:
        """Return what was found in all of them."""
        kinds, known = self._kinds, self._known
        if not self._n_rows:
            raise ValueError("batches must hold rows with a weight above 0, and hold none")
        if len(kinds) > 1:
            raise ValueError(
                f"batches must hold labels of one kind, got {' and '.join(sorted(kinds))}"
            )
        if known is None:
            (dtype,) = kinds.values()
            found = sorted(label for label, w in self._mass.items() if w > 0.0)
            # (of int64 and uint64 the common type is float64, which would round large ones)
            integers = all(isinstance(label, int) for label in found)
            known = np.array(found, dtype=None if integers and dtype.kind == "f" else dtype)
            if len(known) < 2:
                raise ValueError(
                    "batches must hold at least 2 classes with a weight above 0, got "
                    f"{known.tolist()}"
                )
        masses = np.array([self._mass.get(label, 0.0) for label in known.tolist()])
        by_class = None
        if self._class_weight is not None:
            by_class = checked_class_weights(self._class_weight, known, masses)
            masses = masses * by_class
        total = float(masses.sum())
        if not 0.0 < total < np.inf:
            raise ValueError(f"the weights of all rows must have a finite sum above 0, got {total}")
        return Totals(known, by_class, self._n_rows, total, masses)


def totals_of(source: BatchSource, classes: Any, class_weight: Any) -> Totals:
    """Read targets and row weights of all batches; their features are checked when they are used.

    Without classes they are those of rows with a weight above 0.
    """
    totalling = Totalling(classes, class_weight)
    for batch in source:
        with naming(batch):
            totalling.see(batch)
    return totalling.totals()


def label_masses(batch: Batch, known: Array | None, classes: Any) -> LabelMasses:
    """Return the labels of a batch; known are those of all classes, where `classes` gives them."""
    given = named_columns(batch.y, classes)
    y = given.values
    with argument_named("y"):
        check_consistent_length(batch.X, y)
    row_weights = np.ones(len(y))
    if batch.sample_weight is not None:
        row_weights = np.asarray(batch.sample_weight, dtype=np.float64)
        if row_weights.shape != (len(y),) or not (row_weights >= 0.0).all():
            raise ValueError(f"sample_weight must be {len(y)} numbers >= 0")
    if given.columns is not None:
        labels = known
        if labels is None:
            labels = np.arange(y.shape[1]) if given.names is None else np.unique(given.names)
        real = np.dtype(np.float64)
        masses = known_targets(given, labels, real, row_weights=row_weights).masses(row_weights)
        kind = f"probabilities of {y.shape[1]} classes"
        return LabelMasses(labels.tolist(), masses, kind, labels.dtype, batch.n_rows)
    found, positions = numbered_labels(y)
    kind = "booleans" if y.dtype.kind == "b" else kind_of(y)
    masses = np.bincount(positions, row_weights, len(found))
    return LabelMasses(found.tolist(), masses, kind, y.dtype, batch.n_rows)


def labels_of(classes: Any) -> Array:
    """Return the labels that were given, sorted and checked."""
    given = class_labels(classes)
    labels = np.unique(given)
    if given.ndim != 1 or len(labels) < 2 or len(labels) < len(given):
        raise ValueError(f"classes must hold at least 2 labels, all different, got {classes!r}")
    return labels


def named_columns(y: Any, classes: Any) -> Given:
    """Return targets whose columns have the names that `classes` gives them, or their own."""
    given = given_targets(y)
    if given.columns is None or classes is None or given.names is not None:
        return given
    names = class_labels(classes)
    return given if given.columns.shape[1] != len(names) else given._replace(names=names)
