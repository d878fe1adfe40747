"""Several problems over the rows of one X, solved one after another: what they share, and how.

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

import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._estimator.fitted import check_finite
from fastsoftmax.arrays import Array
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.solvers import protocols
from fastsoftmax.solvers.protocols import Preconditioner


class Limits(NamedTuple):
    """When a fit stops."""

    tol: float
    max_iter: int


class Fit(NamedTuple):
    """One problem, solved."""

    point: Array  # the solver's vector
    weights: Array  # (n_logits, n_features) float64, of values of the number type computed in
    bias: Array  # (n_logits,) likewise
    gap: float  # certified bound on (F - min F) / F
    n_iter: int
    curvature: Preconditioner | None  # what was learnt of the inverse Hessian


def solve(
    objective: SoftmaxObjective,
    start: Array,
    limits: Limits,
    curvature: Preconditioner | None = None,
) -> Fit:
    """Minimise from a point, with what a problem much like this one has taught of the Hessian."""
    result, learnt = full_batch.solve(
        objective,
        start,
        protocols.Limits(limits.tol, limits.max_iter),
        newton=full_batch.suits_newton(objective.problem),
        first=curvature,
    )
    at = result.evaluation
    check_finite(at, objective.problem.rows)
    return Fit(result.point, at.weights, at.bias, result.gap, result.n_iter, learnt)


def curvature_at(objective: SoftmaxObjective, point: Array) -> Preconditioner | None:
    """Return the Hessian's blocks at a point, inverted; None where they are of no use."""
    if full_batch.suits_newton(objective.problem) or objective.l1 > 0.0:
        return None
    if objective.refinement_cost() is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return objective.refined_preconditioner(objective.evaluate(point))


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
    gaps: Array, n_iter: Array, Cs: Array, limits: Limits, real: np.dtype[Any]
) -> str | None:
    """Say which fits missed `tol`, in one sentence, and what to do; None if none did.

    gaps, n_iter and Cs have an element for each fit.
    """
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
