"""How far a point of the penalised problem is from the minimum at most."""

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner
from fastsoftmax.problem import elastic_net
from fastsoftmax.problem.evaluation import Dots, Evaluation
from fastsoftmax.problem.problem import Problem


def gap_bound(problem: Problem, at: Evaluation) -> float:
    """Return an upper bound on F(W, b) - min F, from the gradient of the pass alone.

    The dual of the problem has a distribution Q_i for each row and the value
    mean H(Q_i) - ||G_Q||^2 / (2 l2), G_Q = mean (Q_i - y_i) x_i^T, which is at most min F
    whenever mean Q_i = mean y_i (that is the intercept's condition; without an intercept there
    is none). The model's own probabilities P_i give G_P, the gradient of the loss, and
    mean H(P_i) = loss - <W, G_P> - <b, g>, so nothing has to be computed for it. Where the
    intercept is not yet at its optimum, g = mean (P_i - y_i) is not 0, and
    Q_i = (1 - t) P_i + t u meets the condition with the fixed distribution
    u = mean y - ((1 - t) / t) g, for the smallest t that keeps u >= 0; entropy is concave, so
    H(Q_i) >= (1 - t) H(P_i) + t H(u). With t = 0 the bound is ||grad_W F||^2 / (2 l2).

    (W and x stand for V and the scaled features here.)

    Without an intercept any Q is allowed, and the bound is ||grad_W F||^2 / (2 l2) + <c, g>. The
    problem has c = 0, but the coefficients as they are stored may not: where features are shifted,
    b = -W mean is rounded, in float32 by 1e-4 where it is 1e3. And where features are far from 0,
    W mean cannot be told from its neighbours in float64, and so much of mean Q_i - mean y_i remains
    that, times the mean, it spoils the bound. After a pass over centred rows a Q without any is
    tried as well (seconds since 1970: a gap of 1e-14 read 1, and so 1e-8).

    Source: Fenchel duality as in Shalev-Shwartz & Zhang 2013 (JMLR 14), Section 2, with the
    constraint that an unpenalised intercept adds.
    """
    if problem.l1 > 0.0:
        return elastic_net.gap_bound(dual_point(problem, at), problem.l1, problem.l2)
    if problem.l2 <= 0.0:
        return np.inf
    if problem.fit_intercept:
        return _bound_by_mixture(problem, at)
    bound = max(at.dots.rr / (2.0 * problem.l2) + _bias_term(problem, at), 0.0)
    return bound if at.centered_residual is None else min(bound, _bound_by_mixture(problem, at))


def dual_point(problem: Problem, at: Evaluation) -> elastic_net.DualPoint:
    """Return the Q of `gap_bound` as an elastic net needs it."""
    V = at.weights / problem.coordinates.scale
    grad = problem.coordinates.matrix_of(at.gradient) - problem.l2 * V
    along = inner(V, grad) + _bias_term(problem, at)
    excess, entropy = problem.penalty(V, at.square) + along, at.loss - along
    mixture = _feasible_mixture(problem, at) if problem.fit_intercept else None
    if mixture is not None:
        share, u = mixture
        less = share * (entropy - _entropy(u))
        excess, entropy = excess + less, entropy - less
        grad *= 1.0 - share
        grad += share * at.origin.base().gradient
        shift = at.origin.mean_shift()
        if shift is not None:
            grad += np.outer(share * (u - problem.class_share)[-problem.n_logits :], shift)
    size = np.abs(grad, out=grad)
    return elastic_net.DualPoint(excess, entropy, problem.target_entropy, size)


def _bias_term(problem: Problem, at: Evaluation) -> float:
    """Return <c, g>, for the c of the problem's own features."""
    coordinates = problem.coordinates
    is_shifted = coordinates.fit_intercept or coordinates.standardize
    return float((at.centered_bias if is_shifted else at.bias) @ at.bias_grad)


def _bound_by_mixture(problem: Problem, at: Evaluation) -> float:
    """Return the bound of `gap_bound` from a Q with mean Q_i = mean y_i.

    The products, and the intercept, are those of centred features. These change no G_Q of such a
    Q; with others (points in time, 1e9) the terms would cancel and leave rounding alone (a gap of
    1e-15 read 11).
    """
    l2 = problem.l2
    mixture = _feasible_mixture(problem, at)
    if mixture is None:
        r = at.centered_residual
        return (at.dots.rr if r is None else inner(r, r)) / (2.0 * l2)
    share, u = mixture
    rr, rv, rb, vb = _products(problem, at)
    # with G = r - l2 V the gradient of the loss, and D = base - G, the bound is
    # |r + t D|^2 / (2 l2) - t <V, D> + <b, g> + t (entropy - H(u))
    rd = rb - rr + l2 * rv
    vd = vb - rv + l2 * at.square
    dd = at.origin.base().square - rb - rd + l2 * (vb + vd)
    bias_term = float(at.centered_bias @ at.bias_grad)
    entropy = at.loss - (rv - l2 * at.square) - bias_term
    bound = (rr + 2.0 * share * rd + share**2 * dd) / (2.0 * l2) - share * vd + bias_term
    return max(bound + share * (entropy - _entropy(u)), 0.0)


def _products(problem: Problem, at: Evaluation) -> tuple[float, float, float, float]:
    """Return the products of r and V with r, V and the base gradient, as `Dots` has them."""
    base = at.origin.base().gradient
    if at.centered_residual is not None and at.scaled_weights is not None:
        r, V = at.centered_residual, at.scaled_weights
        rr, rv, rb, vb = (inner(a, b) for a, b in ((r, r), (r, V), (r, base), (V, base)))
        return rr, rv, rb, vb
    dots: Dots = at.dots
    if dots.rb is not None and dots.vb is not None:
        return dots.rr, dots.rv, dots.rb, dots.vb
    r, V = problem.coordinates.matrix_of(at.gradient), at.weights / problem.coordinates.scale
    return dots.rr, dots.rv, inner(r, base), inner(V, base)


def _feasible_mixture(problem: Problem, at: Evaluation) -> tuple[float, Array] | None:
    """(t, u) of `gap_bound`; None where the model's own probabilities are feasible."""
    excess, class_share = at.bias_grad, problem.class_share
    if problem.n_logits < problem.n_classes:
        return _feasible_of_two(float(excess[0]), class_share)
    over = excess > 0.0
    if not over.any():
        return None
    room = float(np.min(class_share[over] / excess[over]))  # (1 - t) / t at most this
    u = np.maximum(class_share - room * excess, 0.0)
    return 1.0 / (1.0 + room), u / u.sum()


def _feasible_of_two(excess: float, class_share: Array) -> tuple[float, Array] | None:
    """Return the same for two classes, of which the one with too much gets nothing of u."""
    if not 0.0 < abs(excess) < np.inf:
        return None
    k = int(excess > 0.0)
    share = abs(excess) / (abs(excess) + float(class_share[k]))
    return share, np.array([1.0, 0.0]) if k else np.array([0.0, 1.0])


def _entropy(u: Array) -> float:
    """Entropy of a distribution, in nats."""
    if len(u) == 2 and u[0] * u[1] == 0.0:
        return 0.0
    return float(-np.sum(u * np.log(u, where=u > 0, out=np.zeros_like(u))))
