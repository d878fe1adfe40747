"""Sums over rows that the Hessian's blocks of some coefficients are made of, class by class.

`features` holds, for each logit, the numbers of the features whose coefficients a block is for. h_k
is as in `curvature`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array, slices
from fastsoftmax.blas import product
from fastsoftmax.columns import some_columns
from fastsoftmax.shards.curvature import curvatures, drawn, pool
from fastsoftmax.shards.shard import Shard
from fastsoftmax.threads import in_threads

# Curvatures that are held at a time.
_PANEL_NUMBERS = 1 << 22


def sampled_block_sums(
    shard: Shard,
    weights: Array,
    bias: Array,
    scaling: tuple[Array, Array],
    features: list[Array],
    n_sampled: int,
    *,
    with_bias: bool,
) -> tuple[list[Array], float]:
    """Sum of h_k z z^T over rows drawn as in `curvature.hessian_blocks`, and sum of s.

    z holds a class's features, shifted and scaled by scaling = (center, scale), and a 1 behind them
    where with_bias. The rows are dense.
    """
    center, scale = scaling
    every = pool(shard, n_sampled)
    h = curvatures(shard, shard.raw(every), every, weights, bias)

    def block(k: int) -> Array:
        rows, shares = drawn(h[:, k], n_sampled)
        own = features[k]
        z = np.ones((len(rows), len(own) + with_bias))
        z[:, : len(own)] = shard.X[(rows * every.step)[:, np.newaxis], own]
        z[:, : len(own)] -= center[own]
        z[:, : len(own)] *= scale[own]
        z *= np.sqrt(shares.astype(np.float64))[:, np.newaxis]
        return np.asarray(product(z.T, z))

    work = float(n_sampled) * sum(len(own) ** 2 for own in features)
    blocks = list(in_threads(block, range(len(features)), shard.n_threads, work))
    return blocks, float(shard.row_weights[every].sum(dtype=np.float64))


def curvature_sums(shard: Shard, weights: Array, bias: Array) -> Array:
    """Sum of h_k over the rows: (n_logits,)."""
    total = np.zeros(len(bias))
    for rows in _panels(shard, len(bias)):
        h = curvatures(shard, shard.raw(rows), rows, weights, bias)
        total += h.sum(axis=0, dtype=np.float64)
    return total


def curved_block_sums(
    shard: Shard, weights: Array, bias: Array, features: list[Array], least: Array, most_work: float
) -> list[Array] | None:
    """Sum of h_k x x^T over the rows with h_k >= s least_k; x has a 1 behind its features.

    The rows are sparse. None where a class's sum takes more than most_work multiply-adds.
    """
    n_logits = len(bias)
    totals = [np.zeros((len(own) + 1, len(own) + 1)) for own in features]
    work = np.zeros(n_logits)
    for rows in _panels(shard, n_logits):
        X = shard.X[rows]
        h = curvatures(shard, shard.raw(rows), rows, weights, bias)
        row_weights = shard.row_weights[rows]

        def add(k: int, X: Any = X, h: Array = h, row_weights: Array = row_weights) -> Array:
            kept = np.flatnonzero(h[:, k] >= row_weights * least[k])
            x = some_columns(X[kept], features[k], np.dtype(np.float64))
            work[k] += float((np.diff(x.indptr).astype(np.float64) ** 2).sum())
            if work[k] <= most_work:
                _add_products(totals[k], x, h[kept, k].astype(np.float64))
            return np.array(work[k] <= most_work)

        if not all(list(in_threads(add, range(n_logits), shard.n_threads))):
            return None
    return totals


def _add_products(total: Array, x: sparse.csr_array, h: Array) -> None:
    """Add sum_i h_i x_i x_i^T, each x_i with a 1 behind it."""
    weighted = x.copy()
    weighted.data *= np.repeat(h, np.diff(x.indptr))
    total[:-1, :-1] += (x.T.tocsr() @ weighted).toarray()
    sums = x.T @ h
    total[:-1, -1] += sums
    total[-1, :-1] += sums
    total[-1, -1] += h.sum()


def _panels(shard: Shard, n_logits: int) -> Iterator[slice]:
    return slices(shard.n_rows, max(1024, _PANEL_NUMBERS // n_logits))
