"""Preconditioners of the penalised problem, in the solver's (centred) coordinates.

The start: Boehning (1992, Annals of the Institute of Statistical Mathematics 44, Section 3) bounds
the Hessian of softmax regression: it is at most curvature * I_K (x) Cov(x) + lambda I, with
curvature 1/2, or 1/4 for the one logit of two classes. L-BFGS started from the inverse of such a
matrix is L-BFGS in whitened coordinates.

Later: at an optimum most rows are decided and the Hessian is far below that bound, by factors that
differ from class to class. Its blocks on the diagonal, sum_i s_i p_ik (1 - p_ik) x_i x_i^T + lambda
I for each class k, know that. They cost K products of size rows * d^2, so they are computed a few
times only, when the passes so far have cost as much.

Where the blocks of all classes would take too much memory, each is taken to be a share of their
sum, sum_i s_i sum_k p_ik (1 - p_ik) x_i x_i^T, of which the eigenvectors then serve all classes.
Passes to a certified 1e-4 without refinement, with shares and with blocks: embeddings 20000 x 512,
K = 100: 108, 51, not tried; images 60000 x 784, K = 10: 204, 184, 39.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Protocol

import numpy as np
from scipy.linalg import lapack

from fastsoftmax.coordinates import Coordinates
from fastsoftmax.shard import Array, Shard

# The bound is scaled by this. Passes to a true gap of 1e-4 and 1e-6 on images (60000 x 784, K = 10,
# C = 1) at 1 and 4 times the bound: 120 / 184, 85 / 154.
_SCALE = 4.0

# The matrices are dense up to this many features: a covariance costs rows * d^2, which is d / (4 K)
# passes over its rows, and 8 d^2 bytes (32 MB).
_DENSE_FEATURES = 2048
# Passes that the diagonal of a Hessian takes, of rows in CSR form, by scipy.
_DIAGONAL_COST = 6.0
# Most numbers in the blocks of all classes (64 MB).
_BLOCK_NUMBERS = 1 << 23
# Rows that estimate a covariance: at least this many, and 16 for each feature. Passes to 1e-4 on
# the images above with all rows, and with a fifth of them: 120 and 114.
_LEAST_ROWS = 4096
_ROWS_PER_FEATURE = 16


class Preconditioner(Protocol):
    """An approximation of the inverse Hessian."""

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""


class DensePreconditioner:
    """inverse (d, d), applied to each class's row, and a number for the intercepts."""

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
        """Return the product with a flat vector, in a new array."""
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


class BlockPreconditioner:
    """inverses (n_logits, m, m), one for each class; m is d, or d + 1 with the intercept last."""

    def __init__(
        self, inverses: Array, n_features: int, backend: ModuleType, n_threads: int
    ) -> None:
        self.inverses = inverses
        self.n_features = n_features
        self.backend = backend
        self.n_threads = n_threads
        self._zero = np.zeros(1)

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        n_logits, size = self.inverses.shape[:2]
        n_weights = n_logits * self.n_features
        rows = np.empty((n_logits, size))
        rows[:, : self.n_features] = gradient[:n_weights].reshape(n_logits, -1)
        rows[:, self.n_features :] = gradient[n_weights:].reshape(n_logits, -1)
        products = np.empty((n_logits, size, 1))
        for inverse, row, product in zip(self.inverses, rows, products, strict=True):
            self.backend.affine_rows(
                product, inverse, row[np.newaxis], self._zero, n_threads=self.n_threads
            )
        if n_logits > 1:  # softmax does not see what all classes share, and the optimum has none
            products -= products.mean(axis=0)
        weights = products[:, : self.n_features, 0]
        return np.concatenate([weights.ravel(), products[:, self.n_features :, 0].ravel()])


