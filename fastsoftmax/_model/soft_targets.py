"""Rows whose targets are probabilities of the classes instead of labels."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, validate_data

from fastsoftmax._arguments import targets_of, thread_count
from fastsoftmax._model import inputs
from fastsoftmax._model.early_stopping import HeldOut, held_out_rows
from fastsoftmax.arrays import Array
from fastsoftmax.backend import resolve_backend


def are_probabilities(y: Any) -> bool:
    """Whether y has a column for each class; one column alone is labels that stand upright."""
    try:
        shape = np.asarray(y).shape
    except ValueError:  # rows of different lengths
        return False
    return len(shape) == 2 and shape[1] > 1


def probabilities_of(y: Any, n_classes: int, real: np.dtype[Any]) -> Array:
    """Return y of shape (n_rows, n_classes), checked, in a number type."""
    y = np.asarray(y)
    if y.shape[1] != n_classes:
        raise ValueError(f"y must have a column for each of {n_classes} classes, got {y.shape}")
    try:
        probs = targets_of(y, len(y), n_classes, real)[1]
    except ValueError as error:
        raise ValueError(
            f"y of shape {y.shape} must hold probabilities of the classes (labels are 1d): {error}"
        ) from error
    assert probs is not None
    return probs


def training_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, classes: Any, *, hold_out: bool = False
) -> inputs.TrainingRows:
    """Return rows to fit to, checked; X is noted in the estimator.

    A row with probabilities p_k counts like rows of the classes k with weights p_k, so a class's
    weight is that of its share of the row. hold_out as in `inputs.training_rows`.
    """
    X = validate_data(estimator, X, accept_sparse="csr", dtype=inputs.FEATURE_TYPES)
    check_consistent_length(X, y)
    X, y = inputs.features_of(X), np.asarray(y)
    labels = _labels(classes, y.shape[1])
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    probs = probabilities_of(y, len(labels), np.dtype(np.float64))[:, order]
    weights = inputs.sample_weights_of(sample_weight, X)
    probs = probs / probs.sum(axis=1, keepdims=True)
    given = weights
    held = None
    if hold_out:
        held = held_out_rows(estimator, X, probs.argmax(axis=1), weights, probs)
    if held is not None:
        weights = inputs.without(weights, held)
    if estimator.class_weight is not None:
        by_class = inputs.class_weights_of(estimator.class_weight, labels, weights @ probs)
        given = given * (probs @ by_class)
        probs, weights = class_weighted(probs, weights, by_class)
    held_out = None if held is None else HeldOut(held, given[held], None, probs[held])
    real = inputs.real_of(X.dtype)
    weights, total = inputs.scaled_weights(weights, real)
    absent = np.flatnonzero(weights @ probs == 0.0)
    if absent.size and estimator.label_smoothing == 0.0:
        raise ValueError(
            "y must give every class a probability above 0 in a row with a weight above 0, "
            f"but gives none to class {labels[absent].tolist()[0]!r}: leave its column out"
        )
    backend = resolve_backend(estimator.backend)
    shard = inputs.shard_of(
        X,
        None,
        np.ascontiguousarray(probs, dtype=real),
        weights,
        len(labels),
        backend=backend,
        label_smoothing=float(estimator.label_smoothing),
        n_threads=thread_count(estimator.n_jobs, backend),
    )
    return inputs.TrainingRows(shard, total, labels, labels, probs.argmax(axis=1), held_out)


def class_weighted(probs: Array, weights: Array, by_class: Array) -> tuple[Array, Array]:
    """(probabilities, weights of the rows) where each class counts by its weight, as new arrays."""
    weighted = probs * by_class
    sums = weighted.sum(axis=1)
    return weighted / np.where(sums > 0.0, sums, 1.0)[:, np.newaxis], weights * sums


def _labels(classes: Any, n_classes: int) -> Array:
    """Return the labels of the columns of y."""
    if classes is None:
        return np.arange(n_classes)
    labels = np.asarray(classes)
    if labels.shape != (n_classes,):
        raise ValueError(
            f"classes must have a label for each of the {n_classes} columns of y, got {classes!r}"
        )
    if len(np.unique(labels)) < n_classes:
        raise ValueError(f"classes must be different from each other, got {classes!r}")
    return labels
