"""From what users pass to rows with targets and weights, to shards and to problems.

Every entry point (fits, sweeps, batches, evaluation, statistics) takes the same steps: `features`
checks X and leaves it in place, `targets` decodes y, this module checks and scales the weights, and
`make_shard` puts them together.
"""

import math
import numbers
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from fastsoftmax._arguments import argument_named, thread_count
from fastsoftmax._estimator.features import real_type
from fastsoftmax._estimator.fitted import FittedEstimator
from fastsoftmax._estimator.targets import Targets, with_weight
from fastsoftmax.arrays import Array
from fastsoftmax.backend import resolve_backend
from fastsoftmax.columns import filled_columns
from fastsoftmax.foreign_arrays import as_numpy
from fastsoftmax.problem.problem import Problem, build_problem
from fastsoftmax.shards.rows import Rows, build_shard, with_columns
from fastsoftmax.shards.shard import Shard

# A finite C has a strength above 0 even where its product with the sum of the row weights
# overflows: with a strength of 0 nothing would be certified, and nobody would be told.
_LEAST_STRENGTH = 1e-300


# ---- how much each row counts: sample weights times class weights, scaled to mean 1 ----


def checked_sample_weights(sample_weight: Any, X: Any) -> Array:
    """Return a weight for each row of X as float64, ones for None; not to be written to."""
    if sample_weight is None:
        return np.ones(X.shape[0])
    sample_weight = as_numpy(sample_weight, "sample_weight")
    with argument_named("sample_weight"):
        row_weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if not np.all(row_weights >= 0.0):
        raise ValueError(f"sample_weight must be >= 0, got {row_weights.min()}")
    return np.asarray(row_weights)


def checked_class_weights(class_weight: Any, classes: Array, masses: Array) -> Array:
    """Return scikit-learn's weight for each class; masses are their sums of row weights.

    A class without any is no class: "balanced" is as if there were no such rows.
    """
    if class_weight == "balanced":
        with np.errstate(divide="ignore"):
            balanced = masses.sum() / (np.count_nonzero(masses > 0.0) * masses)
        return np.where(masses > 0.0, balanced, 0.0)
    known = {label: k for k, label in enumerate(classes.tolist())}
    result = np.ones(len(classes))
    unknown = [label for label in class_weight if label not in known]
    if unknown and len(class_weight) - len(unknown) < len(classes):  # one may stand for another
        lacking = [label for label in known if label not in class_weight]
        raise ValueError(
            f"class_weight names classes that y does not hold ({unknown}), and lacks classes that "
            f"y holds ({lacking})"
        )
    for label, weight in class_weight.items():
        if not (isinstance(weight, numbers.Real) and 0.0 <= float(weight) < np.inf):
            raise ValueError(f"class_weight must hold numbers >= 0, got {weight!r} for {label!r}")
        if label in known:
            result[known[label]] = float(weight)
    return result


def class_weighted(
    targets: Targets, row_weights: Array, class_weights: Array
) -> tuple[Targets, Array]:
    """(targets, row weights) where each class counts by its weight.

    A row of probabilities p_k counts like rows of the classes k with weights p_k, so a class's
    weight is that of its share of the row.
    """
    if targets.labels is not None:
        return targets, row_weights * class_weights[targets.labels]
    shares = targets.probs * class_weights
    sums = shares.sum(axis=1)
    probs = shares / np.where(sums > 0.0, sums, 1.0)[:, np.newaxis]
    return targets._replace(probs=probs), row_weights * sums


def scaled_to_mean_1(row_weights: Array, real: np.dtype[Any]) -> tuple[Array, float]:
    """(row weights of mean 1, in a number type; their sum before that scaling)."""
    largest = float(row_weights.max(initial=0.0))
    if largest == 0.0:
        raise ValueError("sample_weight and class_weight leave no row with a weight above 0")
    scaled = row_weights / largest  # so that no sum overflows
    mean = float(scaled.mean())
    total = mean * len(scaled) * largest
    if not np.isfinite(total):
        raise ValueError("the sum of sample_weight is too large for float64")
    scaled /= mean
    return np.ascontiguousarray(scaled, dtype=real), total


# ---- rows ----


class Computing(NamedTuple):
    """How sums over rows are computed."""

    backend: ModuleType
    n_threads: int


class HeldOut(NamedTuple):
    """Rows that are not fitted to but validated on."""

    rows: Array  # their numbers, ascending
    targets: Targets
    row_weights: Array  # (n_rows,) sample weights times class weights