class SharedPreconditioner:
    """(share_k M + penalty I)^-1 for each class k, from the eigenvectors of one M (d, d)."""

    def __init__(
        self,
        moments: Array,
        share: Array,
        curvature: float,
        penalty: float,
        fit_intercept: bool,
        backend: ModuleType,
        n_threads: int,
    ) -> None:
        values, vectors = np.linalg.eigh(moments)
        share = np.maximum(share, 1e-3 / len(share))
        floor = 1e-12 * float(values[-1]) if len(values) else 1.0
        self.inverse = 1.0 / (share[:, np.newaxis] * np.maximum(values, 0.0) + penalty + floor)
        self.bias_inverse = 1.0 / np.maximum(share * curvature, 1e-300) if fit_intercept else None
        self.vectors = np.ascontiguousarray(vectors)
        self.transposed = np.ascontiguousarray(vectors.T)
        self.backend = backend
        self.n_threads = n_threads
        self._zeros = np.zeros(len(vectors))

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        n_weights = self.inverse.size
        result = np.empty_like(gradient)
        weights = result[:n_weights].reshape(self.inverse.shape)
        inside = np.empty_like(weights)
        given = gradient[:n_weights].reshape(weights.shape)
        self.backend.affine_rows(
            inside, given, self.transposed, self._zeros, n_threads=self.n_threads
        )
        inside *= self.inverse
        if len(inside) > 1:  # softmax does not see what all classes share
            inside -= inside.mean(axis=0)
        self.backend.affine_rows(
            weights, inside, self.vectors, self._zeros, n_threads=self.n_threads
        )
        if self.bias_inverse is not None:
            bias = gradient[n_weights:] * self.bias_inverse
            result[n_weights:] = bias - (bias.mean() if len(bias) > 1 else 0.0)
        return result


class DiagonalPreconditioner:
    """inverse (d,), the same for each class, or (n_logits, d), and numbers for the intercepts."""

    def __init__(self, inverse: Array, bias_inverse: Array) -> None:
        self.inverse = inverse
        self.bias_inverse = bias_inverse  # (n_logits,)

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        result = np.empty_like(gradient)
        n_logits = len(self.bias_inverse)
        n_weights = n_logits * self.inverse.shape[-1]
        weights = result[:n_weights].reshape(n_logits, -1)
        np.multiply(gradient[:n_weights].reshape(weights.shape), self.inverse, out=weights)
        if len(gradient) > n_weights:
            np.multiply(gradient[n_weights:], self.bias_inverse, out=result[n_weights:])
        if self.inverse.ndim == 2 and n_logits > 1:  # softmax does not see what all classes share
            weights -= weights.mean(axis=0)
            if len(gradient) > n_weights:
                result[n_weights:] -= result[n_weights:].mean()
        return result


def mean_moments(shards: Sequence[Shard], center: Array) -> Array:
    """Mean of s (x - center) (x - center)^T, (d, d): what preconditioners of the rows share.

    Its diagonal alone, (d,), where there are many features.
    """
    if shards[0].n_features > _DENSE_FEATURES:
        n_rows = sum(shard.n_rows for shard in shards)
        squares = np.sum([shard.squares(center) for shard in shards], axis=0)
        return np.asarray(squares / max(1, n_rows))
    moments = [shard.second_moments(center, _row_step(shards)) for shard in shards]
    products = np.sum([products for products, _ in moments], axis=0)
    products /= max(sum(weight for _, weight in moments), np.finfo(float).tiny)
    return np.asarray(products)


def build_preconditioner(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    moments: Array | None = None,
) -> Preconditioner:
    """Invert the scaled bound _SCALE * curvature * Cov(z) + penalty * I, z the scaled features.

    Its diagonal alone where there are many features. Without an intercept the second moment takes
    the place of the covariance (unless the features are standardized, center is 0 then).
    `moments` are those of `mean_moments` if they are known, be it for other weights of the rows.
    """
    d = shards[0].n_features
    n_logits, center, scale = coordinates.n_logits, coordinates.center, coordinates.scale
    bound = _SCALE * (0.5 if n_logits > 1 else 0.25)
    bias_scale = 1.0 / bound if coordinates.fit_intercept else 0.0
    moments = mean_moments(shards, center) if moments is None else moments
    products = moments * bound
    if products.ndim == 1:
        products *= scale**2
        floor = max(penalty, 1e-10 * float(products.max(initial=0.0)), np.finfo(float).tiny)
        return DiagonalPreconditioner(1.0 / (products + floor), np.full(n_logits, bias_scale))
    products *= scale
    products *= scale[:, np.newaxis]
    invert(products, np.full(d, penalty))
    return DensePreconditioner(
        products, bias_scale, n_logits, shards[0].backend, shards[0].n_threads
    )


def refinement_cost(shards: Sequence[Shard], n_logits: int) -> float | None:
    """Return the cost of `build_refined` in passes over the rows; None where memory forbids it.

    Its products run at about the passes' rate of arithmetic, and half of each is symmetry; the
    eigenvectors of a matrix cost as much as 20 products.
    """
    d = shards[0].n_features
    n_rows = max(1, sum(shard.n_rows for shard in shards))
    if d > _DENSE_FEATURES:
        return _DIAGONAL_COST
    if _blocks_fit(d, n_logits):
        return (n_rows / _row_step(shards) * d + d * d) / (4.0 * n_rows)
    return (n_rows / _row_step(shards) * d + 20.0 * d * d) / (4.0 * n_rows * n_logits)


