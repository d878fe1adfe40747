"""Rows of a dense matrix, as a shard of a problem."""

from typing import Any, Self

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.shards.curvature import curvature_blocks
from fastsoftmax.shards.shard import Shard
from fastsoftmax.shards.spread import Moments
from fastsoftmax.threads import in_threads


class DenseShard(Shard):
    """Rows of a dense matrix of float64, or with float32 row weights float32, float16, uint8, int8.

    X may lie in any memory order.
    """

    step_cost = 4.0
    is_dense = True

    def __init__(self, X: Any, targets: Any, *, backend: Any, n_threads: int = 1) -> None:
        super().__init__(X, targets, backend=backend, n_threads=n_threads)
        self._in_float32: list[Array] = []  # that of all shards of the same rows

    def reweighted(self, row_weights: Array) -> Self:
        """Return the same rows with other weights (of the same type); nothing else is copied."""
        other = super().reweighted(row_weights)
        other._in_float32 = self._in_float32
        return other

    def raw(self, rows: slice) -> Any:
        """Return a view of rows."""
        return self.X[rows]

    def dense(self, rows: slice | Array) -> Array:
        """Return rows, or those of these numbers, as a float64 matrix of their own."""
        x: Array = self.X[rows].astype(np.float64, order="C")
        return x

    def write_centered(self, rows: slice | Array, center: Array, out: Array) -> None:
        """Write x - center, for these rows, into a matrix of the number type of the sums."""
        # The rows are of that type or a narrower one: a center rounded to it costs them no digit.
        np.subtract(self.X[rows], center.astype(self.real), out=out)

    def in_float32(self) -> Array:
        """Return a copy of X in float32, which is kept."""
        if self._in_float32:
            return self._in_float32[0]
        X = np.empty(self.X.shape, dtype=np.float32)

        def write(rows: slice) -> Array:
            X[rows] = self.X[rows]
            return X

        for _ in in_threads(write, self.blocks(), self.n_threads, float(X.size)):
            pass
        self._in_float32.append(X)
        return X

    def moments(self, shift: Array, units: Array) -> Moments:
        """Return sums over the rows of y = units (x - shift), in one pass."""
        sums, squares = np.empty(self.n_features), np.empty(self.n_features)
        largest = self.backend.feature_moments(
            sums,
            squares,
            self.X,
            self.row_weights,
            shift.astype(self.real),
            units.astype(self.real),
            n_threads=self.n_threads,
        )
        return Moments(sums, squares, largest)

    def feature_sums(self) -> Array:
        """Weighted sum of the features over the rows: (n_features,) float64."""
        sums = np.zeros(self.n_features)
        for rows in self.blocks():
            # The order of memory decides the order of the sums, so it is made the same.
            sums += product(self.row_weights[rows], np.ascontiguousarray(self.X[rows]))
        if not np.isfinite(sums).all():  # a sum of float32 overflows, where its rows are 1e38
            sums = np.zeros(self.n_features)
            for rows in self.blocks():
                sums += product(self.row_weights[rows].astype(np.float64), self.dense(rows))
        return sums

    def squares(self, center: Array) -> Array:
        """Weighted sum of (x - center)^2 over the rows: (n_features,) float64."""
        sums = np.zeros(self.n_features)
        for rows in self.blocks():
            x = np.ascontiguousarray(self.X[rows] - center)
            sums += np.einsum("i,ij,ij->j", self.row_weights[rows], x, x)
        return sums

    def hessian_diagonals(
        self, weights: Array, bias: Array, center: Array, step: int
    ) -> tuple[Array, Array, Array, float]:
        """Sum of h_k z^2, h_k z, h_k and s over every step-th row."""
        squares, sums = np.zeros((2, *weights.shape))
        totals = np.zeros(len(bias))
        for z, h, _ in curvature_blocks(self, weights, bias, center, step):
            h = h.astype(np.float64)
            sums += product(h.T, z)
            squares += product(h.T, z * z)
            totals += h.sum(axis=0)
        return squares, sums, totals, self.total_weight(step)
