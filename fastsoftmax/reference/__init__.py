"""The numpy twin of the compiled kernels: same functions, same arguments, same contracts.

It is what the kernels are compared with, and what computes where nothing could be compiled.

Conventions
-----------
- Every array argument is of one real dtype, float32 or float64, except `labels` (int32), `order`
  (int64), the gradients of `loss_grad` (float64) and `X`, which may also be uint8, int8 or float16,
  or float32 where real is float64: its elements are converted, a block of rows at a time. X may
  also be a `CsrRows`.
  Outputs come first and are written in place.
- Targets and row weights are a `Targets`, which is made and checked once. Settings are the tuples
  of `fastsoftmax.kernel_arguments`.
- Products of matrices are taken in the real dtype. Everything after them (exponentials,
  logarithms, sums) is float64 and is rounded once, at the end.
- `n_logits` equals `n_classes`, or it is 1 for two classes: the one logit is then the log-odds of
  class 1, and that of class 0 is 0.
- Rows are taken in blocks of a few megabytes, so memory does not grow with n_rows * n_classes.
- `isa` and `n_threads` come with the decorators `serial` and `threaded`.

A row is shifted by its largest logit, and the largest term is then left out of the sum, which
log1p takes (Blanchard, Higham & Higham 2021, "Accurately computing the log-sum-exp and softmax
functions", IMA Journal of Numerical Analysis 41(4), Section 4). That keeps the cross-entropy
accurate near zero, where log(1 + others) would round to 0.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.reference._blocks import FactoredBlocks as FactoredBlocks
from fastsoftmax.reference._blocks import factor_block as factor_block
from fastsoftmax.reference._hessian import hessian_sums as hessian_sums
from fastsoftmax.reference._newton import newton_steps as newton_steps
from fastsoftmax.reference._rows import (
    MIN_GRAD_ROWS,
    Shifted,
    all_logits,
    blocks,
    features_of,
    residual_of,
    row_losses,
    serial,
    shift,
    threaded,
)
from fastsoftmax.reference._rows import Targets as Targets
from fastsoftmax.reference._vectors import add_scaled as add_scaled
from fastsoftmax.reference._vectors import assemble_gradient as assemble_gradient
from fastsoftmax.reference._vectors import dot as dot
from fastsoftmax.reference._vectors import round_weights as round_weights
from fastsoftmax.reference._vectors import within_product as within_product


class CsrRows:
    """Rows in CSR form, as `X` of the functions below.

    data, indices and indptr are as of a `scipy.sparse.csr_array`, of float32 or float64 and both of
    int32 or int64. Indices may be in any order and occur twice.
    """

    def __init__(self, data: Array, indices: Array, indptr: Array, n_features: int) -> None:
        from scipy import sparse

        self.shape = len(indptr) - 1, n_features
        begin, end = (indptr[0], indptr[-1]) if len(indptr) else (0, 0)
        if not (len(indptr) and 0 <= begin <= end <= min(len(indices), len(data))):
            raise ValueError("indptr must ascend, within the lengths of indices and data")
        parts = data[begin:end], indices[begin:end], indptr - begin
        self._matrix = sparse.csr_array(parts, shape=self.shape)
        self._matrix.check_format(full_check=True)

    def set_columns(
        self,
        panel_rows: int,
        panel_columns: Array,
        starts: Array,
        features: Array,
        rows: Array,
        values: Array,
    ) -> None:
        """Give the same numbers by columns; needed only by `columns_product` here."""
        self._columns = panel_columns, starts, features, rows, values

    def columns(self, panel: int, n_rows: int) -> Any:
        """Return the columns of a panel as a matrix (n_features, n_rows) of scipy's."""
        from scipy import sparse

        panel_columns, starts, features, rows, values = self._columns
        begin, end = panel_columns[panel : panel + 2]
        entries = slice(starts[begin], starts[end])
        feature = np.repeat(features[begin:end], np.diff(starts[begin : end + 1]))
        parts = values[entries], (feature, rows[entries])
        return sparse.coo_array(parts, shape=(self.shape[1], n_rows)).tocsr()

    def __getitem__(self, rows: Any) -> Any:
        """Return rows as a matrix of scipy's."""
        return self._matrix[rows]


