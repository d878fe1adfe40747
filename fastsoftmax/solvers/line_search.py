"""How far to go along a direction: the first step is accepted nearly always.

A step has to descend enough (Armijo's condition). Near the minimum, where differences of values
drown in rounding, slopes decide: the approximate Wolfe condition of Hager & Zhang (2005, SIAM J.
Optim. 16, Section 3). `_Descent` holds these two conditions for all solvers.

What comes after a step that is not accepted differs:

- `search`, for smooth functions, also has to end where the slope has become flatter (the strong
  Wolfe conditions, Nocedal & Wright 2006, Section 3.1): only then the pair of a step and a
  difference of gradients has positive curvature. So it keeps a bracket and also makes longer steps.
- `backtrack`, for functions with a 1-norm, only makes shorter steps. The slope jumps where a
  coefficient becomes 0, so a slope that is flat enough need not exist.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.lower_bound import ROUNDING
from fastsoftmax.solvers.protocols import E, Objective

# The usual constants of quasi-Newton methods (Nocedal & Wright 2006, Section 3.1).
_DECREASE = 1e-4  # least share of the decrease that the slope at the start promises
_FLATTENING = 0.9  # the slope's size must fall to this share
# A bracket of [0, 1] that is halved so often is narrower than 1e-9 of the first step.
_MOST_TRIALS = 30
# `backtrack` shortens a step to between these shares of it. Most iterations of an elastic net of
# iris, 3 folds and 3 C, with 0.05 and 0.1: 126 and 164.
_SHORTEST, _LONGEST = 0.05, 0.5
_AFTER_OVERFLOW = 0.1


class _Descent(NamedTuple):
    """What is promised at the start of a step."""

    value: float
    noise: float  # differences of values that rounding can make
    slope: float

    def is_enough(self, value: float, slope: float, step: float = 1.0) -> bool:
        """Whether a value and a slope at the end of a step are low enough."""
        if value <= self.value + _DECREASE * step * self.slope:
            return True
        return value <= self.value + self.noise and slope <= (2 * _DECREASE - 1) * self.slope


def _noise(objective: Objective[E], at: E) -> float:
    return ROUNDING * objective.epsilon * abs(at.value)


def search(
    objective: Objective[E], point: Array, direction: Array, at: E
) -> tuple[float, Array, E] | None:
    """Return a step along direction that fulfils the conditions, its end, and the evaluation there.

    None where direction does not descend, or no step could be told from the start: then rounding
    forbids further progress.
    """
    vectors = objective.vectors
    slope = vectors.dot(direction, at.gradient)
    if not (slope < 0.0 and np.isfinite(slope)):
        return None
    start = _Descent(at.value, _noise(objective, at), slope)
    low, low_slope = 0.0, slope  # the longest step known to be too short
    high = np.inf  # the shortest step known to be too long
    step = 1.0
    for _ in range(_MOST_TRIALS):
        end = vectors.sum(point, step, direction)
        new = objective.evaluate(end)
        new_slope = vectors.dot(direction, new.gradient)
        if not (np.isfinite(new.value) and np.isfinite(new_slope)):
            high = step
            step = 0.9 * low + 0.1 * step
            continue
        descends = start.is_enough(new.value, new_slope, step)
        if descends and abs(new_slope) <= _FLATTENING * -slope:
            return step, end, new
        # where the slope would vanish if it went on along the line through the two known ones
        rise = new_slope - low_slope
        root = low - low_slope * (step - low) / rise if rise > 0.0 else np.inf
        if new_slope >= 0.0 or not descends:
            high = step
        else:
            low, low_slope = step, new_slope
        step = _between(low, high, root)
        if high - low < 1e-12 * low:
            break
    return None


def level_step(
    objective: Objective[E], point: Array, direction: Array, at: E
) -> tuple[Array, E] | None:
    """Return the end of the whole step and the evaluation there; None where the value rises."""
    end = objective.vectors.sum(point, 1.0, direction)
    new = objective.evaluate(end)
    return (end, new) if new.value <= at.value + _noise(objective, at) else None


def _between(low: float, high: float, root: float) -> float:
    """Return the root, kept well inside the bracket, or a step outwards, up to tenfold."""
    if np.isinf(high):
        return min(max(root, 2.0 * low), 10.0 * low)
    margin = 0.1 * (high - low)
    return root if low + margin <= root <= high - margin else 0.5 * (low + high)


class Trial(NamedTuple):
    """The end of a step that `backtrack` may take."""

    end: Array
    slope: float  # of the objective on the way there, at the start
    slope_at: Callable[[Array], float]  # the same at the end, from the smooth gradient there


def backtrack(
    objective: Objective[E],
    at: E,
    trial_of: Callable[[float], Trial | None],
    most_trials: int = _MOST_TRIALS,
) -> tuple[Array, E] | None:
    """Return the end of a step that descends enough, and the evaluation there.

    None where no step could be told from the start. trial_of says where a step length in (0, 1]
    leads to, from the point of `at`; None where that is nowhere.
    """
    noise = _noise(objective, at)
    step = 1.0
    for _ in range(most_trials):
        trial = trial_of(step)
        if trial is None:
            return None
        if trial.slope >= 0.0:  # it ascends: what became 0 held more than what moved on
            step *= _LONGEST
            continue
        new = objective.evaluate(trial.end)
        new_slope = trial.slope_at(new.gradient)
        if not (np.isfinite(new.value) and np.isfinite(new_slope)):
            step *= _AFTER_OVERFLOW
            continue
        if _Descent(at.value, noise, trial.slope).is_enough(new.value, new_slope):
            return trial.end, new
        # the minimum of the parabola through both values with the slope at the start
        curvature = 2.0 * (new.value - at.value - trial.slope)
        shorter = -trial.slope / curvature if curvature > 0.0 else _LONGEST
        step *= min(max(shorter, _SHORTEST), _LONGEST)
    return None
