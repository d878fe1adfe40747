"""The temperature that fits logits to labels best: one number, by a safeguarded search.

With the logits z of a row and its label y, the mean cross-entropy f(beta) of softmax(beta z) is
convex in beta = 1 / temperature, and its slope f'(beta) = mean(E_p[z] - z_y) rises from that of
the uniform distribution to that of the largest logits. The best beta is where it is 0.
"""

import math
from collections.abc import Callable

from scipy.optimize import brentq

# f counts as flat where a factor e in beta changes it by at most this share of log(n_classes).
_FLAT = 1e-6
_FACTOR = 4.0
_MOST_FACTORS = 500  # 1e300

TOO_SHARP = (
    "every row's label has the largest logit, or nearly the largest: no temperature > 0 is the "
    "best, since ever smaller ones fit better. Take more held-out rows."
)
TOO_FLAT = (
    "the logits do not help to predict these labels: no finite temperature is the best, since "
    "ever larger ones fit better. Check that y belongs to X."
)


def best_temperature(
    slope_at: Callable[[float], float], n_classes: int, relative_tolerance: float
) -> tuple[float, str]:
    """Return the temperature and, where none is the best, the reason; otherwise "".

    slope_at(beta) is f'(beta), finite for every beta >= 0 that is tried. Where the best temperature
    is 0 or infinite, the result is the first of 1, 1/4, 1/16, ... (or 1, 4, 16, ...) beyond which
    f is flat.
    """
    flat = _FLAT * math.log(n_classes)
    first, slope = slope_at(0.0), slope_at(1.0)
    low = high = 1.0
    if slope < 0.0 or (slope == 0.0 and first < 0.0):  # (far out, a negative slope rounds to 0)
        for _ in range(_MOST_FACTORS):
            # (tiny logits make f flat too, but then the slope is still that at 0)
            ends = high * -slope <= flat and slope > 0.5 * first
            low, high = high, high * _FACTOR
            slope = slope_at(high)
            if ends and high * abs(slope) <= flat and slope <= 0.0:
                return 1.0 / low, TOO_SHARP
            if slope >= 0.0:
                break
        else:
            return 1.0 / low, TOO_SHARP
    else:
        for _ in range(_MOST_FACTORS):
            if high * slope <= flat and high * -first <= flat:
                return 1.0 / high, TOO_FLAT
            low = high / _FACTOR
            slope = slope_at(low)
            if slope < 0.0:
                break
            high = low
        else:
            return 1.0 / high, TOO_FLAT
    root = brentq(slope_at, low, high, xtol=1e-300, rtol=relative_tolerance, disp=False)
    return 1.0 / float(root), ""
