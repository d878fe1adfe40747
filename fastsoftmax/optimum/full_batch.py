"""From a start to the certified optimum: the stages of a fit.

    few rows of many features    L-BFGS, as long as it makes progress
                                 the problem in the span of the rows (`row_space`)
    tiny problems                Newton's method in one call of a kernel (`small`)
    dense float64 rows           L-BFGS by passes over a copy in float32 (`float32_copy`)
    all                          Newton's method or L-BFGS, by passes over the rows as they are
                                 the same by passes in float64, over centred rows where affordable
                                 L-BFGS instead of Newton's method
    with a 1-norm                see `working_set`

Each stage goes on from the point where the one before had to stop: where rounding ends a solver
before the tolerance, the next stage computes with more digits, or needs fewer.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import float32_copy, small, working_set
from fastsoftmax.optimum.float32_copy import Float32Copy
from fastsoftmax.optimum.pass_stages import BEFORE_ROUNDING, CopyStage, DescentStage, Lbfgs
from fastsoftmax.optimum.row_space import RowSpace
from fastsoftmax.optimum.stage import (
    Limits,
    Result,
    Solution,
    Stage,
    after,
    in_errstate_of_caller,
    judged,
    seen_outside,
)
from fastsoftmax.problem.centered_pass import CenteredPass
from fastsoftmax.problem.curvature import hessian_cost, pass_work
from fastsoftmax.problem.evaluation import Seen
from fastsoftmax.problem.float64_pass import Float64Pass
from fastsoftmax.problem.problem import Problem
from fastsoftmax.solvers.protocols import Preconditioner
from fastsoftmax.solvers.record import Damaged, count_in

# Newton's method suits up to this many coefficients, and multiply-adds of a Hessian. Ten classes of
# 64 features (digits) are just over: there both methods take about as long.
_NEWTON_PARAMS = 320
_NEWTON_WORK = 5e8
# How many times as fast multiply-adds of large matrices are as those of a pass, times the bytes of
# a float32; and what its iterations cost in the span of the rows, in iterations by passes.
_FAST, _IN_ROW_SPACE = 16.0, 12.0
# Passes that the span of the rows costs from which on L-BFGS is tried first; and how many passes
# over a copy in float32 take the time of one.
_LEAST_COST, _COPY_SPEED = 16.0, 2.0


def solver_for(problem: Problem, asked: str) -> str:
    """Return the name of the solver that a problem is given to, for the one asked for."""
    if problem.l1 > 0.0:
        if asked not in ("auto", "owlqn"):
            raise ValueError(
                f"solver={asked!r} takes no 1-norm: with l1_ratio > 0 use solver='auto' (that is "
                "'owlqn')"
            )
        return "owlqn"
    if asked == "auto":
        return "newton-cholesky" if suits_newton(problem) else "lbfgs"
    return "lbfgs" if asked == "owlqn" else asked


def suits_newton(problem: Problem) -> bool:
    """Whether a problem is so small that Newton's method is the quicker one."""
    if problem.l2 > 0.0:
        return small.suits(problem)
    return problem.n_params <= _NEWTON_PARAMS and hessian_cost(problem) <= _NEWTON_WORK


def solve(
    objective: SoftmaxObjective,
    start: Array,
    limits: Limits,
    *,
    newton: bool,
    first: Preconditioner | None = None,
) -> Solution:
    """Minimise an objective, evaluated by passes over the rows as they are stored, from a start.

    The result's reasons are those of `descent.minimise`, and without a penalty "separable". Unless
    the limits ask for a certified gap, fits without a 1-norm may end with "estimated". newton
    is whether Newton's method is used, ignored where there is a 1-norm. L-BFGS starts with first,
    such as the curvature of a similar problem, or with the objective's own preconditioner. Where
    the limits' record has found a state, the fit goes on from there, not from start.
    """
    limits = in_errstate_of_caller(limits)
    point, n_iter, n_passed = start, 0, 0
    last = None
    if limits.record.found is not None:
        left = limits.record.found
        n_passed, n_iter = count_in(left, "stage"), count_in(left, "before")
    # What overflows is seen by the line searches, and does not become a result.
    with np.errstate(over="ignore", invalid="ignore"):
        for number, stage in enumerate(_stages(objective, newton, first, limits.tol)):
            if number < n_passed:
                continue
            inside = _of_stage(limits, number, n_iter, is_found=number == n_passed)
            found = stage.run(point, after(inside, n_iter))
            if found is None:
                continue
            last, result = stage, found
            point, n_iter = found.point, n_iter + found.n_iter
            if not stage.hands_over(found, limits.tol):
                break
        if last is None:
            raise Damaged(f"stage is {n_passed}, and this fit has not so many")
        return last.conclude(result._replace(n_iter=n_iter), limits.tol)


