"""The solvers' vectors in plain numpy: the part of `reference` that knows no rows.

Arrays are float64 but where said.
"""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner
from fastsoftmax.kernel_arguments import GradientTerms
from fastsoftmax.reference._rows import threaded


@threaded
def dot(a: Array, b: Array) -> float:
    """Sum of a[i] b[i]."""
    return inner(a, b)


@threaded
def add_scaled(out: Array, y: Array, scale: float, x: Array, other: Array | None) -> float:
    """Let out = y + scale x; returns the sum of out[i] other[i], 0 where other is None.

    out may be y or x.
    """
    np.add(y, scale * x, out=out)
    return 0.0 if other is None else inner(out, other)


@threaded
def round_weights(
    weights: Array, along: Array, scaled: Array, scale: Array | None, center: Array
) -> None:
    """Let weights = scaled * scale (by column; None: ones), along = that @ center.

    weights (n_logits, d) is float32 or float64; along is that of the products before they are
    rounded.
    """
    product = scaled if scale is None else scaled * scale
    np.matmul(product, center, out=along)
    weights[...] = product


@threaded
def assemble_gradient(
    gradient: Array, along: Array, weights: Array, grad_bias: Array, terms: GradientTerms
) -> tuple[float, float, float, float, float]:
    """Compute the gradient of F by V, in place of the sums over the rows of that by W.

    gradient = scale * (share * (gradient - its mean over the classes) - grad_bias center^T)
    + l2 * V, V = weights / scale, all (n_logits, d); with one logit no mean is taken. weights are
    float32 or float64; scale (None: ones) and center are (d,), base is (n_logits, d) or None: those
    five are of `terms`. along = weights @ center. Returns the sums over all elements of V V, g g,
    g V, g base and V base, g the result.
    """
    center, scale, base, share, l2 = terms
    weights = weights.astype(np.float64, copy=False)
    np.matmul(weights, center, out=along)
    if len(gradient) > 1:
        gradient -= gradient.mean(axis=0)
    gradient *= share
    gradient -= np.multiply.outer(grad_bias, center)
    scaled = weights
    if scale is not None:
        scaled = weights / scale
        gradient *= scale
    gradient += l2 * scaled
    pairs = [(scaled, scaled), (gradient, gradient), (gradient, scaled)]
    by_base = [] if base is None else [(gradient, base), (scaled, base)]
    sums = [inner(a, b) for a, b in pairs + by_base]
    square, residual, slope, to_base, along_base = [*sums, 0.0, 0.0][:5]
    return square, residual, slope, to_base, along_base


@threaded
def within_product(
    result: Array,
    along: Array,
    gradient: Array,
    inverse: Array,
    means: Array | None,
    grad_bias: Array,
) -> None:
    """Let result = p less its mean over the classes, p = inverse * (gradient - grad_bias means).

    All (n_logits, d); inverse may also be (1, d), the same for every class, and means None for
    zeros. along[k] = sum_j p[k, j] means[k, j]. With one logit no mean is taken.
    """
    if means is None:
        np.multiply(gradient, inverse, out=result)
        along[...] = 0.0
    else:
        np.multiply(gradient - grad_bias[:, np.newaxis] * means, inverse, out=result)
        np.einsum("kj,kj->k", result, means, out=along)
    if len(result) > 1:
        result -= result.mean(axis=0)
