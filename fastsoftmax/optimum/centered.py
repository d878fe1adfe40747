"""The penalised problem once more, for what rounding hides from a pass over raw features.

A pass computes W x + b from x as it is stored, in the number type of X. Where the features are far
from 0 (points in time, 1.7e9 seconds) that cancels, and where they are float32 and large, rounding
of their gradient alone forbids a small certificate: an error of 1e-7 in the probabilities, features
of 1e4 and lambda = 1 / 150 leave a bound of (1e-3)^2 * 75 at the very optimum. Here blocks of rows
are brought to float64, shifted and scaled before the kernel sees them, so that a pass has rounding
errors of float64 relative to the spread of a feature. X is not copied, but a pass takes several
times as long; so a fit comes here only where the other passes could not finish.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem import elastic_net
from fastsoftmax.problem.evaluation import Dots, Evaluation
from fastsoftmax.shards.shard import DenseShard, Shard, Sums, add_sums

# Numbers in a block of rows (8 MB).
_BLOCK_NUMBERS = 1 << 20
# Sparse rows are filled for this, which is hopeless beyond so many features.
_MOST_SPARSE_FEATURES = 2048


class _Block(NamedTuple):
    """Rows as the kernels take them, all of float64."""

    x: Array
    labels: Array | None
    target_probs: Array | None
    row_weights: Array


@dataclass(frozen=True)
class CenteredEvaluation(Evaluation):
    """The objective at one point, with what is not lost to rounding."""

    scaled_weights: Array  # V
    centered_grad: Array  # of the mean cross-entropy by V, for those


class CenteredObjective(SoftmaxObjective):
    """The problem of another objective, by passes over centred rows in float64.

    Its points are not rounded to the number type of X: `rounded` tells what remains of one.

    Parameters
    ----------
    plain : SoftmaxObjective
    """

    def __init__(self, plain: SoftmaxObjective) -> None:
        self.__dict__.update(plain.__dict__)
        self.epsilon = float(np.finfo(np.float64).eps)
        self._base_grad = None
        self._mean_shift: Array | None = None
        self.mean = self.coordinates.center
        if not (self.fit_intercept or self.standardize):
            self.mean = np.sum([s.feature_sums() for s in self.shards], axis=0) / self.n_rows

    @staticmethod
    def is_possible(plain: SoftmaxObjective) -> bool:
        """Whether a pass is affordable."""
        dense = all(isinstance(shard, DenseShard) for shard in plain.shards)
        return dense or plain.n_features <= _MOST_SPARSE_FEATURES

    # ---- value and gradient ----

    def evaluate(self, point: Array) -> CenteredEvaluation:
        """One pass over the rows at a solver's vector."""
        weights, bias = self.coefficients_of(point)
        scaled_weights = np.ascontiguousarray(point[: self.n_weights].reshape(weights.shape))
        if self.fit_intercept:
            return self._evaluate(weights, bias, scaled_weights, point[self.n_weights :])
        centered_bias = self._logits_of_mean(weights, bias)
        return self._evaluate(weights, bias, scaled_weights, centered_bias)

    def evaluate_coefficients(self, weights: Array, bias: Array) -> CenteredEvaluation:
        """One pass over the rows at weights and bias for raw features."""
        centered_bias = self._logits_of_mean(weights, bias)
        return self._evaluate(weights, bias, weights / self.coordinates.scale, centered_bias)

    def rounded(self, at: Evaluation) -> CenteredEvaluation:
        """Evaluate the coefficients in the number type of X, the bias for the rounded weights."""
        real = self.shards[0].real
        weights = at.weights.astype(real).astype(np.float64)
        bias = at.bias
        if self.fit_intercept:
            # for features far from 0 the intercept consists of what balances the weights
            bias = bias + self._logits_of_mean(at.weights - weights, np.zeros(self.n_logits))
        return self.evaluate_coefficients(weights, bias.astype(real).astype(np.float64))

    def _logits_of_mean(self, weights: Array, bias: Array) -> Array:
        """W mean + b, which cancels: where long doubles are longer, it costs no digit."""
        exact = weights.astype(np.longdouble) @ self.mean.astype(np.longdouble) + bias
        return exact.astype(np.float64)

    def _evaluate(
        self, weights: Array, bias: Array, scaled_weights: Array, centered_bias: Array
    ) -> CenteredEvaluation:
        sums = self._centered_sums(scaled_weights, centered_bias)
        centered_grad, bias_grad = sums.grad_weights / self.n_rows, sums.grad_bias / self.n_rows
        if self.n_logits > 1:  # as in SoftmaxObjective
            centered_grad -= centered_grad.mean(axis=0)
            bias_grad -= bias_grad.mean()
        grad = centered_grad
        gradient = np.empty(self.n_params)
        if self.fit_intercept:
            gradient[self.n_weights :] = bias_grad
        elif not self.standardize:
            grad = centered_grad + np.outer(bias_grad, self.mean * self.coordinates.scale)
        residual = grad + self.penalty * scaled_weights
        gradient[: self.n_weights] = residual.ravel()
        loss = sums.loss / self.n_rows
        square = float(np.vdot(scaled_weights, scaled_weights))
        return CenteredEvaluation(
            weights=weights,
            bias=bias,
            loss=loss,
            accuracy=sums.correct / self.n_rows,
            value=loss + self.penalty_of(scaled_weights, square),
            square=square,
            bias_grad=bias_grad,
            gradient=gradient,
            centered_bias=centered_bias,
            dots=Dots(float(np.vdot(residual, residual)), 0.0, None, None),
            scaled_weights=scaled_weights,
            centered_grad=centered_grad,
        )

    def _centered_sums(self, scaled_weights: Array, centered_bias: Array) -> Sums:
        """Return the sums of a pass, the gradient by V for the features scale * (x - mean)."""
        total: Sums | None = None
        for shard in self.shards:
            for block in self._blocks(shard):
                grad_weights, grad_bias = np.empty(scaled_weights.shape), np.empty(self.n_logits)
                targets = shard.backend.Targets(*block[1:], shard.label_smoothing, self.n_classes)
                loss, correct = shard.backend.loss_grad(
                    grad_weights,
                    grad_bias,
                    block[0],
                    targets,
                    scaled_weights,
                    centered_bias,
                    n_threads=shard.n_threads,
                )
                part = Sums(loss, correct, grad_weights, grad_bias)
                total = part if total is None else add_sums(total, part)
        assert total is not None
        return total

    def _blocks(self, shard: Shard) -> Iterator[_Block]:
        scale = self.coordinates.scale
        n_rows = max(1, _BLOCK_NUMBERS // max(1, self.n_features))
        for start in range(0, max(1, shard.n_rows), n_rows):
            rows = slice(start, start + n_rows)
            x = shard.dense(rows)
            x -= self.mean
            x *= scale
            probs = shard.target_probs
            yield _Block(
                x,
                None if shard.labels is None else shard.labels[rows],
                None if probs is None else probs[rows].astype(np.float64),
                shard.row_weights[rows].astype(np.float64),
            )

    # ---- certificate ----

    def gap_bound(self, at: Evaluation) -> float:
        """Return an upper bound on F(W, b) - min F, as SoftmaxObjective does.

        Without an intercept any Q will do there. But where features are far from 0, W mean cannot
        be told from its neighbours in float64, and so much of mean Q_i - mean y_i remains that,
        times the mean, it spoils the bound. A Q without any is worth trying (seconds since 1970: a
        gap of 1e-14 read 1, and so 1e-8).
        """
        if self.penalty <= 0.0 or self.l1 > 0.0:
            return super().gap_bound(at)
        assert isinstance(at, CenteredEvaluation)
        residual = at.centered_grad + self.penalty * at.scaled_weights
        pairs = [(residual, residual), (residual, at.scaled_weights)]
        pairs += [(residual, self.base_grad()), (at.scaled_weights, self.base_grad())]
        bound = self._bound_by_mixture(at, Dots(*(float(np.vdot(a, b)) for a, b in pairs)))
        return bound if self.fit_intercept else min(bound, super().gap_bound(at))

    def dual_point(self, at: Evaluation) -> elastic_net.DualPoint:
        """Return the Q of `gap_bound` as an elastic net needs it."""
        assert isinstance(at, CenteredEvaluation)
        if not self.fit_intercept:
            return super().dual_point(at)
        residual = at.centered_grad + self.penalty * at.scaled_weights
        return self._dual_point(at, residual, at.centered_bias)

    def mean_shift(self) -> Array | None:
        """Return the mean of the centred and scaled features, which is not quite 0.

        Of features of 1e4 in float32 the mean is known to 1e-3, and where the intercept was not at
        its optimum, a gap of 3e-7 read 3e-8.
        """
        if self._mean_shift is None:
            total = np.zeros(self.n_features)
            for shard in self.shards:
                for block in self._blocks(shard):
                    total += block.row_weights @ block.x
            self._mean_shift = total / self.n_rows
        return self._mean_shift

    def noise(self, at: Evaluation) -> float:
        """Return 0: nothing cancels in passes over centred rows."""
        return 0.0

    def base_grad(self) -> Array:
        """Gradient by V of the mean cross-entropy where every row has the class shares."""
        if self._base_grad is None:
            self._base_grad = self.evaluate(self.null_point()).centered_grad
            self._base_square = float(np.vdot(self._base_grad, self._base_grad))
        return self._base_grad
