"""Fits to arrays: from checked rows over an objective and a solver to the learned attributes."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from fastsoftmax._estimator.checkpoint import Checkpoint, checkpoint_of
from fastsoftmax._estimator.course import Course, check_random_state_is_known
from fastsoftmax._estimator.early_stopping import EarlyStopping, held_out_rows
from fastsoftmax._estimator.features import check_finite as check_features
from fastsoftmax._estimator.features import checked_rows, in_place
from fastsoftmax._estimator.fitted import (
    NotFinite,
    Refused,
    check_finite,
    coef_of,
    forget_fit,
    set_learnt,
    stored_coef,
)
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import (
    evaluation_shard,
    make_problem,
    regularisation,
    training_rows,
)
from fastsoftmax._estimator.targets import known_targets, new_targets
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.columns import filled_columns, in_columns, stored_numbers
from fastsoftmax.monitor import Callback, EvaluationRows, Monitor
from fastsoftmax.objective import SoftmaxObjective, StochasticObjective
from fastsoftmax.optimum import full_batch, outcome
from fastsoftmax.problem.evaluation import Evaluation, Seen
from fastsoftmax.problem.problem import Problem
from fastsoftmax.shards.rows import with_columns
from fastsoftmax.shards.shard import Shard
from fastsoftmax.solvers import sgd
from fastsoftmax.solvers.lower_bound import relative_gap
from fastsoftmax.solvers.protocols import Limits
from fastsoftmax.solvers.record import Record

Coefficients = tuple[Array, Array]  # (n_logits, n_features) and (n_logits,)
Previous = tuple[Any, Array]  # the same for all columns, the first as it is stored


class Watch(NamedTuple):
    """Who watches a fit, and until when it may run."""

    eval_set: Sequence[Any]
    set_name: str  # what errors call the targets of set {i}
    callbacks: list[Callback]
    began: float  # by time.perf_counter
    end: float  # by time.monotonic
    checkpoint: Checkpoint | None = None

    def holds_out(self, estimator: FitParameters) -> bool:
        """Whether some of the rows are held out."""
        return estimator.early_stopping and not self.eval_set

    def expired(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.end


def watch_of(
    eval_set: Any, validation: tuple[Any, Any], callbacks: Any, max_time: float | None
) -> Watch:
    """Return who watches a fit that begins now. validation is (X_val, y_val), or two None."""
    end = math.inf if max_time is None else time.monotonic() + max_time
    name = "eval_set[{i}]"
    missing = [part is None for part in validation]
    if not all(missing):
        if any(missing):
            raise ValueError(
                "X_val and y_val are given together: "
                f"{'X_val' if missing[0] else 'y_val'} is missing"
            )
        if eval_set is not None:
            raise ValueError(
                "validation rows are given as eval_set, or as X_val and y_val, not as both"
            )
        eval_set, name = [validation], "y_val"
    given = () if callbacks is None else callbacks
    found = list(given) if isinstance(given, Iterable) else []
    if not (isinstance(given, Iterable) and all(map(callable, found))):
        raise TypeError(f"callbacks must be an iterable of callables, got {callbacks!r}")
    if not isinstance(eval_set, list | tuple | None):
        raise TypeError(
            "eval_set must be a list of (X, y) pairs, such as [(X, y)], got "
            f"{type(eval_set).__name__}"
        )
    return Watch(eval_set or (), name, found, time.perf_counter(), end)


def with_checkpoint(estimator: FitParameters, watch: Watch, path: Any, resume: Any) -> Watch:
    """Return a watch that writes checkpoints to a path, and goes on from one; None for neither."""
    checkpoint = checkpoint_of(path, resume)
    if checkpoint is not None:
        check_random_state_is_known(estimator, holds_out=watch.holds_out(estimator))
    return watch._replace(checkpoint=checkpoint)


def fit_arrays(
    estimator: FitParameters, X: Any, y: Any, sample_weight: Any, classes: Any, watch: Watch
) -> str | None:
    """Fit to rows that users pass; the result says why the fit fell short, where it did."""
    hold_out = watch.holds_out(estimator)
    X, y = checked_rows(estimator, X, y, reset=True, finite=hold_out)
    rows = training_rows(
        estimator,
        X,
        new_targets(y, classes, sample_weight),
        sample_weight,
        hold_out=partial(held_out_rows, estimator) if hold_out else None,
    )
    shard, classes = rows.shard, rows.classes
    sets = eval_shards(estimator, watch, classes, rows.seen, shard)
    fitted_to = None
    if rows.held_out is not None:
        held, targets, row_weights = rows.held_out
        fitted_to = np.delete(np.arange(shard.n_rows), held)
        sets = [evaluation_shard(in_place(shard.X[held]), targets, row_weights, shard)]
    previous = previous_coefficients(estimator, classes)
    shard = with_columns(shard, filled_columns(shard.X, *(previous or ())[:1]))
    start = None
    if previous is not None:
        coef = in_columns(previous[0], shard.columns)
        start = np.asarray(coef, np.float64), np.asarray(previous[1], np.float64)
    shifted = estimator.standardize and not estimator.fit_intercept
    if estimator.solver == "sgd" and shifted and not shard.is_dense:
        raise ValueError(
            "solver='sgd' with standardize=True needs fit_intercept=True where X is sparse: "
            "without an intercept every step would move every feature"
        )
    l2, l1 = regularisation(estimator.C, rows.total, estimator.l1_ratio)
    problem = make_problem(shard, estimator, l2=l2, l1=l1)
    if not (hold_out or _has_finite_means(problem)):
        check_features(X, estimator)
    solver = full_batch.solver_for(problem, estimator.solver)
    counts = shard.n_rows if fitted_to is None else len(fitted_to), rows.total
    with (
        begun(estimator, classes, solver, counts, sets, watch) as monitor,
        a_start_is_no_result(estimator),
    ):
        if solver == "sgd":
            return _fit_sgd(estimator, problem, monitor, start, watch, fitted_to)
        return fit_full_batch(estimator, SoftmaxObjective(problem), monitor, start, watch)


def _has_finite_means(problem: Problem) -> bool:
    """Whether the means of the features are known and say that no feature is NaN or infinite.

    That spares a search through X. (A BLAS may leave out rows of weight 0.)
    """
    means_are_known = problem.fit_intercept and problem.rows.least_weight() > 0.0
    return means_are_known and bool(np.isfinite(problem.coordinates.center).all())


def eval_shards(
    estimator: FitParameters, watch: Watch, classes: Array, seen: Array, like: Shard
) -> list[EvaluationRows]:
    """Return a checked `eval_set` as shards like the training rows'; seen as of `known_labels`."""
    shards = list[EvaluationRows]()
    for i, pair in enumerate(watch.eval_set):
        if isinstance(pair, EvaluationRows):
            shards.append(pair)
            continue
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(
                "eval_set must be a list of (X, y) pairs, such as [(X, y)], got "
                f"{type(pair).__name__} as one of the pairs"
            )
        name = watch.set_name.format(i=i)
        X, y = checked_rows(estimator, *pair, reset=False, real=like.real, name=name)
        targets = known_targets(y, classes, like.real, name, seen=seen)
        shards.append(evaluation_shard(X, targets, np.ones(X.shape[0]), like))
    return shards


def previous_coefficients(estimator: FitParameters, classes: Array) -> Previous | None:
    """Coefficients to start from: those of an earlier fit, if they are of the shape needed."""
    if not estimator.warm_start:
        return None
    coef: Any = stored_coef(estimator)
    intercept: Any = getattr(estimator, "intercept_", None)
    n_logits = count_logits(len(classes))
    shapes = (n_logits, estimator.n_features_in_), (n_logits,)
    if (getattr(coef, "shape", None), np.shape(intercept)) != shapes:
        return None
    if not (np.isfinite(stored_numbers(coef)).all() and np.isfinite(intercept).all()):
        return None
    return coef, intercept


def begun(
    estimator: FitParameters,
    classes: Array,
    solver: str,
    rows: tuple[int, float],  # their number and the sum of their weights
    sets: list[EvaluationRows],
    watch: Watch,
) -> Monitor:
    """Set the attributes that a fit has from its start on; the result watches it to its end."""
    n_rows, estimator._weight_seen = rows
    estimator._velocity = None
    most, verbose = estimator.max_iter, estimator.verbose
    monitor = Monitor(solver, n_rows, most, sets, watch.callbacks, verbose, began=watch.began)
    set_learnt(estimator, classes=classes, temperature=1.0, solver=solver, history=monitor.history)
    forget_fit(estimator)
    if estimator.early_stopping:
        monitor.stopping = EarlyStopping(estimator)
    return monitor


