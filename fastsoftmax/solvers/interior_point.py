"""The minimum of a quadratic model plus l1 times the 1-norm, whatever its condition.

`proximal` guesses which coefficients are 0, and its guesses go round in circles where features
depend on each other nearly. Here x = p - q with p, q > 0 and slopes z_p, z_q > 0 of the two, and
p z_p = q z_q = mu with mu falling to 0: a Cholesky factor for each step, 15 to 30 of them.

Sources: Mehrotra 1992, SIAM J. Optim. 2, predictor and corrector; Koh, Kim & Boyd 2007, JMLR 8, for
the split of a 1-norm.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from fastsoftmax.arrays import Array
from fastsoftmax.blas import single_threaded_blas

_MOST_STEPS = 60
# The minimum counts as found if the sum of all products p z_p is at most this share of the
# objective, and if the residuals of the slopes are at most this share of l1.
_GAP, _SLOPE = 1e-14, 1e-9
# Rounding of a slope, as a share of the size of its terms.
_NOISE = 4.0 * float(np.finfo(np.float64).eps)
# A step goes this share of the way to the point where the first variable becomes 0.
_INSIDE = 0.995
# A coefficient counts as 0 if p and q, relative to its usual size, are both less than this number
# times their slopes, relative to l1.
_ZERO = 1e-3
# Added to the diagonal of a matrix with diagonal 1; the second, if there is no Cholesky factor.
_ADDED, _MORE = 1e-14, 1e-10


class _Split(NamedTuple):
    """p, q, z_p and z_q, or steps of these."""

    p: Array
    q: Array
    zp: Array
    zq: Array

    def mean_product(self) -> float:
        """Return mu."""
        return float(self.p @ self.zp + self.q @ self.zq) / (2 * len(self.p))

    def moved(self, step: "_Split", length: float) -> "_Split":
        """Return the variables after a step."""
        return _Split(*(v + length * dv for v, dv in zip(self, step, strict=True)))

    def longest(self, step: "_Split") -> float:
        """Return how much of a step keeps all variables above 0."""
        length = 1.0
        for v, dv in zip(self, step, strict=True):
            down = dv < 0.0
            if down.any():
                length = min(length, _INSIDE * float(np.min(-v[down] / dv[down])))
        return length


class _Newton:
    """Newton's steps for the conditions of optimality, by one Cholesky factor."""

    def __init__(self, hessian: Array, slope: Array, at: _Split, rests: tuple[Array, Array]):
        self._hessian, self._slope, self._at, self._rests = hessian, slope, at, rests
        self._width = at.p / at.zp + at.q / at.zq
        n, m = len(hessian), len(at.p)
        matrix = hessian.copy()
        matrix[np.arange(m), np.arange(m)] += 1.0 / self._width
        self._scale = 1.0 / np.sqrt(matrix.diagonal())
        matrix *= self._scale
        matrix *= self._scale[:, np.newaxis]
        for added in (_ADDED, _MORE):
            matrix[np.arange(n), np.arange(n)] += added
            self._factor, info = lapack.dpotrf(matrix.T, lower=1)
            if info == 0:
                return
        raise np.linalg.LinAlgError("the model has no Cholesky factor")

    def step(self, of_p: Array, of_q: Array) -> tuple[Array, _Split]:
        """Return the steps by which p z_p and q z_q change so, but for the second order."""
        (p, q, zp, zq), (rest_p, rest_q), m = self._at, self._rests, len(self._width)
        side = -self._slope
        side[:m] = ((of_p - p * rest_p) / zp - (of_q - q * rest_q) / zq) / self._width
        dx = lapack.dpotrs(self._factor, side * self._scale, lower=1)[0] * self._scale
        change = (self._hessian @ dx)[:m]
        dzp, dzq = change + rest_p, rest_q - change
        return dx, _Split((of_p - p * dzp) / zp, (of_q - q * dzq) / zq, dzp, dzq)


