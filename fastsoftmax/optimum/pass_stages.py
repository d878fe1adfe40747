"""Stages of a fit that go by passes over all rows: Newton's method, or L-BFGS.

A pass is over the rows as they are stored, over a copy of them in float32, or in float64 over
centred rows.
"""

from dataclasses import replace

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import float32_copy
from fastsoftmax.optimum.float32_copy import Float32Copy
from fastsoftmax.optimum.stage import (
    Limits,
    Result,
    Solution,
    in_type_of_rows,
    judged,
    with_objective,
)
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.solvers import descent
from fastsoftmax.solvers.lbfgs import LbfgsModel
from fastsoftmax.solvers.newton import NewtonModel
from fastsoftmax.solvers.protocols import Preconditioner

# Without a penalty, the loss per row and log(number of classes) at which classes count as
# separable. Margins are about 14 then, and further steps only let the coefficients grow.
_SEPARATED = 1e-6
# Without a penalty nothing can be certified. Where half the squared Newton decrement is at most
# this share of F, one more step of Newton's method finds the last digits.
_LEAST_GAIN = 1e-12
# A Newton step from a minimum to within rounding changes no logit by as much as this; where the
# minimum is at infinity, each changes those of the separable rows by 1.
_SEPARATING_CHANGE = 0.1
# Share of the tolerance for stages whose result is rounded, which costs the rest.
BEFORE_ROUNDING = 0.5


class Lbfgs:
    """The model of L-BFGS. What it has learnt in one stage is true of the next, too.

    Where the passes of the next stage can tell more directions from 0, a new one begins. `of` is
    what its preconditioners are made from.
    """

    def __init__(
        self, of: SoftmaxObjective | Float32Copy, first: Preconditioner | None = None
    ) -> None:
        self._of, self._first = of, first
        self._model: LbfgsModel[Evaluation] | None = None

    @property
    def _objective(self) -> SoftmaxObjective:
        return self._of.objective if isinstance(self._of, Float32Copy) else self._of

    def model_of(self, by: SoftmaxObjective) -> LbfgsModel[Evaluation]:
        """Return the model for the passes of a stage; made where the first stage needs it."""
        if by.row_span is not self._objective.row_span:
            self._of, self._model = by, None
        if self._model is None:
            self._model = LbfgsModel(self._objective, first=self._first)
        return self._model

    def inverse(self) -> Preconditioner | None:
        """Return what has been learnt of the inverse Hessian, if anything."""
        return None if self._model is None else self._model.inverse()


class DescentStage:
    """Newton's method, or L-BFGS if its model is given, for the fit's objective.

    by is the same problem, by the passes of this stage. L-BFGS hands over where it expects that
    more than `most` iterations are left.
    """

    def __init__(
        self,
        objective: SoftmaxObjective,
        by: SoftmaxObjective,
        lbfgs: Lbfgs | None,
        most: float = np.inf,
    ) -> None:
        self._objective, self._by, self._lbfgs, self._most = objective, by, lbfgs, most
        self._unpenalised = objective.problem.l2 <= 0.0
        self.is_slow = False

    def run(self, start: Array, limits: Limits) -> Result | None:
        """Go on from a point."""
        tol = limits.tol if self._by is self._objective else BEFORE_ROUNDING * limits.tol
        return self._descended(self._by, start, replace(limits, tol=tol))

    def _descended(
        self, by: SoftmaxObjective, start: Array, limits: Limits, final: float = 1.0
    ) -> Result:
        unpenalised = self._unpenalised
        limits = with_objective(limits, by)
        options = {}
        if unpenalised:
            floor = _SEPARATED * np.log(by.problem.n_classes)
            options = {"floor": floor, "least_gain": max(_LEAST_GAIN, by.epsilon)}
        if self._lbfgs is None:
            newton = NewtonModel(by, by.curved_span() if unpenalised else None)
            return descent.minimise(by, start, newton, limits, **options)
        model = self._lbfgs.model_of(by)
        model.final = final
        model.is_left = limits.record.leave is not None
        if self._most < np.inf:
            limits = self._until_slow(model, limits)
        return descent.minimise(by, start, model, limits, **options)

    def _until_slow(self, model: LbfgsModel[Evaluation], limits: Limits) -> Limits:
        """Return limits that end where more than so many iterations are expected."""

        def is_over() -> bool:  # asked before each iteration, also the first of a resumed fit
            expected = model.expected()
            self.is_slow = expected is not None and expected > self._most
            return self.is_slow or limits.expired()

        return replace(limits, expired=is_over)

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether progress is slow, or rounding ended the fit before its time."""
        if self.is_slow:
            return True
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


class CopyStage(DescentStage):
    """L-BFGS by passes over a copy of the rows; a later stage certifies what it finds."""

    def __init__(
        self,
        objective: SoftmaxObjective,
        copy: Float32Copy,
        lbfgs: Lbfgs,
        most: float = np.inf,
        before: DescentStage | None = None,
    ) -> None:
        """Take the stage before, if there is one: this one is passed over where that was quick."""
        super().__init__(objective, objective, lbfgs, most)
        self._copy, self._before = copy, before
        self.has_found = False  # whether the minimum is as near as a copy tells

    def run(self, start: Array, limits: Limits) -> Result | None:
        """Go on from a point; where that is the end of the fit, the rows themselves judge it."""
        is_resumed = limits.record.found is not None
        if self._before is not None and not (self._before.is_slow or is_resumed):
            return None
        by, tol = self._copy.objective, float32_copy.tolerance(limits.tol)
        found = self._descended(by, start, replace(limits, tol=tol), final=limits.tol / tol)
        base = by.by.known_base()
        if base is not None:
            self._objective.by.note_base(base)
        at = found.evaluation
        if found.reason == "estimated" and by.noise(at) > limits.tol * at.value:
            found = found._replace(reason="precision")
        self.has_found = found.reason == "converged"
        if self.hands_over(found, limits.tol):
            return found
        return judged(self._objective, found.point, found.n_iter, found.reason)

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether it came to its end, which is not that of the fit."""
        return self.is_slow or result.reason in ("converged", "precision")
