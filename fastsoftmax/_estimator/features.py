"""Users' features, checked and in the form that shards take, without a copy if possible."""

from types import ModuleType
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_consistent_length, validate_data

from fastsoftmax._arguments import features_in_place
from fastsoftmax._estimator.fitted import FittedEstimator
from fastsoftmax._estimator.targets import Given, given_targets

# The number types that X may keep; the first is what any other is converted to.
FEATURE_TYPES = [np.float64, np.float32, np.uint8, np.int8, np.float16]


def real_type(features: np.dtype[Any]) -> np.dtype[Any]:
    """Return the number type to compute in for features of a type."""
    return np.dtype(np.float64 if features == np.float64 else np.float32)


def checked_features(estimator: FittedEstimator, X: Any, *, finite: bool = True) -> Any:
    """Return features as a shard takes them, checked against those of the estimator's fit.

    finite: whether NaN and infinities are refused.
    """
    options = {"accept_sparse": "csr", "dtype": FEATURE_TYPES, "ensure_all_finite": finite}
    return in_place(validate_data(estimator, X, reset=False, **options))


def checked_rows(
    estimator: FittedEstimator,
    X: Any,
    y: Any,
    *,
    reset: bool,
    real: np.dtype[Any] | None = None,
    name: str = "y",
) -> tuple[Any, Given]:
    """(features as a shard takes them, labels or probabilities), a target for each row.

    reset: whether the estimator notes the features, instead of comparing them with those of its
    fit. real: the number type that sums over the rows have to be computed in; None for any. name:
    what errors call y.
    """
    kept = [t for t in FEATURE_TYPES if real is None or real_type(np.dtype(t)) == real]
    options = {"reset": reset, "accept_sparse": "csr", "dtype": kept}
    if y is None:
        validate_data(estimator, X, y, **options)  # raises scikit-learn's error
    X = validate_data(estimator, X, **options)
    given = given_targets(y, name)
    check_consistent_length(X, given.values)
    return in_place(X), given


def in_place(X: Any) -> Any:
    """Return validated features as a shard takes them; a copy only where there is no other way."""
    if not sparse.issparse(X):
        return features_in_place(np.asarray(X))
    real, index = real_type(X.dtype), X.indices.dtype
    if X.indptr.dtype != index or index not in (np.int32, np.int64):
        index = np.dtype(np.int64)
    data = np.require(X.data, real, ["C", "A"])
    indices, indptr = (np.require(part, index, ["C", "A"]) for part in (X.indices, X.indptr))
    if data is X.data and indices is X.indices and indptr is X.indptr:
        return X
    return sparse.csr_array((data, indices, indptr), shape=X.shape)


def backend_rows(X: Any, backend: ModuleType) -> Any:
    """Return features as functions of the backend take them."""
    if sparse.issparse(X):
        return backend.CsrRows(X.data, X.indices, X.indptr, X.shape[1])
    return X
