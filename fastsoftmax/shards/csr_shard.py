"""Rows of a sparse matrix, as a shard of a problem."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array, slices
from fastsoftmax.shards.curvature import curvatures
from fastsoftmax.shards.shard import Shard

# Numbers of a feature from which on rows of one logit add to gradients as they are. (5000 x 3000,
# 59 numbers a row: without the copy a fit takes a fifth less time.)
_MANY = 32
# Stored numbers whose weighted sums are taken at a time.
_MOMENT_NUMBERS = 1 << 20


class CsrShard(Shard):
    """Rows of a `scipy.sparse` matrix in CSR form, of float64, or float32 with such row weights.

    Its indices may be in any order and occur twice: then the values add up. Gradients need the
    rows by columns as well, but for one logit and many numbers of each feature; that copy is made
    when the first is asked for.
    """

    # 90000 rows of 77 numbers, 20 classes, in batches of 256: 0.7 s in one thread
    step_cost = 128.0
    is_dense = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows: dict[tuple[int, int, bool], Any] = {}
        self._columns: dict[tuple[int, int, bool], tuple[Any, ...]] = {}
        self.adjacent(slice(0, self.n_rows), with_grad=False)  # checks the indices before all else

    def adjacent(self, rows: slice, *, with_grad: bool) -> Any:
        """Return adjacent rows as the backend takes them, for a gradient if asked."""
        is_full = self.numbers_per_row * self.n_rows >= _MANY * self.n_features
        if self.n_logits == 1 and is_full:
            with_grad = False
        return self._kept(rows, with_columns=with_grad)

    def _kept(self, rows: slice, *, with_columns: bool) -> Any:
        """Return adjacent rows as the backend takes them, with their columns if asked."""
        key = rows.start, rows.stop, with_columns
        if key not in self._rows:
            found = self._stored(rows)
            if with_columns:
                self._rows.pop((rows.start, rows.stop, False), None)
                self._columns[key] = columns_of(self.X, rows, self._panel_rows())
                found.set_columns(*self._columns[key])
            self._rows[key] = found
        return self._rows[key]

    def _panel_rows(self) -> int:
        size: int = self.backend.panel_rows(self.n_logits, self.real.itemsize)
        return size

    def _stored(self, rows: slice) -> Any:
        X = self.X
        indptr = X.indptr[rows.start : rows.stop + 1]
        return self.backend.CsrRows(X.data, X.indices, indptr, self.n_features)

    def _squared(self, rows: slice) -> Any:
        """Return rows whose columns hold the squares of the numbers."""
        found = self._stored(rows)
        *places, values = self._columns[rows.start, rows.stop, True]
        found.set_columns(*places, values**2)
        return found

    def raw(self, rows: slice) -> Any:
        """Return rows as the backend takes them for logits; a slice may have a step."""
        if rows.step in (None, 1):
            return self._stored(rows)
        x = self.X[rows]
        return self.backend.CsrRows(x.data, x.indices, x.indptr, self.n_features)

    def dense(self, rows: slice | Array) -> Array:
        """Return rows, or those of these numbers, as a float64 matrix of their own."""
        x: Array = self.X[rows].astype(np.float64).toarray()
        return x

    def feature_sums(self) -> Array:
        """Weighted sum of the features over the rows: (n_features,) float64."""
        sums = np.zeros(self.n_features)
        for features, values, weights in self._entries(self.X):
            sums += np.bincount(features, values * weights, self.n_features)
        return sums

    def column_sums(self) -> Array:
        """Weighted sums of x and of x^2 over the rows, (2, n_features) float64."""
        sums = np.empty((2, self.n_features))
        rows = self.adjacent(slice(0, self.n_rows), with_grad=False)
        if not self.X.has_canonical_format:  # what occurs twice adds up before it is squared
            x = self.X.copy()
            x.sum_duplicates()
            rows = self.backend.CsrRows(x.data, x.indices, x.indptr, self.n_features)
        self.backend.csr_moments(sums[0], sums[1], rows, self.row_weights)
        return sums

    def squares(self, center: Array) -> Array:
        """Weighted sum of (x - center)^2 over the rows: (n_features,) float64."""
        return self._sums_of(center, np.square)

    def sums_from(self, center: Array) -> Array:
        """Weighted sum of x - center over the rows: (n_features,) float64."""
        return self._sums_of(center, np.positive)

    def _sums_of(self, center: Array, function: Callable[[Array], Array]) -> Array:
        """Weighted sum of a function of x - center."""
        # over the stored numbers, and of -center for each that is not stored
        X = self.X
        if not X.has_canonical_format:  # what occurs twice adds up before it is squared
            X = X.copy()
            X.sum_duplicates()
        sums, stored = np.zeros((2, self.n_features))
        counts = np.zeros(self.n_features, dtype=np.intp)
        least, largest = self.row_weights.min(), self.row_weights.max()
        for features, values, weights in self._entries(X):
            shifted = function(values - center[features])
            sums += np.bincount(features, shifted * weights, self.n_features)
            counts += np.bincount(features, minlength=self.n_features)
            if least < largest:
                stored += np.bincount(features, weights, self.n_features)
        if least == largest:
            stored += counts * float(least)
        absent = np.where(counts < self.n_rows, np.maximum(self.total_weight() - stored, 0.0), 0.0)
        result: Array = sums + absent * function(-center)
        return result

    def hessian_diagonals(
        self, weights: Array, bias: Array, center: Array, step: int
    ) -> tuple[Array, Array, Array, float]:
        """Sum of h_k z^2, h_k z, h_k and s over all rows: most features occur in few of them."""
        squares, sums = np.zeros((2, *weights.shape))
        totals, unused = np.zeros((2, len(bias)))
        size = self._panel_rows()
        for rows in self.calls(len(bias) * self.numbers_per_row):
            plain = self._kept(rows, with_columns=True)
            squared = self._squared(rows)  # (of what occurs twice, less: this is an estimate)
            for panel, start in enumerate(range(rows.start, rows.stop, size)):
                part = slice(start, min(start + size, rows.stop))
                h = curvatures(self, self.raw(part), part, weights, bias)
                h = np.ascontiguousarray(h, dtype=self.real)
                for x, total, weight in ((plain, sums, totals), (squared, squares, unused)):
                    self.backend.columns_product(
                        total, weight, x, h, panel, n_threads=self.n_threads
                    )
        squares -= 2.0 * center * sums
        squares += np.outer(totals, center**2)
        sums -= np.outer(totals, center)
        return np.maximum(squares, 0.0, out=squares), sums, totals, self.total_weight()

    def _entries(self, X: Any) -> Iterator[tuple[Array, Array, Array]]:
        """Yield blocks of what is stored: columns, values and row weights, these in float64."""
        n = max(1, int(_MOMENT_NUMBERS / max(1.0, self.numbers_per_row)))
        for rows in slices(self.n_rows, n):
            part = slice(X.indptr[rows.start], X.indptr[rows.stop])
            lengths = np.diff(X.indptr[rows.start : rows.stop + 1])
            weights = np.repeat(self.row_weights[rows].astype(np.float64), lengths)
            columns = X.indices[part].astype(np.intp)  # once, not in each sum
            yield columns, X.data[part].astype(np.float64, copy=False), weights


def columns_of(
    X: Any, rows: slice, panel_rows: int
) -> tuple[int, Array, Array, Array, Array, Array]:
    """Return rows of a CSR matrix by columns, as `CsrRows.set_columns` takes them."""
    n_entries = int(X.indptr[rows.stop] - X.indptr[rows.start])
    entry_rows = np.empty(n_entries, dtype=np.int32)
    values = np.empty(n_entries, dtype=X.dtype)
    features, starts, panel_columns = [], [np.zeros(1, dtype=np.int64)], [0]
    done = 0
    for start in range(rows.start, rows.stop, panel_rows):
        indptr = X.indptr[start : min(start + panel_rows, rows.stop) + 1]
        part = slice(indptr[0], indptr[-1])
        shape = len(indptr) - 1, X.shape[1]
        panel = sparse.csr_array((X.data[part], X.indices[part], indptr - indptr[0]), shape=shape)
        panel = panel.tocsc()
        full = np.flatnonzero(np.diff(panel.indptr))
        features.append(full.astype(np.int32))
        starts.append(panel.indptr[full + 1].astype(np.int64) + done)
        panel_columns.append(panel_columns[-1] + len(full))
        entry_rows[done : done + panel.nnz] = panel.indices
        values[done : done + panel.nnz] = panel.data
        done += panel.nnz
    return (
        panel_rows,
        np.array(panel_columns, dtype=np.int64),
        np.concatenate(starts),
        np.concatenate([np.empty(0, dtype=np.int32), *features]),
        entry_rows,
        values,
    )
