"""What a fitted `FastSoftmax` says of rows: logits, probabilities, labels, loss and accuracy.

X is not searched for NaN and infinities beforehand, which would read all of it once more: they
make the logits of their row non-finite, the kernels report that, and only then X is searched.
"""

import math
import operator
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import assert_all_finite, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from fastsoftmax._arguments import are_readable, thread_count
from fastsoftmax._model import inputs
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.backend import resolve_backend
from fastsoftmax.shards.shard import Shard


class Metrics(NamedTuple):
    """Means over rows, as `FastSoftmax.evaluate` returns them."""

    loss: float  # cross-entropy (log-loss), in nats
    accuracy: float  # share of the rows whose label was predicted


class _Inputs(NamedTuple):
    """Rows and model as the kernels take them."""

    X: Any  # (n_rows, n_features), dense or CSR; may hold what is not finite
    rows: Any  # the same as the backend takes it
    coef: Array  # (n_logits, n_features) of the number type to compute in
    intercept: Array  # (n_logits,) of it
    n_classes: int
    backend: ModuleType
    n_threads: int

    def empty(self, n_columns: int) -> Array:
        """Room for some real numbers for each row."""
        return np.empty((self.X.shape[0], n_columns), dtype=self.coef.dtype)


def dense_coef(coef: Any) -> Any:
    """Return coefficients that may have been sparsified as an array."""
    return coef.toarray() if sparse.issparse(coef) else coef


