"""From what users pass to the estimator to what a shard needs: labels, weights, features."""

import numbers
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from fastsoftmax._arguments import features_in_place, thread_count
from fastsoftmax._model.early_stopping import HeldOut, held_out_rows
from fastsoftmax.arrays import Array
from fastsoftmax.backend import resolve_backend
from fastsoftmax.shards.rows import build_shard
from fastsoftmax.shards.shard import Shard

# The dtypes that X may keep; the first is what any other is converted to.
FEATURE_TYPES = [np.float64, np.float32, np.uint8, np.int8, np.float16]

# A finite C is one, though its product with the sum of the weights overflows: without a penalty
# nothing would be certified, and nobody told.
_LEAST_PENALTY = 1e-300


class TrainingRows(NamedTuple):
    """Rows to fit to, checked."""

    shard: Shard  # its weights have mean 1
    total: float  # sum of the weights before that scaling
    classes: Array  # labels of the classes, each of which has rows of a weight above 0
    all_classes: Array  # every label that occurs, sorted
    all_labels: Array  # (n_rows,) class numbers among those
    held_out: HeldOut | None = None  # rows that are not fitted to: their weights are 0

    @property
    def left_out(self) -> Array:
        """Labels of the classes of which all rows have weight 0."""
        if len(self.classes) == len(self.all_classes):
            return self.all_classes[:0]
        return np.setdiff1d(self.all_classes, self.classes)

    @property
    def fitted_to(self) -> Array | None:
        """Numbers of the rows that are fitted to; None where no row is held out."""
        if self.held_out is None:
            return None
        return np.delete(np.arange(self.shard.n_rows), self.held_out.rows)

    @property
    def labels(self) -> Array:
        """(n_rows,) class numbers among `classes`, -1 where the row's class is left out."""
        present = np.isin(self.all_classes, self.classes)
        number = np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
        return np.asarray(number[self.all_labels])


