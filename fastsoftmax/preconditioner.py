"""Preconditioners of the penalised problem, in the solver's (centred) coordinates.

Boehning (1992, Annals of the Institute of Statistical Mathematics 44, Section 3) bounds the
Hessian of softmax regression: it is at most curvature * I_K (x) Cov(x) + lambda I, with curvature
1/2, or 1/4 for the one logit of two classes. L-BFGS started from the inverse of such a matrix is
L-BFGS in whitened coordinates.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Protocol

import numpy as np
from scipy.linalg import lapack

from fastsoftmax.shard import Array, DenseShard

# Away from the start most rows are decided and the Hessian is far below its bound, but more so
# along the directions of large variance than the penalty, which stays. Passes to a gap of 1e-4 and
# 1e-6 on images (60000 x 784, K = 10, C = 1) at 1, 4 and 20 times the bound: 120 / 184, 85 / 154,
# 101 / -; on a probe (50000 x 512, K = 100, C = 10) at 1 and 10 times: 13 / 18, 10 / 17.
_SCALE = 4.0

# The matrix is dense up to this many features: its cost, about rows * d^2, is that of d / (4 K)
# passes over those rows, its memory 8 d^2 bytes (32 MB).
_DENSE_FEATURES = 2048
# Rows that estimate the covariance: at least this many, and 16 for each feature. Passes to 1e-4 on
# the images above with all rows, and with a fifth of them: 120 and 114.
_LEAST_ROWS = 4096
_ROWS_PER_FEATURE = 16


class Preconditioner(Protocol):
    """An approximation of the inverse Hessian."""

    def apply(self, gradient: Array) -> Array:
        """The product with a flat vector, in a new array."""


class DensePreconditioner:
    """(inverse (d, d)) applied to each class's row, a number to the intercepts."""

    def __init__(
        self,
        inverse: Array,
        bias_scale: float,
        n_logits: int,
        backend: ModuleType,
        n_threads: int,
    ) -> None:
        self.inverse = inverse
        self.bias_scale = bias_scale
        self.n_logits = n_logits
        self.backend = backend
        self.n_threads = n_threads
        self._zeros = np.zeros(len(inverse))

    def apply(self, gradient: Array) -> Array:
        """The product with a flat vector, in a new array."""
        result = np.empty_like(gradient)
        shape = self.n_logits, len(self.inverse)
        n_weights = shape[0] * shape[1]
        # The project's own kernel: a BLAS would wake threads that spin against the kernels' own.
        self.backend.affine_rows(
            result[:n_weights].reshape(shape),
            gradient[:n_weights].reshape(shape),
            self.inverse,
            self._zeros,
            n_threads=self.n_threads,
        )
        np.multiply(gradient[n_weights:], self.bias_scale, out=result[n_weights:])
        return result


class DiagonalPreconditioner:
    """One number for each feature, another for the intercepts."""

    def __init__(self, inverse: Array, bias_scale: float, n_logits: int) -> None:
        self.inverse = inverse
        self.bias_scale = bias_scale
        self.n_logits = n_logits

    def apply(self, gradient: Array) -> Array:
        """The product with a flat vector, in a new array."""
        result = gradient * self.bias_scale
        n_weights = self.n_logits * len(self.inverse)
        weights = result[:n_weights].reshape(self.n_logits, -1)
        np.multiply(gradient[:n_weights].reshape(weights.shape), self.inverse, out=weights)
        return result


def build_preconditioner(
    shards: Sequence[DenseShard],
    center: Array,
    penalty: float,
    curvature: float,
    n_logits: int,
    fit_intercept: bool,
) -> Preconditioner:
    """Invert _SCALE * curvature * Cov(x) + penalty * I, or its diagonal where d is large.

    Without an intercept the second moment takes the place of the covariance (center is 0).
    """
    d = shards[0].n_features
    diagonal = d > _DENSE_FEATURES
    n_rows = sum(shard.n_rows for shard in shards)
    step = max(1, n_rows // max(_LEAST_ROWS, _ROWS_PER_FEATURE * d))
    moments = [shard.second_moments(center, step, diagonal=diagonal) for shard in shards]
    weight = sum(part[1] for part in moments)
    scale = _SCALE * curvature
    products = np.sum([part[0] for part in moments], axis=0)
    products *= scale / max(weight, np.finfo(float).tiny)
    bias_scale = 1.0 / scale if fit_intercept else 0.0
    if diagonal:
        floor = max(penalty, 1e-10 * float(products.max()), np.finfo(float).tiny)
        return DiagonalPreconditioner(1.0 / (products + floor), bias_scale, n_logits)
    inverse = _inverse(products, penalty)
    return DensePreconditioner(inverse, bias_scale, n_logits, shards[0].backend, shards[0].n_threads)


def _inverse(matrix: Array, penalty: float) -> Array:
    """(matrix + penalty I)^-1; matrix is overwritten. The diagonal is raised as far as needed."""
    size = float(matrix.trace()) / max(1, len(matrix))
    ridge = max(penalty, 1e-13 * size, np.finfo(float).tiny)
    diagonal = np.diagonal(matrix).copy()
    for _ in range(16):
        np.fill_diagonal(matrix, diagonal + ridge)
        factor, info = lapack.dpotrf(matrix, lower=0, clean=0)
        if info == 0:
            inverse, info = lapack.dpotri(factor, lower=0)
            if info == 0 and np.isfinite(np.diagonal(inverse)).all():
                upper = np.triu(inverse)
                return np.ascontiguousarray(upper + np.triu(upper, 1).T)
        ridge *= 100.0
    return np.eye(len(matrix)) / max(ridge, 1.0)
