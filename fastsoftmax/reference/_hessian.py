"""The Hessian of the loss over dense rows in plain numpy: the twin of src/kernels/hessian.c."""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.kernel_arguments import Scaling
from fastsoftmax.reference._rows import all_logits, blocks, features_of, shift, threaded


@threaded
def hessian_sums(
    out: Array,
    X: Array,
    row_weights: Array,
    weights: Array,
    bias: Array,
    scaling: Scaling,
) -> None:
    """Let out = sum_i s_i (diag(p_i) - p_i p_i^T) (x) z_i z_i^T, in both triangles.

    p are the probabilities of the model o = W x + b of n_logits logits (one logit: of two classes,
    out has p_1 (1 - p_1) there), s are row_weights. z are the rows of X, which is dense, in the
    coordinates of a `Scaling`. out is float64, (n_logits m, n_logits m) for m numbers in z; those
    of a logit lie together.
    """
    center, scale, with_bias = scaling
    n_logits, d = weights.shape
    m = d + bool(with_bias)
    total = out.reshape(n_logits, m, n_logits, m)
    total[...] = 0.0
    for rows in blocks(len(X), max(m, n_logits)):
        z = np.ones((len(X[rows]), m))
        np.subtract(X[rows], center, out=z[:, :d], dtype=np.float64)
        if scale is not None:
            z[:, :d] *= scale
        logits: Array = product(features_of(X, rows, weights.dtype), weights.T)
        p, rest = _probabilities(logits + bias)
        s = row_weights[rows].astype(np.float64)
        for k in range(n_logits):
            for j in range(k, n_logits):
                h = s * p[:, k] * (rest[:, k] if j == k else -p[:, j])
                block = product((z * h[:, np.newaxis]).T, z)
                total[k, :, j] += block
                if j > k:
                    total[j, :, k] += block


def _probabilities(logits: Array) -> tuple[Array, Array]:
    """Return the probability of each logit's class, and that of the others, in float64."""
    n_logits = logits.shape[1]
    row = shift(all_logits(logits, max(2, n_logits)))
    p = row.exps / (1.0 + row.others)
    rest = 1.0 - p
    # of the largest the sum of the others, which keeps its digits
    np.put_along_axis(rest, row.at, row.others / (1.0 + row.others), axis=1)
    return p[:, -n_logits:], rest[:, -n_logits:]
