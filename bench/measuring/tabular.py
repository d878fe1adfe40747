"""Tables of numbers as people have them, made up: one builder, and what a kind of table changes.

Labels are drawn from a softmax model of the features, so a fit finds what is there and no more. The
same arguments give the same bits.
"""

from collections.abc import Callable

import numpy as np
from measuring.problems import Problem
from scipy import sparse

ONE_HOT_LEVELS = 10  # columns that a category is coded by
CSR_ROW = 60  # numbers of a sparse row
POSITIVE_LOGIT = -5.0  # of class 1 against 0: about 2 % of the rows are of class 1
Features = np.ndarray | sparse.csr_array


def table(kind: str, n_rows: int, n_features: int, n_classes: int, seed: int = 0) -> Problem:
    """Rows of a kind, float64.

    Parameters
    ----------
    kind : str
        "normal": independent normal(0, 1). "wide" is the same, with few rows of many features.
        "correlated": a quarter as many factors, and a little noise of each feature.
        "raw scales": normal, then each feature has a scale from 0.01 to 1000 and an offset.
        "one-hot": categories of ten levels each.
        "CSR": 60 normal numbers a row, in columns at random.
        "separable": normal; the label is the largest logit, without noise.
        "imbalanced": normal; class 1 is rare.
    n_rows, n_features, n_classes : int
    seed : int
    """
    rng = np.random.default_rng(seed)
    X = FEATURES[kind](rng, n_rows, n_features)
    square = X.power(2) if sparse.issparse(X) else X * X
    # Of unit variance; sparse rows have more features than rows to learn from.
    spread = (3.0 if kind == "CSR" else 1.0) / np.sqrt(square.sum() / n_rows)
    logits = X @ (spread * rng.standard_normal((n_features, n_classes)))
    if kind == "imbalanced":
        logits[:, 1] += POSITIVE_LOGIT
    if kind != "separable":
        logits += rng.gumbel(size=logits.shape)
    if kind == "raw scales":
        X *= 10.0 ** rng.uniform(-2.0, 3.0, n_features)
        X += 10.0 ** rng.uniform(-1.0, 2.0, n_features)
    return Problem(kind, X, logits.argmax(axis=1).astype(np.int32), n_classes)


def _normal(rng: np.random.Generator, n_rows: int, n_features: int) -> Features:
    return rng.standard_normal((n_rows, n_features))


def _correlated(rng: np.random.Generator, n_rows: int, n_features: int) -> Features:
    n_factors = max(2, n_features // 4)
    loadings = rng.standard_normal((n_factors, n_features)) / np.sqrt(n_factors)
    X = rng.standard_normal((n_rows, n_factors)) @ loadings
    X += 0.3 * rng.standard_normal(X.shape)
    return X


def _one_hot(rng: np.random.Generator, n_rows: int, n_features: int) -> Features:
    starts = np.arange(0, n_features, ONE_HOT_LEVELS)
    X = np.zeros((n_rows, n_features))
    levels = rng.integers(ONE_HOT_LEVELS, size=(n_rows, len(starts)))
    X[np.arange(n_rows)[:, None], starts + levels] = 1.0
    return X


def _csr(rng: np.random.Generator, n_rows: int, n_features: int) -> Features:
    columns = rng.integers(n_features, size=n_rows * CSR_ROW, dtype=np.int32)
    starts = np.arange(0, len(columns) + 1, CSR_ROW, dtype=np.int32)
    values = rng.standard_normal(len(columns))
    X = sparse.csr_array((values, columns, starts), shape=(n_rows, n_features))
    X.sum_duplicates()
    return X


FEATURES: dict[str, Callable[[np.random.Generator, int, int], Features]] = {
    "normal": _normal,
    "wide": _normal,
    "correlated": _correlated,
    "raw scales": _normal,
    "one-hot": _one_hot,
    "CSR": _csr,
    "separable": _normal,
    "imbalanced": _normal,
}
