"""The coordinates in which a problem is solved: scaled and shifted features, without a copy of X.

A model o = V z + c of the features z = scale * (x - center) is the model o = W x + b with
W = V * scale (each column by its feature's scale) and b = c - W center. Every pass over the rows is
made with W and b; what it returns is brought back by the chain rule.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastsoftmax.arrays import Array


@dataclass(frozen=True)
class Coordinates:
    """Solver's vectors (V, then c where there is an intercept) and coefficients (W, b) of raw X.

    Parameters
    ----------
    center, scale : ndarray of shape (n_features,), float64
        Scales are > 0.
    n_logits : int
    fit_intercept : bool
        Without one, c is 0.
    """

    center: Array
    scale: Array
    n_logits: int
    fit_intercept: bool

    @property
    def n_weights(self) -> int:
        """Elements of V."""
        return self.n_logits * len(self.scale)

    @property
    def n_params(self) -> int:
        """Elements of a solver's vector."""
        return self.n_weights + (self.n_logits if self.fit_intercept else 0)

    @property
    def shift(self) -> Array:
        """What the objective's features are shifted by: an intercept absorbs any shift."""
        return np.zeros_like(self.center) if self.fit_intercept else self.center

    @cached_property
    def _is_scaled(self) -> bool:
        return bool((self.scale != 1.0).any())

    @property
    def scale_or_none(self) -> Array | None:
        """The scales; None where they are all 1."""
        return self.scale if self._is_scaled else None

    def point_of(self, weights: Array, bias: Array) -> Array:
        """Return the solver's vector for coefficients."""
        point = (weights / self.scale).ravel().astype(np.float64)
        if not self.fit_intercept:
            return point
        return np.concatenate([point, bias + weights @ self.center])

    def coefficients_of(self, point: Array) -> tuple[Array, Array]:
        """Return W (n_logits, n_features) and b (n_logits,), float64, for a solver's vector.

        W may be a view of it.
        """
        weights = point[: self.n_weights].reshape(self.n_logits, -1)
        if self._is_scaled:
            weights = weights * self.scale
        bias = -(weights @ self.center)
        if self.fit_intercept:
            bias += point[self.n_weights :]
        return weights, bias
