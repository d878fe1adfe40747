"""Fits to rows that come in batches: epochs over them, or steps that go on from the last call.

Each batch is a shard of rows for as long as it is used.
"""

import math
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from fastsoftmax._estimator import fitting
from fastsoftmax._estimator.batch_source import Batch, BatchSource, naming
from fastsoftmax._estimator.features import checked_rows, real_type
from fastsoftmax._estimator.fitted import (
    NotFinite,
    coef_of,
    forget_fit,
    set_learnt,
    stored_coef,
)
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import (
    checked_class_weights,
    checked_sample_weights,
    class_weighted,
    computing_of,
    make_shard,
    regularisation,
)
from fastsoftmax._estimator.targets import class_labels, given_targets, known_targets
from fastsoftmax._streaming.moving import Linear, Moving, linear
from fastsoftmax._streaming.totals import Totals, labels_of, named_columns, totals_of
from fastsoftmax.arrays import Array
from fastsoftmax.columns import filled_columns
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.monitor import HISTORY, Monitor
from fastsoftmax.shards.rows import with_columns
from fastsoftmax.shards.shard import Shard

# The running mean of an epoch is above the loss at its end: a fit to batches counts as failed
# where it is so many times that of equal shares of the classes.
_FAR_WORSE = 2.0

# ---- steps over one batch ----


def batch_shard(
    estimator: FitParameters,
    batch: Batch,
    classes: Array,
    real: np.dtype[Any] | None,
    by_class: Array | None = None,
    *,
    finite: bool = True,
) -> tuple[Shard, float]:
    """(rows of one batch, checked, with their row weights as given; the sum of those).

    real is the number type of the batches before; None for the first batch, which decides on it and
    whose features the estimator notes. by_class holds a weight for each class, instead of the
    estimator's `class_weight`; finite is whether to look for NaN and infinities.
    """
    X, y = checked_rows(estimator, batch.X, batch.y, reset=real is None, real=real, finite=finite)
    real = real_type(X.dtype)
    row_weights = checked_sample_weights(batch.sample_weight, X)
    targets = known_targets(y, classes, real, row_weights=row_weights)
    if by_class is None and estimator.class_weight is not None:
        by_class = checked_class_weights(estimator.class_weight, classes, np.ones(len(classes)))
    if by_class is not None:
        targets, row_weights = class_weighted(targets, row_weights, by_class)
    own = np.require(row_weights, real, ["C", "A"])
    shard = make_shard(X, targets, own, computing_of(estimator), float(estimator.label_smoothing))
    return shard, float(row_weights.sum())


def take_steps(
    estimator: FitParameters, shard: Shard, moving: Moving, total: float
) -> tuple[float, float]:
    """Step over rows, of the columns in use, in their order; return sums of loss and hits.

    total is the sum of the row weights that the penalty is for.
    """
    scale = float(estimator.input_scale)
    squared_scale = None if scale == 1.0 else np.full(shard.n_features, scale**2)
    l2 = 0.0 if total == 0.0 else regularisation(estimator.C, total)[0]
    size, rate, momentum = estimator.batch_size, estimator.learning_rate, estimator.momentum
    descent = Descent(size, rate, momentum, l2, estimator.fit_intercept, squared_scale)
    return shard.sgd_steps(moving.params, moving.velocity, np.arange(shard.n_rows), descent)


def first_coefficients(estimator: FitParameters, first: Shard) -> Linear:
    """Return a start: W from N(0, 0.01^2) in the columns of the first rows, otherwise 0, and b = 0.

    It is of the number type of the rows.
    """
    columns = filled_columns(first.X)
    shape = first.n_logits, first.n_features if columns is None else len(columns)
    rng = check_random_state(estimator.random_state)
    weights = (rng.normal(0.0, 0.01, shape) * estimator.input_scale).astype(first.real)
    return Linear(coef_of(estimator, columns, weights), np.zeros(first.n_logits, dtype=first.real))


# ---- partial_fit ----


