"""F by one pass over the rows as they are stored, in the number type that they are computed in."""

import math
from typing import Any

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner, product
from fastsoftmax.cached import cached_property
from fastsoftmax.kernel_arguments import GradientTerms
from fastsoftmax.problem.evaluation import BaseGradient, Dots, Evaluation, square_of
from fastsoftmax.problem.problem import Problem

# A share of F that does not matter, and one of the bound.
_LITTLE, _SMALL = 1e-7, 1e-5
# Of `RawPass._gradient_noise`: the size of an error in units of it, and how many numbers of X tell
# their size.
_ROUNDINGS = 10.0
# Errors of the loss, in roundings of the number type divided by the root of the number of rows. (60
# rows in float32: F was 2.6e-8 too small, and a gap of 9.633e-5 read 9.631e-5.)
_VALUE_ROUNDINGS = 4.0
_FLOAT64 = float(np.finfo(np.float64).eps)
_SAMPLED_NUMBERS = 1 << 17
_TINY = float(np.finfo(np.float64).tiny)


def hidden_by_rounding(problem: Problem, squares: Array, real: np.dtype[Any]) -> float:
    """Return what rounding hides of the bound at a minimum, by passes in a number type.

    As of `RawPass.noise`, before any pass: for a loss like that of the model without weights.
    squares are the means of the squares of the features.
    """
    size = float((squares * problem.coordinates.scale**2).sum())
    per_row = 2.0 * min(1.0, problem.null_loss) * size
    error = 0.5 * np.finfo(real).eps * _ROUNDINGS * math.sqrt(per_row / problem.n_rows)
    return float(error**2 / (2.0 * problem.l2))


