"""Predictions for rows that come in parts: files, and batches with or without labels."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from fastsoftmax._estimator.batch_source import (
    Batch,
    BatchSource,
    are_batches,
    check_alone,
    naming,
)
from fastsoftmax.arrays import Array
from fastsoftmax.data_sources import NpyFiles, are_npy_files
from fastsoftmax.threads import read_ahead

T = TypeVar("T")


def in_parts(X: Any, y: Any = None, sample_weight: Any = None) -> BatchSource | None:
    """Return rows as a source of parts, with the targets that they bring or are given; else None.

    None is for rows in one array, frame or matrix.
    """
    if isinstance(X, np.ndarray):  # (a row takes some microseconds to predict)
        return None
    check_alone(X, y)
    if are_npy_files(X):
        X = NpyFiles(X, y, sample_weight)
    elif not are_batches(X, y):
        return None
    return BatchSource(X, labelled=False)


def labelled_parts(X: Any, y: Any, sample_weight: Any) -> BatchSource | None:
    """Return the same, all of which have to have labels."""
    parts = in_parts(X, y, sample_weight)
    if parts is None and y is None:
        raise TypeError("y is missing: the true labels, of rows that are not batches (X, y)")
    return parts


def each(parts: BatchSource, function: Callable[[Batch], T]) -> Iterator[T]:
    """Yield function(part); a thread reads ahead. A ValueError where there are no rows."""
    n_parts = 0
    for part in parts if parts.is_in_memory else read_ahead(iter(parts)):
        with naming(part):
            found = function(part)
        del part
        n_parts += 1
        yield found
    if not n_parts:
        raise ValueError("X must hold rows, got batches without any")


def joined(X: Any, function: Callable[[Any], Array]) -> Array:
    """Return function(X), an array with a row for each of X, also where X comes in parts."""
    parts = in_parts(X)
    if parts is None:
        return function(X)
    return np.concatenate(list(each(parts, lambda part: function(part.X))))


def each_labelled(
    parts: BatchSource, function: Callable[[Batch], Any]
) -> Iterator[tuple[float, Array]]:
    """Yield the sum of the row weights of each part that has any, and function(part)."""
    return (found for found in each(parts, lambda part: weighed(part, function)) if found[0])


def weighed(part: Batch, function: Callable[[Batch], Any]) -> tuple[float, Array]:
    """Return the sum of the row weights of a part, and function(part) where there are any."""
    if part.y is None:
        raise TypeError("y is missing: parts must be (X, y) or (X, y, sample_weight)")
    weight = float(part.n_rows)
    if part.sample_weight is not None:
        weight = float(np.sum(part.sample_weight, dtype=np.float64))
    return (weight, np.asarray(function(part))) if weight else (0.0, np.zeros(1))


def weighted_mean(values: Iterator[tuple[float, Array]]) -> Array:
    """Return the mean of arrays by weights."""
    total, weight = np.zeros(1), 0.0
    for own, means in values:
        total, weight = own * means + (total if weight else 0.0), weight + own
    if not weight > 0.0:
        raise ValueError("sample_weight must be >= 0 and not all 0, got 0 in all rows")
    return np.asarray(total / weight)
