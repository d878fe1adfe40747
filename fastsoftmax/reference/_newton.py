"""Newton's method for small problems in plain numpy: the twin of src/kernels/newton.c.

It repeats what `solvers.newton` does with an objective, because the kernel does, and every kernel
has a twin that it is compared with. Where nothing could be compiled it also computes. Why the
kernel exists, with the figures, is said at the head of newton.c.
"""

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import single_threaded_blas
from fastsoftmax.kernel_arguments import NewtonSettings
from fastsoftmax.reference._rows import Targets, all_logits, row_losses, serial, shift

_EPSILON = float(np.finfo(np.float64).eps)
_MOST_HALVINGS, _MOST_LENGTHS, _LEVEL, _SLOPE_LEFT = 30, 6, 64.0, 0.1
# Of the model: see newton_model.c.
_MOST_PAIRS, _OWN_STEPS, _CHEAP, _LEAST_CURVATURE = 6, 3.0, 0.5, 1e-10
_HESSIAN_SPEED, _PROBABILITY = 3.0, 40.0
_DEAR, _FIRST_ROWS, _BLOCK_ROWS = 4.0, 20, 128


class _Line(NamedTuple):
    """A point on the way along a step, and the derivatives of the loss on that way."""

    logits: Array
    probs: Array
    loss: float
    accuracy: float
    slope: float
    curvature: float


class _Point(NamedTuple):
    params: Array
    value: float
    bound: float
    gradient: Array
    line: _Line


class _Problem(NamedTuple):
    Z: Array
    targets: Array  # (n, n_classes), smoothed
    right: Array  # (n,) classes
    row_weights: Array
    settings: NewtonSettings

    @property
    def n_penalised(self) -> int:
        return int(self.Z.shape[1]) - self.settings.scaling.with_bias

    def line(self, logits: Array, along: Array, length: float) -> _Line:
        logits = logits + length * along
        n_classes = self.targets.shape[1]
        row, along = shift(all_logits(logits, n_classes)), all_logits(along, n_classes)
        probs = row.exps / (1.0 + row.others)
        mean = (probs * along).sum(axis=1)
        slopes = mean - (self.targets * along).sum(axis=1)
        curvatures = (probs * along**2).sum(axis=1) - mean**2
        hits = row.at[:, 0] == self.right
        values = row_losses(row, self.targets), hits, slopes, curvatures
        return _Line(logits, probs, *(float(self.row_weights @ v) / len(self.Z) for v in values))

    def point(self, params: Array, line: _Line) -> _Point:
        d, n_logits = self.n_penalised, len(params)
        residual = ((line.probs - self.targets) * self.row_weights[:, np.newaxis])[:, -n_logits:]
        gradient = residual.T @ self.Z / len(self.Z)
        if n_logits > 1:
            gradient -= gradient.mean(axis=0)
        weights = params[:, :d]
        gradient[:, :d] += self.settings.l2 * weights
        square = float(np.vdot(weights, weights))
        value = line.loss + 0.5 * self.settings.l2 * square
        bound = self.gap_bound(params, gradient, line.loss, square)
        return _Point(params, value, bound, gradient, line)

    def hessian(self, at: _Point, step: int = 1) -> Array:
        """Return the Hessian, from every step-th block of rows."""
        d, (n_logits, m) = self.n_penalised, at.params.shape
        some = np.arange(len(self.Z)) // _BLOCK_ROWS % step == 0
        Z, weights = self.Z[some], self.row_weights[some]
        p = at.line.probs[some, -n_logits:]
        rows = (p[:, :, np.newaxis] * Z[:, np.newaxis]).reshape(len(Z), -1)
        hessian = -(rows.T @ (rows * weights[:, np.newaxis])).reshape(n_logits, m, n_logits, m)
        for k in range(n_logits):
            hessian[k, :, k] += (Z * (p[:, k] * weights)[:, np.newaxis]).T @ Z
        weight = float(weights.sum())
        hessian /= weight if step > 1 and weight > 0.0 else len(self.Z)
        for k in range(n_logits):
            hessian[k, range(d), k, range(d)] += self.settings.l2
        if n_logits > 1:
            hessian[:, d:, :, d:] += 1.0 / n_logits
        result: Array = hessian.reshape(n_logits * m, n_logits * m)
        return result

    def base(self, n_logits: int) -> Array:
        errors = self.row_weights[:, np.newaxis] * (self.settings.class_share - self.targets)
        base: Array = errors[:, -n_logits:].T @ self.Z / len(self.Z)
        return base

    def gap_bound(self, params: Array, gradient: Array, loss: float, square: float) -> float:
        """Return the bound of `problem.certificate.gap_bound`."""
        class_share, l2 = self.settings.class_share, self.settings.l2
        d = self.n_penalised
        residual, V = gradient[:, :d], params[:, :d]
        rr = float(np.vdot(residual, residual))
        if not self.settings.scaling.with_bias:
            return rr / (2.0 * l2)
        bias_grad = gradient[:, d]
        excess = bias_grad
        if len(params) < len(class_share):
            excess = np.concatenate([-bias_grad, bias_grad])
        over = excess > 0.0
        if not over.any():
            return rr / (2.0 * l2)
        room = float(np.min(class_share[over] / excess[over]))
        u = np.maximum(class_share - room * excess, 0.0)
        u /= u.sum()
        share = 1.0 / (1.0 + room)
        base = self.base(len(params))[:, :d]
        D = base - residual + l2 * V
        mixed = residual + share * D
        bias_term = float(params[:, d] @ bias_grad)
        entropy = loss - float(np.vdot(V, residual)) + l2 * square - bias_term
        entropy_u = -float(np.sum(u * np.log(u, where=u > 0.0, out=np.zeros_like(u))))
        bound = (
            float(np.vdot(mixed, mixed)) / (2.0 * l2)
            - share * float(np.vdot(V, D))
            + bias_term
            + share * (entropy - entropy_u)
        )
        return max(bound, 0.0)


