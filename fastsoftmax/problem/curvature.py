"""Hessians, and the preconditioners that are made of them.

The first preconditioner is of the Hessian at the model without weights, where all classes have the
same block but for a number: from some rows, for less than the cost of a pass, or for many features
of sparse rows its diagonal. Where features are hardly correlated nothing else is needed.

The refined ones are of the Hessian at a point, and come when the progress so far predicts more
passes than they cost (`solvers.lbfgs`):

    few coefficients       the whole Hessian, from some of the rows or all (`build_whole`)
    dense rows             each class's block, from rows drawn for it (`problem.sampled_blocks`)
    too many numbers       one matrix that all classes have a share of (`build_shared`)
    sparse, many features  the diagonal of each class's block (`build_diagonals`)

In the last two, what the mean features of a class add is exact and the remainder is approximated
(`preconditioner.WithinPreconditioner`).
"""

from typing import Any

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner, product
from fastsoftmax.linalg import factored
from fastsoftmax.problem.curved_span import RowSpan, spread_of
from fastsoftmax.problem.evaluation import Located
from fastsoftmax.problem.preconditioner import (
    DiagonalInverse,
    DiagonalPreconditioner,
    InSpan,
    SharedInverse,
    WholeInverse,
    WithinPreconditioner,
)
from fastsoftmax.problem.problem import Problem
from fastsoftmax.problem.sampled_blocks import (
    build_sampled_blocks,
    build_shared_block,
    shared_rows,
)
from fastsoftmax.problem.sampled_blocks import plan as plan_blocks
from fastsoftmax.shards import protocol
from fastsoftmax.shards.curvature import curvature_along as curvature_of_rows
from fastsoftmax.shards.curvature import diagonals, hessian, shared_curvature
from fastsoftmax.shards.rows import Rows
from fastsoftmax.solvers.protocols import Preconditioner, Refinement

# The matrices are dense up to this many features, 8 d^2 bytes (32 MB).
_DENSE_FEATURES = 2048
# Coefficients up to which the first preconditioner is more than a diagonal: their vectors stay
# in caches.
_MOST_SHARED = 1 << 20
# Coefficients up to which the Hessian is taken whole, and its rows: at least this many, and so many
# for each coefficient.
WHOLE_PARAMS = 512
_LEAST_WHOLE, _ROWS_PER_PARAM, _MOST_ROWS_PER_PARAM = 1024, 4, 16
# Multiply-adds of a Hessian of all rows, where there is no penalty: some tenths of a second.
_MOST_UNPENALISED = 1e10
# The share of its diagonal that is added to a Hessian of some rows.
_ADDED = 0.05
# Passes that the diagonal of a Hessian takes, of rows in CSR form, by scipy.
_DIAGONAL_COST = 6.0
# Rows that estimate a matrix of all classes: at least this many, and 16 for each feature.
_LEAST_ROWS = 4096
_ROWS_PER_FEATURE = 16
# See `caution`.
_MOST_CAUTION = 4.0
# Rows that tell how long a first step should be.
_ROWS_ALONG = 1024
# The least curvature of a class, as a share of the mean of all, and of the weight of all rows.
_LEAST_SHARE, _LEAST_CURVATURE = 1e-3, 1e-10
# Multiply-adds that a pass costs besides those of its products: for each probability, and by what
# Python adds to an iteration.
_PER_PROBABILITY, _PER_ITERATION = 20.0, 1e7
# Classes whose means are copied at a time.
_CLASSES_AT_A_TIME = 256
# Mean squares, in variances, from which on features are far from 0; and up to which float32 holds
# their products, as it does from the reciprocal on.
_FAR, _RANGE = 100.0, 1e12
_TINY = float(np.finfo(float).tiny)


