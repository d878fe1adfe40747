"""Approximations of the inverse Hessian, in the solver's (centred) coordinates, and their products.

`curvature` computes what they are made of.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from scipy.linalg.lapack import dpotrs

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product, single_threaded_blas
from fastsoftmax.problem.curved_span import RowSpan
from fastsoftmax.solvers.protocols import Preconditioner
from fastsoftmax.threads import answering_signals, in_threads

# Least ratio of the eigenvalues of an inverse that is applied in float32.
_SPREAD = 1e-4
# Numbers of a block of columns (256 KB), and blocks from which on threads share them.
_BLOCK_OF_COLUMNS = 1 << 15
_LEAST_BLOCKS = 16


@dataclass(frozen=True)
class DiagonalPreconditioner:
    """The diagonal (d,) of an inverse for the weights of a class, a number for the intercepts."""

    inverse: Array
    bias_scale: float
    n_logits: int
    backend: ModuleType
    n_threads: int

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        n_weights = self.n_logits * len(self.inverse)
        result, zeros = np.empty_like(gradient), np.zeros((2, self.n_logits))
        given, weights = (v[:n_weights].reshape(self.n_logits, -1) for v in (gradient, result))
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


@dataclass(frozen=True)
class WholeInverse:
    """The inverse of the whole matrix, for all coefficients together, by its Cholesky factor."""

    factor: Array  # the lower triangle

    @single_threaded_blas
    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        return np.asarray(dpotrs(self.factor, gradient, lower=1)[0])


@dataclass(frozen=True)
class InSpan:
    """A preconditioner between projections to where F curves."""

    inner: Preconditioner
    span: RowSpan
    n_weights: int

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        return self._projected(self.inner.apply(self._projected(gradient.copy())))

    def _projected(self, vector: Array) -> Array:
        weights = vector[: self.n_weights].reshape(-1, len(self.span.axes))
        weights[...] = self.span.project(weights)
        return vector


class WithinInverse(Protocol):
    """An inverse (d, d) for each class, D^-1 of `WithinPreconditioner`."""

    @property
    def n_threads(self) -> int:
        """Threads that products may use."""

    def blocks(self) -> list[slice]:
        """Columns that `apply` takes by themselves."""

    def apply(self, rows: Array, columns: slice) -> Array:
        """Return the product with columns of a matrix (n_logits, d); it may be overwritten."""

    def write_shifted(self, out: Array, given: Array, means: Array, bias_grad: Array) -> Array:
        """Write the product with given - bias_grad means, less its mean over the classes.

        All (n_logits, d), row by row. Returns the sums of the product's rows times the means.
        """


class SharedInverse:
    """(share_k M + l2 I)^-1 for each class k, from the eigenvectors of one M (d, d).

    In the span of a basis (d, rank), if one is given: there l2 is 0.
    """

    def __init__(
        self,
        moments: Array,
        share: Array,
        l2: float,
        real: np.dtype[Any],
        backend: ModuleType,
        n_threads: int,
        basis: Array | None = None,
    ) -> None:
        if basis is not None:
            moments = product(product(basis.T, moments), basis)
        values, vectors = answering_signals(len(moments), np.linalg.eigh, moments)
        vectors = vectors if basis is None else product(basis, vectors)
        floor = 1e-12 * float(values[-1]) if len(values) else 1.0
        self.inverse = 1.0 / (share[:, np.newaxis] * np.maximum(values, 0.0) + l2 + floor)
        # Products in the number type of the passes, unless their rounding errors would be blown up.
        spread = float(self.inverse.max(initial=0.0)) * _SPREAD
        number = real if spread < float(self.inverse.min(initial=np.inf)) else np.float64
        self.inverse = np.asarray(self.inverse, dtype=number)
        self.vectors = np.ascontiguousarray(vectors, dtype=number)
        self.transposed = np.ascontiguousarray(vectors.T, dtype=number)
        self.backend, self.n_threads = backend, n_threads

    def blocks(self) -> list[slice]:
        """Columns that can be applied by themselves: only all together."""
        return [slice(None)]

    def apply(self, rows: Array, columns: slice) -> Array:
        """Return the product with a matrix (n_logits, d), row by row."""
        inside = _product(rows, self.transposed, self.backend, self.n_threads)
        inside *= self.inverse
        return _product(inside, self.vectors, self.backend, self.n_threads)

    def write_shifted(self, out: Array, given: Array, means: Array, bias_grad: Array) -> Array:
        """As of `WithinInverse`."""
        np.multiply(means, bias_grad[:, np.newaxis], out=out)
        product = self.apply(np.subtract(given, out, out=out), slice(None))
        np.subtract(product, _mean_over_classes(product), out=out)
        return _row_dots(means, product)


@dataclass(frozen=True)
class DiagonalInverse:
    """inverse (n_logits, d), the diagonal for each class."""

    inverse: Array
    backend: ModuleType
    n_threads: int

    def blocks(self) -> list[slice]:
        """Columns that can be applied by themselves, few enough for a cache near the processor."""
        n_logits, d = self.inverse.shape
        step = max(64, _BLOCK_OF_COLUMNS // n_logits)
        return [slice(start, start + step) for start in range(0, d, step)]

    def apply(self, rows: Array, columns: slice) -> Array:
        """Return the product with columns of a matrix (n_logits, d), row by row, in place."""
        rows *= self.inverse[:, columns]
        return rows

    def write_shifted(self, out: Array, given: Array, means: Array, bias_grad: Array) -> Array:
        """As of `WithinInverse`, in one pass."""
        dots = np.empty(len(bias_grad))
        self.backend.within_product(
            out, dots, given, self.inverse, means, bias_grad, n_threads=self.n_threads
        )
        return dots


class WithinPreconditioner:
    """The inverse of a block for each class, whose intercept and mean features are coupled.

    Where the rows have weights h_i for a class, with sum c and mean features m, the class's block
    of the Hessian is, for weights and intercept,

        [ D + c m m^T   c m ]                                  T
        [ c m^T         c   ],   D = sum h_i (x_i - m) (x_i - m)  + l2 I.

    So with an intercept D alone has to be inverted: to shift the features by m is to change the
    intercept. That m differs from class to class is most of what a shared D or a diagonal one
    would miss: passes to a certified 1e-4 with m = 0 and so: embeddings 50000 x 512, K = 100: 63
    and 31; text 27000 x 200000, K = 20: 37 and 20.

    within is D^-1, means are m (n_logits, d), and curvature (n_logits,) is c > 0. Without an
    intercept the block is D + c m m^T.
    """

    def __init__(
        self, within: WithinInverse, means: Array, curvature: Array, *, fit_intercept: bool
    ) -> None:
        self.within, self.means, self.curvature = within, means, curvature
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
        if self.fit_intercept:
            bias_grad = gradient[n_weights:]
            dots = self.within.write_shifted(weights, given, self.means, bias_grad)
            bias = bias_grad / self.curvature - dots
            result[n_weights:] = bias - _mean_over_classes(bias)
        else:
            self._write_unshifted(weights, given)
        return result

    def _write_unshifted(self, weights: Array, given: Array) -> None:
        """Write the weights of the product, without an intercept."""

        def multiply(columns: slice) -> Array:
            w = weights[:, columns]
            np.copyto(w, given[:, columns])
            w[...] = self.within.apply(w, columns)
            return _row_dots(self.means[:, columns], w)

        dots = np.sum(list(in_threads(multiply, self._blocks, self._n_threads)), axis=0)
        for columns in self._blocks:
            w = weights[:, columns]
            w -= (self._share * dots)[:, np.newaxis] * self._across[:, columns]
            w -= _mean_over_classes(w)


def _mean_over_classes(products: Array) -> Array:
    """Return what products of all classes have in common: softmax does not see it."""
    mean: Array = products.mean(axis=0) if len(products) > 1 else np.zeros(products.shape[1:])
    return mean


def _row_dots(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("kj,kj->k", a, b))


def _product(rows: Array, matrix: Array, backend: ModuleType, n_threads: int) -> Array:
    """Return rows @ matrix.T in the matrix's number type."""
    product = np.empty((len(rows), len(matrix)), dtype=matrix.dtype)
    zeros = np.zeros(len(matrix), dtype=matrix.dtype)
    # The project's own kernel: a BLAS would wake threads that spin against the kernels' own.
    rows = np.ascontiguousarray(rows, dtype=matrix.dtype)
    backend.affine_rows(product, rows, matrix, zeros, n_threads=n_threads)
    return product
