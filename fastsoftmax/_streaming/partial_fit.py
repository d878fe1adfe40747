"""Fits to rows as they come: mini-batch steps that go on where the last ones ended."""

import time
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from fastsoftmax._estimator.features import checked_rows, real_type
from fastsoftmax._estimator.fitted import NotFinite, dense_coef, set_learnt
from fastsoftmax._estimator.fitting import forget_best
from fastsoftmax._estimator.labels import class_labels
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import (
    checked_class_weights,
    checked_sample_weights,
    class_weighted,
    computing_of,
    make_shard,
    regularisation,
    smoothing_of,
)
from fastsoftmax._estimator.targets import given_targets, known_targets
from fastsoftmax._streaming.batch_source import Batch
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.monitor import HISTORY
from fastsoftmax.shards.shard import Shard


def has_steps(estimator: FitParameters) -> bool:
    """Whether the parameters allow steps over some rows; an AttributeError where they do not."""
    if (estimator.l1_ratio or 0.0) > 0.0 and not np.isinf(estimator.C):
        raise AttributeError("with l1_ratio > 0 there is no partial_fit: its steps have no 1-norm")
    if estimator.standardize or estimator.class_weight == "balanced":
        name = "standardize=True" if estimator.standardize else 'class_weight="balanced"'
        raise AttributeError(f"with {name} there is no partial_fit: that needs all rows at once")
    return True


def step_over(estimator: FitParameters, X: Any, y: Any, classes: Any, sample_weight: Any) -> None:
    """Take the steps of `FastSoftmax.partial_fit`."""
    known = _known_classes(estimator, y, classes)
    goes_on = hasattr(estimator, "coef_")
    real = estimator.coef_.dtype if goes_on else None
    shard, total = batch_shard(estimator, Batch(0, X, y, sample_weight), known, real)
    if goes_on:
        params = np.concatenate([dense_coef(estimator.coef_).ravel(), estimator.intercept_])
    else:
        params = first_coefficients(estimator, shard)
    velocity: Array | None = None
    if estimator.momentum:
        before = getattr(estimator, "_velocity", None) if goes_on else None
        velocity = np.zeros_like(params) if before is None else before.copy()
    seen = total + (getattr(estimator, "_weight_seen", 0.0) if goes_on else 0.0)
    start = time.perf_counter()
    loss, correct = take_steps(estimator, shard, params, velocity, seen)
    if not (np.isfinite(params).all() and np.isfinite(loss)):
        raise NotFinite(
            f"partial_fit diverged: learning_rate={estimator.learning_rate:g} is too large for "
            "these features. Lower it, or scale the features."
        )
    seconds = time.perf_counter() - start
    calls = int(estimator.n_iter_[0]) if hasattr(estimator, "n_iter_") else 0
    n_logits = count_logits(len(known))
    set_learnt(
        estimator,
        classes=known,
        temperature=1.0,
        coef=params[:-n_logits].reshape(n_logits, -1).copy(),
        intercept=params[-n_logits:].copy(),
        n_iter=calls + 1,
        gap=np.inf,
        objective=np.nan,
        converged=False,
    )
    estimator._velocity, estimator._weight_seen = velocity, seen
    forget_best(estimator)
    _note(estimator, loss / shard.n_rows, correct / shard.n_rows, seconds)


def _known_classes(estimator: FitParameters, y: Any, classes: Any) -> Array:
    """Return the labels of all classes, those of the first call or of an earlier fit.

    In the first call the names of the columns of y will do.
    """
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


def _note(estimator: FitParameters, loss: float, accuracy: float, seconds: float) -> None:
    values = (loss, accuracy, None, None, seconds, (), ())
    if not hasattr(estimator, "history_"):
        set_learnt(estimator, history={name: [] for name in HISTORY})
    for name, value in zip(HISTORY, values, strict=True):
        estimator.history_[name].append(value)


def batch_shard(
    estimator: FitParameters,
    batch: Batch,
    classes: Array,
    real: np.dtype[Any] | None,
    by_class: Array | None = None,
) -> tuple[Shard, float]:
    """(rows of one batch, checked, with their row weights as given; the sum of those).

    real is the number type of the batches before; None for the first batch, which decides on it and
    whose features the estimator notes. by_class holds a weight for each class, instead of the
    estimator's `class_weight`.
    """
    X, y = checked_rows(estimator, batch.X, batch.y, reset=real is None, real=real)
    real = real_type(X.dtype)
    row_weights = checked_sample_weights(batch.sample_weight, X)
    targets = known_targets(y, classes, real, row_weights=row_weights)
    if by_class is None and estimator.class_weight is not None:
        by_class = checked_class_weights(estimator.class_weight, classes, np.ones(len(classes)))
    if by_class is not None:
        targets, row_weights = class_weighted(targets, row_weights, by_class)
    own = np.ascontiguousarray(row_weights, dtype=real)
    shard = make_shard(X, targets, own, computing_of(estimator), smoothing_of(estimator))
    return shard, float(row_weights.sum())


def take_steps(
    estimator: FitParameters, shard: Shard, params: Array, velocity: Array | None, total: float
) -> tuple[float, float]:
    """Take mini-batch steps over rows in their order; params and velocity change in place.

    total is the sum of the row weights that the penalty is for. Returns the sums of loss and hits
    that the steps saw.
    """
    scale = float(estimator.input_scale)
    return shard.sgd_steps(
        params,
        velocity,
        np.arange(shard.n_rows),
        Descent(
            estimator.batch_size,
            estimator.learning_rate,
            estimator.momentum,
            0.0 if total == 0.0 else regularisation(estimator.C, total)[0],
            estimator.fit_intercept,
            None if scale == 1.0 else np.full(shard.n_features, scale**2),
        ),
    )


def first_coefficients(estimator: FitParameters, like: Shard) -> Array:
    """Return a start, flat: W from N(0, 0.01^2) and b = 0, in the number type of the rows."""
    n_logits = count_logits(like.n_classes)
    rng = check_random_state(estimator.random_state)
    weights = rng.normal(0.0, 0.01, (n_logits, like.n_features)) * estimator.input_scale
    return np.concatenate([weights.ravel(), np.zeros(n_logits)]).astype(like.real)
