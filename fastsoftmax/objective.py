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
  c = b + W mean(x), the intercept of centred features (see `coordinates`). Centring costs no copy
  of X and removes the coupling between V and the intercept.
- Where the rows are float32, so are W and b in the pass over them; penalty, certificate and
  result refer to the rounded values.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastsoftmax import elastic_net
from fastsoftmax.coordinates import Coordinates
from fastsoftmax.curvature import (
    build_preconditioner,
    build_refined,
    diagonal_at,
    diagonal_bound,
    refinement_cost,
)
from fastsoftmax.free_blocks import FreeBlocks, build_free_blocks
from fastsoftmax.preconditioner import Preconditioner
from fastsoftmax.shard import Array, DenseShard, Shard, Sums, add_sums
from fastsoftmax.vectors import Vectors

# A share of F that does not matter.
_LITTLE = 1e-7
# Rows at a time in `logit_change`.
_CHANGE_ROWS = 1024


def _length(vector: Array) -> float:
    """Euclidean length, finite also where squares are not."""
    most = float(np.finfo(np.float64).max)
    largest = min(float(np.max(np.abs(vector), initial=0.0)), most)
    if largest == 0.0:
        return 0.0
    return min(largest * float(np.linalg.norm(vector / largest)), most)


class Dots(NamedTuple):
    """Sums over the coefficients that certificates are made of; r is the gradient of F by V."""

    rr: float
    rv: float
    rb: float | None  # b is `SoftmaxObjective.base_grad`, which may not be known yet
    vb: float | None


