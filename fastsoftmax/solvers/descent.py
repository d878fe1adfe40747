"""Descent along the directions of a model of the objective, until a certified gap is small.

`lbfgs.LbfgsModel` and `newton.NewtonModel` say where to go; here is what they share.
"""

from typing import Generic

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.estimated_gap import EstimatedGap
from fastsoftmax.solvers.iteration import iterate
from fastsoftmax.solvers.line_search import level_step, search
from fastsoftmax.solvers.lower_bound import share_of
from fastsoftmax.solvers.protocols import E, Limits, Model, Objective, Result
from fastsoftmax.solvers.record import State, array_in, part_of

# A step that lowers the bound counts as a success if the bound becomes at most this share of it.
_HELPED = 0.5


def minimise(
    objective: Objective[E],
    start: Array,
    model: Model[E],
    limits: Limits[E],
    *,
    floor: float = -np.inf,
    least_gain: float = 0.0,
) -> Result[E]:
    """Minimise from `start` until the certified relative gap is at most `limits.tol`.

    In each iteration the line search tries the model's direction, then its fallback directions. It
    also stops at a value of `floor`, and where the model, more than `confirmations` times in a
    row, expects to gain no more than least_gain of the value (half the squared Newton decrement).

    Values only rise by rounding, so the result's point is the best that was seen. Its reason is
    "converged", "max_iter", "precision" (rounding forbids more), "stopped" (by on_iteration),
    "max_time", "floor", "stationary" (by least_gain) or "estimated" (by `EstimatedGap`, where the
    limits do not ask for a certified gap). For "precision", "floor" and "stationary" it holds the
    last direction and its gain.
    """
    estimate = None if limits.certified else EstimatedGap(limits.tol)
    method = _AlongDirections(objective, model, floor, least_gain, estimate, limits.tol)
    result = iterate(objective, start, method, limits)
    if result.reason in ("precision", "floor", "stationary"):
        result = result._replace(direction=method.direction, gain=method.gain)
    return result


class _AlongDirections(Generic[E]):
    """Steps along the directions of a model."""

    def __init__(
        self,
        objective: Objective[E],
        model: Model[E],
        floor: float,
        least_gain: float,
        estimate: EstimatedGap | None,
        tol: float,
    ) -> None:
        self._objective, self._model = objective, model
        self._floor, self._least_gain, self._estimate = floor, least_gain, estimate
        self.target, self.patience = model.target, model.patience
        self._tol = tol
        # the excess before the latest iteration, if its purpose was only to lower the bound; and
        # the largest excess at which such an iteration is tried
        self._tightened_from = self._most_excess = np.inf
        self._calm = 0  # iterations in a row with hardly any gain
        self.direction: Array | None = None
        self.gain = np.inf
        self._moved: Array | None = None

    def is_done(self, at: E) -> str | None:
        """Return "floor", "stationary" or "estimated" where it is."""
        if at.value <= self._floor:
            return "floor"
        if self._calm > self._model.confirmations:
            return "stationary"
        near = self._estimate is not None and self._estimate.is_small(at.value, self.gain)
        return "estimated" if near else None

    def step(self, n_iter: int, point: Array, at: E, excess: float) -> tuple[Array, E] | None:
        """Return the end of a step that the line search accepts, and the evaluation there."""
        vectors = self._objective.vectors
        tightened = self._tighten(point, at, excess)
        if tightened is not None:
            return tightened
        self._model.look(n_iter, at, excess)
        found = first = None
        for trial in self._model.directions(at.gradient):
            first = trial if first is None else first
            found = search(self._objective, point, trial, at)
            if found is not None:
                break
        if first is not None:
            decrement = -vectors.dot(first, at.gradient)
            self.direction, self.gain = first, share_of(0.5 * decrement, at.value)
        if found is None:
            return None
        self._calm = self._calm + 1 if self.gain <= self._least_gain else 0
        step, end, new = found
        self._moved = trial if step == 1.0 else step * trial
        return end, new

    def _tighten(self, point: Array, at: E, excess: float) -> tuple[Array, E] | None:
        """Take a step that lowers the bound, if the certificate needs one.

        The model learns nothing from it: in its few directions curvature may be of another size.
        """
        if self._tightened_from < np.inf and excess > _HELPED * self._tightened_from:
            self._most_excess = _HELPED * min(excess, self._tightened_from)
        self._tightened_from = np.inf
        if not 1.0 < excess <= self._most_excess:
            return None
        direction = self._objective.tightening(at, self._tol * abs(at.value))
        if direction is None:
            return None
        self._tightened_from = excess
        return level_step(self._objective, point, direction, at)

    def learn(self, before: E, at: E) -> None:
        """Let the model learn from the step."""
        moved, self._moved = self._moved, None
        if moved is not None:
            change = self._objective.vectors.sum(at.gradient, -1.0, before.gradient)
            self._model.learn(moved, change)

    def state(self) -> State:
        """Return what is needed to go on, where a certified gap is asked for."""
        own = [self._tightened_from, self._most_excess, self._calm, self.gain, self._tol]
        state: State = {"model": self._model.state(), "own": np.array(own, dtype=np.float64)}
        if self._least_gain > 0.0 and self.direction is not None:  # it shows how the run ended
            state["direction"] = self.direction
        return state

    def restore(self, state: State) -> None:
        """Go on from a state."""
        *own, self.gain, tol = array_in(state, "own", (5,)).tolist()
        growth = tol / self._tol if self._tol > 0.0 else np.inf
        if tol == self._tol:
            growth = 1.0
            self._tightened_from, self._most_excess = own[:2]
        self._calm = int(own[2])
        self._model.restore(part_of(state, "model"), growth)
        self.direction = array_in(state, "direction") if "direction" in state else None
