"""Second moments of rows, and the sums that a Hessian is made of: the other half of `shard`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.threads import answering_signals, in_threads

MOMENT_ROWS = 1024
# Fewer where a block of their features and classes together would have more numbers than this.
_BLOCK_NUMBERS, _FEWEST_ROWS = 1 << 19, 256
# Binary digits before or after the point of features whose squares are far from overflow.
_MODERATE = 24
# Rows are drawn from at most so many times as many.
_POOL = 16


class CurvatureMixin(ABC):
    """Sums of second order over the rows of a `Shard`, whose attributes these are."""

    row_weights: Array
    backend: ModuleType
    n_threads: int

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Rows of X."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Columns of X."""

    @property
    @abstractmethod
    def real(self) -> np.dtype[Any]:
        """The number type that the sums are computed in."""

    @abstractmethod
    def raw(self, rows: slice) -> Any:
        """Return rows as the backend takes them for logits; a slice may have a step."""

    @abstractmethod
    def dense(self, rows: slice | Array) -> Array:
        """Return rows, or those of these numbers, as a float64 matrix of their own."""

    def second_moments(self, center: Array, step: int) -> tuple[Array, float]:
        """Sum of s (x - center) (x - center)^T over every step-th row, and of s.

        Block by block (memory does not grow with the rows), each product in the number type of the
        passes and their sum in float64.
        """
        unit = self._units(center)
        products = np.zeros((self.n_features, self.n_features))
        weight = float(self.row_weights[::step].sum(dtype=np.float64))

        def product(rows: slice) -> Array:
            row_weights = self.row_weights[rows, np.newaxis]
            z = np.empty((len(row_weights), self.n_features), dtype=self.real)
            self.centered(rows, center, z)
            if not (unit == 1.0).all():
                z /= unit
            z *= np.sqrt(row_weights)
            moments: Array = z.T @ z
            return moments

        for part in in_threads(product, self._blocks(step), self.n_threads):
            products += part
        products *= unit
        products *= unit[:, np.newaxis]
        return products, weight

    def _units(self, center: Array) -> Array:
        """Powers of 2 of the size of each centred feature, so that no product overflows.

        They are 1 where none is near that.
        """
        largest = np.abs(self.dense(slice(0, min(self.n_rows, MOMENT_ROWS))) - center)
        with np.errstate(divide="ignore"):
            exponent = np.floor(np.log2(largest.max(axis=0, initial=0.0)))
        extreme = np.isfinite(exponent) & (np.abs(exponent) > _MODERATE)
        return np.where(extreme, np.exp2(exponent), 1.0)

    def _blocks(self, step: int = 1, n_rows: int = MOMENT_ROWS) -> Iterator[slice]:
        for start in range(0, self.n_rows, step * n_rows):
            yield slice(start, min(start + step * n_rows, self.n_rows), step)

    def hessian_blocks(
        self, weights: Array, bias: Array, center: Array, n_sampled: int, *, with_bias: bool
    ) -> tuple[Array, float]:
        """Sum of h_k z z^T over the rows, for each logit k, and sum of s.

        h_k = s p_k (1 - p_k) at the model o = W x + b; z is x - center, with a 1 behind it for the
        intercept if with_bias. Of more than n_sampled rows as many are drawn for each class in
        proportion to h_k, evenly along the rows: most rows are decided about most classes, so as
        many rows drawn alike would be a far poorer estimate.
        Returns an array (n_logits, m, m), m = n_features (+ 1).
        """
        n_logits, d = weights.shape
        every = slice(0, self.n_rows, max(1, self.n_rows // (_POOL * n_sampled)))
        h = self.curvatures(self.raw(every), every, weights, bias)
        unit = np.concatenate([self._units(center), np.ones(int(with_bias))])
        blocks = np.zeros((n_logits, d + with_bias, d + with_bias))

        def fill(k: int) -> Array:
            rows, shares = drawn(h[:, k], n_sampled)
            z = np.empty((min(len(rows), MOMENT_ROWS), d + with_bias), dtype=self.real)
            for start in range(0, len(rows), MOMENT_ROWS):
                part = rows[start : start + MOMENT_ROWS]
                z = z[: len(part)]
                self.centered(part * every.step, center, z[:, :d])
                z[:, d:] = 1.0
                if not (unit == 1.0).all():
                    z /= unit
                z *= np.sqrt(shares[start : start + len(part), np.newaxis])
                blocks[k] += z.T @ z
            block: Array = blocks[k]
            block *= unit
            block *= unit[:, np.newaxis]
            return block

        for _ in in_threads(fill, range(n_logits), self.n_threads):
            pass
        return blocks, float(self.row_weights[every].sum(dtype=np.float64))

    def shared_curvature(
        self, weights: Array, bias: Array, center: Array, step: int
    ) -> tuple[Array, Array, Array, float]:
        """Sum of sum_k h_k z z^T (d, d), h_k z (n_logits, d), h_k (n_logits,), and s.

        Over every step-th row; z and h as in `hessian_blocks`, z without an intercept.
        """
        n_logits, d = weights.shape
        unit = self._units(center)
        moments, sums = np.zeros((d, d)), np.zeros((n_logits, d))
        totals, weight = np.zeros(n_logits), 0.0

        def product(factors: tuple[Array, Array]) -> Array:
            total: Array = factors[0] @ factors[1]
            return total

        def factors() -> Iterator[tuple[Array, Array]]:
            nonlocal totals, weight
            for z, h, row_weights in self._curvature_rows(weights, bias, center, step):
                totals += h.sum(axis=0, dtype=np.float64)
                weight += float(row_weights.sum(dtype=np.float64))
                z /= unit
                rows = z.astype(self.real, copy=False)
                yield h.T, rows
                rows = rows * np.sqrt(h.sum(axis=1))[:, np.newaxis]
                yield rows.T, rows  # a BLAS sees that this is symmetric

        for i, part in enumerate(in_threads(product, factors(), self.n_threads)):
            if i % 2 == 0:
                sums += part
            else:
                moments += part
        moments *= unit
        moments *= unit[:, np.newaxis]
        sums *= unit
        return moments, sums, totals, weight

    def _curvature_rows(
        self, weights: Array, bias: Array, center: Array, step: int
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Blocks of every step-th row: x - center (float64), h (n, n_logits) and row weights."""
        numbers = weights.shape[0] + weights.shape[1]
        n_rows = min(MOMENT_ROWS, max(_FEWEST_ROWS, _BLOCK_NUMBERS // numbers))
        for rows in self._blocks(step, n_rows):
            x = self.dense(rows)
            x -= center
            yield x, self.curvatures(self.raw(rows), rows, weights, bias), self.row_weights[rows]

    def centered(self, rows: slice | Array, center: Array, out: Array) -> None:
        """Write x - center, for these rows, into a matrix of the number type of the sums."""
        np.subtract(self.dense(rows), center, out=out, casting="same_kind")

    def curvatures(self, x: Any, rows: slice, weights: Array, bias: Array) -> Array:
        """Return s p_k (1 - p_k) of a slice of rows, x in the backend's terms: (n, n_logits)."""
        weights = np.ascontiguousarray(weights, dtype=self.real)
        bias = np.ascontiguousarray(bias, dtype=self.real)
        logits = np.empty((x.shape[0], len(bias)), dtype=self.real)
        self.backend.affine_rows(logits, x, weights, bias, n_threads=self.n_threads)
        probs = log_odds(logits)
        self.backend.softmax_rows(probs, probs, n_threads=self.n_threads)
        # Where a row is decided, 1 - p of that class would be 0 in float32: all others' sum is not.
        each = np.arange(len(probs)), probs.argmax(axis=1)
        most = probs[each]
        probs[each] = 0.0
        rest = probs.sum(axis=1)
        h = probs * (1.0 - probs)
        h[each] = most * rest
        h *= self.row_weights[rows, np.newaxis]
        own: Array = h[:, -len(bias) :]
        return own

    def hessian(self, weights: Array, bias: Array, center: Array, *, with_bias: bool) -> Array:
        """Sum of s (diag(p) - p p^T) (x) z z^T over the rows: (n_logits m, n_logits m).

        z, m and p as in `hessian_blocks`; the m coefficients of a logit lie together.
        """
        n_logits, d = weights.shape
        size = n_logits * (d + with_bias)
        hessian = np.zeros((n_logits, d + with_bias, n_logits, d + with_bias))
        for z, p, row_weights in self._probabilities(weights, bias, center, with_bias):
            scaled = z * np.sqrt(row_weights)[:, np.newaxis]
            products = (p[:, :, np.newaxis] * scaled[:, np.newaxis, :]).reshape(len(z), size)
            square = answering_signals(size, _square, products)
            hessian -= square.reshape(hessian.shape)
            for k in range(n_logits):
                hessian[k, :, k] += (scaled * p[:, [k]]).T @ scaled
        return hessian.reshape(size, size)

    def _probabilities(
        self, weights: Array, bias: Array, center: Array, with_bias: bool
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Blocks of rows in float64: (z, probabilities of the logits' classes, row weights)."""
        n_logits, d = weights.shape
        for rows in self._blocks():
            x = self.dense(rows)
            logits = np.empty((len(x), n_logits))
            self.backend.affine_rows(logits, x, weights, bias, n_threads=self.n_threads)
            probs = log_odds(logits)
            self.backend.softmax_rows(probs, probs, n_threads=self.n_threads)
            z = np.ones((len(x), d + with_bias))
            np.subtract(x, center, out=z[:, :d])
            yield z, probs[:, -n_logits:], self.row_weights[rows].astype(np.float64)


def drawn(h: Array, n_sampled: int) -> tuple[Array, Array]:
    """Return row numbers, ascending, and the curvature that each stands for."""
    if len(h) <= n_sampled:
        return np.arange(len(h)), h
    upto = np.cumsum(h, dtype=np.float64)
    marks = (np.arange(n_sampled) + 0.5) * (upto[-1] / n_sampled)
    drawn = np.minimum(np.searchsorted(upto, marks), len(h) - 1)
    rows, counts = np.unique(drawn, return_counts=True)
    return rows, (counts * (upto[-1] / n_sampled)).astype(h.dtype)


def _square(products: Array) -> Array:
    square: Array = products.T @ products  # a BLAS sees that this is symmetric
    return square


def log_odds(logits: Array) -> Array:
    """Logits of both classes from the one logit of two."""
    return np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits
