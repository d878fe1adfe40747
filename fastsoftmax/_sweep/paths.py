"""Fits and scores of several problems over the rows of one X: all folds at every C.

The problems differ in the penalty (a path of C) and in the weights of the rows (folds). They share
the rows themselves, and what a solver has learnt of the Hessian of the problem before. Starts are
never taken from a problem with other rows: where the tolerance is loose, a fold would otherwise
keep something of what the rows that it is tested on have taught.

Fits that are only scored may end at an estimated gap (`solvers.estimated_gap`), as may the fit to
all rows that leads them at each C. The path ends where the mean score has clearly fallen.

At each C the solver learns the curvature in a fit to all rows, and the folds take it over. The
default sweep of 1000 x 784 images, 5 folds: 2.9 s of CPU; with the best blocks that can be had,
made before that fit, 8.4 s. Starts from the coefficients of the fit to all rows gained 2 % at best.
"""

import copy
import inspect
import math
import numbers
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import get_scorer

from fastsoftmax._estimator.fitted import check_finite, coef_of, set_learnt
from fastsoftmax._sweep.folds import Fold, SweepRows
from fastsoftmax._sweep.progress import Progress
from fastsoftmax.arrays import Array
from fastsoftmax.estimator import FastSoftmax
from fastsoftmax.floating_point import users_code
from fastsoftmax.monitor import Monitor
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.optimum.full_batch import solver_for, suits_newton
from fastsoftmax.optimum.outcome import NOTHING_CERTIFIED
from fastsoftmax.problem.evaluation import Seen
from fastsoftmax.problem.problem import Problem
from fastsoftmax.solvers.protocols import Limits, Preconditioner

# Scores that a pass over the rows left out returns by itself.
FUSED = ("accuracy", "neg_log_loss")
# A score has clearly fallen where so many means in a row, the latest ones, are below the best by
# more than one standard error of the difference.
_LATEST = 2


History = dict[str, list[Any]]


class Fit(NamedTuple):
    """One problem, solved."""

    point: Array  # the solver's vector
    weights: Array  # (n_logits, n_features) float64, of values of the number type computed in
    bias: Array  # (n_logits,) likewise
    gap: float  # certified bound on (F - min F) / F
    n_iter: int
    is_near: bool  # whether the gap is at most `tol`, certified or estimated as the limits ask
    value: float  # F there
    history: History  # as the attribute `history_` has it
    curvature: Preconditioner | None  # what was learnt of the inverse Hessian


class Paths(NamedTuple):
    """Results for each fold and C, which are the first two axes of every array.

    Where the path ended before a C, they are NaN, 0 iterations and False.
    """

    coefs: Array  # (n_folds, n_Cs, n_logits, n_features) of the number type computed in
    intercepts: Array  # (n_folds, n_Cs, n_logits) of it
    scores: Array  # (n_folds, n_Cs) float64
    gaps: Array  # (n_folds, n_Cs) float64
    n_iter: Array  # (n_folds, n_Cs) int32
    is_near: Array  # (n_folds, n_Cs) bool, as of `Fit`
    whole: list[Fit]  # to all rows, for each C; or none


def solve(
    objective: SoftmaxObjective,
    start: Array,
    limits: Limits[Any],
    curvature: Preconditioner | None = None,
) -> Fit:
    """Minimise from a point, with what a problem much like this one has taught of the Hessian."""
    problem = objective.problem
    solver = solver_for(problem, "auto")
    began = time.perf_counter()
    monitor = Monitor(solver, problem.n_rows, limits.max_iter, (), (), 0, began)

    def note(n_iter: int, at: Seen, gap: float) -> bool:
        return monitor.record(
            n_iter, at.loss, at.accuracy, lambda: (at.weights, at.bias), at.value, gap
        )

    result, learnt = full_batch.solve(
        objective,
        start,
        replace(limits, on_iteration=note),
        newton=suits_newton(problem),
        first=curvature,
    )
    at = result.evaluation
    check_finite(at, problem.rows)
    is_near = result.gap <= limits.tol or result.reason == "estimated"
    return Fit(
        result.point,
        at.weights,
        at.bias,
        result.gap,
        result.n_iter,
        is_near,
        at.value,
        monitor.history,
        learnt,
    )


