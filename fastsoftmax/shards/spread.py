"""How the features of rows spread, from one pass over them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array


class Moments(NamedTuple):
    """Sums over rows of y = units (x - shift), weighted, and the largest squared length of a y."""

    sums: Array  # (n_features,) float64
    squares: Array  # the same, of y^2
    largest: float


def add_moments(a: Moments, b: Moments) -> Moments:
    """Return the moments of the rows of both."""
    return Moments(a.sums + b.sums, a.squares + b.squares, max(a.largest, b.largest))


@dataclass(frozen=True)
class Spread:
    """Means and mean squares of features about any center.

    Near the mean, and in units of the size of their deviations, no square overflows and no digit is
    lost, so one pass tells both.
    """

    shift: Array  # (n_features,) float64, of values of the number type of the rows
    units: Array  # the same, > 0
    moments: Moments  # divided by the number of rows

    def means(self) -> Array:
        """Weighted means of the features."""
        return np.asarray(self.shift + self.moments.sums / self.units)

    def squares_about(self, center: Array) -> Array:
        """Weighted means of (x - center)^2."""
        away = (center - self.shift) * self.units
        squares = self.moments.squares - 2.0 * away * self.moments.sums + away**2
        return np.asarray(np.maximum(squares, 0.0) / self.units**2)

    def radius_about(self, center: Array) -> float:
        """Return a bound on the length of units (x - center), over the rows."""
        away = (center - self.shift) * self.units
        return float(np.sqrt(self.moments.largest) + np.linalg.norm(away))


def near(sample: Array, real: np.dtype[Any]) -> tuple[Array, Array]:
    """Return a shift near the mean of rows like these, and units near their reciprocal deviations.

    sample is (n, n_features), of any number type.
    """
    x = np.ascontiguousarray(sample, dtype=np.float64)  # the order of memory decides that of sums
    first = x[0]
    varies = (x != first).any(axis=0)
    away = x - first
    size = np.abs(away).max(axis=0)
    size = np.where(varies & np.isfinite(size), size, 1.0)
    away /= size  # squares of these do not overflow
    means = away.mean(axis=0)
    deviation = np.sqrt(np.mean((away - means) ** 2, axis=0)) * size
    units = np.divide(1.0, deviation, where=varies & (deviation > 0.0), out=np.ones_like(first))
    shift = np.where(varies, first + means * size, first).astype(real).astype(np.float64)
    usable = np.isfinite(units) & (units > 0.0) & np.isfinite(shift)
    return np.where(usable, shift, 0.0), np.where(usable, units, 1.0)


class ColumnMoments(NamedTuple):
    """Weighted means and variances of sparse columns, where sums of raw numbers tell them."""

    means: Array  # (n_features,) float64
    variances: Array  # the same


# The least share that a variance may be of the mean square that it is the difference of: it has so
# many digits less than float64 (or all of them are 0).
_LEAST_VARIANCE = 1e-4


def column_moments(sums: Array, squares: Array) -> ColumnMoments | None:
    """Return moments by the means of x and x^2; None where a difference would lose digits."""
    variances = squares - sums**2
    if not (variances >= _LEAST_VARIANCE * squares).all():
        return None
    return ColumnMoments(sums, variances)


def may_spread(shift: Array, units: Array, n_rows: int) -> bool:
    """Whether sums of squares over so many rows, by a shift and units, can be finite."""
    return bool(np.isfinite(n_rows * (shift**2 + (1.0 / units) ** 2)).all())


def spread_of(total: Moments, shift: Array, units: Array, n_rows: int) -> Spread | None:
    """Return the spread of rows of mean weight 1 by their moments; None where these overflow."""
    sums, squares = total.sums / n_rows, total.squares / n_rows
    if not (np.isfinite(squares).all() and np.isfinite(total.largest)):
        return None
    return Spread(shift, units, Moments(sums, squares, total.largest))
