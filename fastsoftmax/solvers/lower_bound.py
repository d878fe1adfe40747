"""How far a point is from the minimum at most: the relative gap, the figure that `tol` limits."""

import numpy as np

from fastsoftmax.solvers.protocols import E, Objective

# Estimates of rounding errors are of their usual size. Both values of a difference have such an
# error, and one of twice the usual size is not rare: beyond four times it a difference is real.
ROUNDING = 4.0


def share_of(gap: float, value: float) -> float:
    """Return gap / value, for a value that may be 0; at most 1, because no minimum is below 0."""
    if gap == np.inf:
        return np.inf
    if not value > 0.0:
        return 0.0 if gap <= 0.0 else np.inf
    share = gap / value
    return share if share < 1.0 else 1.0  # (also where it is NaN: an overflow tells nothing)


def relative_gap(objective: Objective[E], at: E) -> float:
    """Return a bound on (F - min F) / F from one evaluation."""
    return share_of(objective.gap_bound(at) + objective.noise(at), at.value)


class LowerBound:
    """The best lower bound on the minimum, `value`, that the points of a run have certified.

    Bounds of single points are not monotone: a point is certified by its own bound, or by what an
    earlier one has told of the minimum. epsilon is the relative rounding error of the values.
    """

    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon
        self.value = 0.0  # the values of an `Objective` are >= 0

    def gap(self, value: float, bound: float, noise: float) -> float:
        """Return the relative gap of a point, and note what the point tells of the minimum.

        value is the objective, bound an upper bound on value - minimum that includes the noise, the
        size of errors in both where terms cancel. Where the bound is infinite nothing is certified,
        not even by an earlier point: something has overflowed.
        """
        # rounding may have raised the lower bound, and lowered this value
        rounding = ROUNDING * (self._epsilon * abs(value) + noise)
        known = min(bound, max(value - self.value, 0.0) + rounding) if bound < np.inf else bound
        self.value = max(self.value, value - bound - rounding)
        return share_of(known, value)
