"""What the rows tell of the Hessian, inverted: how preconditioners are made.

The start: Boehning (1992, Annals of the Institute of Statistical Mathematics 44, Section 3) bounds
the Hessian of softmax regression: it is at most curvature * I_K (x) Cov(x) + lambda I, with
curvature 1/2, or 1/4 for the one logit of two classes. L-BFGS started from the inverse of such a
matrix is L-BFGS in whitened coordinates.

Later: at an optimum most rows are decided and the Hessian is far below that bound, by factors that
differ from class to class. Its blocks on the diagonal, sum_i h_ik x_i x_i^T + lambda I with
h_ik = s_i p_ik (1 - p_ik) for each class k, know that. They cost K products of size rows * d^2, so
they are computed from rows that are drawn in proportion to h, and only when the passes so far have
cost some of it.

Where the blocks of all classes would take too much memory, each is split into what its mean
features add, exactly, and the rest, which is taken to be a share of the sum of all classes' rests,
whose eigenvectors then serve all; where there are many features, the rest's diagonal
(`preconditioner.WithinPreconditioner`). Passes to a certified 1e-4: embeddings 50000 x 512,
K = 100: 108 without, 27 so; images 60000 x 784, K = 10: 204 without, 128 so, 46 with blocks; text
27000 x 200000, K = 20: 20 so.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.linalg import invert
from fastsoftmax.problem.coordinates import Coordinates
from fastsoftmax.problem.preconditioner import (
    BlockPreconditioner,
    DensePreconditioner,
    DiagonalInverse,
    DiagonalPreconditioner,
    SharedInverse,
    WithinPreconditioner,
)
from fastsoftmax.shards.shard import DenseShard, Shard
from fastsoftmax.solvers.protocols import Preconditioner
from fastsoftmax.threads import in_threads

# The bound is scaled by this. Passes to a true gap of 1e-4 and 1e-6 on images (60000 x 784, K = 10,
# C = 1), without refinement, at 1 and 4 times the bound: 120 / 184, 85 / 154.
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
# Rows drawn for a block: at least this many, and 4 for each feature. Passes to a certified 1e-4 on
# the images, and seconds, with 2, 4, 6 and 16 for each: 49, 49, 48, 42; 0.71, 0.68, 0.70, 0.81.
_LEAST_DRAWN = 2048
_DRAWN_PER_FEATURE = 4
# The least curvature of a class, as a share of the mean of all.
_LEAST_SHARE = 1e-3
# The same as a share of the weight of all rows.
_LEAST_CURVATURE = 1e-10
# Classes whose means are copied at a time.
_CLASSES_AT_A_TIME = 256


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
        return DiagonalPreconditioner(
            times / (products + floor),
            bias_scale,
            n_logits,
            shards[0].backend,
            shards[0].n_threads,
        )
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
        DiagonalInverse(inverse, shards[0].backend, shards[0].n_threads),
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
    for first in range(0, len(means), _CLASSES_AT_A_TIME):
        some = slice(first, first + _CLASSES_AT_A_TIME)
        moments -= (means[some] * totals[some, np.newaxis]).T @ means[some]
    moments /= weight
    within = SharedInverse(
        moments,
        curvature / curvature.sum(),
        penalty,
        shards[0].real,
        shards[0].backend,
        shards[0].n_threads,
    )
    means = means.astype(within.vectors.dtype, copy=False)
    return WithinPreconditioner(
        within, means, curvature / weight, fit_intercept=coordinates.fit_intercept
    )


def diagonal_bound(
    shards: Sequence[Shard], coordinates: Coordinates, penalty: float, class_share: Array
) -> Array:
    """Diagonal of the Hessian at the model with the shares of the classes, flat, by V and c.

    0 where a feature does not vary and the penalty is 0.
    """
    n_rows = max(1, sum(shard.n_rows for shard in shards))
    squares = np.sum([shard.squares(coordinates.center) for shard in shards], axis=0) / n_rows
    squares *= coordinates.scale**2
    curvature = (class_share * (1.0 - class_share))[-coordinates.n_logits :]
    curvature = np.maximum(curvature, _LEAST_SHARE * max(float(curvature.mean()), _LEAST_CURVATURE))
    weights = np.outer(curvature, squares) + penalty
    return np.concatenate([weights.ravel(), curvature[: coordinates.n_params - weights.size]])


def diagonal_at(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
    bound: Array,
) -> Array:
    """Diagonal of the Hessian at a model, as `diagonal_bound` returns it; not next to nothing.

    Of dense rows from a sample.
    """
    some = [_every(shard, _row_step(shards)) for shard in shards]
    parts = (shard.hessian_diagonals(weights, bias, coordinates.center) for shard in some)
    squares, _, totals = _sums(parts)
    weight = sum(float(shard.row_weights.sum(dtype=np.float64)) for shard in some)
    squares *= coordinates.scale**2 / max(weight, np.finfo(float).tiny)
    squares += penalty
    totals /= max(weight, np.finfo(float).tiny)
    diagonal = np.concatenate([squares.ravel(), totals])[: coordinates.n_params]
    np.maximum(diagonal, _LEAST_SHARE * bound, out=diagonal)
    return np.asarray(diagonal)


def _every(shard: Shard, step: int) -> Shard:
    """Every step-th row of a dense shard, for its features' sake; of a sparse one all."""
    if not isinstance(shard, DenseShard) or step == 1:
        return shard
    some = shard.reweighted(shard.row_weights[::step])
    some.X, some.labels, some.target_probs = shard.X[::step], None, None
    return some


