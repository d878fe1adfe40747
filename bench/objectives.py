"""The objective that everyone's coefficients are judged by, in float64."""

import numpy as np
from problems import Problem
from scipy.special import logsumexp

_CHUNK_NUMBERS = 1 << 22


def objective(
    problem: Problem, C: float, W: np.ndarray, b: np.ndarray, *, input_scale: float = 1.0
) -> float:
    """F(W, b) = mean cross-entropy + ||W||^2 / (2 C n) of rows input_scale * X, in float64.

    W is (K, d) and b (K,); of two classes one row, the logit of class 1 against 0. A few rows at a
    time: nothing as large as X or as the logits is made.
    """
    W, b = np.asarray(W, dtype=np.float64), np.asarray(b, dtype=np.float64)
    (n, d), losses = problem.X.shape, []
    W_T = np.ascontiguousarray(W.T) * input_scale
    step = max(1, _CHUNK_NUMBERS // (max(len(W), 1 if problem.is_sparse else d)))
    for start in range(0, n, step):
        rows = problem.X[start : start + step].astype(np.float64)
        z = rows @ W_T + b
        if len(W) == 1:
            z = np.column_stack([np.zeros(len(z)), z])
        chosen = z[np.arange(len(z)), problem.labels[start : start + step]]
        losses.append(np.sum(logsumexp(z, axis=1) - chosen))
    return float(np.sum(losses) / n + np.sum(W * W) / (2.0 * C * n))
