"""Descent along the directions of a model of the objective, until a certified gap is small.

`lbfgs.LbfgsModel` and `newton.NewtonModel` say where to go; here is what they share.
"""

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.protocols import Limits
from fastsoftmax.solvers.vectors import Vectors
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
    """What the solver asks of a problem. Its values are >= 0."""

    epsilon: float  # relative rounding error of the number type of a pass
    vectors: Vectors  # sums and products of points and gradients

    def evaluate(self, point: Array) -> E:
        """Value and gradient."""

    def gap_bound(self, at: E) -> float:
        """Return an upper bound on value - minimum."""

    def noise(self, at: E) -> float:
        """Return the size of errors in value and bound where terms cancel."""


class Result(NamedTuple, Generic[E]):
    """Where the solver stopped, and why."""

    point: Array
    evaluation: E
    gap: float  # relative: bound on (value - minimum) / value
    n_iter: int
    reason: str  # one of `minimise`'s
    direction: Array | None = None  # the last one of the model, its second thoughts aside
    gain: float = np.inf  # relative: what it expected there, half a squared Newton decrement


class Model(Protocol[E_contra]):
    """An approximation of the objective around a point.

    Attributes
    ----------
    target : float
        Relative gap to go on to, though `tol` asks for less, because that costs next to nothing.
    patience : int
        Iterations without a smaller gap, while the value does not fall visibly, after which the
        precision of the arithmetic counts as exhausted.
    confirmations : int
        Iterations in a row that must expect next to no decrease before the model is believed.
    """

    target: float
    patience: int
    confirmations: int

    def look(self, n_iter: int, at: E_contra) -> None:
        """See the point that the next direction starts from."""

    def directions(self, gradient: Array) -> Iterator[Array]:
        """Yield the direction to take, and others in case no step along it makes progress."""

    def learn(self, moved: Array, change: Array) -> None:
        """Note a step and the difference of the gradients at its ends."""


def share_of(gap: float, value: float) -> float:
    """Gap / value, for a value that may be 0; at most 1, for no minimum is below 0."""
    if gap == np.inf:
        return np.inf
    if not value > 0.0:
        return 0.0 if gap <= 0.0 else np.inf
    share = gap / value
    return share if share < 1.0 else 1.0  # (also where it is NaN: what overflowed tells nothing)


def relative_gap(objective: Objective[E], at: E) -> float:
    """Bound on (F - min F) / F, the figure that `tol` is compared with."""
    return share_of(objective.gap_bound(at) + objective.noise(at), at.value)


def minimise(
    objective: Objective[E],
    start: Array,
    model: Model[E],
    limits: Limits,
    *,
    floor: float = -np.inf,
    least_gain: float = 0.0,
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
    expired : callable () -> bool, optional
        Whether time is up; asked before each iteration.
    floor : float, optional
        A value at which to stop.
    least_gain : float, optional
        Stop where the model, more than `confirmations` times in a row, expects to gain no more than
        this share of the value (half the squared Newton decrement).

    Returns
    -------
    Result
        Values never rise but by rounding, so its point is the best that was seen. The reason is
        "converged", "max_iter", "precision" (rounding forbids more), "stopped" (by on_iteration),
        "max_time", "floor" or "stationary" (by least_gain).
    """
    tol, max_iter = limits.tol, limits.max_iter
    on_iteration, expired = limits.on_iteration, limits.expired
    point = start
    at = objective.evaluate(point)
    # the best lower bound on the minimum so far, less what rounding may have added to it
    cancelled = objective.noise(at)
    bound = objective.gap_bound(at) + cancelled
    lower = max(0.0, at.value - bound - 4.0 * (objective.epsilon * abs(at.value) + cancelled))
    gap = share_of(bound, at.value)
    target = min(tol, max(model.target, objective.epsilon))
    best_bound, best_iter, calm = bound, 0, 0
    direction: Array | None = None
    gain = np.inf
    for n_iter in range(max_iter):
        # beyond tol there is no point in aiming at less than what cancels
        if gap <= max(target, min(tol, share_of(4.0 * cancelled, at.value))):
            return Result(point, at, gap, n_iter, "converged")
        if at.value <= floor:
            return Result(point, at, gap, n_iter, "floor", direction, gain)
        if calm > model.confirmations:
            return Result(point, at, gap, n_iter, "stationary", direction, gain)
        if expired():
            return Result(point, at, gap, n_iter, "max_time")
        model.look(n_iter, at)
        found = first = None
        for trial in model.directions(at.gradient):
            first = trial if first is None else first
            found = search(objective, point, trial, at)
            if found is not None:
                break
        if first is not None:
            decrement = -objective.vectors.dot(first, at.gradient)
            direction, gain = first, share_of(0.5 * decrement, at.value)
        if found is None:
            return Result(point, at, gap, n_iter, "precision", direction, gain)
        calm = calm + 1 if gain <= least_gain else 0
        step, point, new = found
        moved = trial if step == 1.0 else step * trial
        model.learn(moved, objective.vectors.sum(new.gradient, -1.0, at.gradient))
        level = at.value - new.value <= objective.epsilon * abs(at.value)
        at = new
        cancelled = objective.noise(at)
        noise = objective.epsilon * abs(at.value) + cancelled
        bound = objective.gap_bound(at) + cancelled
        # an infinite bound means that nothing is certified, not even with what is known of before
        known = min(bound, max(at.value - lower, 0.0) + 4.0 * noise) if bound < np.inf else bound
        gap = share_of(known, at.value)
        lower = max(lower, at.value - bound - 4.0 * noise)
        if on_iteration(n_iter + 1, at, gap):
            return Result(point, at, gap, n_iter + 1, "stopped")
        if bound < best_bound:
            best_bound, best_iter = bound, n_iter
        elif level and n_iter - best_iter >= model.patience:
            return Result(point, at, gap, n_iter + 1, "precision", direction, gain)
    return Result(point, at, gap, max_iter, "converged" if gap <= tol else "max_iter")
