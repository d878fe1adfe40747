"""What the kernels are raced against: numpy, scikit-learn and torch, each used well.

Each function does one task and returns its answer. Those that take `out` or `work` write there, so
that no contestant pays for fresh memory where another does not.
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
        np.subtract(probs, probs.max(axis=1, keepdims=True), out=probs)
        own = probs[rows, labels]
        np.exp(probs, out=probs)
        sums = probs.sum(axis=1, keepdims=True)
        loss = np.log(sums).sum() - own.sum()
        np.divide(probs, sums, out=probs)
        probs[rows, labels] -= 1
        np.matmul(probs.T, X, out=grad_W)
        return float(loss), grad_W, probs.sum(axis=0)

    return run


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


def numpy_predict_proba(X: Array, W: Array, b: Array) -> Array:
    logits = X @ W.T
    logits += b
    return numpy_softmax(logits, logits)


# ---- scikit-learn (and scipy, which comes with it) ----


def sklearn_softmax(x: Array) -> Array:
    from sklearn.utils.extmath import softmax

    return softmax(x, copy=True)


def scipy_log_softmax(x: Array) -> Array:
    from scipy.special import log_softmax

    return log_softmax(x, axis=1)


def sklearn_pass(X: Array, labels: Array, W: Array, b: Array, n_threads: int) -> Pass | None:
    """The loss and gradient that LogisticRegression's solvers call; None if it has moved.

    It is private, but it is what every one of its fits spends its time in.
    """
    try:
        from sklearn._loss import HalfMultinomialLoss
        from sklearn.linear_model._linear_loss import LinearModelLoss

        model = LinearModelLoss(HalfMultinomialLoss(n_classes=len(W)), fit_intercept=True)
    except (ImportError, TypeError):
        return None
    coef = np.asfortranarray(np.column_stack([W, b]))
    y = labels.astype(X.dtype)

    def run() -> tuple[float, Array, Array]:
        loss, grad = model.loss_gradient(coef, X, y, l2_reg_strength=0.0, n_threads=n_threads)
        return loss * len(X), grad[:, :-1] * len(X), grad[:, -1] * len(X)

    return run


def sklearn_model(W: Array, b: Array) -> Any:
    """A LogisticRegression with given coefficients."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression()
    model.classes_ = np.arange(len(W))
    model.coef_, model.intercept_ = W, b
    model.n_features_in_ = W.shape[1]
    return model


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
    x, y = torch.from_numpy(X), torch.from_numpy(labels.astype(np.int64))
    params = [torch.from_numpy(p).requires_grad_() for p in (W, b)]

    def run() -> tuple[float, Array, Array]:
        logits = torch.nn.functional.linear(x, *params)
        loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
        grads = torch.autograd.grad(loss, params)
        return loss.item(), *(grad.numpy() for grad in grads)

    return run


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


def torch_predict_proba(X: Array, W: Array, b: Array) -> Callable[[], Array]:
    torch = torch_or_none()
    x, weight, bias = (torch.from_numpy(a) for a in (X, W, b))

    def run() -> Array:
        with torch.inference_mode():
            return torch.softmax(torch.nn.functional.linear(x, weight, bias), dim=1).numpy()

    return run