@single_threaded_blas
def model_minimum(
    point: Array, gradient: Array, l1: float, n_weights: int, hessian: Array, value: float
) -> Array | None:
    """Return the minimum of <gradient, u - point> + (u - point) B (u - point) / 2 + l1 ||u||_1.

    None where it is not found. The arguments are as of `proximal.model_minimum`, with the whole
    matrix B, whose first n_weights coefficients are in the 1-norm; value is the objective's size.
    """
    diagonal = hessian.diagonal()[:n_weights]
    if not (np.isfinite(hessian).all() and (hessian.diagonal() > 0.0).all()):
        return None
    moved, x = np.zeros(len(point)), point[:n_weights]  # (near the end B point would cancel)
    room = np.maximum(np.abs(x), l1 / diagonal)
    slope, size = gradient[:n_weights], np.abs(hessian)
    at = _Split(
        np.maximum(x, 0.0) + room,
        np.maximum(-x, 0.0) + room,
        np.maximum(l1 + slope, 0.1 * l1),
        np.maximum(l1 - slope, 0.1 * l1),
    )
    for _ in range(_MOST_STEPS):
        slope = gradient + hessian @ moved
        rests = l1 + slope[:n_weights] - at.zp, l1 - slope[:n_weights] - at.zq
        mu = at.mean_product()
        rest = max(float(np.abs(r).max(initial=0.0)) for r in (*rests, slope[n_weights:]))
        noise = _NOISE * float((size @ np.abs(moved)).max() + l1)
        is_small = 2 * n_weights * mu <= _GAP * value + noise * float(np.abs(moved).max())
        if is_small and rest <= max(_SLOPE * l1, noise):
            break
        try:
            newton = _Newton(hessian, slope, at, rests)
        except np.linalg.LinAlgError:
            return None
        _, step = newton.step(-at.p * at.zp, -at.q * at.zq)
        centre = mu * (at.moved(step, at.longest(step)).mean_product() / mu) ** 3
        dx, step = newton.step(
            centre - at.p * at.zp - step.p * step.zp, centre - at.q * at.zq - step.q * step.zq
        )
        length = at.longest(step)
        moved, at = moved + length * dx, at.moved(step, length)
        if not np.isfinite(moved).all():
            return None
    x = x + moved[:n_weights]
    share = _ZERO / l1 * np.sqrt(np.mean(x**2 * diagonal) / diagonal)  # by what they add to logits
    kept = np.ones(len(point), dtype=bool)
    kept[:n_weights] = (at.p >= share * at.zp) | (at.q >= share * at.zq)
    strengths = np.where(np.arange(len(point)) < n_weights, l1, 0.0)
    return _with_zeros(point, moved, kept, gradient, hessian, strengths)


def _with_zeros(
    point: Array, moved: Array, kept: Array, gradient: Array, hessian: Array, l1: Array
) -> Array:
    """Return the minimum where all but the coefficients kept are 0, unless the end is better.

    Others have to make up for each that becomes 0, however small it was: so these are solved for.
    l1 is that of each coefficient.
    """

    def value(u: Array) -> float:
        longer = float(l1 @ (np.abs(point + u) - np.abs(point)))
        return float(u @ (gradient + 0.5 * (hessian @ u))) + longer

    signs = np.sign(point + moved)
    u = np.where(kept, moved, -point)
    if not kept.any():
        return point + (u if value(u) <= value(moved) else moved)
    rest = (gradient + hessian @ u + l1 * signs)[kept]
    matrix = hessian[np.ix_(kept, kept)]
    scale = 1.0 / np.sqrt(matrix.diagonal())
    matrix *= scale
    matrix *= scale[:, np.newaxis]
    matrix[np.arange(len(matrix)), np.arange(len(matrix))] += _MORE
    factor, info = lapack.dpotrf(matrix.T, lower=1)
    if info == 0:
        u[kept] -= lapack.dpotrs(factor, rest * scale, lower=1)[0] * scale
        crossed = (l1 > 0.0) & ((point + u) * signs < 0.0)
        u[crossed] = -point[crossed]
    best = u if value(u) <= value(moved) else moved
    end = point + best
    if best is u:
        end[~kept] = 0.0
    return np.asarray(end)
