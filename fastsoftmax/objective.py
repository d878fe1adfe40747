"""The penalised problem: value, gradient, preconditioner and certificate.

For rows x_i, targets y_i (distributions over K classes), weights s_i with sum S, and
lambda = 1 / (C S):

    F(W, b) = (1 / S) sum_i s_i CE(softmax(W x_i + b), y_i) + (lambda / 2) ||V||^2 + l1 ||V||_1

where V = W, or where features are scaled V = W / scale, column by column.

Two classes have one logit, that of class 1 against class 0 (W is one row, as in scikit-learn).

Conventions
-----------
- Row weights are scaled to mean 1 before they reach a shard, so a shard's sums divided by the
  number of rows are means.
- Solvers see a flat float64 vector: V (n_logits, n_features) and after it, with an intercept,
  c = b + W mean(x), the intercept of centred features (see `problem.coordinates`). Centring costs
  no copy of X and removes the coupling between V and the intercept.
- Where the rows are float32, so are W and b in the pass over them; penalty, certificate and
  result refer to the rounded values.
"""

import copy
from collections.abc import Sequence

import numpy as np

from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.kernel_arguments import GradientTerms
from fastsoftmax.problem.certificate import CertificateMixin
from fastsoftmax.problem.coordinates import Coordinates
from fastsoftmax.problem.csr_blocks import build_csr_blocks
from fastsoftmax.problem.curvature import (
    build_hessian,
    build_preconditioner,
    build_refined,
    diagonal_at,
    diagonal_bound,
    refinement_cost,
)
from fastsoftmax.problem.curved_span import curved_span
from fastsoftmax.problem.evaluation import Dots, Evaluation
from fastsoftmax.problem.free_blocks import FreeBlocks, build_free_blocks
from fastsoftmax.problem.preconditioner import Preconditioner
from fastsoftmax.problem.vectors import Vectors
from fastsoftmax.shards.csr_shard import CsrShard
from fastsoftmax.shards.shard import DenseShard, Shard, Sums, add_sums

# A coefficient of 0 may be free soon where the gradient is this share of l1.
_NEAR = 0.9
# Rows at a time in `logit_change`.
_CHANGE_ROWS = 1024


def _length(vector: Array) -> float:
    """Euclidean length, finite also where squares are not."""
    most = float(np.finfo(np.float64).max)
    largest = min(float(np.max(np.abs(vector), initial=0.0)), most)
    if largest == 0.0:
        return 0.0
    return min(largest * float(np.linalg.norm(vector / largest)), most)


