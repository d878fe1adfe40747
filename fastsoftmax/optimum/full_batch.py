"""From a start to the certified optimum: the stages of a fit.

    few rows of many features    L-BFGS, as long as it makes progress
                                 the problem in the span of the rows (`row_space`)
    tiny problems                Newton's method in one call of a kernel (`small`)
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
from fastsoftmax.optimum import small, working_set
from fastsoftmax.optimum.row_space import RowSpace
from fastsoftmax.optimum.stage import (
    Limits,
    Result,
    Solution,
    Stage,
    after,
    in_errstate_of_caller,
    in_type_of_rows,
    judged,
    seen_outside,
    with_objective,
)
from fastsoftmax.problem.centered_pass import CenteredPass
from fastsoftmax.problem.curvature import hessian_cost, pass_work
from fastsoftmax.problem.evaluation import Evaluation, Seen
from fastsoftmax.problem.float64_pass import Float64Pass
from fastsoftmax.problem.problem import Problem
from fastsoftmax.solvers import descent
from fastsoftmax.solvers.lbfgs import LbfgsModel
from fastsoftmax.solvers.newton import NewtonModel
from fastsoftmax.solvers.protocols import Preconditioner
from fastsoftmax.solvers.record import Damaged, count_in

# Without a penalty, the loss per row and log(number of classes) at which classes count as
# separable. Margins are about 14 then, and further steps only let the coefficients grow.
_SEPARATED = 1e-6
# Without a penalty nothing can be certified. Where half the squared Newton decrement is at most
# this share of F, one more step of Newton's method finds the last digits.
_LEAST_GAIN = 1e-12
# A Newton step from a minimum to within rounding changes no logit by as much as this; where the
# minimum is at infinity, each changes those of the separable rows by 1.
_SEPARATING_CHANGE = 0.1
# Newton's method suits up to this many coefficients, and multiply-adds of a Hessian. Ten classes of
# 64 features (digits) are just over: there both methods take about as long.
_NEWTON_PARAMS = 320
_NEWTON_WORK = 5e8
# How many times as fast multiply-adds of large matrices are as those of a pass, times the bytes of
# a float32; and what its iterations cost in the span of the rows, in iterations by passes.
_FAST, _IN_ROW_SPACE = 16.0, 12.0
# Passes that the span of the rows costs from which on L-BFGS is tried first.
_LEAST_COST = 16.0
# Share of the tolerance for stages whose result is rounded, which costs the rest.
_BEFORE_ROUNDING = 0.5


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
        for number, stage in enumerate(_stages(objective, newton, first)):
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
    objective: SoftmaxObjective, newton: bool, first: Preconditioner | None
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
    is_raw_worthwhile = True
    if first is None and RowSpace.is_worthwhile(problem):
        cost = _row_space_cost(problem)
        if cost >= _LEAST_COST and not newton:
            yield _BeforeRowSpace(objective, cost)
        yield _InRowSpace(objective)
        is_raw_worthwhile = precise is None  # only rounding can have ended the stage before
    elif newton and small.suits(problem):
        yield small.SmallStage(objective)
    lbfgs = _Lbfgs(objective, first)
    passes = [objective] * is_raw_worthwhile + ([] if precise is None else [precise])
    for by in passes:
        yield _Descent(objective, by, None if newton else lbfgs)
    if newton:
        yield _Descent(objective, passes[-1], lbfgs)


class _Lbfgs:
    """The model of L-BFGS. What it has learnt in one stage is true of the next, too.

    Where the passes of the next stage can tell more directions from 0, a new one begins.
    """

    def __init__(self, objective: SoftmaxObjective, first: Preconditioner | None) -> None:
        self._objective, self._first = objective, first
        self._model: LbfgsModel[Evaluation] | None = None

    def model_of(self, by: SoftmaxObjective) -> LbfgsModel[Evaluation]:
        """Return the model for the passes of a stage; made where the first stage needs it."""
        if by.row_span is not self._objective.row_span:
            self._objective, self._model = by, None
        if self._model is None:
            self._model = LbfgsModel(self._objective, first=self._first)
        return self._model

    def inverse(self) -> Preconditioner | None:
        """Return what has been learnt of the inverse Hessian, if anything."""
        return None if self._model is None else self._model.inverse()


class _Descent:
    """Newton's method, or L-BFGS if its model is given, for the fit's objective.

    by is the same problem, by the passes of this stage.
    """

    def __init__(
        self, objective: SoftmaxObjective, by: SoftmaxObjective, lbfgs: _Lbfgs | None
    ) -> None:
        self._objective, self._by, self._lbfgs = objective, by, lbfgs
        self._unpenalised = objective.problem.l2 <= 0.0

    def run(self, start: Array, limits: Limits) -> Result | None:
        by, unpenalised = self._by, self._unpenalised
        limits = with_objective(limits, by)
        tol = limits.tol if by is self._objective else _BEFORE_ROUNDING * limits.tol
        options = {}
        if unpenalised:
            floor = _SEPARATED * np.log(by.problem.n_classes)
            options = {"floor": floor, "least_gain": max(_LEAST_GAIN, by.epsilon)}
        if self._lbfgs is None:
            newton = NewtonModel(by, by.curved_span() if unpenalised else None)
            return descent.minimise(by, start, newton, replace(limits, tol=tol), **options)
        model = self._lbfgs.model_of(by)
        model.is_left = limits.record.leave is not None
        return descent.minimise(by, start, model, replace(limits, tol=tol), **options)

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether rounding ended the fit before its time."""
        if result.reason == "estimated":
            # what rounding may have spoilt by more than the tolerance says nothing of the gap
            at = result.evaluation
            return self._by.noise(at) > tol * at.value
        if self._is_stationary(result):
            # Noise of float32 passes for a minimum (features of 1e6: 7e-4 F too early).
            return bool(self._by.epsilon > np.finfo(np.float64).eps)
        return result.reason == "precision" and result.gap > tol

    def conclude(self, result: Result, tol: float) -> Solution:
        """Name the reason why a fit without a penalty ended, and round the coefficients."""
        if self._is_stationary(result):
            result = result._replace(reason="stationary")
        separable = self._is_separable(result)
        result = in_type_of_rows(self._by, result, tol)
        if separable:
            result = result._replace(reason="separable")
        return Solution(result, None if self._lbfgs is None else self._lbfgs.inverse())

    def _is_stationary(self, result: Result) -> bool:
        """Whether a fit without a penalty ended where its model expected no gain."""
        return (
            self._unpenalised
            and result.reason in ("precision", "stationary")
            and result.gain <= max(_LEAST_GAIN, self._by.epsilon)
        )

    def _is_separable(self, result: Result) -> bool:
        """Whether a fit without a penalty ended on the way to infinity."""
        if not self._unpenalised:
            return False
        if result.reason == "floor":
            return True
        if result.reason not in ("stationary", "precision") or result.direction is None:
            return False
        change = self._objective.problem.largest_logit_change(result.direction)
        return change > _SEPARATING_CHANGE or self._would_go_on(result)

    def _would_go_on(self, result: Result) -> bool:
        """Whether curvature at the end shows a way to infinity that L-BFGS no longer sees.

        Its pairs are of larger curvatures. (Where passes are in float32, gradients so small are
        rounding.)
        """
        if self._lbfgs is None or self._by.epsilon > np.finfo(np.float64).eps:
            return False
        at = result.evaluation
        step = self._by.refined_preconditioner(at).apply(at.gradient)
        return self._objective.problem.largest_logit_change(step) > _SEPARATING_CHANGE


