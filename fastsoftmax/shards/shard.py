"""Rows of a problem that lie together on one machine, and the sums over them.

A loss, a gradient and the moments of the features are sums over rows, so an objective adds up what
its shards return, and where the rows lie is the shard's business alone.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards.shard_curvature import CurvatureMixin

# Multiply-adds of one call into a kernel, which answers no signal: some tenths of a second.
_WORK_PER_CALL = 1 << 34
# A step of descent costs as much as this many rows besides its own, as it writes to all weights;
# each may wait for threads, where CPUs are shared. The kernel for sparse rows brings all weights up
# to date after so many steps anyway.
_ROWS_PER_STEP = 8
_STEPS_PER_CALL = 4096


class Sums(NamedTuple):
    """Sums over rows, each weighted by its row weight."""

    loss: float  # cross-entropy, in nats
    correct: float  # 1 where the largest logit is that of the target
    grad_weights: Array  # (n_logits, n_features) float64; empty where only the loss was asked for
    grad_bias: Array  # (n_logits,) float64


class Shard(CurvatureMixin):
    """Rows with their targets; what the features are stored in is for the classes below.

    Parameters
    ----------
    X : array of shape (n_rows, n_features)
        Never written to, never copied.
    labels : ndarray of shape (n_rows,), int32, or None
        Class numbers; None where target_probs is given.
    target_probs : ndarray of shape (n_rows, n_classes) of row_weights' dtype, or None
        Target distributions.
    row_weights : ndarray of shape (n_rows,), float32 or float64
        Its dtype is the number type that the sums are computed in.
    n_classes : int
    label_smoothing : float
    backend : module
        `fastsoftmax.kernels` or `fastsoftmax.reference`.
    n_threads : int
    """

    # What a stored number costs in a step of descent, in multiply-adds of a pass over dense rows.
    step_cost = 4.0

    def __init__(
        self,
        X: Any,
        labels: Array | None,
        target_probs: Array | None,
        row_weights: Array,
        n_classes: int,
        *,
        backend: ModuleType,
        label_smoothing: float = 0.0,
        n_threads: int = 1,
    ) -> None:
        self.X = X
        self.labels = labels
        self.target_probs = target_probs
        self.row_weights = row_weights
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.backend = backend
        self.n_threads = n_threads

    # ---- what depends on the storage ----

    @property
    @abstractmethod
    def row_numbers(self) -> float:
        """Numbers that are stored for a row, on average."""

    @abstractmethod
    def rows_of(self, rows: slice, *, with_grad: bool) -> Any:
        """Return adjacent rows as the backend takes them."""

    @abstractmethod
    def feature_sums(self) -> Array:
        """Weighted sum of the features over the rows: (n_features,) float64."""

    @abstractmethod
    def squares(self, center: Array) -> Array:
        """Weighted sum of (x - center)^2 over the rows: (n_features,) float64."""

    @abstractmethod
    def hessian_diagonals(
        self, weights: Array, bias: Array, center: Array
    ) -> tuple[Array, Array, Array]:
        """Sum of h_k z^2 (n_logits, d), h_k z (n_logits, d) and h_k (n_logits,), over the rows.

        z and h as in `hessian_blocks`.
        """

    # ---- what does not ----

    def reweighted(self, row_weights: Array) -> Self:
        """Return the same rows with other weights (of the same type); nothing else is copied."""
        other = copy.copy(self)
        other.row_weights = row_weights
        return other

    @property
    def n_rows(self) -> int:
        """Rows of X."""
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return int(self.X.shape[1])

    @property
    def real(self) -> np.dtype[Any]:
        """The number type that the sums are computed in."""
        return self.row_weights.dtype

    @property
    def targets(self) -> Any:
        """Labels or probabilities and row weights, as the backend takes them."""
        return self.backend.Targets(
            self.labels, self.target_probs, self.row_weights, self.label_smoothing, self.n_classes
        )

    def loss_grad(
        self, weights: Array, bias: Array, *, with_grad: bool = True, out: Array | None = None
    ) -> Sums:
        """Cross-entropy of the model o = W x + b, summed over the rows, and its gradient.

        weights is (n_logits, n_features), bias (n_logits,), of any float type: they are rounded
        to the shard's own. out is where the gradient by the weights goes, if given.
        """
        weights = np.ascontiguousarray(weights, dtype=self.real)
        bias = np.ascontiguousarray(bias, dtype=self.real)
        targets = self.targets
        total: Sums | None = None
        for rows in self._calls(len(bias) * self.row_numbers):
            first = total is None and out is not None
            grad_weights: Array | None = out if first else np.empty(weights.shape)
            grad_weights = grad_weights if with_grad else None
            grad_bias: Array | None = np.empty(bias.shape) if with_grad else None
            loss, correct = self.backend.loss_grad(
                grad_weights,
                grad_bias,
                self.rows_of(rows, with_grad=with_grad),
                targets[rows],
                weights,
                bias,
                n_threads=self.n_threads,
            )
            if grad_weights is None or grad_bias is None:
                grad_weights, grad_bias = np.empty((0, 0)), np.empty(0)
            part = Sums(loss, correct, grad_weights, grad_bias)
            total = part if total is None else add_sums(total, part)
        assert total is not None
        return total

    def _calls(self, work_per_row: float) -> Iterator[slice]:
        """Ranges of rows, each short enough to answer Ctrl-C within a second."""
        size = max(1024, int(_WORK_PER_CALL / max(1.0, work_per_row)))
        for start in range(0, max(1, self.n_rows), size):
            yield slice(start, min(start + size, self.n_rows))

    def sgd_steps(
        self,
        params: Array,
        velocity: Array | None,
        order: Array,
        batch_size: int,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        fit_bias: bool,
        *,
        squared_scale: Array | None = None,
        center: Array | None = None,
    ) -> tuple[float, float]:
        """Mini-batch steps over the rows in `order`; params and velocity change in place.

        squared_scale and center as the backend's function of this name takes them, of any float
        type. Returns the sums of loss and hits that the batches saw before their updates.
        """
        n_logits = len(params) // (self.n_features + 1)
        work = n_logits * self.row_numbers * self.step_cost * (batch_size + _ROWS_PER_STEP)
        batches = max(1, min(_STEPS_PER_CALL, int(_WORK_PER_CALL / max(1.0, work))))
        X = self.rows_of(slice(0, self.n_rows), with_grad=False)
        descent = Descent(
            batch_size,
            learning_rate,
            momentum,
            weight_decay,
            fit_bias,
            None if squared_scale is None else squared_scale.astype(self.real),
            None if center is None else center.astype(self.real),
        )
        loss = correct = 0.0
        for start in range(0, len(order), batches * batch_size):
            sums = self.backend.sgd_steps(
                params,
                velocity,
                X,
                self.targets,
                order[start : start + batches * batch_size],
                descent,
                n_threads=self.n_threads,
            )
            loss, correct = loss + sums[0], correct + sums[1]
        return loss, correct

    def target_sums(self) -> Array:
        """Sum of the smoothed targets over the rows, by class: (n_classes,) float64."""
        if self.labels is not None:
            sums: Array = np.bincount(self.labels, self.row_weights, minlength=self.n_classes)
        else:
            assert self.target_probs is not None
            sums = np.asarray(self.row_weights @ self.target_probs, dtype=np.float64)
        spread = self.label_smoothing / self.n_classes
        smoothed: Array = (1.0 - self.label_smoothing) * sums + spread * sums.sum()
        return smoothed

    def target_entropy(self) -> float:
        """Entropy of the smoothed targets in nats, summed over the rows."""
        spread = self.label_smoothing / self.n_classes
        if self.labels is not None:
            probs = np.full((1, self.n_classes), spread)
            probs[0, 0] += 1.0 - self.label_smoothing
            return float(_entropies(probs)[0]) * float(self.row_weights.sum(dtype=np.float64))
        assert self.target_probs is not None
        total = 0.0
        for rows in self._blocks():
            probs = (1.0 - self.label_smoothing) * self.target_probs[rows].astype(np.float64)
            total += float(self.row_weights[rows].astype(np.float64) @ _entropies(probs + spread))
        return total


class DenseShard(Shard):
    """Rows of a dense matrix, the elements of each adjacent.

    X is float64, or with float32 row weights float32, float16, uint8 or int8.
    """

    @property
    def row_numbers(self) -> float:
        """Numbers that are stored for a row."""
        return self.n_features

    def rows_of(self, rows: slice, *, with_grad: bool) -> Array:
        """Return a view of adjacent rows."""
        x: Array = self.X[rows]
        return x

    def raw(self, rows: slice) -> Any:
        """Return a view of rows."""
        return self.X[rows]

    def dense(self, rows: slice | Array) -> Array:
        """Return rows, or those of these numbers, as a float64 matrix of their own."""
        x: Array = self.X[rows].astype(np.float64, order="C")
        return x

    def centered(self, rows: slice | Array, center: Array, out: Array) -> None:
        """Write x - center, for these rows, into a matrix of the number type of the sums."""
        # of rows in that type no digit is lost to a center in it
        np.subtract(self.X[rows], center.astype(self.real), out=out)

    def feature_sums(self) -> Array:
        """Weighted sum of the features over the rows: (n_features,) float64."""
        sums = np.zeros(self.n_features)
        for rows in self._blocks():
            # in one order, as the order of memory decides that of the sums
            sums += self.row_weights[rows] @ np.ascontiguousarray(self.X[rows])
        return sums

    def squares(self, center: Array) -> Array:
        """Weighted sum of (x - center)^2 over the rows: (n_features,) float64."""
        sums = np.zeros(self.n_features)
        for rows in self._blocks():
            x = np.ascontiguousarray(self.X[rows] - center)
            sums += np.einsum("i,ij,ij->j", self.row_weights[rows], x, x)
        return sums

    def hessian_diagonals(
        self, weights: Array, bias: Array, center: Array
    ) -> tuple[Array, Array, Array]:
        """Sum of h_k z^2 (n_logits, d), h_k z (n_logits, d), and h_k (n_logits,)."""
        squares, sums = np.zeros(weights.shape), np.zeros(weights.shape)
        totals = np.zeros(len(bias))
        for z, h, _ in self._curvature_rows(weights, bias, center, 1):
            h = h.astype(np.float64)
            sums += h.T @ z
            squares += h.T @ (z * z)
            totals += h.sum(axis=0)
        return squares, sums, totals


def _entropies(probs: Array) -> Array:
    """Entropies of the rows, in nats; 0 where rounding would put it below."""
    logs = np.log(probs, where=probs > 0.0, out=np.zeros_like(probs))
    entropies: Array = np.maximum(-(probs * logs).sum(axis=1), 0.0)
    return entropies


def add_sums(a: Sums, b: Sums) -> Sums:
    """Return the sums over the rows of both, a's first, in a's arrays."""
    grad_weights, grad_bias = a.grad_weights, a.grad_bias
    grad_weights += b.grad_weights
    grad_bias += b.grad_bias
    return Sums(a.loss + b.loss, a.correct + b.correct, grad_weights, grad_bias)