def available_isas() -> tuple[str, ...]:
    """Instruction sets that `isa` can name, best first."""
    return ("numpy",)


def openmp() -> bool:
    """Whether there is OpenMP."""
    return False


def max_threads() -> int:
    """Return the number of threads that n_threads can ask for."""
    return 1


@serial
def panel_rows(n_logits: int, real_size: int) -> int:
    """Rows of a panel, for `CsrRows.set_columns`."""
    return 1 << 16


@serial
def exp_values(out: Array, x: Array) -> None:
    """out[i] = exp(x[i]); out may be x."""
    out[...] = np.exp(x, dtype=np.float64)


@serial
def log_values(out: Array, x: Array) -> None:
    """out[i] = log(x[i]); out may be x."""
    out[...] = np.log(x, dtype=np.float64)


@threaded
def softmax_rows(out: Array, logits: Array) -> None:
    """out[i, k] = exp(z_ik) / sum_j exp(z_ij); out may be logits."""
    for rows, row in _shifted(logits):
        out[rows] = row.exps / (1.0 + row.others)
        if out.shape[1] == 2:  # they sum to 1 exactly
            probs = out[rows]
            likelier = np.arange(len(probs)), probs.argmax(axis=1)
            probs[likelier] = 1.0 - probs.min(axis=1)


@threaded
def log_softmax_rows(out: Array, logits: Array) -> None:
    """out[i, k] = z_ik - log(sum_j exp(z_ij)); out may be logits."""
    for rows, row in _shifted(logits):
        out[rows] = 0.0 - (row.gap + np.log1p(row.others))  # 0.0, not -0.0, for one class


@threaded
def logsumexp_rows(out: Array, logits: Array) -> None:
    """out[i] = log(sum_j exp(z_ij))."""
    for rows, row in _shifted(logits):
        finite = np.isfinite(row.largest)
        sums = np.where(finite, row.largest + np.log1p(row.others), row.largest)
        out[rows] = sums[:, 0]


@threaded
def cross_entropy_rows(loss: Array, grad: Array | None, logits: Array, targets: Targets) -> None:
    """loss[i] = row_weight_i * cross-entropy of row i, in nats, and its gradient by the logits.

    grad[i] = row_weight_i * (softmax(z_i) - target_i); it may be None, or logits.
    """
    for rows, row in _shifted(logits):
        target, _, weight = targets.of(rows)
        loss[rows] = np.where(weight > 0.0, weight * row_losses(row, target), 0.0)  # inf too
        if grad is not None:
            grad[rows] = residual_of(row, target, weight)


@threaded
def affine_rows(logits: Array, X: Any, weights: Array, bias: Array) -> None:
    """logits[i, k] = x_i . weights_k + bias_k."""
    for rows in blocks(*X.shape):
        logits[rows] = product(features_of(X, rows, weights.dtype), weights.T)
        logits[rows] += bias


@threaded
def feature_moments(
    sums: Array, squares: Array, X: Array, row_weights: Array, shift: Array, units: Array
) -> float:
    """Sum y = units (x - shift) and its squares over the rows, by feature, weighted.

    sums and squares (d,) are float64 and are overwritten; X is dense. Returns the largest squared
    length of a row y.
    """
    sums[...] = squares[...] = 0.0
    largest = 0.0
    for rows in blocks(*X.shape):
        y = (features_of(X, rows, row_weights.dtype) - shift) * units
        weighted = row_weights[rows, np.newaxis] * y
        sums += weighted.sum(axis=0, dtype=np.float64)
        squares += (weighted * y).sum(axis=0, dtype=np.float64)
        largest = float(np.maximum(largest, (y * y).sum(axis=1, dtype=np.float64).max(initial=0.0)))
    return largest


