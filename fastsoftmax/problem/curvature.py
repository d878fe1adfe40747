"""Hessians, and the preconditioners that are made of them.

The first preconditioner: Boehning (1992, Annals of the Institute of Statistical Mathematics 44,
Section 3) bounds the Hessian of softmax regression by curvature * I_K (x) Cov(x) + l2 I, with
curvature 1/2, or 1/4 for the one logit of two classes. L-BFGS that starts from the inverse of such
a matrix is L-BFGS in whitened coordinates.

The refined one: near an optimum most rows are decided, and the Hessian is far below that bound, by
factors that differ from class to class. Its diagonal blocks show this: for class k,
sum_i h_ik x_i x_i^T + l2 I with h_ik = s_i p_ik (1 - p_ik). They cost K products of rows * d^2
multiply-adds. So they are estimated from rows drawn in proportion to h_ik, and only when the passes
so far have cost a share of that.

Where the blocks of all classes take too much memory, each is the sum of two parts: what the class's
mean features add, which is exact, and a remainder. The remainder is approximated by a share of one
matrix, the sum of all classes' remainders, whose eigenvectors serve all classes; where there are
many features, by its diagonal (`preconditioner.WithinPreconditioner`). Passes to a certified 1e-4:
embeddings 50000 x 512, K = 100: 108 without a refined preconditioner, 27 with this one; images
60000 x 784, K = 10: 204 without, 128 with this one, 46 with blocks; text 27000 x 200000, K = 20: 20
with this one.
"""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.linalg import invert
from fastsoftmax.problem.curved_span import RowSpan, spread_of
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.problem.preconditioner import (
    BlockPreconditioner,
    DensePreconditioner,
    DiagonalInverse,
    DiagonalPreconditioner,
    SharedInverse,
    WithinPreconditioner,
)
from fastsoftmax.problem.problem import Problem
from fastsoftmax.shards.curvature import (
    diagonals,
    hessian,
    hessian_blocks,
    second_moments,
    shared_curvature,
)
from fastsoftmax.shards.rows import Rows
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
# The least curvature of a class, as a share of the mean of all, and of the weight of all rows.
_LEAST_SHARE, _LEAST_CURVATURE = 1e-3, 1e-10
# Classes whose means are copied at a time.
_CLASSES_AT_A_TIME = 256
_TINY = float(np.finfo(float).tiny)


def mean_moments(rows: Rows, center: Array) -> Array:
    """Mean of s (x - center) (x - center)^T, (d, d); its diagonal (d,) for many features."""
    if rows.n_features > _DENSE_FEATURES:
        return np.asarray(rows.sum(lambda shard: shard.squares(center)) / max(1, rows.n_rows))
    products, weight = rows.sum(second_moments, center, _row_step(rows))
    products /= max(weight, _TINY)
    return products


def build_preconditioner(problem: Problem, span: RowSpan | None = None) -> Preconditioner:
    """Invert the scaled bound _SCALE * curvature * Cov(z) + l2 * I, z the scaled features.

    Times what makes it the inverse of _SCALE * the Hessian at the model without weights, by the
    share of each class: of 100 classes the bound is 50 times as much, and so would be the steps
    that the first line search takes (embeddings 50000 x 512: 30 passes to 1e-4 instead of 27).
    Its diagonal alone where there are many features. Without an intercept the second moment takes
    the place of the covariance (unless the features are standardized, center is 0 then). span holds
    the directions to take, where F does not curve in all.
    """
    rows, coordinates, share = problem.rows, problem.coordinates, problem.class_share
    scale = coordinates.scale
    curvature = 0.5 if rows.n_logits > 1 else 0.25
    bound = _SCALE * curvature
    times = curvature / max(float(np.mean(share * (1.0 - share))), _LEAST_SHARE)
    bias_scale = times / bound if coordinates.fit_intercept else 0.0
    others = bias_scale, rows.n_logits, rows.backend, rows.n_threads
    moments = mean_moments(rows, coordinates.center) if problem.moments is None else problem.moments
    products = moments * bound
    if products.ndim == 1:
        products *= scale**2
        floor = max(problem.l2, 1e-10 * float(products.max(initial=0.0)), _TINY)
        inverse = times / (products + floor)
        _leave_constants(problem, inverse)
        return DiagonalPreconditioner(inverse, *others)
    products *= scale
    products *= scale[:, np.newaxis]
    if span is None:
        invert(products, np.full(rows.n_features, problem.l2))
    else:
        span.invert(products)
    products *= times
    return DensePreconditioner(products, *others)


