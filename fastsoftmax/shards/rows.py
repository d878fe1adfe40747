"""The rows of a problem: one or more shards, and every sum over all of them.

This is the only place that knows how many shards there are. Sums are added in the order of the
shards, so that a result depends on how the rows are cut but not on who computes what.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, reduce
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.columns import some_columns
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards.csr_shard import CsrShard
from fastsoftmax.shards.curvature import Drawn, drawn_rows
from fastsoftmax.shards.dense_shard import DenseShard
from fastsoftmax.shards.shard import Shard, Sums, add_sums
from fastsoftmax.shards.spread import Moments, Spread, add_moments, near

T = TypeVar("T")

# Fewest rows that tell the size of the features.
_LEAST_SAMPLE = 64
# Rows that tell where the features lie, and how far apart, before all rows are read.
_SPREAD_SAMPLE = 64


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

    X is as of `DenseShard` or `CsrShard`. Of labels (n_rows,) int32 and target_probs (n_rows,
    n_classes), of row_weights' dtype, one is None. The dtype of row_weights, float32 or float64, is
    the number type that sums are computed in.
    """
    targets = backend.Targets(labels, target_probs, row_weights, label_smoothing, n_classes)
    return _shard(X, targets, backend, n_threads)


def _shard(X: Any, targets: Any, backend: Any, n_threads: int) -> Shard:
    kind = CsrShard if sparse.issparse(X) else DenseShard
    return kind(X, targets, backend=backend, n_threads=n_threads)


def with_columns(shard: Shard, columns: Array | None, number: Array | None = None) -> Shard:
    """Return the rows with some columns, ascending, alone; the same shard for None.

    Numbers in other columns are left out. Where sparse rows have none, those that are stored are
    not copied, only their places. number is as of `some_columns`.
    """
    if columns is None:
        return shard
    if shard.is_dense:
        X = np.ascontiguousarray(shard.X[:, columns])
    else:
        X = some_columns(shard.X, columns, shard.real, number=number)
    result = _holding(X, shard.real, shard)
    result.columns = columns
    return result


def _holding(X: Any, real: np.dtype[Any], like: Shard) -> Shard:
    """Return other features of the same rows, computed with in a number type."""
    return _shard(X, like.targets_as(real), like.backend, like.n_threads)


