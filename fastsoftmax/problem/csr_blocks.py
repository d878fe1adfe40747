"""The Hessian's block of each class for the coefficients that are not 0, of sparse rows.

For each class, rows of little curvature (those that are decided about the class) are left out, and
what they would add to the diagonal is added there. So the diagonal is right even of features that
occur in few rows. As it dominates what is left out, the block is positive definite.
"""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.problem.coordinates import Coordinates
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.problem.free_blocks import FreeBlocks, split_by_class
from fastsoftmax.problem.problem import Problem
from fastsoftmax.shards.block_sums import curvature_sums, curved_block_sums

# A row counts for a class from this share of the mean curvature on, both by its weight (so that
# weight 2 is the row twice); at most this share is left out. (Of text 90000 x 200000 an eighth of
# the rows is left; with 1e-2 it is a quarter, and as many steps.)
_LEAST_CURVATURE = 0.1
# Multiply-adds of the blocks at most: some seconds.
_MOST_WORK = 1 << 30
# As `free_blocks._ADDED`; the diagonal is exact, but a feature may occur twice in a row.
_ADDED = 1e-6


def build_csr_blocks(
    problem: Problem, at: Evaluation, diagonal: Array, free: Array
) -> FreeBlocks | None:
    """Take the blocks at a point; None where they are too large.

    diagonal is the Hessian's there, by the solver's vector; free as of `build_free_blocks`.
    """
    rows, coordinates = problem.rows, problem.coordinates
    n_logits, d = rows.n_logits, rows.n_features
    features = split_by_class(free, n_logits, d)
    if features is None:
        return None
    weight = max(rows.total_weight(), np.finfo(float).tiny)
    least = _LEAST_CURVATURE * rows.sum(curvature_sums, at.weights, at.bias) / weight
    sums = rows.sum(curved_block_sums, at.weights, at.bias, features, least, _MOST_WORK / n_logits)
    if sums is None:
        return None
    with_bias = int(coordinates.fit_intercept)
    blocks = []
    for k, own in enumerate(features):
        block = _centered(sums[k], own, coordinates)
        block = block[: len(own) + with_bias, : len(own) + with_bias]
        block /= weight
        places = np.append(k * d + own, np.arange(n_logits * d + k, n_logits * d + k + with_bias))
        blocks.append(_with_diagonal(block, diagonal[places], len(own), problem.l2))
    return FreeBlocks(blocks, features, d, fit_intercept=bool(with_bias), is_exact=True)


def _centered(total: Array, features: Array, coordinates: Coordinates) -> Array:
    """Return the sum of h x x^T, with a 1 behind each x, for shifted and scaled features."""
    center, scale = coordinates.center[features], np.append(coordinates.scale[features], 1.0)
    m = len(features)
    sums, weight = total[:m, m].copy(), float(total[m, m])
    total[:m, :m] -= np.outer(center, sums - weight * center)
    total[:m, :m] -= np.outer(sums, center)
    total[:m, m] -= weight * center
    total[m, :m] = total[:m, m]
    total *= scale
    total *= scale[:, np.newaxis]
    return total


def _with_diagonal(block: Array, diagonal: Array, n_weights: int, l2: float) -> Array:
    """Return a block without its l2 whose diagonal becomes this, l2 included."""
    bare = diagonal.copy()
    bare[:n_weights] -= l2
    there = block.diagonal()
    ratio = np.divide(bare, there, out=np.zeros_like(bare), where=there > 0.0)
    shrink = np.sqrt(np.clip(ratio, 0.0, 1.0))  # only rounding makes a ratio below 1
    block = block * shrink * shrink[:, np.newaxis]
    np.fill_diagonal(block, (1.0 + _ADDED) * diagonal)
    return block