def validated(estimator: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Return what users fit to as arrays, and note its features in the estimator."""
    X, y = validate_data(estimator, X, y, accept_sparse="csr", dtype=FEATURE_TYPES)
    return X, y


def training_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, hold_out: bool = False
) -> TrainingRows:
    """Return validated rows as `class_weight`, `backend` and `n_jobs` of an estimator want them.

    hold_out: whether rows for early stopping are held out, as the estimator wants.
    """
    X = features_of(X)
    all_classes, all_labels = encode_labels(y)
    weights = given = sample_weights_of(sample_weight, X)
    held = held_out_rows(estimator, X, all_labels, weights) if hold_out else None
    if held is not None:
        weights = without(weights, held)
    if estimator.class_weight is not None:
        mass = np.bincount(all_labels, weights, minlength=len(all_classes))
        by_class = class_weights_of(estimator.class_weight, all_classes, mass)[all_labels]
        weights, given = weights * by_class, given * by_class
    weights, total = scaled_weights(weights, real_of(X.dtype))
    classes, labels = without_weightless(all_classes, all_labels, weights)
    backend = resolve_backend(estimator.backend)
    n_threads = thread_count(estimator.n_jobs, backend)
    options = {
        "backend": backend,
        "n_threads": n_threads,
        "label_smoothing": float(getattr(estimator, "label_smoothing", 0.0)),
    }
    shard = shard_of(X, labels, None, weights, len(classes), **options)
    held_out = None if held is None else HeldOut(held, given[held], labels[held], None)
    return TrainingRows(shard, total, classes, all_classes, all_labels, held_out)


def without(weights: Array, rows: Array) -> Array:
    """Return the weights with 0 for some rows."""
    left = weights.copy()
    left[rows] = 0.0
    return left


def penalty_of(C: float, total: float) -> float:
    """Return 1 / (C times the sum of the weights), 0 only where C is infinite."""
    if np.isinf(C):
        return 0.0
    share = float(C) * total
    penalty = 1.0 / share if share > 0.0 else np.inf
    penalty = max(penalty, _LEAST_PENALTY)
    if np.isinf(penalty):
        raise ValueError(f"C={C} is too small for weights with a sum of {total:g}: raise C")
    return penalty


def real_of(features: np.dtype[Any]) -> np.dtype[Any]:
    """Return the number type to compute in for features of a type."""
    return np.dtype(np.float64 if features == np.float64 else np.float32)


def features_of(X: Any) -> Any:
    """Return validated features as a shard takes them; a copy only where there is no other way."""
    if not sparse.issparse(X):
        return features_in_place(np.asarray(X))
    real, index = real_of(X.dtype), X.indices.dtype
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


def shard_of(X: Any, *targets: Any, **options: Any) -> Shard:
    """Return a shard of X, dense or CSR; arguments as of `Shard`."""
    return build_shard(X, *targets, **options)


def encode_labels(y: Any) -> tuple[Array, Array]:
    """(classes, sorted; class number of each row as int32)."""
    if type(y) is not np.ndarray or y.ndim != 1:
        y = column_or_1d(y, warn=True)
    plain = y.dtype.kind in "biu"  # labels, whatever they are: the check takes 0.1 ms
    if not plain:
        check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    if plain and 2 * len(classes) > len(y):
        check_classification_targets(y)  # warns of that
    if len(classes) < 2:
        raise ValueError(
            "y must hold at least 2 classes: this classifier needs samples of at least two, but "
            f"the data contains only one class: {classes[0]!r}"
        )
    return classes, labels.reshape(-1).astype(np.int32)


def encode_known_labels(y: Any, classes: Array, name: str, left_out: Array | None = None) -> Array:
    """Class numbers of labels that must be among `classes`, as int32.

    left_out: labels that are none because all their rows have weight 0, which the error tells.
    """
    y = column_or_1d(y, warn=True)
    position: Array = np.clip(np.searchsorted(classes, y), 0, len(classes) - 1)
    unknown = classes[position] != y
    if unknown.any():
        label = y[unknown][0]
        if left_out is not None and (left_out == label).any():
            raise ValueError(
                f"{name} holds a label that the fit leaves out, as all rows of it have weight 0: "
                f"{label!r}"
            )
        raise ValueError(f"{name} holds a label that is none of the classes: {label!r}")
    return position.astype(np.int32)


def sample_weights_of(sample_weight: Any, X: Any) -> Array:
    """Return the weights of the rows as float64, ones for None; not to be written to."""
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if not np.all(weights >= 0.0):
        raise ValueError(f"sample_weight must be >= 0, got {weights.min()}")
    return np.asarray(weights)


def class_weighted(weights: Array, class_weight: Any, classes: Array, labels: Array) -> Array:
    """Return the weights of the rows times those of their classes."""
    if class_weight is None:
        return weights
    mass = np.bincount(labels, weights, minlength=len(classes))
    return weights * class_weights_of(class_weight, classes, mass)[labels]


def scaled_weights(weights: Array, real: np.dtype[Any]) -> tuple[Array, float]:
    """(weights of mean 1, in a number type; the sum before that scaling)."""
    largest = float(weights.max(initial=0.0))
    if largest == 0.0:
        raise ValueError("sample_weight and class_weight leave no row with a weight above 0")
    scaled = weights / largest  # so that no sum overflows
    mean = float(scaled.mean())
    total = mean * len(scaled) * largest
    if not np.isfinite(total):
        raise ValueError("the sum of sample_weight is too large for float64")
    scaled /= mean
    return np.ascontiguousarray(scaled, dtype=real), total


def callables(callbacks: Any) -> list[Any]:
    """Return the callbacks in a list, checked."""
    if callbacks is None:
        return []
    if isinstance(callbacks, Iterable):
        found = list(callbacks)
        if all(map(callable, found)):
            return found
    raise TypeError(f"callbacks must be an iterable of callables, got {callbacks!r}")


def without_weightless(classes: Array, labels: Array, weights: Array) -> tuple[Array, Array]:
    """Drop the classes of which every row has weight 0, as if those rows had been removed.

    Returns the classes left and the class numbers of the rows (of a dropped class: 0, at weight 0).
    """
    present = np.bincount(labels, weights, minlength=len(classes)) > 0.0
    if present.all():
        return classes, labels
    if present.sum() < 2:
        raise ValueError(
            "y must hold at least 2 classes with a weight above 0: sample_weight and class_weight "
            f"leave only one class: {classes[present][0]!r}"
        )
    numbers_left = np.where(present, np.cumsum(present) - 1, 0).astype(np.int32)
    return classes[present], numbers_left[labels]


def class_weights_of(class_weight: Any, classes: Array, mass: Array) -> Array:
    """One weight for each class, from a dict or "balanced", as scikit-learn defines them.

    mass is the sum of the weights of each class's rows.
    """
    if class_weight == "balanced":
        with np.errstate(divide="ignore"):
            balanced = mass.sum() / (len(classes) * mass)
        return np.where(mass > 0.0, balanced, 0.0)
    known = {label: k for k, label in enumerate(classes.tolist())}
    result = np.ones(len(classes))
    unknown = [label for label in class_weight if label not in known]
    if unknown and len(class_weight) - len(unknown) < len(classes):  # one may stand for another
        raise ValueError(
            f"class_weight names classes that y does not hold ({unknown}), and not all that it does"
        )
    for label, weight in class_weight.items():
        if not (isinstance(weight, numbers.Real) and 0.0 <= float(weight) < np.inf):
            raise ValueError(f"class_weight must hold numbers >= 0, got {weight!r} for {label!r}")
        if label in known:
            result[known[label]] = float(weight)
    return result


def eval_shard(
    X: Any,
    labels: Array | None,
    like: Shard,
    *,
    probs: Array | None = None,
    weights: Array | None = None,
) -> Shard:
    """Rows to evaluate a fit on, with labels or probabilities; without weights each counts 1."""
    if weights is None:
        weights = np.ones(X.shape[0])
    return shard_of(
        X,
        labels,
        probs,
        scaled_weights(weights, like.real)[0],
        like.n_classes,
        backend=like.backend,
        n_threads=like.n_threads,
    )


def held_out_shard(held: HeldOut, like: Shard) -> Shard:
    """Return a copy of the rows that were held out of a shard."""
    probs = None if held.probs is None else np.ascontiguousarray(held.probs, dtype=like.real)
    X = features_of(like.X[held.rows])
    return eval_shard(X, held.labels, like, probs=probs, weights=held.weights)
