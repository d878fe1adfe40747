"""The numpy twin of the compiled kernels: same functions, same arguments, same contracts.

It is what the kernels are compared with, and what computes where nothing could be compiled.

Conventions
-----------
- Every array argument is of one real dtype, float32 or float64, except `labels` (int32), `order`
  (int64), the gradients of `loss_grad` (float64) and `X`, which may also be uint8, int8 or float16,
  or float32 where real is float64: its elements are converted, a block of rows at a time. X may
  also be a `CsrRows`.
  Outputs come first and are written in place.
- Products of matrices are taken in the real dtype. Everything after them (exponentials,
  logarithms, sums) is float64 and is rounded once, at the end.
- `n_logits` equals `n_classes`, or it is 1 for two classes: the one logit is then the log-odds of
  class 1, and that of class 0 is 0.
- Rows are taken in blocks of a few megabytes, so memory does not grow with n_rows * n_classes.
- `isa` and `n_threads` are accepted for the sake of the common signature and not used.

A row is shifted by its largest logit, and the largest term is then left out of the sum, which
log1p takes (Blanchard, Higham & Higham 2021, "Accurately computing the log-sum-exp and softmax
functions", IMA Journal of Numerical Analysis 41(4), Section 4). That keeps the cross-entropy
accurate near zero, where log(1 + others) would round to 0.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A block's logits: half a megabyte in float64, of which about eight arrays are alive at a time.
# The quickest of 2^12 to 2^20 on 60000 x 784 float32 with 10 classes (numpy 2.4, 2 cores).
_BLOCK_NUMBERS = 1 << 16
# A block of a gradient pass has at least this many rows: each block costs a product that reads
# and writes the whole gradient.
_MIN_GRAD_ROWS = 16


class CsrRows:
    """Rows in CSR form, as `X` of the functions below.

    Parameters
    ----------
    data : ndarray of float32 or float64
    indices, indptr : ndarray of int32 or int64, both of one type
        As of a `scipy.sparse.csr_array`; indices may be in any order and occur twice.
    n_features : int
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
        """Give the same numbers by columns; not needed here."""

    def __getitem__(self, rows: Any) -> Any:
        """Return rows as a matrix of scipy's."""
        return self._matrix[rows]


class _Shifted(NamedTuple):
    """Rows of logits z in terms of their largest, in float64."""

    gap: Array  # (n, K) largest - z
    exps: Array  # (n, K) exp(-gap)
    largest: Array  # (n, 1), NaN where the row has a NaN
    at: Array  # (n, 1) index of the largest
    others: Array  # (n, 1) sum of exps without the largest; NaN where a row has no distribution


class _Targets(NamedTuple):
    """What the rows are compared with."""

    labels: Array | None  # (n,)
    probs: Array | None  # (n, K), where labels is None
    weights: Array  # (n,)
    smoothing: float
    n_classes: int

    def check(self) -> "_Targets":
        if (self.labels is None) == (self.probs is None):
            raise ValueError("exactly one of labels and target_probs must be given")
        if self.labels is not None and self.labels.size:
            low, high = self.labels.min(), self.labels.max()
            if low < 0 or high >= self.n_classes:
                raise ValueError(
                    f"labels must lie in [0, {self.n_classes}), got values from {low} to {high}"
                )
        return self

    def of(self, rows: Any) -> tuple[Array, Array, Array]:
        """(smoothed distributions in a new float64 array, likeliest class, weight) of rows."""
        if self.probs is not None:
            target = self.probs[rows].astype(np.float64)
            likeliest = target.argmax(axis=1)
        else:
            assert self.labels is not None
            likeliest = self.labels[rows]
            target = np.zeros((len(likeliest), self.n_classes))
            target[np.arange(len(target)), likeliest] = 1.0
        if self.smoothing:
            target *= 1.0 - self.smoothing
            target += self.smoothing / self.n_classes
        return target, likeliest, self.weights[rows]


def available_isas() -> tuple[str, ...]:
    """Instruction sets that `isa` can name, best first."""
    return ("numpy",)


def openmp() -> bool:
    """Whether n_threads has an effect."""
    return False


