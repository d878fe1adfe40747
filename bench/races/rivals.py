"""The rivals of the kernels: numpy, scipy, scikit-learn and torch, each used well.

Each function does one task and returns its answer. Those that take `out` or `work` write there, so
that all contestants or none pay for new memory. The methods of estimators are in prediction.py.

For rows in CSR form (`scipy_*`, `torch_csr_*`), W and its gradient are stored d x K: scipy's
products would copy a matrix with another layout.
"""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from scipy import sparse

Array = np.ndarray
Pass = Callable[[], tuple[float, Array, Array]]


def torch_or_none() -> ModuleType | None:
    """torch, where it is installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def why_absent(contestant: str) -> str:
    """The reason why a contestant has no part in a race, after its name."""
    if contestant == "torch" and torch_or_none() is None:
        return "torch is not installed"
    return f"{contestant} cannot do this"


# ---- numpy ----
# The rival is not `fastsoftmax.reference`, which is written for accuracy (float64 after the
# products, log1p of the sum of the others). It is numpy written for speed: in the type of the rows,
# in place, with products by BLAS and all of its threads.


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
    """Summed loss and gradients by W and b; the logits are n x K."""
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
    """Summed loss; the logits (n x K) are replaced by its gradient."""
    np.subtract(logits, logits.max(axis=1, keepdims=True), out=logits)
    own = logits[rows, labels]
    np.exp(logits, out=logits)
    sums = logits.sum(axis=1, keepdims=True)
    np.divide(logits, sums, out=logits)
    logits[rows, labels] -= 1
    return float(np.log(sums).sum() - own.sum())


def numpy_pass_by_class(X: Array, labels: Array, W: Array, b: Array) -> Pass:
    """The same with logits K x n: numpy is quicker with long rows, BLAS often slower."""
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
    """One epoch of plain SGD, in place of W and b. `order` holds whole batches."""
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


# ---- scipy ----


def scipy_log_softmax(x: Array) -> Array:
    from scipy.special import log_softmax

    return log_softmax(x, axis=1)


def scipy_logsumexp(x: Array) -> Array:
    from scipy.special import logsumexp

    return logsumexp(x, axis=1)


def scipy_pass(X: Any, transposed: Any, labels: Array, W: Array, b: Array) -> Pass:
    """Summed loss and gradients. `transposed` is X.T as the products shall read it."""
    rows = np.arange(len(labels))
    weights = np.ascontiguousarray(W.T)

    def run() -> tuple[float, Array, Array]:
        probs = X @ weights
        probs += b
        loss = numpy_residuals(probs, rows, labels)
        return loss, (transposed @ probs).T, probs.sum(axis=0)

    return run


def scipy_epoch(
    params: tuple[Array, Array], X: Any, labels: Array, order: Array, batch: int, rate: float
) -> tuple[Array, Array]:
    """One epoch of plain SGD in place of W (d, K) and b; a step changes the batch's features."""
    W, b = params
    rows = np.arange(batch)
    for start in range(0, len(order), batch):
        index = order[start : start + batch]
        x = X[index]
        features, columns = np.unique(x.indices, return_inverse=True)
        x = sparse.csr_array((x.data, columns, x.indptr), shape=(batch, len(features)))
        weights = W[features]
        probs = x @ weights
        probs += b
        numpy_softmax(probs, probs)
        probs[rows, labels[index]] -= 1
        probs *= rate / batch
        weights -= x.T @ probs
        W[features] = weights
        b -= probs.sum(axis=0)
    return W.T, b


# ---- scikit-learn ----


def sklearn_softmax(x: Array, copy: bool) -> Array:
    from sklearn.utils.extmath import softmax

    return softmax(x, copy=copy)


