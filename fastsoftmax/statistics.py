"""What a fit says of its own uncertainty: standard errors, tests and intervals of coefficients.

Probabilities depend on differences of the classes' coefficients alone. So statistics are those of
contrasts: the coefficients of each class minus those of a reference class, as in statsmodels'
`MNLogit`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._estimator.fitted import dense_coef
from fastsoftmax._estimator.information import (
    Contrasts,
    FittedProblem,
    check_optimum,
    contrasts_of,
    names_of,
    problem_of,
)
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax.arrays import Array
from fastsoftmax.blas import single_threaded_blas
from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.problem.raw_pass import RawPass


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
        """Probabilities of a z at least as far from 0 if the coefficient were 0 (Wald's test).

        Raises
        ------
        ValueError
            For "laplace", as a posterior tests nothing.
        """
        if self.covariance_type != "fisher":
            raise ValueError('there are p-values for covariance="fisher" alone')
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
            return self._records(flat)
        index = pd.MultiIndex.from_product([self.classes, self.terms], names=["class", "term"])
        return pd.DataFrame(flat, index=index)

    def _records(self, columns: dict[str, Array]) -> Array:
        """Return the table as a structured array."""
        n_contrasts, n_terms = self.coef.shape
        fields = {
            "class": np.repeat(self.classes, n_terms),
            "term": np.tile(self.terms, n_contrasts),
            **columns,
        }
        records = np.empty(self.coef.size, dtype=[(n, v.dtype) for n, v in fields.items()])
        for name, values in fields.items():
            records[name] = values
        return records


def statistics_of(
    estimator: FitParameters,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    reference: Any,
    covariance: str,
    confidence_level: float,
    max_parameters: int,
) -> FitStatistics:
    """Return the statistics of an estimator's fit; arguments as of `FastSoftmax.statistics`."""
    check_is_fitted(estimator)
    _check_options(estimator, covariance, confidence_level)
    position = _reference_of(reference, estimator.classes_)
    coef = np.asarray(dense_coef(estimator.coef_), np.float64)
    n_parameters = coef.size + len(coef) * bool(estimator.fit_intercept)
    if n_parameters > max_parameters:
        raise ValueError(
            f"statistics need a square matrix of {n_parameters} coefficients, and "
            f"max_parameters is {max_parameters}: raise that if memory allows"
        )
    fitted = problem_of(estimator, X, y, sample_weight)
    at = RawPass(fitted.problem).evaluate_coefficients(coef, np.array(estimator.intercept_))
    names = names_of(estimator, fitted.problem)
    found = contrasts_of(fitted, at, position, names)
    check_optimum(estimator, fitted.problem, found)
    return _result(
        estimator.classes_, fitted, at, found, position, names, covariance, confidence_level
    )


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
    if covariance == "fisher" and not np.isinf(estimator.C):
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


@single_threaded_blas
def _result(
    labels: Array,
    fitted: FittedProblem,
    at: Evaluation,
    contrasts: Contrasts,
    position: int,
    names: list[str],
    covariance_type: str,
    confidence_level: float,
) -> FitStatistics:
    """Return the statistics of the contrasts for raw features, with the intercept first."""
    problem, total = fitted.problem, fitted.total
    m, d = len(names), problem.n_features
    q = len(contrasts.kept)
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
    penalised = problem.l2 > 0.0
    df = float(np.sum(contrasts.covariance * contrasts.likelihood)) if penalised else float(q * m)
    shares = fitted.masses / fitted.masses.sum()
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
        df=df,
    )