def has_steps(estimator: FitParameters) -> bool:
    """Whether the parameters allow steps over some rows; an AttributeError where they do not."""
    if (estimator.l1_ratio or 0.0) > 0.0 and not math.isinf(estimator.C):
        raise AttributeError("with l1_ratio > 0 there is no partial_fit: its steps have no 1-norm")
    if estimator.standardize or estimator.class_weight == "balanced":
        name = "standardize=True" if estimator.standardize else 'class_weight="balanced"'
        raise AttributeError(f"with {name} there is no partial_fit: that needs all rows at once")
    return True


def step_over(estimator: FitParameters, X: Any, y: Any, classes: Any, sample_weight: Any) -> None:
    """Take the steps of `FastSoftmax.partial_fit`."""
    known = _known_classes(estimator, y, classes)
    coef = stored_coef(estimator)
    goes_on = coef is not None
    real = coef.dtype if goes_on else None
    shard, total = batch_shard(estimator, Batch(0, X, y, sample_weight), known, real)
    start = Linear(coef, estimator.intercept_) if goes_on else first_coefficients(estimator, shard)
    moving = Moving(
        start,
        stored_velocity(estimator) if goes_on else None,
        shard,
        with_velocity=bool(estimator.momentum),
    )
    shard = with_columns(shard, moving.columns)
    seen = total + (getattr(estimator, "_weight_seen", 0.0) if goes_on else 0.0)
    clock = time.perf_counter()
    loss, correct = take_steps(estimator, shard, moving, seen)
    if not (np.isfinite(moving.params).all() and np.isfinite(loss)):
        raise NotFinite(
            f"partial_fit diverged: learning_rate={estimator.learning_rate:g} is too large for "
            "these features and row weights. Lower it, or scale the features or sample_weight."
        )
    seconds = time.perf_counter() - clock
    set_learnt(
        estimator,
        classes=known,
        temperature=1.0,
        solver="sgd",
        coef=moving.coefficients.weights,
        intercept=moving.coefficients.bias,
        n_iter=1 + (int(estimator.n_iter_[0]) if hasattr(estimator, "n_iter_") else 0),
    )
    forget_fit(estimator)
    estimator._velocity, estimator._velocity_columns = moving.velocity, moving.columns
    estimator._weight_seen = seen
    if not hasattr(estimator, "history_"):
        set_learnt(estimator, history={name: [] for name in HISTORY})
    values = loss / shard.n_rows, correct / shard.n_rows, None, None, seconds, (), ()
    for name, value in zip(HISTORY, values, strict=True):
        estimator.history_[name].append(value)


def stored_velocity(estimator: FitParameters) -> Linear | None:
    """Return the velocity that the last call ended with; None if there is none."""
    flat = getattr(estimator, "_velocity", None)
    if flat is None:
        return None
    shape = len(estimator.intercept_), estimator.n_features_in_
    return linear(flat, getattr(estimator, "_velocity_columns", None), shape)


def _known_classes(estimator: FitParameters, y: Any, classes: Any) -> Array:
    """Return the labels of all classes: known ones, the argument, or the names of columns of y."""
    given = None if classes is None else np.unique(class_labels(classes))
    known: Array | None = getattr(estimator, "classes_", None)
    if known is None:
        if given is None and len(getattr(y, "shape", ())) == 2:
            names = given_targets(y).names
            given = None if names is None else np.unique(names)
        if given is None:
            raise ValueError(
                "classes must be given in the first call of partial_fit, as later batches may "
                "hold labels that this one lacks"
            )
        if len(given) < 2:
            raise ValueError(f"classes must hold at least 2 labels, got {classes!r}")
        return given
    if given is not None and not np.array_equal(given, known):
        raise ValueError(f"classes must be those of the first call, {known!r}, got {classes!r}")
    return known


# ---- fit ----