@serial
def csr_moments(sums: Array, squares: Array, X: CsrRows, row_weights: Array) -> None:
    """Sum what is stored in CsrRows, and its squares, over the rows, by feature, weighted.

    sums and squares (d,) are float64 and are overwritten. What occurs twice in a row counts twice.
    """
    matrix = X[:]
    weights = np.repeat(row_weights.astype(np.float64), np.diff(matrix.indptr))
    stored = slice(matrix.indptr[0], matrix.indptr[-1])
    values, features = matrix.data[stored].astype(np.float64), matrix.indices[stored]
    weights *= values
    sums[...] = np.bincount(features, weights, len(sums))
    squares[...] = np.bincount(features, weights * values, len(sums))


@threaded
def predict_rows(probs: Array, X: Any, weights: Array, bias: Array, as_log: bool) -> bool:
    """probs[i] = softmax(W x_i + b), or its logarithm where as_log.

    With one logit for two classes, the other one's is 0. Returns whether every logit was finite.
    """
    finite = True
    for rows, logits in _logit_blocks(X, weights, bias, probs.shape[1]):
        finite &= bool(np.isfinite(logits).all())
        (log_softmax_rows if as_log else softmax_rows)(probs[rows], logits)
    return finite


@threaded
def predict_top(
    classes: Array, probs: Array | None, X: Any, weights: Array, bias: Array, n_classes: int
) -> bool:
    """Find the classes of the largest logits of each row, as many as classes has columns.

    Largest first; of equal logits the smaller class comes first, and NaN counts as -inf.
    classes (n, k) is int64; probs (n, k), their softmax over all classes, may be None. Returns
    whether every logit was finite.
    """
    finite = True
    for rows, logits in _logit_blocks(X, weights, bias, n_classes):
        finite &= bool(np.isfinite(logits).all())
        ranked = np.where(np.isnan(logits), np.inf, -logits)
        top = ranked.argsort(axis=1, kind="stable")[:, : classes.shape[1]]
        classes[rows] = top
        if probs is not None:
            softmax_rows(logits, logits)
            probs[rows] = np.take_along_axis(logits, top, axis=1)
    return finite


@threaded
def loss_grad(
    grad_weights: Array | None,
    grad_bias: Array | None,
    X: Any,
    targets: Targets,
    weights: Array,
    bias: Array,
) -> tuple[float, float]:
    """Weighted cross-entropy of an affine model, summed over the rows, and its gradient.

    grad_weights (n_logits, d) and grad_bias (n_logits,) are overwritten; both None: loss only.
    Returns the sums of row_weight_i * cross-entropy_i, in nats, and of row_weight over the rows
    whose largest logit is that of the target; of two equal ones the first counts.
    """
    if grad_weights is not None and grad_bias is not None:
        grad_weights[...] = 0.0
        grad_bias[...] = 0.0
    return _add_rows(grad_weights, grad_bias, X, targets, weights, bias)


@threaded
def columns_product(sums: Array, totals: Array, X: CsrRows, factors: Array, panel: int) -> None:
    """Add factors^T X to sums (n_logits, d), factors^T 1 to totals, for one panel of CsrRows.

    factors (rows of the panel, n_logits) is contiguous, float32 or float64; sums and totals are
    float64. X needs set_columns.
    """
    sums += (X.columns(panel, len(factors)) @ factors).T
    totals += factors.sum(axis=0, dtype=np.float64)


