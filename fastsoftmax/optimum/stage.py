"""What a fit is made of: stages that run one after another, and views of its problem.

A stage is one way to go on from a point. It hands over to the next where it had to stop before the
tolerance. `full_batch` lists the stages of a fit and runs them.

A view is the same problem in other unknowns: fewer features, the span of the rows, the rows in one
array. What is solved in a view is brought back and judged by the objective itself.
"""

from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.floating_point import is_own_arithmetic
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem.evaluation import Evaluation, Seen, SeenElsewhere
from fastsoftmax.solvers import protocols
from fastsoftmax.solvers.lower_bound import relative_gap
from fastsoftmax.solvers.protocols import Preconditioner
from fastsoftmax.solvers.record import State, part_of

Limits = protocols.Limits[Seen]
Result = protocols.Result[Evaluation]


class Solution(NamedTuple):
    """The end of a fit, and what was learnt on the way."""

    result: Result
    curvature: Preconditioner | None = None  # of the inverse Hessian, where L-BFGS was the last


class Stage(Protocol):
    """One way to go on towards the minimum of an objective."""

    def run(self, start: Array, limits: Limits) -> Result | None:
        """Go on from a point; None where this way leads nowhere."""

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether the next stage should go on from there."""

    def conclude(self, result: Result, tol: float) -> Solution:
        """Return the end of the fit, where this stage was the last."""


class View(Protocol):
    """The same problem in other unknowns."""

    def inside(self, point: Array) -> Array:
        """Return the view's unknowns for a point of the problem."""

    def outside(self, point: Array) -> Array:
        """Return the problem's point for unknowns of the view."""

    def coefficients(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Return W and b of the problem for those of the view."""


def seen_outside(view: View, at: Seen) -> Seen:
    """Return what callbacks see of a point of a view: the coefficients of the problem."""
    return SeenElsewhere(
        at.loss, at.accuracy, at.value, lambda: view.coefficients(at.weights, at.bias)
    )


def after(limits: Limits, n_iter: int) -> Limits:
    """Return the limits of a stage that goes on after so many iterations."""
    if n_iter == 0:
        return limits

    def count(n_more: int, at: Seen, gap: float) -> bool:
        return limits.on_iteration(n_iter + n_more, at, gap)

    return replace(limits, max_iter=limits.max_iter - n_iter, on_iteration=count)


def with_objective(limits: Limits, by: SoftmaxObjective) -> Limits:
    """Return limits whose record has what an objective knows beside the solver's state.

    What a run has left of it is taken over.
    """
    record = limits.record
    if record.found is not None:
        by.restore(part_of(record.found, "objective"))

    def beside() -> State:
        return {"objective": by.state()}

    return replace(limits, record=record.within(beside))


def in_errstate_of_caller(limits: Limits) -> Limits:
    """Return limits whose on_iteration runs in numpy's error state of now.

    It belongs to the user, whose warnings are not ours to silence. In public functions
    `floating_point` sees to that.
    """
    if is_own_arithmetic():
        return limits
    state = np.geterr()

    def told(n_iter: int, at: Seen, gap: float) -> bool:
        with np.errstate(**state):
            return limits.on_iteration(n_iter, at, gap)

    return replace(limits, on_iteration=told)


def judged(objective: SoftmaxObjective, point: Array, n_iter: int, reason: str) -> Result:
    """Return a point that was found in a view as the objective itself sees it."""
    at = objective.evaluate(point)
    return protocols.Result(point, at, relative_gap(objective, at), n_iter, reason)


def in_type_of_rows(objective: SoftmaxObjective, result: Result, tol: float) -> Result:
    """Round the coefficients as the estimator will hold them; the lower bound stays true."""
    at = objective.by.rounded(result.evaluation)
    if at is result.evaluation or not np.isfinite(at.value):
        return result
    before, gap, reason = result.evaluation.value, result.gap, result.reason
    if gap < np.inf:
        lower = before * (1.0 - gap)
        beyond = at.value - lower + objective.noise(at)
        gap = min(1.0, max(0.0, beyond) / at.value) if at.value > 0.0 else 0.0
    elif reason == "stationary" and at.value > (1.0 + tol) * before:
        reason = "precision"
    return result._replace(evaluation=at, gap=gap, reason=reason)
