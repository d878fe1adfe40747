"""Users' features, checked and in the form that shards take, without a copy if possible."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import _check_n_features, validate_data

from fastsoftmax._arguments import are_readable, argument_named, features_in_place, plain
from fastsoftmax._estimator.fitted import FittedEstimator
from fastsoftmax._estimator.targets import Given, given_targets
from fastsoftmax.arrays import Array
from fastsoftmax.foreign_arrays import as_numpy, frame_array, is_frame

# The number types that X may keep; the first is what any other is converted to.
FEATURE_TYPES: list[Any] = [np.float64, np.float32, np.uint8, np.int8, np.float16]
# float32 holds all integers up to this size.
_EXACT = 1 << 24
# Numbers that are searched for NaN and infinities at a time.
_BLOCK_NUMBERS = 1 << 18


def real_type(features: np.dtype[Any]) -> np.dtype[Any]:
    """Return the number type to compute in for features of a type."""
    return np.dtype(np.float64 if features == np.float64 else np.float32)


def checked_features(estimator: FittedEstimator, X: Any, *, finite: bool = True) -> Any:
    """Return features as a shard takes them, checked against those of the estimator's fit."""
    X = in_place(_validated(estimator, X, reset=False, kept=FEATURE_TYPES))
    if finite:
        check_finite(X, estimator)
    return X


def checked_rows(
    estimator: FittedEstimator,
    X: Any,
    y: Any,
    *,
    reset: bool,  # whether to note the features, instead of comparing them with those of the fit
    real: np.dtype[Any] | None = None,  # that sums over the rows are computed in; None for any
    name: str = "y",  # what errors call y
    finite: bool = True,  # whether to look for NaN and infinities in X
) -> tuple[Any, Given]:
    """(features as a shard takes them, labels or probabilities), a target for each row."""
    kept = [t for t in FEATURE_TYPES if real is None or real_type(np.dtype(t)) == real]
    if y is None:  # raises scikit-learn's error
        validate_data(estimator, X, y, reset=reset, accept_sparse="csr", dtype=kept)
    X = _validated(estimator, X, reset=reset, kept=kept)
    given = given_targets(as_numpy(y, name), name)
    with argument_named(name):
        check_consistent_length(X, given.values)
    X = in_place(X)
    if finite:
        check_finite(X, estimator)
    return X, given


def _validated(estimator: FittedEstimator, X: Any, *, reset: bool, kept: list[Any]) -> Any:
    """Return X, not searched for NaN, as scikit-learn's validation has it in one of some types."""
    if is_plain(X) and X.dtype in kept and "feature_names_in_" not in vars(estimator):
        _check_n_features(estimator, X, reset=reset)
        return X
    # its search for NaN may take an array of the size of X, that of `check_finite` does not
    options = {"accept_sparse": "csr", "dtype": kept, "ensure_all_finite": False}
    with _text_named(X), argument_named("X"):
        stored = stored_features(X)
        if stored is X or not is_frame(X):
            return validate_data(estimator, stored, reset=reset, **options)
        validate_data(estimator, X, reset=reset, skip_check_array=True)  # the names
        if is_plain(stored) and stored.dtype in kept:
            return stored
        return check_array(stored, input_name="X", estimator=estimator, **options)


@contextmanager
def _text_named(X: Any) -> Iterator[None]:
    """Say which column of a frame holds text, and what to do about text."""
    try:
        yield
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        column = f" (column {plain(_text_column(X))!r})" if is_frame(X) else ""
        raise ValueError(
            f"{error}{column}. X must hold numbers: encode text and categories first, for example "
            "by OneHotEncoder or TfidfVectorizer of scikit-learn"
        ) from error


def _text_column(frame: Any) -> Any:
    """Return the name of the first column of a frame that is not of numbers."""
    names = frame.columns if hasattr(frame, "iloc") else getattr(frame, "column_names", None)
    for name in frame.columns if names is None else names:
        try:
            np.asarray(frame[name], dtype=np.float64)
        except (ValueError, TypeError):
            return name
    return None


def is_plain(X: Any) -> bool:
    """Whether `check_array` would find nothing to convert or refuse, and the kernels can read X.

    It takes a tenth of a small fit, mostly to see that an array is no frame of some library.
    """
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.size > 0
        and X.dtype.char in "dfeBb"
        and are_readable(X)
    )


# ---- number types ----


