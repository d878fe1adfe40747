"""The running of a fit: from an objective and a start to the attributes of the model."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from fastsoftmax import _inputs, full_batch
from fastsoftmax.monitor import Monitor
from fastsoftmax.objective import Evaluation, SoftmaxObjective
from fastsoftmax.shard import Array, Shard
from fastsoftmax.solvers import descent, sgd


def eval_shards(
    model: Any, eval_set: Any, classes: Array, left_out: Array, like: Shard
) -> list[Shard]:
    """Return the rows of an `eval_set`, checked, as shards of the kind of the training rows'."""
    shards = []
    if not isinstance(eval_set, list | tuple | None):
        raise TypeError(f"eval_set must be a list of (X, y) pairs, got {type(eval_set).__name__}")
    for i, pair in enumerate(eval_set or ()):
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(f"eval_set must be a list of (X, y) pairs, got {type(pair).__name__}")
        kept = [
            dtype
            for dtype in _inputs.FEATURE_TYPES
            if _inputs.real_of(np.dtype(dtype)) == like.real
        ]
        X, y = validate_data(model, *pair, reset=False, accept_sparse="csr", dtype=kept)
        labels = _inputs.encode_known_labels(y, classes, f"eval_set[{i}]", left_out)
        shards.append(_inputs.eval_shard(_inputs.features_of(X), labels, like))
    return shards


def previous_coefficients(model: Any, classes: Array) -> tuple[Array, Array] | None:
    """Coefficients of an earlier fit, if they are of the shape that this one needs."""
    coef: Any = getattr(model, "coef_", None)
    intercept: Any = getattr(model, "intercept_", None)
    n_logits = 1 if len(classes) == 2 else len(classes)
    if np.shape(coef) != (n_logits, model.n_features_in_) or np.shape(intercept) != (n_logits,):
        return None
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        return None
    return np.asarray(coef, np.float64), np.asarray(intercept, np.float64)


def fit_full_batch(
    model: Any,
    objective: SoftmaxObjective,
    monitor: Monitor,
    start: tuple[Array, Array] | None,
    expired: Callable[[], bool],
) -> str | None:
    """Run a solver that sees all rows; the result says why it fell short, where it did."""

    def note(n_iter: int, at: Evaluation, gap: float) -> bool:
        _keep(model, objective, at.weights, at.bias, n_iter)
        model.gap_, model.objective_ = gap, at.value
        return monitor.record(
            n_iter, at.loss, at.accuracy, lambda: (at.weights, at.bias), at.value, gap
        )

    point = objective.start_from(start)
    _keep(model, objective, *objective.coefficients_of(point), 0)  # should it be interrupted
    result = full_batch.solve(
        objective,
        point,
        newton=monitor.solver == "newton-cholesky",
        tol=model.tol,
        max_iter=model.max_iter,
        on_iteration=note,
        expired=expired,
    ).result
    at = result.evaluation
    _keep(model, objective, at.weights, at.bias, result.n_iter)
    model.gap_, model.objective_ = result.gap, at.value
    model.converged_ = full_batch.is_converged(result, model.tol)
    if not model.converged_ and result.reason != "stopped":
        return full_batch.advice(
            result,
            tol=model.tol,
            max_iter=model.max_iter,
            max_time=model.max_time,
            real=model.coef_.dtype,
        )
    return None


def fit_sgd(
    model: Any,
    objective: SoftmaxObjective,
    monitor: Monitor,
    start: tuple[Array, Array] | None,
    expired: Callable[[], bool],
) -> str | None:
    """Run epochs of mini-batch descent; the result says why there were too few, if that is so."""
    rng = check_random_state(model.random_state)
    real = objective.shards[0].real
    shape = objective.n_logits, objective.n_features
    if start is None:
        start = objective.sgd_start(rng)
    params = np.concatenate([part.ravel() for part in start]).astype(real)
    weights, bias = params[: objective.n_weights].reshape(shape), params[objective.n_weights :]

    def note(epoch: int, loss: float, accuracy: float) -> bool:
        if np.isfinite(params).all():
            _keep(model, objective, weights, bias, epoch)
        stop = monitor.record(epoch, loss, accuracy, lambda: (weights, bias))
        late.append(not stop and epoch < model.max_iter and expired())
        return stop or late[-1]

    late: list[bool] = []
    _keep(model, objective, weights, bias, 0)  # should it be interrupted
    n_epochs = sgd.descend(
        objective,
        params,
        n_epochs=model.max_iter,
        batch_size=model.batch_size,
        learning_rate=model.learning_rate,
        momentum=model.momentum,
        rng=rng,
        on_epoch=note,
    )
    if not np.isfinite(params).all():
        raise ValueError(
            f"solver='sgd' diverged in epoch {n_epochs}: learning_rate={model.learning_rate:g} "
            "is too large for these features. Lower it, or scale the features."
        )
    _keep(model, objective, weights, bias, n_epochs)
    at = objective.evaluate_coefficients(weights, bias)
    model.gap_, model.objective_ = descent.relative_gap(objective, at), at.value
    model.converged_ = bool(model.gap_ <= model.tol)
    if late and late[-1]:
        return (
            f"solver='sgd' stopped after {n_epochs} of max_iter={model.max_iter} epochs: it "
            f"took all of max_time={model.max_time:g} seconds. Raise max_time."
        )
    return None


def _keep(
    model: Any, objective: SoftmaxObjective, weights: Array, bias: Array, n_iter: int
) -> None:
    real = objective.shards[0].real
    model.coef_ = np.array(weights, dtype=real)
    model.intercept_ = np.array(bias, dtype=real)
    model.n_iter_ = np.array([n_iter], dtype=np.int32)
