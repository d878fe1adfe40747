"""What steps over batches change: coefficients and their velocity, of the columns seen so far.

Of hashed text a batch fills few columns, and the next one others. Coefficients are kept of those
that have had an entry (see `columns`). The others are 0, which neither penalty nor velocity
changes, and join with 0 when a batch has them.
"""

from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.columns import (
    InColumns,
    filled_columns,
    in_columns,
    numbers_of,
    unless_most,
)
from fastsoftmax.shards.rows import with_columns
from fastsoftmax.shards.shard import Shard


class Linear(NamedTuple):
    """W, in any form that `columns` knows, and b; or their velocity."""

    weights: Any  # (n_logits, n_features)
    bias: Array  # (n_logits,)

    def flat(self, columns: Array | None) -> Array:
        """Return W for some columns (None for all) and after it b, in a new array."""
        return np.concatenate([in_columns(self.weights, columns).ravel(), self.bias])


class Moving:
    """Coefficients and their velocity, flat, for the columns in use; steps change both in place."""

    def __init__(
        self, start: Linear, velocity: Linear | None, first: Shard, *, with_velocity: bool
    ) -> None:
        """Begin with a start and a velocity (none: at rest), in their columns and those of rows."""
        given = [start] if velocity is None else [start, velocity]
        self._shape = start.weights.shape
        self.columns = filled_columns(first.X, *(part.weights for part in given))
        self.params = start.flat(self.columns)
        self.velocity: Array | None = None
        if with_velocity:
            at_rest = np.zeros_like(self.params)
            self.velocity = at_rest if velocity is None else velocity.flat(self.columns)
        self._number: Array | None = None  # of `numbers_of`, once it is needed

    @property
    def coefficients(self) -> Linear:
        """The coefficients, which later steps change, too."""
        return linear(self.params, self.columns, self._shape)

    def joined_by(self, shard: Shard) -> Shard:
        """Return the rows of a batch in the columns in use, which those with entries join."""
        if self.columns is None:
            return shard
        if shard.is_dense:
            self._use(None)
            return shard
        if self._number is None:
            self._number = numbers_of(self.columns, shard.n_features)
        number = self._number
        entries = shard.X.indices[shard.X.indptr[0] : shard.X.indptr[-1]]
        new = entries[number[entries] < 0]
        if len(new):
            number[new] = 0
            columns = np.flatnonzero(number >= 0)
            number[columns] = np.arange(len(columns))
            self._use(unless_most(columns, shard.n_features))
        return with_columns(shard, self.columns, number)

    def _use(self, columns: Array | None) -> None:
        """Go on with more columns; None for all."""
        params, velocity = self.coefficients.flat(columns), self.velocity
        if velocity is not None:
            self.velocity = linear(velocity, self.columns, self._shape).flat(columns)
        self.params, self.columns = params, columns


def linear(flat: Array, columns: Array | None, shape: tuple[int, int]) -> Linear:
    """Return W, of a shape with all columns, and b, as views of what holds W for some columns."""
    n_logits, n_features = shape
    weights, bias = flat[:-n_logits].reshape(n_logits, -1), flat[-n_logits:]
    return Linear(weights if columns is None else InColumns(columns, weights, n_features), bias)
