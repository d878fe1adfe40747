"""Descent along the directions of a model of the objective, until a certified gap is small.

`lbfgs.LbfgsModel` and `newton.NewtonModel` say where to go; here is what they share.
"""

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

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
E_contra = TypeVar("E_contra", bound=Point, contravariant=True)


class Objective(Protocol[E]):
    """What the solver asks of a problem."""

    epsilon: float  # relative rounding error of the number type of a pass

    def evaluate(self, point: Array) -> E:
        """Value and gradient."""

    def gap_bound(self, at: E) -> float:
        """Return an upper bound on value - minimum."""


class Result(NamedTuple, Generic[E]):
    """Where the solver stopped, and why."""

    point: Array
    evaluation: E
    gap: float  # relative: bound on (value - minimum) / value
    n_iter: int
    reason: str  # "converged", "max_iter", "precision", "stopped" (by on_iteration)


class Model(Protocol[E_contra]):
    """An approximation of the objective around a point.

    Attributes
    ----------
    target : float
        Relative gap to go on to, though `tol` asks for less, because that costs next to nothing.
    patience : int
        Iterations without a smaller gap, while the value does not fall visibly, after which the
        precision of the arithmetic counts as exhausted.
    """

    target: float
    patience: int

    def look(self, n_iter: int, at: E_contra) -> None:
        """See the point that the next direction starts from."""

    def directions(self, gradient: Array) -> Iterator[Array]:
        """Yield the direction to take, and others in case no step along it makes progress."""

    def learn(self, moved: Array, change: Array) -> None:
        """Note a step and the difference of the gradients at its ends."""


def _share(gap: float, value: float) -> float:
    """Gap / value, for a value that may be 0."""
    return gap / value if value > 0.0 else (0.0 if gap <= 0.0 else np.inf)


def relative_gap(objective: Objective[E], at: E) -> float:
    """gap_bound / value, the figure that `tol` is compared with."""
    return _share(objective.gap_bound(at), at.value)


def minimise(
    objective: Objective[E],
    start: Array,
    model: Model[E],
    *,
    tol: float,
    max_iter: int,
    on_iteration: Callable[[int, E, float], bool] = lambda n_iter, at, gap: False,
) -> Result[E]:
    """Minimise from `start` until the certified relative gap is at most `tol`.

    Parameters
    ----------
    objective : Objective
    start : ndarray, flat, float64
    model : Model
        Where to go from a point.
    tol : float
        Bound on (F - min F) / F at which to stop.
    max_iter : int
        Iterations; each costs one pass, rarely two.
    on_iteration : callable (n_iter, evaluation, gap) -> bool, optional
        Called after each iteration; True stops.

    Returns
    -------
    Result
    """
    point = start
    at = objective.evaluate(point)
    # the best lower bound on the minimum so far, less what rounding may have added to it
    lower = at.value - objective.gap_bound(at) - 4.0 * objective.epsilon * abs(at.value)
    gap = relative_gap(objective, at)
    target = min(tol, max(model.target, objective.epsilon))
    best_gap, best_iter = gap, 0
    for n_iter in range(max_iter):
        if gap <= target:
            return Result(point, at, gap, n_iter, "converged")
        model.look(n_iter, at)
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
        level = at.value - new.value <= objective.epsilon * abs(at.value)
        point, at = point + moved, new
        noise = objective.epsilon * abs(at.value)
        bound = objective.gap_bound(at)
        gap = _share(min(bound, at.value - lower + 4.0 * noise), at.value)
        lower = max(lower, at.value - bound - 4.0 * noise)
        if on_iteration(n_iter + 1, at, gap):
            return Result(point, at, gap, n_iter + 1, "stopped")
        if gap < best_gap:
            best_gap, best_iter = gap, n_iter
        elif level and n_iter - best_iter >= model.patience:
            return Result(point, at, gap, n_iter + 1, "precision")
    return Result(point, at, gap, max_iter, "converged" if gap <= tol else "max_iter")
