"""The information that rows hold about contrasts of classes, and its inverse.

A contrast is a class's coefficients minus those of the reference class. Their information is the
block of the Hessian that leaves the reference class out; a penalty on all classes' coefficients V
adds (1 / C) (I - 1 1^T / n_classes) to each feature's block of it, as the shift common to all
classes takes its best value. Everything is about centred features, which makes intercepts nearly
independent of the rest, and judged after scaling to a unit diagonal.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import linalg
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import column_or_1d, validate_data

from fastsoftmax._arguments import thread_count
from fastsoftmax._model import inputs
from fastsoftmax.arrays import Array
from fastsoftmax.backend import resolve_backend
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem import problem as problem_module
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.curvature import hessian
from fastsoftmax.shards.rows import Rows
from fastsoftmax.threads import answering_signals

# A Newton step of more than this share of a standard error, or this much of a logit, tells that
# the coefficients are not the optimum of the rows.
_OFF = 0.1
# Components of a direction without information below this are taken for rounding.
_TAKES_PART = 1e-3
# So is a sum below this share of its terms.
_NO_SUM = 1e-6
_NO_OPTIMUM = (
    "the coefficients are not identifiable: the fit did not converge, as the classes are "
    "separable, wholly or in part, and their likelihood has no maximum (or as max_iter, max_time "
    "or solver ended it early). A finite C makes the optimum unique"
)


class Problem(NamedTuple):
    """The rows and the objective of a fit."""

    objective: SoftmaxObjective
    total: float  # sum of the weights; those of the objective have mean 1
    class_weight: Array  # (n_classes,) sum of the weights of each class's rows


class Contrasts(NamedTuple):
    """Contrasts with the reference class, of centred features, each class's intercept last."""

    kept: Array  # numbers of the logits of the other classes
    sign: float  # -1 where the only logit is that of the reference class
    likelihood: Array  # information in the rows alone
    covariance: Array  # inverse of the information, a penalty's included
    step: Array  # Newton's


def problem_of(model: Any, X: Any, y: Any, sample_weight: Any) -> Problem:
    """Return the problem that a model was fitted to, from the rows of that fit."""
    X = validate_data(model, X, reset=False, accept_sparse="csr", dtype=inputs.FEATURE_TYPES)
    X = inputs.features_of(X)
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    weights = inputs.sample_weights_of(sample_weight, X)
    if (weights == 0.0).any():  # of a class without weight the fit knows nothing
        y = np.where(weights > 0.0, y, model.classes_[0])
    labels = inputs.encode_known_labels(y, model.classes_, "y")
    scaled, total = inputs.scaled_weights(weights, inputs.real_of(X.dtype))
    class_weight = np.bincount(labels, weights, minlength=len(model.classes_))
    if not class_weight.all():
        missing = model.classes_[class_weight == 0.0].tolist()[0]
        raise ValueError(f"y must hold the labels of the fit; it has none of {missing!r}")
    backend = resolve_backend(model.backend)
    options = {"backend": backend, "n_threads": thread_count(model.n_jobs, backend)}
    shard = inputs.shard_of(X, labels, None, scaled, len(model.classes_), **options)
    made = build_problem(
        Rows([shard]),
        inputs.penalty_of(model.C, total),
        fit_intercept=model.fit_intercept,
        input_scale=model.input_scale,
        standardize=model.standardize,
    )
    return Problem(SoftmaxObjective(made), total, class_weight)


