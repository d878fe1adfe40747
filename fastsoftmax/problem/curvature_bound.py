"""How far a point is from the minimum at most, by the curvature there instead of the penalty's.

The bound of `certificate` divides the squared gradient by l2, the least curvature that there can
be. Where rows are many for each coefficient, F curves a thousand times as much, and passes go by
that only prove what was reached long ago.

For v = w* - w, the step to the minimum, let r be the largest change, over the rows, of a difference
of two logits. Along v the curvature of logistic regression falls by a factor of e^r at most (Bach
2010, Electronic J. Statistics 4, "Self-concordant analysis for logistic regression", Proposition 1;
for softmax the third central moment of the logits of a row is at most their range times their
variance). With a matrix A that the Hessian at w is at least, nu = |gradient| in the norm of A^-1,
and R such that r <= R |v|_A, this gives for a = nu R < 1

    F(w) - min F <= ((1 - a) log(1 - a) + a) / R^2 = nu^2 / 2 (1 + a / 3 + ...).

A is the share that some rows have of the Hessian, with the penalty: each row adds to it. Products
of rows and v are bounded by lengths, in coordinates where features have size 1. What all classes
have in common changes no probability: there A gets any curvature, and the penalty that it costs is
added to the bound.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner, single_threaded_blas
from fastsoftmax.problem.curvature import (
    WHOLE_PARAMS,
    hessian_of_rows,
    null_curvature,
    pass_work,
    whole_plan,
    whole_work,
)
from fastsoftmax.problem.evaluation import Evaluation, Pass
from fastsoftmax.problem.problem import Problem
from fastsoftmax.threads import answering_signals

# Eigenvalues below this share of the largest may be rounding.
_RESOLVED = 1e-10
# Values of a that are tried, where a least eigenvalue of A that is large enough is asked for: with
# them the bound is 1.09 and 1.4 times nu^2 / 2. What errors of the gradient may add to nu then;
# where it is more, the least eigenvalue itself is taken.
_TRIED, _ERRORS = (0.25, 0.75), 0.1
# A penalty up to here was raised from less, so the optimum is not quite the one that is asked for.
_LEAST_L2 = 1e-300
# Where less of F is wanted, the coefficients are, whose error is the root of the gap: the fit goes
# on until the other bound says so, and ends with some digits more.
TIGHT = 5e-7
# A first trial comes where the gap that is expected is this share of the one that is wanted, the
# next one where the known bound has fallen to this share. Most passes that a trial may cost, and
# what is aimed at, of a and of what is wanted.
_HOPE, _RETRY, _MOST_PASSES, _SAFE = 0.3, 0.2, 2.5, 0.6


class Bound(NamedTuple):
    """An upper bound on F - min F, inf where a >= 1."""

    value: float
    a: float
    estimate: float  # nu^2 / 2; as a, in proportion to 1 / rows of A


class SharperBound:
    """The bound of this module, tried where it may end a fit and costs no more than some passes."""

    def __init__(self, problem: Problem, by: Pass) -> None:
        self._problem, self._by = problem, by
        self.next_trial = math.inf  # a bound of the other kind up to which that waits

    def bound(self, at: Evaluation, bound: float, wanted: float) -> float:
        """Return an upper bound on F - min F, at most the one that is known."""
        if not is_possible(self._problem) or bound > self.next_trial or wanted < TIGHT * at.value:
            return bound
        if not _expected_gap(self._problem, at) <= _HOPE * wanted:  # (it may be NaN)
            return bound
        problem = self._problem
        one_pass = pass_work(problem)
        step, work = whole_plan(problem, one_pass)
        if work > _MOST_PASSES * one_pass:
            self.next_trial = -math.inf
            return bound
        found = self._at(at, step)
        if found.value > wanted and step > 1:
            # both a and the bound are in proportion to the step
            needed = max(found.a / _SAFE, found.estimate / (_SAFE * wanted))
            finer = int(step / needed)
            if finer >= 1 and whole_work(problem, finer) <= _MOST_PASSES * one_pass:
                found = self._at(at, finer)
        if found.value > wanted:
            self.next_trial = _RETRY * bound
        return min(bound, found.value)

    def _at(self, at: Evaluation, step: int) -> Bound:
        problem = self._problem
        error = self._by.gradient_error(at, 1.0 / problem.sizes)
        return curvature_bound(problem, at, hessian_of_rows(problem, at, step), error)


def is_possible(problem: Problem) -> bool:
    """Whether a Hessian is small, and curves everywhere."""
    # (without an intercept, rounding of standardized rows' means is not in the problem's unknowns)
    plain = problem.fit_intercept or not problem.coordinates.standardize
    penalised = problem.l2 > _LEAST_L2 and problem.l1 == 0.0
    return problem.n_params <= WHOLE_PARAMS and plain and penalised


def _expected_gap(problem: Problem, at: Evaluation) -> float:
    """Return half the squared Newton decrement, as if features were not correlated."""
    curvature = null_curvature(problem)
    diagonal = np.append(curvature * problem.mean_squares + problem.l2, curvature)
    g = at.gradient[: problem.n_weights].reshape(problem.n_logits, -1)
    return 0.5 * float((g * g / diagonal[:-1]).sum())


@single_threaded_blas
def curvature_bound(problem: Problem, at: Evaluation, hessian: Array, noise: float) -> Bound:
    """Return the bound at a point.

    hessian is a lower bound of the Hessian of the mean loss there, without the penalty, by the
    solver's vector; noise the length of the errors in the gradient, for features of size 1.
    """
    sizes = _sizes(problem)
    n_weights, k = problem.n_weights, problem.n_logits
    A = hessian / sizes
    A /= sizes[:, np.newaxis]
    A[np.arange(n_weights), np.arange(n_weights)] += problem.l2 / sizes[:n_weights] ** 2
    if k > 1:
        _fill_common(A, problem)
    if not np.isfinite(A).all():
        return Bound(math.inf, math.inf, math.inf)
    # (Gershgorin: no eigenvalue is larger)
    rounding = _RESOLVED * float(np.abs(A).sum(axis=0).max())
    A[np.diag_indices(len(A))] -= rounding
    factor, failed = dpotrf(A, lower=1, clean=0)
    if failed or not np.isfinite(factor.diagonal()).all():
        return Bound(math.inf, math.inf, math.inf)
    g, common = _without_common(problem, at)
    g = g / sizes
    nu = math.sqrt(max(inner(g, dpotrs(factor, g, lower=1)[0]), 0.0))
    radius = problem.row_radius * math.sqrt(1.0 if k == 1 else 2.0)
    least = _least_curvature(A, rounding, nu, radius, noise)
    if not least > 0.0:
        return Bound(math.inf, math.inf, math.inf)
    nu += noise / math.sqrt(least)
    R = radius / math.sqrt(least)
    a = nu * R
    if not a < 1.0:
        return Bound(math.inf, a, 0.5 * nu * nu)
    # (the series where the closed form cancels)
    share = (1.0 - a) * math.log1p(-a) + a if a > 1e-3 else a * a * (0.5 + a / 6.0 + a * a / 11.0)
    return Bound(share / R**2 + common, a, 0.5 * nu * nu)


def _least_curvature(A: Array, rounding: float, nu: float, radius: float, noise: float) -> float:
    """Return a number that all eigenvalues of A exceed, by the size of rounding at least.

    nu radius / sqrt(number) is a: a large number is tried first, as Cholesky's factors of A less a
    multiple of the identity take less time than eigenvalues.
    """
    diagonal = np.diag_indices(len(A))
    for a in _TRIED:
        wanted = (nu * radius / a) ** 2
        if wanted == 0.0 or noise > _ERRORS * nu * math.sqrt(wanted):
            continue
        shifted = A.copy()
        shifted[diagonal] -= wanted + rounding
        factor, failed = dpotrf(shifted, lower=1, clean=0, overwrite_a=1)
        if not failed and np.isfinite(factor.diagonal()).all():
            return wanted
    values = answering_signals(len(A), np.linalg.eigvalsh, A)
    return float(values[0]) - rounding


def _sizes(problem: Problem) -> Array:
    """Sizes of the features, for each coefficient; 1 for the intercepts."""
    own = np.tile(problem.sizes, problem.n_logits)
    return np.concatenate([own, np.ones(problem.n_params - len(own))])


def _fill_common(A: Array, problem: Problem) -> None:
    """Add the curvature of the mean class along what all classes have in common."""
    k, d = problem.n_logits, problem.n_features
    diagonal = np.diagonal(A).copy()
    for first, width in ((0, d), (k * d, int(problem.fit_intercept))):
        numbers = first + np.arange(k * width).reshape(k, width)
        A[numbers[:, np.newaxis], numbers[np.newaxis]] += diagonal[numbers].mean(axis=0)


def _without_common(problem: Problem, at: Evaluation) -> tuple[Array, float]:
    """Return the gradient without its mean over the classes, and the penalty of that of V."""
    k, n_weights = problem.n_logits, problem.n_weights
    if k == 1:
        return at.gradient, 0.0
    g = at.gradient.copy()
    for part in (g[:n_weights], g[n_weights:]):
        rows = part.reshape(k, -1)
        rows -= rows.mean(axis=0)
    mean = (at.weights / problem.coordinates.scale).mean(axis=0, dtype=np.float64)
    return g, 0.5 * problem.l2 * k * inner(mean, mean)