class _BeforeRowSpace(_Descent):
    """L-BFGS by passes over few rows, until the next stage is expected to take less time.

    Well-conditioned rows need no more: 400 x 8000 normal numbers, K = 2, take 17 iterations and 63
    ms, and 13 and 94 ms in the span of the rows; 1000 x 2000, K = 10, 84 and 288 ms. Others take a
    tenth to a third longer with it.
    """

    def __init__(self, objective: SoftmaxObjective, cost: float) -> None:
        lbfgs = _Lbfgs(objective, None)
        super().__init__(objective, objective, lbfgs)
        self._model = lbfgs.model_of(objective)
        self._most = cost + _IN_ROW_SPACE
        self._is_slow = False

    def run(self, start: Array, limits: Limits) -> Result | None:
        def told(n_iter: int, at: Seen, gap: float) -> bool:
            if limits.on_iteration(n_iter, at, gap):
                return True
            expected = self._model.expected()
            self._is_slow = expected is not None and expected > self._most
            return self._is_slow

        return super().run(start, replace(limits, on_iteration=told))

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether progress is slow, or rounding ended the fit before its time."""
        return self._is_slow or super().hands_over(result, tol)


def _row_space_cost(problem: Problem) -> float:
    """Return what the span of the rows costs, in passes."""
    work = RowSpace.work(problem) * problem.rows.real.itemsize / _FAST
    return work / pass_work(problem)


class _InRowSpace:
    """The whole fit, in the span of few rows."""

    def __init__(self, objective: SoftmaxObjective) -> None:
        self._objective = objective

    def run(self, start: Array, limits: Limits) -> Result | None:
        space = RowSpace(self._objective.problem)

        def told(n_iter: int, at: Seen, gap: float) -> bool:
            return limits.on_iteration(n_iter, seen_outside(space, at), gap)

        inside = replace(limits, tol=_BEFORE_ROUNDING * limits.tol, on_iteration=told)
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
