"""Decisions about rows: by costs, with a reject option, and by calibrated probabilities."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax._estimator.costs import costs_of, labels_of
from fastsoftmax._estimator.fitted import set_learnt
from fastsoftmax._estimator.given_rows import given_rows
from fastsoftmax._estimator.prediction import PredictingEstimator
from fastsoftmax._estimator.temperature import best_temperature
from fastsoftmax.arrays import Array
from fastsoftmax.floating_point import own_arithmetic

# Probabilities or expected costs that are held at a time.
_BLOCK_NUMBERS = 1 << 18


class DecidingEstimator(PredictingEstimator):
    """The methods of a fitted model that decide by its probabilities, and calibrate them."""

    @overload
    def predict_cost_sensitive(
        self,
        X: ArrayLike,
        cost: Any,
        *,
        decisions: ArrayLike | None = None,
        return_cost: Literal[False] = False,
    ) -> Array: ...

    @overload
    def predict_cost_sensitive(
        self,
        X: ArrayLike,
        cost: Any,
        *,
        decisions: ArrayLike | None = None,
        return_cost: Literal[True],
    ) -> tuple[Array, Array]: ...

    @own_arithmetic
    def predict_cost_sensitive(
        self,
        X: ArrayLike,
        cost: Any,
        *,
        decisions: ArrayLike | None = None,
        return_cost: bool = False,
    ) -> Array | tuple[Array, Array]:
        r"""Return the decision of the least expected cost for each row.

        .. math:: \arg\min_j \sum_i P(\text{class } i \mid x)\; cost_{ij}

        If the costs are 0 for the correct class and 1 otherwise, the result is that of `predict`. A
        decision need not be a class: with one more column, "ask a human", of equal costs for all
        classes, the model asks if every other decision has a higher expected cost. Memory does not
        grow with n_rows * n_classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        cost : array-like of shape (n_classes, n_decisions), pandas.DataFrame or dict
            ``cost[i, j]`` is the cost of decision j if the true class is ``classes_[i]`` (rows are
            true classes, as in scikit-learn's `confusion_matrix`). Costs are finite; a gain is
            negative. The index of a frame holds the classes, in any order, and its columns are the
            names of the decisions. In a dict, ``{class: {decision: cost}}``, the keys are these
            names.
        decisions : array-like of shape (n_decisions,), optional
            The names of an array's columns; by default the classes in the order of `classes_`.
            Names of several types (numbers and strings) are kept as objects.
        return_cost : bool, default=False
            Whether to return the expected costs too.

        Returns
        -------
        decided : ndarray of shape (n_rows,)
            Of the dtype of `decisions` or `classes_`. If expected costs are equal, it is the first
            of the decisions.
        expected_cost : ndarray of shape (n_rows,), float64
            The expected cost of this decision. Only with ``return_cost=True``.

        Raises
        ------
        TypeError
            If cost does not hold real numbers.
        NotFittedError, ValueError
            As `decision_function`. Also a ValueError if cost has another shape, is not finite or
            lacks a row of a class, or if decisions do not fit.

        References
        ----------
        Elkan, C. (2001). The foundations of cost-sensitive learning. IJCAI.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [2.0], [3.0]], ["well", "well", "ill", "ill"])
        >>> X = [[0.0], [1.4], [3.0]]
        >>> clf.predict(X).tolist()
        ['well', 'well', 'ill']
        >>> costs = {"well": {"well": 0, "ill": 1}, "ill": {"well": 9, "ill": 0}}
        >>> clf.predict_cost_sensitive(X, costs).tolist()
        ['ill', 'ill', 'ill']
        >>> costs["well"]["test"] = costs["ill"]["test"] = 0.5
        >>> clf.predict_cost_sensitive(X, costs).tolist()
        ['test', 'test', 'ill']
        """
        given = given_rows(self, X)
        table, labels = costs_of(cost, decisions, self.classes_)
        # The rows of `extra` are the decisions' costs minus the least cost of each class; its last
        # row is that least cost. A large cost that all decisions share would hide their differences
        # in rounding.
        least = table.min(axis=1)
        with np.errstate(over="ignore"):
            extra = np.ascontiguousarray(np.vstack([(table - least[:, np.newaxis]).T, least]))
        if not np.isfinite(extra).all():
            raise ValueError("cost holds numbers whose differences are too large for float64")
        best = np.empty(given.n_rows, dtype=np.intp)
        expected_cost = np.empty(given.n_rows)
        backend, n_threads = given.computing
        size = max(1, _BLOCK_NUMBERS // max(len(self.classes_), len(extra)))
        for start in range(0, given.n_rows, size):
            rows = slice(start, start + size)
            probs = given.part(rows).distributions().astype(np.float64, copy=False)
            costs = np.empty((len(probs), len(extra)))
            backend.affine_rows(costs, probs, extra, np.zeros(len(extra)), n_threads=n_threads)
            if not np.isfinite(costs).all():
                raise ValueError("expected costs are not finite: logits or costs are too large")
            best[rows] = costs[:, :-1].argmin(axis=1)
            expected_cost[rows] = costs[:, :-1].min(axis=1) + costs[:, -1]
        return (labels[best], expected_cost) if return_cost else labels[best]

    @own_arithmetic
    def predict_with_reject(
        self, X: ArrayLike, threshold: float, *, reject_label: Any = None
    ) -> Array:
        """Return the most likely class of each row, or `reject_label` if it is too unlikely.

        This is Chow's rule. Of all rules that reject the same number of rows it makes the fewest
        errors, if the probabilities are right. If an error costs 1 and a rejection costs r, the
        best threshold is 1 - r. For other costs see `predict_cost_sensitive`.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        threshold : float
            In [0, 1]: a row is rejected if the probability of its most likely class is below this.
            With at most 1 / n_classes nothing is rejected.
        reject_label : object, default=None
            The result for rejected rows; a scalar that is none of the classes.

        Returns
        -------
        ndarray of shape (n_rows,)
            Of a dtype that can hold the classes and reject_label: integers with -1, strings with
            "unknown", objects with None.

        Raises
        ------
        TypeError
            If threshold is not a number.
        NotFittedError, ValueError
            As `decision_function`. Also a ValueError if threshold is outside of [0, 1], or
            reject_label is one of `classes_`.

        References
        ----------
        Chow, C. K. (1970). On optimum recognition error and reject tradeoff. IEEE Transactions on
        Information Theory 16(1).

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax(C=10.0).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> clf.predict_with_reject([[0.0], [1.4], [3.0]], 0.9, reject_label=-1).tolist()
        [0, -1, 1]
        """
        given = given_rows(self, X)
        try:
            inside = bool(0.0 <= threshold <= 1.0)
        except (TypeError, ValueError):
            raise TypeError(f"threshold must be a number in [0, 1], got {threshold!r}") from None
        if not inside:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold!r}")
        if np.ndim(reject_label):
            raise ValueError(f"reject_label must be a scalar, got {reject_label!r}")
        if reject_label in list(self.classes_):
            raise ValueError(f"reject_label must be none of the classes, got {reject_label!r}")
        labels = labels_of([*self.classes_, reject_label])
        labels = labels.astype(np.result_type(labels, self.classes_), copy=False)
        probability = given.empty(1)
        best = given.top(1, probability)[:, 0]
        best[~(probability[:, 0] >= float(threshold))] = len(self.classes_)
        return labels[best]

    @own_arithmetic
    def calibrate_temperature(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        r"""Find the temperature at which the probabilities fit held-out rows best.

        Sets ``temperature_`` to the T that minimises the mean cross-entropy of

        .. math:: \mathrm{softmax}\bigl((W x + b) / T\bigr)

        over rows that the model was not fitted to. T is above 1 for a model whose probabilities are
        too confident. From then on every method divides the logits by T. ``coef_``, ``intercept_``
        and the most likely classes do not change. `fit` and `partial_fit` reset ``temperature_`` to
        1; you may set it to 1 too.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
            Rows that the fit has not seen; they are read about ten times.
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            True labels, each one of `classes_`, or probabilities, as for `evaluate`.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0 of the rows.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, ValueError
            As `evaluate`.

        Warns
        -----
        ConvergenceWarning
            If the best temperature is 0 (the label of every row has the largest logit) or infinite
            (the logits are no better than chance). ``temperature_`` is then a power of 4, chosen so
            that a more extreme temperature, by a factor e, changes the mean loss by less than 1e-6
            log(n_classes).

        Notes
        -----
        The loss is convex in 1 / T. Its derivative is computed by the pass that fits use, which
        stores no array of the size of the logits. An earlier ``temperature_`` has no effect.
        scikit-learn's ``CalibratedClassifierCV(FrozenEstimator(model), method="temperature")``
        gives the same probabilities.

        References
        ----------
        Guo, C., Pleiss, G., Sun, Y. & Weinberger, K. Q. (2017). On calibration of modern neural
        networks. ICML. Section 4.2.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> from fastsoftmax.datasets import load_fashion_mnist_sample
        >>> X, y = load_fashion_mnist_sample("train")
        >>> model = FastSoftmax(input_scale=1 / 255).fit(X[:700], y[:700])
        >>> before = model.evaluate(X[700:], y[700:])
        >>> after = model.calibrate_temperature(X[700:], y[700:]).evaluate(X[700:], y[700:])
        >>> model.temperature_ > 1.1, after.loss < before.loss, after.accuracy == before.accuracy
        (True, True, True)
        """
        given = given_rows(self, X, temperature=1.0)
        shard, total = given.with_targets(y, sample_weight)
        coef, intercept = given.coef.astype(np.float64), given.intercept.astype(np.float64)

        def slope_at(beta: float) -> float:
            with np.errstate(over="ignore"):
                sums = shard.loss_grad(beta * coef, beta * intercept)
            slope = float(np.vdot(sums.grad_weights, coef) + sums.grad_bias @ intercept) / total
            if not (math.isfinite(sums.loss) and math.isfinite(slope)):
                rows = [row for far in given.far() for row in far.rows.tolist()]
                named = f"of row {rows[0]} of X " if rows else ""
                raise ValueError(
                    f"the logits {named}are too large for a temperature to be found: leave out "
                    "rows with numbers that stand for missing ones, or scale the features"
                )
            return slope

        tolerance = 1e-12 if given.coef.dtype == np.float64 else 1e-6
        temperature, reason = best_temperature(slope_at, len(self.classes_), tolerance)
        set_learnt(self, temperature=temperature)
        if reason:
            warnings.warn(
                f"calibrate_temperature: {reason} temperature_ is {temperature:g}",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self
