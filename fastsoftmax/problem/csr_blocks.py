"""The Hessian's block of each class for the coefficients that are not 0, of sparse rows.

Rows are left out where they hardly bend the loss (those of which a class is decided), and what they
would add to the diagonal is added there. So the diagonal is right even of features that occur in
few rows, and as it dominates what is left out, the block is positive definite.
"""

from collections.abc import Sequence

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.problem.coordinates import Coordinates
from fastsoftmax.problem.free_blocks import FreeBlocks, features_of
from fastsoftmax.shards.csr_shard import CsrShard, some_columns
from fastsoftmax.threads import in_threads

# A row counts for a class from this share of the mean curvature on, both by its weight (so that
# weight 2 is the row twice); at most this share is left out. (Of text 90000 x 200000 an eighth of
# the rows is left; with 1e-2 it is a quarter, and as many steps.)
_LEAST_CURVATURE = 0.1
# Curvatures that are held at a time.
_PANEL_NUMBERS = 1 << 22
# Multiply-adds of the blocks at most: some seconds.
_MOST_WORK = 1 << 30
# As of `free_blocks`; the diagonal is exact, but a feature may occur twice.
_RIDGE = 1e-6


class _Sums:
    """Sums over rows for one class: of h z z^T, where z are its free features, and after them 1."""

    def __init__(self, features: Array, coordinates: Coordinates) -> None:
        self.features = features
        self.center = coordinates.center[features]
        self.scale = coordinates.scale[features]
        m = len(features)
        self.total = np.zeros((m + 1, m + 1))  # of features that are neither shifted nor scaled
        self.work = 0.0

    def add(self, X: Array, h: Array, most_work: float) -> bool:
        """Add rows of curvatures h; False, and nothing added, where that were too much work."""
        x = some_columns(X, self.features, np.dtype(np.float64))
        lengths = np.diff(x.indptr)
        self.work += float((lengths.astype(np.float64) ** 2).sum())
        if self.work > most_work:
            return False
        weighted = x.copy()
        weighted.data *= np.repeat(h, lengths)
        self.total[:-1, :-1] += (x.T.tocsr() @ weighted).toarray()
        sums = x.T @ h
        self.total[:-1, -1] += sums
        self.total[-1, :-1] += sums
        self.total[-1, -1] += h.sum()
        return True

    def centered(self) -> Array:
        """Return the sum for shifted and scaled features."""
        m, total = len(self.features), self.total
        sums, weight = total[:m, m].copy(), float(total[m, m])
        total[:m, :m] -= np.outer(self.center, sums - weight * self.center)
        total[:m, :m] -= np.outer(sums, self.center)
        total[:m, m] -= weight * self.center
        total[m, :m] = total[:m, m]
        scale = np.append(self.scale, 1.0)
        total *= scale
        total *= scale[:, np.newaxis]
        return total


def build_csr_blocks(
    shards: Sequence[CsrShard],
    coordinates: Coordinates,
    diagonal: Array,
    penalty: float,
    weights: Array,
    bias: Array,
    free: Array,
) -> FreeBlocks | None:
    """Take the blocks at the model o = W x + b (for raw features); None where they are too large.

    diagonal is the Hessian's at that model, and free holds the numbers of the coefficients that the
    blocks are for, both by the solver's vector.
    """
    n_logits, d = weights.shape
    features = features_of(free, n_logits, d)
    if features is None:
        return None
    sums = [_Sums(own, coordinates) for own in features]
    weight = sum(float(shard.row_weights.sum(dtype=np.float64)) for shard in shards)
    weight = max(weight, np.finfo(float).tiny)
    mean = _sum_of_curvatures(shards, weights, bias) / weight
    for shard in shards:
        for rows in _panels(shard, n_logits):
            X = shard.X[rows]
            h = shard.curvatures(shard.raw(rows), rows, weights, bias)
            least = _LEAST_CURVATURE * shard.row_weights[rows]

            def add(k: int, X: Array = X, h: Array = h, least: Array = least) -> Array:
                kept = np.flatnonzero(h[:, k] >= least * mean[k])
                own = h[kept, k].astype(np.float64)
                return np.array(sums[k].add(X[kept], own, _MOST_WORK / n_logits))

            added = list(in_threads(add, range(n_logits), shards[0].n_threads))
            if not all(added):
                return None
    with_bias = int(coordinates.fit_intercept)
    blocks = []
    for k, own in enumerate(features):
        block = sums[k].centered()[: len(own) + with_bias, : len(own) + with_bias]
        block /= weight
        places = np.append(k * d + own, np.arange(n_logits * d + k, n_logits * d + k + with_bias))
        blocks.append(_with_diagonal(block, diagonal[places], len(own), penalty))
    return FreeBlocks(blocks, features, d, fit_intercept=bool(with_bias), is_exact=True)


def _with_diagonal(block: Array, diagonal: Array, n_weights: int, penalty: float) -> Array:
    """Return a block without its penalty whose diagonal becomes this, the penalty included."""
    bare = diagonal.copy()
    bare[:n_weights] -= penalty
    there = block.diagonal()
    ratio = np.divide(bare, there, out=np.zeros_like(bare), where=there > 0.0)
    shrink = np.sqrt(np.clip(ratio, 0.0, 1.0))  # for rounding, if anything
    block = block * shrink * shrink[:, np.newaxis]
    np.fill_diagonal(block, (1.0 + _RIDGE) * diagonal)
    return block


def _panels(shard: CsrShard, n_logits: int) -> list[slice]:
    size = max(1024, _PANEL_NUMBERS // n_logits)
    return [slice(start, min(start + size, shard.n_rows)) for start in range(0, shard.n_rows, size)]


def _sum_of_curvatures(shards: Sequence[CsrShard], weights: Array, bias: Array) -> Array:
    total = np.zeros(len(bias))
    for shard in shards:
        for rows in _panels(shard, len(bias)):
            h = shard.curvatures(shard.raw(rows), rows, weights, bias)
            total += h.sum(axis=0, dtype=np.float64)
    return total
