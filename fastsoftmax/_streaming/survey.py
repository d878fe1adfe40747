"""The first pass over batches: what a full-batch fit has to know before it begins.

It finds classes, weights, means and second moments of the features, which sparse columns have
entries, and draws the rows that stand for all where a few are enough (`sample`).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fastsoftmax._estimator.batch_source import Batch, BatchSource, check_finite, naming
from fastsoftmax._estimator.features import checked_rows, real_type
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import checked_sample_weights, computing_of
from fastsoftmax._estimator.targets import Given
from fastsoftmax._streaming.sample import RowSample
from fastsoftmax._streaming.totals import (
    LabelMasses,
    Totalling,
    Totals,
    label_masses,
    labels_of,
    named_columns,
)
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


class Checked(NamedTuple):
    """A batch in the form that shards take."""

    batch: Batch
    X: Any
    y: Given
    row_weights: Array  # (n_rows,) float64
    masses: LabelMasses


class First(NamedTuple):
    """What the first batch decides for all."""

    real: np.dtype[Any]  # that sums are computed in
    is_dense: bool
    unit: float  # of the row weights: the mean of its own
    near: tuple[Array, Array] | None  # a shift and units of dense features


class Part(NamedTuple):
    """What is found of a batch. Parts of all batches, in order, make what is found of all."""

    masses: LabelMasses
    stored_numbers: float
    n_bytes: float
    least_weight: float
    moments: Moments | None  # of dense rows
    entries: Array | None  # of sparse rows, the columns that have some
    sums: Array | None  # (2, n_features) their weighted sums of x and x^2, where these are right


def surveyed(
    estimator: FitParameters,
    source: BatchSource,
    classes: Any,
    beside: Any = None,
    also: Callable[[Batch], None] = lambda batch: None,
) -> Found:
    """Read all batches once. beside holds coefficients to start from, whose columns count.

    also is called with every batch, once it is checked.
    """
    gathered = Gathered(estimator, classes, beside)
    sample, first = RowSample(), None
    given = _all_checked(estimator, source, classes)
    for item in given if source.is_in_memory else read_ahead(given):
        first = first_of(item) if first is None else first
        gathered.add(part_of(estimator, item, first))
        sample.see(*to_draw_from(estimator, item))
        also(item.batch)
        del item
    return gathered.found(first, sample.drawn())


def _all_checked(estimator: FitParameters, source: BatchSource, classes: Any) -> Iterator[Checked]:
    real = is_dense = None
    for batch in source:
        item = checked(estimator, batch, classes, real, is_dense)
        real, is_dense = real_type(item.X.dtype), not sparse.issparse(item.X)
        yield item
        del item


def checked(
    estimator: FitParameters,
    batch: Batch,
    classes: Any,
    real: np.dtype[Any] | None,
    is_dense: bool | None,
) -> Checked:
    """Return a batch, checked; real and is_dense are those of the others, None for the first.

    The features of the first are noted by the estimator.
    """
    with naming(batch):
        batch = batch._replace(y=named_columns(batch.y, classes))
        X, y = checked_rows(
            estimator, batch.X, batch.y, reset=real is None, real=real, finite=False
        )
        if is_dense not in (None, not sparse.issparse(X)):
            raise ValueError("X must be dense in all batches, or sparse in all")
        row_weights = checked_sample_weights(batch.sample_weight, X)
        known = None if classes is None else labels_of(classes)
        return Checked(batch, X, y, row_weights, label_masses(batch, known, classes))


def first_of(item: Checked) -> First:
    """Return what a batch decides for all, if it is the first."""
    X, is_dense = item.X, not sparse.issparse(item.X)
    real, nearby = real_type(X.dtype), None
    if is_dense:
        check_finite(item.batch, X)
        nearby = near(X[:: max(1, len(X) // _FIRST_ROWS)], real)
    return First(real, is_dense, float(item.row_weights.mean()), nearby)


def part_of(estimator: FitParameters, item: Checked, first: First) -> Part:
    """Return what is found of a batch."""
    X, moments, entries, sums = item.X, None, None, None
    if sparse.issparse(X):
        n_bytes = X.data.nbytes + X.indices.nbytes
        check_finite(item.batch, X)
        entries, sums = _columns_of(estimator, item, first)
    else:
        n_bytes = X.nbytes
        moments = _moments_of(estimator, item, first)
    least = float(item.row_weights.min())
    return Part(item.masses, float(X.size), float(n_bytes), least, moments, entries, sums)


def _columns_of(
    estimator: FitParameters, item: Checked, first: First
) -> tuple[Array, Array | None]:
    X, d = item.X, item.X.shape[1]
    _shard(estimator, X, item.row_weights.astype(first.real))  # checks the indices
    own = slice(X.indptr[0], X.indptr[-1])
    entries, x = X.indices[own], X.data[own].astype(np.float64)
    filled = np.flatnonzero(np.bincount(entries, minlength=d))
    if not X.has_canonical_format:  # what occurs twice adds up
        return filled, None
    s = np.repeat(item.row_weights / first.unit, np.diff(X.indptr))
    return filled, np.array([np.bincount(entries, s * x, d), np.bincount(entries, s * x * x, d)])


def _moments_of(estimator: FitParameters, item: Checked, first: First) -> Moments:
    assert first.near is not None
    row_weights = (item.row_weights / first.unit).astype(first.real)
    found = _shard(estimator, item.X, row_weights).moments(*first.near)
    if not (np.isfinite(found.sums).all() and item.row_weights.all()):
        check_finite(item.batch, item.X)  # (the numbers of a row of weight 0 may be in no sum)
    return found


def _shard(estimator: FitParameters, X: Any, row_weights: Array) -> Shard:
    """Return features as a shard; its labels mean nothing."""
    backend, n_threads = computing_of(estimator)
    labels = np.zeros(X.shape[0], dtype=np.int32)
    return build_shard(X, labels, None, row_weights, 2, backend=backend, n_threads=n_threads)


def to_draw_from(estimator: FitParameters, item: Checked) -> list[Any]:
    """Return the arrays of a batch that rows are drawn from (`RowSample.see`)."""
    targets = [] if estimator.class_weight is None else [item.y.values]
    return [item.X, item.row_weights, *targets]


class Gathered:
    """The parts of all batches, added up in their order."""

    def __init__(self, estimator: FitParameters, classes: Any, beside: Any = None) -> None:
        self._estimator = estimator
        self._totalling = Totalling(classes, estimator.class_weight)
        self._beside = beside
        self._n_batches, self._numbers, self._bytes = 0, 0.0, 0.0
        self._least = np.inf
        self._moments: Moments | None = None
        self._used: Array | None = None  # which columns of sparse rows have entries
        self._columns: Array | None = None  # (2, n_features) their weighted sums of x and x^2

    def add(self, part: Part) -> None:
        """Add what was found of a batch."""
        self._totalling.add(part.masses)
        self._numbers += part.stored_numbers
        self._bytes += part.n_bytes
        self._least = min(self._least, part.least_weight)
        if part.moments is not None:
            found = self._moments
            self._moments = part.moments if found is None else add_moments(found, part.moments)
        if part.entries is not None:
            if self._used is None:
                d = self._estimator.n_features_in_
                self._used, self._columns = np.zeros(d, dtype=bool), np.zeros((2, d))
            self._used[part.entries] = True
            if self._columns is None or part.sums is None:
                self._columns = None
            else:
                self._columns += part.sums
        self._n_batches += 1

    def found(self, first: First | None, drawn: list[Any]) -> Found:
        """Return what was found in all batches; drawn holds rows of them."""
        totals, columns = self._totalling.totals(), None
        assert first is not None  # as there are rows
        if self._used is not None and may_be_unfilled(len(self._used)):
            beside = self._beside
            if beside is not None and beside.shape[1:] == self._used.shape:
                self._used |= beside.any(axis=0)
            columns = unless_most(np.flatnonzero(self._used), len(self._used))
        X, row_weights, *targets = drawn
        return Found(
            totals,
            first.real,
            self._n_batches,
            self._numbers,
            self._bytes,
            self._used is None,
            columns,
            self._spread(totals, first),
            self._column_moments(totals, columns, first.unit),
            self._least,
            (X, row_weights, targets[0] if targets else None),
        )

    def _column_moments(
        self, totals: Totals, columns: Array | None, unit: float
    ) -> ColumnMoments | None:
        if self._columns is None or totals.by_class is not None:
            return None
        sums, squares = self._columns * (unit / totals.weight)
        if columns is not None:
            sums, squares = sums[columns], squares[columns]
        return column_moments(sums, squares)

    def _spread(self, totals: Totals, first: First) -> Spread | None:
        if self._moments is None or first.near is None or totals.by_class is not None:
            return None
        if not may_spread(*first.near, totals.n_rows):
            return None
        share = first.unit * totals.n_rows / totals.weight
        sums, squares, largest = self._moments
        if share != 1.0:
            sums, squares = share * sums, share * squares
        away = sums / totals.n_rows
        if (away**2 * (1.0 + _MOST_AWAY**-2) > squares / totals.n_rows).any():
            return None
        return spread_of(Moments(sums, squares, largest), *first.near, totals.n_rows)
