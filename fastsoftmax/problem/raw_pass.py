"""F by one pass over the rows as they are stored, in the number type that they are computed in."""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner
from fastsoftmax.kernel_arguments import GradientTerms
from fastsoftmax.problem.evaluation import BaseGradient, Dots, Evaluation, square_of
from fastsoftmax.problem.problem import Problem

# A share of F that does not matter.
_LITTLE = 1e-7


class RawPass:
    """Passes over raw features; points are rounded to the number type of the rows.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.epsilon = float(np.finfo(problem.rows.real).eps)
        self._base: BaseGradient | None = None

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
        coordinates = self.problem.coordinates
        unit = 4.0 * self.epsilon / np.sqrt(self.problem.n_rows)
        far = np.sqrt(at.square) * coordinates.size_of_center
        if unit * far > _LITTLE * at.value:  # an upper bound on the next, which costs more
            center = np.abs(coordinates.center)
            far = max((inner(np.abs(row), center) for row in at.weights), default=0.0)
        return float(unit * far)
