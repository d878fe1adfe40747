"""F by passes over a float64 copy of sparse float32 rows, where `centered_pass` cannot fill them.

Sparse rows are seldom far from 0, so that nothing cancels, and float64 alone is enough.
"""

from dataclasses import replace

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.cached import cached_property
from fastsoftmax.problem.evaluation import BaseGradient, Evaluation
from fastsoftmax.problem.problem import Problem
from fastsoftmax.problem.raw_pass import RawPass

# Most bytes of the copy, which holds the values and their places by rows and by columns.
_COPY_BYTES = 1 << 29
_BYTES_PER_NUMBER = 24


class Float64Pass:
    """Passes over all rows in float64, where `is_possible`; the copy is made by the first."""

    epsilon = float(np.finfo(np.float64).eps)

    def __init__(self, problem: Problem) -> None:
        self._given = problem

    @staticmethod
    def is_possible(problem: Problem) -> bool:
        """Whether rows are sparse, of float32, and their copy is not large."""
        rows = problem.rows
        size = _BYTES_PER_NUMBER * rows.stored_numbers
        return rows.is_sparse and rows.real == np.float32 and size <= _COPY_BYTES

    @cached_property
    def _own(self) -> RawPass:
        rows = self._given.rows
        every = np.arange(rows.n_features)
        return RawPass(replace(self._given, rows=rows.restricted(every, np.dtype(np.float64))))

    def evaluate(self, point: Array) -> Evaluation:
        """Evaluate F at a solver's vector."""
        return self._own.evaluate(point)

    def evaluate_coefficients(self, weights: Array, bias: Array) -> Evaluation:
        """Evaluate F at weights and bias for raw features."""
        return self._own.evaluate_coefficients(weights, bias)

    def coefficients(self, point: Array) -> tuple[Array, Array]:
        """Return weights and bias for raw features, in float64."""
        return self._own.coefficients(point)

    def rounded(self, at: Evaluation) -> Evaluation:
        """Evaluate the coefficients in float32, the bias for the rounded weights."""
        real = self._given.rows.real
        weights = at.weights.astype(real).astype(np.float64)
        bias = at.bias + product(at.weights - weights, self._given.coordinates.center)
        return self.evaluate_coefficients(weights, bias.astype(real).astype(np.float64))

    def base(self) -> BaseGradient:
        """Return the gradient at the class shares; the first call may take a pass."""
        return self._own.base()

    def known_base(self) -> Array | None:
        """Return the gradient of `base`, if it is known."""
        return self._own.known_base()

    def note_base(self, gradient: Array) -> None:
        """Keep what `base` returns, where it is known."""
        self._own.note_base(gradient)

    def mean_shift(self) -> Array | None:
        """Return None: the mean is not known better than the center."""
        return None

    def gradient_error(self, at: Evaluation, units: Array) -> float:
        """Return the length of the errors in the gradient by V, each feature's times its unit."""
        return self._own.gradient_error(at, units)

    def noise(self, at: Evaluation) -> float:
        """Return the size of errors in F and its bound where W x and b cancel."""
        return self._own.noise(at)