def build_first(problem: Problem, span: RowSpan | None = None) -> Preconditioner:
    """Invert an estimate of the Hessian at the model without weights, the mean over the classes."""
    rows = problem.rows
    small = problem.n_params <= _MOST_SHARED
    if small and (rows.is_dense or problem.n_features <= _DENSE_FEATURES):
        blocks = build_shared_block(problem, shared_rows(problem, pass_work(problem)))
        return blocks if span is None else InSpan(blocks, span, problem.n_weights)
    curvature = null_curvature(problem)
    squares = curvature * problem.mean_squares
    floor = max(problem.l2, 1e-10 * float(squares.max(initial=0.0)), _TINY)
    inverse = 1.0 / (squares + floor)
    _leave_constants(problem, inverse)
    bias_scale = 1.0 / curvature if problem.fit_intercept else 0.0
    diagonal = DiagonalPreconditioner(
        inverse, bias_scale, rows.n_logits, rows.backend, rows.n_threads
    )
    return diagonal if span is None else InSpan(diagonal, span, problem.n_weights)


def caution(problem: Problem) -> float:
    """By how much curvature may grow along the first steps, as a share of what they are made for.

    Where there are many classes p (1 - p) is small at first, and later up to 1/4. With first steps
    of 1, 1/2, 1/4 and 1/8 of their length the first fits to embeddings 10000 x 256, K = 100, take
    37, 32, 22 and 25 passes, real embeddings 10003 x 384, K = 77, C = 10, 37, 41, 38 and 36.
    """
    return min(_MOST_CAUTION, max(1.0, 0.25 / null_curvature(problem)))


def null_curvature(problem: Problem) -> float:
    """Mean of p (1 - p) over the classes, at the model without weights."""
    share = problem.class_share
    return max(float(np.mean(share * (1.0 - share))), _LEAST_SHARE)


def pass_work(problem: Problem) -> float:
    """Multiply-adds that a pass costs as much as, in float32, with what Python adds."""
    rows = problem.rows
    products = 2.0 * rows.stored_numbers * rows.n_logits
    others = _PER_PROBABILITY * problem.n_rows * problem.n_classes
    return rows.real.itemsize / 4.0 * (products + others) + _PER_ITERATION


def is_whole(problem: Problem) -> bool:
    """Whether a better preconditioner is the inverse of the whole Hessian."""
    return problem.n_params <= WHOLE_PARAMS


def refinement(problem: Problem, span: RowSpan | None, most_passes: float) -> Refinement[Located]:
    """Return the best preconditioner for about so many passes, or the cheapest.

    In a span, where F curves only there.
    """
    one_pass = pass_work(problem)
    if is_whole(problem):
        step, work = whole_plan(problem, most_passes * one_pass)
        return Refinement(
            work / one_pass, lambda at: build_whole(problem, at, step, span), most_passes
        )
    if problem.rows.is_dense or problem.n_features <= _DENSE_FEATURES:
        plan = plan_blocks(problem, most_passes * one_pass)
        if plan is not None:

            def build(at: Located) -> Preconditioner:
                blocks = build_sampled_blocks(problem, at, plan.n_drawn)
                return blocks if span is None else InSpan(blocks, span, problem.n_weights)

            return Refinement(plan.work / one_pass, build, most_passes)
    if problem.n_features <= _DENSE_FEATURES:
        some = problem.rows.sample
        d, n_rows = float(problem.n_features), some.n_rows / _row_step(some)
        work = d * d * (n_rows + 20.0 * d) + n_rows * problem.n_logits * 3.0 * d
        return Refinement(work / one_pass, lambda at: build_shared(problem, at, span), most_passes)
    return Refinement(_DIAGONAL_COST, lambda at: build_diagonals(problem, at), most_passes)


def whole_plan(problem: Problem, most_work: float) -> tuple[int, float]:
    """Return the step between the rows of a Hessian, and its multiply-adds."""
    n_params = problem.n_params
    least = max(_LEAST_WHOLE, _ROWS_PER_PARAM * n_params)
    most = max(_LEAST_WHOLE, _MOST_ROWS_PER_PARAM * n_params)
    fixed, each = _whole_costs(problem)
    wanted = min(max(float(least), (most_work - fixed) / each), float(most))
    step = max(1, int(problem.n_rows / wanted))
    if problem.l2 <= 0.0 and whole_work(problem, 1) <= _MOST_UNPENALISED:
        step = 1  # the fit ends where this says that nothing is gained
    return step, whole_work(problem, step)


