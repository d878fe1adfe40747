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

from collections.abc import Iterable, Sequence
from functools import reduce
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from scipy.linalg import lapack

from fastsoftmax.coordinates import Coordinates
from fastsoftmax.shard import Array, Shard, in_threads

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
# Least ratio of the eigenvalues of an inverse that is applied in float32.
_SPREAD = 1e-4
# Numbers of a block of columns (256 KB), and blocks from which on threads share them.
_BLOCK_OF_COLUMNS = 1 << 15
_LEAST_BLOCKS = 16
# The least curvature of a class, as a share of the mean of all.
_LEAST_SHARE = 1e-3
# The same as a share of the weight of all rows.
_LEAST_CURVATURE = 1e-10
_ROWS_PER_FEATURE = 16
# Rows drawn for a block: at least this many, and 4 for each feature.
_LEAST_DRAWN = 2048
_DRAWN_PER_FEATURE = 4


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

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        n_weights = self.n_logits * len(self.inverse)
        rows = gradient[:n_weights].reshape(self.n_logits, -1)
        result = np.empty_like(gradient)
        product = _product(rows, self.inverse, self.backend, self.n_threads)
        result[:n_weights] = product.ravel()
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
        products -= _shared(products)
        weights = products[:, : self.n_features, 0]
        return np.concatenate([weights.ravel(), products[:, self.n_features :, 0].ravel()])


class SharedInverse:
    """(share_k M + penalty I)^-1 for each class k, from the eigenvectors of one M (d, d)."""

    def __init__(
        self,
        moments: Array,
        share: Array,
        penalty: float,
        real: np.dtype[Any],
        backend: ModuleType,
        n_threads: int,
    ) -> None:
        values, vectors = np.linalg.eigh(moments)
        floor = 1e-12 * float(values[-1]) if len(values) else 1.0
        self.inverse = 1.0 / (share[:, np.newaxis] * np.maximum(values, 0.0) + penalty + floor)
        # Products in the number type of the passes, unless their rounding errors would be blown up.
        spread = float(self.inverse.max(initial=0.0)) * _SPREAD
        number = real if spread < float(self.inverse.min(initial=np.inf)) else np.float64
        self.vectors = np.ascontiguousarray(vectors, dtype=number)
        self.transposed = np.ascontiguousarray(vectors.T, dtype=number)
        self.backend = backend
        self.n_threads = n_threads

    def blocks(self) -> list[slice]:
        """Columns that can be applied by themselves: only all together."""
        return [slice(None)]

    def apply(self, rows: Array, columns: slice) -> Array:
        """Return the product with a matrix (n_logits, d), row by row; it may be overwritten."""
        inside = _product(rows, self.transposed, self.backend, self.n_threads)
        inside *= self.inverse
        return _product(inside, self.vectors, self.backend, self.n_threads)


