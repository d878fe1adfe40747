"""Where an objective without a penalty curves: in the span of its rows."""

import numpy as np
from scipy.linalg import block_diag, lapack

from fastsoftmax.arrays import Array
from fastsoftmax.blas import single_threaded_blas

# Flat directions have the curvature 1 in a Hessian of several logits. Compared with that, a
# curvature below the first number may be rounding alone, and one below the second has lost most of
# its digits.
_NOTHING, _FAINT = 1e-14, 1e-10
# From this ratio of the sizes of features on, a basis in their own units keeps more digits.
_SPREAD = 1e6


@single_threaded_blas
def curved_span(hessian: Array, n_logits: int, n_weights: int) -> Array | None:
    """Return a basis of the directions in which F is not flat; None for all.

    Where features are linearly dependent, for example because there are more of them than rows, F
    does not change along weights that are orthogonal to all (centred) rows. The inverse of a
    Hessian holds only rounding errors there, and a step would follow them (30 features of 15 rows:
    weights of 0.03 beside some of 2, which change the predictions of new rows). In the span of the
    other directions the minimum is unique: the shortest weights of all that predict the same
    (where features differ much in size, the shortest for features of variance 1).

    Parameters
    ----------
    hessian : ndarray of shape (n_params, n_params)
        As `curvature.build_hessian` returns it without a penalty, at any finite model.
    n_logits, n_weights : int

    Returns
    -------
    ndarray of shape (n_params, rank), or None
    """
    n_features = n_weights // n_logits
    blocks = hessian[:n_weights, :n_weights].reshape(n_logits, n_features, n_logits, n_features)
    # sum_i s_i sum_k p_ik (1 - p_ik) z_i z_i^T
    gram = np.einsum("iaib->ab", blocks)
    if n_logits > 1:
        gram[np.diag_indices(n_features)] -= 1.0  # added by `build_hessian`
    squares = np.diagonal(gram).copy()
    nothing, faint = (_NOTHING, _FAINT) if n_logits > 1 else (0.0, 0.0)
    varies = squares > nothing
    if not varies.any() or not np.isfinite(gram).all() or squares[varies].min() < faint:
        return None
    sizes = np.sqrt(np.where(varies, squares, squares.max()))
    gram /= sizes
    gram /= sizes[:, np.newaxis]
    rounding = 4.0 * n_features * np.finfo(np.float64).eps
    shifted = gram - rounding * np.eye(n_features)
    if lapack.dpotrf(shifted, lower=1)[1] == 0:
        return None
    values, vectors = np.linalg.eigh(gram)
    vectors = vectors[:, values > rounding]
    if sizes.max() > _SPREAD * sizes.min():
        weights = vectors / sizes[:, np.newaxis]
    else:
        weights, _ = np.linalg.qr(vectors * sizes[:, np.newaxis])
    contrasts = _contrasts(n_logits)
    parts = [np.kron(contrasts, weights)]
    if len(hessian) > n_weights:
        parts.append(contrasts)
    basis: Array = block_diag(*parts)
    return basis


def _contrasts(n_logits: int) -> Array:
    """Return an orthonormal basis of what softmax sees of the logits of a row."""
    if n_logits == 1:
        return np.ones((1, 1))
    ones = np.ones((n_logits, 1))
    return np.linalg.qr(np.hstack([ones, np.eye(n_logits)[:, 1:]]))[0][:, 1:]