def build_hessian(
    shards: Sequence[Shard],
    coordinates: Coordinates,
    penalty: float,
    weights: Array,
    bias: Array,
) -> Array:
    """Return the Hessian at the model o = W x + b (for raw features), in a new array.

    Softmax does not see a number added to all logits, so the intercepts' common direction is flat
    (and without a penalty that of each feature): there the Hessian gets the curvature 1 of an
    objective with the same minimum.
    """
    k, d = weights.shape
    m = d + coordinates.fit_intercept
    weights = weights.astype(np.float64, copy=False)
    total = np.zeros((k * m, k * m))
    for shard in shards:
        total += shard.hessian(
            weights, bias, coordinates.center, with_bias=coordinates.fit_intercept
        )
    total /= sum(shard.n_rows for shard in shards)
    blocks = total.reshape(k, m, k, m)
    blocks[:, :d] *= coordinates.scale[:, np.newaxis, np.newaxis]
    blocks[:, :, :, :d] *= coordinates.scale
    if k > 1:
        for j in range(0 if penalty <= 0.0 else d, m):
            blocks[:, j, :, j] += 1.0 / k
    features = np.arange(d)
    for i in range(k):
        blocks[i, features, i, features] += penalty
    # from coefficients of a logit together to all weights, then all intercepts
    order = np.arange(k * m).reshape(k, m)
    by_weights = np.concatenate([order[:, :d].ravel(), order[:, d:].ravel()])
    hessian: Array = total[np.ix_(by_weights, by_weights)]
    return hessian


def _sums(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Add up what shards return, element by element."""
    return reduce(lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), parts)


def _means(sums: Array, totals: Array, scale: Array, weight: float) -> tuple[Array, Array]:
    """Mean scaled features of each class, in place of the sums, and its curvature.

    That is not next to nothing.

    Where all rows are decided about a class, its own would make steps without a bound.
    """
    means = np.multiply(sums, scale, out=sums)
    means /= np.where(totals > 0.0, totals, np.inf)[:, np.newaxis]
    least = max(_LEAST_SHARE * float(totals.mean()), _LEAST_CURVATURE * weight)
    return means, np.maximum(totals, least)


def _sampled_rows(n_features: int) -> int:
    return max(_LEAST_DRAWN, _DRAWN_PER_FEATURE * n_features)


def _row_step(shards: Sequence[Shard]) -> int:
    n_rows = sum(shard.n_rows for shard in shards)
    return max(1, n_rows // max(_LEAST_ROWS, _ROWS_PER_FEATURE * shards[0].n_features))
