"""What users have on a cluster, cut into partitions: batches of rows on the workers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np
from dask.delayed import Delayed
from scipy import sparse

from fastsoftmax._dask.remote import Remote
from fastsoftmax._estimator.batch_source import Batch, with_parts

Lazy = Delayed | distributed.Future


def is_frame(value: Any) -> bool:
    """Whether a value is a dataframe or a series of Dask's (which is not imported for that)."""
    return dask.is_dask_collection(value) and hasattr(value, "divisions")


def is_lazy(value: Any) -> bool:
    """Whether a value is a dataframe or array of Dask's, or a list of delayed partitions."""
    if isinstance(value, da.Array) or is_frame(value):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_partition, value))


def _is_partition(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(part, Lazy) for part in value)
    return isinstance(value, Lazy)


def partitions(
    client: distributed.Client,
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
) -> Remote:
    """Return rows as batches on the workers, one for each partition, once all are there."""
    if not is_lazy(X):
        raise TypeError(
            "X must be a Dask array, a Dask dataframe or a list of delayed partitions "
            f"(X, y[, sample_weight]), got {type(X).__name__}; FastSoftmax is for rows in memory "
            "or in files"
        )
    if isinstance(X, da.Array) or is_frame(X):
        if y is None:
            raise TypeError("y is missing: the labels of the rows of X")
        X = one_block_wide(X) if isinstance(X, da.Array) else X
        columns: list[Sequence[Any]] = [_blocks(X)]
        for part, name in ((y, "y"), (sample_weight, "sample_weight")):
            if part is not None:
                columns.append(_beside(part, X, name))
        items: list[Any] = list(zip(*columns, strict=True))
    else:
        if y is not None or sample_weight is not None:
            raise TypeError("delayed partitions bring their labels: (X, y) or (X, y, weights)")
        items = list(X)
    made = dask.delayed(_batch, pure=False)
    remote = Remote(client, client.compute([made(i, item) for i, item in enumerate(items)]))
    remote.wait()
    return remote


def one_block_wide(X: da.Array) -> da.Array:
    """Return an array of rows, all columns of which are in one block."""
    if X.ndim != 2:
        raise ValueError(f"X must have 2 dimensions, got {X.ndim}")
    return X if X.numblocks[1] == 1 else X.rechunk({1: -1})


def _blocks(value: Any) -> list[Delayed]:
    return [*np.ravel(value.to_delayed())]


def _beside(value: Any, X: Any, name: str) -> Sequence[Any]:
    """Return what goes with the rows of X (labels, weights), cut as X is."""
    bounds = None
    if isinstance(X, da.Array) and not np.isnan(X.chunks[0]).any():
        bounds = [0, *np.cumsum(X.chunks[0], dtype=int).tolist()]
    if isinstance(value, da.Array):
        known = bounds is not None and not np.isnan(value.chunks[0]).any()
        if known and len(value) != len(X):
            raise ValueError(f"X has {len(X)} rows, and {name} has {len(value)}")
        if known and value.chunks[0] != X.chunks[0]:
            value = value.rechunk({0: X.chunks[0]})
        if value.ndim == 2:
            value = one_block_wide(value)
    elif not is_frame(value):
        if bounds is None or dask.is_dask_collection(value):
            raise TypeError(f"{name} must be a Dask array or series, got {type(value).__name__}")
        value = np.asarray(value)
        if len(value) != bounds[-1]:
            raise ValueError(f"X has {bounds[-1]} rows, and {name} has {len(value)}")
        return [value[start:end] for start, end in pairwise(bounds)]
    blocks, n_blocks = _blocks(value), len(_blocks(X))
    if len(blocks) != n_blocks:
        raise ValueError(f"X has {n_blocks} partitions, and {name} has {len(blocks)}")
    return blocks


def _batch(number: int, item: Any) -> Batch:  # on a worker
    batch = Batch(number, None, source=f"partition {number} (from 0)")
    if isinstance(item, tuple | list) and item and hasattr(item[0], "to_scipy_sparse"):
        item = (sparse.csr_array(item[0].to_scipy_sparse()), *item[1:])
    return with_parts(batch, item)