@contextmanager
def a_start_is_no_result(estimator: FitParameters) -> Iterator[None]:
    """Give up what a fit began with, where there is no memory for its first iteration.

    (See `nothing_set_without_coefficients`.)
    """
    try:
        yield
    except MemoryError:
        if not estimator.history_["loss"] and hasattr(estimator, "intercept_"):
            del estimator.intercept_
        raise


def keep(
    estimator: FitParameters, real: np.dtype[Any], coef: Any, bias: Array, n_iter: int
) -> None:
    """Set copies of coefficients, coef as `coef_of` returns them."""
    coef, intercept = coef.astype(real), np.array(bias, dtype=real)
    set_learnt(estimator, coef=coef, intercept=intercept, n_iter=n_iter)


# ---- full-batch solvers ----


def fit_full_batch(
    estimator: FitParameters,
    objective: SoftmaxObjective,
    monitor: Monitor,
    start: Coefficients | None,
    watch: Watch,
) -> str | None:
    """Run a solver that sees all rows; the result says why it fell short, where it did."""
    problem, rows = objective.problem, objective.problem.rows
    real, coef_in = rows.real, partial(coef_of, estimator, rows.columns)
    course = Course(estimator, problem, monitor)
    latest: tuple[int, Seen, float] | None = None

    def show(n_iter: int, at: Seen, gap: float) -> None:
        # (no copies: nothing writes to the arrays of an evaluation, and those of text take 16 MB)
        coef, intercept = coef_in(np.asarray(at.weights, real)), np.asarray(at.bias, real)
        set_learnt(
            estimator, coef=coef, intercept=intercept, n_iter=n_iter, gap=gap, objective=at.value
        )

    def note(n_iter: int, at: Seen, gap: float) -> bool:
        nonlocal latest
        latest = n_iter, at, gap
        course.note(n_iter, lambda: (at.weights, at.bias))
        if monitor.is_watched:
            show(*latest)
        return monitor.record(
            n_iter,
            at.loss,
            at.accuracy,
            lambda: (stored_coef(estimator), estimator.intercept_),
            at.value,
            gap,
        )

    with course.recording(watch.checkpoint, holds_out=watch.holds_out(estimator)) as record:
        point = problem.null_point
        if record.found is None:
            point = _first_point(estimator, objective, monitor, start)
        limits = Limits(estimator.tol, estimator.max_iter, note, watch.expired, record=record)
        try:
            newton = monitor.solver == "newton-cholesky"
            result = full_batch.solve(objective, point, limits, newton=newton).result
        except BaseException:  # Ctrl-C and errors in callbacks: the last iteration is kept
            if latest is not None:
                show(*latest)
            raise
    check_finite(result.evaluation, rows)
    converged = outcome.is_converged(result, estimator.tol)
    if monitor.stopping is not None and monitor.stopping.restore():
        if estimator.best_iteration_ == 0:  # the start has no certificate yet
            _certify(estimator, objective)
        set_learnt(estimator, converged=bool(estimator.gap_ <= estimator.tol))
    else:
        at = result.evaluation
        keep(estimator, real, coef_in(at.weights), at.bias, result.n_iter)
        set_learnt(estimator, gap=result.gap, objective=at.value, converged=converged)
    if converged or result.reason == "stopped":
        return None
    return outcome.advice(
        result,
        tol=estimator.tol,
        max_iter=estimator.max_iter,
        max_time=estimator.max_time,
        real=real,
    )


def _first_point(
    estimator: FitParameters,
    objective: SoftmaxObjective,
    monitor: Monitor,
    start: Coefficients | None,
) -> Array:
    """Return the point that a fit starts from, which the estimator keeps if it is interrupted."""
    problem, rows = objective.problem, objective.problem.rows
    point = objective.start_from(start)
    weights, bias = problem.coordinates.coefficients_of(point)
    keep(estimator, rows.real, coef_of(estimator, rows.columns, weights), bias, 0)
    resumes = start is not None and point is not problem.null_point
    monitor.note_start(stored_coef(estimator), estimator.intercept_, is_fitted=resumes)
    return point


# ---- mini-batch descent ----