class Plan(NamedTuple):
    """What to fit along a path, and how far."""

    Cs: Array  # (n_Cs,) ascending
    limits: Limits[Any]  # of each fit
    stops: bool  # whether the path ends where the score has clearly fallen


def paths_of(
    rows: SweepRows,
    folds: list[Fold],
    plan: Plan,
    score: Callable[[Fold, Array, Array], float],
    progress: Progress,
) -> Paths:
    """Fit and score all folds at a C, each from its own fit at the C before.

    The folds take over what a fit to all rows has learnt about the Hessian. There is no such fit
    where Newton's method suits. score is a function of a fold and the coefficients of its classes.
    """
    whole = rows.family.problem
    paths = _no_paths((len(folds), len(plan.Cs)), whole, rows.shard.real)
    points = [fold.family.problem.null_point for fold in folds]
    point, leads = whole.null_point, rows.family.l1_ratio == 0.0 and not suits_newton(whole)
    for j, C in enumerate(plan.Cs):
        curvature = None
        if leads:
            objective = rows.family.at(C)
            lead = solve(objective, point, plan.limits)
            point, curvature = lead.point, lead.curvature
            paths.whole.append(lead._replace(curvature=None))
        for i, fold in enumerate(folds):
            objective = fold.family.at(C)
            alike = (
                fold.family.problem.n_logits == whole.n_logits
            )  # a fold that lacks a class has fewer
            fit = solve(objective, points[i], plan.limits, curvature if alike else None)
            points[i] = fit.point
            paths.gaps[i, j], paths.n_iter[i, j] = fit.gap, fit.n_iter
            paths.is_near[i, j] = fit.is_near
            paths.coefs[i, j], paths.intercepts[i, j] = fold.expanded(fit.weights, fit.bias)
            paths.scores[i, j] = score(fold, fit.weights, fit.bias)
            progress.tell_fold(C, i, fit.n_iter, fit.gap, paths.scores[i, j])
        if plan.stops and j + 1 < len(plan.Cs) and has_fallen(paths.scores[:, : j + 1]):
            progress.tell_end(len(plan.Cs) - j - 1)
            break
    return paths


def _no_paths(shape: tuple[int, int], whole: Problem, real: np.dtype[Any]) -> Paths:
    """Return the results before any fit."""
    return Paths(
        np.full((*shape, whole.n_logits, whole.n_features), np.nan, dtype=real),
        np.full((*shape, whole.n_logits), np.nan, dtype=real),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.zeros(shape, dtype=np.int32),
        np.zeros(shape, dtype=bool),
        [],
    )


def score_function(
    scoring: str | Callable[..., float] | None, rows: SweepRows, y: Array, *, weighted: bool
) -> Callable[[Fold, Array, Array], float]:
    """Return what `paths_of` scores with; weighted: whether scorers get sample weights."""
    name = scoring or "accuracy"
    if isinstance(name, str) and name in FUSED:
        return lambda fold, weights, bias: fold.score(weights, bias, name)
    if isinstance(name, str) and y.ndim > 1:
        raise ValueError(
            f"scoring={name!r} needs labels: where y holds probabilities, scoring is None, "
            "'accuracy', 'neg_log_loss' or a callable"
        )
    scorer = get_scorer(name)
    real, coef_in = rows.shard.real, partial(coef_of, rows.estimator, rows.shard.columns)

    def score(fold: Fold, weights: Array, bias: Array) -> float:
        estimator = FastSoftmax(n_jobs=rows.estimator.n_jobs, backend=rows.estimator.backend)
        coef, intercept = fold.expanded(weights, bias)
        set_learnt(
            estimator,
            classes=rows.classes,
            coef=coef_in(coef.astype(real)),
            intercept=intercept.astype(real),
            n_features_in=rows.X.shape[1],
        )
        options = {"sample_weight": rows.scoring_weights[fold.test]} if weighted else {}
        truth = y[fold.test]
        complete = y.ndim > 1 or len(np.unique(truth)) == len(rows.classes)
        measure = scorer if complete else _with_labels(scorer, rows.classes)
        with users_code():
            return float(measure(estimator, rows.X[fold.test], truth, **options))

    return score


