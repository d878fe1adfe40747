"""An estimate of the relative gap, which ends a run long before the certified one does."""

import numpy as np

# The gap counts as small if the model has expected a gain of at most this share of tol twice in a
# row. One small expectation is not enough: a bad pair may cause it.
_SHARE = 1.0 / 3.0
# A model with few pairs expects too small gains (2e-6 at a gap of 1.5e-4). Its values then fall
# slowly, and the run is long. If values converge linearly, from 1 to a gap g, the last fifth of the
# iterations has lowered them by g (g^(-1/5) - 1), which is 5 g for g = 1e-4.
_LATEST = 0.2
_LEAST_LATEST = 2


class EstimatedGap:
    """Whether (value - minimum) / value is at most tol, by the values of a run and its gains.

    The minimum of the model is half a squared Newton decrement below the value (Boyd & Vandenberghe
    2004, "Convex Optimization", Section 9.5.1). A quasi-Newton model with few pairs estimates that
    decrement badly. So the latest decrease of the values has to be small, too.

    21 fits (images 500 and 1000 x 784, K = 10, C from 0.05 to 1e4) ended in this way at tol = 1e-4.
    Their true gaps were at most 7e-5. They took 800 iterations; to a certified gap they took 3300.
    """

    def __init__(self, tol: float) -> None:
        self._tol = tol
        self._values: list[float] = []
        self._gain = np.inf

    def is_small(self, value: float, gain: float) -> bool:
        """Record the next point; gain is the relative gain that was expected of the step to it."""
        before, self._gain = self._gain, gain
        values = self._values
        values.append(value)
        n_latest = max(_LEAST_LATEST, int(_LATEST * (len(values) - 1)))
        if len(values) <= n_latest or max(before, gain) > _SHARE * self._tol:
            return False
        return values[-1 - n_latest] - value <= self._tol * abs(value)