class PredictionMixin:
    """The methods of a fitted model."""

    classes_: Array
    coef_: Any
    intercept_: Array
    n_jobs: int | None
    backend: str

    def sparsify(self) -> Self:
        """Convert ``coef_`` to a sparse array, which saves memory where most of it is 0.

        That is so after a fit with ``l1_ratio`` > 0. Every method works with it, predictions a
        little slower; a new fit replaces it.

        Returns
        -------
        self
            ``coef_`` is a `scipy.sparse.csr_array` of the same shape and dtype.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from fastsoftmax import FastSoftmax
        >>> X, y = load_wine(return_X_y=True)
        >>> clf = FastSoftmax(C=0.1, l1_ratio=1.0, standardize=True).fit(X, y).sparsify()
        >>> clf.coef_.shape, clf.coef_.nnz < 20
        ((3, 13), True)
        >>> clf.densify().coef_.shape
        (3, 13)
        """
        check_is_fitted(self)
        if not sparse.issparse(self.coef_):
            self.coef_ = sparse.csr_array(self.coef_)
        return self

    def densify(self) -> Self:
        """Convert ``coef_`` back to an ndarray; without effect where it is one.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self)
        self.coef_ = dense_coef(self.coef_)
        return self

    def decision_function(self, X: ArrayLike) -> Array:
        """Logits W x + b, divided by `temperature_`.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)

        Returns
        -------
        ndarray of shape (n_rows, n_classes), or (n_rows,) for two classes
            float64 where X or `coef_` is, otherwise float32. With two classes the log-odds of
            ``classes_[1]``.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ValueError
            If X is not finite or has another number of features, or if `coef_` and `intercept_` do
            not fit together.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [2.0]], ["a", "b", "c"])
        >>> clf.decision_function([[0.0], [1.0]]).shape
        (2, 3)
        """
        given = self._inputs_for(X)
        logits = given.empty(len(given.coef))
        given.backend.affine_rows(
            logits, given.rows, given.coef, given.intercept, n_threads=given.n_threads
        )
        self._check(given, bool(np.isfinite(logits).all()))
        return logits if logits.shape[1] > 1 else logits[:, 0]

    def predict(self, X: ArrayLike) -> Array:
        """Return the most likely class of each row; of two equal logits that of the first class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)

        Returns
        -------
        ndarray of shape (n_rows,)
            Labels, of the dtype of `classes_`.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
        >>> clf.predict([[0.5], [7.0]]).tolist()
        ['a', 'b']
        """
        best = self._top(self._inputs_for(X), 1)[:, 0]
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities, the softmax of the logits, classes in the order of `classes_`.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            float64 where X or `coef_` is, otherwise float32.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax(tol=1e-10).fit([[-1.0], [1.0]], ["a", "b"])
        >>> clf.predict_proba([[0.0], [9.0]]).round(3).tolist()
        [[0.5, 0.5], [0.002, 0.998]]
        """
        return self._distributions(X, as_log=False)

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Logarithms of the probabilities, finite also where those round to 0.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            float64 where X or `coef_` is, otherwise float32.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax(tol=1e-10).fit([[-1.0], [1.0]], ["a", "b"])
        >>> log_proba = clf.predict_log_proba([[2000.0]])
        >>> bool(log_proba[0, 0] < -1000), float(log_proba[0, 1])
        (True, 0.0)
        """
        return self._distributions(X, as_log=True)

    def predict_topk(self, X: ArrayLike, k: int) -> tuple[Array, Array]:
        """Return the k most likely classes of each row and their probabilities, best first.

        Memory does not grow with n_rows * n_classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        k : int
            In [1, n_classes].

        Returns
        -------
        labels : ndarray of shape (n_rows, k)
            Of the dtype of `classes_`; of two equal logits the first class comes first.
        probabilities : ndarray of shape (n_rows, k)
            Theirs among all classes; float64 where X or `coef_` is, otherwise float32.

        Raises
        ------
        TypeError
            If k is not an integer.
        NotFittedError, ValueError
            As `decision_function`; a ValueError also if k lies outside of [1, n_classes].

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [2.0]], ["a", "b", "c"])
        >>> labels, probabilities = clf.predict_topk([[0.0], [2.0]], 2)
        >>> labels.tolist()
        [['a', 'b'], ['c', 'b']]
        >>> bool((probabilities[:, 0] > probabilities[:, 1]).all())
        True
        """
        given = self._inputs_for(X)
        try:
            if isinstance(k, bool | np.bool_):  # which Python counts among the integers
                raise TypeError
            n_top = operator.index(k)
        except TypeError:
            raise TypeError(f"k must be an integer, got {k!r}") from None
        if not 1 <= n_top <= given.n_classes:
            raise ValueError(f"k must lie in [1, {given.n_classes}], got {k}")
        probabilities = given.empty(n_top)
        return self.classes_[self._top(given, n_top, probabilities)], probabilities

    def evaluate(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Metrics:
        """Mean log-loss and accuracy, in one pass that keeps nothing as large as X or the logits.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        y : array-like of shape (n_rows,)
            True labels, each one of `classes_`.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0 of the rows in both means.

        Returns
        -------
        Metrics
            A named tuple: ``loss``, the mean of -log(probability of the true label) in nats,
            and ``accuracy``, the share of rows whose most likely class is the true one.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`; a ValueError also for a label that is none of `classes_`,
            lengths that differ, and weights that are negative, not finite, or all 0.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> X, y = [[0.0], [1.0], [2.0]], ["a", "b", "c"]
        >>> result = FastSoftmax(C=100.0).fit(X, y).evaluate(X, y)
        >>> result.loss < 0.3, result.accuracy
        (True, 1.0)
        """
        given = self._inputs_for(X)
        shard, total = self._labelled(given, y, sample_weight)
        sums = shard.loss_grad(given.coef, given.intercept, with_grad=False)
        # With one logit a row of -inf has a loss of 0, if class 0 is its true one.
        self._check(given, math.isfinite(sums.loss) and len(given.coef) > 1)
        return Metrics(sums.loss / total, sums.correct / total)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy: the share of rows whose most likely class is the true one.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        y : array-like of shape (n_rows,)
            True labels; one that is none of `classes_` counts as predicted wrong.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0 of the rows.

        Returns
        -------
        float
            As `sklearn.metrics.accuracy_score` of ``predict(X)``.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`; a ValueError also for y that is no array of labels, lengths that
            differ, and weights that are negative, not finite, or all 0.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
        >>> clf.score([[0.0], [5.0], [6.0], [7.0]], ["a", "b", "b", "z"])
        0.75
        """
        given = self._inputs_for(X)
        truth = column_or_1d(y)
        if truth.dtype.kind not in "biuUS":  # of others some are no labels
            check_classification_targets(truth)
        check_consistent_length(given.X, truth)
        hits = self.classes_[self._top(given, 1)[:, 0]] == truth
        if sample_weight is None:
            return float(np.mean(hits))
        weights = _check_sample_weight(sample_weight, given.X, dtype=np.float64)
        if not (weights.min() >= 0.0 and weights.max() > 0.0):
            raise ValueError(
                "sample_weight must be >= 0 and not all 0, got values from "
                f"{weights.min()} to {weights.max()}"
            )
        return float(np.average(hits, weights=weights / weights.max()))

    def _labelled(self, given: _Inputs, y: Any, sample_weight: Any) -> tuple[Shard, float]:
        """(rows with their true labels, checked; the sum of their weights)."""
        labels = inputs.encode_known_labels(y, self.classes_, "y")
        check_consistent_length(given.X, labels)
        weights = np.ones(len(labels), dtype=given.coef.dtype)
        if sample_weight is not None:
            own = inputs.sample_weights_of(sample_weight, given.X)
            weights, _ = inputs.scaled_weights(own, given.coef.dtype)
        options = {"backend": given.backend, "n_threads": given.n_threads}
        shard = inputs.shard_of(given.X, labels, None, weights, given.n_classes, **options)
        return shard, float(weights.sum(dtype=np.float64))

    def _distributions(self, X: ArrayLike, *, as_log: bool) -> Array:
        given = self._inputs_for(X)
        probs = given.empty(given.n_classes)
        finite = given.backend.predict_rows(
            probs, given.rows, given.coef, given.intercept, as_log, n_threads=given.n_threads
        )
        self._check(given, finite)
        return probs

    def _top(self, given: _Inputs, n_top: int, probabilities: Array | None = None) -> Array:
        """Numbers of the likeliest classes, (n_rows, n_top)."""
        top = np.empty((given.X.shape[0], n_top), dtype=np.int64)
        finite = given.backend.predict_top(
            top,
            probabilities,
            given.rows,
            given.coef,
            given.intercept,
            given.n_classes,
            n_threads=given.n_threads,
        )
        self._check(given, finite)
        return top

    def _check(self, given: _Inputs, finite: bool) -> None:
        """Raise scikit-learn's error where the logits are not finite and X is to blame."""
        if not finite:
            assert_all_finite(given.X, estimator_name=type(self).__name__, input_name="X")

    def _inputs_for(self, X: Any, temperature: float | None = None) -> _Inputs:
        """Check everything but that X is finite. What can be read as it is costs microseconds.

        The model is the one at a temperature: `temperature_` for None.
        """
        fitted = vars(self)
        if "coef_" not in fitted:
            check_is_fitted(self)
        _check_learnt(self)
        if not (_is_plain(X, fitted.get("n_features_in_")) and "feature_names_in_" not in fitted):
            X = validate_data(
                self,
                X,
                reset=False,
                accept_sparse="csr",
                dtype=inputs.FEATURE_TYPES,
                ensure_all_finite=False,
            )
            X = inputs.features_of(X)
        n_classes = len(self.classes_)
        n_logits = count_logits(n_classes)
        coef = dense_coef(self.coef_)
        real = np.result_type(inputs.real_of(X.dtype), coef)
        coef = np.ascontiguousarray(coef, dtype=real)
        intercept = np.ascontiguousarray(self.intercept_, dtype=real)
        if coef.shape != (n_logits, X.shape[1]) or intercept.shape != (n_logits,):
            raise ValueError(
                f"coef_ and intercept_ must have shapes {(n_logits, X.shape[1])} and "
                f"{(n_logits,)}, got {coef.shape} and {intercept.shape}"
            )
        if temperature is None:  # (models of an earlier version have none)
            temperature = fitted.get("temperature_", 1.0)
        if temperature != 1.0:
            divisor = real.type(temperature)
            if not 0.0 < divisor < math.inf:
                raise ValueError(f"temperature_ must be finite and > 0, got {temperature!r}")
            coef, intercept = coef / divisor, intercept / divisor
        backend = resolve_backend(self.backend)
        n_threads = thread_count(self.n_jobs, backend)
        rows = inputs.backend_rows(X, backend)
        return _Inputs(X, rows, coef, intercept, n_classes, backend, n_threads)


def _check_learnt(model: Any) -> None:
    """Raise a ValueError unless a model has labels and real numbers: a damaged pickle may not."""
    for name in ("classes_", "coef_", "intercept_"):
        dtype = getattr(getattr(model, name, None), "dtype", None)
        accepted = dtype is not None and (dtype.kind in "fiub" or name == "classes_")
        if not accepted:
            found = "nothing" if dtype is None else f"an array of dtype {dtype}"
            raise ValueError(f"{name} must be an array of what fit has learnt, got {found}")
    if model.classes_.ndim != 1:
        raise ValueError(f"classes_ must have one dimension, got {model.classes_.ndim}")


def _is_plain(X: Any, n_features: Any) -> bool:
    """Whether validate_data would find nothing to convert or refuse, and the kernels can read X."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.shape[1] == n_features
        and len(X) > 0
        and X.dtype.char in "dfeBb"
        and are_readable(X)
    )