class Rows:
    """The rows of a problem with their targets and weights.

    They are in one shard or more, all with the same classes, features, number type, backend and
    threads. Row weights have mean 1 over all shards.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        first = shards[0]
        self._shards = tuple(shards)
        self.n_rows = sum(shard.n_rows for shard in shards)
        self.n_features = first.n_features
        self.n_classes = first.n_classes
        self.n_logits = first.n_logits
        self.columns = first.columns
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
                _holding(np.ascontiguousarray(part), real, shard)
                for shard, part in self._with_parts(X)
            ]
        )

    def restricted(
        self, features: Array, real: np.dtype[Any], scaling: tuple[Array, ...] | None = None
    ) -> "Rows":
        """Return copies of some features, computed with in a number type.

        Dense features keep the type that they are stored in, or with scaling = (center, scale,
        shift), of all features, they become scale * (x - center) - shift in float64.
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
                    x -= scaling[2][features]
            return X

        return Rows([_holding(copied(shard), real, shard) for shard in self._shards])

    def _with_parts(self, array: Array) -> Iterator[tuple[Shard, Array]]:
        """Yield the shards, each with its rows of an array."""
        for start, shard in self._numbered():
            yield shard, array[start : start + shard.n_rows]

    def _numbered(self) -> Iterator[tuple[int, Shard]]:
        """Yield the shards, each with the number of its first row."""
        start = 0
        for shard in self._shards:
            yield start, shard
            start += shard.n_rows

    # ---- all rows in one array, where they are few ----

    def targets(self) -> Any:
        """Return the targets of all rows in float64, as the backend takes them."""
        parts = [shard.targets_as(np.dtype(np.float64)) for shard in self._shards]
        if len(parts) == 1:
            return parts[0]
        arrays = (
            None if any(a is None for a in some) else np.concatenate(some)
            for some in zip(
                *((t.labels, t.target_probs, t.row_weights) for t in parts), strict=True
            )
        )
        return self.backend.Targets(*arrays, parts[0].label_smoothing, self.n_classes)

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
        if not others:
            return total
        return reduce(add_sums, (shard.loss_grad(weights, bias) for shard in others), total)

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
        for start, shard in self._numbered():
            mine = order[(order >= start) & (order < start + shard.n_rows)] - start
            sums = shard.sgd_steps(params, velocity, mine, descent)
            loss, correct = loss + sums[0], correct + sums[1]
        return loss, correct

    # ---- how the features spread ----

    @cached_property
    def spread(self) -> Spread | None:
        """How the features spread, from one pass; None where it is not known from one.

        That is of sparse rows, and of numbers whose squares overflow.
        """
        if not (self.is_dense and self.n_rows):
            return None
        step = max(1, self.n_rows // _SPREAD_SAMPLE)
        sample = np.concatenate([np.asarray(shard.X[::step]) for shard in self._shards])
        with np.errstate(over="ignore", invalid="ignore"):
            shift, units = near(sample, self.real)
            if not np.isfinite(self.n_rows * (shift**2 + (1.0 / units) ** 2)).all():
                return None
            parts = [shard.moments(shift, units) for shard in self._shards]
            total = reduce(add_moments, parts)
        sums, squares = total.sums / self.n_rows, total.squares / self.n_rows
        if not (np.isfinite(squares).all() and np.isfinite(total.largest)):
            return None
        return Spread(shift, units, Moments(sums, squares, total.largest))

    def means(self) -> Array:
        """Weighted means of the features, (n_features,); NaN or inf where they overflow."""
        if self.spread is not None:
            return self.spread.means()
        return np.asarray(self.sum(lambda shard: shard.feature_sums()) / self.n_rows)

    def squares_about(self, center: Array) -> Array:
        """Weighted means of (x - center)^2, (n_features,)."""
        if self.spread is not None:
            return self.spread.squares_about(center)
        sums = self.sum(lambda shard: shard.squares(center))
        return np.asarray(sums / max(1, self.n_rows))

    # ---- other sums ----

    def sum(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Add up what a function of a shard returns: a number, an array, or a tuple of these.

        args and options follow the shard, as the functions of `curvature` and `block_sums` want.
        """
        if len(self._shards) == 1:
            return function(self._shards[0], *args, **options)
        parts = (function(shard, *args, **options) for shard in self._shards)
        return reduce(_added, parts)

    def drawn(
        self, weights: Array, bias: Array, center: Array, n_drawn: int, *, with_bias: int
    ) -> Drawn:
        """Draw about n_drawn rows for each logit, as `drawn_rows` does from each shard."""
        share = self.share_of(n_drawn)
        parts = [
            drawn_rows(shard, weights, bias, center, share, with_bias=with_bias)
            for shard in self._shards
        ]
        if len(parts) == 1:
            return parts[0]
        rows = [np.concatenate(some) for some in zip(*(part.rows for part in parts), strict=True)]
        curvature = np.sum([part.curvature for part in parts], axis=0)
        return Drawn(rows, curvature, sum(part.weight for part in parts))

    def taken_evenly(self, center: Array, n_taken: int, *, with_bias: bool) -> tuple[Array, float]:
        """Return about n_taken rows, evenly: x - center, and a 1 where with_bias, times root s.

        And the sum of their s. They are of the number type of the sums.
        """
        step = max(1, self.n_rows // n_taken)
        parts = []
        for shard in self._shards:
            numbers = np.arange(0, shard.n_rows, step)
            z = np.ones((len(numbers), self.n_features + with_bias), dtype=self.real)
            shard.write_centered(numbers, center, z[:, : self.n_features])
            z *= np.sqrt(shard.row_weights[numbers])[:, np.newaxis]
            parts.append(z)
        return np.concatenate(parts), sum(shard.total_weight(step) for shard in self._shards)

    def means_near(self, center: Array) -> Array:
        """Return the weighted means of the features, to rounding of float64.

        Sums of raw features have errors of the number type (one of 0.3 in float32: 1e-7); here
        those of what is left of a center are taken.
        """
        weight = self.sum(lambda shard: shard.total_weight())
        means: Array = center + self.sum(lambda shard: shard.sums_from(center)) / weight
        return means

    def mean_squares(self, most_numbers: int) -> Array:
        """Mean of s^2 x^2 over a sample of the rows: (n_features,) float64."""
        step = max(1, self.n_rows * self.n_features // most_numbers)
        step = min(step, max(1, self.n_rows // _LEAST_SAMPLE))
        total, n_sampled = np.zeros(self.n_features), 0
        for shard in self._shards:
            X, s = shard.X[::step], shard.row_weights[::step].astype(np.float64)
            squares = X.astype(np.float64)
            values = squares.data if sparse.issparse(squares) else squares
            np.square(values, out=values)
            total += product(squares.T, s * s)
            n_sampled += len(s)
        return total / max(1, n_sampled)

    def share_of(self, n_sampled: int) -> int:
        """Return how many of n_sampled rows each shard draws."""
        return -(-n_sampled // len(self._shards))

    @property
    def stored_numbers(self) -> float:
        """Numbers that are stored for all rows."""
        return sum(shard.numbers_per_row * shard.n_rows for shard in self._shards)

    def least_weight(self) -> float:
        """Return the smallest row weight."""
        return min(float(shard.row_weights.min()) for shard in self._shards)

    def largest_feature(self) -> tuple[int, int, float]:
        """Return the row, the column and the value of the number that is the farthest from 0."""
        found = ((first, *shard.largest_feature()) for first, shard in self._numbered())
        first, row, feature, value = max(found, key=lambda place: abs(place[3]))
        return first + row, feature, value

    def largest_square(self, center: Array, scale: Array) -> float:
        """Return the largest squared length of a row scale * (x - center)."""
        return max(shard.largest_square(center, scale) for shard in self._shards)

    def largest_logit_change(self, weights: Array, bias: Array) -> float:
        """Return the largest change of a difference of two logits that o = W x + b makes."""
        return max(shard.largest_logit_change(weights, bias) for shard in self._shards)


def _added(a: Any, b: Any) -> Any:
    """Return a + b, element by element where these are tuples or lists, None where either is."""
    if a is None or b is None:
        return None
    if isinstance(a, tuple | list):
        return type(a)(_added(x, y) for x, y in zip(a, b, strict=True))
    return a + b
