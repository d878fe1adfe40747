"""What a fit says of its own uncertainty: standard errors, tests and intervals of coefficients.

Probabilities depend on differences of the classes' coefficients alone. So statistics are those of
contrasts: the coefficients of each class minus those of a reference class, as in statsmodels'
`MNLogit`.

The information of contrasts is the block of the Hessian that leaves the reference class out. A
penalty on all classes' coefficients V adds (1 / C) (I - 1 1^T / n_classes) to each feature's block,
because the shift common to all classes takes its best value. Features are centred, which makes
intercepts nearly independent of the rest, and matrices are judged after scaling to a unit diagonal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, special
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._arguments import argument_named
from fastsoftmax._estimator.features import checked_features, real_type
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import (
    checked_sample_weights,
    computing_of,
    make_problem,
    make_shard,
    regularisation,
    scaled_to_mean_1,
)
from fastsoftmax._estimator.targets import known_labels, label_array
from fastsoftmax.arrays import Array
from fastsoftmax.blas import product, single_threaded_blas
from fastsoftmax.columns import whole
from fastsoftmax.floating_point import own_arithmetic
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
    "the coefficients are not identifiable: the fit did not converge. Either the classes are "
    "separable, completely or in part, and their likelihood has no maximum. Or max_iter, max_time "
    "or solver ended the fit early. A finite C makes the optimum unique"
)


@dataclass(frozen=True, eq=False, repr=False)
class FitStatistics:
    """Statistics of a fit, as `FastSoftmax.statistics` returns them.

    Arrays of shape (n_contrasts, n_terms) have a row for each class but the reference class, in the
    order of `classes`, and a column for each of `terms`.
    """

    reference: Any  # label of the class that others are compared with
    classes: Array  # (n_contrasts,) labels of the others
    terms: Array  # (n_terms,) "intercept", where there is one, and the names of the features
    covariance_type: str  # "fisher" or "laplace"
    confidence_level: float
    coef: Array  # coefficients minus those of the reference class
    standard_errors: Array  # for "laplace" posterior standard deviations
    conf_int: Array  # (n_contrasts, n_terms, 2): lower and upper ends of the intervals
    covariance: Array  # (n_contrasts * n_terms,) * 2, of coef.ravel()
    log_likelihood: float  # in nats; a row of weight s counts s times
    log_likelihood_null: float  # of the model that gives every row the class shares
    n_observations: float  # sum of the weights
    df: float  # free coefficients; with a penalty their effective number

    def __repr__(self) -> str:
        """Say what is compared and how well the model fits, in a line."""
        return (
            f"<FitStatistics of {self.coef.size} contrasts with {self.reference!s}: "
            f"log_likelihood={self.log_likelihood:.6g}, df={self.df:.6g}, aic={self.aic:.6g}, "
            f"bic={self.bic:.6g}, pseudo_r2={self.pseudo_r2:.4g}>"
        )

    @property
    @own_arithmetic
    def z(self) -> Array:
        """Coefficients divided by their standard errors."""
        return self.coef / self.standard_errors

    @property
    @own_arithmetic
    def p_values(self) -> Array:
        """Two-sided p-values of Wald's test that a coefficient is 0.

        Raises
        ------
        ValueError
            For "laplace", because a posterior distribution has no p-values.
        """
        if self.covariance_type != "fisher":
            raise ValueError('there are p-values only for covariance="fisher"')
        return np.asarray(2.0 * special.ndtr(-np.abs(self.z)))

    @property
    @own_arithmetic
    def aic(self) -> float:
        """Akaike's information criterion, 2 df - 2 log_likelihood."""
        return 2.0 * (self.df - self.log_likelihood)

    @property
    @own_arithmetic
    def bic(self) -> float:
        """Bayesian information criterion, log(n_observations) df - 2 log_likelihood."""
        return float(np.log(self.n_observations)) * self.df - 2.0 * self.log_likelihood

    @property
    @own_arithmetic
    def pseudo_r2(self) -> float:
        """McFadden's 1 - log_likelihood / log_likelihood_null."""
        return 1.0 - self.log_likelihood / self.log_likelihood_null

    @own_arithmetic
    def table(self) -> Any:
        """Return one line for each coefficient, as `FastSoftmax.summary` does.

        Returns
        -------
        pandas.DataFrame or ndarray
            See `FastSoftmax.summary`.
        """
        columns = {"coef": self.coef, "std_err": self.standard_errors}
        if self.covariance_type == "fisher":
            columns |= {"z": self.z, "p_value": self.p_values}
        columns |= {"ci_lower": self.conf_int[..., 0], "ci_upper": self.conf_int[..., 1]}
        flat = {name: np.ravel(values) for name, values in columns.items()}
        try:
            import pandas as pd
        except ImportError:
            n_contrasts, n_terms = self.coef.shape
            classes, terms = np.repeat(self.classes, n_terms), np.tile(self.terms, n_contrasts)
            flat = {"class": classes, "term": terms, **flat}
            records = np.empty(self.coef.size, dtype=[(n, v.dtype) for n, v in flat.items()])
            for name, values in flat.items():
                records[name] = values
            return records
        index = pd.MultiIndex.from_product([self.classes, self.terms], names=["class", "term"])
        return pd.DataFrame(flat, index=index)


