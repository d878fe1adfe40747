"""How much each row counts: sample weights times class weights, scaled to mean 1."""

import numbers
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from fastsoftmax._estimator.targets import Targets
from fastsoftmax.arrays import Array
from fastsoftmax.foreign_arrays import as_numpy


def checked_sample_weights(sample_weight: Any, X: Any) -> Array:
    """Return a weight for each row of X as float64, ones for None; not to be written to."""
    sample_weight = as_numpy(sample_weight, "sample_weight")
    row_weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if not np.all(row_weights >= 0.0):
        raise ValueError(f"sample_weight must be >= 0, got {row_weights.min()}")
    return np.asarray(row_weights)


def checked_class_weights(class_weight: Any, classes: Array, masses: Array) -> Array:
    """One weight for each class, from a dict or "balanced", as scikit-learn defines them.

    masses are the sums of the row weights of each class.
    """
    if class_weight == "balanced":
        with np.errstate(divide="ignore"):
            balanced = masses.sum() / (len(classes) * masses)
        return np.where(masses > 0.0, balanced, 0.0)
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


def class_weighted(
    targets: Targets, row_weights: Array, class_weights: Array
) -> tuple[Targets, Array]:
    """(targets, row weights) where each class counts by its weight.

    A row of probabilities p_k counts like rows of the classes k with weights p_k, so a class's
    weight is that of its share of the row.
    """
    if targets.labels is not None:
        return targets, row_weights * class_weights[targets.labels]
    shares = targets.probs * class_weights
    sums = shares.sum(axis=1)
    probs = shares / np.where(sums > 0.0, sums, 1.0)[:, np.newaxis]
    return targets._replace(probs=probs), row_weights * sums


def scaled_to_mean_1(row_weights: Array, real: np.dtype[Any]) -> tuple[Array, float]:
    """(row weights of mean 1, in a number type; their sum before that scaling)."""
    largest = float(row_weights.max(initial=0.0))
    if largest == 0.0:
        raise ValueError("sample_weight and class_weight leave no row with a weight above 0")
    scaled = row_weights / largest  # so that no sum overflows
    mean = float(scaled.mean())
    total = mean * len(scaled) * largest
    if not np.isfinite(total):
        raise ValueError("the sum of sample_weight is too large for float64")
    scaled /= mean
    return np.ascontiguousarray(scaled, dtype=real), total
