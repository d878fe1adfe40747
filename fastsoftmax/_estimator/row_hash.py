"""Hashes of the contents of rows, the same for every storage of the same values."""

from typing import Any

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array

# Numbers that are converted to float64 at a time: they stay in a CPU's cache.
_BLOCK_NUMBERS = 1 << 15


def row_hashes(X: Any, rng: np.random.RandomState) -> Array:
    """Return an integer for each row that depends on its values alone.

    Rows of equal values have equal numbers, dense or sparse, in any number type and place. Other
    rows have equal numbers by chance: for float32 and short decimals about once in 2^40 pairs. The
    order of the numbers is random, drawn from rng.

    X is an array or a CSR matrix of finite numbers. The numbers of the rows are
    sum_j m_j bits(x_j) mod 2^64 (Carter & Wegman 1979, J. Comput. Syst. Sci. 18, with odd m_j drawn
    from rng), mixed as SplitMix64 does (Steele, Lea & Flood 2014, OOPSLA).
    """
    factors = rng.randint(0, np.iinfo(np.uint64).max, size=X.shape[1], dtype=np.uint64)
    factors |= np.uint64(1)
    sums = _sparse_sums(X, factors) if sparse.issparse(X) else _dense_sums(X, factors)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        sums ^= sums >> np.uint64(shift)
        sums *= np.uint64(factor)
    sums ^= sums >> np.uint64(31)
    return sums


def _dense_sums(X: Array, factors: Array) -> Array:
    n, d = X.shape
    sums = np.zeros(n, dtype=np.uint64)
    by_columns = X.flags.f_contiguous and not X.flags.c_contiguous
    if by_columns:
        height = min(n, _BLOCK_NUMBERS)
        width = max(1, _BLOCK_NUMBERS // max(1, height))
    else:
        width = min(d, _BLOCK_NUMBERS)
        height = max(1, _BLOCK_NUMBERS // width)
    for left in range(0, d, width):
        columns = slice(left, left + width)
        for top in range(0, n, height):
            rows = slice(top, top + height)
            sums[rows] += _bits(X[rows, columns]) @ factors[columns]
    return sums


def _sparse_sums(X: Any, factors: Array) -> Array:
    n = X.shape[0]
    sums = np.zeros(n, dtype=np.uint64)
    height = max(1, int(_BLOCK_NUMBERS * n / max(1, X.nnz)))
    for top in range(0, n, height):
        rows = X[top : top + height]
        rows.sum_duplicates()  # (of a copy)
        products = _bits(rows.data) * factors[rows.indices]
        running = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(products)])
        sums[top : top + height] = running[rows.indptr[1:]] - running[rows.indptr[:-1]]
    return sums


def _bits(x: Array) -> Array:
    """Return the bits of float64 values, 0 for both zeros, the high half mixed into the low."""
    values = x.astype(np.float64)  # a copy
    values += 0.0  # -0.0 becomes 0.0
    bits = values.view(np.uint64)
    # round numbers have zeros in the low half, which a product modulo 2^64 cannot fill
    bits ^= bits >> np.uint64(32)
    return bits
