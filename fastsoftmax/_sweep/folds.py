"""Folds of a cross-validation as row weights of one X, and scores on the rows left out."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._estimator.fitted import FittedEstimator
from fastsoftmax._estimator.label_numbers import numbers_among
from fastsoftmax._estimator.rows import (
    Computing,
    checked_sample_weights,
    computing_of,
    make_problem,
    make_shard,
    regularisation,
    scaled_to_mean_1,
    training_rows,
)
from fastsoftmax._estimator.targets import Targets
from fastsoftmax.arrays import Array
from fastsoftmax.columns import filled_columns
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem.evaluation import BaseGradient
from fastsoftmax.problem.problem import Problem
from fastsoftmax.problem.raw_pass import RawPass
from fastsoftmax.shards.rows import with_columns
from fastsoftmax.shards.shard import Shard

# The loss of a row, in nats, whose class does not occur in the training rows, as in
# sklearn.metrics.log_loss, which raises probabilities to at least the epsilon of their type.
_LARGEST_LOSS = -math.log(np.finfo(np.float64).eps)


class Family(NamedTuple):
    """The problems of some rows, one for each C."""

    problem: Problem  # of any regularisation strength
    base: BaseGradient | None  # which certificates need, and which is the same for each C
    l1_ratio: float
    total: float  # sum of the row weights in training

    def at(self, C: float) -> SoftmaxObjective:
        """Return the objective at a C."""
        l2, l1 = regularisation(C, self.total, self.l1_ratio)
        problem = self.problem.with_penalty(l2, l1)
        return SoftmaxObjective(problem, RawPass(problem, self.base))


def family_of(problem: Problem, l1_ratio: float, total: float) -> Family:
    """Return the problems of some rows, one for each C; problem is any of them."""
    base = None
    if problem.fit_intercept:  # otherwise certificates need none
        with np.errstate(over="ignore", invalid="ignore"):  # as in a fit
            base = RawPass(problem).base()
    return Family(problem, base, l1_ratio, total)


class SweepRows(NamedTuple):
    """The rows of all problems of a sweep; row weights of 0 are allowed everywhere."""

    estimator: FittedEstimator  # whose parameters hold for all problems
    family: Family  # of all rows
    X: Any  # their features as users passed them, checked
    shard: Shard  # all rows
    classes: Array  # labels of the classes, each of which has rows of a weight above 0
    targets: Targets  # in training, with class weights; 0 where the class was removed
    scored: Shard  # all rows, with the targets that scores are for
    removed: Array  # (n_rows,) bool: rows of classes that were removed for want of weight
    training_weights: Array  # (n_rows,) float64: sample weights times class weights
    scoring_weights: Array  # (n_rows,) float64: sample weights


def sweep_rows(
    estimator: FittedEstimator, X: Any, targets: Targets, sample_weight: Any
) -> SweepRows:
    """Return checked rows with targets, and what all problems of a sweep share."""
    # one weight for each class, from all rows: the folds are parts of one problem
    rows = training_rows(estimator, X, targets, sample_weight)
    shard = with_columns(rows.shard, filled_columns(X))
    problem = make_problem(shard, estimator)
    l1_ratio = float(estimator.l1_ratio or 0.0)
    scored = shard
    if targets.probs is not None and estimator.class_weight is not None:
        scored = make_shard(shard.X, targets, shard.row_weights, computing_of(estimator))
        scored.columns = shard.columns
    return SweepRows(
        estimator,
        family_of(problem, l1_ratio, rows.total),
        X,
        shard,
        rows.classes,
        rows.targets,
        scored,
        ~np.isin(targets.classes, rows.classes)[targets.most_likely],
        rows.unscaled,
        checked_sample_weights(sample_weight, X),
    )


class Fold(NamedTuple):
    """The problems of some rows, and what the other rows are scored with."""

    family: Family
    present: Array  # (n_classes,) bool: the classes of the training rows
    test: Array  # numbers of the rows left out
    test_shard: Shard  # all rows; those left out have weights, except those of unseen classes
    test_weight: float  # sum of the weights of the rows left out
    unseen_weight: float  # of those among them whose class the training rows lack

    def score(self, weights: Array, bias: Array, scoring: str) -> float:
        """Return "accuracy" or "neg_log_loss" of the rows left out, in one pass."""
        loss, correct = self.test_shard.metrics(weights, bias)
        if scoring == "accuracy":
            return min(correct / self.test_weight, 1.0)  # (the sums are rounded)
        return -(loss + _LARGEST_LOSS * self.unseen_weight) / self.test_weight

    def expanded(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Return coefficients for all classes: absent ones get an intercept of -inf."""
        if self.present.all():
            return weights, bias
        if len(weights) == 1:  # two logits with this difference and the sum 0
            weights = np.vstack([-0.5 * weights, 0.5 * weights])
            bias = np.concatenate([-0.5 * bias, 0.5 * bias])
        all_weights = np.zeros((len(self.present), weights.shape[1]))
        all_bias = np.full(len(self.present), -np.inf)
        all_weights[self.present], all_bias[self.present] = weights, bias
        return all_weights, all_bias


