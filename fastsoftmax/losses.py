"""Cross-entropy, of logits and of an affine model, and accuracy, as functions of arrays.

The conventions are those of `fastsoftmax.functional`, which exports these functions too.
"""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from fastsoftmax._arguments import (
    adjacent_rows,
    as_real,
    cast,
    check_reduction,
    checked_row_weights,
    checked_smoothing,
    class_indices,
    compute_dtype,
    features_in_place,
    real_dtype,
    reduction_divisor,
    thread_count,
    weighted_targets,
    without_ignored,
)
from fastsoftmax.arrays import Array
from fastsoftmax.backend import resolve_backend
from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.foreign_arrays import as_array

# Dtypes of X that are read in place for every dtype of the computation.
_READ_IN_PLACE = [np.dtype(name) for name in ("float32", "float16", "uint8", "int8")]

__all__ = ["accuracy", "cross_entropy", "linear_cross_entropy"]


@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., ignore_index: int | None = ...,
    reduction: Literal["mean", "sum"] = ...,
    return_grad: Literal[False] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> float: ...  # fmt: skip
@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., ignore_index: int | None = ...,
    reduction: Literal["mean", "sum"] = ...,
    return_grad: Literal[True], backend: str = ..., n_jobs: int | None = ...,
) -> tuple[float, Array]: ...  # fmt: skip
@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., ignore_index: int | None = ...,
    reduction: Literal["none"],
    return_grad: Literal[False] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> Array: ...  # fmt: skip
@overload
def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = ...,
    label_smoothing: float = ..., ignore_index: int | None = ...,
    reduction: Literal["none"],
    return_grad: Literal[True], backend: str = ..., n_jobs: int | None = ...,
) -> tuple[Array, Array]: ...  # fmt: skip
@own_arithmetic
def cross_entropy(
    logits: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
    return_grad: bool = False,
    backend: str = "auto",
    n_jobs: int | None = None,
) -> Any:
    """Cross-entropy of the softmax of logits against labels or distributions.

    With t_i the target distribution of row i and s_i its weight, row i costs

        s_i * CE_i,    CE_i = log(sum_j exp(z_ij)) - sum_k t_ik z_ik,

    and "mean" is sum_i s_i CE_i / sum_i s_i.

    Parameters
    ----------
    logits : array_like of shape (n, K)
        Logits z, K >= 1.
    y : array_like of shape (n,) or (n, K)
        Class indices in [0, K), of any integer type or bool. Or a distribution over the classes for
        each row. Its sum must be 1 within 1e-5 (float32: 1e-4, float16: 1e-2). If the sum differs
        from 1 by more than rounding, the row is divided by it.
    sample_weight : array_like of shape (n,), optional
        Row weights s, finite and >= 0; 1 by default. A row of weight 0 counts as absent, for any
        logits and any target.
    label_smoothing : float, default=0.0
        e in [0, 1]: the targets become (1 - e) t + e / K.
    ignore_index : int, optional
        A label, such as the -100 of ``torch.nn.functional.cross_entropy``, whose rows get weight
        0: they cost nothing, their gradient is 0, and "mean" does not count them.
    reduction : {"mean", "sum", "none"}, default="mean"
        The weighted mean of CE, the weighted sum, or s_i * CE_i for each row.
    return_grad : bool, default=False
        Return the gradient by the logits too.
    backend, n_jobs
        See the conventions of `fastsoftmax.functional`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) for reduction="none"
        Of full relative accuracy, also near zero. Sums are computed in float64.
    grad : ndarray of shape (n, K)
        Only with return_grad: the gradient of loss, or of its sum for reduction="none".

    Raises
    ------
    ValueError
        If shapes disagree or K = 0; if a label is out of range, a distribution does not sum to 1
        or has a negative value; if a row weight is negative, infinite or NaN; for the mean, if the
        row weights sum to 0, as for n = 0 and where every row is ignored; if label_smoothing or
        reduction is not as above; if ignore_index is given for distributions.
    TypeError
        If logits are not real, or y is neither integers nor an array of shape (n, K). Labels of
        a float dtype are not rounded. If ignore_index is no integer.

    Notes
    -----
    A class with a logit of -inf adds nothing to the loss if its target is 0, and inf if its target
    is positive.

    Examples
    --------
    >>> from fastsoftmax.functional import cross_entropy
    >>> cross_entropy([[50.0, 0.0], [0.0, 50.0]], [0, 1])
    1.9287498479639178e-22
    >>> loss, grad = cross_entropy([[0.0, 0.0]], [[0.25, 0.75]], return_grad=True)
    >>> grad
    array([[ 0.25, -0.25]])
    >>> cross_entropy([[50.0, 0.0], [0.0, 50.0]], [0, -100], ignore_index=-100)
    1.9287498479639178e-22
    """
    check_reduction(reduction, ("mean", "sum", "none"))
    z, dtype = as_real("logits", logits)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"logits must be of shape (n, K) with K >= 1, got shape {z.shape}")
    z = adjacent_rows(z)
    n_rows, n_classes = z.shape
    labels, probs, row_weights = weighted_targets(
        y, sample_weight, (n_rows, n_classes), z.dtype, ignore_index
    )
    total = reduction_divisor(row_weights, reduction)
    smoothing = checked_smoothing(label_smoothing)
    kernels = resolve_backend(backend)
    loss = np.empty(n_rows, dtype=z.dtype)
    grad = np.empty(z.shape, dtype=z.dtype) if return_grad else None
    targets = kernels.Targets(labels, probs, row_weights, smoothing, n_classes)
    n_threads = thread_count(n_jobs, kernels)
    kernels.cross_entropy_rows(loss, grad, z, targets, n_threads=n_threads)
    removed = row_weights == 0.0  # 0 * inf or 0 * NaN would be NaN
    loss[removed] = 0.0
    if grad is not None:
        grad[removed] = 0.0
        if reduction == "mean":
            grad /= total
        grad = cast(grad, dtype)
    if reduction == "none":
        result: Any = cast(loss, dtype)
    else:
        result = float(loss.sum(dtype=np.float64)) / total
    return (result, grad) if return_grad else result


