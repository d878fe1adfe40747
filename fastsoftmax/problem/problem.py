"""What a problem is: rows, the coordinates that it is solved in, and the penalty.

For rows x_i, targets y_i (distributions over K classes), row weights s_i with sum S, and
lambda = 1 / (C S):

    F(W, b) = (1 / S) sum_i s_i CE(softmax(W x_i + b), y_i) + (l2 / 2) ||V||^2 + l1 ||V||_1,

l2 = lambda (1 - l1_ratio), l1 = lambda l1_ratio, and V = W, or where features are scaled
V = W / scale, column by column.

Two classes have one logit, that of class 1 against class 0 (W is one row, as in scikit-learn).

Conventions
-----------
- Row weights are scaled to mean 1 before they reach the rows, so sums over the rows divided by the
  number of rows are means.
- Solvers see a flat float64 vector: V (n_logits, n_features) and after it, with an intercept,
  c = b + W mean(x), the intercept of centred features (see `coordinates`). Centring costs no copy
  of X and removes the coupling between V and the intercept.
- Where the rows are float32, so are W and b in the pass over them; penalty, certificate and result
  refer to the rounded values.
"""

from dataclasses import dataclass, replace

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.cached import cached_property
from fastsoftmax.problem.coordinates import Coordinates
from fastsoftmax.problem.curved_span import RowSpan, build_row_span
from fastsoftmax.shards import protocol
from fastsoftmax.shards.rows import Rows

# A deviation of less than this share of the mean may be a rounding error of the mean.
_SUSPICIOUS = 1e-5
# Deviations by which a mean may be wrong where an intercept makes up for it.
_LITTLE_SHIFT = 1e-6


@dataclass(frozen=True)
class Problem:
    """F over rows; see the head of this module for the formula. `build_problem` makes one."""

    rows: Rows
    coordinates: Coordinates
    class_share: Array  # (n_classes,), mean smoothed target
    # The best model without weights (n_params,), read-only: intercepts at the logarithms of the
    # class shares, or zero.
    null_point: Array
    l2: float  # strength of the squared norm, >= 0
    l1: float = 0.0  # of the 1-norm, >= 0

    @property
    def n_rows(self) -> int:
        """Rows."""
        return self.rows.n_rows

    @property
    def n_features(self) -> int:
        """Features."""
        return self.rows.n_features

    @property
    def n_classes(self) -> int:
        """Classes."""
        return self.rows.n_classes

    @property
    def n_logits(self) -> int:
        """Logits: one for two classes."""
        return self.rows.n_logits

    @property
    def n_weights(self) -> int:
        """Elements of V."""
        return self.coordinates.n_weights

    @property
    def n_params(self) -> int:
        """Elements of a solver's vector."""
        return self.coordinates.n_params

    @property
    def fit_intercept(self) -> bool:
        """Whether the logits have an intercept."""
        return self.coordinates.fit_intercept

    @property
    def null_loss(self) -> float:
        """Mean cross-entropy of the best model without weights, in nats."""
        share = self.class_share[self.class_share > 0.0]
        if not self.fit_intercept:
            return float(np.log(self.n_classes))
        return -float(np.sum(share * np.log(share)))

    @cached_property
    def target_entropy(self) -> float:
        """Mean entropy of the targets, in nats."""
        total: float = self.rows.sum(protocol.target_entropy)
        return total / self.n_rows

    @cached_property
    def mean_squares(self) -> Array:
        """Means of the squares of the solver's features, which are centred and scaled."""
        squares = self.rows.squares_about(self.coordinates.center)
        return np.asarray(squares * self.coordinates.scale**2)

    @cached_property
    def variances(self) -> Array:
        """Variances of the solver's features, also where they are not centred."""
        if self.fit_intercept or self.coordinates.standardize:
            return self.mean_squares
        squares = self.rows.squares_about(self.rows.means())
        return np.asarray(squares * self.coordinates.scale**2)

    @cached_property
    def sizes(self) -> Array:
        """Sizes of the solver's features, about the roots of `mean_squares`, > 0."""
        spread = self.rows.spread
        if spread is not None:
            return self.coordinates.scale / spread.units
        roots = np.sqrt(self.mean_squares)
        return np.where(roots > 0.0, roots, 1.0)

    @cached_property
    def row_radius(self) -> float:
        """A bound on the length of the rows over `sizes`, with a 1 for the intercept."""
        spread, center = self.rows.spread, self.coordinates.center
        if spread is not None:
            square = spread.radius_about(center) ** 2
        else:
            square = self.rows.largest_square(center, self.coordinates.scale / self.sizes)
        return float(np.sqrt(square + self.fit_intercept))

    @cached_property
    def row_span(self) -> RowSpan | None:
        """Where F curves without a penalty; None for all directions, and with a penalty."""
        if self.l2 > 0.0 or self.l1 > 0.0:
            return None
        return build_row_span(self.rows, self.coordinates)

    # ---- the same problem but for ... ----

    def with_penalty(self, l2: float, l1: float = 0.0) -> "Problem":
        """Return the same problem with another penalty."""
        return replace(self, l2=l2, l1=l1)

    def with_features(self, features: Array, rows: Rows) -> "Problem":
        """Return the problem of some features alone, whose rows these are."""
        coordinates = self.coordinates.restricted(features)
        return replace(
            self,
            rows=rows,
            coordinates=coordinates,
            null_point=_null_point(self.class_share, coordinates),
        )

    # ---- points and values ----

    def penalty(self, weights: Array, square: float, *, raw: bool = False) -> float:
        """Return what F adds to the loss, for V (raw: for W) and ||V||^2."""
        if self.l1 == 0.0:
            return 0.5 * self.l2 * square
        sums = np.abs(weights).sum(axis=0, dtype=np.float64)
        norm = float((sums / self.coordinates.scale if raw else sums).sum())
        return 0.5 * self.l2 * square + self.l1 * norm

    def largest_logit_change(self, direction: Array) -> float:
        """Return the most by which a step changes the difference of two logits of a row."""
        return self.rows.largest_logit_change(*self.coordinates.coefficients_of(direction))


