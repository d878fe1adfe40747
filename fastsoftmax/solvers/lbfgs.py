"""Limited-memory BFGS from a preconditioner, for smooth convex functions."""

from collections.abc import Iterator
from typing import Generic, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.pairs import Pair, Pairs, pair_of, scale_from, two_loops
from fastsoftmax.solvers.protocols import E, Preconditioned, Preconditioner
from fastsoftmax.solvers.vectors import Vectors

# The first better preconditioner comes when the passes so far have cost this share of its price,
# but not before the model has taken shape; each next one after this many times the iterations.
# Passes and seconds to a certified 1e-4, the first at 10, and as here: images 60000 x 784, K = 10:
# 50 and 0.94 (a second one is due), 55 and 0.68; 10000 x 784: 49 and 0.55, 55 and 0.38.
_REFINEMENT_SHARE = 0.25
_LEAST_REFINEMENT = 15
_REFINEMENT_GROWTH = 4
# One that costs fewer passes than this comes earlier and more often. Passes to a certified 1e-4,
# the first at 2, 4, 6 and 8: embeddings 50000 x 512, K = 100: 36, 31, 31, 32.
_CHEAP_REFINEMENT = 8.0
_LEAST_CHEAP = 4
_CHEAP_GROWTH = 2
# All pairs together, and the fewest. A refined preconditioner knows most of what they could tell:
# passes to a certified 1e-4 of text 90000 x 200000 with 1, 3, 5 and 8 pairs: 22, 24, 23, 22; of
# embeddings 50000 x 512, K = 100, with 3, 5 and 30: 29, 26, 26; 20000 x 768, K = 1000, with 1, 2
# and 5: 30, 30, 29.
_MEMORY_BYTES = 1 << 24
_LEAST_MEMORY = 1


class LbfgsModel(Generic[E]):
    """The approximate inverse Hessian: a preconditioner times gamma, and the latest pairs.

    At most `memory` pairs are kept; fewer where they would take more than `_MEMORY_BYTES`. `first`
    is what is known of the inverse Hessian, such as `inverse` of a problem much like this one; it
    is not refined. None for the objective's own, which is.
    """

    target = np.inf
    # The gap is not monotone: pauses of 30 iterations occur.
    patience = 60
    # One small expectation may be the fault of a bad pair.
    confirmations = 3

    def __init__(
        self, objective: Preconditioned[E], memory: int = 30, first: Preconditioner | None = None
    ) -> None:
        self.objective = objective
        self.vectors = objective.vectors
        self._first = first
        self._refined: Preconditioner | None = None
        self.gamma = 1.0
        self.pairs = Pairs(memory, _MEMORY_BYTES, _LEAST_MEMORY)
        cost = objective.refinement_cost() if first is None else None
        cheap = cost is not None and cost < _CHEAP_REFINEMENT
        least = _LEAST_CHEAP if cheap else _LEAST_REFINEMENT
        self.growth = _CHEAP_GROWTH if cheap else _REFINEMENT_GROWTH
        self.next_refinement = np.inf if cost is None else max(least, _REFINEMENT_SHARE * cost)

    @property
    def first(self) -> Preconditioner:
        """What is known of the inverse Hessian at the start; made where it is needed."""
        if self._first is None:
            self._first = self.objective.preconditioner()
        return self._first

    @property
    def preconditioner(self) -> Preconditioner:
        """What is known of the inverse Hessian now, up to gamma and the pairs."""
        return self.first if self._refined is None else self._refined

    def look(self, n_iter: int, at: E) -> None:
        """Take a better preconditioner when it is due. The pairs stay true: they are of F."""
        if n_iter >= self.next_refinement:
            self._first = self._refined = None  # their memory; the first can be made again
            self._refined = self.objective.refined_preconditioner(at)
            self.gamma = 1.0
            if self.pairs:
                self._rescale(self.pairs[-1])
            self.next_refinement = self.growth * n_iter

    def directions(self, gradient: Array) -> Iterator[Array]:
        """Yield the direction to take; then, where rounding has spoilt the pairs, one without."""
        pairs = tuple(self.pairs)
        direction = two_loops(gradient, pairs, self.preconditioner, self.gamma, self.vectors)
        del pairs
        paired = len(self.pairs) > 0
        if self.pairs.most_of(2 * gradient.nbytes) == 1:
            self.pairs.clear()  # its memory: the step that now comes takes its place
        yield direction
        if paired:
            self.pairs.clear()
            yield -self.gamma * self.preconditioner.apply(gradient)
        if self._refined is not None:
            # where every row of a class is decided, the refined one can be next to infinite
            self._refined, self.gamma = None, 1.0
            yield -self.first.apply(gradient)

    def learn(self, moved: Array, change: Array) -> None:
        """Note a step and the difference of the gradients at its ends."""
        pair = pair_of(moved, change, self.vectors)
        if pair is not None and self._rescale(pair):
            self.pairs.add(pair)

    def _rescale(self, pair: Pair) -> bool:
        """Take gamma from a pair, the latest.

        A refined preconditioner is right about the size of a class's curvature, but not of its
        coupling with others: without gamma, two steps of three had to be taken back.
        """
        gamma = scale_from(pair, self.preconditioner, self.vectors)
        if gamma is None:
            return False
        self.gamma = gamma
        return True

    def inverse(self) -> Preconditioner:
        """Return the inverse Hessian as it is known now, to start on a problem much like this one.

        Source: Morales & Nocedal (2000), SIAM J. Optim. 10, "Automatic preconditioning by limited
        memory quasi-Newton updating".
        """
        return _Learnt(tuple(self.pairs), self.preconditioner, self.gamma, self.vectors)


class _Learnt(NamedTuple):
    """A preconditioner times gamma, updated by pairs of steps and gradient differences."""

    pairs: tuple[Pair, ...]
    preconditioner: Preconditioner
    gamma: float
    vectors: Vectors

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        direction = two_loops(gradient, *self)
        return np.negative(direction, out=direction)
