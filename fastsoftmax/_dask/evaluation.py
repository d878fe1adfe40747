"""Evaluation sets on a cluster: the workers evaluate the coefficients of every iteration."""

from typing import Any

import distributed
import numpy as np

from fastsoftmax._dask.partitions import is_lazy, partitions
from fastsoftmax._dask.remote import Remote, threads_here
from fastsoftmax._estimator import fitting
from fastsoftmax._estimator.batch_source import Batch, naming
from fastsoftmax._estimator.features import checked_rows
from fastsoftmax._estimator.rows import computing_of, make_shard
from fastsoftmax._estimator.targets import known_targets
from fastsoftmax._streaming.streamed import Recipe
from fastsoftmax._streaming.totals import named_columns
from fastsoftmax.arrays import Array
from fastsoftmax.shards import tree
from fastsoftmax.shards.rows import with_columns
from fastsoftmax.shards.shard import Shard


class RemoteRows:
    """Rows on workers, as `monitor.EvaluationRows`."""

    def __init__(
        self, shards: Remote, n_rows: int, columns: Array | None, n_jobs: int | None
    ) -> None:
        self._shards, self._n_jobs = shards, n_jobs
        self.n_rows, self.columns = n_rows, columns

    def metrics(self, weights: Array, bias: Array) -> tuple[float, float]:
        """Return the sums of loss and hits."""
        sums: tuple[float, float]
        sums = self._shards.added(tree.plus, _metrics, self._n_jobs, weights, bias)
        return sums


def sets_of(
    client: distributed.Client, estimator: Any, watch: fitting.Watch, recipe: Recipe
) -> list[Any]:
    """Return the evaluation sets of a fit, those that are on the cluster ready to be asked.

    The estimator has no fit, but knows the names of the features.
    """
    sets = []
    for i, pair in enumerate(watch.eval_set):
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if is_pair and is_lazy(pair[0]):
            name = watch.set_name.format(i=i)
            sets.append(_remote(client, pair, (estimator, recipe, name)))
        else:
            sets.append(pair)
    return sets


def _remote(client: distributed.Client, pair: Any, by: tuple[Any, Recipe, str]) -> RemoteRows:
    estimator, recipe, name = by
    batches = partitions(client, *pair)
    sizes = list(batches.ask(_n_rows))
    if not sum(sizes):
        raise ValueError(f"{name} must hold rows, got partitions without any")
    n_jobs = estimator.n_jobs
    plain = estimator.set_params(n_jobs=1), recipe, name
    shards = batches.some([i for i, size in enumerate(sizes) if size]).made(_shard, *plain)
    return RemoteRows(shards, sum(sizes), recipe.columns, n_jobs)


# ---- on the workers ----


def _n_rows(batch: Batch) -> int:
    return batch.n_rows


def _shard(batch: Batch, estimator: Any, recipe: Recipe, name: str) -> Shard:
    with naming(batch):
        if batch.sample_weight is not None:
            raise ValueError(f"{name} must be pairs (X, y), got row weights")
        y = named_columns(batch.y, recipe.given_classes)
        X, y = checked_rows(estimator, batch.X, y, reset=False, real=recipe.real, name=name)
        targets = known_targets(y, recipe.classes, recipe.real, name, seen=recipe.classes)
        ones = np.ones(X.shape[0], dtype=recipe.real)
        # (columns that the fit does not have, as they are empty in its rows, have coefficients 0)
        return with_columns(make_shard(X, targets, ones, computing_of(estimator)), recipe.columns)


def _metrics(shard: Shard, n_jobs: int | None, weights: Array, bias: Array) -> tuple[float, float]:
    shard.n_threads = threads_here(n_jobs)
    return shard.metrics(weights, bias)
