"""The information that rows hold about contrasts of classes, and its inverse.

A contrast is a class's coefficients minus those of the reference class. Their information is the
block of the Hessian that leaves the reference class out. A penalty on all classes' coefficients V
adds (1 / C) (I - 1 1^T / n_classes) to each feature's block, because the shift common to all
classes takes its best value. Features are centred, which makes intercepts nearly independent of
the rest, and matrices are judged after scaling to a unit diagonal.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import linalg
from sklearn.utils import check_consistent_length

from fastsoftmax._estimator.features import checked_features, real_type
from fastsoftmax._estimator.labels import label_array
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import (
    checked_sample_weights,
    computing_of,
    make_problem,
    make_shard,
    regularisation,
    scaled_to_mean_1,
)
from fastsoftmax._estimator.targets import known_labels
from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.foreign_arrays import as_numpy
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.problem.problem import Problem
from fastsoftmax.problem.raw_pass import RawPass
from fastsoftmax.shards.curvature import hessian
from fastsoftmax.threads import answering_signals

# A Newton step of more than this share of a standard error, or this much of a logit, tells that
# the coefficients are not the optimum of the rows.
_OFF = 0.1
# In a direction without information, components below this count as rounding.
_TAKES_PART = 1e-3
# A sum below this share of its terms counts as rounding.
_NO_SUM = 1e-6
_NO_OPTIMUM = (
    "the coefficients are not identifiable: the fit did not converge, as the classes are "
    "separable, wholly or in part, and their likelihood has no maximum (or as max_iter, max_time "
    "or solver ended it early). A finite C makes the optimum unique"
)


class FittedProblem(NamedTuple):
    """The problem of a fit, at the coefficients of an estimator."""

    problem: Problem
    total: float  # sum of the row weights; those of the problem have mean 1
    masses: Array  # (n_classes,) sum of the row weights of each class
    at: Evaluation
    names: list[str]  # of the features, and of the intercept where there is one, last


class Contrasts(NamedTuple):
    """Contrasts with the reference class, of centred features, each class's intercept last."""

    kept: Array  # numbers of the logits of the other classes
    sign: float  # -1 where the only logit is that of the reference class
    likelihood: Array  # information in the rows alone
    covariance: Array  # inverse of the information, a penalty's included
    step: Array  # Newton step from the coefficients


def problem_of(
    estimator: FitParameters, coef: Array, X: Any, y: Any, sample_weight: Any
) -> FittedProblem:
    """Return the problem that an estimator was fitted to, from the rows of that fit."""
    X, y = checked_features(estimator, X), label_array(as_numpy(y, "y"))
    check_consistent_length(X, y)
    row_weights = checked_sample_weights(sample_weight, X)
    targets = known_labels(y, estimator.classes_, row_weights=row_weights)
    scaled, total = scaled_to_mean_1(row_weights, real_type(X.dtype))
    masses = targets.masses(row_weights)
    if not masses.all():
        missing = targets.classes[masses == 0.0].tolist()[0]
        raise ValueError(f"y must hold the labels of the fit; it has none of {missing!r}")
    l2, _ = regularisation(estimator.C, total)
    shard = make_shard(X, targets, scaled, computing_of(estimator))
    problem = make_problem(shard, estimator, l2=l2)
    at = RawPass(problem).evaluate_coefficients(coef, np.array(estimator.intercept_))
    names = getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(problem.n_features)])
    names = [*map(str, names), *(["intercept"] if problem.fit_intercept else [])]
    return FittedProblem(problem, total, masses, at, names)


def _likelihood_hessian(problem: Problem, weights: Array, bias: Array) -> Array:
    """Return the Hessian of the loss, summed over the rows, for centred features and intercepts."""
    return problem.rows.sum(
        hessian, weights, bias, problem.coordinates.center, with_bias=problem.fit_intercept
    )


