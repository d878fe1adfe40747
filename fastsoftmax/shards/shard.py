"""Rows of a problem that lie together on one machine, and sums over them.

A loss, a gradient and the moments of the features are sums over rows. An objective therefore adds
up what its shards return (`rows.Rows`), and only a shard knows where and how its rows are stored.
`dense_shard` and `csr_shard` hold the two forms of storage, `curvature` the sums of second order.
"""

import copy
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import reduce
from itertools import chain, repeat
from typing import Any, NamedTuple, Self

import numpy as np

from fastsoftmax.arrays import Array, count_logits, slices
from fastsoftmax.blas import inner, product
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards.far_logits import Model, blocks, far_logits
from fastsoftmax.shards.spread import Moments

# Rows whose features are brought to float64 at a time, for sums of second order.
BLOCK_ROWS = 1024
# Numbers in a block of centred rows in float64 (8 MB).
_CENTERED_NUMBERS = 1 << 20
# Multiply-adds of one call into a kernel, which answers no signal: some tenths of a second.
_WORK_PER_CALL = 1 << 34
# A step of descent costs as much as this many rows besides its own, as it writes to all weights.
_ROWS_PER_STEP = 8
# Each step may wait for threads where CPUs are shared. The kernel for sparse rows brings all
# weights up to date after this many steps anyway.
_STEPS_PER_CALL = 4096


class Sums(NamedTuple):
    """Sums over rows, each weighted by its row weight."""

    loss: float  # cross-entropy, in nats
    correct: float  # 1 where the largest logit is that of the target
    grad_weights: Array  # (n_logits, n_features) float64
    grad_bias: Array  # (n_logits,) float64


def add_sums(a: Sums, b: Sums) -> Sums:
    """Return the sums over the rows of both, a's first, in a's arrays."""
    grad_weights, grad_bias = a.grad_weights, a.grad_bias
    grad_weights += b.grad_weights
    grad_bias += b.grad_bias
    return Sums(a.loss + b.loss, a.correct + b.correct, grad_weights, grad_bias)


