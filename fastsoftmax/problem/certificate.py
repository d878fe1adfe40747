"""How far a point of the penalised problem is from the minimum at most, and what rounding adds."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.problem import elastic_net
from fastsoftmax.problem.evaluation import Dots, Evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastsoftmax.problem.coordinates import Coordinates
    from fastsoftmax.shards.shard import Shard

# A share of F that does not matter.
_LITTLE = 1e-7


class CertificateMixin:
    """The certificate of `SoftmaxObjective`, whose attributes these are."""

    shards: "Sequence[Shard]"
    coordinates: "Coordinates"
    class_share: Array
    penalty: float
    l1: float
    fit_intercept: bool
    epsilon: float
    n_rows: int
    n_classes: int
    n_logits: int
    n_weights: int
    _far: float
    _base_grad: Array | None
    _base_square: float

    def evaluate(self, point: Array) -> Evaluation:
        """One pass over the rows at a solver's vector."""
        raise NotImplementedError

    def null_point(self) -> Array:
        """Return the best model without weights."""
        raise NotImplementedError

    def penalty_of(self, weights: Array, square: float, *, raw: bool = False) -> float:
        """Return the penalty."""
        raise NotImplementedError

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
            self.evaluate(self.null_point())
        assert self._base_grad is not None
        return self._base_grad

    def note_base(self, base: Array) -> None:
        """Keep what `base_grad` returns, where it is known."""
        self._base_grad = base
        self._base_square = float(np.vdot(base, base))


def _entropy(u: Array) -> float:
    """Entropy of a distribution, in nats."""
    return float(-np.sum(u * np.log(u, where=u > 0, out=np.zeros_like(u))))
