"""The rows of a problem: one or more shards, and every sum over all of them.

This is the only place that knows how many shards there are. Sums are added in the order of the
shards, so that a result depends on how the rows are cut but not on who computes what.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards import block_sums, curvature
from fastsoftmax.shards.csr_shard import CsrShard, some_columns
from fastsoftmax.shards.dense_shard import DenseShard
from fastsoftmax.shards.shard import Shard, Sums, add_sums

T = TypeVar("T")


def build_shard(
    X: Any,
    labels: Array | None,
    target_probs: Array | None,
    row_weights: Array,
    n_classes: int,
    *,
    backend: Any,
    label_smoothing: float = 0.0,
    n_threads: int = 1,
) -> Shard:
    """Return rows with their targets, checked.

    Parameters
    ----------
    X : array or CSR matrix of shape (n_rows, n_features)
        As of `DenseShard` or `CsrShard`.
    labels : ndarray of shape (n_rows,), int32, or None
        Class numbers; None where target_probs is given.
    target_probs : ndarray of shape (n_rows, n_classes) of row_weights' dtype, or None
        Target distributions.
    row_weights : ndarray of shape (n_rows,), float32 or float64
        Its dtype is the number type that sums are computed in.
    n_classes : int
    backend : module
        `fastsoftmax.kernels` or `fastsoftmax.reference`.
    label_smoothing : float
    n_threads : int
    """
    targets = backend.Targets(labels, target_probs, row_weights, label_smoothing, n_classes)
    kind = CsrShard if sparse.issparse(X) else DenseShard
    return kind(X, targets, backend=backend, n_threads=n_threads)


class Rows:
    """The rows of a problem with their targets and weights.

    Parameters
    ----------
    shards : sequence of Shard
        At least one, all with the same classes, features, number type, backend and threads. Row
        weights have mean 1 over all shards.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        first = shards[0]
        self._shards = tuple(shards)
        self.n_rows = sum(shard.n_rows for shard in shards)
        self.n_features = first.n_features
        self.n_classes = first.n_classes
        self.n_logits = first.n_logits
        self.real = first.real
        self.backend = first.backend
        self.n_threads = first.n_threads
        self.is_dense = all(shard.is_dense for shard in shards)
        self.is_sparse = not any(shard.is_dense for shard in shards)

    # ---- the same rows otherwise ----

    def reweighted(self, row_weights: Array) -> "Rows":
        """Return the same rows with other weights, of the same type."""
        return Rows([shard.reweighted(part) for shard, part in self._with_parts(row_weights)])

    def reweighted_by(self, factor: float) -> "Rows":
        """Return the same rows with all weights multiplied by a number."""
        share = self.real.type(factor)
        return Rows([shard.reweighted(shard.row_weights * share) for shard in self._shards])

    def with_features(self, X: Array) -> "Rows":
        """Return rows of the same targets and weights with other dense features, in float64."""
        real = np.dtype(np.float64)
        return Rows(
            [
                DenseShard(
                    np.ascontiguousarray(part),
                    shard.targets_as(real),
                    backend=shard.backend,
                    n_threads=shard.n_threads,
                )
                for shard, part in self._with_parts(X)
            ]
        )

    def restricted(
        self, features: Array, real: np.dtype[Any], scaling: tuple[Array, Array] | None = None
    ) -> "Rows":
        """Return copies of some features, computed with in a number type.

        Dense features keep the type that they are stored in, or with scaling = (center, scale),
        of all features, they become scale * (x - center) in float64.
        """

        def copied(shard: Shard) -> Any:
            if not shard.is_dense:
                return some_columns(shard.X, features, real)
            dtype = shard.X.dtype if scaling is None else np.dtype(np.float64)
            X = np.empty((shard.n_rows, len(features)), dtype=dtype)
            for rows in shard.blocks():
                x = X[rows]
                x[...] = shard.X[rows][:, features]
                if scaling is not None:
                    x -= scaling[0][features]
                    x *= scaling[1][features]
            return X

        return Rows(
            [
                type(shard)(
                    copied(shard),
                    shard.targets_as(real),
                    backend=shard.backend,
                    n_threads=shard.n_threads,
                )
                for shard in self._shards
            ]
        )

    def _with_parts(self, array: Array) -> Iterator[tuple[Shard, Array]]:
        """Yield the shards, each with its rows of an array."""
        start = 0
        for shard in self._shards:
            yield shard, array[start : start + shard.n_rows]
            start += shard.n_rows

    # ---- all rows in one array, where they are few ----

    def targets(self) -> Any:
        """Return the targets of all rows in float64, as the backend takes them."""
        real = np.dtype(np.float64)
        if len(self._shards) == 1:
            return self._shards[0].targets_as(real)
        parts = [shard.targets for shard in self._shards]
        labels, probs = (
            None if any(a is None for a in arrays) else np.concatenate(arrays)
            for arrays in ([t.labels for t in parts], [t.target_probs for t in parts])
        )
        row_weights = np.concatenate([t.row_weights for t in parts]).astype(real)
        probs = None if probs is None else probs.astype(real)
        return self.backend.Targets(
            labels, probs, row_weights, parts[0].label_smoothing, self.n_classes
        )

    def dense(self, columns: slice = slice(None)) -> Array:
        """Return columns of all rows in one float64 array, which is the caller's own."""
        if columns == slice(None):
            parts = [shard.dense(slice(None)) for shard in self._shards]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        x: Array = np.concatenate([shard.X[:, columns] for shard in self._shards])
        return x.astype(np.float64)

    # ---- passes ----

    def loss_grad(self, weights: Array, bias: Array, *, out: Array) -> Sums:
        """Cross-entropy of o = W x + b and its gradient, that by the weights in out."""
        first, *others = self._shards
        total = first.loss_grad(weights, bias, out=out)
        for shard in others:
            total = add_sums(total, shard.loss_grad(weights, bias))
        return total

    def losses(self, weights: Array, bias: Array) -> tuple[float, float]:
        """Cross-entropy and hits of o = W x + b, summed over the rows."""
        parts = [shard.loss_grad(weights, bias, with_grad=False) for shard in self._shards]
        return sum(part.loss for part in parts), sum(part.correct for part in parts)

    def centered_loss_grad(self, weights: Array, bias: Array, center: Array, scale: Array) -> Sums:
        """Return the sums of `loss_grad` for the features scale * (x - center), in float64."""
        parts = (s.centered_loss_grad(weights, bias, center, scale) for s in self._shards)
        return reduce(add_sums, parts)

    def sgd_steps(
        self, params: Array, velocity: Array | None, order: Array, descent: Descent
    ) -> tuple[float, float]:
        """Mini-batch steps over the rows in order; batches do not cross the end of a shard.

        params and velocity change in place. Returns the sums of loss and hits that the batches saw.
        """
        if len(self._shards) == 1:
            return self._shards[0].sgd_steps(params, velocity, order, descent)
        loss = correct = 0.0
        start = 0
        for shard in self._shards:
            mine = order[(order >= start) & (order < start + shard.n_rows)] - start
            sums = shard.sgd_steps(params, velocity, mine, descent)
            loss, correct = loss + sums[0], correct + sums[1]
            start += shard.n_rows
        return loss, correct

    # ---- sums of targets and features ----

    @property
    def total_weight(self) -> float:
        """Sum of the row weights."""
        return sum(float(shard.row_weights.sum(dtype=np.float64)) for shard in self._shards)

    @property
    def stored_numbers(self) -> float:
        """Numbers that are stored for all rows."""
        return sum(shard.row_numbers * shard.n_rows for shard in self._shards)

    def target_sums(self) -> Array:
        """Sum of the smoothed targets, by class: (n_classes,)."""
        return self._total(lambda shard: shard.target_sums())

    def target_entropy(self) -> float:
        """Entropy of the smoothed targets in nats."""
        return sum(shard.target_entropy() for shard in self._shards)

    def feature_sums(self) -> Array:
        """Sum of the features: (n_features,)."""
        return self._total(lambda shard: shard.feature_sums())

    def squares(self, center: Array) -> Array:
        """Sum of (x - center)^2: (n_features,)."""
        return self._total(lambda shard: shard.squares(center))

    def centered_sums(self, center: Array, scale: Array) -> Array:
        """Sum of scale * (x - center): (n_features,)."""
        return self._total(lambda shard: shard.centered_sums(center, scale))

    def largest_logit_change(self, weights: Array, bias: Array) -> float:
        """Return the largest change of a difference of two logits that o = W x + b makes."""
        return max(shard.largest_logit_change(weights, bias) for shard in self._shards)

    # ---- sums of second order: see `curvature` and `block_sums` ----

    def second_moments(self, center: Array, step: int) -> tuple[Array, float]:
        """Sum of s z z^T over every step-th row, and of s."""
        return self._totals(lambda shard: curvature.second_moments(shard, center, step))

    def hessian(self, weights: Array, bias: Array, center: Array, *, with_bias: bool) -> Array:
        """Sum of s (diag(p) - p p^T) (x) z z^T."""
        return self._total(
            lambda shard: curvature.hessian(shard, weights, bias, center, with_bias=with_bias)
        )

    def hessian_blocks(
        self, weights: Array, bias: Array, center: Array, n_sampled: int, *, with_bias: bool
    ) -> tuple[Array, float]:
        """Sum of h_k z z^T for each logit, from about n_sampled rows, and sum of s."""
        own = self._share_of(n_sampled)
        return self._totals(
            lambda shard: curvature.hessian_blocks(
                shard, weights, bias, center, own, with_bias=with_bias
            )
        )

    def hessian_diagonals(
        self, weights: Array, bias: Array, center: Array, step: int = 1
    ) -> tuple[Array, Array, Array, float]:
        """Sum of h_k z^2, h_k z, h_k and s over every step-th row (of sparse rows, all)."""

        def sums(shard: Shard) -> tuple[Array, Array, Array, float]:
            some = shard.thinned(step)
            diagonals = some.hessian_diagonals(weights, bias, center)
            return (*diagonals, float(some.row_weights.sum(dtype=np.float64)))

        return self._totals(sums)

    def shared_curvature(
        self, weights: Array, bias: Array, center: Array, step: int
    ) -> tuple[Array, Array, Array, float]:
        """Sum of sum_k h_k z z^T, h_k z, h_k and s over every step-th row."""
        return self._totals(
            lambda shard: curvature.shared_curvature(shard, weights, bias, center, step)
        )

    def sampled_block_sums(
        self,
        weights: Array,
        bias: Array,
        scaling: tuple[Array, Array],
        features: list[Array],
        n_sampled: int,
        *,
        with_bias: bool,
    ) -> tuple[list[Array], float]:
        """Sum of h_k z z^T of some features of dense rows, class by class, and sum of s."""
        own = self._share_of(n_sampled)
        parts = [
            block_sums.sampled_block_sums(
                shard, weights, bias, scaling, features, own, with_bias=with_bias
            )
            for shard in self._shards
        ]
        return _added([blocks for blocks, _ in parts]), sum(weight for _, weight in parts)

    def curvature_sums(self, weights: Array, bias: Array) -> Array:
        """Sum of h_k: (n_logits,)."""
        return self._total(lambda shard: block_sums.curvature_sums(shard, weights, bias))

    def curved_block_sums(
        self, weights: Array, bias: Array, features: list[Array], least: Array, most_work: float
    ) -> list[Array] | None:
        """Sum of h_k x x^T of some features of sparse rows; None where that is too much work."""
        parts = []
        for shard in self._shards:
            part = block_sums.curved_block_sums(shard, weights, bias, features, least, most_work)
            if part is None:
                return None
            parts.append(part)
        return _added(parts)

    def _share_of(self, n_sampled: int) -> int:
        """Return how many of the rows to draw a shard draws."""
        return -(-n_sampled // len(self._shards))

    def _total(self, function: Callable[[Shard], Array]) -> Array:
        return reduce(lambda a, b: a + b, map(function, self._shards))

    def _totals(self, function: Callable[[Shard], T]) -> T:
        """Add up tuples that a function of a shard returns, element by element."""

        def added(a: Any, b: Any) -> Any:
            return tuple(x + y for x, y in zip(a, b, strict=True))

        total: T = reduce(added, map(function, self._shards))
        return total


def _added(parts: Iterable[list[Array]]) -> list[Array]:
    """Add up lists of arrays, element by element."""
    return [sum(arrays[1:], arrays[0]) for arrays in zip(*parts, strict=True)]