class TrainingRows(NamedTuple):
    """Rows to fit to, checked."""

    shard: Shard  # its row weights have mean 1, and are 0 for rows held out
    total: float  # sum of the row weights before that scaling
    unscaled: Array  # (n_rows,) float64, the row weights before it
    targets: Targets  # among classes that all have rows of a weight above 0
    seen: Array  # labels of all classes that occur
    held_out: HeldOut | None

    @property
    def classes(self) -> Array:
        """Labels of the classes."""
        return self.targets.classes


def training_rows(
    estimator: FittedEstimator,
    X: Any,
    targets: Targets,
    sample_weight: Any,
    *,
    hold_out: Callable[[Any, Targets, Array], Array] | None = None,  # of X, y, sample weights
) -> TrainingRows:
    """Return rows with their weights in a fit; hold_out returns the numbers of rows to hold out."""
    row_weights = checked_sample_weights(sample_weight, X)
    held = None if hold_out is None else hold_out(X, targets, row_weights)
    if estimator.class_weight is not None:
        masses = targets.masses(_without(row_weights, held))
        by_class = checked_class_weights(estimator.class_weight, targets.classes, masses)
        targets, row_weights = class_weighted(targets, row_weights, by_class)
    fitted, real = _without(row_weights, held), real_type(X.dtype)
    smoothing = float(getattr(estimator, "label_smoothing", 0.0))  # FastSoftmaxCV has none
    kept = targets
    given = sample_weight, estimator.class_weight, held
    is_weighted = any(part is not None for part in given)
    if is_weighted:
        scaled, total = scaled_to_mean_1(fitted, real)
    else:
        scaled, total = fitted.astype(real, copy=False), float(len(fitted))
    if is_weighted or targets.labels is None:
        kept = with_weight(targets, scaled, smoothed=smoothing > 0.0)
    shard = make_shard(X, kept, scaled, computing_of(estimator), smoothing)
    held_out = None if held is None else HeldOut(held, kept.of_rows(held), row_weights[held])
    return TrainingRows(shard, total, fitted, kept, targets.classes, held_out)


def _without(row_weights: Array, rows: Array | None) -> Array:
    """Return the row weights with 0 for some rows."""
    if rows is None:
        return row_weights
    left = row_weights.copy()
    left[rows] = 0.0
    return left


def computing_of(estimator: FittedEstimator) -> Computing:
    """Return the backend and the number of threads that an estimator asks for."""
    backend = resolve_backend(estimator.backend)
    return Computing(backend, thread_count(estimator.n_jobs, backend))


def make_shard(
    X: Any, targets: Targets, row_weights: Array, computing: Computing, smoothing: float = 0.0
) -> Shard:
    """Return rows with targets, dense or CSR, that are computed on in the row weights' type."""
    probs = targets.probs
    return build_shard(
        X,
        targets.labels,
        None if probs is None else np.ascontiguousarray(probs, dtype=row_weights.dtype),
        row_weights,
        len(targets.classes),
        backend=computing.backend,
        label_smoothing=smoothing,
        n_threads=computing.n_threads,
    )


def evaluation_shard(X: Any, targets: Targets, row_weights: Array, like: Shard) -> Shard:
    """Return rows to evaluate a fit on, which are computed on as its own rows are."""
    scaled, _ = scaled_to_mean_1(row_weights, like.real)
    shard = make_shard(X, targets, scaled, Computing(like.backend, like.n_threads))
    return with_columns(shard, filled_columns(X))


def make_problem(
    shard: Shard,
    estimator: FittedEstimator,
    *,
    l2: float = 1.0,
    l1: float = 0.0,
) -> Problem:
    """Return the problem of one shard, as `problem_of`."""
    return problem_of(Rows([shard]), estimator, l2=l2, l1=l1)


def problem_of(
    rows: Rows, estimator: FittedEstimator, *, l2: float = 1.0, l1: float = 0.0
) -> Problem:
    """Return the problem of rows, with the intercept and the scaling that an estimator asks for."""
    return build_problem(
        rows,
        l2,
        l1=l1,
        fit_intercept=estimator.fit_intercept,
        input_scale=estimator.input_scale,
        standardize=estimator.standardize,
    )


def regularisation(C: float, total: float, l1_ratio: float | None = 0.0) -> tuple[float, float]:
    """(l2, l1), the strengths of squared norm and 1-norm, for row weights of a sum.

    Together they are 1 / (C total), which is 0 only where C is infinite.
    """
    ratio = float(l1_ratio or 0.0)
    if math.isinf(C):
        return 0.0, 0.0
    share = float(C) * total
    strength = max(1.0 / share if share > 0.0 else np.inf, _LEAST_STRENGTH)
    if np.isinf(strength):
        raise ValueError(f"C={C} is too small for weights with a sum of {total:g}: raise C")
    return strength * (1.0 - ratio), strength * ratio
