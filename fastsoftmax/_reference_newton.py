"""Newton's method for small problems in plain numpy: the part of `reference` that is a solver."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsoftmax._reference_rows import quiet, shift

Array = NDArray[Any]

_EPSILON = float(np.finfo(np.float64).eps)
_MOST_HALVINGS, _LEVEL = 30, 64.0


class _Point(NamedTuple):
    value: float
    loss: float
    accuracy: float
    bound: float
    gradient: Array
    hessian: Array


class _Problem(NamedTuple):
    Z: Array
    targets: Array  # (n, n_classes), smoothed
    right: Array  # (n,) classes
    row_weights: Array
    class_share: Array
    penalty: float
    fit_intercept: bool

    @property
    def n_penalised(self) -> int:
        return int(self.Z.shape[1]) - self.fit_intercept

    def evaluate(self, params: Array) -> _Point:
        Z, d, (n_logits, m) = self.Z, self.n_penalised, params.shape
        logits = Z @ params.T
        if n_logits < len(self.class_share):
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        row = shift(logits)
        others = row.others[:, 0]
        probs = row.exps / (1.0 + row.others)
        gaps = np.where(self.targets > 0.0, self.targets * row.gap, 0.0).sum(axis=1)
        n = len(Z)
        loss = float(self.row_weights @ (np.log1p(others) + gaps)) / n
        accuracy = float(self.row_weights @ (row.at[:, 0] == self.right)) / n
        residual = ((probs - self.targets) * self.row_weights[:, np.newaxis])[:, -n_logits:]
        gradient = residual.T @ Z / n
        if n_logits > 1:
            gradient -= gradient.mean(axis=0)
        weights = params[:, :d]
        gradient[:, :d] += self.penalty * weights
        p = probs[:, -n_logits:]
        rows = (p[:, :, np.newaxis] * Z[:, np.newaxis]).reshape(n, -1)
        hessian = -(rows.T @ (rows * self.row_weights[:, np.newaxis])).reshape(
            n_logits, m, n_logits, m
        )
        for k in range(n_logits):
            hessian[k, :, k] += (Z * (p[:, k] * self.row_weights)[:, np.newaxis]).T @ Z
        hessian /= n
        for k in range(n_logits):
            hessian[k, range(d), k, range(d)] += self.penalty
        if n_logits > 1:
            hessian[:, d:, :, d:] += 1.0 / n_logits
        square = float(np.vdot(weights, weights))
        value = loss + 0.5 * self.penalty * square
        bound = self.gap_bound(params, gradient, loss, square)
        return _Point(
            value, loss, accuracy, bound, gradient, hessian.reshape(params.size, params.size)
        )

    def gap_bound(self, params: Array, gradient: Array, loss: float, square: float) -> float:
        """Return the bound of `SoftmaxObjective.gap_bound`."""
        d, penalty = self.n_penalised, self.penalty
        residual, V = gradient[:, :d], params[:, :d]
        rr = float(np.vdot(residual, residual))
        if not self.fit_intercept:
            return rr / (2.0 * penalty)
        bias_grad = gradient[:, d]
        excess = bias_grad
        if len(params) < len(self.class_share):
            excess = np.concatenate([-bias_grad, bias_grad])
        over = excess > 0.0
        if not over.any():
            return rr / (2.0 * penalty)
        room = float(np.min(self.class_share[over] / excess[over]))
        u = np.maximum(self.class_share - room * excess, 0.0)
        u /= u.sum()
        share = 1.0 / (1.0 + room)
        errors = self.row_weights[:, np.newaxis] * (self.class_share - self.targets)
        base = (errors[:, -len(params) :].T @ self.Z[:, :d]) / len(self.Z)
        D = base - residual + penalty * V
        mixed = residual + share * D
        bias_term = float(params[:, d] @ bias_grad)
        entropy = loss - float(np.vdot(V, residual)) + penalty * square - bias_term
        entropy_u = -float(np.sum(u * np.log(u, where=u > 0.0, out=np.zeros_like(u))))
        bound = (
            float(np.vdot(mixed, mixed)) / (2.0 * penalty)
            - share * float(np.vdot(V, D))
            + bias_term
            + share * (entropy - entropy_u)
        )
        return max(bound, 0.0)


def newton_steps(
    points: Array,
    records: Array,
    start: Array,
    Z: Array,
    labels: Array | None,
    target_probs: Array | None,
    row_weights: Array,
    label_smoothing: float,
    class_share: Array,
    penalty: float,
    fit_intercept: bool,
    tol: float,
    target: float,
    *,
    isa: str | None = None,
) -> tuple[int, bool, bool]:
    """At most len(points) steps of Newton's method from start, for the model o = start z.

    All float64: Z (n, m), its last column 1 with fit_intercept; start (n_logits, m), points
    (n_steps, n_logits * m) and records (n_steps, 4), which get the coefficients after each step
    with their mean loss, accuracy, objective and bound on objective - minimum. The objective is
    penalised by penalty / 2 times the squares of what is not an intercept. It stops where the
    bound is at most target * objective, or at most tol * objective where the objective no longer
    falls. Returns (steps, whether it stopped for that, whether there is nothing more to gain here).
    """
    n_classes = len(class_share)
    if target_probs is None:
        assert labels is not None
        targets, right = np.eye(n_classes)[labels], labels
    else:
        targets, right = target_probs, target_probs.argmax(axis=1)
    targets = (1.0 - label_smoothing) * targets + label_smoothing / n_classes
    problem = _Problem(Z, targets, right, row_weights, class_share, penalty, fit_intercept)
    with quiet():
        params, at = start, problem.evaluate(start)
        for i in range(len(points) + 1):
            if at.bound <= target * at.value:
                return i, True, False
            if i == len(points):
                return i, False, False
            found = _descend(problem, params, at)
            if found is None:
                return i, False, True
            before, (params, at) = at, found
            points[i] = params.ravel()
            records[i] = at.loss, at.accuracy, at.value, at.bound
            if before.value - at.value <= _EPSILON * abs(before.value):
                done = at.bound <= tol * at.value
                return i + 1, done, not done
    raise AssertionError


def _descend(problem: _Problem, params: Array, at: _Point) -> tuple[Array, _Point] | None:
    """Take a step of Newton's method, or as much of it as makes the objective fall."""
    try:
        np.linalg.cholesky(at.hessian)
        step = -np.linalg.solve(at.hessian, at.gradient.ravel()).reshape(params.shape)
    except np.linalg.LinAlgError:
        return None
    slope = float(np.vdot(step, at.gradient))
    if not (slope < 0.0 and np.isfinite(slope)):
        return None
    # where rounding hides the decrease, the slope tells (Hager & Zhang 2005)
    level = at.value + _LEVEL * _EPSILON * abs(at.value)
    for halving in range(_MOST_HALVINGS + 1):
        length = 0.5**halving
        end = params + length * step
        new = problem.evaluate(end)
        flatter = abs(float(np.vdot(step, new.gradient))) <= -0.5 * slope
        if new.value <= at.value + 1e-4 * length * slope or (flatter and new.value <= level):
            return end, new
    return None