def contrasts_of(fitted: FittedProblem, position: int) -> Contrasts:
    """Return information, its inverse and the Newton step of contrasts with a class."""
    problem, total, _, at, names = fitted
    k, d, m = problem.n_logits, problem.n_features, len(names)
    kept = np.zeros(1, dtype=int) if k == 1 else np.delete(np.arange(k), position)
    sign = -1.0 if k == 1 and position == 1 else 1.0
    coordinates = problem.coordinates
    sums = _likelihood_hessian(problem, at.weights.astype(np.float64), at.bias)
    blocks = sums.reshape(k, m, k, m)[np.ix_(kept, np.arange(m), kept, np.arange(m))]
    likelihood = blocks.reshape(len(kept) * m, -1) * (total / problem.n_rows)
    information = likelihood
    if problem.l2 > 0.0:
        between = np.eye(len(kept)) - (1.0 / k if k > 1 else 0.0)
        of_feature = np.zeros(m)
        of_feature[:d] = problem.l2 * total / coordinates.scale**2
        information = likelihood + np.kron(between, np.diag(of_feature))
    else:
        _check_columns(problem, names)
    gradient = np.zeros((k, m))
    gradient[:, :d] = at.gradient[: problem.n_weights].reshape(k, d) / coordinates.scale
    if problem.fit_intercept:
        gradient[:, d] = at.gradient[problem.n_weights :]
    covariance = answering_signals(len(information), _inverse, information)
    if covariance is None:
        raise ValueError(_NO_OPTIMUM)
    step = product(covariance, total * gradient[kept].ravel())
    return Contrasts(kept, sign, likelihood, covariance, step)


def _check_columns(problem: Problem, names: list[str]) -> None:
    """Raise where centred columns are linear combinations of others."""
    d = problem.n_features
    # where all probabilities are 1/2, the information about one logit is 1/4 of the second moments
    moments = _likelihood_hessian(problem, np.zeros((1, d)), np.zeros(1))
    empty = np.diag(moments) <= 0.0
    if empty.any():
        raise ValueError(_unidentifiable(names, empty, "they are constant"))
    unit = 1.0 / np.sqrt(np.diag(moments))
    moments = moments * unit * unit[:, np.newaxis]
    values, vectors = answering_signals(len(moments), linalg.eigh, moments)
    flat = vectors[:, values < 1.0 / _most(len(names))]
    if flat.size:
        part = np.abs(flat).max(axis=1) > _TAKES_PART
        if problem.fit_intercept:  # a constant combination is 0 after centring
            terms = (flat * unit[:, np.newaxis])[:d] * problem.coordinates.center[:, np.newaxis]
            part[d] |= bool((np.abs(terms.sum(axis=0)) > _NO_SUM * np.abs(terms).sum(axis=0)).any())
        raise ValueError(_unidentifiable(names, part, "they are collinear"))


def _unidentifiable(names: list[str], which: Array, reason: str) -> str:
    of = [name for name, part in zip(names, which, strict=True) if part]
    shown = ", ".join(of[:8]) + (", ..." if len(of) > 8 else "")
    constant = " (the intercept is a column of ones)" if "intercept" in of else ""
    return (
        f"the coefficients of {shown} are not identifiable: {reason}{constant}. Leave out columns"
    )


def _most(size: int) -> float:
    """Return the largest element that rounding allows in the inverse of a unit-diagonal matrix."""
    return 1.0 / (64.0 * size * float(np.finfo(np.float64).eps))


def _inverse(information: Array) -> Array | None:
    """Return the inverse of a matrix; None where it is not positive definite up to rounding."""
    diagonal = np.diag(information)
    if not (diagonal > 0.0).all():
        return None
    unit = 1.0 / np.sqrt(diagonal)
    try:
        lower = linalg.cholesky(information * unit * unit[:, np.newaxis], lower=True)
    except linalg.LinAlgError:
        return None
    root = linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
    inverse = root.T @ root
    if not np.diag(inverse).max() < _most(len(inverse)):
        return None
    return np.asarray(inverse * unit * unit[:, np.newaxis])


def check_optimum(estimator: FitParameters, problem: Problem, contrasts: Contrasts) -> None:
    """Raise unless the coefficients are the optimum of these rows, as far as statistics need it."""
    k, d = problem.n_logits, problem.n_features
    steps = np.zeros((k, len(contrasts.step) // len(contrasts.kept)))
    steps[contrasts.kept] = contrasts.step.reshape(len(contrasts.kept), -1)
    point = np.append((steps[:, :d] / problem.coordinates.scale).ravel(), steps[:, d:].ravel())
    by_error = float(np.max(np.abs(contrasts.step) / np.sqrt(np.diag(contrasts.covariance))))
    by_logit = problem.largest_logit_change(point)
    if np.isinf(estimator.C) and not getattr(estimator, "converged_", False) and by_logit > _OFF:
        raise ValueError(_NO_OPTIMUM)
    if not max(by_error, by_logit) <= _OFF:
        raise ValueError(
            f"the model is not the optimum of these rows: a Newton step is {by_error:.2g} standard "
            f"errors of a coefficient and {by_logit:.2g} of a logit. X, y and sample_weight must "
            "be those of the fit, and its tol small enough"
        )