class InferringEstimator(FitParameters):
    """The methods of `FastSoftmax` that say how far its coefficients can be trusted."""

    @own_arithmetic
    def summary(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        reference: Any = None,
        covariance: str = "fisher",
        confidence_level: float = 0.95,
        max_parameters: int = 5000,
    ) -> Any:
        """Return a table of coefficients, standard errors, z, p-values and confidence intervals.

        Parameters
        ----------
        X, y, sample_weight, reference, covariance, confidence_level, max_parameters
            As of `statistics`: X, y and sample_weight are those of the fit.

        Returns
        -------
        pandas.DataFrame or ndarray
            Indexed by "class" and "term" ("intercept" and the features), with the columns "coef",
            "std_err", "z", "p_value", "ci_lower" and "ci_upper"; without "z" and "p_value" for
            covariance="laplace". Where pandas is not installed, a structured array of these fields.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            As `statistics`.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from fastsoftmax import FastSoftmax
        >>> X, y = load_iris(return_X_y=True)
        >>> X, y = X[50:], y[50:]
        >>> table = FastSoftmax(C=np.inf).fit(X, y).summary(X, y)
        >>> np.round(table["std_err"], 2).tolist()
        [25.71, 2.39, 4.48, 4.74, 9.74]
        """
        return self.statistics(
            X,
            y,
            sample_weight,
            reference=reference,
            covariance=covariance,
            confidence_level=confidence_level,
            max_parameters=max_parameters,
        ).table()

    @own_arithmetic
    def statistics(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        reference: Any = None,
        covariance: str = "fisher",
        confidence_level: float = 0.95,
        max_parameters: int = 5000,
    ) -> FitStatistics:
        r"""Return standard errors, tests, intervals and information criteria of a fit.

        The covariance of the estimates is the inverse of the Fisher information,

        .. math:: I = \sum_i s_i \, (\mathrm{diag}\, p_i - p_i p_i^T) \otimes x_i x_i^T,

        without the row and column of the reference class. For a finite C, the Hessian of the
        penalty is added to I.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
            The rows of the fit. (A model does not keep them.)
        y : array-like of shape (n_rows,)
            Their labels.
        sample_weight : array-like of shape (n_rows,), optional
            Their weights in the fit. They are frequencies: a row of weight 2 counts like two copies
            of it.
        reference : label, default=None
            The class that the others are compared with. None means the first of `classes_`.
        covariance : {"fisher", "laplace"}, default="fisher"
            "fisher" is the usual inference of maximum likelihood, for a fit without a penalty
            (``C=numpy.inf``). "laplace" is for any C. The penalty is then a normal prior with mean
            0 and variance C for each coefficient (of the scaled features, if they are scaled).
            Standard errors and intervals are those of the normal approximation of the posterior.
            There are no p-values.
        confidence_level : float, default=0.95
            Coverage of the intervals, in (0, 1).
        max_parameters : int, default=5000
            The largest allowed number of coefficients, n_logits * n_terms. Memory grows with its
            square (a few matrices of 200 MB for 5000 coefficients), and time with its square times
            n_rows.

        Returns
        -------
        FitStatistics

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError
            If an argument is of a type that cannot be used.
        ValueError
            If an argument cannot be used; if there are no statistics for such a fit (a penalty with
            "fisher", `l1_ratio` above 0, `class_weight`, `label_smoothing`); if features are
            collinear (the message names them) or classes separable; if the model is not the optimum
            of these rows.

        Notes
        -----
        `temperature_` has no effect. Weights that are not frequencies (of a survey, of classes)
        need a sandwich estimator, which is not implemented.

        References
        ----------
        Agresti, A. (2013). Categorical Data Analysis, 3rd ed., Sections 5.5 and 8.1 (Fisher
        information of the multinomial logit, Wald inference).
        Bishop, C. M. (2006). Pattern Recognition and Machine Learning, Section 4.5.1 (Laplace
        approximation).
        Gray, R. J. (1992). Flexible methods for analyzing survival data using splines. JASA 87
        (effective number of parameters, the trace of I\ :sup:`-1` times I without the penalty).

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from fastsoftmax import FastSoftmax
        >>> X, y = load_iris(return_X_y=True)
        >>> result = FastSoftmax(C=np.inf).fit(X[50:], y[50:]).statistics(X[50:], y[50:])
        >>> result.terms.tolist()
        ['intercept', 'x0', 'x1', 'x2', 'x3']
        >>> result.standard_errors.round(2).tolist()
        [[25.71, 2.39, 4.48, 4.74, 9.74]]
        >>> round(result.aic, 2), round(result.pseudo_r2, 2)
        (21.9, 0.91)
        """
        check_is_fitted(self)
        _check_options(self, covariance, confidence_level)
        position = _reference_of(reference, self.classes_)
        coef = np.asarray(whole(self.coef_), np.float64)
        n_parameters = coef.size + len(coef) * bool(self.fit_intercept)
        if n_parameters > max_parameters:
            raise ValueError(
                f"statistics need a square matrix of {n_parameters} coefficients, and "
                f"max_parameters is {max_parameters}: raise that if memory allows"
            )
        fitted = _problem_of(self, coef, X, y, sample_weight)
        found = _contrasts_of(fitted, position)
        _check_optimum(self, fitted.problem, found)
        return _result(self.classes_, position, fitted, found, covariance, confidence_level)


