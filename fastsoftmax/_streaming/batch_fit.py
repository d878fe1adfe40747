"""Fits to rows that come in batches: epochs of mini-batch descent.

Each batch is a shard of rows for as long as it is used.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._estimator import fitting
from fastsoftmax._estimator.fitted import NotFinite, set_learnt
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.targets import given_targets
from fastsoftmax._streaming.batch_source import (
    Batch,
    BatchSource,
    Totals,
    column_order,
    in_order,
    labels_of,
    named,
    totals_of,
)
from fastsoftmax._streaming.partial_fit import batch_shard, first_coefficients, take_steps
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.monitor import Monitor
from fastsoftmax.shards.shard import Shard


class Epoch(NamedTuple):
    """Sums over the rows of an epoch, each weighted as given."""

    n_rows: int
    weight: float
    loss: float
    correct: float


class _BatchRows:
    """The batches of a fit as shards, whose row weights have mean 1 over all batches."""

    def __init__(
        self, estimator: FitParameters, source: BatchSource, classes: Any, totals: Totals | None
    ) -> None:
        self.estimator = estimator
        self.source = source
        self.order = column_order(classes)
        self.totals = totals
        self.classes = labels_of(classes) if totals is None else totals.classes
        self.n_rows, self.weight = (0, 0.0) if totals is None else (totals.n_rows, totals.weight)
        self._all_seen = totals is not None
        self.real: np.dtype[Any] | None = None

    def epoch(self) -> Iterator[tuple[Shard, float, float]]:
        """Yield shards, with their weight and what it was divided by.

        Before totals are known they are those of the batches so far.
        """
        n_rows, weight = 0, 0.0
        for batch in self.source:
            try:
                shard, own = self._shard(batch)
            except (ValueError, TypeError) as error:
                raise named(batch, error) from error
            self.real = shard.real
            n_rows, weight = n_rows + shard.n_rows, weight + own
            if not self._all_seen:
                self.n_rows, self.weight = n_rows, weight
            mean = self.weight / self.n_rows
            if mean != 1.0 and mean > 0.0:
                shard = shard.reweighted((shard.row_weights / mean).astype(shard.real))
            yield shard, own, mean
        if not n_rows:
            raise ValueError(
                "batches must hold rows with a weight above 0, and hold none: an iterator that was "
                "read before is empty, so what is given to fit must begin anew in every epoch"
            )
        self._all_seen = True

    def _shard(self, batch: Batch) -> tuple[Shard, float]:
        by_class = None if self.totals is None else self.totals.by_class
        batch = batch._replace(y=in_order(given_targets(batch.y), self.order))
        return batch_shard(self.estimator, batch, self.classes, self.real, by_class)


def fit(estimator: FitParameters, batches: Any, classes: Any, watch: fitting.Watch) -> str | None:
    """Fit to batches; the result says why there were too few epochs, if that is so."""
    _check(estimator, watch)
    source, totals = BatchSource(batches), None
    if classes is None or estimator.class_weight == "balanced":
        totals = totals_of(source, classes, estimator.class_weight)
    rows = _BatchRows(estimator, source, classes, totals)
    epoch = rows.epoch()
    first = next(epoch)
    like = first[0]
    sets = fitting.eval_shards(estimator, watch, rows.classes, rows.classes, like)
    start = None
    if estimator.warm_start:
        start = fitting.previous_coefficients(estimator, rows.classes)
    params = first_coefficients(estimator, like)
    if start is not None:
        params = np.concatenate([part.ravel() for part in start]).astype(like.real)
    monitor = fitting.monitor_of(estimator, "sgd", rows.n_rows, sets, watch)
    fitting.begin(estimator, rows.classes, monitor, rows.weight)
    n_logits = count_logits(like.n_classes)
    coefficients = params[:-n_logits].reshape(n_logits, -1), params[-n_logits:]
    fitting.keep(estimator, like.real, *coefficients, 0)
    with fitting.watching(estimator, monitor):
        monitor.note_start(*coefficients, is_fitted=start is not None)
        return _epochs(rows, chain([first], epoch), params, coefficients, monitor, watch)


def _check(estimator: FitParameters, watch: fitting.Watch) -> None:
    if estimator.solver != "sgd":
        raise ValueError(
            f"fit takes batches with solver='sgd' only, got solver={estimator.solver!r}"
        )
    if (estimator.l1_ratio or 0.0) > 0.0 and not np.isinf(estimator.C):
        raise ValueError("fit takes no batches with l1_ratio > 0: steps of 'sgd' have no 1-norm")
    if estimator.standardize:
        raise ValueError(
            "standardize=True needs all rows at once: scale the batches, or give an input_scale"
        )
    if estimator.early_stopping and not watch.has_sets:
        raise ValueError(
            "early_stopping=True needs an eval_set where fit gets batches: none of their rows are "
            "held out"
        )


def _epochs(
    rows: _BatchRows,
    shards: Iterator[tuple[Shard, float, float]],
    params: Array,
    coefficients: tuple[Array, Array],
    monitor: Monitor,
    watch: fitting.Watch,
) -> str | None:
    """Run the epochs; coefficients are views of params, shards are those of the first epoch."""
    estimator = rows.estimator
    velocity = np.zeros_like(params) if estimator.momentum else None
    for n_iter in range(1, estimator.max_iter + 1):
        try:
            sums = _epoch(rows, shards, params, velocity)
        finally:
            # also when an epoch is interrupted: it may be the only one
            finite = bool(np.isfinite(params).all())
            if finite:
                fitting.keep(estimator, params.dtype, *coefficients, n_iter - 1)
            estimator._weight_seen = rows.weight
        if finite:
            set_learnt(estimator, n_iter=n_iter)
        monitor.n_rows = sums.n_rows
        stop = monitor.record(
            n_iter, sums.loss / sums.weight, sums.correct / sums.weight, lambda: coefficients
        )
        if not finite:
            raise NotFinite(fitting.diverged(estimator, n_iter))
        if stop:
            break
        if n_iter < estimator.max_iter and watch.expired():
            return fitting.too_few_epochs(estimator, n_iter)
        shards = rows.epoch()
    return None


def _epoch(
    rows: _BatchRows,
    shards: Iterator[tuple[Shard, float, float]],
    params: Array,
    velocity: Array | None,
) -> Epoch:
    n_rows, weight, loss, correct = 0, 0.0, 0.0, 0.0
    for shard, own, mean in shards:
        sums = take_steps(rows.estimator, shard, params, velocity, rows.weight)
        n_rows, weight = n_rows + shard.n_rows, weight + own
        loss, correct = loss + mean * sums[0], correct + mean * sums[1]
    return Epoch(n_rows, weight, loss, correct)
