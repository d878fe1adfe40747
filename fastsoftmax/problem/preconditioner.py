"""Approximations of the inverse Hessian, in the solver's (centred) coordinates, and their products.

What they are made of is in `curvature`.
"""

from types import ModuleType
from typing import Any

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.threads import answering_signals, in_threads

# Least ratio of the eigenvalues of an inverse that is applied in float32.
_SPREAD = 1e-4
# Numbers of a block of columns (256 KB), and blocks from which on threads share them.
_BLOCK_OF_COLUMNS = 1 << 15
_LEAST_BLOCKS = 16


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
        values, vectors = answering_signals(len(moments), np.linalg.eigh, moments)
        floor = 1e-12 * float(values[-1]) if len(values) else 1.0
        self.inverse = 1.0 / (share[:, np.newaxis] * np.maximum(values, 0.0) + penalty + floor)
        # Products in the number type of the passes, unless their rounding errors would be blown up.
        spread = float(self.inverse.max(initial=0.0)) * _SPREAD
        number = real if spread < float(self.inverse.min(initial=np.inf)) else np.float64
        self.inverse = np.asarray(self.inverse, dtype=number)
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

    def __init__(self, inverse: Array, backend: ModuleType, n_threads: int) -> None:
        self.inverse = inverse
        self.backend = backend
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
        if self.fit_intercept:
            dots = self._shifted(weights, given, bias_grad)
            bias = bias_grad / self.curvature - dots
            result[n_weights:] = bias - _shared(bias)
            return result

        def unshifted(columns: slice) -> Array:
            w = weights[:, columns]
            np.copyto(w, given[:, columns])
            w[...] = self.within.apply(w, columns)
            return _row_dots(self.means[:, columns], w)

        dots = np.sum(list(in_threads(unshifted, self._blocks, self._n_threads)), axis=0)
        for columns in self._blocks:
            w = weights[:, columns]
            w -= (self._share * dots)[:, np.newaxis] * self._across[:, columns]
            w -= _shared(w)
        return result

    def _shifted(self, weights: Array, given: Array, bias_grad: Array) -> Array:
        """Weights of the product of a block with an intercept; returns their sums by the means."""
        within = self.within
        if isinstance(within, DiagonalInverse):
            dots = np.empty(len(bias_grad))
            within.backend.within_product(
                weights,
                dots,
                given,
                within.inverse,
                self.means,
                bias_grad,
                n_threads=within.n_threads,
            )
            return dots
        np.multiply(self.means, bias_grad[:, np.newaxis], out=weights)
        product = within.apply(np.subtract(given, weights, out=weights), slice(None))
        np.subtract(product, _shared(product), out=weights)
        return _row_dots(self.means, product)


class DiagonalPreconditioner:
    """inverse (d,), the same for each class, and a number for the intercepts."""

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
        result = np.empty_like(gradient)
        n_weights = self.n_logits * len(self.inverse)
        given, weights = (v[:n_weights].reshape(self.n_logits, -1) for v in (gradient, result))
        zeros = np.zeros((2, self.n_logits))
        self.backend.within_product(
            weights,
            zeros[0],
            given,
            self.inverse[np.newaxis],
            None,
            zeros[1],
            n_threads=self.n_threads,
        )
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
