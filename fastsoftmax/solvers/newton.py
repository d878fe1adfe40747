"""Newton's method, for problems so small that their Hessian costs little.

Nocedal & Wright (2006), "Numerical Optimization", 2nd ed., Section 3.3: near the minimum the number
of right digits doubles with each step, so the last ones are nearly free, and the result does not
depend on the path.
"""

from collections.abc import Iterator
from typing import Generic, Protocol

import numpy as np

from fastsoftmax.problem.curvature import invert
from fastsoftmax.shards.shard import Array
from fastsoftmax.solvers.descent import E, Objective


class TwiceDifferentiable(Objective[E], Protocol[E]):
    """What this solver asks of a problem besides."""

    def hessian(self, at: E) -> Array:
        """Return the matrix of second derivatives at a point, (n, n), in a new array."""


class NewtonModel(Generic[E]):
    """The quadratic model of the objective."""

    target = 1e-13
    patience = 10
    confirmations = 1

    def __init__(self, objective: TwiceDifferentiable[E]) -> None:
        self.objective = objective
        self._inverse = np.empty((0, 0))

    def look(self, n_iter: int, at: E) -> None:
        """Invert the Hessian at the point that the next direction starts from."""
        self._inverse = self.objective.hessian(at)
        invert(self._inverse, np.zeros(len(self._inverse)))

    def directions(self, gradient: Array) -> Iterator[Array]:
        """Yield the Newton direction, and steepest descent in case rounding has spoilt it."""
        yield -(self._inverse @ gradient)
        yield -gradient

    def learn(self, moved: Array, change: Array) -> None:
        """Nothing: the next Hessian knows better."""
