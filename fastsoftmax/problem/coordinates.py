"""The coordinates in which a problem is solved: scaled and shifted features, without a copy of X.

The model o = V z + c for features z = scale * (x - center) is the model o = W x + b with
W = V * scale (each column times its feature's scale) and b = c - W center. Passes over the rows
take W and b, and the chain rule turns their gradients into those by V and c.
"""

from dataclasses import dataclass, replace

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.cached import cached_property
from fastsoftmax.linalg import length


@dataclass(frozen=True)
class Coordinates:
    """Solver's vectors (V, then c where there is an intercept) and coefficients (W, b) of raw X."""

    center: Array  # (n_features,) float64
    scale: Array  # the same, > 0
    n_logits: int
    fit_intercept: bool  # without one, c is 0
    # Whether center and scale are the means and reciprocal deviations of the features; then center
    # is not 0 although there is no intercept that would absorb it.
    standardize: bool = False

    @property
    def n_weights(self) -> int:
        """Elements of V."""
        return self.n_logits * len(self.scale)

    @property
    def n_params(self) -> int:
        """Elements of a solver's vector."""
        return self.n_weights + (self.n_logits if self.fit_intercept else 0)

    @cached_property
    def _is_scaled(self) -> bool:
        return bool((self.scale != 1.0).any())

    @property
    def scale_or_none(self) -> Array | None:
        """The scales; None where they are all 1."""
        return self.scale if self._is_scaled else None

    @cached_property
    def size_of_center(self) -> float:
        """Euclidean length of the scaled center; finite also where squares are not."""
        return length(self.center * self.scale)

    def restricted(self, features: Array) -> "Coordinates":
        """Return the coordinates of some features alone."""
        return replace(self, center=self.center[features], scale=self.scale[features])

    def matrix_of(self, point: Array) -> Array:
        """Return V (n_logits, n_features), a view of a solver's vector."""
        return point[: self.n_weights].reshape(self.n_logits, -1)

    def point_of(self, weights: Array, bias: Array) -> Array:
        """Return the solver's vector for coefficients."""
        point = (weights / self.scale).ravel().astype(np.float64)
        if not self.fit_intercept:
            return point
        return np.concatenate([point, bias + product(weights, self.center)])

    def coefficients_of(self, point: Array) -> tuple[Array, Array]:
        """Return W (n_logits, n_features) and b (n_logits,), float64, for a solver's vector.

        W may be a view of it.
        """
        weights = self.matrix_of(point)
        if self._is_scaled:
            weights = weights * self.scale
        bias = -product(weights, self.center)
        if self.fit_intercept:
            bias += point[self.n_weights :]
        return weights, bias
