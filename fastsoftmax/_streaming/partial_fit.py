"""Fits to rows as they come: mini-batch steps that go on where the last ones ended."""

import time
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, validate_data

from fastsoftmax._arguments import thread_count
from fastsoftmax._model import inputs
from fastsoftmax._model.prediction import dense_coef
from fastsoftmax._model.soft_targets import are_probabilities, class_weighted, probabilities_of
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.backend import resolve_backend
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards.shard import Shard


def _has_steps(estimator: Any) -> bool:
    """Whether the parameters allow for steps over some rows; otherwise there is no partial_fit."""
    if (estimator.l1_ratio or 0.0) > 0.0 and not np.isinf(estimator.C):
        raise AttributeError("with l1_ratio > 0 there is no partial_fit: its steps have no 1-norm")
    if estimator.standardize or estimator.class_weight == "balanced":
        name = "standardize=True" if estimator.standardize else 'class_weight="balanced"'
        raise AttributeError(f"with {name} there is no partial_fit: that needs all rows at once")
    return True


class StreamingMixin:
    """`partial_fit` of an estimator."""

    # what the estimator has
    C: float
    fit_intercept: bool
    class_weight: dict[Any, float] | str | None
    label_smoothing: float
    standardize: bool
    input_scale: float
    batch_size: int
    learning_rate: float
    momentum: float
    random_state: Any
    n_jobs: int | None
    backend: str
    n_features_in_: int
    classes_: Array
    coef_: Array
    intercept_: Array
    n_iter_: Array

    @available_if(_has_steps)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Take steps of mini-batch gradient descent over these rows, in their order.

        With `learning_rate`, `momentum` and batches of `batch_size` rows (in a smaller last batch
        each row moves the coefficients as much as in the others), whatever `solver` is. The first
        call starts as ``solver="sgd"`` does, or from the coefficients of an earlier `fit`;
        every other goes on where the last one ended, the velocity included, also after pickling.
        The penalty is that of all rows that have been seen, lambda = 1 / (C times the sum of their
        weights): at the end of a stream it is that of a fit to the whole.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
            Never written to. Later calls convert X to the number type of the first.
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            Labels, or probabilities of the classes in their sorted order. A batch may lack classes.
        classes : array-like of shape (n_classes,), optional
            All labels that will occur; needed in the first call.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0, by which a row's gradient is multiplied.

        Returns
        -------
        self
            ``coef_`` and ``intercept_`` are new arrays; ``n_iter_`` counts the calls, ``gap_`` is
            infinite and ``converged_`` False, as nothing is certified.

        Raises
        ------
        ValueError
            If an argument cannot be used: as for `fit`, or `classes` is missing or differs from
            that of the first call; if the steps diverge (the coefficients then remain what they
            were).
        AttributeError
            With standardize=True or class_weight="balanced", which need all rows, and with
            l1_ratio > 0.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> from fastsoftmax.datasets import load_fashion_mnist_sample
        >>> X, y = load_fashion_mnist_sample("train")
        >>> model = FastSoftmax(input_scale=1 / 255, random_state=0)
        >>> for start in range(0, 1000, 250):
        ...     rows = slice(start, start + 250)
        ...     model = model.partial_fit(X[rows], y[rows], classes=range(10))
        >>> model.n_iter_.tolist(), model.score(X, y) > 0.5
        ([4], True)
        """
        self._validate_params()  # type: ignore[attr-defined]
        known = self._known_classes(classes)
        goes_on = hasattr(self, "coef_")
        real = self.coef_.dtype if goes_on else None
        shard, total = rows_of(self, X, y, sample_weight, known, real)
        params = self._coefficients_so_far(shard)
        velocity = getattr(self, "_velocity", None) if goes_on else None
        if self.momentum and velocity is None:
            velocity = np.zeros_like(params)
        seen = total + (getattr(self, "_weight_seen", 0.0) if goes_on else 0.0)
        velocity = velocity.copy() if self.momentum and velocity is not None else None
        start = time.perf_counter()
        loss, correct = take_steps(self, shard, params, velocity, seen)
        if not (np.isfinite(params).all() and np.isfinite(loss)):
            raise ValueError(
                f"partial_fit diverged: learning_rate={self.learning_rate:g} is too large for "
                "these features. Lower it, or scale the features."
            )
        self._keep_steps(known, params, velocity, seen)
        self._note(loss / shard.n_rows, correct / shard.n_rows, time.perf_counter() - start)
        return self

    def _known_classes(self, classes: Any) -> Array:
        """Return the labels of all classes, those of the first call or of an earlier fit."""
        given = None if classes is None else np.unique(np.asarray(classes))
        known: Array | None = getattr(self, "classes_", None)
        if known is None:
            if given is None:
                raise ValueError(
                    "classes must be given in the first call of partial_fit, as later batches may "
                    "hold labels that this one lacks"
                )
            if len(given) < 2:
                raise ValueError(f"classes must hold at least 2 labels, got {classes!r}")
            return given
        if given is not None and not np.array_equal(given, known):
            raise ValueError(f"classes must be those of the first call, {known!r}, got {classes!r}")
        return known

    def _coefficients_so_far(self, shard: Shard) -> Array:
        """Return W and after it b, flat, in a new array."""
        if hasattr(self, "coef_"):
            return np.concatenate([dense_coef(self.coef_).ravel(), self.intercept_])
        return first_coefficients(self, shard)

    def _keep_steps(
        self, classes: Array, params: Array, velocity: Array | None, seen: float
    ) -> None:
        calls = int(self.n_iter_[0]) if hasattr(self, "n_iter_") else 0
        n_logits = count_logits(len(classes))
        n_weights = n_logits * self.n_features_in_
        self.classes_, self.temperature_ = classes, 1.0
        self.coef_ = params[:n_weights].reshape(n_logits, -1).copy()
        self.intercept_ = params[n_weights:].copy()
        self.n_iter_ = np.array([calls + 1], dtype=np.int32)
        self.gap_, self.objective_, self.converged_ = np.inf, np.nan, False
        self._velocity, self._weight_seen = velocity, seen
        for name in ("best_iteration_", "best_score_"):  # of an earlier fit
            vars(self).pop(name, None)

    def _note(self, loss: float, accuracy: float, seconds: float) -> None:
        names = ("loss", "accuracy", "objective", "gap", "seconds", "eval_loss", "eval_accuracy")
        values = (loss, accuracy, None, None, seconds, (), ())
        if not hasattr(self, "history_"):
            self.history_: dict[str, list[Any]] = {name: [] for name in names}
        for name, value in zip(names, values, strict=True):
            self.history_[name].append(value)


def rows_of(
    model: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    classes: Array,
    real: np.dtype[Any] | None,
    *,
    by_class: Array | None = None,
) -> tuple[Shard, float]:
    """(rows of one batch, checked, with their weights as given; the sum of those).

    real is the number type of the batches before; None for the first batch, which decides on it and
    whose features the model notes. by_class holds a weight for each class, instead of the model's
    `class_weight`.
    """
    kept = [
        dtype
        for dtype in inputs.FEATURE_TYPES
        if real is None or inputs.real_of(np.dtype(dtype)) == real
    ]
    options: dict[str, Any] = {"accept_sparse": "csr", "dtype": kept, "reset": real is None}
    labels = probs = None
    if are_probabilities(y):
        X = validate_data(model, X, **options)
        check_consistent_length(X, y)
    else:
        X, y = validate_data(model, X, y, **options)
        labels = inputs.encode_known_labels(y, classes, "y")
    X = inputs.features_of(X)
    if labels is None:
        probs = probabilities_of(y, len(classes), inputs.real_of(X.dtype))
    weights = inputs.sample_weights_of(sample_weight, X)
    if by_class is None and model.class_weight is not None:
        by_class = inputs.class_weights_of(model.class_weight, classes, np.ones(len(classes)))
    if by_class is not None:
        if probs is None:
            weights = weights * by_class[labels]
        else:
            probs, weights = class_weighted(probs, weights, by_class)
            probs = np.ascontiguousarray(probs, dtype=inputs.real_of(X.dtype))
    backend = resolve_backend(model.backend)
    shard = inputs.shard_of(
        X,
        labels,
        probs,
        np.ascontiguousarray(weights, dtype=inputs.real_of(X.dtype)),
        len(classes),
        backend=backend,
        label_smoothing=float(model.label_smoothing),
        n_threads=thread_count(model.n_jobs, backend),
    )
    return shard, float(weights.sum())


def take_steps(
    model: Any, shard: Shard, params: Array, velocity: Array | None, total: float
) -> tuple[float, float]:
    """Take mini-batch steps over rows in their order; params and velocity change in place.

    total is the sum of the weights that the penalty is for. Returns the sums of loss and hits that
    the steps saw.
    """
    return shard.sgd_steps(
        params,
        velocity,
        np.arange(shard.n_rows),
        Descent(
            model.batch_size,
            model.learning_rate,
            model.momentum,
            0.0 if total == 0.0 else inputs.penalty_of(model.C, total),
            model.fit_intercept,
            None
            if model.input_scale == 1.0
            else np.full(shard.n_features, float(model.input_scale) ** 2),
        ),
    )


def first_coefficients(model: Any, like: Shard) -> Array:
    """Return W from N(0, 0.01^2) and b = 0 to begin with, flat, of the number type of the rows."""
    n_logits = count_logits(like.n_classes)
    rng = check_random_state(model.random_state)
    weights = rng.normal(0.0, 0.01, (n_logits, like.n_features)) * model.input_scale
    return np.concatenate([weights.ravel(), np.zeros(n_logits)]).astype(like.real)