class RawPass:
    """Passes over raw features; points are rounded to the number type of the rows."""

    def __init__(self, problem: Problem, base: BaseGradient | None = None) -> None:
        """Take base, what `base` returns, where a pass of another penalty knows it."""
        self.problem = problem
        self.epsilon = float(np.finfo(problem.rows.real).eps)
        self._base = base

    def evaluate(self, point: Array) -> Evaluation:
        """Evaluate F at a solver's vector, rounded."""
        at = self.evaluate_coefficients(*self.coefficients(point))
        if point is self.problem.null_point:  # fits start here, and certificates need its gradient
            self.note_base(self.problem.coordinates.matrix_of(at.gradient))
        return at

    def coefficients(self, point: Array) -> tuple[Array, Array]:
        """Weights in the number type of a pass, and bias, for raw features."""
        rows, coordinates = self.problem.rows, self.problem.coordinates
        shape = rows.n_logits, rows.n_features
        weights, bias = np.empty(shape, dtype=rows.real), np.empty(rows.n_logits)
        rows.backend.round_weights(
            weights,
            bias,
            coordinates.matrix_of(np.ascontiguousarray(point)),
            coordinates.scale_or_none,
            coordinates.center,
            n_threads=rows.n_threads,
        )
        np.negative(bias, out=bias)
        if coordinates.fit_intercept:
            bias += point[coordinates.n_weights :]
        elif coordinates.standardize and rows.real != np.float64:
            # no intercept makes up for the rounding of the weights
            bias = -product(weights.astype(np.float64), coordinates.center)
        return weights, bias

    def evaluate_coefficients(self, weights: Array, bias: Array) -> Evaluation:
        """Evaluate F at weights and bias for raw features, rounded."""
        problem, rows, coordinates = self.problem, self.problem.rows, self.problem.coordinates
        weights = np.ascontiguousarray(weights, dtype=rows.real)
        bias = bias.astype(rows.real).astype(np.float64)
        gradient = np.empty(problem.n_params)
        grad_weights = gradient[: problem.n_weights].reshape(weights.shape)
        sums = rows.loss_grad(weights, bias, out=grad_weights)
        bias_grad = sums.grad_bias / rows.n_rows
        if rows.n_logits > 1:
            # Probabilities and targets add up to 1, so gradients add up to 0 over the classes. What
            # rounding leaves costs dear: a step common to all classes changes no probability, so
            # nothing but the penalty limits it, and the logits lose their digits (features of 1e8
            # in float32: the fit stopped 1e-2 F above the minimum, and without them 1e-15 F).
            bias_grad -= bias_grad.mean()  # (of the weights' gradient: `assemble_gradient`)
        along = np.empty(rows.n_logits)
        base = None if self._base is None else self._base.gradient
        square, rr, rv, rb, vb = rows.backend.assemble_gradient(
            grad_weights,
            along,
            weights,
            bias_grad,
            GradientTerms(
                coordinates.center, coordinates.scale_or_none, base, 1.0 / rows.n_rows, problem.l2
            ),
            n_threads=rows.n_threads,
        )
        if problem.fit_intercept:
            gradient[problem.n_weights :] = bias_grad
        loss = sums.loss / rows.n_rows
        by_base = (None, None) if base is None else (rb, vb)
        return Evaluation(
            weights=weights,
            bias=bias,
            loss=loss,
            accuracy=sums.correct / rows.n_rows,
            value=loss + problem.penalty(weights, square, raw=True),
            square=square,
            bias_grad=bias_grad,
            gradient=gradient,
            centered_bias=bias + along,
            dots=Dots(rr, rv, *by_base),
            origin=self,
        )

    def rounded(self, at: Evaluation) -> Evaluation:
        """Return the evaluation: its coefficients are of the number type of X."""
        return at

    def base(self) -> BaseGradient:
        """Return the gradient at the class shares; a pass where it is not known."""
        if self._base is None:
            self.evaluate(self.problem.null_point)
        assert self._base is not None  # `evaluate` notes it
        return self._base

    def known_base(self) -> Array | None:
        """Return the gradient of `base`, if it is known."""
        return None if self._base is None else self._base.gradient

    def note_base(self, gradient: Array) -> None:
        """Keep what `base` returns, where it is known."""
        self._base = square_of(gradient)

    def mean_shift(self) -> Array | None:
        """Return None: the mean is not known better than the center."""
        return None

    def noise(self, at: Evaluation) -> float:
        """Return the size of errors in F and its bound where W x and b cancel.

        That is where features are far from 0; row by row the digits are lost in another way. Of
        features of 1e4 + noise in float32 F was wrong by 1e-4, and a gap read -1e-4.
        """
        problem, coordinates = self.problem, self.problem.coordinates
        unit = 4.0 * self.epsilon / math.sqrt(problem.n_rows)
        if coordinates.standardize and not problem.fit_intercept:
            unit += 2.0 * float(np.finfo(np.float64).eps)  # the mean is rounded, too
        far = math.sqrt(at.square) * coordinates.size_of_center
        if unit * far > _LITTLE * at.value:  # an upper bound on the next, which costs more
            center = np.abs(coordinates.center)
            far = max((inner(np.abs(row), center) for row in at.weights), default=0.0)
        return float(unit * far) + self._gradient_noise(at)

    @cached_property
    def _mean_squares(self) -> Array:
        return self.problem.rows.mean_squares(_SAMPLED_NUMBERS) + _TINY

    @cached_property
    def _scaled_squares(self) -> tuple[float, float]:
        """The sum and the largest of the mean squares of scaled features."""
        scaled = self._mean_squares * self.problem.coordinates.scale**2
        return float(scaled.sum()), float(scaled.max(initial=0.0))

    def _gradient_noise(self, at: Evaluation) -> float:
        """Return what rounding of gradients can hide of the bound ||r||^2 / (2 l2).

        With u = 2^-24 (float32) or 2^-53 the gradient is wrong by about u sqrt(mean |p - y|^2 mean
        |x|^2 / n) (1 + o), o the size of the terms W_kj x_j of a logit. (Of 700 random fits in
        float32 the error was at most nine times that for small o, and less than that for large o.
        And |p - y|^2 <= 2 loss.)
        """
        problem = self.problem
        if problem.l1 > 0.0:
            # its bound has the loss itself: of rows whose loss is rounded
            unit = _VALUE_ROUNDINGS * self.epsilon / math.sqrt(max(1, problem.n_rows))
            return unit * at.loss
        if problem.l2 <= 0.0:
            return 0.0
        size, largest = self._scaled_squares

        def noise(terms: float) -> float:
            error = self._error(at, size, terms)
            return float(error * (2.0 * np.sqrt(at.dots.rr) + error) / (2.0 * problem.l2))

        most = noise(at.square * largest)
        # an upper bound on the next, which costs more
        if most <= max(_LITTLE * at.value, _SMALL * at.dots.rr / (2.0 * problem.l2)):
            return most
        return noise(self._largest_terms(at))

    def gradient_error(self, at: Evaluation, units: Array) -> float:
        """Return the length of the errors in the gradient by V, each feature's times its unit."""
        scaled = self._mean_squares * (self.problem.coordinates.scale * units) ** 2
        return self._error(at, float(scaled.sum()), self._largest_terms(at))

    def _error(self, at: Evaluation, size: float, terms: float) -> float:
        # (float64 can afford the worst: rows that are nearly the same have the same errors)
        n_averaged = self.problem.n_rows if self.epsilon > _FLOAT64 else 1
        per_row = 2.0 * min(1.0, at.loss) * size / n_averaged
        return float(0.5 * self.epsilon * np.sqrt(per_row) * (_ROUNDINGS + np.sqrt(terms)))

    def _largest_terms(self, at: Evaluation) -> float:
        terms = product(np.square(at.weights, dtype=np.float64), self._mean_squares)
        return float(terms.max())
