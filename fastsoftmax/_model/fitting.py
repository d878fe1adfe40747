"""The running of a fit: from an objective and a start to the attributes of the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from fastsoftmax._model import inputs
from fastsoftmax._model.early_stopping import EarlyStopping
from fastsoftmax._model.prediction import dense_coef
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.monitor import Monitor
from fastsoftmax.objective import SoftmaxObjective, StochasticObjective
from fastsoftmax.optimum import full_batch, outcome
from fastsoftmax.problem.evaluation import Seen
from fastsoftmax.problem.problem import Problem
from fastsoftmax.shards.shard import Shard
from fastsoftmax.solvers import sgd
from fastsoftmax.solvers.lower_bound import relative_gap
from fastsoftmax.solvers.protocols import Limits


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
            dtype for dtype in inputs.FEATURE_TYPES if inputs.real_of(np.dtype(dtype)) == like.real
        ]
        X, y = validate_data(model, *pair, reset=False, accept_sparse="csr", dtype=kept)
        labels = inputs.encode_known_labels(y, classes, f"eval_set[{i}]", left_out)
        shards.append(inputs.eval_shard(inputs.features_of(X), labels, like))
    return shards


def has_sets(eval_set: Any) -> bool:
    """Whether an `eval_set` holds any; other types are for `eval_shards` to refuse."""
    return eval_set is not None and not (isinstance(eval_set, list | tuple) and not eval_set)


def previous_coefficients(model: Any, classes: Array) -> tuple[Array, Array] | None:
    """Coefficients of an earlier fit, if they are of the shape that this one needs."""
    coef: Any = getattr(model, "coef_", None)
    intercept: Any = getattr(model, "intercept_", None)
    n_logits = count_logits(len(classes))
    coef = dense_coef(coef)
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
    latest: tuple[int, Seen, float] | None = None

    def show(n_iter: int, at: Seen, gap: float) -> None:
        # (those of an evaluation, not copies: nobody writes to them, and a text's take 16 MB)
        model.coef_, model.intercept_ = (np.asarray(a, dtype=real) for a in (at.weights, at.bias))
        model.n_iter_ = np.array([n_iter], dtype=np.int32)
        model.gap_, model.objective_ = gap, at.value

    def note(n_iter: int, at: Seen, gap: float) -> bool:
        nonlocal latest
        latest = n_iter, at, gap
        if monitor.is_watched:
            show(*latest)
        return monitor.record(
            n_iter,
            at.loss,
            at.accuracy,
            lambda: (model.coef_, model.intercept_),
            at.value,
            gap,
        )

    problem = objective.problem
    real = problem.rows.real
    point = objective.start_from(start)
    keep(model, real, *problem.coordinates.coefficients_of(point), 0)  # should it be interrupted
    resumes = start is not None and point is not problem.null_point
    monitor.note_start(model.coef_, model.intercept_, is_model=resumes)
    try:
        result = full_batch.solve(
            objective,
            point,
            Limits(model.tol, model.max_iter, note, expired),
            newton=monitor.solver == "newton-cholesky",
        ).result
    except BaseException:  # Ctrl-C, and errors in callbacks: what there is so far is kept
        if latest is not None:
            show(*latest)
        raise
    if monitor.stopping is not None and monitor.stopping.restore():
        if model.best_iteration_ == 0:  # at the start nothing was certified
            _certify(model, objective)
        model.converged_ = bool(model.gap_ <= model.tol)
    else:
        at = result.evaluation
        keep(model, real, at.weights, at.bias, result.n_iter)
        model.gap_, model.objective_ = result.gap, at.value
        model.converged_ = outcome.is_converged(result, model.tol)
    if not outcome.is_converged(result, model.tol) and result.reason != "stopped":
        return outcome.advice(
            result,
            tol=model.tol,
            max_iter=model.max_iter,
            max_time=model.max_time,
            real=model.coef_.dtype,
        )
    return None


def fit_sgd(
    model: Any,
    problem: Problem,
    monitor: Monitor,
    start: tuple[Array, Array] | None,
    expired: Callable[[], bool],
    rows: Array | None = None,
) -> str | None:
    """Run epochs of mini-batch descent; the result says why there were too few, if that is so.

    rows: numbers of those to fit to, where that is not all.
    """
    rng = check_random_state(model.random_state)
    real = problem.rows.real
    shape = problem.n_logits, problem.n_features
    stochastic = StochasticObjective(problem, rows)
    first = stochastic.start(rng) if start is None else start
    params = np.concatenate([part.ravel() for part in first]).astype(real)
    weights, bias = params[: problem.n_weights].reshape(shape), params[problem.n_weights :]

    def note(epoch: int, loss: float, accuracy: float) -> bool:
        if np.isfinite(params).all():
            keep(model, real, weights, bias, epoch)
        stop = monitor.record(epoch, loss, accuracy, lambda: (weights, bias))
        late.append(not stop and epoch < model.max_iter and expired())
        return stop or late[-1]

    late: list[bool] = []
    keep(model, real, weights, bias, 0)  # should it be interrupted
    monitor.note_start(weights, bias, is_model=start is not None)
    n_epochs = sgd.descend(
        stochastic,
        params,
        n_epochs=model.max_iter,
        batch_size=model.batch_size,
        learning_rate=model.learning_rate,
        momentum=model.momentum,
        rng=rng,
        on_epoch=note,
    )
    if not np.isfinite(params).all():
        raise ValueError(diverged(model, n_epochs))
    if monitor.stopping is not None:
        monitor.stopping.restore()
    _certify(model, SoftmaxObjective(problem))
    model.converged_ = bool(model.gap_ <= model.tol)
    return too_few_epochs(model, n_epochs) if late and late[-1] else None


def diverged(model: Any, epoch: int) -> str:
    """Say that descent diverged, and what to do."""
    return (
        f"solver='sgd' diverged in epoch {epoch}: learning_rate={model.learning_rate:g} "
        "is too large for these features. Lower it, or scale the features."
    )


def too_few_epochs(model: Any, n_epochs: int) -> str:
    """Say that time was up."""
    return (
        f"solver='sgd' stopped after {n_epochs} of max_iter={model.max_iter} epochs: it "
        f"took all of max_time={model.max_time:g} seconds. Raise max_time."
    )


def begin(model: Any, classes: Array, monitor: Monitor, total: float) -> None:
    """Set the attributes that a fit has from its start on, and forget those of an earlier one."""
    model.classes_, model.temperature_ = classes, 1.0
    model._velocity, model._weight_seen = None, total
    model.history_ = monitor.history
    model.converged_ = False
    model.gap_, model.objective_ = np.inf, np.nan
    for name in ("best_iteration_", "best_score_"):
        vars(model).pop(name, None)


@contextmanager
def watching(model: Any, monitor: Monitor) -> Iterator[None]:
    """Watch a fit from its start, of which the model has the coefficients, to its end.

    However it ends, the model is its best one where it stops early, and callbacks hear of the end.
    """
    if model.early_stopping:
        monitor.stopping = EarlyStopping(model)
    try:
        yield
    finally:
        if monitor.stopping is not None:
            monitor.stopping.restore()
        monitor.close()


def keep(model: Any, real: np.dtype[Any], weights: Array, bias: Array, n_iter: int) -> None:
    """Give the model coefficients, in arrays of its own."""
    model.coef_ = np.array(weights, dtype=real)
    model.intercept_ = np.array(bias, dtype=real)
    model.n_iter_ = np.array([n_iter], dtype=np.int32)


def _certify(model: Any, objective: SoftmaxObjective) -> None:
    """Set the objective at the model's coefficients, and the bound on how far it is too high."""
    at = objective.evaluate_coefficients(model.coef_, model.intercept_)
    model.gap_, model.objective_ = relative_gap(objective, at), at.value
