"""Sums of second order over the rows of a shard: second moments, and what Hessians are made of.

In every function z is x - center, with a 1 behind it for the intercept where with_bias; s is the
row weight, p_k are the probabilities at the model o = W x + b, and h_k = s p_k (1 - p_k).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array, slices
from fastsoftmax.blas import product
from fastsoftmax.kernel_arguments import Scaling
from fastsoftmax.shards.shard import BLOCK_ROWS, Shard
from fastsoftmax.threads import in_threads

# A block has fewer rows where its features and classes would be more numbers than this.
_BLOCK_NUMBERS, _FEWEST_ROWS = 1 << 19, 256
# Squares of features with an exponent (base 2) up to this size are far from overflow.
_MODERATE = 24
# Products of sparse rows are taken as they are where so small a share of the numbers is stored, and
# for so many rows at a time.
_SPARSE, _SPARSE_ROWS = 0.1, 1 << 16
# Rows are drawn from at most this many times as many.
POOL = 16
# Multiply-adds that a number costs which is gathered, centred and scaled.
GATHERED = 32.0


def correlations(shard: Shard, center: Array, scale: Array, step: int) -> Array:
    """Sum of s g g^T over every step-th row, (d, d), g = scale * (x - center), in float64."""
    if not shard.is_dense and shard.numbers_per_row < _SPARSE * shard.n_features:
        return _sparse_correlations(shard, center, scale, step)
    total = np.zeros((shard.n_features, shard.n_features))

    def block(rows: slice) -> Array:
        g = shard.dense(rows)
        g -= center
        g *= scale
        g *= np.sqrt(shard.row_weights[rows, np.newaxis], dtype=np.float64)
        return _square(g)

    work = shard.n_rows / step * shard.n_features**2
    for part in in_threads(block, shard.blocks(step), shard.n_threads, work):
        total += part
    return total


def _sparse_correlations(shard: Shard, center: Array, scale: Array, step: int) -> Array:
    """As `correlations`, from products of what is stored: they are centred afterwards."""
    d = shard.n_features
    total, sums, weight = np.zeros((d, d)), np.zeros(d), 0.0
    for rows in shard.blocks(step, _SPARSE_ROWS):
        row_weights = shard.row_weights[rows].astype(np.float64)
        x = sparse.csr_array(shard.X[rows].astype(np.float64) @ sparse.diags_array(scale))
        weighted = sparse.diags_array(row_weights) @ x
        total += (x.T @ weighted).toarray()
        sums += weighted.sum(axis=0)
        weight += float(row_weights.sum())
    means = center * scale
    total -= np.outer(means, sums) + np.outer(sums, means) - weight * np.outer(means, means)
    return total


class Drawn(NamedTuple):
    """Rows that were drawn for each logit."""

    # Of logit k (m_k, d), and a 1 behind the features where with_bias: each row is z times the root
    # of the curvature that it stands for, in the number type of the sums.
    rows: list[Array]
    curvature: Array  # (n_logits,) sum of h_k over the rows that were drawn from
    weight: float  # sum of s over them


def drawn_rows(
    shard: Shard, weights: Array, bias: Array, center: Array, n_drawn: int, *, with_bias: int
) -> Drawn:
    """Draw rows for each logit in proportion to h_k, evenly along the rows.

    All of them where there are no more than n_drawn. Most rows are decided about most classes, so
    as many rows drawn without regard to h_k would be a far poorer estimate.
    """
    n_logits, d = weights.shape
    every = pool(shard, n_drawn)
    h = curvatures(shard, shard.raw(every), every, weights, bias)
    found: list[Array] = [np.empty((0, 0))] * n_logits

    def draw(k: int) -> Array:
        rows, shares = drawn(h[:, k], n_drawn)
        z = np.empty((len(rows), d + with_bias), dtype=shard.real)
        for part in slices(len(rows), BLOCK_ROWS):
            shard.write_centered(rows[part] * every.step, center, z[part, :d])
        z[:, d:] = 1.0
        z *= np.sqrt(shares)[:, np.newaxis]
        found[k] = z
        return z

    work = float(n_logits) * min(n_drawn, shard.n_rows) * d * GATHERED
    for _ in in_threads(draw, range(n_logits), shard.n_threads, work):
        pass
    weight = float(shard.row_weights[every].sum(dtype=np.float64))
    return Drawn(found, h.sum(axis=0, dtype=np.float64), weight)


def curvature_along(
    shard: Shard, model: tuple[Array, Array], change: tuple[Array, Array], step: int
) -> tuple[float, float]:
    """Sum over every step-th row of s times the variance of the logits of a change of the model.

    The variance is by the model's probabilities. Returns the sum, and that of s.
    """
    every = slice(0, shard.n_rows, step)
    x = shard.raw(every)
    probs = softmax(shard, x, *(np.ascontiguousarray(part, dtype=shard.real) for part in model))
    logits = np.empty((len(probs), len(change[1])), dtype=shard.real)
    weights, bias = (np.ascontiguousarray(part, dtype=shard.real) for part in change)
    shard.backend.affine_rows(logits, x, weights, bias, n_threads=shard.n_threads)
    of_classes = probs[:, -logits.shape[1] :].astype(np.float64)
    means = np.einsum("ik,ik->i", of_classes, logits)
    squares = np.einsum("ik,ik,ik->i", of_classes, logits, logits, dtype=np.float64)
    row_weights = shard.row_weights[every].astype(np.float64)
    return float(row_weights @ np.maximum(squares - means**2, 0.0)), float(row_weights.sum())


def diagonals(
    shard: Shard, weights: Array, bias: Array, center: Array, step: int
) -> tuple[Array, Array, Array, float]:
    """Sum of h_k z^2, h_k z, h_k and s, as `Shard.hessian_diagonals` returns them."""
    return shard.hessian_diagonals(weights, bias, center, step)


def shared_curvature(
    shard: Shard, weights: Array, bias: Array, center: Array, step: int
) -> tuple[Array, Array, Array, float]:
    """Sum over every step-th row of sum_k h_k z z^T, h_k z, h_k and s.

    Of shapes (d, d), (n_logits, d) and (n_logits,), and a number.
    """
    n_logits, d = weights.shape
    unit = _units(shard, center)
    moments, sums = np.zeros((d, d)), np.zeros((n_logits, d))
    totals, weight = np.zeros(n_logits), 0.0

    def factors() -> Iterator[tuple[Array, Array]]:
        nonlocal totals, weight
        for z, h, row_weights in curvature_blocks(shard, weights, bias, center, step):
            totals += h.sum(axis=0, dtype=np.float64)
            weight += float(row_weights.sum(dtype=np.float64))
            z /= unit
            rows = z.astype(shard.real, copy=False)
            yield h.T, rows
            rows = rows * np.sqrt(h.sum(axis=1))[:, np.newaxis]
            yield rows.T, rows  # a BLAS sees that this is symmetric

    def multiply(pair: tuple[Array, Array]) -> Array:
        result: Array = product(*pair)
        return result

    work = float(shard.n_rows) / step * d * (d + n_logits)
    for i, part in enumerate(in_threads(multiply, factors(), shard.n_threads, work)):
        total = moments if i % 2 else sums
        total += part
    sums *= unit
    return _scaled(moments, unit), sums, totals, weight


def class_curvature(shard: Shard, weights: Array, bias: Array, step: int) -> tuple[Array, float]:
    """Sum of s (diag(p) - p p^T) over every step-th row, (n_logits, n_logits), and that of s."""
    n_logits, weight = len(bias), 0.0
    total, sums = np.zeros((n_logits, n_logits)), np.zeros(n_logits)
    weights = np.ascontiguousarray(weights, dtype=shard.real)
    bias = np.ascontiguousarray(bias, dtype=shard.real)
    n_rows = min(BLOCK_ROWS, max(_FEWEST_ROWS, _BLOCK_NUMBERS // (n_logits + 1)))
    for rows in shard.blocks(step, n_rows):
        probs = softmax(shard, shard.raw(rows), weights, bias)[:, -n_logits:]
        row_weights = shard.row_weights[rows]
        sums += product(row_weights, probs)
        weight += float(row_weights.sum(dtype=np.float64))
        probs = probs * np.sqrt(row_weights)[:, np.newaxis]
        total -= _square(probs)
    total[np.diag_indices(n_logits)] += sums
    return total, weight


def hessian(
    shard: Shard, weights: Array, bias: Array, center: Array, step: int = 1, *, with_bias: bool
) -> Array:
    """Sum of s (diag(p) - p p^T) (x) z z^T over every step-th row, float64.

    It is (n_logits m, n_logits m); z has m numbers, and the coefficients of a logit lie together.
    The products are computed in the number type of the weights, if that holds the numbers of X.
    """
    size = len(bias) * (shard.n_features + with_bias)
    total = np.zeros((size, size))
    number = weights.dtype if shard.is_dense else np.dtype(np.float64)
    model = [np.ascontiguousarray(part, dtype=number) for part in (weights, bias)]
    scaling = Scaling(center, None, with_bias)
    row_weights = shard.row_weights.astype(number, copy=False)
    every = slice(0, shard.n_rows, step)

    def add(out: Array, X: Array, row_weights: Array) -> Array:
        shard.backend.hessian_sums(out, X, row_weights, *model, scaling, n_threads=shard.n_threads)
        return out

    if shard.is_dense:
        X = shard.X[every]
        if number == np.float32 and X.dtype == np.float64:
            X = X.astype(number)
        return add(total, X, np.ascontiguousarray(row_weights[every]))
    part = np.empty_like(total)
    for rows in shard.blocks(step):
        total += add(part, shard.dense(rows), np.ascontiguousarray(row_weights[rows]))
    return total


def curvature_blocks(
    shard: Shard, weights: Array, bias: Array, center: Array, step: int
) -> Iterator[tuple[Array, Array, Array]]:
    """Yield blocks of every step-th row: z (float64), h (n, n_logits) and row weights."""
    numbers = weights.shape[0] + weights.shape[1]
    n_rows = min(BLOCK_ROWS, max(_FEWEST_ROWS, _BLOCK_NUMBERS // numbers))
    for rows in shard.blocks(step, n_rows):
        x = shard.dense(rows)
        x -= center
        h = curvatures(shard, shard.raw(rows), rows, weights, bias)
        yield x, h, shard.row_weights[rows]


def curvatures(shard: Shard, x: Any, rows: slice, weights: Array, bias: Array) -> Array:
    """Return h of a slice of rows, x in the backend's terms: (n, n_logits)."""
    weights = np.ascontiguousarray(weights, dtype=shard.real)
    bias = np.ascontiguousarray(bias, dtype=shard.real)
    probs = softmax(shard, x, weights, bias)
    # 1 - p of the likeliest class would be 0 in float32 where a row is decided: the sum of the
    # other classes' probabilities keeps its digits.
    each = np.arange(len(probs)), probs.argmax(axis=1)
    most = probs[each]
    probs[each] = 0.0
    rest = probs.sum(axis=1)
    h = probs * (1.0 - probs)
    h[each] = most * rest
    h *= shard.row_weights[rows, np.newaxis]
    own: Array = h[:, -len(bias) :]
    return own