class Shard(ABC):
    """Rows with their targets; the classes below know how the features are stored.

    X (n_rows, n_features) is never written to and never copied. targets are the backend's: labels
    or probabilities, row weights and label smoothing. The dtype of the row weights, float32 or
    float64, is the number type that the sums are computed in.
    """

    # What a stored number costs in a step of descent, in multiply-adds of a pass over dense rows.
    step_cost: float
    is_dense: bool

    def __init__(self, X: Any, targets: Any, *, backend: Any, n_threads: int = 1) -> None:
        self.X = X
        self.targets = targets
        self.backend = backend
        self.n_threads = n_threads
        self.n_rows, self.n_features = map(int, X.shape)
        # Which columns of the users' X these are; None for all.
        self.columns: Array | None = None
        # those that are stored, on average
        self.numbers_per_row: float = X.size / max(1, self.n_rows)
        self.n_classes = int(targets.n_classes)
        self.n_logits = count_logits(self.n_classes)
        self.real: np.dtype[Any] = targets.row_weights.dtype

    def __reduce__(self) -> Any:
        """Return what is pickled: the rows and the name of the backend, to go to a process."""
        given = self.targets
        labels, probs, smoothing = given.labels, given.target_probs, given.label_smoothing
        targets = labels, probs, self.row_weights, smoothing, given.n_classes
        parts = self.X, targets, self.backend.__name__, self.n_threads, self.columns
        return _unpickled, (type(self), *parts)

    # ---- what depends on the storage ----

    def adjacent(self, rows: slice, *, with_grad: bool) -> Any:
        """Return adjacent rows as the backend takes them for a pass."""
        return self.raw(rows)

    @abstractmethod
    def raw(self, rows: slice) -> Any:
        """Return rows as the backend takes them for logits; a slice may have a step."""

    @abstractmethod
    def dense(self, rows: slice | Array) -> Array:
        """Return rows, or those of these numbers, as a float64 matrix of their own."""

    def write_centered(self, rows: slice | Array, center: Array, out: Array) -> None:
        """Write x - center, for these rows, into a matrix of the number type of the sums."""
        np.subtract(self.dense(rows), center, out=out, casting="same_kind")

    def moments(self, shift: Array, units: Array) -> Moments:
        """Return sums over the rows of y = units (x - shift), in one pass; of dense rows."""
        raise NotImplementedError

    def column_sums(self) -> Array:
        """Weighted sums of x and of x^2 over the rows, (2, n_features) float64; of sparse rows."""
        raise NotImplementedError

    def in_float32(self) -> Array:
        """Return X in float32; of dense rows."""
        raise NotImplementedError

    @abstractmethod
    def feature_sums(self) -> Array:
        """Weighted sum of the features over the rows: (n_features,) float64."""

    @abstractmethod
    def squares(self, center: Array) -> Array:
        """Weighted sum of (x - center)^2 over the rows: (n_features,) float64."""

    @abstractmethod
    def hessian_diagonals(
        self, weights: Array, bias: Array, center: Array, step: int
    ) -> tuple[Array, Array, Array, float]:
        """Sum of h_k z^2 (n_logits, d), h_k z (n_logits, d), h_k (n_logits,) and s.

        The sums are over every step-th row, or all sparse rows. The letters are those of
        `curvature`.
        """

    # ---- rows and targets ----

    @property
    def row_weights(self) -> Array:
        """Weights of the rows."""
        weights: Array = self.targets.row_weights
        return weights

    def total_weight(self, step: int = 1) -> float:
        """Sum of the weights of every step-th row."""
        return float(self.row_weights[::step].sum(dtype=np.float64))

    def reweighted(self, row_weights: Array) -> Self:
        """Return the same rows with other weights (of the same type); nothing else is copied."""
        other = copy.copy(self)
        given = self.targets
        other.targets = self.backend.Targets(
            given.labels, given.target_probs, row_weights, given.label_smoothing, given.n_classes
        )
        return other

    def targets_as(self, real: np.dtype[Any]) -> Any:
        """Return the targets in a number type."""
        given = self.targets
        if real == self.real:
            return given
        probs = None if given.labels is not None else given.target_probs.astype(real)
        row_weights = given.row_weights.astype(real)
        return self.backend.Targets(
            given.labels, probs, row_weights, given.label_smoothing, self.n_classes
        )

    def blocks(self, step: int = 1, n_rows: int = BLOCK_ROWS) -> Iterator[slice]:
        """Yield slices of every step-th row, n_rows rows each."""
        for start in range(0, self.n_rows, step * n_rows):
            yield slice(start, min(start + step * n_rows, self.n_rows), step)

    # ---- passes ----

    def loss_grad(self, weights: Array, bias: Array, *, out: Array | None = None) -> Sums:
        """Cross-entropy of the model o = W x + b, summed over the rows, and its gradient.

        weights is (n_logits, n_features), bias (n_logits,), of any float type: they are rounded
        to the shard's own. out is where the gradient by the weights goes, if given.
        """
        weights = np.ascontiguousarray(weights, dtype=self.real)
        bias = np.ascontiguousarray(bias, dtype=self.real)
        outs = chain([out], repeat(None))  # what the later calls return is added to the first's
        parts = (
            self._gradient(
                self.adjacent(rows, with_grad=True), self.targets[rows], weights, bias, next(outs)
            )
            for rows in self.calls(len(bias) * self.numbers_per_row)
        )
        return reduce(add_sums, parts)  # there is one call at least, also for no rows

    def metrics(
        self, weights: Array, bias: Array, model: Model | None = None
    ) -> tuple[float, float]:
        """Return the sums of loss and hits, of `loss_grad`, for targets without smoothing.

        Both are right where logits overflow. The loss is NaN where a feature or a coefficient is.
        model is what the coefficients were before they were divided by a temperature.
        """
        weights = np.ascontiguousarray(weights, dtype=self.real)
        bias = np.ascontiguousarray(bias, dtype=self.real)
        loss, correct = self._loss(weights, bias)
        if math.isfinite(loss):
            return loss, correct
        model = Model(weights, bias) if model is None else model
        if not model.is_valid():
            return math.nan, correct
        loss = correct = 0.0
        for rows in blocks(self.X, self.n_classes):
            losses, hits = self._far_metrics(rows, weights, bias, model)
            row_weights = self.row_weights[rows].astype(np.float64)
            counted = row_weights > 0.0
            # (sums stay in range, too)
            most = np.finfo(np.float64).max / self.n_rows / row_weights.max(initial=1.0)
            loss += float(product(row_weights[counted], np.minimum(losses[counted], most)))
            correct += float(product(row_weights, hits))
        return loss, correct

    def _loss(self, weights: Array, bias: Array) -> tuple[float, float]:
        loss = correct = 0.0
        for rows in self.calls(len(bias) * self.numbers_per_row):
            X = self.adjacent(rows, with_grad=False)
            part = self.backend.loss_grad(
                None, None, X, self.targets[rows], weights, bias, n_threads=self.n_threads
            )
            loss, correct = loss + part[0], correct + part[1]
        return loss, correct

    def _far_metrics(
        self, rows: slice, weights: Array, bias: Array, model: Model
    ) -> tuple[Array, Array]:
        """Return losses and hits of some rows."""
        given, computing = self.targets[rows], (self.backend, self.n_threads)
        probs = given.target_probs
        labels = given.labels if probs is None else probs.argmax(axis=1)

        def losses_of(logs: Array, places: Any) -> Array:
            if probs is None:
                return np.asarray(-logs[np.arange(len(logs)), labels[places]])
            shares = probs[places]
            return np.asarray(-(np.where(shares > 0.0, logs, 0.0) * shares).sum(axis=1))

        logs = np.empty((len(labels), self.n_classes), dtype=self.real)
        best = np.empty((len(labels), 1), dtype=np.int64)
        x, n_classes, n_threads = self.raw(rows), self.n_classes, self.n_threads
        self.backend.predict_rows(logs, x, weights, bias, True, n_threads=n_threads)
        self.backend.predict_top(best, None, x, weights, bias, n_classes, n_threads=n_threads)
        losses, hits = losses_of(logs, slice(None)).astype(np.float64), best[:, 0] == labels
        far = far_logits(self.X[rows], x, weights, bias, model, computing)
        if far is not None:
            exact = far.log_probabilities(np.dtype(np.float64))
            losses[far.rows] = losses_of(exact, far.rows)
            hits[far.rows] = far.ranked()[:, 0] == labels[far.rows]
        return losses, hits

    def _gradient(
        self, X: Any, targets: Any, weights: Array, bias: Array, out: Array | None = None
    ) -> Sums:
        grad_weights = np.empty(weights.shape) if out is None else out
        grad_bias = np.empty(bias.shape)
        loss, correct = self.backend.loss_grad(
            grad_weights, grad_bias, X, targets, weights, bias, n_threads=self.n_threads
        )
        return Sums(loss, correct, grad_weights, grad_bias)

    def calls(self, work_per_row: float) -> Iterator[slice]:
        """Yield ranges of rows, each short enough to answer Ctrl-C within a second."""
        size = max(1024, int(_WORK_PER_CALL / max(1.0, work_per_row)))
        return self._ranges(size)

    def _ranges(self, size: int) -> Iterator[slice]:
        """Yield ranges of rows: one at least, also of no rows."""
        return slices(self.n_rows, size) if self.n_rows else iter([slice(0, 0)])

    def sgd_steps(
        self, params: Array, velocity: Array | None, order: Array, descent: Descent
    ) -> tuple[float, float]:
        """Mini-batch steps over the rows in `order`; params and velocity change in place.

        The scaling of `descent` may be of any float type. Returns the sums of loss and hits that
        the batches saw before their updates.
        """
        squared_scale, center = (
            None if part is None else part.astype(self.real)
            for part in (descent.squared_scale, descent.center)
        )
        descent = descent._replace(squared_scale=squared_scale, center=center)
        n_logits = len(params) // (self.n_features + 1)
        rows_per_step = descent.batch_size + _ROWS_PER_STEP
        work = n_logits * self.numbers_per_row * self.step_cost * rows_per_step
        batches = max(1, min(_STEPS_PER_CALL, int(_WORK_PER_CALL / max(1.0, work))))
        X = self.adjacent(slice(0, self.n_rows), with_grad=False)
        loss = correct = 0.0
        for start in range(0, len(order), batches * descent.batch_size):
            part = order[start : start + batches * descent.batch_size]
            sums = self.backend.sgd_steps(
                params, velocity, X, self.targets, part, descent, n_threads=self.n_threads
            )
            loss, correct = loss + sums[0], correct + sums[1]
        return loss, correct

    # ---- the same over centred rows in float64 ----

    def centered_blocks(self, center: Array, scale: Array) -> Iterator[tuple[slice, Array]]:
        """Yield blocks of rows, scale * (x - center) in float64."""
        n_rows = max(1, _CENTERED_NUMBERS // max(1, self.n_features))
        for rows in self._ranges(n_rows):
            x = self.dense(rows)
            x -= center
            x *= scale
            yield rows, x

    def centered_loss_grad(self, weights: Array, bias: Array, center: Array, scale: Array) -> Sums:
        """Return the sums of `loss_grad` for the features scale * (x - center), in float64."""
        targets = self.targets_as(np.dtype(np.float64))
        parts = (
            self._gradient(x, targets[rows], weights, bias)
            for rows, x in self.centered_blocks(center, scale)
        )
        return reduce(add_sums, parts)

    def centered_sums(self, center: Array, scale: Array) -> Array:
        """Weighted sum of scale * (x - center) over the rows: (n_features,) float64."""
        total = np.zeros(self.n_features)
        for rows, x in self.centered_blocks(center, scale):
            total += product(self.row_weights[rows].astype(np.float64), x)
        return total

    def largest_square(self, center: Array, scale: Array) -> float:
        """Return the largest squared length of a row scale * (x - center)."""
        largest = 0.0
        for _, x in self.centered_blocks(center, scale):
            largest = max(largest, float(np.einsum("ij,ij->i", x, x).max(initial=0.0)))
        return largest

    def largest_feature(self) -> tuple[int, int, float]:
        """Return row, column of the users' X and value of the number that is farthest from 0."""
        found = 0, 0, 0.0
        for rows in self.blocks():
            x = self.dense(rows)
            if x.size:
                i, j = np.unravel_index(np.abs(x).argmax(), x.shape)
                if abs(x[i, j]) > abs(found[2]):
                    column = j if self.columns is None else self.columns[j]
                    found = rows.start + int(i), int(column), float(x[i, j])
        return found

    def sums_from(self, center: Array) -> Array:
        """Weighted sum of x - center over the rows: (n_features,) float64."""
        return self.centered_sums(center, np.ones_like(center))

    # ---- sums over targets ----

    def target_sums(self) -> Array:
        """Sum of the smoothed targets over the rows, by class: (n_classes,) float64."""
        labels = self.targets.labels
        if labels is not None:
            sums: Array = np.bincount(labels, self.row_weights, minlength=self.n_classes)
        else:
            sums = np.asarray(product(self.row_weights, self.targets.target_probs), np.float64)
        return smoothed(sums, self.targets.label_smoothing)

    def target_entropy(self) -> float:
        """Entropy of the smoothed targets in nats, summed over the rows."""
        smoothing = self.targets.label_smoothing
        spread = smoothing / self.n_classes
        if self.targets.labels is not None:
            probs = np.full((1, self.n_classes), spread)
            probs[0, 0] += 1.0 - smoothing
            return float(_entropies(probs)[0]) * self.total_weight()
        total = 0.0
        for rows in self.blocks():
            probs = (1.0 - smoothing) * self.targets.target_probs[rows].astype(np.float64)
            total += inner(self.row_weights[rows].astype(np.float64), _entropies(probs + spread))
        return total

    # ---- what separates the classes ----

    def largest_logit_change(self, weights: Array, bias: Array) -> float:
        """Return the largest change of a difference of two logits that o = W x + b makes.

        Rows of weight 0 do not count.
        """
        largest = 0.0
        for rows in self.blocks():
            change = np.asarray(product(self.X[rows], weights.T)) + bias
            spread = np.abs(change)[:, 0] if len(bias) == 1 else np.ptp(change, axis=1)
            weighted = self.row_weights[rows] > 0.0
            largest = max(largest, float(spread.max(initial=0.0, where=weighted)))
        return largest


def smoothed(sums: Array, smoothing: float) -> Array:
    """Return sums of targets by class, smoothed."""
    if smoothing == 0.0:
        return sums
    return np.asarray((1.0 - smoothing) * sums + smoothing / len(sums) * sums.sum())


def _unpickled(
    kind: type[Shard], X: Any, targets: Any, backend: str, n_threads: int, columns: Array | None
) -> Shard:
    module = importlib.import_module(backend)
    # what comes over a network lies anywhere in a buffer
    labels, probs, row_weights, *others = targets
    arrays = (part if part is None else _aligned(part) for part in (labels, probs, row_weights))
    shard = kind(_aligned(X), module.Targets(*arrays, *others), backend=module, n_threads=n_threads)
    shard.columns = columns
    return shard


def _aligned(X: Any) -> Any:
    """Return an array or a sparse matrix, with a copy of what is not aligned."""
    if isinstance(X, np.ndarray):
        return np.require(X, requirements="A")
    data, indices, indptr = map(_aligned, (X.data, X.indices, X.indptr))
    if data is X.data and indices is X.indices and indptr is X.indptr:
        return X
    return type(X)((data, indices, indptr), shape=X.shape)


def _entropies(probs: Array) -> Array:
    """Entropies of the rows, in nats; 0 where rounding would make them negative."""
    logs = np.log(probs, where=probs > 0.0, out=np.zeros_like(probs))
    entropies: Array = np.maximum(-(probs * logs).sum(axis=1), 0.0)
    return entropies
