"""Newton's method, for problems so small that their Hessian costs little.

Nocedal & Wright (2006), "Numerical Optimization", 2nd ed., Section 3.3: near the minimum the number
of right digits doubles with each step, so the last ones are nearly free, and the result does not
depend on the path.
"""

from collections.abc import Iterator
from typing import Generic

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.linalg import invert
from fastsoftmax.solvers.protocols import E, TwiceDifferentiable
from fastsoftmax.solvers.record import State


class NewtonModel(Generic[E]):
    """The quadratic model of the objective, in the span of a basis (n, rank) if one is given."""

    # One step more than most tolerances need (see above), but above the rounding of float64.
    target = 1e-13
    # Newton steps converge quadratically: ten steps without progress are enough to give up.
    patience = 10
    # Near a minimum the expectation of the model is right, so one confirmation is enough.
    confirmations = 1

    def __init__(self, objective: TwiceDifferentiable[E], basis: Array | None = None) -> None:
        self.objective = objective
        self._basis = basis
        self._inverse = np.empty((0, 0))

    def look(self, n_iter: int, at: E, excess: float) -> None:
        """Invert the Hessian at the point that the next direction starts from."""
        hessian = self.objective.hessian(at)
        if self._basis is not None:
            hessian = product(product(self._basis.T, hessian), self._basis)
        self._inverse = hessian  # (the memory of the old inverse is released before the inversion)
        invert(hessian, np.zeros(len(hessian)))

    def directions(self, gradient: Array) -> Iterator[Array]:
        """Yield the Newton direction, then steepest descent, in case rounding has spoilt it."""
        if self._basis is None:
            yield -product(self._inverse, gradient)
            yield -gradient
        else:
            along = product(self._basis.T, gradient)
            yield -product(self._basis, product(self._inverse, along))
            yield -product(self._basis, along)

    def learn(self, moved: Array, change: Array) -> None:
        """Do nothing: the next Hessian tells more than the step."""

    def state(self) -> State:
        """Return nothing: it is all made anew at each point."""
        return {}

    def restore(self, state: State, growth: float) -> None:
        """Do nothing."""
