"""Small linear algebra that numpy and scipy do not have."""

import math

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
    diagonal = np.diagonal(matrix) + added
    size = float(diagonal.mean())
    # in proportion to each element, so that the scale of a feature does not matter; from little
    # more than the rounding of float64 up to where nothing is left of the matrix
    extra = 1e-14
    steps = np.where(diagonal > 0.0, diagonal, size if size > 0.0 else 1.0)
    while True:
        np.fill_diagonal(matrix, diagonal + extra * steps)
        inverse, info = answering_signals(len(matrix), _lower_inverse, matrix)
        if info == 0 and np.isfinite(inverse).all():
            break
        if not np.isfinite(size) or extra > 1e6:
            inverse = np.eye(len(matrix)) / (size if np.isfinite(size) and size > 0.0 else 1.0)
            break
        extra *= 100.0
    # only the lower triangle is filled, so that the sum with its transpose doubles the diagonal
    matrix[...] = inverse
    matrix += inverse.T
    np.fill_diagonal(matrix, np.diagonal(inverse))


def _lower_inverse(matrix: Array) -> tuple[Array, int]:
    """Return the lower triangle of the inverse, and a number other than 0 where there is none."""
    factor, info = lapack.dpotrf(matrix.T, lower=1, clean=1)
    if info == 0:
        factor, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    return factor, info
