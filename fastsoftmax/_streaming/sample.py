"""Rows drawn from batches in one pass, evenly and without knowing how many there are.

A row is drawn if a hash of its number lies below a limit. The limit is halved whenever more rows
are held than there is room for. So the rows do not depend on how they are cut into batches, no
period of their order can spoil the sample, and where there is room, all rows are drawn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array

# Most rows, and most bytes of their features. (A class's block of the Hessian is estimated from up
# to 64 rows for each feature, the curvature of intercepts from 64 for each class.)
_MOST_ROWS, _MOST_BYTES = 1 << 17, 1 << 25
_FEWEST_ROWS = 64
_EVERY = np.uint64(2**64 - 1)


class RowSample:
    """Rows that were drawn: features as they are stored, and arrays beside them."""

    def __init__(self) -> None:
        self._parts: list[tuple[Array, tuple[Any, ...]]] = []  # hashes, and X with what is beside
        self._n_seen = self._n_held = self._n_bytes = 0
        self._limit: Any = _EVERY

    def see(self, X: Any, *beside: Array) -> None:
        """Draw from the next rows; what is drawn is copied."""
        hashes = _hashes(self._n_seen, X.shape[0])
        self._n_seen += X.shape[0]
        self._keep(hashes, (X, *beside))
        while self._is_full():
            self._limit >>= np.uint64(1)
            parts, self._parts, self._n_held, self._n_bytes = self._parts, [], 0, 0
            for part in parts:
                self._keep(*part)

    def _is_full(self) -> bool:
        return bool(_are_too_many(self._n_held, self._n_bytes))

    def _keep(self, hashes: Array, arrays: tuple[Any, ...]) -> None:
        drawn = np.flatnonzero(hashes <= self._limit)
        if len(drawn):
            kept = tuple(array[drawn] for array in arrays)
            self._parts.append((hashes[drawn], kept))
            self._n_held += len(drawn)
            self._n_bytes += _size(kept[0])

    def drawn(self) -> list[Any]:
        """Return X and what was beside it, of all rows that were drawn, in their order."""
        return joined([arrays for _, arrays in self._parts])


# ---- the same rows, drawn where they are ----


def halvings(first_row: int, X: Any) -> Array:
    """Return how many rows of X a limit draws that was halved 0, 1, ..., 63 times, and their bytes.

    first_row is the number of the first one among all rows. The result is (64, 2), integers.
    """
    hashes, sizes = _hashes(first_row, X.shape[0]), _row_sizes(X)
    counts = np.zeros((64, 2), dtype=np.int64)
    for k in range(64):
        drawn = hashes <= _EVERY >> np.uint64(k)
        hashes, sizes = hashes[drawn], sizes[drawn]
        counts[k] = len(hashes), sizes.sum()
    return counts


def limit_of(counts: Array) -> Any:
    """Return the limit that a `RowSample` of all rows ends with, by the sum of their `halvings`."""
    return _EVERY >> np.uint64(np.argmin(_are_too_many(counts[:, 0], counts[:, 1])))


def drawn_from(first_row: int, limit: Any, X: Any, *beside: Array) -> list[Any]:
    """Return those rows that a limit draws, of X and what is beside it."""
    drawn = np.flatnonzero(_hashes(first_row, X.shape[0]) <= limit)
    return [array[drawn] for array in (X, *beside)]


def joined(drawn: Sequence[Sequence[Any]]) -> list[Any]:
    """Return X and what is beside it, of rows that were drawn in several places, in order."""
    return [
        sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else _joined(parts)
        for parts in zip(*drawn, strict=True)
    ]


def _are_too_many(n_rows: Any, n_bytes: Any) -> Any:
    return ((n_bytes > _MOST_BYTES) & (n_rows > _FEWEST_ROWS)) | (n_rows > _MOST_ROWS)


def _row_sizes(X: Any) -> Array:
    if sparse.issparse(X):
        sizes: Array = np.diff(X.indptr).astype(np.int64)
        return np.asarray(sizes * (X.data.itemsize + X.indices.itemsize))
    return np.full(len(X), X.itemsize * X.shape[1], dtype=np.int64)


def _size(X: Any) -> int:
    return int(X.data.nbytes + X.indices.nbytes if sparse.issparse(X) else X.nbytes)


def _joined(parts: tuple[Array, ...]) -> Array:
    types = {part.dtype for part in parts}
    if len(types) == 1 or any(dtype.kind in "OUS" for dtype in types):
        return np.concatenate(parts)
    single = all(dtype.kind in "biuf" and dtype.itemsize <= 4 for dtype in types)
    return np.concatenate(parts, dtype=np.float32 if single else np.float64)


def _hashes(first: int, n: int) -> Array:
    """Mix the bits of the numbers from first on (splitmix64: Steele, Lea & Flood 2014, OOPSLA)."""
    z = np.arange(first + 1, first + n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
