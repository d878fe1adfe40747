"""Rivals over rows in CSR form: scipy and torch. (scikit-learn's pass takes both: rivals.py.)

W is kept d x K, and so is its gradient: scipy's products would copy a matrix that lies otherwise.
"""

import warnings
from typing import Any

import numpy as np
from rivals import Array, Pass, numpy_residuals, numpy_softmax, torch_loss, torch_or_none
from scipy import sparse


def scipy_pass(X: Any, transposed: Any, labels: Array, W: Array, b: Array) -> Pass:
    """Summed loss and gradients; `transposed` is X.T in whatever form the products shall read."""
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
    """One epoch of plain SGD; params, W (d, K) and b, change in place, where a batch has terms."""
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


def torch_pass(X: Any, labels: Array, W: Array, b: Array) -> Pass:
    """The gradient by the logits from autograd, the products by hand, with X.T as CSR.

    With torch 2.13, two threads and 4500 documents the quickest: autograd through the product took
    2.6 times as long, embedding_bag 1.2 times.
    """
    torch = torch_or_none()
    x, transposed = torch_csr(X), torch_csr(X.T.tocsr())
    weights, bias = (torch.from_numpy(np.ascontiguousarray(a)) for a in (W.T, b))
    loss_of = torch_loss(labels, W)

    def run() -> tuple[float, Array, Array]:
        logits = (x @ weights).add_(bias).requires_grad_()
        loss = loss_of(logits)
        (residuals,) = torch.autograd.grad(loss, logits)
        return loss.item(), (transposed @ residuals).numpy().T, residuals.sum(0).numpy()

    return run


def torch_csr(X: Any) -> Any:
    """A tensor that shares the values of a CSR matrix."""
    torch = torch_or_none()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that CSR is in beta
        parts = (torch.from_numpy(part) for part in (X.indptr, X.indices, X.data))
        return torch.sparse_csr_tensor(*parts, size=X.shape)


def torch_epoch(
    params: tuple[Array, Array], X: Any, labels: Array, order: Array, batch: int, rate: float
) -> tuple[Array, Array]:
    """One epoch of plain SGD, as `scipy_epoch`: weighted sums of embeddings, sparse gradients."""
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