@overload
def linear_cross_entropy(
    X: ArrayLike, W: ArrayLike, b: ArrayLike, y: ArrayLike, *,
    sample_weight: ArrayLike | None = ..., label_smoothing: float = ...,
    ignore_index: int | None = ..., reduction: str = ...,
    return_grad: Literal[True] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> tuple[float, Array, Array]: ...  # fmt: skip
@overload
def linear_cross_entropy(
    X: ArrayLike, W: ArrayLike, b: None, y: ArrayLike, *,
    sample_weight: ArrayLike | None = ..., label_smoothing: float = ...,
    ignore_index: int | None = ..., reduction: str = ...,
    return_grad: Literal[True] = ..., backend: str = ..., n_jobs: int | None = ...,
) -> tuple[float, Array, None]: ...  # fmt: skip
@overload
def linear_cross_entropy(
    X: ArrayLike, W: ArrayLike, b: ArrayLike | None, y: ArrayLike, *,
    sample_weight: ArrayLike | None = ..., label_smoothing: float = ...,
    ignore_index: int | None = ..., reduction: str = ...,
    return_grad: Literal[False], backend: str = ..., n_jobs: int | None = ...,
) -> float: ...  # fmt: skip
@own_arithmetic
def linear_cross_entropy(
    X: ArrayLike,
    W: ArrayLike,
    b: ArrayLike | None,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
    return_grad: bool = True,
    backend: str = "auto",
    n_jobs: int | None = None,
) -> Any:
    """Cross-entropy of the logits X W^T + b, and its gradients, without an n x K array.

    The value is that of ``cross_entropy(X @ W.T + b, y, ...)``, computed over blocks of rows in one
    pass, so that memory does not grow with n x K.

    Parameters
    ----------
    X : array_like of shape (n, d)
        Features, dense, in any memory order. The computation is in the dtype of
        ``numpy.result_type(X, W, b)`` (float64 if all are integers); X is read in place if it has
        that dtype or is float32, float16, uint8, int8 or bool.
    W : array_like of shape (K, d)
        Coefficients, one row for each class, K >= 1.
    b : array_like of shape (K,) or None
        Intercepts; None means none.
    y, sample_weight, label_smoothing, ignore_index
        As for `cross_entropy`.
    reduction : {"mean", "sum"}, default="mean"
        The weighted mean of the cross-entropy over the rows, or its weighted sum.
    return_grad : bool, default=True
        Return the gradients; without them the pass takes half of the time.
    backend, n_jobs
        See the conventions of `fastsoftmax.functional`.

    Returns
    -------
    loss : float
        In nats.
    grad_W : ndarray of shape (K, d)
        Gradient of loss by W.
    grad_b : ndarray of shape (K,) or None
        Gradient of loss by b; None if b is None.

    Raises
    ------
    ValueError, TypeError
        As in `cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax.functional import linear_cross_entropy
    >>> X, y = np.array([[1.0, 2.0], [3.0, 4.0]]), [0, 1]
    >>> loss, grad_W, grad_b = linear_cross_entropy(X, np.zeros((2, 2)), np.zeros(2), y)
    >>> grad_W
    array([[ 0.5,  0.5],
           [-0.5, -0.5]])
    """
    check_reduction(reduction, ("mean", "sum"))
    X, W, bias, dtype = _affine_arguments(X, W, b)
    real = W.dtype
    n_rows, n_classes = len(X), len(W)
    labels, probs, row_weights = weighted_targets(
        y, sample_weight, (n_rows, n_classes), real, ignore_index
    )
    total = reduction_divisor(row_weights, reduction)
    smoothing = checked_smoothing(label_smoothing)
    kernels = resolve_backend(backend)
    n_threads = thread_count(n_jobs, kernels)
    grads = (np.empty(W.shape), np.empty(n_classes)) if return_grad else ()

    def add_up(rows: Any) -> float:
        if n_classes == 1:  # loss_grad takes one row of weights for two classes
            with np.errstate(all="ignore"):
                logits = X[rows] @ W[0] + bias
            for grad in grads:
                grad.fill(0.0)
            return 0.0 if np.isfinite(logits).all() else math.nan
        some = (None if part is None else part[rows] for part in (labels, probs, row_weights))
        targets = kernels.Targets(*some, smoothing, n_classes)
        grad_weights, grad_bias = grads or (None, None)
        loss, _ = kernels.loss_grad(
            grad_weights, grad_bias, X[rows], targets, W, bias, n_threads=n_threads
        )
        return float(loss)

    loss = add_up(slice(None))
    if not math.isfinite(loss) and not row_weights.all():
        loss = add_up(row_weights > 0.0)  # 0 * inf or 0 * NaN: leave rows of weight 0 out
    if not return_grad:
        return loss / total
    grad_W, grad_b = (cast(np.divide(grad, total), dtype) for grad in grads)
    return loss / total, grad_W, None if b is None else grad_b


@own_arithmetic
def accuracy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
) -> float:
    """Weighted share of rows whose predicted class is the true one.

    Parameters
    ----------
    y_true : array_like of shape (n,)
        True labels: of any type if y_pred has labels, class indices if it has scores.
    y_pred : array_like of shape (n,) or (n, K)
        Predicted labels; or a score for each class, such as logits or probabilities. The class of
        the largest score (the first of equal ones) is the predicted one. A row of scores with a NaN
        counts as wrong. For scores of the positive class alone, of shape (n,), pass ``scores > 0``,
        or labels.
    sample_weight : array_like of shape (n,), optional
        Row weights, finite and >= 0; 1 by default. A row of weight 0 may have any label.
    ignore_index : int, optional
        A true label, such as -100, whose rows count as absent.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If shapes disagree; if y_pred is 1-d with fractions or NaN (scores, not labels); if a class
        index is out of range; if a row weight is not finite and >= 0, or their sum is 0 (as for
        n = 0).
    TypeError
        If labels are strings on one side and numbers on the other; if scores are not real; if
        ignore_index is no integer.

    Examples
    --------
    >>> from fastsoftmax.functional import accuracy
    >>> accuracy(["cat", "dog"], ["cat", "cat"])
    0.5
    >>> accuracy([0, 1], [[2.0, 1.0], [0.1, 0.3]])
    1.0
    """
    truth, predicted = as_array(y_true, "y_true"), as_array(y_pred, "y_pred")
    n_rows = len(truth) if truth.ndim else 0
    row_weights = checked_row_weights(sample_weight, n_rows, np.dtype(np.float64))
    row_weights = without_ignored(truth, row_weights, ignore_index)
    if predicted.ndim == 2:
        scores = as_real("y_pred", predicted)[0]
        if scores.shape[1] == 0:
            raise ValueError(f"y_pred must have at least one class, got shape {scores.shape}")
        truth = class_indices(truth, len(scores), scores.shape[1], "y_true", row_weights)
        hits = scores.argmax(axis=1) == truth
        hits &= ~np.isnan(scores.max(axis=1))
    else:
        if truth.ndim != 1 or truth.shape != predicted.shape:
            raise ValueError(
                f"y_true must be of shape (n,) and y_pred of shape (n,) or (n, K), "
                f"got shapes {truth.shape} and {predicted.shape}"
            )
        if predicted.dtype.kind == "f" and not np.array_equal(predicted, np.trunc(predicted)):
            raise ValueError(
                "y_pred of shape (n,) must hold labels, got fractions or NaN: pass `scores > 0`, "
                "or scores of shape (n, K)"
            )
        text = [a.dtype.kind in "US" for a in (truth, predicted)]
        if text[0] != text[1] and "O" not in (truth.dtype.kind, predicted.dtype.kind):
            raise TypeError(
                f"y_true and y_pred must hold labels of one type, "
                f"got dtypes {truth.dtype} and {predicted.dtype}"
            )
        hits = truth == predicted
    correct = float(row_weights[hits.astype(bool)].sum())
    return min(correct / reduction_divisor(row_weights, "mean"), 1.0)  # (the sums are rounded)


