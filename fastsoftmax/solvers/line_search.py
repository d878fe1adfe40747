"""A line search that accepts the first step nearly always, and stays right near the minimum.

Conditions: the strong Wolfe conditions (Nocedal & Wright 2006, Section 3.1), or near the minimum,
where differences of values drown in rounding, the approximate Wolfe conditions of Hager & Zhang
(2005, SIAM J. Optim. 16, Section 3), which look at slopes instead.
"""

from typing import TYPE_CHECKING

import numpy as np

from fastsoftmax.arrays import Array

if TYPE_CHECKING:
    from fastsoftmax.solvers.descent import E, Objective

_DECREASE = 1e-4  # least share of the decrease that the slope at the start promises
_FLATTENING = 0.9  # the slope's size must fall to this share
_MOST_TRIALS = 30


def search(
    objective: "Objective[E]", point: Array, direction: Array, at: "E"
) -> "tuple[float, Array, E] | None":
    """Return a step along direction that fulfils the conditions, its end, and the evaluation there.

    None where direction does not descend, or no step could be told from the start: then rounding
    forbids further progress.
    """
    vectors = objective.vectors
    slope = vectors.dot(direction, at.gradient)
    if not (slope < 0.0 and np.isfinite(slope)):
        return None
    noise = 4.0 * objective.epsilon * abs(at.value)
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
        decreased = new.value <= at.value + _DECREASE * step * slope
        level = new.value <= at.value + noise and new_slope <= (2 * _DECREASE - 1) * slope
        if (decreased or level) and abs(new_slope) <= _FLATTENING * -slope:
            return step, end, new
        # where the slope would vanish if it went on along the line through the two known ones
        rise = new_slope - low_slope
        root = low - low_slope * (step - low) / rise if rise > 0.0 else np.inf
        if new_slope >= 0.0 or not (decreased or level):
            high = step
        else:
            low, low_slope = step, new_slope
        step = _between(low, high, root)
        if high - low < 1e-12 * low:
            break
    return None


def _between(low: float, high: float, root: float) -> float:
    """Return the root, kept well inside the bracket, or a step outwards, up to tenfold."""
    if np.isinf(high):
        return min(max(root, 2.0 * low), 10.0 * low)
    margin = 0.1 * (high - low)
    return root if low + margin <= root <= high - margin else 0.5 * (low + high)
