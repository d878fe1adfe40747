"""Steps and the differences of gradients along them: what quasi-Newton methods learn from.

Nocedal & Wright (2006), "Numerical Optimization", 2nd ed., Algorithm 7.4 (the two-loop recursion),
with gamma * P in place of a multiple of the identity as the initial inverse Hessian. That is the
same as plain L-BFGS in coordinates where P is the identity.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.protocols import Preconditioner
from fastsoftmax.solvers.record import Damaged, State, array_in, finite_in
from fastsoftmax.solvers.vectors import Vectors

# Least curvature of a pair, as a share of its lengths' product. Differences of gradients are wrong
# by some 1e-16 of the gradients (float64), so less than this is rounding.
_LEAST_CURVATURE = 1e-10


class Pair(NamedTuple):
    """A step, and the change of the gradient along it."""

    moved: Array
    change: Array  # of the gradient
    curvature: float  # the product of both, > 0


def pair_of(moved: Array, change: Array, vectors: Vectors) -> Pair | None:
    """Return the pair of a step, None where its curvature cannot be told from 0."""
    curvature = vectors.dot(moved, change)
    lengths = vectors.dot(moved, moved) * vectors.dot(change, change)
    if not curvature > _LEAST_CURVATURE * float(np.sqrt(lengths)):
        return None
    return Pair(moved, change, curvature)


class Pairs(deque[Pair]):
    """The latest pairs, oldest first: up to `most` that fit n_bytes, but `least` in any case."""

    def __init__(self, most: int, n_bytes: int, least: int) -> None:
        super().__init__()
        self._most, self._n_bytes, self._least = most, n_bytes, least

    def most_of(self, n_bytes: int) -> int:
        """Return how many pairs of so many bytes are kept."""
        return max(1, min(self._most, max(self._least, self._n_bytes // max(1, n_bytes))))

    def add(self, pair: Pair) -> None:
        """Keep a pair, and drop the oldest ones for it."""
        while len(self) >= self.most_of(pair.moved.nbytes + pair.change.nbytes):
            self.popleft()
        self.append(pair)

    def state(self) -> State:
        """Return the pairs by numbers, oldest first."""
        vectors: State = {}
        for i, pair in enumerate(self):
            vectors |= {f"moved{i}": pair.moved, f"change{i}": pair.change}
        return {**vectors, "curvature": np.array([pair.curvature for pair in self])}

    def restore(self, state: State) -> None:
        """Hold the pairs of a state, in place of others."""
        self.clear()
        for i, curvature in enumerate(finite_in(state, "curvature", (None,)).tolist()):
            if curvature <= 0.0:
                raise Damaged("a pair has no curvature")
            moved = array_in(state, f"moved{i}")
            self.append(Pair(moved, array_in(state, f"change{i}", moved.shape), curvature))

    def among(self, free: Array, vectors: Vectors) -> list[Pair]:
        """Return the pairs of some elements of the vectors, where these have curvature."""
        some = (pair_of(moved[free], change[free], vectors) for moved, change, _ in self)
        return [pair for pair in some if pair is not None]


def scale_from(pair: Pair, preconditioner: Preconditioner, vectors: Vectors) -> float | None:
    """Return the gamma that makes gamma * preconditioner agree with a pair; None if none does."""
    scale = vectors.dot(pair.change, preconditioner.apply(pair.change))
    return pair.curvature / scale if 0.0 < scale < np.inf else None


def two_loops(
    gradient: Array,
    pairs: Sequence[Pair],
    preconditioner: Preconditioner,
    gamma: float,
    vectors: Vectors,
) -> Array:
    """Return minus the approximate inverse Hessian times the gradient, in a new array."""
    newest_first = pairs[::-1]
    q, shares = gradient, []
    product = vectors.dot(newest_first[0].moved, gradient) if newest_first else 0.0
    for i, pair in enumerate(newest_first):
        shares.append(product / pair.curvature)
        # the product that the next pair needs comes with the sum
        other = newest_first[i + 1].moved if i + 1 < len(newest_first) else None
        out = np.empty_like(q) if q is gradient else q
        product = vectors.add(q, -shares[-1], pair.change, other, out=out)
        q = out
    r = preconditioner.apply(q)
    del q
    vectors.multiply(r, -gamma)
    product = vectors.dot(pairs[0].change, r) if newest_first else 0.0
    for i, pair in enumerate(pairs):
        other = pairs[i + 1].change if i + 1 < len(pairs) else None
        product = vectors.add(r, -shares.pop() - product / pair.curvature, pair.moved, other, out=r)
    return r
