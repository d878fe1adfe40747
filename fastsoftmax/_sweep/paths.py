"""Fits and scores of several problems over the rows of one X: all folds at every C.

The problems differ in the penalty (a path of C) and in the weights of the rows (folds). They share
the rows themselves, the second moments of the features, and what a solver has learnt of the Hessian
of the problem before. Starts are never taken from a problem with other rows: where the tolerance is
loose, a fold would otherwise keep something of what the rows that it is tested on have taught.

For each C the Hessian's blocks are computed once, for a fit to all rows, whose curvature the folds
take over. Measured on 10 C and 5 folds of 20000 x 784 bytes, a block matrix of all classes costing
100 to 200 passes: 2210 passes and 10 such matrices, 68 s. With the first fold in the place of all
rows 2940 and 11 (some features occur in few rows, and not in that fold); with matrices of their own
for folds that differ 1970 and 19, 90 s; with the solver's own refinement in the fit to all rows
2680 and 9. Starts from the coefficients of the fit to all rows gained 2% at best.
"""

import copy
import inspect
import math
import numbers
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import get_scorer

from fastsoftmax._estimator.fitted import check_finite, coef_of, set_learnt
from fastsoftmax._sweep.folds import Fold, SweepRows
from fastsoftmax.arrays import Array
from fastsoftmax.estimator import FastSoftmax
from fastsoftmax.floating_point import users_code
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.optimum.full_batch import suits_newton
from fastsoftmax.solvers.protocols import Limits, Preconditioner

# Scores that a pass over the rows left out returns by itself.
FUSED = ("accuracy", "neg_log_loss")


class Fit(NamedTuple):
    """One problem, solved."""

    point: Array  # the solver's vector
    weights: Array  # (n_logits, n_features) float64, of values of the number type computed in
    bias: Array  # (n_logits,) likewise
    gap: float  # certified bound on (F - min F) / F
    n_iter: int
    curvature: Preconditioner | None  # what was learnt of the inverse Hessian


class Paths(NamedTuple):
    """Results for each fold and C, which are the first two axes of every array."""

    coefs: Array  # (n_folds, n_Cs, n_logits, n_features) of the number type computed in
    intercepts: Array  # (n_folds, n_Cs, n_logits) of it
    scores: Array  # (n_folds, n_Cs) float64
    gaps: Array  # (n_folds, n_Cs) float64
    n_iter: Array  # (n_folds, n_Cs) int32
    whole: list[Fit]  # to all rows, for each C; or none


def solve(
    objective: SoftmaxObjective,
    start: Array,
    limits: Limits[Any],
    curvature: Preconditioner | None = None,
) -> Fit:
    """Minimise from a point, with what a problem much like this one has taught of the Hessian."""
    result, learnt = full_batch.solve(
        objective, start, limits, newton=suits_newton(objective.problem), first=curvature
    )
    at = result.evaluation
    check_finite(at, objective.problem.rows)
    return Fit(result.point, at.weights, at.bias, result.gap, result.n_iter, learnt)


def curvature_at(objective: SoftmaxObjective, point: Array) -> Preconditioner | None:
    """Return the Hessian's blocks at a point, inverted; None where they are of no use."""
    with np.errstate(over="ignore", invalid="ignore"):
        return objective.refined_preconditioner(objective.evaluate(point))


def paths_of(
    rows: SweepRows,
    folds: list[Fold],
    Cs: Array,
    limits: Limits[Any],
    score: Callable[[Fold, Array, Array], float],
    verbose: int,
) -> Paths:
    """Fit and score all folds at a C, each from its own fit at the C before.

    The folds take over what a fit to all rows has learnt about the Hessian. There is no such fit
    where Newton's method suits. score is a function of a fold and the coefficients of its classes.
    """
    shape, whole, real = (len(folds), len(Cs)), rows.family.problem, rows.shard.real
    paths = Paths(
        np.empty((*shape, whole.n_logits, whole.n_features), dtype=real),
        np.empty((*shape, whole.n_logits), dtype=real),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape, dtype=np.int32),
        [],
    )
    points = [fold.family.problem.null_point for fold in folds]
    point, leads = whole.null_point, rows.family.l1_ratio == 0.0 and not suits_newton(whole)
    for j, C in enumerate(Cs):
        curvature = None
        if leads:
            objective = rows.family.at(C)
            lead = solve(objective, point, limits, curvature_at(objective, point))
            point, curvature = lead.point, lead.curvature
            paths.whole.append(lead._replace(curvature=None))
        for i, fold in enumerate(folds):
            objective = fold.family.at(C)
            alike = (
                fold.family.problem.n_logits == whole.n_logits
            )  # a fold that lacks a class has fewer
            fit = solve(objective, points[i], limits, curvature if alike else None)
            points[i] = fit.point
            paths.gaps[i, j], paths.n_iter[i, j] = fit.gap, fit.n_iter
            paths.coefs[i, j], paths.intercepts[i, j] = fold.expanded(fit.weights, fit.bias)
            paths.scores[i, j] = score(fold, fit.weights, fit.bias)
            if verbose:
                print(
                    f"C {C:.3g}  fold {i + 1}  iterations {fit.n_iter}  gap {fit.gap:.1e}  "
                    f"score {paths.scores[i, j]:.4f}",
                    flush=True,
                )
    return paths


def score_function(
    scoring: str | Callable[..., float] | None, rows: SweepRows, y: Array, *, weighted: bool
) -> Callable[[Fold, Array, Array], float]:
    """Return what `paths_of` scores with; weighted: whether scorers get sample weights."""
    name = scoring or "accuracy"
    if isinstance(name, str) and name in FUSED:
        return lambda fold, weights, bias: fold.score(weights, bias, name)
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
        complete = len(np.unique(truth)) == len(rows.classes)
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


def shortfall(
    gaps: Array, n_iter: Array, Cs: Array, limits: Limits[Any], real: np.dtype[Any]
) -> str | None:
    """Say how many fits missed `tol`, and what to do; None if none did."""
    missed = ~(gaps <= limits.tol)
    if not missed.any():
        return None
    worst = int(np.argmax(np.where(missed, gaps, -1.0)))
    said = (
        f"{int(missed.sum())} of {gaps.size} fits are not certified to tol={limits.tol:g}: the "
        f"largest relative gap is {gaps[worst]:.1e}, at C={Cs[worst]:.3g}."
    )
    if (n_iter[missed] >= limits.max_iter).any():
        return f"{said} Some took all of max_iter={limits.max_iter} iterations: raise max_iter."
    if real == np.float32:
        return f"{said} This is as far as float32 goes: pass X as float64, or raise tol."
    return f"{said} This is as far as float64 goes: raise tol, or scale the features."
