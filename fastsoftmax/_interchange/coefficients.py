"""What a softmax regression has learnt, apart from any estimator, and how it is checked."""

from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._estimator.fitted import FittedEstimator, dense_coef
from fastsoftmax.arrays import Array, count_logits


class Coefficients(NamedTuple):
    """Labels and coefficients."""

    classes: Array  # (n_classes,)
    coef: Array  # (n_logits, n_features), dense; n_logits is 1 for two classes
    intercept: Array  # (n_logits,)

    @property
    def of_all_classes(self) -> tuple[Array, Array]:
        """(coef, intercept) with a row for each class; of two classes the first has zeros."""
        if len(self.classes) > 2:
            return self.coef, self.intercept
        return (
            np.concatenate([np.zeros_like(self.coef), self.coef]),
            np.append(np.zeros_like(self.intercept), self.intercept),
        )

    def check(self, n_features: int) -> None:
        """Raise a ValueError unless the parts fit together and are finite."""
        _check_classes(self.classes)
        coef, intercept = self.coef, self.intercept
        reals = (np.dtype(np.float32), np.dtype(np.float64))
        if coef.dtype not in reals or intercept.dtype != coef.dtype:
            raise ValueError(
                "coef_ and intercept_ must both be float32 or both float64, "
                f"got {coef.dtype} and {intercept.dtype}"
            )
        n_logits = count_logits(len(self.classes))
        shapes = (n_logits, n_features), (n_logits,)
        if (coef.shape, intercept.shape) != shapes:
            raise ValueError(
                f"coef_ and intercept_ must have shapes {shapes[0]} and {shapes[1]}, "
                f"got {coef.shape} and {intercept.shape}"
            )
        for name, array in (("coef_", coef), ("intercept_", intercept)):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")


def coefficients_of(estimator: FittedEstimator) -> Coefficients:
    """Return copies of what an estimator has learnt; a ValueError if that is damaged."""
    check_is_fitted(estimator, ["classes_", "coef_", "intercept_", "n_features_in_"])
    coef = np.array(dense_coef(estimator.coef_), order="C")
    found = Coefficients(np.array(estimator.classes_), coef, np.array(estimator.intercept_))
    found.check(estimator.n_features_in_)
    return found


def tempered_coefficients_of(estimator: FittedEstimator) -> Coefficients:
    """Return copies of what an estimator has learnt, with its temperature in the coefficients."""
    found = coefficients_of(estimator)
    temperature = float(getattr(estimator, "temperature_", 1.0))
    check_temperature(temperature)
    divisor = found.coef.dtype.type(temperature)
    return found._replace(coef=found.coef / divisor, intercept=found.intercept / divisor)


def check_temperature(temperature: float) -> None:
    """Raise a ValueError unless logits can be divided by it."""
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"temperature_ must be finite and > 0, got {temperature}")


def _check_classes(classes: Array) -> None:
    if classes.ndim != 1 or len(classes) < 2:
        raise ValueError(f"classes_ must hold at least two labels, got the shape {classes.shape}")
    try:
        ascending = bool(np.all(classes[:-1] < classes[1:]))
    except TypeError as error:
        raise ValueError(f"labels in classes_ must be of types with an order: {error}") from error
    if not ascending:  # of NaN nothing is
        raise ValueError("classes_ must be sorted, each label once")
