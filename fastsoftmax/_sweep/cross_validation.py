"""Fits and scores of every fold at every C, and the choice among them."""

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import get_scorer

from fastsoftmax._estimator.fitted import set_learnt
from fastsoftmax._sweep.folds import Fold, SweepRows
from fastsoftmax._sweep.path import Fit, Limits, curvature_at, solve
from fastsoftmax.arrays import Array
from fastsoftmax.estimator import FastSoftmax
from fastsoftmax.floating_point import users_code
from fastsoftmax.optimum.full_batch import suits_newton

# Scores that a pass over the rows left out returns by itself.
FUSED = ("accuracy", "neg_log_loss")


class Paths(NamedTuple):
    """Results for each fold and C, which are the first two axes of every array."""

    coefs: Array  # (n_folds, n_Cs, n_logits, n_features) of the number type computed in
    intercepts: Array  # (n_folds, n_Cs, n_logits) of it
    scores: Array  # (n_folds, n_Cs) float64
    gaps: Array  # (n_folds, n_Cs) float64
    n_iter: Array  # (n_folds, n_Cs) int32
    whole: list[Fit]  # to all rows, for each C; or none


def paths_of(
    rows: SweepRows,
    folds: list[Fold],
    Cs: Array,
    limits: Limits,
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
    """Return what `paths_of` scores with: a function of a fold and its coefficients.

    weighted: whether scorers get sample weights.
    """
    name = scoring or "accuracy"
    if isinstance(name, str) and name in FUSED:
        return lambda fold, weights, bias: fold.score(weights, bias, name)
    scorer = get_scorer(name)
    shard, real = rows.shard, rows.shard.real

    def score(fold: Fold, weights: Array, bias: Array) -> float:
        estimator = FastSoftmax(n_jobs=rows.estimator.n_jobs, backend=rows.estimator.backend)
        coef, intercept = fold.expanded(weights, bias)
        set_learnt(
            estimator,
            classes=rows.classes,
            coef=coef.astype(real),
            intercept=intercept.astype(real),
            n_features_in=shard.n_features,
        )
        options = {"sample_weight": rows.scoring_weights[fold.test]} if weighted else {}
        truth = y[fold.test]
        complete = len(np.unique(truth)) == len(rows.classes)
        measure = scorer if complete else _with_labels(scorer, rows.classes)
        with users_code():
            return float(measure(estimator, shard.X[fold.test], truth, **options))

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
