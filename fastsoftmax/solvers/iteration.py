"""The loop of every solver that certifies what it has found."""

import math
from typing import Generic, Protocol

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.lower_bound import ROUNDING, LowerBound, share_of
from fastsoftmax.solvers.protocols import E, Limits, Objective, Result

# Iterations of patience where rounding forbids the certificate. (Points in time, C = 7e3: 195
# passes over raw rows before one over centred rows, which found the certificate at once.)
_HOPELESS = 10


class Method(Protocol[E]):
    """How a solver gets from one point to the next."""

    target: float  # as of `protocols.Model`
    patience: int  # likewise

    def is_done(self, at: E) -> str | None:
        """Return a reason to stop other than the gap; None to go on."""

    def step(self, n_iter: int, point: Array, at: E, excess: float) -> tuple[Array, E] | None:
        """Return the next point and its evaluation; None where rounding forbids progress.

        excess is as of `protocols.Model.look`.
        """

    def learn(self, before: E, at: E) -> None:
        """See the evaluations before and after the step."""


class _Progress(Generic[E]):
    """What is certain about the latest point, and whether anything is still gained."""

    def __init__(self, objective: Objective[E], at: E, tol: float) -> None:
        self._objective, self._tol = objective, tol
        self._lower = LowerBound(objective.epsilon)
        self._certify(at)
        self._best, self._best_iter = self._bound, 0
        self._is_level = False

    def _certify(self, at: E) -> None:
        self.noise = self._objective.noise(at)
        self._value = at.value
        bound, wanted = self._objective.gap_bound(at), self._tol * abs(at.value) - self.noise
        if bound > wanted > 0.0:
            bound = self._objective.sharper_bound(at, bound, wanted)
        self._bound = bound + self.noise
        self.gap = self._lower.gap(at.value, self._bound, self.noise)

    def note(self, before: float, at: E) -> None:
        """See the point after a step, and the value before it."""
        self._certify(at)
        visible = self._objective.epsilon * abs(before)
        if self._is_hopeless():
            visible = max(visible, self.noise)
        self._is_level = before - at.value <= visible

    def _is_hopeless(self) -> bool:
        """Whether what rounding can hide is more than what is wanted."""
        return self.noise > self._tol * abs(self._value)

    def excess(self) -> float:
        """Return the bound in units of the one that is wanted."""
        wanted = self._tol * abs(self._value)
        return self._bound / wanted if wanted > 0.0 else math.inf

    def is_stuck(self, n_iter: int, patience: int) -> bool:
        """Whether the bound has not fallen for so many iterations, and the value does not.

        For fewer, where the bound cannot become what is wanted.
        """
        if self._is_hopeless():
            patience = min(patience, _HOPELESS)
        if self._bound < self._best:
            self._best, self._best_iter = self._bound, n_iter
            return False
        return self._is_level and n_iter - self._best_iter >= patience


def iterate(
    objective: Objective[E], start: Array, method: Method[E], limits: Limits[E]
) -> Result[E]:
    """Go from point to point until the certified relative gap is at most `limits.tol`.

    The result's reason is "converged", "max_iter", "precision" (no step is possible, or neither the
    value nor the bound falls any more), "stopped", "max_time", or one of the method.
    """
    point, at = start, objective.evaluate(start)
    tol = limits.tol
    progress = _Progress(objective, at, tol)
    target = min(tol, max(method.target, objective.epsilon))
    for n_iter in range(limits.max_iter):
        # beyond tol there is no point in aiming at less than what cancels
        if progress.gap <= max(target, min(tol, share_of(ROUNDING * progress.noise, at.value))):
            return Result(point, at, progress.gap, n_iter, "converged")
        reason = method.is_done(at)
        if reason is not None:
            return Result(point, at, progress.gap, n_iter, reason)
        if limits.expired():
            return Result(point, at, progress.gap, n_iter, "max_time")
        found = method.step(n_iter, point, at, progress.excess())
        if found is None:
            return Result(point, at, progress.gap, n_iter, "precision")
        before = at
        point, at = found
        # the old point is gone by now: that of a text takes 32 MB
        method.learn(before, at)
        progress.note(before.value, at)
        del before
        if limits.on_iteration(n_iter + 1, at, progress.gap):
            return Result(point, at, progress.gap, n_iter + 1, "stopped")
        if progress.is_stuck(n_iter, method.patience):
            return Result(point, at, progress.gap, n_iter + 1, "precision")
    reason = "converged" if progress.gap <= tol else "max_iter"
    return Result(point, at, progress.gap, limits.max_iter, reason)