def _affine_arguments(
    X: ArrayLike, W: ArrayLike, b: ArrayLike | None
) -> tuple[Array, Array, Array, np.dtype[Any]]:
    """Return readable X, W and b (zeros for None) in one dtype, and the dtype of the result."""
    if hasattr(X, "tocsr"):
        raise TypeError("X must be a dense array, got a sparse one: FastSoftmax takes those")
    x, weights = as_array(X, "X"), as_array(W, "W")
    bias = np.zeros(len(weights) if weights.ndim else 0, dtype=np.bool_)
    if b is not None:
        bias = as_array(b, "b")
    for name, array in (("X", x), ("W", weights), ("b", bias)):
        real_dtype(name, array.dtype)
    if x.ndim != 2 or weights.ndim != 2 or x.shape[1] != weights.shape[1] or not len(weights):
        raise ValueError(
            f"X must be of shape (n, d) and W of shape (K, d) with K >= 1, "
            f"got shapes {x.shape} and {weights.shape}"
        )
    if bias.shape != (len(weights),):
        raise ValueError(f"b must be of shape ({len(weights)},), got {bias.shape}")
    dtype = real_dtype("X", np.result_type(x, weights, bias))
    real = compute_dtype(dtype)
    if x.dtype.kind == "b":
        x = x.view(np.uint8)
    if x.dtype.newbyteorder("=") not in _READ_IN_PLACE:
        x = x.astype(real, copy=False)
    weights = np.ascontiguousarray(weights.astype(real, copy=False))
    return features_in_place(x), adjacent_rows(weights), bias.astype(real), dtype
