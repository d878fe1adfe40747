"""What the kernels are raced against: numpy, scikit-learn and torch, each used well.

Each function does one task and returns its answer. Those that take `out` or `work` write there, so
that no contestant pays for fresh memory where another does not. Rows in CSR form are in
rivals_sparse.py, whole models in rivals_predict.py.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

Array = np.ndarray
Pass = Callable[[], tuple[float, Array, Array]]


def torch_or_none() -> ModuleType | None:
    """torch, where it is installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


# ---- numpy ----
# The twin in these races is not `fastsoftmax.reference`, which is written for accuracy (float64
# after the products, log1p of the others' sum). It is what one writes in numpy for speed: in the
# rows' own type, in place, with products by BLAS and all of its threads.


def numpy_softmax(x: Array, out: Array) -> Array:
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)
    return out


def numpy_log_softmax(x: Array, out: Array) -> Array:
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    out -= np.log(np.exp(out).sum(axis=1, keepdims=True))
    return out


def numpy_logsumexp(x: Array, work: Array) -> Array:
    largest = x.max(axis=1)
    np.subtract(x, largest[:, np.newaxis], out=work)
    np.exp(work, out=work)
    largest += np.log(work.sum(axis=1))
    return largest


def numpy_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Mean loss and its gradient by the logits."""
    n_rows = len(logits)
    rows = np.arange(n_rows)
    grad = logits - logits.max(axis=1, keepdims=True)
    own = grad[rows, labels]
    np.exp(grad, out=grad)
    sums = grad.sum(axis=1, keepdims=True)
    loss = float((np.log(sums[:, 0]) - own).mean())
    grad /= sums * n_rows
    grad[rows, labels] -= np.reciprocal(grad.dtype.type(n_rows))
    return loss, grad


def numpy_pass(X: Array, labels: Array, W: Array, b: Array) -> Pass:
    """Summed loss and gradients of an affine model; logits with a row for each example."""
    rows = np.arange(len(X))
    probs = np.empty((len(X), len(W)), dtype=X.dtype)
    grad_W = np.empty_like(W)

    def run() -> tuple[float, Array, Array]:
        np.matmul(X, W.T, out=probs)
        np.add(probs, b, out=probs)
        loss = numpy_residuals(probs, rows, labels)
        np.matmul(probs.T, X, out=grad_W)
        return loss, grad_W, probs.sum(axis=0)

    return run


def numpy_residuals(logits: Array, rows: Array, labels: Array) -> float:
    """Summed loss; the logits, a row for each example, become its gradient."""
    np.subtract(logits, logits.max(axis=1, keepdims=True), out=logits)
    own = logits[rows, labels]
    np.exp(logits, out=logits)
    sums = logits.sum(axis=1, keepdims=True)
    np.divide(logits, sums, out=logits)
    logits[rows, labels] -= 1
    return float(np.log(sums).sum() - own.sum())


def numpy_pass_by_class(X: Array, labels: Array, W: Array, b: Array) -> Pass:
    """The same with a row for each class: numpy is quicker over long rows, BLAS often slower."""
    rows = np.arange(len(X))
    probs = np.empty((len(W), len(X)), dtype=X.dtype)
    grad_W = np.empty_like(W)

    def run() -> tuple[float, Array, Array]:
        np.matmul(W, X.T, out=probs)
        np.add(probs, b[:, np.newaxis], out=probs)
        np.subtract(probs, probs.max(axis=0), out=probs)
        own = probs[labels, rows]
        np.exp(probs, out=probs)
        sums = probs.sum(axis=0)
        loss = np.log(sums).sum() - own.sum()
        np.divide(probs, sums, out=probs)
        probs[labels, rows] -= 1
        np.matmul(probs, X, out=grad_W)
        return float(loss), grad_W, probs.sum(axis=1)

    return run


def numpy_binary_pass(X: Any, transposed: Any, labels: Array, W: Array, b: Array) -> Pass:
    """The same for two classes with one logit; X dense or sparse."""
    y = labels.astype(X.dtype)
    w = W[0]

    def run() -> tuple[float, Array, Array]:
        logits = X @ w
        logits += b
        tails = np.exp(-np.abs(logits))
        losses = np.log1p(tails)
        losses += np.maximum(logits, 0)
        losses -= y * logits
        residuals = np.where(logits >= 0, 1, tails)
        residuals /= 1 + tails
        residuals -= y
        grad_W = (transposed @ residuals)[np.newaxis]
        return float(losses.sum()), grad_W, residuals.sum(keepdims=True)

    return run


def numpy_epoch(
    params: tuple[Array, Array], X: Array, labels: Array, order: Array, batch: int, rate: float
) -> tuple[Array, Array]:
    """One epoch of plain SGD; W and b change in place. `order` is whole batches."""
    W, b = params
    rows = np.arange(batch)
    x, probs = np.empty((batch, X.shape[1]), X.dtype), np.empty((batch, len(W)), X.dtype)
    step = np.empty_like(W)
    for start in range(0, len(order), batch):
        index = order[start : start + batch]
        np.take(X, index, axis=0, out=x, mode="clip")  # "clip": the only mode without a buffer
        np.matmul(x, W.T, out=probs)
        np.add(probs, b, out=probs)
        numpy_softmax(probs, probs)
        probs[rows, labels[index]] -= 1
        np.multiply(probs, rate / batch, out=probs)
        np.matmul(probs.T, x, out=step)
        np.subtract(W, step, out=W)
        np.subtract(b, probs.sum(axis=0), out=b)
    return W, b


# ---- scikit-learn (and scipy, which comes with it) ----


def sklearn_softmax(x: Array, copy: bool) -> Array:
    from sklearn.utils.extmath import softmax

    return softmax(x, copy=copy)


def scipy_log_softmax(x: Array) -> Array:
    from scipy.special import log_softmax

    return log_softmax(x, axis=1)


def scipy_logsumexp(x: Array) -> Array:
    from scipy.special import logsumexp

    return logsumexp(x, axis=1)


def sklearn_pass(X: Any, labels: Array, W: Array, b: Array, n_threads: int) -> Pass | None:
    """The loss and gradient that LogisticRegression's solvers call; None if it has moved.

    It is private, but it is what every one of its fits spends its time in. X is dense or sparse.
    """
    n_rows = X.shape[0]
    try:
        from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss
        from sklearn.linear_model._linear_loss import LinearModelLoss

        loss = HalfBinomialLoss() if len(W) == 1 else HalfMultinomialLoss(n_classes=len(W))
        model = LinearModelLoss(loss, fit_intercept=True)
    except (ImportError, TypeError):
        return None
    coef = np.asfortranarray(np.column_stack([W, b]))
    coef = coef[0] if len(W) == 1 else coef
    y = labels.astype(X.dtype)

    def run() -> tuple[float, Array, Array]:
        loss, grad = model.loss_gradient(coef, X, y, l2_reg_strength=0.0, n_threads=n_threads)
        grad = np.atleast_2d(grad) * n_rows
        return loss * n_rows, grad[:, :-1], grad[:, -1]

    return run


# ---- torch ----


def torch_cross_entropy(logits: Array, labels: Array) -> Callable[[], tuple[float, Array]]:
    """Mean loss and its gradient by the logits: forward and backward."""
    torch = torch_or_none()
    z = torch.from_numpy(logits).requires_grad_()
    y = torch.from_numpy(labels.astype(np.int64))

    def run() -> tuple[float, Array]:
        loss = torch.nn.functional.cross_entropy(z, y)
        (grad,) = torch.autograd.grad(loss, z)
        return loss.item(), grad.numpy()

    return run


def torch_pass(X: Array, labels: Array, W: Array, b: Array) -> Pass:
    torch = torch_or_none()
    x, loss_of = torch.from_numpy(X), torch_loss(labels, W)
    params = [torch.from_numpy(p).requires_grad_() for p in (W, b)]

    def run() -> tuple[float, Array, Array]:
        loss = loss_of(torch.nn.functional.linear(x, *params))
        grads = torch.autograd.grad(loss, params)
        return loss.item(), *(grad.numpy() for grad in grads)

    return run


def torch_loss(labels: Array, W: Array) -> Callable[[Any], Any]:
    """From logits to the summed loss, of two classes with one logit by the function for that."""
    torch = torch_or_none()
    functional = torch.nn.functional
    if len(W) == 1:
        y = torch.from_numpy(labels.astype(W.dtype))[:, None]
        return lambda z: functional.binary_cross_entropy_with_logits(z, y, reduction="sum")
    y = torch.from_numpy(labels.astype(np.int64))
    return lambda z: functional.cross_entropy(z, y, reduction="sum")


def torch_epoch(
    params: tuple[Array, Array], X: Array, labels: Array, order: Array, batch: int, rate: float
) -> tuple[Array, Array]:
    """One epoch of plain SGD on tensors in memory; W and b change in place.

    index_select and an update by hand: of these, X[index], and nn.Linear with optim.SGD (plain,
    foreach, fused) the quickest by a fifth to a third (torch 2.13, one thread, d = 784, K = 10).
    """
    torch = torch_or_none()
    x, y = torch.from_numpy(X), torch.from_numpy(labels.astype(np.int64))
    rows = torch.from_numpy(order)
    tensors = [torch.from_numpy(p).requires_grad_() for p in params]
    for start in range(0, len(order), batch):
        index = rows[start : start + batch]
        logits = torch.nn.functional.linear(x.index_select(0, index), *tensors)
        loss = torch.nn.functional.cross_entropy(logits, y.index_select(0, index))
        grads = torch.autograd.grad(loss, tensors)
        with torch.no_grad():
            for tensor, grad in zip(tensors, grads, strict=True):
                tensor.sub_(grad, alpha=rate)
    return params


def torch_textbook(
    X: Array, labels: Array, n_classes: int, n_epochs: int, batch: int, rate: float
) -> tuple[Array, Array]:
    """The textbook's training loop as people write it, with the data in memory; returns W and b."""
    torch = torch_or_none()
    torch.manual_seed(0)
    x, y = torch.from_numpy(X), torch.from_numpy(labels.astype(np.int64))
    model = torch.nn.Linear(X.shape[1], n_classes)
    torch.nn.init.normal_(model.weight, std=0.01)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(n_epochs):
        for index in torch.randperm(len(x)).split(batch):
            loss = torch.nn.functional.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.weight.detach().numpy(), model.bias.detach().numpy()
