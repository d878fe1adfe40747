"""Small linear algebra that numpy and scipy do not have."""

import math
from collections.abc import Callable

import numpy as np
from scipy.linalg import lapack

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner
from fastsoftmax.threads import answering_signals

_MOST = float(np.finfo(np.float64).max)


def length(vector: Array) -> float:
    """Return the Euclidean length, finite also where squares are not."""
    largest = min(float(np.abs(vector).max(initial=0.0)), _MOST)
    if largest == 0.0:
        return 0.0
    relative = vector / largest
    return min(largest * math.sqrt(inner(relative, relative)), _MOST)


def invert(matrix: Array, added: Array) -> None:
    """Overwrite a positive semidefinite matrix with (matrix + diag(added))^-1.

    The diagonal is raised further where rounding demands it.
    """
    if not len(matrix):  # LAPACK takes none of order 0
        return
    inverse = _raised(matrix, added, _lower_inverse)
    # only the lower triangle is filled, so that the sum with its transpose doubles the diagonal
    matrix[...] = inverse
    matrix += inverse.T
    np.fill_diagonal(matrix, np.diagonal(inverse))


def factored(matrix: Array, added: Array) -> Array:
    """Return the lower Cholesky factor of matrix + diag(added); the matrix is overwritten.

    The diagonal is raised as in `invert`.
    """
    return _raised(matrix, added, _lower_factor) if len(matrix) else matrix


def _raised(matrix: Array, added: Array, function: Callable[[Array], tuple[Array, int]]) -> Array:
    """Return what a function makes of a matrix, whose diagonal is raised until it succeeds."""
    diagonal = np.diagonal(matrix) + added
    size = float(diagonal.mean())
    # in proportion to each element, so that the scale of a feature does not matter; from little
    # more than the rounding of float64 up to where nothing is left of the matrix
    extra = 1e-14
    steps = np.where(diagonal > 0.0, diagonal, size if size > 0.0 else 1.0)
    while True:
        np.fill_diagonal(matrix, diagonal + extra * steps)
        found, info = answering_signals(len(matrix), function, matrix)
        if info == 0 and np.isfinite(found).all():
            return found
        if not np.isfinite(size) or extra > 1e6:
            matrix[...] = 0.0
            np.fill_diagonal(matrix, size if np.isfinite(size) and size > 0.0 else 1.0)
            return function(matrix)[0]
        extra *= 100.0


def _lower_factor(matrix: Array) -> tuple[Array, int]:
    """Return the lower Cholesky factor, and a number other than 0 where there is none."""
    factor, info = lapack.dpotrf(matrix.T, lower=1, clean=1)
    return factor, info


def _lower_inverse(matrix: Array) -> tuple[Array, int]:
    """Return the lower triangle of the inverse, and such a number."""
    factor, info = _lower_factor(matrix)
    if info == 0:
        factor, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    return factor, info