def max_threads() -> int:
    """Return the number of threads that n_threads can ask for."""
    return 1


def panel_rows(n_logits: int, real_size: int, *, isa: str | None = None) -> int:
    """Rows of a panel, for `CsrRows.set_columns`."""
    return 1 << 16


def exp_values(out: Array, x: Array, *, isa: str | None = None) -> None:
    """out[i] = exp(x[i]); out may be x."""
    with _quiet():
        out[...] = np.exp(x, dtype=np.float64)


def log_values(out: Array, x: Array, *, isa: str | None = None) -> None:
    """out[i] = log(x[i]); out may be x."""
    with _quiet():
        out[...] = np.log(x, dtype=np.float64)


def softmax_rows(out: Array, logits: Array, *, isa: str | None = None, n_threads: int = 1) -> None:
    """out[i, k] = exp(z_ik) / sum_j exp(z_ij); out may be logits."""
    for rows in _blocks(*logits.shape):
        with _quiet():
            row = _shift(logits[rows])
            out[rows] = row.exps / (1.0 + row.others)


def log_softmax_rows(
    out: Array, logits: Array, *, isa: str | None = None, n_threads: int = 1
) -> None:
    """out[i, k] = z_ik - log(sum_j exp(z_ij)); out may be logits."""
    for rows in _blocks(*logits.shape):
        with _quiet():
            row = _shift(logits[rows])
            out[rows] = 0.0 - (row.gap + np.log1p(row.others))  # 0.0, not -0.0, for one class


def logsumexp_rows(
    out: Array, logits: Array, *, isa: str | None = None, n_threads: int = 1
) -> None:
    """out[i] = log(sum_j exp(z_ij))."""
    for rows in _blocks(*logits.shape):
        with _quiet():
            row = _shift(logits[rows])
            finite = np.isfinite(row.largest)
            sums = np.where(finite, row.largest + np.log1p(row.others), row.largest)
            out[rows] = sums[:, 0]


