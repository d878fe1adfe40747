"""Fits to rows that come in batches: epochs of mini-batch descent.

Each batch is a shard of rows for as long as it is used. The full-batch objective is a sum over
shards, too: a solver of that kind would read the shards of `_Rows` in each of its passes, as the
epochs do here.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._model import fitting
from fastsoftmax._model.soft_targets import are_probabilities
from fastsoftmax._streaming.batch_source import (
    Batch,
    BatchSource,
    Totals,
    column_order,
    labels_of,
    named,
    totals_of,
)
from fastsoftmax._streaming.partial_fit import first_coefficients, rows_of, take_steps
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.monitor import Callback, Monitor
from fastsoftmax.shards.shard import Shard


class Epoch(NamedTuple):
    """Sums over the rows of an epoch, each weighted as given."""

    n_rows: int
    weight: float
    loss: float
    correct: float


class _Rows:
    """The batches of a fit as shards, whose weights have mean 1 over all batches."""

    def __init__(self, model: Any, source: BatchSource, classes: Any, totals: Totals | None):
        self.model = model
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
        y, weights = batch.y, batch.sample_weight
        by_class = None if self.totals is None else self.totals.by_class
        if are_probabilities(y):
            y = np.asarray(y)
            if self.order is not None and y.shape[1] == len(self.order):
                y = y[:, self.order]
        elif weights is not None:
            absent = np.asarray(weights) == 0.0
            y = np.asarray(y)
            if absent.any() and absent.shape == y.shape:  # as if removed: of whatever class
                y = np.where(absent, self.classes[:1], y)
        return rows_of(self.model, batch.X, y, weights, self.classes, self.real, by_class=by_class)


def fit(
    model: Any,
    batches: Any,
    classes: Any,
    eval_set: Any,
    callbacks: list[Callback],
    expired: Callable[[], bool],
    began: float,
) -> str | None:
    """Fit a model to batches; the result says why there were too few epochs, if that is so."""
    _check(model, eval_set)
    source, totals = BatchSource(batches), None
    if classes is None or model.class_weight == "balanced":
        totals = totals_of(source, classes, model.class_weight)
    rows = _Rows(model, source, classes, totals)
    epoch = rows.epoch()
    first = next(epoch)
    like = first[0]
    eval_shards = fitting.eval_shards(model, eval_set, rows.classes, np.empty(0), like)
    start = fitting.previous_coefficients(model, rows.classes) if model.warm_start else None
    params = first_coefficients(model, like)
    if start is not None:
        params = np.concatenate([part.ravel() for part in start]).astype(like.real)
    monitor = Monitor(
        "sgd", rows.n_rows, model.max_iter, eval_shards, callbacks, model.verbose, began=began
    )
    fitting.begin(model, rows.classes, monitor, rows.weight)
    n_logits = count_logits(like.n_classes)
    coefficients = params[:-n_logits].reshape(n_logits, -1), params[-n_logits:]
    fitting.keep(model, like.real, *coefficients, 0)
    with fitting.watching(model, monitor):
        monitor.note_start(*coefficients, is_model=start is not None)
        return _epochs(model, rows, chain([first], epoch), params, coefficients, monitor, expired)


def _check(model: Any, eval_set: Any) -> None:
    if model.solver != "sgd":
        raise ValueError(f"fit takes batches with solver='sgd' only, got solver={model.solver!r}")
    if (model.l1_ratio or 0.0) > 0.0 and not np.isinf(model.C):
        raise ValueError("fit takes no batches with l1_ratio > 0: steps of 'sgd' have no 1-norm")
    if model.standardize:
        raise ValueError(
            "standardize=True needs all rows at once: scale the batches, or give an input_scale"
        )
    if model.early_stopping and not fitting.has_sets(eval_set):
        raise ValueError(
            "early_stopping=True needs an eval_set where fit gets batches: none of their rows are "
            "held out"
        )


def _epochs(
    model: Any,
    rows: _Rows,
    shards: Iterator[tuple[Shard, float, float]],
    params: Array,
    coefficients: tuple[Array, Array],
    monitor: Monitor,
    expired: Callable[[], bool],
) -> str | None:
    """Run them; coefficients are views of params, and shards those of the first epoch."""
    velocity = np.zeros_like(params) if model.momentum else None
    for n_iter in range(1, model.max_iter + 1):
        try:
            sums = _epoch(model, rows, shards, params, velocity)
        finally:
            # also in the midst of an epoch, which may be the only one
            finite = bool(np.isfinite(params).all())
            if finite:
                fitting.keep(model, params.dtype, *coefficients, n_iter - 1)
            model._weight_seen = rows.weight
        if finite:
            model.n_iter_ = np.array([n_iter], dtype=np.int32)
        monitor.n_rows = sums.n_rows
        stop = monitor.record(
            n_iter, sums.loss / sums.weight, sums.correct / sums.weight, lambda: coefficients
        )
        if not finite:
            raise ValueError(fitting.diverged(model, n_iter))
        if stop:
            break
        if n_iter < model.max_iter and expired():
            return fitting.too_few_epochs(model, n_iter)
        shards = rows.epoch()
    return None


def _epoch(
    model: Any,
    rows: _Rows,
    shards: Iterator[tuple[Shard, float, float]],
    params: Array,
    velocity: Array | None,
) -> Epoch:
    n_rows, weight, loss, correct = 0, 0.0, 0.0, 0.0
    for shard, own, mean in shards:
        sums = take_steps(model, shard, params, velocity, rows.weight)
        n_rows, weight = n_rows + shard.n_rows, weight + own
        loss, correct = loss + mean * sums[0], correct + mean * sums[1]
    return Epoch(n_rows, weight, loss, correct)
