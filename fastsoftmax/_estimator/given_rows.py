"""Rows to predict and the coefficients of an estimator, as the kernels take them.

X is not searched for NaN and infinities beforehand, which would read all of it once more. They
make the logits of their row non-finite and the kernels report that; only then X is searched. Where
it is finite, the logits have overflowed, and `shards.far_logits` computes those of such rows.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import sparse
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._arguments import argument_named
from fastsoftmax._estimator.features import (
    backend_rows,
    check_finite,
    checked_features,
    in_place,
    is_plain,
    real_type,
)
from fastsoftmax._estimator.fitted import FittedEstimator, stored_coef
from fastsoftmax._estimator.rows import (
    Computing,
    checked_sample_weights,
    computing_of,
    make_shard,
    scaled_to_mean_1,
)
from fastsoftmax._estimator.targets import given_targets, known_targets
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.columns import (
    InColumns,
    few_entries,
    filled_columns,
    in_columns,
    some_columns,
    whole,
)
from fastsoftmax.foreign_arrays import as_numpy
from fastsoftmax.shards.far_logits import FarLogits, Model, blocks, far_logits
from fastsoftmax.shards.shard import Shard


class GivenRows(NamedTuple):
    """Features and coefficients of one number type."""

    # (n_rows, n_features), dense or CSR; may hold what is not finite. Of CSR, and of the
    # coefficients with it, only the columns of `_columns_to_read`.
    X: Any
    rows: Any  # the same as the backend takes it
    coef: Array  # (n_logits, n_features) of the number type to compute in
    intercept: Array  # (n_logits,) of it
    classes: Array
    computing: Computing
    estimator: FittedEstimator  # for errors
    model: Model  # the coefficients as they were learnt, and the temperature
    columns: Array | None  # those of the users' X that X has; None for all

    @property
    def n_rows(self) -> int:
        """Rows of X."""
        return int(self.X.shape[0])

    def empty(self, n_columns: int) -> Array:
        """Room for some real numbers for each row."""
        return np.empty((self.n_rows, n_columns), dtype=self.coef.dtype)

    def part(self, rows: slice) -> Self:
        """Return some of the rows."""
        X = in_place(self.X[rows])
        return self._replace(X=X, rows=backend_rows(X, self.computing.backend))

    def check(self, finite: bool) -> None:
        """Raise an error where logits are not finite because X is not."""
        if not finite:
            check_finite(self.X, self.estimator, self.columns)

    def far(self) -> Iterator[FarLogits]:
        """Yield the logits of rows in which they overflow, where a kernel reported such rows."""
        self.check(False)
        if not self.model.is_valid():  # nothing is known of such logits
            return
        for block in blocks(self.X, len(self.classes)):
            part = self.part(block)
            found = far_logits(
                part.X, part.rows, self.coef, self.intercept, self.model, self.computing
            )
            if found is not None:
                yield found._replace(rows=block.start + found.rows)

    def logits(self) -> Array:
        """(n_rows, n_logits) the logits."""
        backend, n_threads = self.computing
        logits = self.empty(len(self.coef))
        backend.affine_rows(logits, self.rows, self.coef, self.intercept, n_threads=n_threads)
        if not np.isfinite(logits).all():
            for far in self.far():
                logits[far.rows] = far.in_range(logits.dtype)[:, -logits.shape[1] :]
        return logits

    def distributions(self, *, as_log: bool = False) -> Array:
        """(n_rows, n_classes) the probabilities or their logarithms."""
        backend, n_threads = self.computing
        probs = self.empty(len(self.classes))
        finite = backend.predict_rows(
            probs, self.rows, self.coef, self.intercept, as_log, n_threads=n_threads
        )
        if as_log and finite:  # differences of finite logits overflow too
            finite = bool(probs.min(initial=0.0) > -np.inf)
        if not finite:
            for far in self.far():
                found = far.log_probabilities(probs.dtype) if as_log else far.probabilities()
                probs[far.rows] = found
        return probs

    def top(self, n_top: int, probabilities: Array | None = None) -> Array:
        """(n_rows, n_top) the numbers of the likeliest classes."""
        top = np.empty((self.n_rows, n_top), dtype=np.int64)
        learnt = self.coef, self.intercept, len(self.classes)
        finite = self.computing.backend.predict_top(
            top, probabilities, self.rows, *learnt, n_threads=self.computing.n_threads
        )
        if not finite:
            for far in self.far():
                best = far.ranked()[:, :n_top]
                top[far.rows] = best
                if probabilities is not None:
                    probabilities[far.rows] = np.take_along_axis(far.probabilities(), best, axis=1)
        return top

    def with_targets(self, y: Any, sample_weight: Any) -> tuple[Shard, float]:
        """Return the rows with their targets, checked, and the sum of their row weights."""
        given = given_targets(as_numpy(y, "y"))
        with argument_named("y"):
            check_consistent_length(self.X, given.values)
        row_weights = np.ones(self.n_rows, dtype=self.coef.dtype)
        given_weights = None
        if sample_weight is not None:
            given_weights = checked_sample_weights(sample_weight, self.X)
            row_weights, _ = scaled_to_mean_1(given_weights, self.coef.dtype)
        real = self.coef.dtype
        targets = known_targets(given, self.classes, real, row_weights=given_weights)
        shard = make_shard(self.X, targets, row_weights, self.computing)
        return shard, float(row_weights.sum(dtype=np.float64))


def given_rows(estimator: FittedEstimator, X: Any, temperature: float | None = None) -> GivenRows:
    """Check everything except that X is finite; a plain ndarray takes microseconds."""
    fitted = vars(estimator)
    coef = stored_coef(estimator)
    if coef is None:
        check_is_fitted(estimator)
    _check_learnt(estimator, coef)
    known = is_plain(X) and X.shape[1] == fitted.get("n_features_in_")
    if "feature_names_in_" in fitted or not known:
        X = checked_features(estimator, X, finite=False)
    n_logits = count_logits(len(estimator.classes_))
    real = np.result_type(real_type(X.dtype), coef.dtype)
    # (a model that came over a network may lie anywhere in a buffer)
    intercept = np.require(estimator.intercept_, real, ["C", "A"])
    if coef.shape != (n_logits, X.shape[1]) or intercept.shape != (n_logits,):
        raise ValueError(
            f"coef_ and intercept_ must have shapes {(n_logits, X.shape[1])} and "
            f"{(n_logits,)}, got {coef.shape} and {intercept.shape}"
        )
    computing = computing_of(estimator)
    rows = backend_rows(X, computing.backend)  # (checks the indices)
    columns = _columns_to_read(X, coef)
    if columns is None:
        coef = whole(estimator.coef_)  # (made once, where it is kept by columns)
    else:
        given, X = X, some_columns(X, columns, X.dtype)
        if X.nnz < given.indptr[-1] - given.indptr[0]:  # the rest has coefficients of 0
            check_finite(given, estimator)
        coef, rows = in_columns(coef, columns), backend_rows(X, computing.backend)
    coef = np.require(coef, real, ["C", "A"])
    learnt = coef, intercept
    if temperature is None:  # what logits are divided by (models of an earlier version have none)
        temperature = fitted.get("temperature_", 1.0)
    if temperature != 1.0:
        divisor = real.type(temperature)
        if not 0.0 < divisor < math.inf:
            raise ValueError(f"temperature_ must be finite and > 0, got {temperature!r}")
        coef, intercept = coef / divisor, intercept / divisor
    model = Model(*learnt, float(temperature))
    classes = estimator.classes_
    return GivenRows(X, rows, coef, intercept, classes, computing, estimator, model, columns)


def _columns_to_read(X: Any, coef: Any) -> Array | None:
    """Return the columns that X is to be read in; None for all.

    The others have no entries, or coefficients of 0.
    """
    if not sparse.issparse(X) or (isinstance(coef, np.ndarray) and few_entries(X)):
        return None  # (of few entries a kernel finds the coefficients of each in the whole)
    return coef.columns if isinstance(coef, InColumns) else filled_columns(X)


def _check_learnt(estimator: FittedEstimator, coef: Any) -> None:
    """Raise a ValueError without labels and real numbers, which a damaged pickle may lack."""
    learnt = {name: getattr(estimator, name, None) for name in ("classes_", "intercept_")}
    for name, value in (learnt | {"coef_": coef}).items():
        dtype = getattr(value, "dtype", None)
        if dtype is None or (dtype.kind not in "fiub" and name != "classes_"):
            found = "nothing" if dtype is None else f"an array of dtype {dtype}"
            raise ValueError(f"{name} must be an array of what fit has learnt, got {found}")
    if estimator.classes_.ndim != 1:
        raise ValueError(f"classes_ must have one dimension, got {estimator.classes_.ndim}")