def build_problem(
    rows: Rows,
    l2: float,
    *,
    l1: float = 0.0,
    fit_intercept: bool,
    input_scale: float = 1.0,
    standardize: bool = False,
) -> Problem:
    """Return a problem whose features all have the scale input_scale, > 0.

    With standardize they are shifted and scaled to mean 0 and variance 1 instead (those that do not
    vary are shifted alone).
    """
    class_sums = rows.target_sums()
    class_share = np.asarray(class_sums / class_sums.sum())
    center = np.zeros(rows.n_features)
    scale = np.full(rows.n_features, float(input_scale))
    if fit_intercept or standardize:
        center = rows.means()
    if standardize:
        center, scale = _standardizing(rows, center, fit_intercept=fit_intercept)
    coordinates = Coordinates(center, scale, rows.n_logits, fit_intercept, standardize)
    null_point = _null_point(class_share, coordinates)
    return Problem(rows, coordinates, class_share, null_point, l2, l1)


def _standardizing(rows: Rows, center: Array, *, fit_intercept: bool) -> tuple[Array, Array]:
    """Return means and reciprocal deviations of the features, the means summed in float64.

    An error of a mean adds its square to the variance, and without an intercept F changes by it.
    """
    weight = rows.total_weight()
    if not fit_intercept:  # weights of float32 have not quite mean 1
        center = center * (rows.n_rows / weight)
    rest = np.zeros(rows.n_features)
    scale = _reciprocal_deviations(rows, center, rest)
    error = float(np.finfo(rows.real).eps * np.abs(center * scale).max(initial=0.0))
    by_float32 = rows.real == np.float32 and not fit_intercept
    if rows.is_sparse or error <= (0.0 if by_float32 else _LITTLE_SHIFT):
        return center, scale
    rest = rows.sum(protocol.centered_sums, center, np.ones(rows.n_features)) / weight
    nearer = center + rest
    rest -= nearer - center  # what no float64 can tell of the mean
    return nearer, _reciprocal_deviations(rows, nearer, rest)


def _reciprocal_deviations(rows: Rows, center: Array, rest: Array) -> Array:
    """1 / standard deviation of each feature; 1 where it does not vary but by rounding.

    center + rest are the means.
    """
    variance = rows.squares_about(center)
    rounding = rows.n_rows * np.finfo(np.float64).eps
    constant = variance <= rounding * variance + (rounding * center) ** 2
    if (variance <= (_SUSPICIOUS * center) ** 2).any():
        # the center has rounding errors of the number type: a column of 0.3 in float32 seemed to
        # vary by 1e-7, and became a feature of 1 or -1
        means = rows.means_near(center)
        exact = rows.sum(protocol.squares, means) / rows.n_rows
        constant |= exact <= (rounding * center) ** 2
    variance = variance - rest**2
    return np.asarray(1.0 / np.sqrt(np.where(constant | (variance <= 0.0), 1.0, variance)))


def _null_point(class_share: Array, coordinates: Coordinates) -> Array:
    point = np.zeros(coordinates.n_params)
    if coordinates.fit_intercept:
        logs = np.log(np.maximum(class_share, 1e-12))
        origin = logs[0] if coordinates.n_logits == 1 else logs.mean()
        point[coordinates.n_weights :] = logs[-coordinates.n_logits :] - origin
    point.flags.writeable = False
    return point