def softmax(shard: Shard, x: Any, weights: Array, bias: Array) -> Array:
    """Return the probabilities of all classes, of the type of the weights."""
    probs = np.empty((x.shape[0], len(bias)), dtype=weights.dtype)
    shard.backend.affine_rows(probs, x, weights, bias, n_threads=shard.n_threads)
    if len(bias) == 1:  # the logit of the first of two classes is 0
        probs = np.hstack([np.zeros_like(probs), probs])
    shard.backend.softmax_rows(probs, probs, n_threads=shard.n_threads)
    return probs


def pool(shard: Shard, n_sampled: int) -> slice:
    """Return the rows that n_sampled are drawn from: at most `POOL` times as many, evenly."""
    return slice(0, shard.n_rows, max(1, shard.n_rows // (POOL * n_sampled)))


def drawn(h: Array, n_sampled: int) -> tuple[Array, Array]:
    """Return row numbers, ascending, and the curvature that each stands for."""
    if len(h) <= n_sampled:
        return np.arange(len(h)), h
    upto = np.cumsum(h, dtype=np.float64)
    marks = (np.arange(n_sampled) + 0.5) * (upto[-1] / n_sampled)
    numbers = np.minimum(np.searchsorted(upto, marks), len(h) - 1)
    rows, counts = np.unique(numbers, return_counts=True)
    return rows, (counts * (upto[-1] / n_sampled)).astype(h.dtype)


def _units(shard: Shard, center: Array) -> Array:
    """Powers of 2 of the size of each centred feature, so that no product overflows.

    They are 1 for features whose squares are far from that.
    """
    largest = np.abs(shard.dense(slice(0, min(shard.n_rows, BLOCK_ROWS))) - center)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(largest.max(axis=0, initial=0.0)))
    extreme = np.isfinite(exponent) & (np.abs(exponent) > _MODERATE)
    return np.where(extreme, np.exp2(exponent), 1.0)


def _scaled(products: Array, unit: Array) -> Array:
    """Multiply rows and columns of a matrix by the units, in place."""
    products *= unit
    products *= unit[:, np.newaxis]
    return products


def _square(products: Array) -> Array:
    square: Array = product(products.T, products)  # a BLAS sees that this is symmetric
    return square