def sklearn_pass(X: Any, labels: Array, W: Array, b: Array, n_threads: int) -> Pass | None:
    """The function that LogisticRegression's solvers call; None if it is not there (it is private).

    Its fits spend their time in it. X is dense or sparse.
    """
    n_rows = X.shape[0]
    try:
        from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss
        from sklearn.linear_model._linear_loss import LinearModelLoss

        loss = HalfBinomialLoss() if len(W) == 1 else HalfMultinomialLoss(n_classes=len(W))
        objective = LinearModelLoss(loss, fit_intercept=True)
    except (ImportError, TypeError):
        return None
    coef = np.asfortranarray(np.column_stack([W, b]))
    coef = coef[0] if len(W) == 1 else coef
    y = labels.astype(X.dtype)

    def run() -> tuple[float, Array, Array]:
        loss, grad = objective.loss_gradient(coef, X, y, l2_reg_strength=0.0, n_threads=n_threads)
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
    """A function of logits: the summed loss. Of two classes with one logit, the binary one."""
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
    """One epoch of plain SGD on tensors in memory, in place of W and b.

    With index_select and an update by hand. X[index], and nn.Linear with optim.SGD (plain, foreach,
    fused) were slower by a fifth to a third (torch 2.13, one thread, d = 784, K = 10).
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
    """The training loop of the textbook, with the data in memory; returns W and b."""
    torch = torch_or_none()
    torch.manual_seed(0)
    x, y = torch.from_numpy(X), torch.from_numpy(labels.astype(np.int64))
    linear = torch.nn.Linear(X.shape[1], n_classes)
    torch.nn.init.normal_(linear.weight, std=0.01)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.SGD(linear.parameters(), lr=rate)
    for _ in range(n_epochs):
        for index in torch.randperm(len(x)).split(batch):
            loss = torch.nn.functional.cross_entropy(linear(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return linear.weight.detach().numpy(), linear.bias.detach().numpy()


def torch_csr_pass(X: Any, labels: Array, W: Array, b: Array) -> Pass:
    """The gradient by the logits from autograd, the products by hand, with X.T as CSR.

    Autograd through the product took 2.6 times as long, embedding_bag 1.2 times (torch 2.13, two
    threads, 4500 documents).
    """
    torch = torch_or_none()
    x, transposed = torch_csr_tensor(X), torch_csr_tensor(X.T.tocsr())
    weights, bias = (torch.from_numpy(np.ascontiguousarray(a)) for a in (W.T, b))
    loss_of = torch_loss(labels, W)

    def run() -> tuple[float, Array, Array]:
        logits = (x @ weights).add_(bias).requires_grad_()
        loss = loss_of(logits)
        (residuals,) = torch.autograd.grad(loss, logits)
        return loss.item(), (transposed @ residuals).numpy().T, residuals.sum(0).numpy()

    return run


def torch_csr_tensor(X: Any) -> Any:
    """A tensor that shares the values of a CSR matrix."""
    torch = torch_or_none()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that CSR is in beta
        parts = (torch.from_numpy(part) for part in (X.indptr, X.indices, X.data))
        return torch.sparse_csr_tensor(*parts, size=X.shape)


def torch_csr_epoch(
    params: tuple[Array, Array], X: Any, labels: Array, order: Array, batch: int, rate: float
) -> tuple[Array, Array]:
    """As `scipy_epoch`: weighted sums of embeddings, sparse gradients."""
    torch = torch_or_none()
    functional = torch.nn.functional
    y = torch.from_numpy(labels.astype(np.int64))
    W, b = (torch.from_numpy(p).requires_grad_() for p in params)
    for start in range(0, len(order), batch):
        index = order[start : start + batch]
        x = X[index]
        terms, starts = (torch.from_numpy(a.astype(np.int64)) for a in (x.indices, x.indptr[:-1]))
        values = torch.from_numpy(x.data)
        logits = functional.embedding_bag(
            terms, W, starts, mode="sum", per_sample_weights=values, sparse=True
        )
        loss = functional.cross_entropy(logits + b, y[torch.from_numpy(index)])
        grad_W, grad_b = torch.autograd.grad(loss, (W, b))
        with torch.no_grad():
            W.add_(grad_W, alpha=-rate)
            b.sub_(grad_b, alpha=rate)
    return params[0].T, params[1]