def _fit_sgd(
    estimator: FitParameters,
    problem: Problem,
    monitor: Monitor,
    start: Coefficients | None,
    watch: Watch,
    fitted_to: Array | None,  # numbers of the rows to fit to; None for all
) -> str | None:
    """Run epochs of mini-batch descent; the result says why there were too few, if that is so."""
    course = Course(estimator, problem, monitor)
    with course.recording(watch.checkpoint, holds_out=watch.holds_out(estimator)) as record:
        steps, rows = StochasticObjective(problem, fitted_to), problem.rows
        run = _run(estimator, steps, record, start)
        params, shape = run.params, (problem.n_logits, problem.n_features)
        weights, bias = params[: problem.n_weights].reshape(shape), params[problem.n_weights :]
        coef = coef_of(estimator, rows.columns, weights)
        late = stop = False

        def note(epoch: int, loss: float, accuracy: float) -> bool:
            nonlocal late, stop
            if np.isfinite(params).all():
                keep(estimator, rows.real, coef, bias, epoch)
                kept = in_columns(stored_coef(estimator), rows.columns), estimator.intercept_
                course.note(epoch, lambda: kept)
            stop = monitor.record(epoch, loss, accuracy, lambda: (coef, bias))
            late = not stop and epoch < estimator.max_iter and watch.expired()
            return stop or late

        if record.found is None:
            keep(estimator, rows.real, coef, bias, 0)  # for a fit that is interrupted
            monitor.note_start(coef, bias, is_fitted=start is not None)
        n_epochs = sgd.descend(
            steps,
            run,
            n_epochs=estimator.max_iter,
            batch_size=estimator.batch_size,
            learning_rate=estimator.learning_rate,
            momentum=estimator.momentum,
            on_epoch=note,
            leave=record.leave,
        )
    if not np.isfinite(params).all():
        raise NotFinite(diverged(estimator, n_epochs))
    if monitor.stopping is not None:
        monitor.stopping.restore()
    at = _certify(estimator, SoftmaxObjective(problem))
    set_learnt(estimator, converged=bool(estimator.gap_ <= estimator.tol))
    if late:
        return too_few_epochs(estimator, n_epochs)
    if stop or n_epochs == 0:
        return None
    return worse_than_shares(estimator, at.loss, problem.null_loss)


# What to do where steps are too large for the features.
_SCALE = (
    "Scale the features (input_scale=1 / 255 for bytes, standardize=True for other features) or "
    "lower learning_rate."
)
# A model without weights is mostly as good as one of this many times its loss, which is rounding
# and the noise of the last steps.
_AS_GOOD = 1.05


def _run(
    estimator: FitParameters, steps: StochasticObjective, record: Record, start: Coefficients | None
) -> sgd.Run:
    """Return what mini-batch descent begins with: a start, or what another fit has left."""
    problem = steps.problem
    n = problem.n_weights + problem.n_logits
    if record.found is not None:
        return sgd.run_from(record.found, np.empty(n, problem.rows.real))
    rng = check_random_state(estimator.random_state)
    if record.leave is not None and rng.get_state(legacy=False)["bit_generator"] != "MT19937":
        raise Refused("with checkpoint, random_state must be None, an integer or of MT19937")
    first = steps.start(rng) if start is None else start
    return sgd.Run(np.concatenate([part.ravel() for part in first]).astype(problem.rows.real), rng)


def diverged(estimator: FitParameters, epoch: int) -> str:
    """Return the message that descent diverged, and what to do."""
    return (
        f"solver='sgd' diverged in epoch {epoch}, because learning_rate="
        f"{estimator.learning_rate:g} is too large for these features. {_SCALE}"
    )


def worse_than_shares(estimator: FitParameters, loss: float, null_loss: float) -> str | None:
    """Return the message that descent ended at a loss above that of a model without weights."""
    if loss <= _AS_GOOD * null_loss:
        return None
    return (
        f"solver='sgd' ended at a loss of {loss:.4g}. A model that ignores the features has "
        f"{null_loss:.4g}. The steps with learning_rate={estimator.learning_rate:g} are too large "
        f"for these features, or max_iter={estimator.max_iter} epochs are too few. {_SCALE} If "
        "the features are scaled, raise max_iter."
    )


def too_few_epochs(estimator: FitParameters, n_epochs: int) -> str:
    """Return the message that the time was up."""
    return (
        f"solver='sgd' stopped after {n_epochs} of max_iter={estimator.max_iter} epochs: it "
        f"took all of max_time={estimator.max_time or 0.0:g} seconds. Raise max_time."
    )


def _certify(estimator: FitParameters, objective: SoftmaxObjective) -> Evaluation:
    """Set the objective at the estimator's coefficients, and the bound on its relative gap."""
    coef = in_columns(stored_coef(estimator), objective.problem.rows.columns)
    at = objective.evaluate_coefficients(coef, estimator.intercept_)
    set_learnt(estimator, gap=relative_gap(objective, at), objective=at.value)
    return at