def _with_labels(scorer: Any, classes: Array) -> Any:
    """Return the scorer with all classes as its labels, if its metric takes any."""
    metric = getattr(scorer, "_score_func", None)
    if metric is None:
        return scorer
    known = inspect.signature(metric).parameters
    if "labels" not in known:
        return scorer
    options: dict[str, Any] = {"labels": classes}
    if len(classes) == 2 and "pos_label" in known and known["pos_label"].default is None:
        options["pos_label"] = classes[1]
    told = copy.copy(scorer)
    told._kwargs = {**options, **scorer._kwargs}
    return told


def best_index(scores: Array, *, one_standard_error: bool) -> int:
    """Return the column of the best mean, or of the first within one standard error of that.

    Of equal means the first counts; a mean that is no number counts as the worst.
    """
    means = scores.mean(axis=0)
    if np.isnan(means).all():
        raise ValueError("scoring must return numbers, got NaN in some fold for each of Cs")
    means = np.where(np.isnan(means), -np.inf, means)
    best = int(np.argmax(means))
    if not one_standard_error:
        return best
    error = float(scores[:, best].std(ddof=1)) / np.sqrt(len(scores))
    return int(np.argmax(means >= means[best] - error))


def has_fallen(scores: Array) -> bool:
    """Whether the mean score has clearly fallen along a path, and is not on its way back.

    scores are of shape (n_folds, n_Cs), of all C so far. Differences from the best C are taken fold
    by fold: that some folds are harder than others does not hide them.
    """
    n_folds, n_Cs = scores.shape
    if n_folds < 2 or n_Cs <= _LATEST:
        return False
    means = scores.mean(axis=0)
    best = int(np.argmax(np.where(np.isnan(means), -np.inf, means)))
    lost = scores[:, [best]] - scores[:, -_LATEST:]
    error = lost.std(axis=0, ddof=1) / np.sqrt(n_folds)
    return bool((lost.mean(axis=0) > error).all() and means[-1] <= means[-2])


def path_of(Cs: Any) -> Array:
    """Return the values of C, ascending; an integer stands for that many from 1e-4 to 1e4."""
    if isinstance(Cs, numbers.Integral):
        if Cs < 1:
            raise ValueError(f"Cs must be a number of values >= 1 or a sequence of them, got {Cs}")
        return np.logspace(-4, 4, int(Cs))
    try:
        values = np.sort(np.asarray(Cs, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.empty((0, 0))
    if values.ndim != 1 or not len(values) or not (values[0] > 0.0 and values[-1] < math.inf):
        raise ValueError(f"Cs must be an integer or a sequence of finite numbers > 0, got {Cs!r}")
    return values


class Ends(NamedTuple):
    """Where some fits ended; an array has an element for each."""

    Cs: Array
    gaps: Array
    n_iter: Array
    is_near: Array  # as of `Fit`

    def and_of(self, C: float, fit: Fit) -> "Ends":
        """Return these and one more."""
        more = C, fit.gap, fit.n_iter, fit.is_near
        return Ends(*(np.append(some, one) for some, one in zip(self, more, strict=True)))


def ends_of(Cs: Array, paths: Paths) -> Ends:
    """Return where the fits of the folds ended, as far as the path went."""
    tried = ~np.isnan(paths.gaps)
    every = np.broadcast_to(Cs, tried.shape)
    return Ends(every[tried], paths.gaps[tried], paths.n_iter[tried], paths.is_near[tried])


def shortfall(ends: Ends, limits: Limits[Any], real: np.dtype[Any]) -> str | None:
    """Say how many fits missed `tol`, and what to do; None if none did."""
    Cs, gaps, n_iter, missed = ends.Cs, ends.gaps, ends.n_iter, ~ends.is_near
    if not missed.any():
        return None
    worst = int(np.argmax(np.where(missed, gaps, -1.0)))
    largest = f"the largest relative gap is {gaps[worst]:.1e}, at C={Cs[worst]:.3g}"
    if gaps[worst] >= NOTHING_CERTIFIED:
        largest = f"of the one at C={Cs[worst]:.3g} nothing could be certified"
    said = (
        f"{int(missed.sum())} of {gaps.size} fits are not certified to tol={limits.tol:g}: "
        f"{largest}."
    )
    if (n_iter[missed] >= limits.max_iter).any():
        return f"{said} Some took all of max_iter={limits.max_iter} iterations: raise max_iter."
    if real == np.float32:
        return f"{said} This is as far as float32 goes: pass X as float64, or raise tol."
    return f"{said} This is as far as float64 goes: raise tol, or scale the features."