def stored_features(X: Any) -> Any:
    """Return X as an array or a sparse matrix, in the number type in which it is read.

    What has none of `FEATURE_TYPES` but can be brought to one without loss is; everything else is
    as it was, and becomes float64 in validation.
    """
    if is_plain(X):
        return X
    X = as_numpy(X, "X")
    if isinstance(X, np.ma.MaskedArray):
        if np.ma.is_masked(X):
            place = np.argwhere(np.ma.getmaskarray(X))[0].tolist()
            raise ValueError(f"X must not have masked values, got one at [row, column] {place}")
        X = X.data
    if is_frame(X):
        X = frame_array(X, "X", common_type)
    if sparse.issparse(X):
        return _stored_matrix(X)
    if not isinstance(X, np.ndarray):
        return X
    if X.dtype.kind == "b":
        return X.view(np.uint8)
    kept = kept_type(X.dtype)
    swapped = not X.dtype.isnative and kept == X.dtype.newbyteorder("=")
    return np.array(X, dtype=kept) if swapped else X


def kept_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the number type in which dense features of a type are read."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    native = dtype.newbyteorder("=")
    return native if native in FEATURE_TYPES else np.dtype(np.float64)


def common_type(types: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """Return the number type in which the columns of a frame are read together."""
    kept = {kept_type(dtype) for dtype in types}
    if len(kept) == 1:
        return kept.pop()
    return np.dtype(np.float64 if np.dtype(np.float64) in kept else np.float32)


def _stored_matrix(X: Any) -> Any:
    """Return a sparse matrix as float32 where that is exact, else float64; indices as they are."""
    if X.ndim != 2 or X.dtype.kind not in "fbiu" or (X.dtype.char in "df" and X.dtype.isnative):
        return X
    if X.dtype.kind == "b" or X.format in ("lil", "dok"):  # (True twice is True, not 2)
        X = X.tocsr()
    if X.dtype.kind == "f":
        exact = X.dtype.itemsize <= 4
    else:
        exact = X.dtype.itemsize <= 2 or not X.nnz
        exact = exact or bool(X.data.min() >= -_EXACT and X.data.max() <= _EXACT)
    data = X.data.astype(np.float32 if exact else np.float64)
    if X.format in ("csr", "csc"):
        stored = sparse.csr_array if X.format == "csr" else sparse.csc_array
        return stored((data, X.indices, X.indptr), shape=X.shape)
    if X.format == "coo":
        return sparse.coo_array((data, (X.row, X.col)), shape=X.shape)
    return X.astype(data.dtype)


# ---- finite numbers ----


def check_finite(X: Any, estimator: FittedEstimator, columns: Array | None = None) -> None:
    """Raise a ValueError that names the first number of X that is not finite.

    X and columns are as in `not_finite`.
    """
    found = not_finite(X, columns)
    if found is None:
        return
    row, column, value = found
    names = vars(estimator).get("feature_names_in_")
    named = f" ({names[column]!r})" if names is not None and column < len(names) else ""
    what, advice = "infinity", "replace infinite numbers"
    if np.isnan(value):
        what, advice = "NaN", "fill missing values, for example by SimpleImputer of scikit-learn"
    raise ValueError(
        f"Input X contains {what} in row {row}, column {column}{named}. "
        f"{type(estimator).__name__} takes finite numbers only: {advice}, or leave such rows out"
    )


def not_finite(X: Any, columns: Array | None = None) -> tuple[int, int, float] | None:
    """Return row, column and value of the first number that is not finite, or None.

    X is as a shard takes it; columns are those of the users' X that it has, None for all. No array
    of the size of X is made.
    """
    if X.dtype.kind != "f":
        return None
    if not sparse.issparse(X):
        step = max(1, _BLOCK_NUMBERS // max(1, X.shape[1]))
        for start in range(0, len(X), step):
            part = X[start : start + step]
            bad = ~np.isfinite(part)
            if bad.any():
                i, j = np.argwhere(bad)[0]
                return start + int(i), int(j), float(part[i, j])
        return None
    first, last = int(X.indptr[0]), int(X.indptr[-1])
    for start in range(first, last, _BLOCK_NUMBERS):
        bad = ~np.isfinite(X.data[start : min(start + _BLOCK_NUMBERS, last)])
        if bad.any():
            place = start + int(bad.argmax())
            row = int(np.searchsorted(X.indptr, place, side="right")) - 1
            j = int(X.indices[place])
            return row, j if columns is None else int(columns[j]), float(X.data[place])
    return None


# ---- the form that shards take ----


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
    if isinstance(X, np.ndarray):
        return X
    return backend.CsrRows(X.data, X.indices, X.indptr, X.shape[1])
