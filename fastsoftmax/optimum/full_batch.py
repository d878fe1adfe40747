"""From a start to the certified optimum: which solver goes on where another had to stop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import small, working_set
from fastsoftmax.optimum.centered import CenteredEvaluation, CenteredObjective
from fastsoftmax.optimum.row_space import RowSpace
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.solvers import descent, lower_bound, protocols
from fastsoftmax.solvers.lbfgs import LbfgsModel
from fastsoftmax.solvers.newton import NewtonModel
from fastsoftmax.solvers.protocols import Limits, Preconditioner

Result = protocols.Result[Evaluation]

# Without a penalty, the loss per row and log(number of classes) at which classes count as
# separable. Margins are about 14 then; below it only coefficients grow, without a limit.
_SEPARATED = 1e-6
# There nothing can be certified. Where half the squared Newton decrement is this share of F, and
# Newton's method takes one more step, it has the last digits.
_LEAST_GAIN = 1e-12
# A Newton step from a minimum to within rounding changes no logit by as much as this; where the
# minimum is at infinity, each changes those of the separable rows by 1.
_SEPARATING_CHANGE = 0.1
# Newton's method suits up to this many coefficients, and multiply-adds of a Hessian. Ten classes of
# 64 features (digits) are just over: there both methods take about as long.
_NEWTON_PARAMS = 320
_NEWTON_WORK = 5e8


class Solution(NamedTuple):
    """The end of a fit, and what was learnt on the way."""

    result: Result
    curvature: Preconditioner | None  # of the inverse Hessian; None after Newton's method


def solver_for(objective: SoftmaxObjective, asked: str) -> str:
    """Return the name of the solver that an objective is given to, for the one asked for."""
    if objective.l1 > 0.0:
        if asked not in ("auto", "owlqn"):
            raise ValueError(
                f"solver={asked!r} takes no 1-norm: with l1_ratio > 0 use solver='auto' (that is "
                "'owlqn')"
            )
        return "owlqn"
    if asked == "auto":
        return "newton-cholesky" if suits_newton(objective) else "lbfgs"
    return "lbfgs" if asked == "owlqn" else asked


def suits_newton(objective: SoftmaxObjective) -> bool:
    """Whether a problem is so small that Newton's method is the quicker one."""
    return objective.n_params <= _NEWTON_PARAMS and objective.hessian_cost() <= _NEWTON_WORK


def solve(
    objective: SoftmaxObjective,
    start: Array,
    *,
    newton: bool,
    tol: float,
    max_iter: int,
    on_iteration: Callable[[int, Evaluation, float], bool] = lambda n_iter, at, gap: False,
    expired: Callable[[], bool] = lambda: False,
    first: Preconditioner | None = None,
) -> Solution:
    """Minimise an objective; arguments and result as of `descent.minimise`.

    first is what L-BFGS starts with, such as the curvature learnt in a problem much like this one;
    None for the objective's own preconditioner.

    Where rounding ends a solver before `tol`, the next one goes on from its point: passes over
    centred rows in float64 where they are affordable, and at last L-BFGS instead of Newton's
    method. Without a penalty the reason may also be "separable". With a 1-norm in the penalty
    neither newton nor first matters.
    """
    if objective.l1 > 0.0:
        return Solution(
            _solve_elastic_net(objective, start, tol, max_iter, on_iteration, expired), None
        )
    fine = CenteredObjective.is_possible(objective)
    finer = CenteredObjective(objective) if fine else objective
    stages = [(objective, newton)] + [(finer, newton)] * fine + [(finer, False)] * newton
    unpenalised = objective.penalty <= 0.0
    done, result = 0, None
    model: Any = None
    numpy_state = np.geterr()
    if first is None and RowSpace.is_worthwhile(objective):
        inside = _solve_in_row_space(
            objective, start, tol=tol, max_iter=max_iter, on_iteration=on_iteration, expired=expired
        )
        if inside.gap <= tol or inside.reason not in ("converged", "precision"):
            return Solution(inside, None)
        start, done = inside.point, inside.n_iter
        stages = stages[1:] if fine else stages  # rounding is what stands between the two
    if newton and done == 0 and small.suits(objective):
        quick = small.solve(
            objective,
            start,
            tol=tol,
            max_iter=max_iter,
            on_iteration=_counting_from(0, on_iteration, numpy_state),
            expired=expired,
        )
        if quick is not None:
            if quick.gap <= tol or quick.reason != "precision":
                return Solution(quick, None)
            start, done = quick.point, quick.n_iter
    for current, by_newton in stages:
        # what overflows is seen by the line search, and does not become a result
        with np.errstate(over="ignore", invalid="ignore"):
            if by_newton:
                model = NewtonModel(current, current.curved_span if unpenalised else None)
            elif not isinstance(model, LbfgsModel):  # what it has learnt is true of the next, too
                model = LbfgsModel(current, first=first)
            result = descent.minimise(
                current,
                start if result is None else result.point,
                model,
                Limits(
                    # coefficients of centred passes are rounded afterwards, which costs a little
                    tol if current is objective else 0.5 * tol,
                    max_iter - done,
                    _counting_from(done, on_iteration, numpy_state),
                    expired,
                ),
                floor=_SEPARATED * np.log(objective.n_classes) if unpenalised else -np.inf,
                least_gain=max(_LEAST_GAIN, current.epsilon) if unpenalised else 0.0,
            )
        done += result.n_iter
        if not _to_be_continued(current, result, tol):
            break
    assert result is not None
    if unpenalised and _is_stationary(current, result):
        result = result._replace(reason="stationary")
    result = result._replace(n_iter=done)
    if isinstance(current, CenteredObjective):
        result = _in_type_of_rows(current, result, tol)
    if unpenalised and _is_separable(objective, result):
        result = result._replace(reason="separable")
    return Solution(result, model.inverse() if isinstance(model, LbfgsModel) else None)


