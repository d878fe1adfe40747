"""Folds of a cross-validation as weights of the rows of one X, and scores on the rows left out."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._model import inputs
from fastsoftmax.arrays import Array
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum.full_batch import suits_newton
from fastsoftmax.problem.curvature import mean_moments
from fastsoftmax.problem.problem import Problem, build_problem
from fastsoftmax.shards.rows import Rows as Rows_
from fastsoftmax.shards.shard import Shard

# What a row counts at least, in nats, when its class does not occur in the training rows: as in
# sklearn.metrics.log_loss, which takes no probability for less than the epsilon of its type.
_LARGEST_LOSS = -math.log(np.finfo(np.float64).eps)


class Rows(NamedTuple):
    """The rows of all problems of a sweep; weights of 0 are allowed everywhere."""

    base: Problem  # of all rows, but for the penalty
    shard: Shard
    l1_ratio: float
    total: float  # sum of the training weights
    classes: Array  # labels of the classes, each of which has rows of a weight above 0
    labels: Array  # (n_rows,) class numbers; -1 where the class was removed for want of weight
    training_weights: Array  # (n_rows,) float64: sample_weight times class_weight
    scoring_weights: Array  # (n_rows,) float64: sample_weight
    options: dict[str, Any]  # of SoftmaxObjective

    def problem(self, C: float) -> SoftmaxObjective:
        """Return the objective of all rows at a C."""
        return _with_penalty(self.base, inputs.penalty_of(C, self.total), self.l1_ratio)


def _with_penalty(base: Problem, penalty: float, ratio: float) -> SoftmaxObjective:
    return SoftmaxObjective(base.with_penalty((1.0 - ratio) * penalty, ratio * penalty))


def rows_of(model: Any, X: Any, y: Any, sample_weight: Any) -> Rows:
    """Return validated rows as the parameters of an estimator want them.

    Nothing is computed but what all problems share.
    """
    found = inputs.training_rows(model, X, y, sample_weight)
    given = inputs.sample_weights_of(sample_weight, X)
    options = {
        "fit_intercept": model.fit_intercept,
        "input_scale": model.input_scale,
        "standardize": model.standardize,
    }
    objective = build_problem(Rows_([found.shard]), 1.0, **options)
    l1_ratio = float(model.l1_ratio or 0.0)
    if l1_ratio == 0.0 and not suits_newton(objective):
        moments = mean_moments(objective.rows, objective.coordinates.center)
        objective = replace(objective, moments=moments)
    return Rows(
        objective,
        found.shard,
        l1_ratio,
        found.total,
        found.classes,
        found.labels,
        # one weight for each class, from all rows: the folds are parts of one problem
        inputs.class_weighted(given, model.class_weight, found.all_classes, found.all_labels),
        given,
        options,
    )


class Fold(NamedTuple):
    """The problem of some rows, and what the other rows are scored with."""

    base: Problem
    l1_ratio: float
    total: float  # sum of the training weights
    present: Array  # (n_classes,) bool: the classes of the training rows
    test: Array  # numbers of the rows left out
    test_shard: Shard  # all rows; those left out have weights, but for the strange ones
    test_weight: float  # sum of the weights of the rows left out
    strange_weight: float  # of those among them whose class the training rows lack

    def problem(self, C: float) -> SoftmaxObjective:
        """Return the objective at a C."""
        return _with_penalty(self.base, inputs.penalty_of(C, self.total), self.l1_ratio)

    def score(self, weights: Array, bias: Array, scoring: str) -> float:
        """Return "accuracy" or "neg_log_loss" of the rows left out, in one pass."""
        sums = self.test_shard.loss_grad(weights, bias, with_grad=False)
        if scoring == "accuracy":
            return sums.correct / self.test_weight
        return -(sums.loss + _LARGEST_LOSS * self.strange_weight) / self.test_weight

    def expanded(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Coefficients for all classes: those that are not present get an intercept of -inf."""
        if self.present.all():
            return weights, bias
        if len(weights) == 1:  # two logits whose difference is the one, and whose sum is 0
            weights = np.vstack([-0.5 * weights, 0.5 * weights])
            bias = np.concatenate([-0.5 * bias, 0.5 * bias])
        all_weights = np.zeros((len(self.present), weights.shape[1]))
        all_bias = np.full(len(self.present), -np.inf)
        all_weights[self.present], all_bias[self.present] = weights, bias
        return all_weights, all_bias


def folds_of(rows: Rows, splits: Any) -> list[Fold]:
    """Return the folds for pairs (training rows, rows left out).

    Each is an array of row numbers (one that occurs twice counts twice) or a mask.
    """
    folds = [_fold(rows, i, train, test) for i, (train, test) in enumerate(splits)]
    if not folds:
        raise ValueError("cv must yield at least one pair (training rows, test rows), got none")
    return folds


def _fold(rows: Rows, i: int, train: Any, test: Any) -> Fold:
    train, test = _numbers(train, rows, i), _numbers(test, rows, i)
    like = rows.shard
    n_rows, n_classes = like.n_rows, like.n_classes
    weights = rows.training_weights * np.bincount(train, minlength=n_rows)
    # rows of removed classes are counted as of class 0, where they weigh nothing
    labels = np.maximum(rows.labels, 0)
    present = np.bincount(labels, weights, minlength=n_classes) > 0.0
    if present.sum() < 2:
        raise ValueError(
            f"the training rows of split {i} of cv need a weight above 0 in at least 2 classes, "
            f"got {int(present.sum())}"
        )
    mean_one, total = inputs.scaled_weights(weights, like.real)
    shard = like.reweighted(mean_one)
    if not present.all():
        targets = np.where(present, np.cumsum(present) - 1, 0).astype(np.int32)[labels], None
        options = {"backend": like.backend, "n_threads": like.n_threads}
        shard = inputs.shard_of(like.X, *targets, mean_one, int(present.sum()), **options)
    left_out: Array = rows.scoring_weights * np.bincount(test, minlength=n_rows)
    largest = float(left_out.max())
    if largest <= 0.0:
        raise ValueError(f"the test rows of split {i} of cv need a weight above 0, got none")
    # no sum overflows, and where all weigh the same accuracies are exact: equal ones compare equal
    left_out /= largest
    test_weight = float(left_out.sum())
    strange = (rows.labels < 0) | ~present[labels]
    strange_weight = float(left_out[strange].sum())
    left_out[strange] = 0.0
    return Fold(
        base=build_problem(Rows_([shard]), 1.0, moments=rows.base.moments, **rows.options),
        l1_ratio=rows.l1_ratio,
        total=total,
        present=present,
        test=test,
        test_shard=shard.reweighted(left_out.astype(like.real)),
        test_weight=test_weight,
        strange_weight=strange_weight,
    )


def _numbers(chosen: Any, rows: Rows, i: int) -> Array:
    """Row numbers >= 0 for an array of row numbers or a mask."""
    n_rows = len(rows.labels)
    try:
        given = np.asarray(chosen)
        numbers = np.arange(n_rows)[given if given.size else np.zeros(n_rows, dtype=bool)]
    except IndexError as error:
        raise ValueError(f"split {i} of cv does not fit the rows of X: {error}") from None
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"split {i} of cv must hold row numbers, got {chosen!r}")
    return np.asarray(numbers)
