"""The first pass over batches: what a full-batch fit has to know before it begins.

It finds classes, weights, means and second moments of the features, which sparse columns have
entries, and draws the rows that stand for all where a few are enough (`sample`).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fastsoftmax._estimator.batch_source import Batch, BatchSource, check_finite, naming
from fastsoftmax._estimator.features import checked_rows, real_type
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import checked_sample_weights, computing_of
from fastsoftmax._estimator.targets import Given
from fastsoftmax._streaming.sample import RowSample
from fastsoftmax._streaming.totals import Totalling, Totals, named_columns
from fastsoftmax.arrays import Array
from fastsoftmax.columns import may_be_unfilled, unless_most
from fastsoftmax.shards.rows import build_shard
from fastsoftmax.shards.shard import Shard
from fastsoftmax.shards.spread import (
    ColumnMoments,
    Moments,
    Spread,
    add_moments,
    column_moments,
    may_spread,
    near,
    spread_of,
)
from fastsoftmax.threads import read_ahead

# Rows of the first batch that tell where features lie, and how far apart.
_FIRST_ROWS = 64
# Where a mean is more deviations away from there, its square would hide the variance.
_MOST_AWAY = 8.0


class Found(NamedTuple):
    """What the first pass has found."""

    totals: Totals
    real: np.dtype[Any]  # that sums are computed in
    n_batches: int
    stored_numbers: float
    n_bytes: float  # of the features
    is_dense: bool
    columns: Array | None  # of sparse rows, those with entries; None for all
    spread: Spread | None  # of dense rows; None where it is not known
    moments: ColumnMoments | None  # the same of sparse rows, of these columns
    least_weight: float  # of a row, as sample weights were given
    sample: tuple[Any, Array, Any]  # features, row weights as given and targets of drawn rows


class _Checked(NamedTuple):
    """A batch in the form that shards take."""

    batch: Batch
    X: Any
    y: Given
    row_weights: Array  # (n_rows,) float64


def surveyed(
    estimator: FitParameters, source: BatchSource, classes: Any, beside: Any = None
) -> Found:
    """Read all batches once. beside holds coefficients to start from, whose columns count."""
    totalling = Totalling(classes, estimator.class_weight)
    sums = _Sums(estimator, beside)
    given = _checked(estimator, source, classes, totalling)
    for item in given if source.is_in_memory else read_ahead(given):
        sums.add(item)
        del item
    totals = totalling.totals()
    return sums.found(totals)


def _checked(
    estimator: FitParameters, source: BatchSource, classes: Any, totalling: Totalling
) -> Iterator[_Checked]:
    """Yield the batches, checked, after their targets were added up."""
    real = is_dense = None
    for batch in source:
        with naming(batch):
            batch = batch._replace(y=named_columns(batch.y, classes))
            X, y = checked_rows(
                estimator, batch.X, batch.y, reset=real is None, real=real, finite=False
            )
            real = real_type(X.dtype)
            if is_dense not in (None, not sparse.issparse(X)):
                raise ValueError("X must be dense in all batches, or sparse in all")
            is_dense = not sparse.issparse(X)
            row_weights = checked_sample_weights(batch.sample_weight, X)
            totalling.see(batch)
        yield _Checked(batch, X, y, row_weights)
        del batch, X


class _Sums:
    """Sums over the features, and the sample."""

    def __init__(self, estimator: FitParameters, beside: Any) -> None:
        self._computing = computing_of(estimator)
        self._keeps_targets = estimator.class_weight is not None
        self._beside = beside
        self._sample = RowSample()
        self._n_batches, self._numbers, self._bytes = 0, 0.0, 0.0
        self._least = np.inf
        self._unit = 1.0  # of the row weights: of those of the first batch the mean
        self._near: tuple[Array, Array] | None = None  # shift and units
        self._moments: Moments | None = None
        self._used: Array | None = None  # which columns of sparse rows have entries
        self._columns: Array | None = None  # (2, n_features) their weighted sums of x and x^2
        self._real = np.dtype(np.float64)

    def add(self, item: _Checked) -> None:
        """Add a batch."""
        X, real = item.X, real_type(item.X.dtype)
        if not self._n_batches:
            self._real = real
            self._unit = float(item.row_weights.mean())
        self._n_batches += 1
        self._numbers += X.size
        self._least = min(self._least, float(item.row_weights.min()))
        if sparse.issparse(X):
            self._bytes += X.data.nbytes + X.indices.nbytes
            check_finite(item.batch, X)
            self._add_columns(item)
        else:
            self._bytes += X.nbytes
            self._add_moments(item)
        targets = [item.y.values] if self._keeps_targets else []
        self._sample.see(X, item.row_weights, *targets)

    def _add_columns(self, item: _Checked) -> None:
        X, d = item.X, item.X.shape[1]
        self._shard(X, item.row_weights.astype(self._real))  # checks the indices
        if self._used is None:
            self._used, self._columns = np.zeros(d, dtype=bool), np.zeros((2, d))
        own = slice(X.indptr[0], X.indptr[-1])
        entries, x = X.indices[own], X.data[own].astype(np.float64)
        self._used[entries] = True
        if self._columns is None or not X.has_canonical_format:  # what occurs twice adds up
            self._columns = None
            return
        s = np.repeat(item.row_weights / self._unit, np.diff(X.indptr))
        self._columns += [np.bincount(entries, s * x, d), np.bincount(entries, s * x * x, d)]

    def _add_moments(self, item: _Checked) -> None:
        X, real = item.X, self._real
        if self._near is None:
            some = X[:: max(1, len(X) // _FIRST_ROWS)]
            check_finite(item.batch, X)
            self._near = near(some, real)
        row_weights = (item.row_weights / self._unit).astype(real)
        found = self._shard(X, row_weights).moments(*self._near)
        if not (np.isfinite(found.sums).all() and item.row_weights.all()):
            check_finite(item.batch, X)  # (the numbers of a row of weight 0 may be in no sum)
        self._moments = found if self._moments is None else add_moments(self._moments, found)

    def _shard(self, X: Any, row_weights: Array) -> Shard:
        """Return features as a shard; its labels mean nothing."""
        backend, n_threads = self._computing
        labels = np.zeros(X.shape[0], dtype=np.int32)
        return build_shard(X, labels, None, row_weights, 2, backend=backend, n_threads=n_threads)

    def found(self, totals: Totals) -> Found:
        """Return what was found in all batches."""
        columns = None
        if self._used is not None and may_be_unfilled(len(self._used)):
            beside = self._beside
            if beside is not None and beside.shape[1:] == self._used.shape:
                self._used |= beside.any(axis=0)
            columns = unless_most(np.flatnonzero(self._used), len(self._used))
        X, row_weights, *targets = self._sample.drawn()
        return Found(
            totals,
            self._real,
            self._n_batches,
            self._numbers,
            self._bytes,
            self._used is None,
            columns,
            self._spread(totals),
            self._column_moments(totals, columns),
            self._least,
            (X, row_weights, targets[0] if targets else None),
        )

    def _column_moments(self, totals: Totals, columns: Array | None) -> ColumnMoments | None:
        if self._columns is None or totals.by_class is not None:
            return None
        sums, squares = self._columns * (self._unit / totals.weight)
        if columns is not None:
            sums, squares = sums[columns], squares[columns]
        return column_moments(sums, squares)

    def _spread(self, totals: Totals) -> Spread | None:
        if self._moments is None or self._near is None or totals.by_class is not None:
            return None
        if not may_spread(*self._near, totals.n_rows):
            return None
        share = self._unit * totals.n_rows / totals.weight
        sums, squares, largest = self._moments
        if share != 1.0:
            sums, squares = share * sums, share * squares
        away = sums / totals.n_rows
        if (away**2 * (1.0 + _MOST_AWAY**-2) > squares / totals.n_rows).any():
            return None
        return spread_of(Moments(sums, squares, largest), *self._near, totals.n_rows)