def _solve_elastic_net(
    objective: SoftmaxObjective,
    start: Array,
    tol: float,
    max_iter: int,
    on_iteration: Callable[[int, Evaluation, float], bool],
    expired: Callable[[], bool],
) -> Result:
    on_iteration = _counting_from(0, on_iteration, np.geterr())
    limits = Limits(tol, max_iter, on_iteration, expired)
    result = working_set.solve(objective, start, limits)
    if isinstance(result.evaluation, CenteredEvaluation):
        result = _in_type_of_rows(CenteredObjective(objective), result, tol)
    return result


def _solve_in_row_space(
    objective: SoftmaxObjective,
    start: Array,
    *,
    tol: float,
    max_iter: int,
    on_iteration: Callable[[int, Evaluation, float], bool],
    expired: Callable[[], bool],
) -> Result:
    """Minimise in the span of few rows; the result is the objective's own."""
    space = RowSpace(objective)
    numpy_state = np.geterr()

    def seen(n_iter: int, at: Evaluation, gap: float) -> bool:
        with np.errstate(**numpy_state):
            return on_iteration(n_iter, space.seen_outside(at), gap)

    with np.errstate(over="ignore", invalid="ignore"):
        found = solve(
            space.objective,
            space.inside(start),
            newton=suits_newton(space.objective),
            tol=0.5 * tol,  # coefficients of few digits cost a little
            max_iter=max_iter,
            on_iteration=seen,
            expired=expired,
        ).result
        point = space.outside(found.point)
        at = objective.evaluate(point)
        gap = lower_bound.relative_gap(objective, at)
    return protocols.Result(point, at, gap, found.n_iter, found.reason)


def _counting_from(
    done: int, on_iteration: Callable[[int, Evaluation, float], bool], state: Any
) -> Callable[[int, Evaluation, float], bool]:
    """Return on_iteration for a solver that goes on after `done` iterations.

    It belongs to the user, whose warnings are not ours to silence: numpy's state is the caller's.
    """

    def count(n_iter: int, at: Evaluation, gap: float) -> bool:
        with np.errstate(**state):
            return on_iteration(done + n_iter, at, gap)

    return count


def _in_type_of_rows(objective: CenteredObjective, result: Result, tol: float) -> Result:
    """Round the coefficients as the model will hold them; the bound on the minimum stays true."""
    at = objective.rounded(result.evaluation)
    if not np.isfinite(at.value):
        return result
    before, gap, reason = result.evaluation.value, result.gap, result.reason
    if gap < np.inf:
        lower = before * (1.0 - gap)
        gap = min(1.0, max(0.0, at.value - lower) / at.value) if at.value > 0.0 else 0.0
    elif reason == "stationary" and at.value > (1.0 + tol) * before:
        reason = "precision"
    return result._replace(evaluation=at, gap=gap, reason=reason)


def _to_be_continued(objective: SoftmaxObjective, result: Result, tol: float) -> bool:
    """Whether rounding ended the fit before its time."""
    if _is_stationary(objective, result):
        # without a penalty, noise of float32 passes for a minimum (features of 1e6: 7e-4 F early)
        return bool(objective.epsilon > np.finfo(np.float64).eps)
    return result.reason == "precision" and result.gap > tol


def _is_stationary(objective: SoftmaxObjective, result: Result) -> bool:
    """Whether a fit without a penalty ended where its model expected no gain."""
    expected_nothing = result.gain <= max(_LEAST_GAIN, objective.epsilon)
    return (
        objective.penalty <= 0.0
        and result.reason in ("precision", "stationary")
        and (expected_nothing)
    )


def _is_separable(objective: SoftmaxObjective, result: Result) -> bool:
    """Whether a fit without a penalty ended on the way to infinity."""
    if result.reason == "floor":
        return True
    if result.reason not in ("stationary", "precision") or result.direction is None:
        return False
    return objective.logit_change(result.direction) > _SEPARATING_CHANGE


def is_converged(result: Result, tol: float) -> bool:
    """Whether the result is as near to the optimum as was asked for."""
    return bool(result.gap <= tol or result.reason == "stationary")


def advice(
    result: Result, *, tol: float, max_iter: int, max_time: float | None, real: np.dtype[Any]
) -> str:
    """Return what to tell of a fit that did not converge: how far it got, and what to do."""
    value, gap = result.evaluation.value, result.gap
    if result.reason == "separable":
        return (
            "the classes are separable, wholly or in part: without a penalty (C=inf) the optimum "
            f"is at infinity, and the fit stopped on the way there, at an objective of "
            f"{value:.2g}. Give a finite C."
        )
    limits = {
        "max_iter": f"it took all of max_iter={max_iter} iterations. Raise max_iter.",
        "max_time": f"it took all of max_time={max_time:g} seconds. Raise max_time."
        if max_time is not None
        else "",
    }
    reached = f"the fit is certified to a relative gap of {gap:.1e}, not tol={tol:g}"
    if np.isinf(gap):
        reached = f"without a penalty (C=inf) the fit stopped at an objective of {value:.6g}"
        limits = {reason: f"{text[:-1]}, or give a finite C." for reason, text in limits.items()}
    if result.reason in limits:
        return f"{reached}: {limits[result.reason]}"
    if real == np.float32:
        return (
            f"{reached}: this is as far as float32 goes. Pass X as float64, scale the features "
            "(standardize=True) if they are large or far from 0, or raise tol."
        )
    return (
        f"{reached}: this is as far as float64 goes. Scale the features (standardize=True) if they "
        "are large or far from 0, or raise tol."
    )
