"""Rows that come in batches, to be read again in every epoch: their order, forms and totals."""

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length

from fastsoftmax._estimator.rows import checked_class_weights
from fastsoftmax._estimator.targets import (
    Given,
    class_labels,
    given_targets,
    kind_of,
    known_targets,
)
from fastsoftmax.arrays import Array
from fastsoftmax.floating_point import users_code, users_items
from fastsoftmax.foreign_arrays import as_numpy


class Batch(NamedTuple):
    """One batch as it came; only the number of its rows is known."""

    number: int  # from 0, empty ones counted
    X: Any
    y: Any
    sample_weight: Any  # or None


class Totals(NamedTuple):
    """What a pass over the batches finds."""

    classes: Array  # labels, sorted
    by_class: Array | None  # weight of each class, None for 1
    n_rows: int
    weight: float  # sum of sample weights times class weights


def are_batches(X: Any, y: Any) -> bool:
    """Whether a fit without y got batches, not rows whose labels were forgotten."""
    if y is not None or isinstance(X, str | bytes | Mapping | numbers.Number):
        return False
    if any(hasattr(X, name) for name in ("shape", "__array__", "__dataframe__")):
        return False
    if isinstance(X, list | tuple):
        return bool(X) and all(
            isinstance(item, list | tuple) and len(item) in (2, 3) and _has_rows(item[0])
            for item in X[:1]
        )
    return callable(X) or isinstance(X, Iterable)


def _has_rows(X: Any) -> bool:
    """Whether X has two dimensions: otherwise it is a row of a list of lists, not a batch."""
    shape = getattr(X, "shape", None)
    if shape is None:
        try:
            shape = np.shape(X)
        except ValueError:
            return True  # rows of different lengths: the batch raises that error
    return len(shape) >= 2 or 0 in shape


class BatchSource:
    """Batches that can be read again and again; a TypeError for what can be read only once."""

    def __init__(self, batches: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        if isinstance(batches, Iterator):
            raise TypeError(
                "batches are read once in every epoch, but a "
                f"{type(batches).__name__} can be read only once: give fit a callable that returns "
                "a new iterator, or an object that can be iterated repeatedly, such as a list"
            )
        self._batches = batches
        self._last: Any = None

    def __iter__(self) -> Iterator[Batch]:
        """Read all batches that have rows with a weight above 0."""
        batches = self._batches
        if not isinstance(batches, Iterable):
            with users_code():
                found = batches()
            if not isinstance(found, Iterable):
                raise TypeError(
                    "a callable given to fit must return an iterator of batches, got "
                    f"{type(found).__name__}"
                )
            if isinstance(found, Iterator) and found is self._last:
                raise TypeError(
                    "a callable given to fit must return a new iterator in every call, but it "
                    "returned the same one again"
                )
            batches = self._last = found
        for number, item in enumerate(users_items(batches)):
            batch = _batch(number, item)
            weightless = batch.sample_weight is not None and not np.any(batch.sample_weight)
            if _n_rows(batch) and not weightless:
                yield batch


def _batch(number: int, item: Any) -> Batch:
    if not (isinstance(item, tuple | list) and len(item) in (2, 3)):
        raise TypeError(
            f"batch {number} must be (X, y) or (X, y, sample_weight), got {type(item).__name__}"
            + (f" of length {len(item)}" if isinstance(item, tuple | list) else "")
        )
    with naming(number):
        X, y, *sample_weight = (
            as_numpy(part, name) for part, name in zip(item, Batch._fields[1:], strict=False)
        )
    return Batch(number, X, y, sample_weight[0] if sample_weight else None)


def _n_rows(batch: Batch) -> int:
    try:
        return int(batch.X.shape[0]) if hasattr(batch.X, "shape") else len(batch.X)
    except (TypeError, IndexError):
        raise TypeError(
            f"batch {batch.number} must hold rows of features, got {type(batch.X).__name__}"
        ) from None


@contextmanager
def naming(number: int) -> Iterator[None]:
    """Put the number of a batch in front of errors."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"batch {number} (from 0): {error}") from error


def totals_of(source: BatchSource, classes: Any, class_weight: Any) -> Totals:
    """Read targets and row weights of all batches; their features are checked when they are used.

    Without classes they are those of rows with a weight above 0.
    """
    known = None if classes is None else labels_of(classes)
    mass: dict[Any, float] = {}
    kinds: dict[str, np.dtype[Any]] = {}
    n_rows = 0
    for batch in source:
        with naming(batch.number):
            labels, by_label, kind, dtype = _label_masses(batch, known, classes)
        kinds[kind] = np.result_type(dtype, kinds.get(kind, dtype))
        n_rows += _n_rows(batch)
        for label, weight in zip(labels, by_label, strict=True):
            mass[label] = mass.get(label, 0.0) + float(weight)
    if not n_rows:
        raise ValueError("batches must hold rows with a weight above 0, and hold none")
    if len(kinds) > 1:
        raise ValueError(f"batches must hold labels of one kind, got {' and '.join(sorted(kinds))}")
    if known is None:
        (dtype,) = kinds.values()
        found = sorted(label for label, w in mass.items() if w > 0.0)
        # (of int64 and uint64 the common type is float64, which would round large ones)
        integers = all(isinstance(label, int) for label in found)
        known = np.array(found, dtype=None if integers and dtype.kind == "f" else dtype)
        if len(known) < 2:
            raise ValueError(
                f"batches must hold at least 2 classes with a weight above 0, got {known.tolist()}"
            )
    masses = np.array([mass.get(label, 0.0) for label in known.tolist()])
    by_class = None
    if class_weight is not None:
        by_class = checked_class_weights(class_weight, known, masses)
        masses = masses * by_class
    total = float(masses.sum())
    if not 0.0 < total < np.inf:
        raise ValueError(f"the weights of all rows must have a finite sum above 0, got {total}")
    return Totals(known, by_class, n_rows, total)


def _label_masses(
    batch: Batch, known: Array | None, classes: Any
) -> tuple[list[Any], Array, str, np.dtype[Any]]:
    """(labels of one batch, the row weights of each summed, kind of targets, dtype of labels)."""
    given = named_columns(batch.y, classes)
    y = given.values
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
        return labels.tolist(), masses, f"probabilities of {y.shape[1]} classes", labels.dtype
    check_classification_targets(y)
    found, positions = np.unique(y, return_inverse=True)
    kind = "booleans" if y.dtype.kind == "b" else kind_of(y)
    masses = np.bincount(positions.reshape(-1), row_weights, len(found))
    return found.tolist(), masses, kind, y.dtype


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