def refinement_cost(rows: Rows) -> float | None:
    """Return the cost of `build_refined` in passes over the rows; None where memory forbids it.

    Its products run at about the passes' rate of arithmetic, and half of each is symmetry; the
    eigenvectors of a matrix cost as much as 20 products.
    """
    d, n_rows = rows.n_features, max(1, rows.n_rows)
    if d > _DENSE_FEATURES:
        return _DIAGONAL_COST
    if _blocks_fit(rows):
        return (min(n_rows, _sampled_rows(d)) * d + d * d) / (4.0 * n_rows)
    return (n_rows / _row_step(rows) * d + 20.0 * d * d) / (4.0 * n_rows * rows.n_logits)


def _blocks_fit(rows: Rows) -> bool:
    return rows.n_logits * (rows.n_features + 1) ** 2 <= _BLOCK_NUMBERS


def build_refined(problem: Problem, at: Evaluation, span: RowSpan | None = None) -> Preconditioner:
    """Invert an approximation of the Hessian at a point; in a span, where F curves only there."""
    if problem.n_features > _DENSE_FEATURES:
        return build_diagonals(problem, at)
    return (build_blocks if _blocks_fit(problem.rows) else build_shared)(problem, at, span)


def _leave_constants(problem: Problem, inverse: Array) -> None:
    """Take no steps along features that do not vary: without a penalty they follow rounding."""
    if problem.l2 <= 0.0:
        _, sizes = spread_of(problem.rows, problem.coordinates)
        inverse[..., sizes == 0.0] = 0.0


def build_blocks(problem: Problem, at: Evaluation, span: RowSpan | None = None) -> Preconditioner:
    """Invert the Hessian's block of each class."""
    rows, coordinates, d = problem.rows, problem.coordinates, problem.n_features
    with_bias = coordinates.fit_intercept
    blocks, weight = rows.sum(
        hessian_blocks,
        at.weights,
        at.bias,
        coordinates.center,
        rows.share_of(_sampled_rows(d)),
        with_bias=with_bias,
    )
    blocks /= max(weight, _TINY)
    scale = np.append(coordinates.scale, np.ones(int(with_bias)))
    added = np.append(np.full(d, problem.l2), np.zeros(int(with_bias)))

    def finish(block: Array) -> Array:
        block *= scale
        block *= scale[:, np.newaxis]
        if span is None:
            invert(block, added)
        else:
            span.invert(block)
        return block

    for _ in in_threads(finish, blocks, rows.n_threads):
        pass
    return BlockPreconditioner(blocks, d, rows.backend, rows.n_threads)


def build_diagonals(problem: Problem, at: Evaluation) -> Preconditioner:
    """Take the diagonal of the Hessian's block of each class, its mean features apart."""
    rows, coordinates = problem.rows, problem.coordinates
    squares, sums, totals, _ = rows.sum(diagonals, at.weights, at.bias, coordinates.center, 1)
    n_rows = max(1, rows.n_rows)
    means, curvature = _means(sums, totals, coordinates.scale, n_rows)
    squares *= coordinates.scale**2
    squares -= totals[:, np.newaxis] * means**2
    squares /= n_rows
    np.maximum(squares, 0.0, out=squares)
    squares += max(problem.l2, 1e-10 * float(squares.max(initial=0.0)), _TINY)
    inverse = np.reciprocal(squares, out=squares)
    _leave_constants(problem, inverse)
    return WithinPreconditioner(
        DiagonalInverse(inverse, rows.backend, rows.n_threads),
        means,
        curvature / n_rows,
        fit_intercept=coordinates.fit_intercept,
    )


def build_shared(problem: Problem, at: Evaluation, span: RowSpan | None = None) -> Preconditioner:
    """Approximate the Hessian's block of each class by its share of a matrix, its means apart."""
    rows, coordinates = problem.rows, problem.coordinates
    moments, sums, totals, weight = rows.sum(
        shared_curvature, at.weights, at.bias, coordinates.center, _row_step(rows)
    )
    weight = max(weight, _TINY)
    means, curvature = _means(sums, totals, coordinates.scale, weight)
    moments *= coordinates.scale
    moments *= coordinates.scale[:, np.newaxis]
    for first in range(0, len(means), _CLASSES_AT_A_TIME):
        some = slice(first, first + _CLASSES_AT_A_TIME)
        moments -= product((means[some] * totals[some, np.newaxis]).T, means[some])
    moments /= weight
    within = SharedInverse(
        moments,
        curvature / curvature.sum(),
        problem.l2,
        rows.real,
        rows.backend,
        rows.n_threads,
        basis=None if span is None else span.basis,
    )
    means = means.astype(within.vectors.dtype, copy=False)
    return WithinPreconditioner(
        within, means, curvature / weight, fit_intercept=coordinates.fit_intercept
    )