def whole_work(problem: Problem, step: int) -> float:
    """Return the multiply-adds of the inverse Hessian of every step-th row."""
    fixed, each = _whole_costs(problem)
    return fixed + problem.n_rows / step * each


def _whole_costs(problem: Problem) -> tuple[float, float]:
    """Return multiply-adds of the inverse, and of a row's share of the Hessian (in float64)."""
    n = float(problem.n_params)
    return 2.0 * _PER_ITERATION + 2.0 * n**3, n * n + 40.0 * problem.n_features


def build_whole(
    problem: Problem, at: Located, step: int = 1, span: RowSpan | None = None
) -> Preconditioner:
    """Invert the Hessian of every step-th row; in a span, where F curves only there.

    Along what all classes have in common, and outside the span, it gets any curvature: no steps go
    there.
    """
    number = np.float64 if step == 1 else _number_for(problem)  # (of some rows it is rough)
    matrix = build_hessian(problem, at, step, number)
    k, d = problem.n_logits, problem.n_features
    added = np.zeros(len(matrix))
    if step > 1:  # a feature that occurs in few rows may occur in none of these
        added[: k * d] = np.tile(null_curvature(problem) * problem.mean_squares, k)
        added = _ADDED * np.maximum(np.diagonal(matrix), added)
    numbers = np.arange(k * d).reshape(k, d)
    diagonal = np.diagonal(matrix)[numbers].mean(axis=0)
    if k > 1:
        matrix[numbers[:, np.newaxis], numbers[np.newaxis]] += diagonal
    if span is not None:
        outside = np.eye(d) - product(span.axes, span.axes.T)
        outside *= float(diagonal.mean())
        for own in numbers:
            matrix[own[:, np.newaxis], own] += outside
    whole = WholeInverse(factored(matrix, added))
    return whole if span is None else InSpan(whole, span, problem.n_weights)


def _number_for(problem: Problem) -> type[np.floating[Any]]:
    """Return the number type that the rows of a Hessian need, where rounding costs steps alone."""
    squares = problem.mean_squares
    held = (squares == 0.0) | ((squares > 1.0 / _RANGE) & (squares < _RANGE))
    is_far = squares > _FAR * problem.variances
    return np.float32 if held.all() and not is_far.any() else np.float64


def _leave_constants(problem: Problem, inverse: Array) -> None:
    """Take no steps along features that do not vary: without a penalty they follow rounding."""
    if problem.l2 <= 0.0:
        _, sizes = spread_of(problem.rows, problem.coordinates)
        inverse[..., sizes == 0.0] = 0.0


def build_diagonals(problem: Problem, at: Located) -> Preconditioner:
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


