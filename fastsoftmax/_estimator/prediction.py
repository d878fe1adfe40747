"""What a fitted model says of rows: logits, probabilities, labels, loss and accuracy."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from fastsoftmax._arguments import argument_named
from fastsoftmax._estimator.fitted import FittedEstimator, set_learnt, stored_coef
from fastsoftmax._estimator.given_rows import given_rows
from fastsoftmax._estimator.parts import each_labelled, joined, labelled_parts, weighted_mean
from fastsoftmax._estimator.targets import check_kind, given_targets
from fastsoftmax.arrays import Array
from fastsoftmax.columns import sparsified, whole
from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.foreign_arrays import as_numpy


class Metrics(NamedTuple):
    """Means over rows, as `FastSoftmax.evaluate` returns them."""

    loss: float  # cross-entropy (log-loss), in nats
    accuracy: float  # share of the rows whose label was predicted


class PredictingEstimator(FittedEstimator):
    """The methods of a fitted estimator that predict."""

    @own_arithmetic
    def sparsify(self) -> Self:
        """Convert ``coef_`` to a sparse array, which saves memory if most coefficients are 0.

        This is so after a fit with ``l1_ratio`` > 0. Every method works with a sparse ``coef_``.
        Predictions are a little slower. A new fit makes a dense array.

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
        coef = stored_coef(self)
        if not sparse.issparse(coef):
            set_learnt(self, coef=sparsified(coef))
        return self

    @own_arithmetic
    def densify(self) -> Self:
        """Convert ``coef_`` back to an ndarray, if it is sparse.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self)
        set_learnt(self, coef=whole(self.coef_))
        return self

    @own_arithmetic
    def decision_function(self, X: ArrayLike) -> Array:
        """Logits W x + b, divided by `temperature_`.

        A logit that is too large for the dtype becomes one of the largest numbers of the dtype. The
        order of the logits is kept.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), or rows in parts
            Rows in parts are paths of .npy files, memory maps, a source of
            `fastsoftmax.data_sources`, or batches, as for `fit`. They are read part by part; labels
            in batches are ignored.

        Returns
        -------
        ndarray of shape (n_rows, n_classes), or (n_rows,) for two classes
            float64 if X or `coef_` is float64, otherwise float32. With two classes the log-odds of
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
        logits = joined(X, lambda x: given_rows(self, x).logits())
        return logits if logits.shape[1] > 1 else logits[:, 0]

    @own_arithmetic
    def predict(self, X: ArrayLike) -> Array:
        """Return the most likely class of each row; of equal logits, the first class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), or rows in parts
            Rows in parts are paths of .npy files, memory maps, a source of
            `fastsoftmax.data_sources`, or batches, as for `fit`. They are read part by part; labels
            in batches are ignored.

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
        best = joined(X, lambda x: given_rows(self, x).top(1)[:, 0])
        return np.asarray(self.classes_[best])

    @own_arithmetic
    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities, the softmax of the logits, classes in the order of `classes_`.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), or rows in parts
            Rows in parts are paths of .npy files, memory maps, a source of
            `fastsoftmax.data_sources`, or batches, as for `fit`. They are read part by part; labels
            in batches are ignored.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            float64 if X or `coef_` is float64, otherwise float32.

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
        return joined(X, lambda x: given_rows(self, x).distributions())

    @own_arithmetic
    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Logarithms of the probabilities; they are finite even if a probability rounds to 0.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), or rows in parts
            Rows in parts are paths of .npy files, memory maps, a source of
            `fastsoftmax.data_sources`, or batches, as for `fit`. They are read part by part; labels
            in batches are ignored.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            float64 if X or `coef_` is float64, otherwise float32.

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
        return joined(X, lambda x: given_rows(self, x).distributions(as_log=True))

    @own_arithmetic
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
            Of the dtype of `classes_`. If two logits are equal, the first class comes first.
        probabilities : ndarray of shape (n_rows, k)
            The probabilities of these classes. The dtype is float64 if X or `coef_` is float64,
            otherwise float32.

        Raises
        ------
        TypeError
            If k is not an integer.
        NotFittedError, ValueError
            As `decision_function`. Also a ValueError if k is outside of [1, n_classes].

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
        given = given_rows(self, X)
        try:
            if isinstance(k, bool | np.bool_):  # which Python counts among the integers
                raise TypeError
            n_top = operator.index(k)
        except TypeError:
            raise TypeError(f"k must be an integer, got {k!r}") from None
        if not 1 <= n_top <= len(self.classes_):
            raise ValueError(f"k must lie in [1, {len(self.classes_)}], got {k}")
        probabilities = given.empty(n_top)
        return self.classes_[given.top(n_top, probabilities)], probabilities

    @own_arithmetic
    def evaluate(
        self, X: ArrayLike, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Metrics:
        """Mean log-loss and accuracy, in one pass that makes no array of the size of X.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), or rows in parts
            As for `predict`.
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            True labels; each must be one of `classes_`, unless its row has weight 0. Or
            probabilities of the classes in the order of `classes_` (columns of a frame are matched
            by their names). None only if X is parts that contain the labels.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0 of the rows in both means.

        Returns
        -------
        Metrics
            A named tuple: ``loss``, the mean of -log(probability of the true label) in nats,
            and ``accuracy``, the share of rows whose most likely class is the true one. If y holds
            probabilities, ``loss`` is the mean of -sum_k y_k log(probability of class k),
            and the true class of a row is that of its largest y_k.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`. Also a ValueError if a label is missing or is not one of
            `classes_`, if lengths differ, or if weights are negative, not finite, or all 0.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> X, y = [[0.0], [1.0], [2.0]], ["a", "b", "c"]
        >>> result = FastSoftmax(C=100.0).fit(X, y).evaluate(X, y)
        >>> result.loss < 0.3, result.accuracy
        (True, 1.0)
        """
        parts = labelled_parts(X, y, sample_weight)
        if parts is not None:
            each_one = each_labelled(parts, lambda p: self.evaluate(p.X, p.y, p.sample_weight))
            return Metrics(*weighted_mean(each_one).tolist())
        given = given_rows(self, X)
        shard, total = given.with_targets(y, sample_weight)
        loss, correct = shard.metrics(given.coef, given.intercept, given.model)
        # With one logit a row of -inf has a loss of 0, if class 0 is its true one.
        given.check(math.isfinite(loss) and len(given.coef) > 1)
        return Metrics(loss / total, min(correct / total, 1.0))  # (the sums are rounded)

    @own_arithmetic
    def score(
        self, X: ArrayLike, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Accuracy: the share of rows whose most likely class is the true one.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), or rows in parts
            As for `predict`.
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            True labels, of the same kind as `classes_` (strings, numbers). The prediction of a row
            counts as wrong if its label is not one of `classes_`. Or probabilities, as for
            `evaluate`: the true class of a row is the one of the largest probability. None only if
            X is parts that contain the labels.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0 of the rows.

        Returns
        -------
        float
            As `sklearn.metrics.accuracy_score` of ``predict(X)``.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`. Also a ValueError if y is not an array of labels, or holds
            strings while `classes_` are numbers (or the reverse); if a label is missing; if lengths
            differ; or if weights are negative, not finite, or all 0.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
        >>> clf.score([[0.0], [5.0], [6.0], [7.0]], ["a", "b", "b", "z"])
        0.75
        """
        parts = labelled_parts(X, y, sample_weight)
        if parts is not None:
            each_one = each_labelled(parts, lambda p: self.score(p.X, p.y, p.sample_weight))
            return float(weighted_mean(each_one))
        given = given_rows(self, X)
        found = given_targets(as_numpy(y, "y"))
        if found.columns is not None:
            return self.evaluate(X, y, sample_weight).accuracy
        truth = found.values
        if truth.dtype.kind not in "biuUS":  # of others some are no labels
            check_classification_targets(truth)
        with argument_named("y"):
            check_consistent_length(given.X, truth)
        check_kind(truth, self.classes_)
        hits = self.classes_[given.top(1)[:, 0]] == truth
        if sample_weight is None:
            return float(np.mean(hits))
        sample_weight = as_numpy(sample_weight, "sample_weight")
        with argument_named("sample_weight"):
            row_weights = _check_sample_weight(sample_weight, given.X, dtype=np.float64)
        if not (row_weights.min() >= 0.0 and row_weights.max() > 0.0):
            raise ValueError(
                "sample_weight must be >= 0 and not all 0, got values from "
                f"{row_weights.min()} to {row_weights.max()}"
            )
        return float(np.average(hits, weights=row_weights / row_weights.max()))
