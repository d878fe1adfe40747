"""The joint between a problem and its rows: shards, wherever they are, that answer questions.

Whatever a fit wants to know of its rows is a sum over them: a loss with its gradient, moments of
the features, a Hessian. So it asks every shard the same question, and adds up the answers in a
fixed order (`tree`). `rows.Rows` does that, and nothing else has a loop over shards.

- A **question** is a pure function of a shard and some arguments: `question(shard, *args)`. It is
  found by its name (the functions below, and those of `curvature` and `block_sums`), so it can be
  pickled and sent to where the shard is. Arguments are small: coefficients, a center, a number.
- An **answer** is small too, and new: it holds no memory of the shard's. Arrays of it belong to the
  asker, who adds to them.
- **Shards** are whoever has the rows. They are in this process (`held.Held`), read from a disk for
  every question (`fastsoftmax._streaming`), or in other processes. They answer in their order, and
  who computes what changes no bit.

Nothing here depends on how many threads, processes or machines there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.shards.shard import Shard, Sums
from fastsoftmax.shards.spread import ColumnMoments, Moments, Spread

T = TypeVar("T")


class Facts(NamedTuple):
    """What is known of all shards together."""

    n_rows: int
    n_shards: int
    stored_numbers: float
    is_dense: bool  # every shard
    is_sparse: bool  # every shard


@dataclass(frozen=True)
class Survey:
    """What a pass over all shards has found, so that no other pass is made for it."""

    least_weight: float  # of a row
    target_sums: Array  # (n_classes,) of the smoothed targets, as `target_sums`
    spread: Spread | None  # of dense rows; None where it is not known
    columns: ColumnMoments | None  # the same of sparse ones
    sample: Shard  # rows that were drawn from all, in memory, with their weights


class Shards(Protocol):
    """The shards of a problem, in their order, wherever they are.

    They have the same classes, features, number type, backend and threads. Row weights have mean 1
    over all shards.
    """

    @property
    def like(self) -> Shard:
        """A shard as all are, but for its rows."""

    @property
    def facts(self) -> Facts:
        """What is known of all shards together."""

    @property
    def survey(self) -> Survey | None:
        """What is known from a pass; None where shards can be asked at any time."""

    def ask(self, question: Callable[..., T], *args: Any, **options: Any) -> Iterator[T]:
        """Yield question(shard, *args, **options) for each shard, in their order."""

    def changed(self, change: Callable[..., Shard], *args: Any) -> "Shards":
        """Return other shards: change(shard, *args) in the place of each."""


class Adding(Protocol):
    """Shards that also add up answers where they are, so that fewer are sent: not needed."""

    def added(
        self, add: Callable[[T, T], T], question: Callable[..., T], *args: Any, **options: Any
    ) -> T:
        """Return the sum of question(shard, *args, **options), in the order of `tree`.

        add is found by its name, as questions are, and may use the memory of its first argument.
        """


# ---- questions; the methods of `Shard` say what they return ----


def loss_grad(shard: Shard, weights: Array, bias: Array) -> Sums:
    """Loss, hits and gradient: one pass of a fit."""
    return shard.loss_grad(weights, bias)


def centered_loss_grad(
    shard: Shard, weights: Array, bias: Array, center: Array, scale: Array
) -> Sums:
    """Return the same of the features scale * (x - center), in float64."""
    return shard.centered_loss_grad(weights, bias, center, scale)


def moments(shard: Shard, shift: Array, units: Array) -> Moments:
    """Return sums of first and second order, of dense rows."""
    return shard.moments(shift, units)


def feature_sums(shard: Shard) -> Array:
    """Weighted sums of the features."""
    return shard.feature_sums()


def column_sums(shard: Shard) -> Array:
    """Weighted sums of x and of x^2 of sparse columns."""
    return shard.column_sums()


def squares(shard: Shard, center: Array) -> Array:
    """Weighted sums of (x - center)^2."""
    return shard.squares(center)


def sums_from(shard: Shard, center: Array) -> Array:
    """Weighted sums of x - center."""
    return shard.sums_from(center)


def centered_sums(shard: Shard, center: Array, scale: Array) -> Array:
    """Weighted sums of scale * (x - center), in float64."""
    return shard.centered_sums(center, scale)


def target_sums(shard: Shard) -> Array:
    """Return the sums of the smoothed targets, by class."""
    return shard.target_sums()


def target_entropy(shard: Shard) -> float:
    """Entropy of the targets, summed."""
    return shard.target_entropy()


def total_weight(shard: Shard, step: int = 1) -> float:
    """Sum of the weights of every step-th row."""
    return shard.total_weight(step)


def least_weight(shard: Shard) -> float:
    """Return the smallest row weight."""
    return float(shard.row_weights.min(initial=np.inf))


def largest_feature(shard: Shard) -> tuple[int, int, int, float]:
    """Return n_rows, and row, column and value of the number that is the farthest from 0."""
    return shard.n_rows, *shard.largest_feature()


def largest_square(shard: Shard, center: Array, scale: Array) -> float:
    """Return the largest squared length of a row."""
    return shard.largest_square(center, scale)


def largest_logit_change(shard: Shard, weights: Array, bias: Array) -> float:
    """Return the largest change of a difference of two logits."""
    return shard.largest_logit_change(weights, bias)


# ---- questions for some rows, or few columns: their numbers are the answer ----


def dense_columns(shard: Shard, columns: slice) -> Array:
    """Columns of all rows, in float64."""
    if not shard.is_dense or columns == slice(None):
        return shard.dense(slice(None))[:, columns]
    x: Array = shard.X[:, columns].astype(np.float64)
    return x


def dense_rows(shard: Shard) -> Array:
    """Return all rows as they are stored, or those of a sparse shard in float64."""
    x: Array = shard.X if shard.is_dense else shard.dense(slice(None))
    return x


class Float64Targets(NamedTuple):
    """Targets of rows, as a backend's `Targets` are made of them."""

    labels: Array | None
    target_probs: Array | None
    row_weights: Array
    label_smoothing: float
    n_classes: int


def float64_targets(shard: Shard) -> Float64Targets:
    """Return the targets in float64."""
    given = shard.targets_as(np.dtype(np.float64))
    labels, probs, row_weights = given.labels, given.target_probs, given.row_weights
    smoothing, n_classes = float(given.label_smoothing), int(given.n_classes)
    return Float64Targets(labels, probs, row_weights, smoothing, n_classes)


def every_row(shard: Shard, step: int) -> tuple[Any, Array]:
    """Return copies of every step-th row, as it is stored, and their weights."""
    return shard.X[::step].copy(), shard.row_weights[::step].copy()


def centered_rows(shard: Shard, center: Array, step: int, *, with_bias: bool) -> Array:
    """Every step-th row: x - center, and a 1 where with_bias, times the root of its weight."""
    numbers = np.arange(0, shard.n_rows, step)
    z = np.ones((len(numbers), shard.n_features + with_bias), dtype=shard.real)
    shard.write_centered(numbers, center, z[:, : shard.n_features])
    z *= np.sqrt(shard.row_weights[numbers])[:, np.newaxis]
    return z