def _check_options(estimator: FitParameters, covariance: str, confidence_level: Any) -> None:
    """Raise for fits whose statistics are not known, and for wrong options."""
    if covariance not in ("fisher", "laplace"):
        raise ValueError(f'covariance must be "fisher" or "laplace", got {covariance!r}')
    try:
        inside = 0.0 < confidence_level < 1.0
    except TypeError:
        raise TypeError(f"confidence_level must be a number, got {confidence_level!r}") from None
    if not inside:
        raise ValueError(f"confidence_level must lie in (0, 1), got {confidence_level!r}")
    if getattr(estimator, "l1_ratio", None):
        raise ValueError("there are no standard errors for a fit with l1_ratio > 0")
    if estimator.class_weight is not None or estimator.label_smoothing:
        name = "class_weight" if estimator.class_weight is not None else "label_smoothing"
        raise ValueError(
            f"a fit with {name}={getattr(estimator, name)!r} does not maximise the likelihood of "
            "its rows, so the Fisher information is not the precision of its coefficients. Fit "
            "without"
        )
    if covariance == "fisher" and not math.isinf(estimator.C):
        raise ValueError(
            f"C={estimator.C:g} is a penalty, which shrinks coefficients towards 0: tests and "
            'confidence intervals need a fit with C=numpy.inf; covariance="laplace" gives '
            "posterior standard deviations instead"
        )


def _reference_of(reference: Any, classes: Array) -> int:
    """Return the number of the reference class."""
    if reference is None:
        return 0
    labels = list(classes)
    if np.ndim(reference) or reference not in labels:
        raise ValueError(
            f"reference must be one of the classes {classes.tolist()}, got {reference!r}"
        )
    return labels.index(reference)


# ---- the information that rows hold about contrasts, and its inverse ----


class _FittedProblem(NamedTuple):
    """The problem of a fit, at the coefficients of an estimator."""

    problem: Problem
    total: float  # sum of the row weights; those of the problem have mean 1
    masses: Array  # (n_classes,) sum of the row weights of each class
    at: Evaluation
    names: list[str]  # of the features, and of the intercept where there is one, last