def _blocks_fit(n_features: int, n_logits: int) -> bool:
    return n_logits * (n_features + 1) ** 2 <= _BLOCK_NUMBERS


def build_refined(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
) -> Preconditioner:
    """Invert an approximation of the Hessian at the model o = W x + b (for raw features)."""
    if shards[0].n_features > _DENSE_FEATURES:
        build = build_diagonals
    elif _blocks_fit(shards[0].n_features, coordinates.n_logits):
        build = build_blocks
    else:
        build = build_shared
    return build(shards, coordinates, penalty, weights, bias)


def build_blocks(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
) -> Preconditioner:
    """Invert the Hessian's block of each class at the model o = W x + b (for raw features)."""
    step, with_bias = _row_step(shards), coordinates.fit_intercept
    parts = [
        shard.hessian_blocks(weights, bias, coordinates.center, step, with_bias=with_bias)
        for shard in shards
    ]
    blocks, weight = parts[0]
    for more, more_weight in parts[1:]:
        blocks += more
        weight += more_weight
    blocks /= max(weight, np.finfo(float).tiny)
    scale = np.concatenate([coordinates.scale, np.ones(int(with_bias))])
    ridge = np.full(len(scale), penalty)
    ridge[weights.shape[1] :] = 0.0
    for block in blocks:
        block *= scale
        block *= scale[:, np.newaxis]
        invert(block, ridge)
    return BlockPreconditioner(blocks, weights.shape[1], shards[0].backend, shards[0].n_threads)


def build_diagonals(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
) -> Preconditioner:
    """Invert the Hessian's diagonal at a model."""
    parts = [s.hessian_diagonals(weights, bias, coordinates.center) for s in shards]
    n_rows = max(1, sum(shard.n_rows for shard in shards))
    diagonals = np.sum([part[0] for part in parts], axis=0)
    diagonals *= coordinates.scale**2 / n_rows
    totals = np.sum([part[1] for part in parts], axis=0) / n_rows
    diagonals += max(penalty, 1e-10 * float(diagonals.max(initial=0.0)), np.finfo(float).tiny)
    bias_floor = 1e-3 * float(totals.max(initial=0.0)) + np.finfo(float).tiny
    return DiagonalPreconditioner(
        np.reciprocal(diagonals, out=diagonals), 1.0 / np.maximum(totals, bias_floor)
    )


def build_shared(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
) -> Preconditioner:
    """Approximate the Hessian's block of each class at a model by its share of their sum."""
    step = _row_step(shards)
    parts = [shard.shared_curvature(weights, bias, coordinates.center, step) for shard in shards]
    moments = np.sum([part[0] for part in parts], axis=0)
    curvature = np.sum([part[1] for part in parts], axis=0)
    weight = max(sum(part[2] for part in parts), np.finfo(float).tiny)
    moments *= coordinates.scale / weight
    moments *= coordinates.scale[:, np.newaxis]
    total = max(float(curvature.sum()), np.finfo(float).tiny)
    return SharedPreconditioner(
        moments,
        curvature / total,
        total / weight,
        penalty,
        coordinates.fit_intercept,
        shards[0].backend,
        shards[0].n_threads,
    )


def _row_step(shards: Sequence[Shard]) -> int:
    n_rows = sum(shard.n_rows for shard in shards)
    return max(1, n_rows // max(_LEAST_ROWS, _ROWS_PER_FEATURE * shards[0].n_features))


def invert(matrix: Array, ridge: Array) -> None:
    """Overwrite a positive semidefinite matrix with (matrix + diag(ridge))^-1.

    The diagonal is raised further where rounding demands it.
    """
    diagonal = np.diagonal(matrix) + ridge
    size = float(diagonal.mean()) if len(diagonal) else 1.0
    # in proportion to each element, so that the scale of a feature does not matter
    extra = 1e-14
    steps = np.where(diagonal > 0.0, diagonal, size if size > 0.0 else 1.0)
    while True:
        np.fill_diagonal(matrix, diagonal + extra * steps)
        factor, info = lapack.dpotrf(matrix.T, lower=1, clean=0)
        if info == 0:
            inverse, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
        if info == 0 and np.isfinite(inverse).all():
            break
        if not np.isfinite(size) or extra > 1e6:
            inverse = np.eye(len(matrix)) / (size if np.isfinite(size) and size > 0.0 else 1.0)
            break
        extra *= 100.0
    matrix[...] = np.tril(inverse)
    matrix += np.tril(inverse, -1).T
