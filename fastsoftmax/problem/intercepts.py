"""Steps of the intercepts alone, which bring the certificate when the weights have converged.

The bound on F - min F has two parts: one of the weights' gradient, and one of the intercepts', g =
mean (P_i - y_i), which have to meet the class shares (`certificate.gap_bound`). The second is of
the first order in g, the first of the second order: so it is often hundreds of times as large when
F itself has converged. A step of Newton's method in the intercepts, -A^-1 g with A = mean
s (diag(p) - p p^T), takes one pass and divides g by ten or more. (docs/certificate.md counts the
iterations without and with it.)
"""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.linalg import invert
from fastsoftmax.problem.curvature_bound import TIGHT
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.problem.problem import Problem
from fastsoftmax.shards.curvature import class_curvature
from fastsoftmax.solvers.record import State, array_in, number_in

# The weights' part of the bound has to be this share of what is wanted.
_READY = 0.8
# Rows that A is taken from: at least so many, and so many for each class.
_LEAST_ROWS, _ROWS_PER_CLASS = 8192, 64
# Where g did not fall to this share, A is taken again.
_POOR = 0.3
# What is added to the diagonal of A, as a share of its mean.
_ADDED = 1e-6


class InterceptSteps:
    """Newton steps in the intercepts of a problem."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._is_possible = problem.fit_intercept and problem.l1 == 0.0 < problem.l2
        self._inverse: Array | None = None
        self._last = np.inf  # |g| before the latest step

    def step(self, at: Evaluation, wanted: float) -> Array | None:
        """Return a step of the intercepts, where that alone keeps the bound above wanted."""
        problem = self._problem
        if not self._is_possible or wanted < TIGHT * at.value:
            return None
        if at.dots.rr > _READY * wanted * 2.0 * problem.l2:
            return None
        size = float(np.abs(at.bias_grad).max(initial=0.0))
        if not 0.0 < size < np.inf:
            return None
        if self._inverse is None or size > _POOR * self._last:
            self._inverse = self._inverted(at)
        self._last = size
        step = np.zeros(problem.n_params)
        step[problem.n_weights :] = -(self._inverse @ at.bias_grad)
        return step

    def state(self) -> State:
        """Return what is known."""
        inverse = {} if self._inverse is None else {"inverse": self._inverse}
        return {"last": self._last, **inverse}

    def restore(self, state: State) -> None:
        """Go on with what was known."""
        n = self._problem.n_logits
        self._last = number_in(state, "last")
        self._inverse = array_in(state, "inverse", (n, n)) if "inverse" in state else None

    def _inverted(self, at: Evaluation) -> Array:
        rows = self._problem.rows.sample
        n_logits = rows.n_logits
        row_step = max(1, rows.n_rows // max(_LEAST_ROWS, _ROWS_PER_CLASS * n_logits))
        total, weight = rows.sum(class_curvature, at.weights, at.bias, row_step)
        matrix = total / max(weight, float(np.finfo(float).tiny))
        mean = float(np.diagonal(matrix).mean())
        if n_logits > 1:  # what all intercepts have in common changes no probability
            matrix += mean / n_logits
        invert(matrix, np.full(n_logits, _ADDED * mean))
        return np.asarray(matrix)