class _Contrasts(NamedTuple):
    """Contrasts with the reference class, of centred features, each class's intercept last."""

    kept: Array  # numbers of the logits of the other classes
    sign: float  # -1 where the only logit is that of the reference class
    likelihood: Array  # information in the rows alone
    covariance: Array  # inverse of the information, a penalty's included
    step: Array  # Newton step from the coefficients


def _problem_of(
    estimator: FitParameters, coef: Array, X: Any, y: Any, sample_weight: Any
) -> _FittedProblem:
    """Return the problem that an estimator was fitted to, from the rows of that fit."""
    X, y = checked_features(estimator, X), label_array(as_numpy(y, "y"))
    with argument_named("y"):
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
    return _FittedProblem(problem, total, masses, at, names)


def _likelihood_hessian(problem: Problem, weights: Array, bias: Array) -> Array:
    """Return the Hessian of the loss, summed over the rows, for centred features and intercepts."""
    return problem.rows.sum(
        hessian, weights, bias, problem.coordinates.center, with_bias=problem.fit_intercept
    )


def _contrasts_of(fitted: _FittedProblem, position: int) -> _Contrasts:
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
    return _Contrasts(kept, sign, likelihood, covariance, step)


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


def _check_optimum(estimator: FitParameters, problem: Problem, contrasts: _Contrasts) -> None:
    """Raise unless the coefficients are the optimum of these rows, as far as statistics need it."""
    k, d = problem.n_logits, problem.n_features
    steps = np.zeros((k, len(contrasts.step) // len(contrasts.kept)))
    steps[contrasts.kept] = contrasts.step.reshape(len(contrasts.kept), -1)
    point = np.append((steps[:, :d] / problem.coordinates.scale).ravel(), steps[:, d:].ravel())
    by_error = float(np.max(np.abs(contrasts.step) / np.sqrt(np.diag(contrasts.covariance))))
    by_logit = problem.largest_logit_change(point)
    if math.isinf(estimator.C) and not getattr(estimator, "converged_", False) and by_logit > _OFF:
        raise ValueError(_NO_OPTIMUM)
    if not max(by_error, by_logit) <= _OFF:
        raise ValueError(
            f"the model is not the optimum of these rows: a Newton step is {by_error:.2g} standard "
            f"errors of a coefficient and {by_logit:.2g} of a logit. X, y and sample_weight must "
            "be those of the fit, and its tol small enough"
        )


@single_threaded_blas
def _result(
    labels: Array,
    position: int,
    fitted: _FittedProblem,
    contrasts: _Contrasts,
    covariance_type: str,
    confidence_level: float,
) -> FitStatistics:
    """Return the statistics of the contrasts for raw features, with the intercept first."""
    problem, total, masses, at, names = fitted
    m, d, q = len(names), problem.n_features, len(contrasts.kept)
    to_raw = np.eye(m)  # from intercepts of centred features
    if problem.fit_intercept:
        to_raw[d, :d] = -problem.coordinates.center
    order = np.roll(np.arange(m), m - d)
    to_raw = to_raw[order]
    covariance = contrasts.covariance.reshape(q, m, q, m)
    covariance = np.einsum("ai,kilj,bj->kalb", to_raw, covariance, to_raw, optimize=True)
    covariance = covariance.reshape(q * m, q * m)
    weights = np.hstack([at.weights, at.bias[:, np.newaxis]])[:, :m]
    base = weights[position] if problem.n_logits > 1 else 0.0
    coef = contrasts.sign * (weights[contrasts.kept] - base)[:, order]
    errors = np.sqrt(np.diag(covariance)).reshape(q, m)
    half = float(-special.ndtri(0.5 * (1.0 - confidence_level))) * errors
    df = np.sum(contrasts.covariance * contrasts.likelihood) if problem.l2 > 0.0 else q * m
    shares = masses / masses.sum()
    return FitStatistics(
        reference=labels[position],
        classes=np.delete(labels, position),
        terms=np.array(names)[order],
        covariance_type=covariance_type,
        confidence_level=float(confidence_level),
        coef=coef,
        standard_errors=errors,
        conf_int=np.stack([coef - half, coef + half], axis=-1),
        covariance=covariance,
        log_likelihood=-at.loss * total,
        log_likelihood_null=float(total * np.sum(shares * np.log(shares))),
        n_observations=total,
        df=float(df),
    )
