"""Fits and scores of every fold at every C, and the choice among them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import get_scorer

from fastsoftmax._folds import Fold, Rows
from fastsoftmax._sweep import Limits, curvature_at, solve
from fastsoftmax.estimator import FastSoftmax
from fastsoftmax.preconditioner import Preconditioner
from fastsoftmax.shard import Array

# What a pass over the rows left out returns by itself.
FUSED = ("accuracy", "neg_log_loss")


class Paths(NamedTuple):
    """What there is for each fold and C: the first two axes of every array."""

    coefs: Array  # (n_folds, n_Cs, n_logits, n_features) of the number type computed in
    intercepts: Array  # (n_folds, n_Cs, n_logits) of it
    scores: Array  # (n_folds, n_Cs) float64
    gaps: Array  # (n_folds, n_Cs) float64
    n_iter: Array  # (n_folds, n_Cs) int32


def paths_of(
    rows: Rows,
    folds: list[Fold],
    Cs: Array,
    limits: Limits,
    score: Callable[[Fold, Array, Array], float],
    verbose: int,
) -> Paths:
    """Fit and score all folds at a C, each from its own fit at the C before.

    score is a function of a fold and the coefficients of its classes.
    """
    shape, whole = (len(folds), len(Cs)), rows.objective
    real = whole.shards[0].real
    paths = Paths(
        np.empty((*shape, whole.n_logits, whole.n_features), dtype=real),
        np.empty((*shape, whole.n_logits), dtype=real),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape, dtype=np.int32),
    )
    points = [fold.objective.null_point() for fold in folds]
    for j, C in enumerate(Cs):
        # what the first fold has learnt serves the others; folds that lack classes are apart
        known: dict[int, Preconditioner | None] = {}
        for i, fold in enumerate(folds):
            objective = fold.problem(C)
            n_logits = objective.n_logits
            if n_logits not in known:
                known[n_logits] = curvature_at(objective, points[i])
                fit = solve(objective, points[i], limits, known[n_logits])
                known[n_logits] = fit.curvature
            else:
                fit = solve(objective, points[i], limits, known[n_logits])
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
    scoring: Any, rows: Rows, y: Array, weighted: bool, n_jobs: int | None, backend: str
) -> Callable[[Fold, Array, Array], float]:
    """Return the function that `paths_of` scores with; weighted: scorers get sample weights."""
    name = scoring or "accuracy"
    if isinstance(name, str) and name in FUSED:
        return lambda fold, weights, bias: fold.score(weights, bias, name)
    scorer = get_scorer(name)
    (shard,) = rows.objective.shards

    def score(fold: Fold, weights: Array, bias: Array) -> float:
        model: Any = FastSoftmax(n_jobs=n_jobs, backend=backend)
        coef, intercept = fold.expanded(weights, bias)
        model.coef_, model.intercept_ = coef.astype(shard.real), intercept.astype(shard.real)
        model.classes_, model.n_features_in_ = rows.classes, shard.n_features
        options = {"sample_weight": rows.scoring_weights[fold.test]} if weighted else {}
        return float(scorer(model, shard.X[fold.test], y[fold.test], **options))

    return score


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