class _Model:
    """An inverse Hessian, and the pairs of steps and changes of the gradient since then."""

    def __init__(self, problem: _Problem, n_logits: int) -> None:
        self._problem = problem
        n, m = problem.Z.shape
        size = n_logits * m
        n_pairs = max(1, n_logits * (n_logits - 1) // 2)
        step = n * (2 * n_logits * m + _PROBABILITY * problem.targets.shape[1]) + size**2
        self._steps_for = (n * n_pairs * m**2 / 2 + size**3 / 6) / (_HESSIAN_SPEED * step)
        self._pairs: deque[tuple[Array, Array, float]] = deque(maxlen=_MOST_PAIRS)
        self._hessian: Array | None = None
        self._decrement = self._first_decrement = math.inf
        self.age = 0  # steps since the Hessian

    def forget(self) -> None:
        """Let the next direction have a Hessian of its own."""
        self._hessian = None

    def direction(self, at: _Point, wanted: float) -> Array | None:
        """Return a direction; wanted is the decrement that ends the fit."""
        if self._hessian is None:
            n, m = self._problem.Z.shape
            is_first = self._decrement == math.inf and self._steps_for >= _DEAR
            return self.renewed(at, max(1, n // (_FIRST_ROWS * m)) if is_first else 1)
        before, step = self._decrement, self._step(at, self._hessian)
        return self.renewed(at) if self._is_slow(before, wanted) else step

    def renewed(self, at: _Point, row_step: int = 1) -> Array | None:
        """Return a direction by the Hessian of here; None where that has no factors."""
        hessian = self._problem.hessian(at, row_step)
        self._pairs.clear()
        self._hessian, self.age = None, 0
        try:
            np.linalg.cholesky(hessian)
            step = self._step(at, hessian)
        except np.linalg.LinAlgError:
            return None
        self._hessian, self._first_decrement = hessian, self._decrement
        return step

    def _step(self, at: _Point, hessian: Array) -> Array:
        step, shares = -at.gradient.ravel(), []
        for moved, change, curvature in reversed(self._pairs):
            shares.append(float(moved @ step) / curvature)
            step -= shares[-1] * change
        step = np.linalg.solve(hessian, step)
        for moved, change, curvature in self._pairs:
            step += (shares.pop() - float(change @ step) / curvature) * moved
        self._decrement = -float(step @ at.gradient.ravel())
        return step.reshape(at.params.shape)

    def _is_slow(self, before: float, wanted: float) -> bool:
        now = self._decrement
        if not 0.0 < now < before or self._steps_for < _CHEAP:
            return True
        pace = math.log(self._first_decrement / now) / self.age
        return now > wanted and math.log(now / wanted) > (_OWN_STEPS + self._steps_for) * pace

    def learn(self, before: _Point, at: _Point) -> None:
        """See a step."""
        self.age += 1
        moved = (at.params - before.params).ravel()
        change = (at.gradient - before.gradient).ravel()
        curvature = float(moved @ change)
        lengths = float(moved @ moved) * float(change @ change)
        if curvature > _LEAST_CURVATURE * math.sqrt(lengths):
            self._pairs.append((moved, change, curvature))


@serial
@single_threaded_blas
def newton_steps(
    points: Array,
    records: Array,
    base: Array,
    start: Array,
    X: Array,
    targets: Targets,
    settings: NewtonSettings,
) -> tuple[int, bool, bool]:
    """At most len(points) steps of Newton's method from start, for the model o = start z.

    z are the m coordinates of the rows of X, which is dense, by settings.scaling. The others are
    float64: start (n_logits, m), points (n_steps, n_logits * m) and records (n_steps, 4), which get
    the coefficients after each step with their mean loss, accuracy, objective and bound on
    objective - minimum. The objective is the mean loss plus l2 / 2 times the squares of what is not
    an intercept. base, of the shape of start, gets the gradient of the mean loss where every row
    has class_share. It stops where the bound is at most target * objective, or at most tol *
    objective where the objective no longer falls. Returns (steps, whether it stopped for that,
    whether there is nothing more to gain here).
    """
    center, scale, with_bias = settings.scaling
    # (the order of memory decides the order of the sums)
    Z = np.ascontiguousarray(X, dtype=np.float64) - center
    Z *= 1.0 if scale is None else scale
    if with_bias:
        Z = np.concatenate([Z, np.ones((len(Z), 1))], axis=1)
    problem = _Problem(Z, *targets.of(slice(None)), settings)
    base[:] = problem.base(len(start))
    logits = Z @ start.T
    at, model = problem.point(start, problem.line(logits, logits, 0.0)), _Model(problem, len(start))
    for i in range(len(points)):
        if at.bound <= settings.target * at.value:
            return i, True, False
        found = _stepped(problem, model, at)
        if found is None:
            return i, False, True
        before, at = at, found
        points[i] = at.params.ravel()
        records[i] = at.line.loss, at.line.accuracy, at.value, at.bound
        if before.value - at.value <= _EPSILON * abs(before.value):
            if model.age > 1 and at.bound > settings.target * at.value:
                model.forget()
                continue
            done = at.bound <= settings.tol * at.value
            return i + 1, done, not done
    return len(points), at.bound <= settings.target * at.value, False


def _stepped(problem: _Problem, model: _Model, at: _Point) -> _Point | None:
    """Take a step along the model's direction, or along one with a Hessian of here."""
    step = model.direction(at, 2.0 * problem.settings.target * at.value)
    found = None if step is None else _descend(problem, at, step)
    if found is None and step is not None and model.age > 0:
        step = model.renewed(at)
        found = None if step is None else _descend(problem, at, step)
    if found is not None:
        model.learn(at, found)
    return found


def _descend(problem: _Problem, at: _Point, step: Array) -> _Point | None:
    """Take a step along a direction, of the length that suits it."""
    first_slope = float(np.vdot(step, at.gradient))
    if not (first_slope < 0.0 and np.isfinite(first_slope)):
        return None
    d, along = problem.n_penalised, problem.Z @ step.T
    across = problem.settings.l2 * float(np.vdot(step[:, :d], at.params[:, :d]))
    square = problem.settings.l2 * float(np.vdot(step[:, :d], step[:, :d]))
    # where rounding hides the decrease, the slope tells (Hager & Zhang 2005)
    level = at.value + _LEVEL * _EPSILON * abs(at.value)
    length, low, high, halvings, n_lengths = 1.0, 0.0, np.inf, 0, 1
    while halvings <= _MOST_HALVINGS:
        line = problem.line(at.line.logits, along, length)
        slope = line.slope + across + length * square
        if not halvings and n_lengths < _MOST_LENGTHS and abs(slope) > -_SLOPE_LEFT * first_slope:
            low, high = (length, high) if slope < 0.0 else (low, length)
            length = _next_length(length, slope, line.curvature + square, low, high)
            n_lengths += 1
            continue
        new = problem.point(at.params + length * step, line)
        flatter = abs(slope) <= -0.5 * first_slope
        if new.value <= at.value + 1e-4 * length * first_slope or (flatter and new.value <= level):
            return new
        length /= 2.0
        halvings += 1
    return None


def _next_length(length: float, slope: float, curvature: float, low: float, high: float) -> float:
    """Return a length nearer to where the slope is 0, within what is known of that."""
    newton = length - float(np.divide(slope, curvature))
    if np.isinf(high):
        return min(newton, 10.0 * length) if newton > length else 2.0 * length
    return newton if low < newton < high else 0.5 * (low + high)