class DiagonalInverse:
    """inverse (n_logits, d), the diagonal for each class."""

    def __init__(self, inverse: Array, n_threads: int) -> None:
        self.inverse = inverse
        self.n_threads = n_threads

    def blocks(self) -> list[slice]:
        """Columns that can be applied by themselves, few enough for a cache near the processor."""
        n_logits, d = self.inverse.shape
        step = max(64, _BLOCK_OF_COLUMNS // n_logits)
        return [slice(start, start + step) for start in range(0, d, step)]

    def apply(self, rows: Array, columns: slice) -> Array:
        """Return the product with columns of a matrix (n_logits, d), row by row, in place."""
        rows *= self.inverse[:, columns]
        return rows


class WithinPreconditioner:
    """The inverse of a block for each class, whose intercept and mean features are coupled.

    Where the rows have weights h_i for a class, with sum c and mean features m, the class's block
    of the Hessian is, for weights and intercept,

        [ D + c m m^T   c m ]                                  T
        [ c m^T         c   ],   D = sum h_i (x_i - m) (x_i - m)  + penalty I.

    So with an intercept D alone has to be inverted: to shift the features by m is to change the
    intercept. That m differs from class to class is most of what a shared D or a diagonal one
    would miss: passes to a certified 1e-4 with m = 0 and so: embeddings 50000 x 512, K = 100: 63
    and 31; text 27000 x 200000, K = 20: 37 and 20.

    Parameters
    ----------
    within : SharedInverse or DiagonalInverse
        D^-1.
    means : ndarray of shape (n_logits, d)
    curvature : ndarray of shape (n_logits,)
        c > 0.
    fit_intercept : bool
        Without one the block is D + c m m^T.
    """

    def __init__(
        self,
        within: SharedInverse | DiagonalInverse,
        means: Array,
        curvature: Array,
        *,
        fit_intercept: bool,
    ) -> None:
        self.within = within
        self.means = means
        self.curvature = curvature
        self.fit_intercept = fit_intercept
        self._blocks = within.blocks()
        self._n_threads = within.n_threads if len(self._blocks) >= _LEAST_BLOCKS else 1
        if not fit_intercept:  # Sherman & Morrison
            self._across = np.empty_like(means)
            for columns in self._blocks:
                self._across[:, columns] = within.apply(means[:, columns].copy(), columns)
            self._share = 1.0 / (1.0 / curvature + _row_dots(means, self._across))

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        n_weights = self.means.size
        result = np.empty_like(gradient)
        given, weights = (v[:n_weights].reshape(self.means.shape) for v in (gradient, result))
        bias_grad = gradient[n_weights:]

        def shifted(columns: slice) -> Array:
            means, w = self.means[:, columns], weights[:, columns]
            np.multiply(means, bias_grad[:, np.newaxis], out=w)
            product = self.within.apply(np.subtract(given[:, columns], w, out=w), columns)
            dots = _row_dots(means, product)
            np.subtract(product, _shared(product), out=w)
            return dots

        def unshifted(columns: slice) -> Array:
            w = weights[:, columns]
            np.copyto(w, given[:, columns])
            w[...] = self.within.apply(w, columns)
            return _row_dots(self.means[:, columns], w)

        product = shifted if self.fit_intercept else unshifted
        dots = np.sum(list(in_threads(product, self._blocks, self._n_threads)), axis=0)
        if self.fit_intercept:
            bias = bias_grad / self.curvature - dots
            result[n_weights:] = bias - _shared(bias)
            return result
        for columns in self._blocks:
            w = weights[:, columns]
            w -= (self._share * dots)[:, np.newaxis] * self._across[:, columns]
            w -= _shared(w)
        return result


class DiagonalPreconditioner:
    """inverse (d,), the same for each class, and a number for the intercepts."""

    def __init__(self, inverse: Array, bias_scale: float, n_logits: int) -> None:
        self.inverse = inverse
        self.bias_scale = bias_scale
        self.n_logits = n_logits

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        result = np.empty_like(gradient)
        n_weights = self.n_logits * len(self.inverse)
        weights = result[:n_weights].reshape(self.n_logits, -1)
        np.multiply(gradient[:n_weights].reshape(weights.shape), self.inverse, out=weights)
        np.multiply(gradient[n_weights:], self.bias_scale, out=result[n_weights:])
        return result


def _shared(products: Array) -> Array:
    """Return what products of all classes have in common: softmax does not see it."""
    shared: Array = products.mean(axis=0) if len(products) > 1 else np.zeros(products.shape[1:])
    return shared


def _row_dots(a: Array, b: Array) -> Array:
    dots: Array = np.einsum("kj,kj->k", a, b)
    return dots


def _product(rows: Array, matrix: Array, backend: ModuleType, n_threads: int) -> Array:
    """Return rows @ matrix.T in the matrix's number type."""
    product = np.empty((len(rows), len(matrix)), dtype=matrix.dtype)
    zeros = np.zeros(len(matrix), dtype=matrix.dtype)
    # The project's own kernel: a BLAS would wake threads that spin against the kernels' own.
    rows = np.ascontiguousarray(rows, dtype=matrix.dtype)
    backend.affine_rows(product, rows, matrix, zeros, n_threads=n_threads)
    return product


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
    class_share: Array,
    moments: Array | None = None,
) -> Preconditioner:
    """Invert the scaled bound _SCALE * curvature * Cov(z) + penalty * I, z the scaled features.

    Times what makes it the inverse of _SCALE * the Hessian at the model without weights, by the
    share of each class: of 100 classes the bound is 50 times as much, and so would be the steps
    that the first line search takes (embeddings 50000 x 512: 30 passes to 1e-4 instead of 27).
    Its diagonal alone where there are many features. Without an intercept the second moment takes
    the place of the covariance (unless the features are standardized, center is 0 then).
    `moments` are those of `mean_moments` if they are known, be it for other weights of the rows.
    """
    d = shards[0].n_features
    n_logits, center, scale = coordinates.n_logits, coordinates.center, coordinates.scale
    curvature = 0.5 if n_logits > 1 else 0.25
    bound = _SCALE * curvature
    times = curvature / max(float(np.mean(class_share * (1.0 - class_share))), _LEAST_SHARE)
    bias_scale = times / bound if coordinates.fit_intercept else 0.0
    moments = mean_moments(shards, center) if moments is None else moments
    products = moments * bound
    if products.ndim == 1:
        products *= scale**2
        floor = max(penalty, 1e-10 * float(products.max(initial=0.0)), np.finfo(float).tiny)
        return DiagonalPreconditioner(times / (products + floor), bias_scale, n_logits)
    products *= scale
    products *= scale[:, np.newaxis]
    invert(products, np.full(d, penalty))
    products *= times
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
        return (min(n_rows, _sampled_rows(d)) * d + d * d) / (4.0 * n_rows)
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
    with_bias = coordinates.fit_intercept
    n_sampled = -(-_sampled_rows(weights.shape[1]) // len(shards))
    blocks, weight = _sums(
        shard.hessian_blocks(weights, bias, coordinates.center, n_sampled, with_bias=with_bias)
        for shard in shards
    )
    blocks /= max(weight, np.finfo(float).tiny)
    scale = np.concatenate([coordinates.scale, np.ones(int(with_bias))])
    ridge = np.full(len(scale), penalty)
    ridge[weights.shape[1] :] = 0.0

    def finish(block: Array) -> Array:
        block *= scale
        block *= scale[:, np.newaxis]
        invert(block, ridge)
        return block

    for _ in in_threads(finish, blocks, shards[0].n_threads):
        pass
    return BlockPreconditioner(blocks, weights.shape[1], shards[0].backend, shards[0].n_threads)


def build_diagonals(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
) -> Preconditioner:
    """Take the diagonal of the Hessian's block of each class, its mean features apart."""
    parts = (shard.hessian_diagonals(weights, bias, coordinates.center) for shard in shards)
    squares, sums, totals = _sums(parts)
    n_rows = max(1, sum(shard.n_rows for shard in shards))
    means, curvature = _means(sums, totals, coordinates.scale, n_rows)
    squares *= coordinates.scale**2
    squares -= totals[:, np.newaxis] * means**2
    squares /= n_rows
    np.maximum(squares, 0.0, out=squares)
    squares += max(penalty, 1e-10 * float(squares.max(initial=0.0)), np.finfo(float).tiny)
    inverse = np.reciprocal(squares, out=squares)
    return WithinPreconditioner(
        DiagonalInverse(inverse, shards[0].n_threads),
        means,
        curvature / n_rows,
        fit_intercept=coordinates.fit_intercept,
    )


def build_shared(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
) -> Preconditioner:
    """Approximate the Hessian's block of each class by its share of a matrix, its means apart."""
    step = _row_step(shards)
    moments, sums, totals, weight = _sums(
        shard.shared_curvature(weights, bias, coordinates.center, step) for shard in shards
    )
    weight = max(weight, np.finfo(float).tiny)
    means, curvature = _means(sums, totals, coordinates.scale, weight)
    moments *= coordinates.scale
    moments *= coordinates.scale[:, np.newaxis]
    moments -= (means * totals[:, np.newaxis]).T @ means
    moments /= weight
    within = SharedInverse(
        moments,
        curvature / curvature.sum(),
        penalty,
        shards[0].real,
        shards[0].backend,
        shards[0].n_threads,
    )
    return WithinPreconditioner(
        within, means, curvature / weight, fit_intercept=coordinates.fit_intercept
    )


def _sums(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Add up what shards return, element by element."""
    return reduce(lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), parts)


def _means(sums: Array, totals: Array, scale: Array, weight: float) -> tuple[Array, Array]:
    """Mean scaled features of each class, and its curvature, which is not next to nothing.

    Where all rows are decided about a class, its own would make steps without a bound.
    """
    means = sums * scale
    means /= np.where(totals > 0.0, totals, np.inf)[:, np.newaxis]
    least = max(_LEAST_SHARE * float(totals.mean()), _LEAST_CURVATURE * weight)
    return means, np.maximum(totals, least)


def _sampled_rows(n_features: int) -> int:
    return max(_LEAST_DRAWN, _DRAWN_PER_FEATURE * n_features)


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