def _of_stage(limits: Limits, number: int, n_iter: int, *, is_found: bool) -> Limits:
    """Return the limits of a stage, begun after so many iterations, with its part of the record."""
    record = limits.record if is_found else replace(limits.record, found=None)
    return replace(limits, record=record.within(lambda: {"stage": number, "before": n_iter}))


def _stages(
    objective: SoftmaxObjective, newton: bool, first: Preconditioner | None, tol: float
) -> Iterator[Stage]:
    """Yield the stages of a fit, in their order."""
    problem = objective.problem
    precise = None
    if CenteredPass.is_possible(problem):
        precise = SoftmaxObjective(problem, CenteredPass(problem))
    elif Float64Pass.is_possible(problem):
        precise = SoftmaxObjective(problem, Float64Pass(problem))
    if problem.l1 > 0.0:
        yield from working_set.stages(objective, precise)
        return
    copy = None if newton else float32_copy.copy_for(objective, tol)
    soon = copy if copy is not None and copy.pays_at_once else None
    lbfgs = Lbfgs(objective if soon is None else soon, first)
    is_raw_worthwhile = True
    if first is None and RowSpace.is_worthwhile(problem):
        before = None if newton else _before_row_space(objective, soon, lbfgs)
        if before is not None:
            yield before
        yield _InRowSpace(objective, before)
        # only rounding can have ended that stage, if it was needed
        is_raw_worthwhile = precise is None or soon is not None
        lbfgs = Lbfgs(objective, first) if soon is None else lbfgs
    elif newton and small.suits(problem):
        yield small.SmallStage(objective)
    elif soon is not None:
        yield CopyStage(objective, soon, lbfgs)
    elif copy is not None:
        quick = DescentStage(objective, objective, lbfgs, float32_copy.MANY_ITERATIONS)
        yield quick
        yield CopyStage(objective, copy, lbfgs, before=quick)
    passes = [objective] * is_raw_worthwhile + ([] if precise is None else [precise])
    for by in passes:
        yield DescentStage(objective, by, None if newton else lbfgs)
    if newton:
        yield DescentStage(objective, passes[-1], lbfgs)


def _before_row_space(
    objective: SoftmaxObjective, copy: Float32Copy | None, lbfgs: Lbfgs
) -> DescentStage | None:
    """Return L-BFGS by passes until the span of few rows is expected to take less time, if at all.

    Well-conditioned rows need no more: 400 x 8000 normal numbers, K = 2, take 17 iterations and 63
    ms, and 13 and 94 ms in the span of the rows; 1000 x 2000, K = 10, 84 and 288 ms. Others take a
    tenth to a third longer with it.
    """
    cost = _row_space_cost(objective.problem)
    if cost < _LEAST_COST:
        return None
    if copy is None:
        return DescentStage(objective, objective, lbfgs, cost + _IN_ROW_SPACE)
    return CopyStage(objective, copy, lbfgs, _COPY_SPEED * cost + _IN_ROW_SPACE)


def _row_space_cost(problem: Problem) -> float:
    """Return what the span of the rows costs, in passes."""
    work = RowSpace.work(problem) * problem.rows.real.itemsize / _FAST
    return work / pass_work(problem)


class _InRowSpace:
    """The whole fit, in the span of few rows, unless the stage before was nearly done."""

    def __init__(self, objective: SoftmaxObjective, before: DescentStage | None) -> None:
        self._objective, self._before = objective, before

    def run(self, start: Array, limits: Limits) -> Result | None:
        if isinstance(self._before, CopyStage) and self._before.has_found:
            return None
        space = RowSpace(self._objective.problem)

        def told(n_iter: int, at: Seen, gap: float) -> bool:
            return limits.on_iteration(n_iter, seen_outside(space, at), gap)

        inside = replace(limits, tol=BEFORE_ROUNDING * limits.tol, on_iteration=told)
        found = solve(
            SoftmaxObjective(space.problem),
            space.inside(start),
            inside,
            newton=suits_newton(space.problem),
        ).result
        result = judged(self._objective, space.outside(found.point), found.n_iter, found.reason)
        least = (1.0 + limits.tol) * found.evaluation.value
        if found.reason == "estimated" and result.evaluation.value > least:
            return result._replace(reason="precision")
        return result

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether the objective itself sees a larger gap."""
        return result.gap > tol and result.reason in ("converged", "precision")

    def conclude(self, result: Result, tol: float) -> Solution:
        return Solution(result)
