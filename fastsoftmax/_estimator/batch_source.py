"""Rows that come in batches, to be read again in every pass: their forms, order and names."""

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._estimator.features import not_finite
from fastsoftmax.arrays import Array
from fastsoftmax.data_sources import Buffers, Files
from fastsoftmax.floating_point import users_code, users_items
from fastsoftmax.foreign_arrays import as_numpy


class Batch(NamedTuple):
    """One batch as it came; only the number of its rows is known."""

    number: int  # from 0, empty ones counted
    X: Any
    y: Any = None
    sample_weight: Any = None
    source: str = "batch 0 (from 0)"  # what the rows are of, and the number of the first there
    first_row: int = 0

    @property
    def n_rows(self) -> int:
        """Rows; a TypeError where X holds none."""
        try:
            return int(self.X.shape[0]) if hasattr(self.X, "shape") else len(self.X)
        except (TypeError, IndexError):
            raise TypeError(
                f"batch {self.number} must hold rows of features, got {type(self.X).__name__}"
            ) from None

    @property
    def is_weightless(self) -> bool:
        """Whether no row counts."""
        return self.sample_weight is not None and not np.any(self.sample_weight)

    def row(self, number: int) -> str:
        """Name a row for errors."""
        return f"row {self.first_row + number} of {self.source}"


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


def check_alone(X: Any, y: Any) -> None:
    """Raise a TypeError where a source of files gets labels beside its own."""
    if isinstance(X, Files) and y is not None:
        raise TypeError(
            f"{type(X).__name__} brings its own labels: give y to it instead, or name the column"
        )


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
    """Batches that can be read again and again; a TypeError for what can be read only once.

    labelled is whether batches must have labels; otherwise they may be features alone.
    """

    def __init__(
        self, batches: Iterable[Any] | Callable[[], Iterable[Any]], *, labelled: bool = True
    ) -> None:
        if labelled and isinstance(batches, Iterator):
            raise TypeError(
                "batches are read once in every epoch, but a "
                f"{type(batches).__name__} can be read only once: give fit a callable that returns "
                "a new iterator, or an object that can be iterated repeatedly, such as a list"
            )
        self._batches, self._labelled = batches, labelled
        self._last: Any = None
        self._buffers = Buffers()

    @property
    def is_in_memory(self) -> bool:
        """Whether nothing is gained by reading ahead."""
        return isinstance(self._batches, list | tuple)

    def __iter__(self) -> Iterator[Batch]:
        """Read all batches that have rows with a weight above 0."""
        batches = self._batches
        if isinstance(batches, Files):
            batches = batches.read(self._buffers)
        elif not isinstance(batches, Iterable):
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
        number = -1
        for item in users_items(batches):  # (`enumerate` would hold an item until the next one)
            number += 1
            batch = self._batch(number, item)
            del item  # its memory may be used for the next one
            if batch.n_rows and not (self._labelled and batch.is_weightless):
                yield batch
            del batch

    def _batch(self, number: int, item: Any) -> Batch:
        source, first_row = f"batch {number} (from 0)", 0
        if isinstance(self._batches, Files):
            source, first_row = self._batches.place_of(number)
        empty = Batch(number, None, source=source, first_row=first_row)
        return with_parts(empty, item, labelled=self._labelled)


def with_parts(batch: Batch, item: Any, *, labelled: bool = True) -> Batch:
    """Return a batch with the parts that came for it."""
    if not isinstance(item, tuple | list) and not labelled:
        item = (item,)
    least = 2 if labelled else 1
    if not (isinstance(item, tuple | list) and least <= len(item) <= 3):
        raise TypeError(
            f"batch {batch.number} must be (X, y) or (X, y, sample_weight), "
            f"got {type(item).__name__}"
            + (f" of length {len(item)}" if isinstance(item, tuple | list) else "")
        )
    with naming(batch):
        parts = {
            name: as_numpy(part, name) for name, part in zip(Batch._fields[1:], item, strict=False)
        }
    return batch._replace(**parts)


@contextmanager
def naming(batch: Batch) -> Iterator[None]:
    """Put the name of a batch in front of errors."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        place = batch.source
        if batch.first_row:
            place = f"{place}, rows counted from {batch.first_row}"
        raise kind(f"{place}: {error}") from error


def check_finite(batch: Batch, X: Any, columns: Array | None = None) -> None:
    """Raise a ValueError that names the first number of a batch that is not finite."""
    found = not_finite(X, columns)
    if found is not None:
        row, column, value = found
        raise ValueError(
            f"X must hold finite numbers, got {value} in {batch.row(row)}, column {column}"
        )