@threaded
def sgd_steps(
    params: Array, velocity: Array | None, X: Any, targets: Targets, order: Array, descent: Descent
) -> tuple[float, float]:
    """Gradient descent over the rows order[0], order[1], ..., descent.batch_size rows at a time.

    params (n_logits * d + n_logits,) holds the weights and after them the bias; it and velocity
    (the same shape, or None when momentum is 0) are updated in place. With g the sum of the
    batch's row gradients divided by batch_size (or by the rows of X, if those are fewer), plus
    l2 * weights:

        velocity = momentum * velocity + g;    params -= learning_rate * velocity

    In a smaller last batch the l2 counts in proportion to its rows, so that every row of an epoch
    moves the parameters alike. The bias is left alone unless fit_bias. With squared_scale = a^2 and
    center = m, each (n_features,), the steps are those of V = W / a and c = b + W m, which
    features a (x - m) have; center is for dense X. Returns the sums of `loss_grad`, with the
    parameters that each batch saw before its update.
    """
    squared_scale, center = descent.squared_scale, descent.center
    rate, momentum = float(descent.learning_rate), float(descent.momentum)
    n_features = X.shape[1]
    batch_size = min(descent.batch_size, max(1, X.shape[0]))
    n_logits = params.size // (n_features + 1)
    n_weights = n_logits * n_features
    n_updated = params.size if descent.fit_bias else n_weights
    weights, bias = params[:n_weights].reshape(n_logits, n_features), params[n_weights:]
    grad = np.empty(params.size)
    grad_weights, grad_bias = grad[:n_weights].reshape(weights.shape), grad[n_weights:]
    sums = np.zeros(2)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        grad[:] = 0.0
        sums += _add_rows(grad_weights, grad_bias, X, targets, weights, bias, batch)
        grad /= batch_size
        if center is not None:
            grad_weights -= np.outer(grad_bias, center)
        if squared_scale is not None:
            grad_weights *= squared_scale
        l2 = float(descent.l2) * len(batch) / batch_size
        grad[:n_weights] += l2 * params[:n_weights]
        step = grad[:n_updated]
        if velocity is not None:
            step += momentum * velocity[:n_updated]
            velocity[:n_updated] = step
        if center is not None:
            bias += rate * product(grad_weights, center.astype(np.float64))
        params[:n_updated] -= rate * step
    return float(sums[0]), float(sums[1])


def _add_rows(
    grad_weights: Array | None,
    grad_bias: Array | None,
    X: Any,
    targets: Targets,
    weights: Array,
    bias: Array,
    order: Array | None = None,
) -> tuple[float, float]:
    """Add the gradients of all rows, or of the rows in order; return (loss, correct)."""
    n_logits, n_classes = len(weights), targets.n_classes
    n_rows = targets.n_rows if order is None else len(order)
    loss = correct = 0.0
    # Rows in order are copied: an eighth of that, beside the eight arrays of their logits.
    width = n_classes if order is None else n_classes + X.shape[1] // 8
    for block in blocks(n_rows, width, MIN_GRAD_ROWS):
        rows = block if order is None else order[block]
        x = features_of(X, rows, weights.dtype)
        target, likeliest, weight = targets.of(rows)
        row = shift(_class_logits(x, weights, bias, n_classes))
        loss += float((weight * row_losses(row, target)).sum())
        correct += float(weight[row.at[:, 0] == likeliest].sum(dtype=np.float64))
        if grad_weights is not None and grad_bias is not None:
            residual = residual_of(row, target, weight)[:, n_classes - n_logits :]
            grad_bias += residual.sum(axis=0)
            grad_weights += product(residual.astype(weights.dtype, copy=False).T, x)
    return loss, correct


def _class_logits(X: Array, weights: Array, bias: Array, n_classes: int) -> Array:
    logits: Array = product(X, weights.T)
    logits += bias
    return all_logits(logits, n_classes)


def _logit_blocks(
    X: Any, weights: Array, bias: Array, n_classes: int
) -> Iterator[tuple[slice, Array]]:
    """Yield blocks of rows with the logits of all classes."""
    for rows in blocks(X.shape[0], max(X.shape[1], n_classes)):
        yield rows, _class_logits(features_of(X, rows, weights.dtype), weights, bias, n_classes)


def _shifted(logits: Array) -> Iterator[tuple[slice, Shifted]]:
    for rows in blocks(*logits.shape):
        yield rows, shift(logits[rows])