def fold_of(rows: SweepRows, i: int, train: Any, test: Any) -> Fold:
    """Return fold i; train and test are row numbers (what occurs twice counts twice) or masks."""
    train, test = _numbers(train, rows, i), _numbers(test, rows, i)
    like = rows.shard
    row_weights = rows.training_weights * np.bincount(train, minlength=like.n_rows)
    # rows of removed classes count as class 0, with weight 0
    present = rows.targets.masses(row_weights) > 0.0
    if rows.targets.labels is None and not present.all():
        raise ValueError(
            f"the training rows of split {i} of cv give no probability to class "
            f"{rows.classes[~present].tolist()[0]!r}: pass a cv whose folds hold all classes"
        )
    if present.sum() < 2:
        raise ValueError(
            f"the training rows of split {i} of cv need a weight above 0 in at least 2 classes, "
            f"got {int(present.sum())}"
        )
    mean_one, total = scaled_to_mean_1(row_weights, like.real)
    shard, scored = like.reweighted(mean_one), rows.scored
    labels = rows.targets.most_likely
    if not present.all():
        targets = Targets(rows.classes[present], numbers_among(present)[labels])
        computing = Computing(like.backend, like.n_threads)
        shard = make_shard(like.X, targets, mean_one, computing)
        shard.columns = like.columns
        scored = shard
    left_out: Array = rows.scoring_weights * np.bincount(test, minlength=like.n_rows)
    largest = float(left_out.max())
    if largest <= 0.0:
        raise ValueError(f"the test rows of split {i} of cv need a weight above 0, got none")
    # no sum overflows, and with equal weights accuracies are exact: equal ones compare equal
    left_out /= largest
    test_weight = float(left_out.sum())
    unseen = rows.removed | ~present[labels]
    unseen_weight = float(left_out[unseen].sum())
    left_out[unseen] = 0.0
    whole = rows.family
    problem = make_problem(shard, rows.estimator)
    return Fold(
        family=family_of(problem, whole.l1_ratio, total),
        present=present,
        test=test,
        test_shard=scored.reweighted(left_out.astype(like.real)),
        test_weight=test_weight,
        unseen_weight=unseen_weight,
    )


def _numbers(chosen: Any, rows: SweepRows, i: int) -> Array:
    """Row numbers >= 0 for an array of row numbers or a mask."""
    n_rows = rows.shard.n_rows
    try:
        given = np.asarray(chosen)
        numbers = np.arange(n_rows)[given if given.size else np.zeros(n_rows, dtype=bool)]
    except IndexError as error:
        raise ValueError(f"split {i} of cv does not fit the rows of X: {error}") from None
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"split {i} of cv must hold row numbers, got {chosen!r}")
    return np.asarray(numbers)