def names_of(model: Any, objective: problem_module.Problem) -> list[str]:
    """Return the names of the features, and of the intercept where there is one, last."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        names = [f"x{j}" for j in range(objective.n_features)]
    return [*map(str, names), *(["intercept"] if objective.fit_intercept else [])]


def contrasts_of(problem: Problem, at: Evaluation, position: int, names: list[str]) -> Contrasts:
    """Return information, its inverse and the Newton step of the contrasts."""
    objective, total = problem.objective.problem, problem.total
    k, d, m = objective.n_logits, objective.n_features, len(names)
    kept = np.zeros(1, dtype=int) if k == 1 else np.delete(np.arange(k), position)
    sign = -1.0 if k == 1 and position == 1 else 1.0
    coordinates = objective.coordinates
    weights = at.weights.astype(np.float64)
    total_hessian = objective.rows.sum(
        hessian, weights, at.bias, coordinates.center, with_bias=objective.fit_intercept
    )
    blocks = total_hessian.reshape(k, m, k, m)[np.ix_(kept, np.arange(m), kept, np.arange(m))]
    likelihood = blocks.reshape(len(kept) * m, -1) * (total / objective.n_rows)
    information = likelihood
    if objective.l2 > 0.0:
        between = np.eye(len(kept)) - (1.0 / k if k > 1 else 0.0)
        of_feature = np.zeros(m)
        of_feature[:d] = objective.l2 * total / coordinates.scale**2
        information = likelihood + np.kron(between, np.diag(of_feature))
    else:
        _check_columns(objective, names)
    gradient = np.zeros((k, m))
    gradient[:, :d] = at.gradient[: objective.n_weights].reshape(k, d) / coordinates.scale
    if objective.fit_intercept:
        gradient[:, d] = at.gradient[objective.n_weights :]
    covariance = answering_signals(len(information), _inverse, information)
    if covariance is None:
        raise ValueError(_NO_OPTIMUM)
    step = covariance @ (total * gradient[kept].ravel())
    return Contrasts(kept, sign, likelihood, covariance, step)


def _check_columns(objective: problem_module.Problem, names: list[str]) -> None:
    """Raise where some columns, centred, are combinations of others, so that no rows tell them."""
    d = objective.n_features
    # the information about one logit of any rows is their moments, where every probability is 1/2
    moments = objective.rows.sum(
        hessian,
        np.zeros((1, d)),
        np.zeros(1),
        objective.coordinates.center,
        with_bias=objective.fit_intercept,
    )
    empty = np.diag(moments) <= 0.0
    if empty.any():
        raise ValueError(_unidentifiable(names, empty, "they are constant"))
    unit = 1.0 / np.sqrt(np.diag(moments))
    moments = moments * unit * unit[:, np.newaxis]
    values, vectors = answering_signals(len(moments), linalg.eigh, moments)
    flat = vectors[:, values < 1.0 / _most(len(names))]
    if flat.size:
        part = np.abs(flat).max(axis=1) > _TAKES_PART
        if objective.fit_intercept:  # a constant combination vanishes once it is centred
            terms = (flat * unit[:, np.newaxis])[:d] * objective.coordinates.center[:, np.newaxis]
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
    """Return the largest element of an inverse of unit diagonal that is not mere rounding."""
    return 1.0 / (64.0 * size * float(np.finfo(np.float64).eps))


def _inverse(information: Array) -> Array | None:
    """Return the inverse of a positive definite matrix; None where rounding leaves none."""
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


def check_optimum(model: Any, objective: problem_module.Problem, contrasts: Contrasts) -> None:
    """Raise unless the model is the optimum of the rows, as far as statistics can tell."""
    k, d = objective.n_logits, objective.n_features
    steps = np.zeros((k, len(contrasts.step) // len(contrasts.kept)))
    steps[contrasts.kept] = contrasts.step.reshape(len(contrasts.kept), -1)
    point = np.append((steps[:, :d] / objective.coordinates.scale).ravel(), steps[:, d:].ravel())
    by_error = float(np.max(np.abs(contrasts.step) / np.sqrt(np.diag(contrasts.covariance))))
    by_logit = objective.largest_logit_change(point)
    if np.isinf(model.C) and not getattr(model, "converged_", False) and by_logit > _OFF:
        raise ValueError(_NO_OPTIMUM)
    if not max(by_error, by_logit) <= _OFF:
        raise ValueError(
            f"the model is not the optimum of these rows: a Newton step is {by_error:.2g} standard "
            f"errors of a coefficient and {by_logit:.2g} of a logit. X, y and sample_weight must "
            "be those of the fit, and its tol small enough"
        )
