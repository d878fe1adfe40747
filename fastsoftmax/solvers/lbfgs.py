"""Limited-memory BFGS from a preconditioner, for smooth convex functions."""

import math
from collections.abc import Iterator
from typing import Generic, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.pairs import Pair, Pairs, pair_of, scale_from, two_loops
from fastsoftmax.solvers.progress import Progress
from fastsoftmax.solvers.protocols import E, Preconditioned, Preconditioner
from fastsoftmax.solvers.record import State, array_in, count_in, number_in, part_of
from fastsoftmax.solvers.vectors import Vectors

# A better preconditioner comes when the progress so far predicts more iterations than it costs,
# with those that it still needs then. It may cost so many times as much as all so far, so it is
# cheap at first, and each next one is better. Iterations of images 7500 x 784, K = 10, with shares
# of 1, 2 and 3: 59, 51, 53, and evaluations for preconditioners: 23, 53, 63. It may also cost a
# sixth of the iterations that are left without it: twice the cost saves about a fifth of those that
# it leaves. (CPU of real embeddings 10003 x 384, K = 77, C = 1, 10, 100 and 1000, without this
# limit and with a fourth and an eighth: 0.49, 1.00, 1.17 and 2.3 s; 0.33, 0.63, 1.10 and 2.1; 0.31,
# 0.56, 1.15 and 2.1.)
_AFTER, _SHARE, _GAIN = 4.0, 2.0, 6.0
# Iterations until progress is judged: from the start (less where it costs hardly anything), and
# from the first and the second one (with 8 instead of 10 they were made too often).
_LEAST, _LEAST_AGAIN, _LEAST_CHEAP, _CHEAP = 6, 10, 3, 1.0
# Where nothing is certified, it comes after this many times the iterations.
_GROWTH = 3
# Gamma comes from each of so many pairs after a new preconditioner, and from one in so many then:
# it takes a product with the preconditioner, as a direction does. (Geometric means of 23 fits: 38.1
# iterations and 0.46 CPU seconds; with gamma from each pair 38.4 and 0.48.)
_SCALED = 3
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

    # What is wanted in the end, as a share of what ends the run.
    final = 1.0
    # Whether it can be asked for its state: then it notes where a preconditioner was built.
    is_left = False

    def __init__(
        self, objective: Preconditioned[E], memory: int = 30, first: Preconditioner | None = None
    ) -> None:
        self.objective = objective
        self.vectors = objective.vectors
        self._first = first
        self._refined: Preconditioner | None = None
        self._place: State | None = None  # where that was built
        self._most = 0.0  # what it might cost
        self.gamma = 1.0
        self.pairs = Pairs(memory, _MEMORY_BYTES, _LEAST_MEMORY)
        self._is_given = first is not None
        self._spent = 0.0  # evaluations, and what preconditioners have cost in them
        self._least = _LEAST
        self._n_pairs = 0  # that the preconditioner of now has seen
        self._last_cost = 0.0  # of the latest: a poorer one would make it worse
        self._progress = Progress()

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

    def look(self, n_iter: int, at: E, excess: float) -> None:
        """Take a better preconditioner when it is due. The pairs stay true: they are of F."""
        excess = excess / self.final if self.final > 0.0 else math.inf
        self._progress.note(excess)
        self._spent += 1.0
        if self._spent == 1.0 and not self._is_given:
            self._calibrate(at)
            self.gamma /= self.objective.caution
        if self._is_given or len(self._progress) <= _LEAST_CHEAP:
            return
        remaining = self._progress.remaining()
        most = _SHARE * self._spent
        most = most if remaining is None else min(most, remaining - _AFTER, remaining / _GAIN)
        found = self.objective.refinement(most)
        if found is None or found.cost < self._last_cost or not self._pays(found.cost):
            return
        self._first = self._refined = None  # their memory; the first can be made again
        self._refined = found.build(at)
        self._place = self.objective.place_of(at) if self.is_left else None
        self._most = found.most_cost
        self._spent += found.cost
        self._last_cost = found.cost
        self._least = _LEAST_AGAIN if self._least == _LEAST else 2 * self._least
        self._progress = Progress()
        self._progress.note(excess)
        self._calibrate(at)

    def expected(self) -> float | None:
        """Return how many iterations are left as it seems; None where too few tell."""
        return self._progress.remaining() if len(self._progress) >= _LEAST else None

    def _calibrate(self, at: E) -> None:
        """Take gamma from the curvature along the direction that a new preconditioner gives."""
        direction = self.preconditioner.apply(at.gradient)
        curvature = self.objective.curvature_along(at, direction)
        slope = self.vectors.dot(direction, at.gradient)
        known = 0.0 < slope < math.inf and 0.0 < curvature < math.inf
        self.gamma = slope / curvature if known else 1.0
        self._n_pairs = 0

    def _pays(self, cost: float) -> bool:
        """Whether a preconditioner of a cost is due."""
        n_seen = len(self._progress) - 1
        if n_seen < (_LEAST_CHEAP if cost < _CHEAP and self._refined is None else self._least):
            return False
        remaining = self._progress.remaining()
        if remaining is None:
            return n_seen > _GROWTH * (self._spent - n_seen)
        return remaining > cost + _AFTER

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
            self._refined, self._place = None, None
            self.gamma, self._n_pairs = 1.0, 0
            yield -self.first.apply(gradient)

    def learn(self, moved: Array, change: Array) -> None:
        """Note a step and the difference of the gradients at its ends."""
        pair = pair_of(moved, change, self.vectors)
        if pair is not None and self._rescale(pair):
            self.pairs.add(pair)

    def _rescale(self, pair: Pair) -> bool:
        """Take gamma from a pair, the latest, if it is time. Returns whether the pair is of use.

        A refined preconditioner is right about the size of a class's curvature, but not of its
        coupling with others: without gamma, two steps of three had to be taken back.
        """
        self._n_pairs += 1
        if self._n_pairs > _SCALED and self._n_pairs % _SCALED:
            return True
        gamma = scale_from(pair, self.preconditioner, self.vectors)
        if gamma is None:
            return False
        self.gamma = gamma
        return True

    def state(self) -> State:
        """As of `protocols.Model`; only where `is_left`, and without a first that was given."""
        refined = {} if self._place is None else {**self._place, "most": self._most}
        return {
            "pairs": self.pairs.state(),
            "refined": refined,
            "gamma": self.gamma,
            "n_pairs": self._n_pairs,
            "spent": self._spent,
            "least": self._least,
            "last_cost": self._last_cost,
            "progress": self._progress.state(),
        }

    def restore(self, state: State, growth: float) -> None:
        """As of `protocols.Model`; builds the preconditioner again, at the place of that time."""
        self.pairs.restore(part_of(state, "pairs"))
        self.gamma, self._spent = number_in(state, "gamma"), number_in(state, "spent")
        self._n_pairs = count_in(state, "n_pairs")
        self._least, self._last_cost = count_in(state, "least"), number_in(state, "last_cost")
        self._progress.restore(array_in(state, "progress"), growth)
        refined = part_of(state, "refined")
        if refined:
            self._place = {name: refined[name] for name in refined.keys() - {"most"}}
            self._most = number_in(refined, "most")
            self._first = None
            self._refined = self.objective.refined_at(self._place, self._most)
        else:
            _ = self.first  # (the objective refines none where this shows that it does not pay)

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