def diagonal_bound(problem: Problem) -> Array:
    """Flat diagonal of the Hessian at weights of 0; 0 where a feature does not vary and l2 is 0."""
    rows, coordinates = problem.rows, problem.coordinates
    squares = rows.sum(lambda shard: shard.squares(coordinates.center)) / max(1, rows.n_rows)
    squares *= coordinates.scale**2
    share = problem.class_share
    curvature = (share * (1.0 - share))[-rows.n_logits :]
    curvature = np.maximum(curvature, _LEAST_SHARE * max(float(curvature.mean()), _LEAST_CURVATURE))
    weights = np.outer(curvature, squares) + problem.l2
    return np.concatenate([weights.ravel(), curvature[: problem.n_params - weights.size]])


def diagonal_at(problem: Problem, at: Evaluation, bound: Array) -> Array:
    """Diagonal of the Hessian at a point, as `diagonal_bound` returns it; at least a share of that.

    From a sample of the rows, if they are dense.
    """
    rows, coordinates = problem.rows, problem.coordinates
    squares, _, totals, weight = rows.sum(
        diagonals, at.weights, at.bias, coordinates.center, _row_step(rows)
    )
    squares *= coordinates.scale**2 / max(weight, _TINY)
    squares += problem.l2
    totals /= max(weight, _TINY)
    diagonal = np.concatenate([squares.ravel(), totals])[: problem.n_params]
    return np.asarray(np.maximum(diagonal, _LEAST_SHARE * bound, out=diagonal))


def hessian_cost(problem: Problem) -> float:
    """Multiply-adds of a Hessian, and of its inverse."""
    return float(problem.n_rows + problem.n_params) * problem.n_params**2


def build_hessian(problem: Problem, at: Evaluation) -> Array:
    """Return the Hessian of F in the solver's coordinates, in a new array.

    Softmax does not see a number added to all logits, so the intercepts' common direction is flat
    (and without a penalty that of each feature): there the Hessian gets the curvature 1 of an
    objective with the same minimum.
    """
    rows, coordinates = problem.rows, problem.coordinates
    k, d = at.weights.shape
    m = d + coordinates.fit_intercept
    total = rows.sum(
        hessian,
        at.weights.astype(np.float64, copy=False),
        at.bias,
        coordinates.center,
        with_bias=coordinates.fit_intercept,
    )
    total /= rows.n_rows
    blocks = total.reshape(k, m, k, m)
    blocks[:, :d] *= coordinates.scale[:, np.newaxis, np.newaxis]
    blocks[:, :, :, :d] *= coordinates.scale
    if k > 1:
        for j in range(0 if problem.l2 <= 0.0 else d, m):
            blocks[:, j, :, j] += 1.0 / k
    features = np.arange(d)
    for i in range(k):
        blocks[i, features, i, features] += problem.l2
    # from coefficients of a logit together to all weights, then all intercepts
    order = np.arange(k * m).reshape(k, m)
    by_weights = np.concatenate([order[:, :d].ravel(), order[:, d:].ravel()])
    return np.asarray(total[np.ix_(by_weights, by_weights)])


def _means(sums: Array, totals: Array, scale: Array, weight: float) -> tuple[Array, Array]:
    """Return the mean scaled features of each class, in place of the sums, and its curvature.

    The curvature has a lower bound: where all rows are decided about a class, its own would be
    almost 0 and the steps along its coefficients almost unbounded.
    """
    means = np.multiply(sums, scale, out=sums)
    means /= np.where(totals > 0.0, totals, np.inf)[:, np.newaxis]
    least = max(_LEAST_SHARE * float(totals.mean()), _LEAST_CURVATURE * weight)
    return means, np.maximum(totals, least)


def _sampled_rows(n_features: int) -> int:
    return max(_LEAST_DRAWN, _DRAWN_PER_FEATURE * n_features)


def _row_step(rows: Rows) -> int:
    return max(1, rows.n_rows // max(_LEAST_ROWS, _ROWS_PER_FEATURE * rows.n_features))
