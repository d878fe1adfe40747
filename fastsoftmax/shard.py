"""Rows of a problem that lie together on one machine, and the sums over them.

A loss, a gradient and the moments of the features are sums over rows, so an objective adds up what
its shards return, and where the rows lie is the shard's business alone.
"""

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")

# Multiply-adds of one call into a kernel, which answers no signal: some tenths of a second.
_WORK_PER_CALL = 1 << 34
_MOMENT_ROWS = 1024


class Sums(NamedTuple):
    """Sums over rows, each weighted by its row weight."""

    loss: float  # cross-entropy, in nats
    correct: float  # 1 where the largest logit is that of the target
    grad_weights: Array  # (n_logits, n_features) float64; empty where only the loss was asked for
    grad_bias: Array  # (n_logits,) float64


class Shard(ABC):
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
    def dense(self, rows: slice) -> Array:
        """Return rows as a float64 matrix of their own."""

    @abstractmethod
    def feature_sums(self) -> Array:
        """Weighted sum of the features over the rows: (n_features,) float64."""

    @abstractmethod
    def squares(self, center: Array) -> Array:
        """Weighted sum of (x - center)^2 over the rows: (n_features,) float64."""

    @abstractmethod
    def hessian_diagonals(self, weights: Array, bias: Array, center: Array) -> tuple[Array, Array]:
        """Sum s p_k (1 - p_k) (x - center)^2 (n_logits, d), and s p_k (1 - p_k) (n_logits,)."""

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

    def loss_grad(self, weights: Array, bias: Array, *, with_grad: bool = True) -> Sums:
        """Cross-entropy of the model o = W x + b, summed over the rows, and its gradient.

        weights is (n_logits, n_features), bias (n_logits,), of any float type: they are rounded
        to the shard's own.
        """
        weights = np.ascontiguousarray(weights, dtype=self.real)
        bias = np.ascontiguousarray(bias, dtype=self.real)
        total: Sums | None = None
        for rows in self._calls(len(bias) * self.row_numbers):
            grad_weights: Array | None = np.empty(weights.shape) if with_grad else None
            grad_bias: Array | None = np.empty(bias.shape) if with_grad else None
            loss, correct = self.backend.loss_grad(
                grad_weights,
                grad_bias,
                self.rows_of(rows, with_grad=with_grad),
                None if self.labels is None else self.labels[rows],
                None if self.target_probs is None else self.target_probs[rows],
                self.row_weights[rows],
                self.label_smoothing,
                weights,
                bias,
                self.n_classes,
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
        work = max(1.0, n_logits * self.row_numbers * batch_size)
        batches = max(1, int(_WORK_PER_CALL / work))
        X = self.rows_of(slice(0, self.n_rows), with_grad=False)
        loss = correct = 0.0
        for start in range(0, len(order), batches * batch_size):
            sums = self.backend.sgd_steps(
                params,
                velocity,
                X,
                self.labels,
                self.target_probs,
                self.row_weights,
                self.label_smoothing,
                self.n_classes,
                order[start : start + batches * batch_size],
                batch_size,
                learning_rate,
                momentum,
                weight_decay,
                fit_bias,
                squared_scale=None if squared_scale is None else squared_scale.astype(self.real),
                center=None if center is None else center.astype(self.real),
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

    def second_moments(self, center: Array, step: int) -> tuple[Array, float]:
        """Sum of s (x - center) (x - center)^T over every step-th row, and of s.

        Block by block (memory does not grow with the rows), each product in the number type of the
        passes and their sum in float64.
        """
        unit = self._units(center)
        products = np.zeros((self.n_features, self.n_features))
        weight = float(self.row_weights[::step].sum(dtype=np.float64))

        def product(rows: slice) -> Array:
            z = self.dense(rows)
            z -= center
            z /= unit
            z *= np.sqrt(self.row_weights[rows].astype(np.float64))[:, np.newaxis]
            z = z.astype(self.real, copy=False)
            moments: Array = z.T @ z
            return moments

        for part in in_threads(product, self._blocks(step), self.n_threads):
            products += part
        products *= unit
        products *= unit[:, np.newaxis]
        return products, weight

    def _units(self, center: Array) -> Array:
        """Powers of 2 of the size of each centred feature, so that no product overflows."""
        largest = np.abs(self.dense(slice(0, min(self.n_rows, _MOMENT_ROWS))) - center)
        with np.errstate(divide="ignore"):
            exponent = np.floor(np.log2(largest.max(axis=0, initial=0.0)))
        return np.where(np.isfinite(exponent), np.exp2(exponent), 1.0)

    def _blocks(self, step: int = 1) -> Iterator[slice]:
        for start in range(0, self.n_rows, step * _MOMENT_ROWS):
            yield slice(start, min(start + step * _MOMENT_ROWS, self.n_rows), step)

    def hessian_blocks(
        self, weights: Array, bias: Array, center: Array, step: int, *, with_bias: bool
    ) -> tuple[Array, float]:
        """Sum of s p_k (1 - p_k) z z^T over every step-th row, for each logit k, and sum of s.

        z is x - center, with a 1 behind it for the intercept if with_bias; p the probabilities of
        the model o = W x + b. Returns an array (n_logits, m, m), m = n_features (+ 1).
        """
        n_logits, d = weights.shape
        unit = np.concatenate([self._units(center), np.ones(int(with_bias))])
        blocks = np.zeros((n_logits, d + with_bias, d + with_bias))
        weight = 0.0
        for z, p, row_weights in self._probabilities(weights, bias, center, step, with_bias):
            z /= unit
            roots = np.sqrt(row_weights[:, np.newaxis] * p * (1.0 - p)).astype(self.real)
            rows = z.astype(self.real, copy=False)

            def product(k: int, rows: Array = rows, roots: Array = roots) -> Array:
                scaled = rows * roots[:, [k]]
                moments: Array = scaled.T @ scaled
                return moments

            for k, part in enumerate(in_threads(product, range(n_logits), self.n_threads)):
                blocks[k] += part
            weight += float(row_weights.sum())
        blocks *= unit
        blocks *= unit[:, np.newaxis]
        return blocks, weight

    def shared_curvature(
        self, weights: Array, bias: Array, center: Array, step: int
    ) -> tuple[Array, Array, float]:
        """Sum s sum_k p_k (1 - p_k) z z^T (d, d), s p_k (1 - p_k) (n_logits,), and s.

        Over every step-th row; z and p as in `hessian_blocks`, z without an intercept.
        """
        n_logits, d = weights.shape
        unit = self._units(center)
        moments, curvature, weight = np.zeros((d, d)), np.zeros(n_logits), 0.0

        def product(rows: Array) -> Array:
            total: Array = rows.T @ rows
            return total

        def scaled_rows() -> Iterator[Array]:
            nonlocal curvature, weight
            for z, p, row_weights in self._probabilities(weights, bias, center, step, False):
                own = row_weights[:, np.newaxis] * p * (1.0 - p)
                curvature += own.sum(axis=0)
                weight += float(row_weights.sum())
                z /= unit
                z *= np.sqrt(own.sum(axis=1))[:, np.newaxis]
                yield z.astype(self.real, copy=False)

        for part in in_threads(product, scaled_rows(), self.n_threads):
            moments += part
        moments *= unit
        moments *= unit[:, np.newaxis]
        return moments, curvature, weight

    def hessian(self, weights: Array, bias: Array, center: Array, *, with_bias: bool) -> Array:
        """Sum of s (diag(p) - p p^T) (x) z z^T over the rows: (n_logits m, n_logits m).

        z, m and p as in `hessian_blocks`; the m coefficients of a logit lie together.
        """
        n_logits, d = weights.shape
        size = n_logits * (d + with_bias)
        hessian = np.zeros((n_logits, d + with_bias, n_logits, d + with_bias))
        for z, p, row_weights in self._probabilities(weights, bias, center, 1, with_bias):
            scaled = z * np.sqrt(row_weights)[:, np.newaxis]
            products = (p[:, :, np.newaxis] * scaled[:, np.newaxis, :]).reshape(len(z), size)
            hessian -= (products.T @ products).reshape(hessian.shape)
            for k in range(n_logits):
                hessian[k, :, k] += (scaled * p[:, [k]]).T @ scaled
        return hessian.reshape(size, size)

    def _probabilities(
        self, weights: Array, bias: Array, center: Array, step: int, with_bias: bool
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Blocks of every step-th row: (z, probabilities of the logits' classes, row weights)."""
        n_logits, d = weights.shape
        for rows in self._blocks(step):
            x = self.dense(rows)
            # float64, also of float32: 1 - p of a decided row would be 0
            logits = np.empty((len(x), n_logits))
            self.backend.affine_rows(logits, x, weights, bias, n_threads=self.n_threads)
            probs = log_odds(logits)
            self.backend.softmax_rows(probs, probs, n_threads=self.n_threads)
            z = np.ones((len(x), d + with_bias))
            np.subtract(x, center, out=z[:, :d])
            yield z, probs[:, -n_logits:], self.row_weights[rows].astype(np.float64)


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

    def dense(self, rows: slice) -> Array:
        """Return rows as a float64 matrix of their own."""
        x: Array = self.X[rows].astype(np.float64, order="C")
        return x

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

    def hessian_diagonals(self, weights: Array, bias: Array, center: Array) -> tuple[Array, Array]:
        """Sum s p_k (1 - p_k) (x - center)^2 (n_logits, d), and s p_k (1 - p_k) (n_logits,)."""
        diagonals, totals = np.zeros(weights.shape), np.zeros(len(bias))
        for z, p, row_weights in self._probabilities(weights, bias, center, 1, False):
            curvature = row_weights[:, np.newaxis] * p * (1.0 - p)
            diagonals += curvature.T @ (z * z)
            totals += curvature.sum(axis=0)
        return diagonals, totals


def in_threads(
    function: Callable[[T], Array], arguments: Iterable[T], n_threads: int
) -> Iterator[Array]:
    """Yield function(argument) in order; calls that let go of the GIL run side by side.

    Each call computes by itself what it would alone, so the bits do not depend on n_threads (those
    of a BLAS with threads of its own would).
    """
    if n_threads == 1:
        yield from map(function, arguments)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[Array]] = deque()
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def log_odds(logits: Array) -> Array:
    """Logits of both classes from the one logit of two."""
    return np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits


def add_sums(a: Sums, b: Sums) -> Sums:
    """Return the sums over the rows of both, a's first."""
    return Sums(
        a.loss + b.loss,
        a.correct + b.correct,
        a.grad_weights + b.grad_weights,
        a.grad_bias + b.grad_bias,
    )
