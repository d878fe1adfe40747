"""The loop of every solver that certifies what it has found."""

import math
from typing import Generic, Protocol

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.lower_bound import ROUNDING, LowerBound, share_of
from fastsoftmax.solvers.protocols import E, Limits, Objective, Result
from fastsoftmax.solvers.record import State, array_in, count_in, finite_in, part_of
from fastsoftmax.solvers.resuming import is_same, seen_at

# Iterations without progress after which a solver gives up, if rounding prevents the certificate.
# (Points in time, C = 7e3: without this limit, 195 passes over raw rows came before the one over
# centred rows, which found the certificate at once.)
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

    def state(self) -> State:
        """Return what is needed to go on after an iteration."""

    def restore(self, state: State) -> None:
        """Go on from a state."""


class _Progress(Generic[E]):
    """What is certain about the latest point, and whether anything is still gained."""

    def __init__(
        self, objective: Objective[E], at: E, tol: float, left: State | None = None
    ) -> None:
        """Begin at a point; left is what a run left that was there, to the last bit."""
        self._objective, self._tol = objective, tol
        self._lower = LowerBound(objective.epsilon)
        self.noise: float
        if left is not None:
            self._value = at.value
            self._restore(left)
            return
        self._certify(at)
        self._best, self._best_iter = self._bound, 0
        self._is_level = False

    def state(self) -> State:
        """Return what is certain, and since when nothing has been gained."""
        certain = [self._lower.value, self.noise, self._bound, self.gap, self._best]
        return {
            "certain": np.array(certain),
            "best_iter": self._best_iter,
            "is_level": self._is_level,
        }

    def _restore(self, left: State) -> None:
        certain = array_in(left, "certain", (5,)).tolist()
        self._lower.value, self.noise, self._bound, self.gap, self._best = certain
        self._best_iter = count_in(left, "best_iter")
        self._is_level = bool(count_in(left, "is_level"))

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
        self._is_level = bool(before - at.value <= visible)

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
    value nor the bound falls any more), "stopped", "max_time", or one of the method. Where the
    limits' record has found a state, the run goes on from there, not from start.
    """
    tol, leave = limits.tol, limits.record.leave
    point, at, progress, n_before = _begun(objective, start, method, limits)
    target = min(tol, max(method.target, objective.epsilon))
    for n_iter in range(n_before, limits.max_iter):
        # below tol, rounding hides every further gain
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
        # (the old point is no longer in memory: for text it takes 32 MB)
        method.learn(before, at)
        progress.note(before.value, at)
        del before
        stop = limits.on_iteration(n_iter + 1, at, progress.gap)
        is_stuck = progress.is_stuck(n_iter, method.patience)
        if leave is not None:
            leave(_state(n_iter + 1, point, at, progress, method))
        if stop:
            return Result(point, at, progress.gap, n_iter + 1, "stopped")
        if is_stuck:
            return Result(point, at, progress.gap, n_iter + 1, "precision")
    reason = "converged" if progress.gap <= tol else "max_iter"
    return Result(point, at, progress.gap, max(n_before, limits.max_iter), reason)


def _begun(
    objective: Objective[E], start: Array, method: Method[E], limits: Limits[E]
) -> tuple[Array, E, _Progress[E], int]:
    """Return the point that a run begins with, what is known of it, and the iterations before."""
    left, leave = limits.record.found, limits.record.leave
    point = start if left is None else finite_in(left, "point", start.shape)
    at, known, n_iter = objective.evaluate(point), None, 0
    if left is not None:
        if is_same(objective, at, left):
            known = part_of(left, "progress")
        else:
            at = objective.as_new(at)
        method.restore(part_of(left, "method"))
        n_iter = count_in(left, "n_iter")
        left.clear()  # its arrays are large, and the model holds those that it needs
    progress = _Progress(objective, at, limits.tol, known)
    if leave is not None:
        leave(_state(n_iter, point, at, progress, method))
    return point, at, progress, n_iter


def _state(n_iter: int, point: Array, at: E, progress: _Progress[E], method: Method[E]) -> State:
    return {
        **seen_at(at),
        "n_iter": n_iter,
        "point": point,
        "progress": progress.state(),
        "method": method.state(),
    }
