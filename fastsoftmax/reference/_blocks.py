"""Block-diagonal matrices, factored, in plain numpy."""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.reference._rows import serial, threaded


@serial
def factor_block(out: Array, rows: Array) -> bool:
    """Write the Cholesky factor of I + rows rows^T to the lower triangle of out.

    rows is (order, n_columns), float32 or float64, and out (order, order) of the same type. Returns
    whether there is one: False where a product is not finite.
    """
    matrix = product(rows, rows.T)
    matrix[np.diag_indices(len(matrix))] += 1.0
    if not np.isfinite(matrix).all():
        return False
    out[...] = np.linalg.cholesky(matrix)
    return True


class FactoredBlocks:
    """A block-diagonal matrix whose block of logit k is D_k^(1/2) B_k D_k^(1/2).

    B_k = I + Z_k^T Z_k, where its rows Z_k are given: then factors[k] is the Cholesky factor of
    I + Z_k Z_k^T. Without rows factors[k] is that of B_k itself, or of order 0: B_k is the identity
    then.

    Parameters
    ----------
    factors : list of ndarray of shape (order, order), float32 or float64, all alike
        Only their lower triangles are read. They are referred to, not copied.
    rows : list of ndarray of shape (order, n_columns), or None
    roots : ndarray of shape (n_logits, n_columns), float64
        The diagonals of D_k^(-1/2).
    n_features : int
        n_columns, or one less: the last column is that of an intercept then.
    """

    def __init__(
        self, factors: list[Array], rows: list[Array | None], roots: Array, n_features: int
    ) -> None:
        n_logits, n_columns = roots.shape
        if not len(factors) == len(rows) == n_logits or n_columns - n_features not in (0, 1):
            raise ValueError("factors, rows, roots and n_features do not agree")
        self._factors, self._rows, self._roots = factors, rows, roots
        self._n_weights = n_logits * n_features

    @threaded
    def solve(self, out: Array, gradient: Array) -> None:
        """Let out = the inverse times gradient, less its mean over the logits if there are several.

        Both are flat, float64: the weights of all logits, and then their intercepts.
        """
        roots, n_weights = self._roots, self._n_weights
        n_logits = len(roots)
        parts = gradient[:n_weights], gradient[n_weights:]
        inside = np.hstack([part.reshape(n_logits, -1) for part in parts]) * roots
        # (float32 holds no gradient of 1e-40)
        sizes = np.abs(inside).max(axis=1, initial=0.0)
        sizes[~((sizes > 0.0) & (sizes < np.inf))] = 1.0
        for k, (factor, rows) in enumerate(zip(self._factors, self._rows, strict=True)):
            given = (inside[k] / sizes[k]).astype(factor.dtype)
            inside[k] = _solved(factor, rows, given)
        inside *= roots * sizes[:, np.newaxis]
        if n_logits > 1:
            inside -= inside.mean(axis=0)
        d = n_weights // n_logits
        out[:n_weights] = inside[:, :d].ravel()
        out[n_weights:] = inside[:, d:].ravel()


def _solved(factor: Array, rows: Array | None, given: Array) -> Array:
    from scipy.linalg import get_lapack_funcs  # (functions of arrays do without it)

    if not len(factor):
        return given
    (potrs,) = get_lapack_funcs(("potrs",), dtype=factor.dtype)
    if rows is None:
        return np.asarray(potrs(factor.T, given, lower=0)[0])
    along = potrs(factor.T, rows @ given, lower=0)[0]
    return np.asarray(given - along @ rows)