def _entropy(u: Array) -> float:
    """Entropy of a distribution, in nats."""
    return float(-np.sum(u * np.log(u, where=u > 0, out=np.zeros_like(u))))


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point."""

    weights: Array  # (n_logits, n_features), as the pass saw them, in its number type
    bias: Array  # (n_logits,) float64, for raw features
    loss: float  # mean cross-entropy, in nats
    accuracy: float  # weighted share of rows whose largest logit is that of the target
    value: float  # F
    square: float  # ||V||^2
    bias_grad: Array  # (n_logits,) gradient of the mean cross-entropy by b
    gradient: Array  # flat, of F without its 1-norm, by the solver's vector
    centered_bias: Array  # (n_logits,) b + W mean(x), or b without an intercept
    dots: Dots


class SoftmaxObjective:
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
        As `curvature.mean_moments` returns them, for the same features: where several problems
        share them, only the first pays.
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
        self.n_logits = 1 if first.n_classes == 2 else first.n_classes
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
            self._note_base(at)
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
            self.coordinates.center,
            self.coordinates.scale_or_none,
            self._base_grad,
            1.0 / self.n_rows,
            self.penalty,
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
        scale = self.coordinates.scale
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
                squared_scale=None if (scale == 1.0).all() else scale**2,
                center=self._sgd_center(),
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
        """Return the Hessian's blocks for some coefficients at a point; None where too large."""
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
        """Return the Hessian of F in the solver's coordinates, in a new array.

        Softmax does not see a number added to all logits, so the intercepts' common direction is
        flat (and without a penalty that of each feature): there the Hessian gets the curvature 1 of
        an objective with the same minimum.
        """
        k, d, m = self.n_logits, self.n_features, self.n_params // self.n_logits
        total = np.zeros((self.n_params, self.n_params))
        for shard in self.shards:
            total += shard.hessian(
                at.weights.astype(np.float64, copy=False),
                at.bias,
                self.coordinates.center,
                with_bias=self.fit_intercept,
            )
        total /= self.n_rows
        blocks = total.reshape(k, m, k, m)
        blocks[:, :d] *= self.coordinates.scale[:, np.newaxis, np.newaxis]
        blocks[:, :, :, :d] *= self.coordinates.scale
        if k > 1:
            for j in range(0 if self.penalty <= 0.0 else d, m):
                blocks[:, j, :, j] += 1.0 / k
        features = np.arange(d)
        for i in range(k):
            blocks[i, features, i, features] += self.penalty
        return total[self._by_weights]

    @cached_property
    def _by_weights(self) -> tuple[Array, ...]:
        """Index from coefficients of a logit together to all weights, then all intercepts."""
        order = np.arange(self.n_params).reshape(self.n_logits, -1)
        d = self.n_features
        return np.ix_(*2 * [np.concatenate([order[:, :d].ravel(), order[:, d:].ravel()])])

    # ---- certificate ----

    def gap_bound(self, at: Evaluation) -> float:
        """Return an upper bound on F(W, b) - min F, from the gradient of the pass alone.

        The dual of the problem has a distribution Q_i for each row and the value
        mean H(Q_i) - ||G_Q||^2 / (2 lambda), G_Q = mean (Q_i - y_i) x_i^T, which is at most min F
        whenever mean Q_i = mean y_i (that is the intercept's condition; without an intercept there
        is none). The model's own probabilities P_i give G_P, the gradient of the loss, and
        mean H(P_i) = loss - <W, G_P> - <b, g>, so nothing has to be computed for it. Where the
        intercept is not yet at its optimum, g = mean (P_i - y_i) is not 0, and
        Q_i = (1 - t) P_i + t u meets the condition with the fixed distribution
        u = mean y - ((1 - t) / t) g, for the smallest t that keeps u >= 0; entropy is concave, so
        H(Q_i) >= (1 - t) H(P_i) + t H(u). With t = 0 the bound is ||grad_W F||^2 / (2 lambda).

        (W and x stand for V and the scaled features here.)

        Source: Fenchel duality as in Shalev-Shwartz & Zhang 2013 (JMLR 14), Section 2, with the
        constraint that an unpenalised intercept adds.
        """
        if self.l1 > 0.0:
            return elastic_net.gap_bound(self.dual_point(at), self.l1, self.penalty)
        if self.penalty <= 0.0:
            return np.inf
        if not self.fit_intercept:
            return at.dots.rr / (2.0 * self.penalty)
        return self._bound_by_mixture(at, at.dots)

    def dual_point(self, at: Evaluation) -> elastic_net.DualPoint:
        """Return the Q of `gap_bound` as an elastic net needs it."""
        residual = at.gradient[: self.n_weights].reshape(at.weights.shape)
        return self._dual_point(at, residual, at.centered_bias if self.fit_intercept else None)

    def _dual_point(
        self, at: Evaluation, residual: Array, bias: Array | None
    ) -> elastic_net.DualPoint:
        """Return it for the smooth gradient by V and, of centred features, the intercept.

        Without one (None) the model's own probabilities will do.
        """
        V = at.weights / self.coordinates.scale
        grad = residual - self.penalty * V
        along = float(np.vdot(V, grad)) + (0.0 if bias is None else float(bias @ at.bias_grad))
        excess, entropy = self.penalty_of(V, at.square) + along, at.loss - along
        mixture = None if bias is None else self._feasible_mixture(at)
        if mixture is not None:
            share, u = mixture
            less = share * (entropy - _entropy(u))
            excess, entropy = excess + less, entropy - less
            grad *= 1.0 - share
            grad += share * self.base_grad()
            shift = self.mean_shift()
            if shift is not None:
                grad += np.outer(share * (u - self.class_share)[-self.n_logits :], shift)
        size = np.abs(grad, out=grad)
        return elastic_net.DualPoint(excess, entropy, self.target_entropy, size)

    def mean_shift(self) -> Array | None:
        """Return the mean of the centred and scaled features, which rounding left; if known."""
        return None

    @cached_property
    def target_entropy(self) -> float:
        """Mean entropy of the targets, in nats."""
        return sum(shard.target_entropy() for shard in self.shards) / self.n_rows

    def noise(self, at: Evaluation) -> float:
        """Return the size of errors in F and its bound where W x and b cancel.

        That is where features are far from 0; row by row the digits are lost in another way. Of
        features of 1e4 + noise in float32 F was wrong by 1e-4, and a gap read -1e-4.
        """
        unit = 4.0 * self.epsilon / np.sqrt(self.n_rows)
        far = np.sqrt(at.square) * self._far
        if unit * far > _LITTLE * at.value:  # that was at least as much as this, which costs more
            center = np.abs(self.coordinates.center)
            far = max((float(np.abs(row) @ center) for row in at.weights), default=0.0)
        return float(unit * far)

    def _bound_by_mixture(self, at: Evaluation, dots: Dots) -> float:
        """Return the bound of `gap_bound` from a Q with mean Q_i = mean y_i.

        The dots, and the intercept, are those of centred features. These change no G_Q of such a
        Q; with others (points in time, 1e9) the terms would cancel and leave rounding alone (a gap
        of 1e-15 read 11).
        """
        mixture = self._feasible_mixture(at)
        if mixture is None:
            return dots.rr / (2.0 * self.penalty)
        share, u = mixture
        # with G = r - lambda V the gradient of the loss, and D = base - G, the bound is
        # |r + t D|^2 / (2 lambda) - t <V, D> + <b, g> + t (entropy - H(u))
        penalty, vv = self.penalty, at.square
        rr, rv = dots.rr, dots.rv
        rb, vb = self._along_base(at, dots)
        rd = rb - rr + penalty * rv
        vd = vb - rv + penalty * vv
        dd = self._base_square - rb - rd + penalty * (vb + vd)
        bias_term = float(at.centered_bias @ at.bias_grad)
        entropy = at.loss - (rv - penalty * vv) - bias_term
        entropy_u = _entropy(u)
        bound = (
            (rr + 2.0 * share * rd + share**2 * dd) / (2.0 * penalty)
            - share * vd
            + bias_term
            + share * (entropy - entropy_u)
        )
        return max(bound, 0.0)

    def _along_base(self, at: Evaluation, dots: Dots) -> tuple[float, float]:
        """Return the products of r and of V with the base gradient."""
        if dots.rb is not None and dots.vb is not None:
            return dots.rb, dots.vb
        base = self.base_grad()
        residual = at.gradient[: self.n_weights].reshape(base.shape)
        return float(np.vdot(residual, base)), float(
            np.vdot(at.weights / self.coordinates.scale, base)
        )

    def _feasible_mixture(self, at: Evaluation) -> tuple[float, Array] | None:
        """(t, u) of `gap_bound`; None where the model's own probabilities are feasible."""
        excess = at.bias_grad
        if self.n_logits < self.n_classes:
            excess = np.concatenate([-excess, excess])
        over = excess > 0.0
        if not over.any():
            return None
        room = float(np.min(self.class_share[over] / excess[over]))  # (1 - t) / t at most this
        u = np.maximum(self.class_share - room * excess, 0.0)
        return 1.0 / (1.0 + room), u / u.sum()

    def base_grad(self) -> Array:
        """Gradient by V of the mean cross-entropy where every row has the class shares.

        For centred features; to those no shares but the targets' own matter.
        """
        if self._base_grad is None:
            self._note_base(self.evaluate(self.null_point()))
        assert self._base_grad is not None
        return self._base_grad

    def _note_base(self, at: Evaluation) -> None:
        self._base_grad = at.gradient[: self.n_weights].reshape(at.weights.shape)
        self._base_square = at.dots.rr  # V is 0 there

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