def cross_entropy_rows(
    loss: Array,
    grad: Array | None,
    logits: Array,
    labels: Array | None,
    target_probs: Array | None,
    row_weights: Array,
    label_smoothing: float,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None:
    """loss[i] = row_weight_i * cross-entropy of row i, in nats, and its gradient by the logits.

    grad[i] = row_weight_i * (softmax(z_i) - target_i); it may be None, or logits. Exactly one of
    labels (n,) and target_probs (n, K) is given.
    """
    targets = _Targets(labels, target_probs, row_weights, label_smoothing, logits.shape[1]).check()
    for rows in _blocks(*logits.shape):
        with _quiet():
            target, _, weight = targets.of(rows)
            row = _shift(logits[rows])
            loss[rows] = _row_losses(row, target, weight)
            if grad is not None:
                grad[rows] = _residual(row, target, weight)


def affine_rows(
    logits: Array,
    X: Any,
    weights: Array,
    bias: Array,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None:
    """logits[i, k] = x_i . weights_k + bias_k."""
    for rows in _blocks(*X.shape):
        with _quiet():
            logits[rows] = X[rows].astype(weights.dtype, copy=False) @ weights.T
            logits[rows] += bias


def predict_rows(
    probs: Array,
    X: Any,
    weights: Array,
    bias: Array,
    as_log: bool,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> bool:
    """probs[i] = softmax(W x_i + b), or its logarithm where as_log.

    With one logit for two classes, the other one's is 0. Returns whether every logit was finite.
    """
    finite = True
    for rows in _blocks(X.shape[0], max(X.shape[1], probs.shape[1])):
        logits = _class_logits(X[rows], weights, bias, probs.shape[1])
        finite &= bool(np.isfinite(logits).all())
        (log_softmax_rows if as_log else softmax_rows)(probs[rows], logits)
    return finite


def predict_top(
    classes: Array,
    probs: Array | None,
    X: Any,
    weights: Array,
    bias: Array,
    n_classes: int,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> bool:
    """Find the classes of the largest logits of each row, as many as classes has columns.

    Largest first; of equal logits the smaller class comes first, and NaN counts as -inf.
    classes (n, k) is int64; probs (n, k), their softmax over all classes, may be None. Returns
    whether every logit was finite.
    """
    finite = True
    for rows in _blocks(X.shape[0], max(X.shape[1], n_classes)):
        logits = _class_logits(X[rows], weights, bias, n_classes)
        finite &= bool(np.isfinite(logits).all())
        ranked = np.where(np.isnan(logits), np.inf, -logits)
        top = ranked.argsort(axis=1, kind="stable")[:, : classes.shape[1]]
        classes[rows] = top
        if probs is not None:
            softmax_rows(logits, logits)
            probs[rows] = np.take_along_axis(logits, top, axis=1)
    return finite


def loss_grad(
    grad_weights: Array | None,
    grad_bias: Array | None,
    X: Any,
    labels: Array | None,
    target_probs: Array | None,
    row_weights: Array,
    label_smoothing: float,
    weights: Array,
    bias: Array,
    n_classes: int,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> tuple[float, float]:
    """Weighted cross-entropy of an affine model, summed over the rows, and its gradient.

    grad_weights (n_logits, d) and grad_bias (n_logits,) are overwritten; both None: loss only.

    Returns
    -------
    loss : float
        sum_i row_weight_i * cross-entropy_i, in nats.
    correct : float
        Sum of row_weight over the rows whose largest logit is that of the target; of two equal
        ones the first counts.
    """
    targets = _Targets(labels, target_probs, row_weights, label_smoothing, n_classes).check()
    if grad_weights is not None and grad_bias is not None:
        grad_weights[...] = 0.0
        grad_bias[...] = 0.0
    return _add_rows(grad_weights, grad_bias, X, targets, weights, bias)


def sgd_steps(
    params: Array,
    velocity: Array | None,
    X: Any,
    labels: Array | None,
    target_probs: Array | None,
    row_weights: Array,
    label_smoothing: float,
    n_classes: int,
    order: Array,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    fit_bias: bool,
    *,
    squared_scale: Array | None = None,
    center: Array | None = None,
    isa: str | None = None,
    n_threads: int = 1,
) -> tuple[float, float]:
    """Gradient descent over the rows order[0], order[1], ..., batch_size rows at a time.

    params (n_logits * d + n_logits,) holds the weights and after them the bias; it and velocity
    (the same shape, or None when momentum is 0) are updated in place. With g the sum of the
    batch's row gradients divided by batch_size (or by the rows of X, if those are fewer), plus
    weight_decay * weights; in a smaller last batch the decay is smaller in proportion, so that
    every row of an epoch moves the parameters alike:

        velocity = momentum * velocity + g;    params -= learning_rate * velocity

    The bias is left alone unless fit_bias. With squared_scale = a^2 and center = m, each
    (n_features,), the steps are those of V = W / a and c = b + W m, which features a (x - m) have;
    center is for dense X.

    Returns
    -------
    loss, correct : float
        As `loss_grad`, with the parameters that each batch saw before its update.
    """
    targets = _Targets(labels, target_probs, row_weights, label_smoothing, n_classes).check()
    n_features = X.shape[1]
    batch_size = min(batch_size, max(1, X.shape[0]))
    n_logits = params.size // (n_features + 1)
    n_weights = n_logits * n_features
    n_updated = params.size if fit_bias else n_weights
    weights, bias = params[:n_weights].reshape(n_logits, n_features), params[n_weights:]
    grad = np.empty(params.size)
    grad_weights, grad_bias = grad[:n_weights].reshape(weights.shape), grad[n_weights:]
    sums = np.zeros(2)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        grad[:] = 0.0
        sums += _add_rows(grad_weights, grad_bias, X, targets, weights, bias, batch)
        with _quiet():
            grad /= batch_size
            if center is not None:
                grad_weights -= np.outer(grad_bias, center)
            if squared_scale is not None:
                grad_weights *= squared_scale
            decay = float(weight_decay) * len(batch) / batch_size
            grad[:n_weights] += decay * params[:n_weights]
            step = grad[:n_updated]
            if velocity is not None:
                step += float(momentum) * velocity[:n_updated]
                velocity[:n_updated] = step
            if center is not None:
                bias += float(learning_rate) * (grad_weights @ center.astype(np.float64))
            params[:n_updated] -= float(learning_rate) * step
    return float(sums[0]), float(sums[1])


def _add_rows(
    grad_weights: Array | None,
    grad_bias: Array | None,
    X: Any,
    targets: _Targets,
    weights: Array,
    bias: Array,
    order: Array | None = None,
) -> tuple[float, float]:
    """Add the gradients of all rows, or of the rows in order; return (loss, correct)."""
    n_logits, n_classes = len(weights), targets.n_classes
    n_rows = len(targets.weights) if order is None else len(order)
    loss = correct = 0.0
    # Rows in order are copied: an eighth of that, beside the eight arrays of their logits.
    width = n_classes if order is None else n_classes + X.shape[1] // 8
    for block in _blocks(n_rows, width, _MIN_GRAD_ROWS):
        rows = block if order is None else order[block]
        x = X[rows].astype(weights.dtype, copy=False)
        target, likeliest, weight = targets.of(rows)
        logits = _class_logits(x, weights, bias, n_classes)
        with _quiet():
            row = _shift(logits)
            loss += float(_row_losses(row, target, weight).sum())
            correct += float(weight[row.at[:, 0] == likeliest].sum(dtype=np.float64))
            if grad_weights is not None and grad_bias is not None:
                residual = _residual(row, target, weight)[:, n_classes - n_logits :]
                grad_bias += residual.sum(axis=0)
                grad_weights += residual.astype(weights.dtype, copy=False).T @ x
    return loss, correct


def _class_logits(X: Array, weights: Array, bias: Array, n_classes: int) -> Array:
    """Logits of all classes; of two with one logit class 0 has 0."""
    with _quiet():
        logits: Array = X.astype(weights.dtype, copy=False) @ weights.T
        logits += bias
    if len(weights) < n_classes:
        logits = np.column_stack([np.zeros_like(logits), logits])
    return logits


def _shift(logits: Array) -> _Shifted:
    z = logits.astype(np.float64, copy=False)
    at = z.argmax(axis=1)[:, np.newaxis]
    largest = np.take_along_axis(z, at, axis=1)
    gap = largest - z
    exps = np.exp(-gap)
    if logits.dtype == np.float64:
        # Rounding gap to ulp(gap) / 2 would cost exp as many ulp as gap / 2: carry the remainder
        # of the difference (Knuth's two-sum), as exp(-(gap + r)) = exp(-gap) (1 - r).
        back = gap - largest
        remainder = (largest - (gap - back)) - (z + back)
        exps -= exps * np.where(gap < np.inf, remainder, 0.0)
    np.put_along_axis(exps, at, 0.0, axis=1)
    others = exps.sum(axis=1, keepdims=True)
    others += largest - largest  # NaN for a row that holds NaN or +inf, or nothing but -inf
    np.put_along_axis(exps, at, 1.0, axis=1)
    return _Shifted(gap, exps, largest, at, others)


def _row_losses(row: _Shifted, target: Array, row_weights: Array) -> Array:
    """row_weight * sum_k target_k (logsumexp(z) - z_k), a sum of terms that are all >= 0."""
    terms = np.where(target > 0.0, target * row.gap, 0.0)  # 0 * inf counts as 0
    losses: Array = row_weights * (terms.sum(axis=1) + np.log1p(row.others[:, 0]))
    return losses


def _residual(row: _Shifted, target: Array, row_weights: Array) -> Array:
    """row_weight * (softmax - target), without cancellation where both are near 1."""
    total = 1.0 + row.others
    residual: Array = row.exps / total - target
    t = np.take_along_axis(target, row.at, axis=1)
    near_one = np.where(
        t > 0.5,
        (1.0 - t) - row.others / total,
        np.take_along_axis(residual, row.at, axis=1),
    )
    np.put_along_axis(residual, row.at, near_one, axis=1)
    residual *= row_weights[:, np.newaxis]
    return residual


def _blocks(n_rows: int, width: int, min_rows: int = 1) -> Iterator[slice]:
    size = max(min_rows, _BLOCK_NUMBERS // max(1, width))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def _quiet() -> np.errstate:
    """Infinities and NaN are results here, not mishaps."""
    return np.errstate(all="ignore")
