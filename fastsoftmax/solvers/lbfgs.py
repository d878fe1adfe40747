"""Limited-memory BFGS from a preconditioner, for smooth convex functions.

Nocedal & Wright (2006), "Numerical Optimization", 2nd ed., Algorithm 7.4 (the two-loop recursion),
with gamma * P in place of a multiple of the identity as the initial inverse Hessian. That is the
same as plain L-BFGS in coordinates where P is the identity.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from fastsoftmax.preconditioner import Preconditioner
from fastsoftmax.shard import Array
from fastsoftmax.solvers.line_search import search


class Point(Protocol):
    """What an evaluation tells the solver."""

    @property
    def value(self) -> float:
        """The objective."""

    @property
    def gradient(self) -> Array:
        """Its gradient, flat."""


E = TypeVar("E", bound=Point)


class Objective(Protocol[E]):
    """What the solver asks of a problem."""

    epsilon: float  # relative rounding error of the number type of a pass

    def evaluate(self, point: Array) -> E:
        """Value and gradient."""

    def gap_bound(self, at: E) -> float:
        """Return an upper bound on value - minimum."""

    def preconditioner(self) -> Preconditioner:
        """Approximate the inverse Hessian, up to a factor, for the start."""

    def refinement_cost(self) -> float | None:
        """Return what a better one costs, in evaluations; None if there is none."""

    def refined_preconditioner(self, at: E) -> Preconditioner:
        """Approximate the inverse Hessian better, near a point."""


class Result(NamedTuple, Generic[E]):
    """Where the solver stopped, and why."""

    point: Array
    evaluation: E
    gap: float  # relative: bound on (value - minimum) / value
    n_iter: int
    reason: str  # "converged", "max_iter", "precision", "stopped" (by on_iteration)


# The first better preconditioner comes when the passes so far have cost this share of its price (it
# saves more than it costs: images 3615 x 784, C = 1, passes to 1e-4 / 1e-6: 363 / 683 without,
# 59 / 96 with refinements at 15, 60 and 180), but not before the model has taken shape; each next
# one after this many times the iterations.
_REFINEMENT_SHARE = 0.25
_LEAST_REFINEMENT = 15
_REFINEMENT_GROWTH = 4

# Iterations without a smaller certified gap, while the value does not fall visibly, after which the
# precision of the arithmetic counts as exhausted. The gap is not monotone: pauses of 30 occur.
_PATIENCE = 60


def _share(gap: float, value: float) -> float:
    """Gap / value, for a value that may be 0."""
    return gap / value if value > 0.0 else (0.0 if gap <= 0.0 else np.inf)


def relative_gap(objective: Objective[E], at: E) -> float:
    """gap_bound / value, the figure that `tol` is compared with."""
    return _share(objective.gap_bound(at), at.value)


def minimise(
    objective: Objective[E],
    start: Array,
    *,
    tol: float,
    max_iter: int,
    memory: int = 30,
    on_iteration: Callable[[int, E, float], bool] = lambda n_iter, at, gap: False,
) -> Result[E]:
    """Minimise from `start` until the certified relative gap is at most `tol`.

    Parameters
    ----------
    objective : Objective
    start : ndarray, flat, float64
    tol : float
        Bound on (F - min F) / F at which to stop.
    max_iter : int
        Iterations; each costs one pass, rarely two.
    memory : int, default=30
        Pairs of steps and gradient differences kept.
    on_iteration : callable (n_iter, evaluation, gap) -> bool, optional
        Called after each iteration; True stops.

    Returns
    -------
    Result
    """
    point = start
    at = objective.evaluate(point)
    lower = at.value - objective.gap_bound(at)  # the best lower bound on the minimum so far
    gap = relative_gap(objective, at)
    model = _Model(objective, memory)
    best_gap, best_iter = gap, 0
    for n_iter in range(max_iter):
        if gap <= tol:
            return Result(point, at, gap, n_iter, "converged")
        model.refine(n_iter, at)
        found = None
        for direction in model.directions(at.gradient):
            found = search(objective, point, direction, at)
            if found is not None:
                break
        if found is None:
            return Result(point, at, gap, n_iter, "precision")
        step, new = found
        moved = step * direction
        model.learn(moved, new.gradient - at.gradient)
        noise = objective.epsilon * abs(at.value)
        level = at.value - new.value <= noise
        point, at = point + moved, new
        bound = objective.gap_bound(at)
        gap = _share(min(bound, at.value - lower + 4.0 * noise), at.value)
        lower = max(lower, at.value - bound)
        if on_iteration(n_iter + 1, at, gap):
            return Result(point, at, gap, n_iter + 1, "stopped")
        if gap < best_gap:
            best_gap, best_iter = gap, n_iter
        elif level and n_iter - best_iter >= _PATIENCE:
            return Result(point, at, gap, n_iter + 1, "precision")
    return Result(point, at, gap, max_iter, "converged" if gap <= tol else "max_iter")


class _Model(Generic[E]):
    """The approximate inverse Hessian: a preconditioner times gamma, and the latest pairs."""

    def __init__(self, objective: Objective[E], memory: int) -> None:
        self.objective = objective
        self.preconditioner = objective.preconditioner()
        self.gamma = 1.0
        self.pairs: deque[tuple[Array, Array, float]] = deque(maxlen=memory)
        cost = objective.refinement_cost()
        self.next_refinement = (
            np.inf if cost is None else max(_LEAST_REFINEMENT, _REFINEMENT_SHARE * cost)
        )

    def refine(self, n_iter: int, at: E) -> None:
        """Take a better preconditioner when it is due. The pairs stay true: they are of F."""
        if n_iter >= self.next_refinement:
            self.preconditioner, self.gamma = self.objective.refined_preconditioner(at), 1.0
            self.next_refinement = _REFINEMENT_GROWTH * n_iter

    def directions(self, gradient: Array) -> Iterator[Array]:
        """Yield the direction to take; then, where rounding has spoilt the pairs, one without."""
        yield _direction(gradient, self.pairs, self.preconditioner, self.gamma)
        if self.pairs:
            self.pairs.clear()
            yield -self.gamma * self.preconditioner.apply(gradient)

    def learn(self, moved: Array, change: Array) -> None:
        """Note a step and the difference of the gradients at its ends."""
        curvature = float(moved @ change)
        scale = float(change @ self.preconditioner.apply(change))
        lengths = float(np.sqrt((moved @ moved) * (change @ change)))
        if curvature > 1e-10 * lengths and scale > 0.0:
            self.pairs.append((moved, change, curvature))
            self.gamma = curvature / scale


def _direction(
    gradient: Array,
    pairs: deque[tuple[Array, Array, float]],
    preconditioner: Preconditioner,
    gamma: float,
) -> Array:
    """Minus the approximate inverse Hessian times the gradient."""
    q = gradient.copy()
    shares = []
    for moved, change, curvature in reversed(pairs):
        share = float(moved @ q) / curvature
        q -= share * change
        shares.append(share)
    r = gamma * preconditioner.apply(q)
    for (moved, change, curvature), share in zip(pairs, reversed(shares), strict=True):
        r += (share - float(change @ r) / curvature) * moved
    return np.negative(r, out=r)
