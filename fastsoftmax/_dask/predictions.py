"""Predictions for rows on a cluster: lazy, one task for each partition."""

from typing import Any, NamedTuple
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
from numpy.typing import DTypeLike

from fastsoftmax._dask.partitions import is_frame, one_block_wide
from fastsoftmax._dask.remote import Remote, threads_here
from fastsoftmax._estimator.batch_source import Batch, naming
from fastsoftmax._estimator.parts import weighed, weighted_mean
from fastsoftmax.arrays import Array


class Outcome(NamedTuple):
    """What a method of a model returns for rows."""

    method: str
    dtype: DTypeLike
    columns: list[Any] | None  # what errors and frames call them; None for one number a row


def predicted(model: Any, X: Any, outcome: Outcome) -> Any:
    """Return model.method(X), lazily: an array, a frame or series, or a list of delayed arrays."""
    # every task has one of the threads of its worker
    model.set_params(n_jobs=1)
    held = dask.delayed(model, name=f"fastsoftmax-model-{uuid4().hex}", traverse=False)
    if isinstance(X, da.Array):
        X, columns = one_block_wide(X), outcome.columns
        width = {"drop_axis": 1} if columns is None else {"chunks": (X.chunks[0], (len(columns),))}
        meta = _nothing(outcome)
        return da.map_blocks(_rows, X, held, outcome, dtype=meta.dtype, meta=meta, **width)
    if is_frame(X):
        meta = _framed(_nothing(outcome), X._meta.index[:0], outcome)
        return X.map_partitions(_frame, held, outcome, meta=meta)
    return [dask.delayed(_rows_of_part, pure=False)(part, held, outcome) for part in X]


def _nothing(outcome: Outcome) -> Array:
    shape = (0,) if outcome.columns is None else (0, len(outcome.columns))
    return np.empty(shape, dtype=outcome.dtype)


def _rows(X: Any, model: Any, outcome: Outcome) -> Array:
    if not X.shape[0]:
        return _nothing(outcome)
    if hasattr(X, "to_scipy_sparse"):
        X = X.to_scipy_sparse()
    return np.asarray(getattr(model, outcome.method)(X))


def _rows_of_part(part: Any, model: Any, outcome: Outcome) -> Array:
    return _rows(part[0] if isinstance(part, list | tuple) else part, model, outcome)


def _frame(X: Any, model: Any, outcome: Outcome) -> Any:
    return _framed(_rows(X, model, outcome), X.index, outcome)


def _framed(values: Array, index: Any, outcome: Outcome) -> Any:
    import pandas as pd  # there is one where there are dataframes of Dask's

    if outcome.columns is None:
        return pd.Series(values, index=index)
    return pd.DataFrame(values, index=index, columns=outcome.columns)


def mean_of(model: Any, batches: Remote, method: str) -> Array:
    """Return the mean of what a method returns for partitions with labels, by their weights."""
    each_one = batches.ask(_measured, model, method)
    return weighted_mean(found for found in each_one if found[0])


def _measured(batch: Batch, model: Any, method: str) -> tuple[float, Array]:
    model.set_params(n_jobs=threads_here(model.n_jobs))
    with naming(batch):
        return weighed(batch, lambda p: getattr(model, method)(p.X, p.y, p.sample_weight))
