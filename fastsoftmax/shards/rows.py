"""The rows of a problem: one or more shards, and every sum over all of them.

This is the only place that knows how many shards there are. Sums are added in a tree that the
number of shards decides (`tree`), so that a result depends on how the rows are cut but not on who
computes what.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.cached import cached_property
from fastsoftmax.columns import some_columns
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards import protocol, tree
from fastsoftmax.shards.csr_shard import CsrShard
from fastsoftmax.shards.curvature import Drawn, drawn_rows
from fastsoftmax.shards.dense_shard import DenseShard
from fastsoftmax.shards.held import Held
from fastsoftmax.shards.shard import Shard, Sums, add_sums
from fastsoftmax.shards.spread import (
    ColumnMoments,
    Spread,
    add_moments,
    column_moments,
    may_spread,
    near,
    spread_of,
)

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


def restricted(
    shard: Shard, features: Array, real: np.dtype[Any], scaling: tuple[Array, ...] | None
) -> Shard:
    """Return copies of some features of a shard, as `Rows.restricted` says."""
    if not shard.is_dense:
        return _holding(some_columns(shard.X, features, real), real, shard)
    dtype = shard.X.dtype if scaling is None else np.dtype(np.float64)
    X = np.empty((shard.n_rows, len(features)), dtype=dtype)
    for rows in shard.blocks():
        x = X[rows]
        x[...] = shard.X[rows][:, features]
        if scaling is not None:
            x -= scaling[0][features]
            x *= scaling[1][features]
            x -= scaling[2][features]
    return _holding(X, real, shard)


def in_float32(shard: Shard) -> Shard:
    """Return dense rows with a copy of their features, computed with in float32."""
    return _holding(shard.in_float32(), np.dtype(np.float32), shard)


class Rows:
    """The rows of a problem with their targets and weights.

    They are in one shard or more, all with the same classes, features, number type, backend and
    threads; shards that are not given as a sequence are wherever `protocol.Shards` says. Row
    weights have mean 1 over all shards.
    """

    def __init__(
        self, shards: Sequence[Shard] | protocol.Shards, spread: Spread | None = None
    ) -> None:
        """Take how the features spread, where that is known."""
        self._known_spread = spread
        self._shards: protocol.Shards = Held(shards) if isinstance(shards, Sequence) else shards
        like = self._shards.like
        self.n_rows, self._n_shards, self.stored_numbers, self.is_dense, self.is_sparse = (
            self._shards.facts
        )
        self.n_features = like.n_features
        self.n_classes = like.n_classes
        self.n_logits = like.n_logits
        self.columns = like.columns
        self.real = like.real
        self.backend = like.backend
        self.n_threads = like.n_threads

    # ---- the same rows otherwise ----

    def reweighted(self, row_weights: Array) -> "Rows":
        """Return the same rows with other weights, of the same type."""
        return Rows([shard.reweighted(row_weights[rows]) for shard, rows in self._held()])

    def reweighted_by(self, factor: float) -> "Rows":
        """Return the same rows with all weights multiplied by a number."""
        share = self.real.type(factor)
        return Rows([shard.reweighted(shard.row_weights * share) for shard, _ in self._held()])

    def with_features(self, X: Array) -> "Rows":
        """Return rows of the same targets and weights with other dense features, in float64."""
        shards, first = [], 0
        for own in self._shards.ask(protocol.float64_targets):
            part, targets = X[first : first + len(own.row_weights)], self.backend.Targets(*own)
            first += len(part)
            shards.append(_shard(np.ascontiguousarray(part), targets, self.backend, self.n_threads))
        return Rows(shards)

    def restricted(
        self, features: Array, real: np.dtype[Any], scaling: tuple[Array, ...] | None = None
    ) -> "Rows":
        """Return copies of some features, computed with in a number type.

        Dense features keep the type that they are stored in, or with scaling = (center, scale,
        shift), of all features, they become scale * (x - center) - shift in float64.
        """
        return Rows(self._shards.changed(restricted, features, real, scaling))

    def in_float32(self) -> "Rows":
        """Return dense rows with a copy of their features, computed with in float32."""
        return Rows(self._shards.changed(in_float32), self.spread)

    @property
    def are_held(self) -> bool:
        """Whether this process holds all of them."""
        return isinstance(self._shards, Held)

    def _held(self) -> Iterator[tuple[Shard, slice]]:
        """Yield the shards, which this process has to hold, each with the numbers of its rows."""
        first = 0
        for shard in self._shards.ask(_itself):
            yield shard, slice(first, first + shard.n_rows)
            first += shard.n_rows

    # ---- some of the rows ----

    @cached_property
    def sample(self) -> "Rows":
        """Where some rows are taken from: all rows, or those of them that a survey has drawn."""
        survey = self._shards.survey
        return self if survey is None else Rows([survey.sample])

    def every(self, step: int) -> tuple["Rows", int]:
        """Return rows and the step between them that stand for every step-th row of all.

        There are no more of them, and fewer where the sample has fewer.
        """
        if step == 1 or self.sample is self:
            return self, step
        return self.sample, max(1, -(-step * self.sample.n_rows // self.n_rows))

    # ---- all rows in one array, where they are few ----

    def targets(self) -> Any:
        """Return the targets of all rows in float64, as the backend takes them."""
        parts = list(self._shards.ask(protocol.float64_targets))
        if len(parts) == 1:
            return self.backend.Targets(*parts[0])
        arrays = (
            None if any(a is None for a in some) else np.concatenate(some)
            for some in zip(*(part[:3] for part in parts), strict=True)
        )
        return self.backend.Targets(*arrays, *parts[0][3:])

    def dense(self, columns: slice = slice(None)) -> Array:
        """Return columns of all rows in one float64 array, which is the caller's own."""
        parts = list(self._shards.ask(protocol.dense_columns, columns))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def in_one_array(self) -> Array:
        """Return all rows in one array, not to be changed; those of sparse shards in float64."""
        parts = list(self._shards.ask(protocol.dense_rows))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # ---- passes ----

    def loss_grad(self, weights: Array, bias: Array, *, out: Array) -> Sums:
        """Cross-entropy of o = W x + b and its gradient, that by the weights in out."""
        if self._n_shards == 1 and isinstance(self._shards, Held):
            return self._shards.like.loss_grad(weights, bias, out=out)
        sums = self._added(add_sums, protocol.loss_grad, weights, bias)
        out[...] = sums.grad_weights
        return sums._replace(grad_weights=out)

    def centered_loss_grad(self, weights: Array, bias: Array, center: Array, scale: Array) -> Sums:
        """Return the sums of `loss_grad` for the features scale * (x - center), in float64."""
        question = protocol.centered_loss_grad
        return self._added(add_sums, question, weights, bias, center, scale)

    def sgd_steps(
        self, params: Array, velocity: Array | None, order: Array, descent: Descent
    ) -> tuple[float, float]:
        """Mini-batch steps over the rows in order; batches do not cross the end of a shard.

        params and velocity change in place. Returns the sums of loss and hits that the batches saw.
        """
        if self._n_shards == 1:
            return self._shards.like.sgd_steps(params, velocity, order, descent)
        loss = correct = 0.0
        for shard, rows in self._held():
            mine = order[(order >= rows.start) & (order < rows.stop)] - rows.start
            sums = shard.sgd_steps(params, velocity, mine, descent)
            loss, correct = loss + sums[0], correct + sums[1]
        return loss, correct

    # ---- how the features spread ----

    @cached_property
    def spread(self) -> Spread | None:
        """How the features spread, from one pass; None where it is not known from one.

        That is of sparse rows, and of numbers whose squares overflow.
        """
        survey = self._shards.survey
        known = self._known_spread if survey is None else survey.spread
        if known is not None:
            return known
        if not (self.is_dense and self.n_rows):
            return None
        some = self.sample
        step = max(1, some.n_rows // _SPREAD_SAMPLE)
        parts = [x for x, _ in some._shards.ask(protocol.every_row, step)]
        with np.errstate(over="ignore", invalid="ignore"):
            shift, units = near(np.concatenate(parts), self.real)
            if not may_spread(shift, units, self.n_rows):
                return None
            total = self._added(add_moments, protocol.moments, shift, units)
        return spread_of(total, shift, units, self.n_rows)

    @cached_property
    def _columns(self) -> ColumnMoments | None:
        """How sparse columns spread, from one pass; None where it is not known from one."""
        survey = self._shards.survey
        if survey is not None or not self.is_sparse:
            return None if survey is None else survey.columns
        sums, squares = self.sum(protocol.column_sums) / max(1, self.n_rows)
        return column_moments(sums, squares)

    def means(self) -> Array:
        """Weighted means of the features, (n_features,); NaN or inf where they overflow."""
        if self.spread is not None:
            return self.spread.means()
        if self._columns is not None:
            return self._columns.means
        return np.asarray(self.sum(protocol.feature_sums) / self.n_rows)

    def squares_about(self, center: Array) -> Array:
        """Weighted means of (x - center)^2, (n_features,)."""
        if self.spread is not None:
            return self.spread.squares_about(center)
        if self._columns is not None:
            return np.asarray(self._columns.variances + (self._columns.means - center) ** 2)
        return np.asarray(self.sum(protocol.squares, center) / max(1, self.n_rows))

    # ---- sums over targets and weights ----

    def target_sums(self) -> Array:
        """Return the sums of the smoothed targets, (n_classes,)."""
        survey = self._shards.survey
        return self.sum(protocol.target_sums) if survey is None else survey.target_sums

    def total_weight(self) -> float:
        """Sum of the row weights."""
        if self._shards.survey is None:
            return self.sum(protocol.total_weight)
        return float(self.n_rows)

    def least_weight(self) -> float:
        """Return the smallest row weight."""
        survey = self._shards.survey
        if survey is not None:
            return survey.least_weight
        return min(self._shards.ask(protocol.least_weight))

    def has_equal_weights(self) -> bool:
        """Whether all row weights are the same."""
        return self.least_weight() * self.n_rows >= self.total_weight()

    # ---- other sums ----

    def sum(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Add up what a function of a shard returns: a number, an array, or a tuple of these.

        args and options follow the shard, as the functions of `protocol`, `curvature` and
        `block_sums` want.
        """
        total: T = self._added(tree.plus, function, *args, **options)
        return total

    def _added(
        self, add: Callable[[T, T], T], question: Callable[..., T], *args: Any, **options: Any
    ) -> T:
        """Return the sum of the answers, added where the shards are, if they do that."""
        shards = self._shards
        # (isinstance of a protocol takes 20 microseconds before Python 3.12)
        if hasattr(shards, "added"):
            total: T = shards.added(add, question, *args, **options)
            return total
        return tree.added(add, shards.ask(question, *args, **options))

    def drawn(
        self, weights: Array, bias: Array, center: Array, n_drawn: int, *, with_bias: int
    ) -> Drawn:
        """Draw about n_drawn rows for each logit, as `drawn_rows` does from each shard."""
        some = self.sample
        share = some.share_of(n_drawn)
        parts = list(
            some._shards.ask(drawn_rows, weights, bias, center, share, with_bias=with_bias)
        )
        if len(parts) == 1:
            return parts[0]
        rows = [np.concatenate(own) for own in zip(*(part.rows for part in parts), strict=True)]
        curvature = np.sum([part.curvature for part in parts], axis=0)
        return Drawn(rows, curvature, sum(part.weight for part in parts))

    def taken_evenly(self, center: Array, n_taken: int, *, with_bias: bool) -> tuple[Array, float]:
        """Return about n_taken rows, evenly: x - center, and a 1 where with_bias, times root s.

        And the sum of their s. They are of the number type of the sums.
        """
        some = self.sample
        step = max(1, some.n_rows // n_taken)
        parts = some._shards.ask(protocol.centered_rows, center, step, with_bias=with_bias)
        return np.concatenate(list(parts)), some.sum(protocol.total_weight, step)

    def means_near(self, center: Array) -> Array:
        """Return the weighted means of the features, to rounding of float64.

        Sums of raw features have errors of the number type (one of 0.3 in float32: 1e-7); here
        those of what is left of a center are taken.
        """
        means: Array = center + self.sum(protocol.sums_from, center) / self.total_weight()
        return means

    def mean_squares(self, most_numbers: int) -> Array:
        """Mean of s^2 x^2 over the rows, or a sample of them: (n_features,) float64."""
        if self.spread is not None and self.has_equal_weights():
            return self.spread.squares_about(np.zeros(self.n_features))
        some = self.sample
        step = max(1, some.n_rows * self.n_features // most_numbers)
        step = min(step, max(1, some.n_rows // _LEAST_SAMPLE))
        total, n_sampled = np.zeros(self.n_features), 0
        for X, row_weights in some._shards.ask(protocol.every_row, step):
            s = row_weights.astype(np.float64)
            squares = X.astype(np.float64)
            values = squares.data if sparse.issparse(squares) else squares
            np.square(values, out=values)
            total += product(squares.T, s * s)
            n_sampled += len(s)
        return total / max(1, n_sampled)

    def share_of(self, n_sampled: int) -> int:
        """Return how many of n_sampled rows each shard draws."""
        return -(-n_sampled // self._n_shards)

    def largest_feature(self) -> tuple[int, int, float]:
        """Return the row, the column and the value of the number that is the farthest from 0."""
        first, found = 0, (0, 0, 0.0)
        for n_rows, row, feature, value in self._shards.ask(protocol.largest_feature):
            if abs(value) > abs(found[2]):
                found = first + row, feature, value
            first += n_rows
        return found

    def largest_square(self, center: Array, scale: Array) -> float:
        """Return the largest squared length of a row scale * (x - center)."""
        return max(self._shards.ask(protocol.largest_square, center, scale))

    def largest_logit_change(self, weights: Array, bias: Array) -> float:
        """Return the largest change of a difference of two logits that o = W x + b makes."""
        return max(self._shards.ask(protocol.largest_logit_change, weights, bias))


def _itself(shard: Shard) -> Shard:
    """Return the shard."""
    return shard
