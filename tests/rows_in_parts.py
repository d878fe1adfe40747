"""Small problems whose rows come in parts: files, batches, partitions."""

import numpy as np
from scipy import sparse

N, D, K = 400, 12, 3
PARTS = [slice(0, 150), slice(150, 151), slice(151, 400)]


def form_of(storage):
    """How features are stored, a number type or "csr": a function of float64 features."""
    if storage == "csr":
        return lambda X: sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0.0))
    if np.dtype(storage).kind == "f":
        return lambda X: X.astype(storage)
    return lambda X: np.round(20 * X + 60).astype(storage)


def made_rows(rng):
    """Features whose columns differ and are correlated, labels, weights."""
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) / 4
    y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))).argmax(axis=1)
    return np.clip(X, -3, 3), y, rng.uniform(0.5, 2.0, N)


def cut(*arrays):
    """The parts of arrays, as tuples."""
    return [tuple(array[part] for array in arrays) for part in PARTS]