class SoftmaxObjective(CertificateMixin):
    """F over shards of rows; see the head of this module for the formula.

    Parameters
    ----------
    shards : sequence of Shard
        At least one, all with the same classes and features; row weights have mean 1.
    penalty : float
        lambda >= 0, of the squares.
    l1 : float
        Of the 1-norm, >= 0.
    fit_intercept : bool
    input_scale : float
        The scale of all features, > 0.
    standardize : bool
        Features are shifted and scaled to mean 0 and variance 1 instead (those that do not vary
        are shifted alone).
    moments : ndarray, optional
        As `problem.curvature.mean_moments` returns them, for the same features: where several
        problems share them, only the first pays.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        penalty: float,
        *,
        fit_intercept: bool,
        input_scale: float = 1.0,
        standardize: bool = False,
        moments: Array | None = None,
        l1: float = 0.0,
    ) -> None:
        first = shards[0]
        self.shards = shards
        self.penalty = penalty
        self.l1 = l1
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.moments = moments
        self.n_rows = sum(shard.n_rows for shard in shards)
        self.n_features = first.n_features
        self.n_classes = first.n_classes
        self.n_logits = count_logits(first.n_classes)
        self.epsilon = float(np.finfo(first.real).eps)
        self.vectors = Vectors(first.backend, first.n_threads)
        targets = sum(shard.target_sums() for shard in shards)
        self.class_share = np.asarray(targets / np.sum(targets))
        center = np.zeros(self.n_features)
        scale = np.full(self.n_features, float(input_scale))
        if fit_intercept or standardize:
            center = np.sum([s.feature_sums() for s in shards], axis=0) / self.n_rows
        if standardize:
            scale = self._reciprocal_deviations(center)
        self.coordinates = Coordinates(center, scale, self.n_logits, fit_intercept)
        self.n_weights, self.n_params = self.coordinates.n_weights, self.coordinates.n_params
        self._far = _length(center * scale)
        self._null_point: Array | None = None
        self._base_grad: Array | None = None
        self._base_square = 0.0
        self._diagonal: Array | None = None

    def _reciprocal_deviations(self, center: Array) -> Array:
        """1 / standard deviation of each feature; 1 where it does not vary but by rounding."""
        variance = np.sum([s.squares(center) for s in self.shards], axis=0) / self.n_rows
        rounding = self.n_rows * np.finfo(np.float64).eps
        constant = variance <= rounding * variance + (rounding * center) ** 2
        return 1.0 / np.sqrt(np.where(constant, 1.0, variance))

    def with_penalty(self, penalty: float, l1: float = 0.0) -> "SoftmaxObjective":
        """Return the same problem with another penalty; what does not depend on it is shared."""
        other = copy.copy(self)
        other.penalty, other.l1, other._diagonal = penalty, l1, None
        return other

    def with_features(self, features: Array, shards: Sequence[Shard]) -> "SoftmaxObjective":
        """Return the problem of some features alone, whose shards these are."""
        other = copy.copy(self)
        other.__dict__.pop("_by_weights", None)
        other.shards, other.n_features, other.moments = shards, len(features), None
        other.epsilon = float(np.finfo(shards[0].real).eps)
        center, scale = self.coordinates.center[features], self.coordinates.scale[features]
        other.coordinates = Coordinates(center, scale, self.n_logits, self.fit_intercept)
        other.n_weights, other.n_params = other.coordinates.n_weights, other.coordinates.n_params
        other._far = _length(center * scale)
        other._null_point = other._base_grad = other._diagonal = None
        return other

    def penalty_of(self, weights: Array, square: float, *, raw: bool = False) -> float:
        """Return what F adds to the loss, for V (raw: for W) and ||V||^2."""
        if self.l1 == 0.0:
            return 0.5 * self.penalty * square
        sums = np.abs(weights).sum(axis=0, dtype=np.float64)
        norm = float((sums / self.coordinates.scale if raw else sums).sum())
        return 0.5 * self.penalty * square + self.l1 * norm

    # ---- points ----

    def null_point(self) -> Array:
        """Return the best model without weights: intercepts at the log class shares, or zero."""
        if self._null_point is None:
            point = np.zeros(self.n_params)
            if self.fit_intercept:
                logs = np.log(np.maximum(self.class_share, 1e-12))
                origin = logs[0] if self.n_logits == 1 else logs.mean()
                point[self.n_weights :] = logs[-self.n_logits :] - origin
            point.flags.writeable = False
            self._null_point = point
        return self._null_point

    def start_from(self, coefficients: tuple[Array, Array] | None) -> Array:
        """Return coefficients as a start, unless the model without weights is a better one."""
        null = self.null_point()
        if coefficients is None:
            return null
        weights, bias = coefficients
        if self.n_logits > 1:
            # What all classes have in common changes no probability, and the preconditioners leave
            # it alone (a start that had some took 261 iterations instead of 9).
            # (With a 1-norm some coefficients are 0 and should remain so.)
            bias = bias - bias.mean()
            weights = weights - weights.mean(axis=0) if self.l1 == 0.0 else weights
        start = self.point_of(weights, bias)
        with np.errstate(over="ignore", invalid="ignore"):
            better = self.evaluate(start).value < self.evaluate(null).value
        return start if better else null

    def point_of(self, weights: Array, bias: Array) -> Array:
        """Return the solver's vector for coefficients in the user's terms."""
        return self.coordinates.point_of(weights, bias)

    def coefficients_of(self, point: Array) -> tuple[Array, Array]:
        """Weights (n_logits, d) and bias (n_logits,) for raw features, in float64."""
        return self.coordinates.coefficients_of(point)

    # ---- value and gradient ----

    def evaluate(self, point: Array) -> Evaluation:
        """One pass over the rows at a solver's vector."""
        at = self.evaluate_coefficients(*self.rounded_coefficients_of(point))
        if point is self._null_point:  # fits start here, and certificates need its gradient
            self.note_base(at.gradient[: self.n_weights].reshape(at.weights.shape))
        return at

    def rounded_coefficients_of(self, point: Array) -> tuple[Array, Array]:
        """Weights in the number type of a pass, and bias, for raw features."""
        shape = self.n_logits, self.n_features
        weights, bias = np.empty(shape, dtype=self.shards[0].real), np.empty(self.n_logits)
        self.shards[0].backend.round_weights(
            weights,
            bias,
            np.ascontiguousarray(point[: self.n_weights]).reshape(shape),
            self.coordinates.scale_or_none,
            self.coordinates.center,
            n_threads=self.vectors.n_threads,
        )
        np.negative(bias, out=bias)
        if self.fit_intercept:
            bias += point[self.n_weights :]
        return weights, bias

    def evaluate_coefficients(self, weights: Array, bias: Array) -> Evaluation:
        """One pass over the rows at weights and bias for raw features."""
        real = self.shards[0].real
        weights = np.ascontiguousarray(weights, dtype=real)
        bias = bias.astype(real).astype(np.float64)
        gradient = np.empty(self.n_params)
        grad_weights = gradient[: self.n_weights].reshape(weights.shape)
        sums = self._sums(weights, bias, grad_weights)
        bias_grad = sums.grad_bias / self.n_rows
        if self.n_logits > 1:
            # Probabilities and targets add up to 1, so gradients add up to 0 over the classes. What
            # rounding leaves costs dear: a step common to all classes changes no probability, so
            # nothing but the penalty limits it, and the logits lose their digits (features of 1e8
            # in float32: the fit stopped 1e-2 F above the minimum, and without them 1e-15 F).
            bias_grad -= bias_grad.mean()  # (of the weights' gradient: `assemble_gradient`)
        along = np.empty(self.n_logits)
        square, rr, rv, rb, vb = self.shards[0].backend.assemble_gradient(
            grad_weights,
            along,
            weights,
            bias_grad,
            GradientTerms(
                self.coordinates.center,
                self.coordinates.scale_or_none,
                self._base_grad,
                1.0 / self.n_rows,
                self.penalty,
            ),
            n_threads=self.vectors.n_threads,
        )
        if self.fit_intercept:
            gradient[self.n_weights :] = bias_grad
        loss = sums.loss / self.n_rows
        by_base = (None, None) if self._base_grad is None else (rb, vb)
        return Evaluation(
            weights=weights,
            bias=bias,
            loss=loss,
            accuracy=sums.correct / self.n_rows,
            value=loss + self.penalty_of(weights, square, raw=True),
            square=square,
            bias_grad=bias_grad,
            gradient=gradient,
            centered_bias=bias + along,
            dots=Dots(rr, rv, *by_base),
        )

    def _sums(self, weights: Array, bias: Array, grad_weights: Array) -> Sums:
        total = self.shards[0].loss_grad(weights, bias, out=grad_weights)
        for shard in self.shards[1:]:
            total = add_sums(total, shard.loss_grad(weights, bias))
        return total

    def sgd_steps(
        self,
        params: Array,
        velocity: Array | None,
        order: Array,
        batch_size: int,
        learning_rate: float,
        momentum: float,
    ) -> tuple[float, float]:
        """Mini-batch steps in the user's coordinates: params is W and after it b, of X's type.

        The order holds row numbers over all shards; batches do not cross a shard's end.
        """
        scale, center = self.coordinates.scale, self._sgd_center()
        plain = center is None and bool((scale == 1.0).all())
        loss = correct = 0.0
        start = 0
        for shard in self.shards:
            mine = order[(order >= start) & (order < start + shard.n_rows)] - start
            if len(self.shards) == 1:
                mine = order
            sums = shard.sgd_steps(
                params,
                velocity,
                mine,
                batch_size,
                learning_rate,
                momentum,
                self.penalty,
                self.fit_intercept,
                squared_scale=None if plain else scale**2,
                center=center,
            )
            loss, correct = loss + sums[0], correct + sums[1]
            start += shard.n_rows
        return loss / len(order), correct / len(order)

    def sgd_start(self, rng: np.random.RandomState) -> tuple[Array, Array]:
        """Return W and b for raw features, where V is drawn from N(0, 0.01^2) and the bias is 0."""
        center = self._sgd_center()
        weights = rng.normal(0.0, 0.01, (self.n_logits, self.n_features)) * self.coordinates.scale
        return weights, np.zeros(self.n_logits) if center is None else -(weights @ center)

    def _sgd_center(self) -> Array | None:
        """Return what features are shifted by in stochastic steps: nothing where X is sparse.

        With an intercept that changes the way, not the optimum.
        """
        dense = all(isinstance(shard, DenseShard) for shard in self.shards)
        return self.coordinates.center if self.standardize and dense else None

    # ---- preconditioners ----

    def preconditioner(self) -> Preconditioner:
        """Invert a scaled bound on the Hessian, in the solver's coordinates."""
        return build_preconditioner(
            self.shards, self.coordinates, self.penalty, self.class_share, self.moments
        )

    def refinement_cost(self) -> float | None:
        """Return the cost of `refined_preconditioner` in passes; None where there is none."""
        return refinement_cost(self.shards, self.n_logits)

    def refined_preconditioner(self, at: Evaluation) -> Preconditioner:
        """Invert the Hessian's block of each class, or an approximation of it, at a point."""
        return build_refined(self.shards, self.coordinates, self.penalty, at.weights, at.bias)

    def diagonal_bound(self) -> Array:
        """Return the Hessian's diagonal at the model without weights, without the 1-norm."""
        if self._diagonal is None:
            self._diagonal = diagonal_bound(
                self.shards, self.coordinates, self.penalty, self.class_share
            )
        return self._diagonal

    def diagonal(self, at: Evaluation) -> Array:
        """Return the Hessian's diagonal at a point, without the 1-norm."""
        return diagonal_at(
            self.shards, self.coordinates, self.penalty, at.weights, at.bias, self.diagonal_bound()
        )

    def free_blocks(self, at: Evaluation, free: Array) -> FreeBlocks | None:
        """Return the Hessian's blocks for some coefficients at a point; None where too large.

        Of sparse rows only in float64, in which a fit ends, and also for coefficients that may be
        free soon.
        """
        sparse_rows = [shard for shard in self.shards if isinstance(shard, CsrShard)]
        if len(sparse_rows) == len(self.shards):
            if sparse_rows[0].real != np.float64:
                return None
            steep = np.abs(at.gradient[: self.n_weights]) > _NEAR * self.l1
            return build_csr_blocks(
                sparse_rows,
                self.coordinates,
                self.diagonal(at),
                self.penalty,
                at.weights,
                at.bias,
                np.union1d(free, np.flatnonzero(steep)),
            )
        return build_free_blocks(
            self.shards,
            self.coordinates,
            self.diagonal_bound(),
            self.penalty,
            at.weights,
            at.bias,
            free,
        )

    # ---- second derivatives ----

    def hessian_cost(self) -> float:
        """Multiply-adds of a Hessian, and of its inverse."""
        return float(self.n_rows + self.n_params) * self.n_params**2

    def hessian(self, at: Evaluation) -> Array:
        """Return the Hessian of F in the solver's coordinates, in a new array."""
        return build_hessian(self.shards, self.coordinates, self.penalty, at.weights, at.bias)

    def curved_span(self, hessian: Array) -> Array | None:
        """Return a basis of where F without a penalty curves, None for everywhere."""
        return curved_span(hessian, self.n_logits, self.n_weights)

    # ---- what separates the classes ----

    def logit_change(self, direction: Array) -> float:
        """Return the most by which a step changes the difference of two logits of a row."""
        weights, bias = self.coefficients_of(direction)
        largest = 0.0
        for shard in self.shards:
            for start in range(0, shard.n_rows, _CHANGE_ROWS):
                rows = slice(start, start + _CHANGE_ROWS)
                change = np.asarray(shard.X[rows] @ weights.T) + bias
                if self.n_logits < self.n_classes:
                    change = np.abs(change)
                spread = np.ptp(change, axis=1) if self.n_logits > 1 else change[:, 0]
                weighted = shard.row_weights[rows] > 0.0
                largest = max(largest, float(spread.max(initial=0.0, where=weighted)))
        return largest
