"""F by one pass over centred rows in float64, for what rounding hides from a pass over raw rows.

A raw pass computes W x + b from x as it is stored, in the number type of X. Where the features are
far from 0 (points in time, 1.7e9 seconds) that cancels, and where they are float32 and large,
rounding of their gradient alone forbids a small certificate: an error of 1e-7 in the probabilities,
features of 1e4 and lambda = 1 / 150 leave a bound of (1e-3)^2 * 75 at the very optimum. Here blocks
of rows are brought to float64, shifted and scaled before the kernel sees them, so that a pass has
rounding errors of float64 relative to the spread of a feature. X is not copied, but a pass takes
several times as long; so a fit comes here only where the other passes could not finish.
"""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner, product
from fastsoftmax.cached import cached_property
from fastsoftmax.problem.evaluation import BaseGradient, Dots, Evaluation, square_of
from fastsoftmax.problem.problem import Problem
from fastsoftmax.shards import protocol

# Sparse rows are filled for this, which is hopeless beyond so many features.
_MOST_SPARSE_FEATURES = 2048


class CenteredPass:
    """Passes over scale * (x - mean) in float64; `rounded` alone rounds to the type of X."""

    epsilon = float(np.finfo(np.float64).eps)

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        coordinates = problem.coordinates
        # Whether the solver's own features are the centred ones, up to what an intercept absorbs.
        self._is_own = coordinates.fit_intercept or coordinates.standardize
        self._mean_shift: Array | None = None
        self._base: BaseGradient | None = None

    @cached_property
    def mean(self) -> Array:
        """Means of the features."""
        if self._is_own:
            return self.problem.coordinates.center
        sums: Array = self.problem.rows.sum(protocol.feature_sums)
        return sums / self.problem.n_rows

    @cached_property
    def _own_shift(self) -> Array | None:
        """What the mean lacks where no intercept makes up for it: no float64 is 1.7e9 + 1e-8."""
        return self.mean_shift() if self._is_own and not self.problem.fit_intercept else None

    @staticmethod
    def is_possible(problem: Problem) -> bool:
        """Whether a pass is affordable."""
        return problem.rows.is_dense or problem.n_features <= _MOST_SPARSE_FEATURES

    def evaluate(self, point: Array) -> Evaluation:
        """Evaluate F at a solver's vector."""
        coordinates = self.problem.coordinates
        weights, bias = self.coefficients(point)
        scaled_weights = np.ascontiguousarray(coordinates.matrix_of(point))
        if coordinates.fit_intercept:
            centered_bias = point[coordinates.n_weights :]
        elif self._own_shift is not None:
            centered_bias = -product(scaled_weights, self._own_shift)
        else:
            centered_bias = self._logits_of_mean(weights, bias)
        return self._evaluate(weights, bias, scaled_weights, centered_bias)

    def coefficients(self, point: Array) -> tuple[Array, Array]:
        """Return weights and bias for raw features, in float64."""
        return self.problem.coordinates.coefficients_of(point)

    def evaluate_coefficients(self, weights: Array, bias: Array) -> Evaluation:
        """Evaluate F at weights and bias for raw features."""
        centered_bias = self._logits_of_mean(weights, bias)
        scaled_weights = weights / self.problem.coordinates.scale
        return self._evaluate(weights, bias, scaled_weights, centered_bias)

    def rounded(self, at: Evaluation) -> Evaluation:
        """Evaluate the coefficients in the number type of X, the bias for the rounded weights."""
        real = self.problem.rows.real
        weights = at.weights.astype(real).astype(np.float64)
        bias = at.bias
        if self._is_own:  # for features far from 0 the intercept mostly balances the weights
            bias = bias + self._logits_of_mean(at.weights - weights, np.zeros(len(bias)))
        return self.evaluate_coefficients(weights, bias.astype(real).astype(np.float64))

    def _logits_of_mean(self, weights: Array, bias: Array) -> Array:
        """W mean + b, which cancels: where long doubles are longer, it costs no digit."""
        exact = weights.astype(np.longdouble) @ self.mean.astype(np.longdouble) + bias
        return exact.astype(np.float64)

    def _evaluate(
        self, weights: Array, bias: Array, scaled_weights: Array, centered_bias: Array
    ) -> Evaluation:
        problem, scale = self.problem, self.problem.coordinates.scale
        sums = problem.rows.centered_loss_grad(scaled_weights, centered_bias, self.mean, scale)
        grad, bias_grad = sums.grad_weights / problem.n_rows, sums.grad_bias / problem.n_rows
        if problem.n_logits > 1:  # as in `RawPass`
            grad -= grad.mean(axis=0)
            bias_grad -= bias_grad.mean()
        if self._own_shift is not None:
            centered_bias = centered_bias + product(scaled_weights, self._own_shift)
            grad -= np.outer(bias_grad, self._own_shift)
        residual = centered_residual = grad + problem.l2 * scaled_weights
        if not self._is_own:
            own_grad = grad + np.outer(bias_grad, self.mean * scale)
            residual = own_grad + problem.l2 * scaled_weights
        gradient = np.empty(problem.n_params)
        gradient[: problem.n_weights] = residual.ravel()
        if problem.fit_intercept:
            gradient[problem.n_weights :] = bias_grad
        loss = sums.loss / problem.n_rows
        square = inner(scaled_weights, scaled_weights)
        return Evaluation(
            weights=weights,
            bias=bias,
            loss=loss,
            accuracy=sums.correct / problem.n_rows,
            value=loss + problem.penalty(scaled_weights, square),
            square=square,
            bias_grad=bias_grad,
            gradient=gradient,
            centered_bias=centered_bias,
            dots=Dots(inner(residual, residual), 0.0, None, None),
            origin=self,
            scaled_weights=scaled_weights,
            centered_residual=centered_residual,
        )

    def base(self) -> BaseGradient:
        """Return the gradient at the class shares; the first call takes a pass."""
        if self._base is None:
            at = self.evaluate(self.problem.null_point)
            assert at.centered_residual is not None  # at weights of 0: the gradient of the loss
            self.note_base(at.centered_residual)
        assert self._base is not None
        return self._base

    def known_base(self) -> Array | None:
        """Return the gradient of `base`, if it is known."""
        return None if self._base is None else self._base.gradient

    def note_base(self, gradient: Array) -> None:
        """Keep what `base` returns, where it is known."""
        self._base = square_of(gradient)

    def mean_shift(self) -> Array | None:
        """Return the mean of the centred and scaled features, which is not quite 0.

        Of features of 1e4 in float32 the mean is known to 1e-3, and where the intercept was not at
        its optimum, a gap of 3e-7 read 3e-8.
        """
        if self._mean_shift is None:
            scale, rows = self.problem.coordinates.scale, self.problem.rows
            self._mean_shift = rows.sum(protocol.centered_sums, self.mean, scale) / rows.n_rows
        return self._mean_shift

    def gradient_error(self, at: Evaluation, units: Array) -> float:
        """Return 0: nothing cancels over centred rows; inf without an intercept to shift them."""
        return 0.0 if self.problem.fit_intercept else np.inf

    def noise(self, at: Evaluation) -> float:
        """Return 0, as nothing cancels over centred rows, but where W mean and b have to agree."""
        if self._own_shift is None:
            return 0.0
        terms = product(np.abs(at.weights), np.abs(self.mean))
        unit = 4.0 * float(np.finfo(np.longdouble).eps)  # of `_logits_of_mean`
        return unit * float(terms @ np.abs(at.bias_grad))