class _BatchRows:
    """The batches of a fit as shards, whose row weights have mean 1 over all batches."""

    def __init__(
        self, estimator: FitParameters, source: BatchSource, classes: Any, totals: Totals | None
    ) -> None:
        self.estimator, self.source, self.given_classes = estimator, source, classes
        self._all_seen = totals is not None
        known = totals or Totals(labels_of(classes), None, 0, 0.0)
        self.classes, self.by_class, self.n_rows, self.weight, _ = known
        self.real: np.dtype[Any] | None = None

    def epoch(self) -> Iterator[tuple[Shard, float, float]]:
        """Yield shards, with their weight and what it was divided by.

        Before totals are known they are those of the batches so far.
        """
        n_rows, weight = 0, 0.0
        for batch in self.source:
            with naming(batch):
                batch = batch._replace(y=named_columns(batch.y, self.given_classes))
                shard, own = batch_shard(
                    self.estimator, batch, self.classes, self.real, self.by_class
                )
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
    previous = fitting.previous_coefficients(estimator, rows.classes)
    start = first_coefficients(estimator, like)
    if previous is not None:
        start = Linear(*(part.astype(like.real) for part in previous))
    moving = Moving(start, None, like, with_velocity=bool(estimator.momentum))
    counts = rows.n_rows, rows.weight
    with fitting.begun(estimator, rows.classes, "sgd", counts, sets, watch) as monitor:
        fitting.keep(estimator, like.real, *start, 0)
        monitor.note_start(*start, is_fitted=previous is not None)
        return _epochs(rows, chain([first], epoch), moving, monitor, watch)


def _check(estimator: FitParameters, watch: fitting.Watch) -> None:
    if (estimator.l1_ratio or 0.0) > 0.0 and not math.isinf(estimator.C):
        raise ValueError("fit takes no batches with l1_ratio > 0: steps of 'sgd' have no 1-norm")
    if watch.checkpoint is not None:
        raise ValueError(
            "solver='sgd' has no checkpoints of batches, whose order is not in a file: use "
            "partial_fit and save the model, or warm_start=True"
        )
    if estimator.standardize:
        raise ValueError(
            "standardize=True needs all rows at once: scale the batches, or give an input_scale"
        )
    if estimator.early_stopping and not watch.eval_set:
        raise ValueError(
            "early_stopping=True needs an eval_set where fit gets batches: none of their rows are "
            "held out"
        )


def _epochs(
    rows: _BatchRows,
    shards: Iterator[tuple[Shard, float, float]],
    moving: Moving,
    monitor: Monitor,
    watch: fitting.Watch,
) -> str | None:
    """Run the epochs; shards are those of the first."""
    estimator = rows.estimator
    for n_iter in range(1, estimator.max_iter + 1):
        n_rows, weight, loss, correct = 0, 0.0, 0.0, 0.0  # sums of this epoch, weighted as given
        try:
            for shard, own, mean in shards:
                sums = take_steps(estimator, moving.joined_by(shard), moving, rows.weight)
                n_rows, weight = n_rows + shard.n_rows, weight + own
                loss, correct = loss + mean * sums[0], correct + mean * sums[1]
        finally:
            # also when an epoch is interrupted: it may be the only one
            finite = bool(np.isfinite(moving.params).all())
            if finite:
                fitting.keep(estimator, moving.params.dtype, *moving.coefficients, n_iter - 1)
            estimator._weight_seen = rows.weight
        if finite:
            set_learnt(estimator, n_iter=n_iter)
        monitor.n_rows = n_rows
        stop = monitor.record(n_iter, loss / weight, correct / weight, lambda: moving.coefficients)
        if not finite:
            raise NotFinite(fitting.diverged(estimator, n_iter))
        if stop:
            return None
        if n_iter < estimator.max_iter and watch.expired():
            return fitting.too_few_epochs(estimator, n_iter)
        shards = rows.epoch()
    return _far_worse(estimator, monitor.history["loss"])


def _far_worse(estimator: FitParameters, losses: list[Any]) -> str | None:
    """Return the message that the last of some epochs was worse than equal shares, if it was.

    Its loss is a mean over the epoch, whose beginning was worse than its end.
    """
    equal_shares = math.log(len(estimator.classes_))
    if not losses or losses[-1] <= _FAR_WORSE * equal_shares:
        return None
    return fitting.worse_than_shares(estimator, losses[-1], equal_shares)