def build_shared(problem: Problem, at: Located, span: RowSpan | None = None) -> Preconditioner:
    """Approximate the Hessian's block of each class by its share of a matrix, its means apart."""
    rows, coordinates = problem.rows, problem.coordinates
    step = _row_step(rows.sample)
    moments, sums, totals, weight = rows.sample.sum(
        shared_curvature, at.weights, at.bias, coordinates.center, step
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
    rows = problem.rows
    squares, share = problem.mean_squares, problem.class_share
    curvature = (share * (1.0 - share))[-rows.n_logits :]
    curvature = np.maximum(curvature, _LEAST_SHARE * max(float(curvature.mean()), _LEAST_CURVATURE))
    weights = np.outer(curvature, squares) + problem.l2
    return np.concatenate([weights.ravel(), curvature[: problem.n_params - weights.size]])


def diagonal_at(problem: Problem, at: Located, bound: Array) -> Array:
    """Diagonal of the Hessian at a point, as `diagonal_bound` returns it; at least a share of that.

    From a sample of the rows, if they are dense.
    """
    rows, coordinates = problem.rows, problem.coordinates
    some = rows if rows.is_sparse else rows.sample
    squares, _, totals, weight = some.sum(
        diagonals, at.weights, at.bias, coordinates.center, _row_step(some)
    )
    squares *= coordinates.scale**2 / max(weight, _TINY)
    squares += problem.l2
    totals /= max(weight, _TINY)
    diagonal = np.concatenate([squares.ravel(), totals])[: problem.n_params]
    return np.asarray(np.maximum(diagonal, _LEAST_SHARE * bound, out=diagonal))


def curvature_along(problem: Problem, at: Located, direction: Array) -> float:
    """Estimate <direction, Hessian direction> from some of the rows."""
    rows, coordinates = problem.rows.sample, problem.coordinates
    step = max(1, rows.n_rows // _ROWS_ALONG)
    change = coordinates.coefficients_of(direction)
    total, weight = rows.sum(curvature_of_rows, (at.weights, at.bias), change, step)
    V = direction[: problem.n_weights]
    return total / max(weight, _TINY) + problem.l2 * inner(V, V)


def hessian_cost(problem: Problem) -> float:
    """Multiply-adds of a Hessian, and of its inverse."""
    return float(problem.n_rows + problem.n_params) * problem.n_params**2


def hessian_of_rows(
    problem: Problem, at: Located, step: int = 1, number: type[np.floating[Any]] = np.float64
) -> Array:
    """Return the share that every step-th row has of the Hessian of the mean loss, in a new array.

    In the solver's coordinates; the rows are divided by the number of all. The products of a row
    are computed in a number type.
    """
    rows, coordinates = problem.rows, problem.coordinates
    k, d = at.weights.shape
    m = d + coordinates.fit_intercept
    some, step = rows.every(step)
    total = some.sum(
        hessian,
        at.weights.astype(number, copy=False),
        at.bias,
        coordinates.center,
        step,
        with_bias=coordinates.fit_intercept,
    )
    total /= rows.n_rows
    blocks = total.reshape(k, m, k, m)
    blocks[:, :d] *= coordinates.scale[:, np.newaxis, np.newaxis]
    blocks[:, :, :, :d] *= coordinates.scale
    # from coefficients of a logit together to all weights, then all intercepts
    order = np.arange(k * m).reshape(k, m)
    by_weights = np.concatenate([order[:, :d].ravel(), order[:, d:].ravel()])
    return np.asarray(total[np.ix_(by_weights, by_weights)])


def build_hessian(
    problem: Problem, at: Located, step: int = 1, number: type[np.floating[Any]] = np.float64
) -> Array:
    """Return the Hessian of F in the solver's coordinates, from every step-th row, in a new array.

    Softmax does not see a number added to all logits, so the intercepts' common direction is flat
    (and without a penalty that of each feature): there the Hessian gets the curvature 1 of an
    objective with the same minimum.
    """
    hessian, rows = hessian_of_rows(problem, at, step, number), problem.rows
    if step > 1:
        some, own_step = rows.every(step)
        weight = some.sum(protocol.total_weight, own_step)
        hessian *= rows.n_rows / max(weight, _TINY)
    k, n_weights = problem.n_logits, problem.n_weights
    if k > 1:
        flat = np.arange(0 if problem.l2 <= 0.0 else n_weights, problem.n_params)
        for part in (flat[flat < n_weights], flat[flat >= n_weights]):
            numbers = part.reshape(k, -1)
            hessian[numbers[:, np.newaxis], numbers[np.newaxis]] += 1.0 / k
    hessian[np.arange(n_weights), np.arange(n_weights)] += problem.l2
    return hessian


def _means(sums: Array, totals: Array, scale: Array, weight: float) -> tuple[Array, Array]:
    """Return the mean scaled features of each class, in place of the sums, and its curvature.

    The curvature has a lower bound: where all rows are decided about a class, its own would be
    almost 0 and the steps along its coefficients almost unbounded.
    """
    means = np.multiply(sums, scale, out=sums)
    means /= np.where(totals > 0.0, totals, np.inf)[:, np.newaxis]
    least = max(_LEAST_SHARE * float(totals.mean()), _LEAST_CURVATURE * weight)
    return means, np.maximum(totals, least)


def _row_step(rows: Rows) -> int:
    return max(1, rows.n_rows // max(_LEAST_ROWS, _ROWS_PER_FEATURE * rows.n_features))
