"""What a softmax regression has learnt, apart from any estimator, and what holds of it."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from fastsoftmax.arrays import Array, count_logits


class Fitted(NamedTuple):
    """Labels and coefficients."""

    classes: Array  # (n_classes,)
    coef: Array  # (n_logits, n_features), dense; n_logits is 1 for two classes
    intercept: Array  # (n_logits,)

    @property
    def of_all_classes(self) -> tuple[Array, Array]:
        """(coef, intercept) with a row for each class; of two the first has zeros."""
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


def tempered(model: Any) -> Fitted:
    """Return copies of what a model has learnt, with its temperature in the coefficients."""
    fitted = fitted_of(model)
    temperature = float(getattr(model, "temperature_", 1.0))
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"temperature_ must be finite and > 0, got {temperature}")
    divisor = fitted.coef.dtype.type(temperature)
    return fitted._replace(coef=fitted.coef / divisor, intercept=fitted.intercept / divisor)


def fitted_of(model: Any) -> Fitted:
    """Return copies of what a model has learnt; a ValueError if that is damaged."""
    check_is_fitted(model, ["classes_", "coef_", "intercept_", "n_features_in_"])
    coef = model.coef_.toarray() if sparse.issparse(model.coef_) else np.array(model.coef_)
    classes, intercept = np.array(model.classes_), np.array(model.intercept_)
    fitted = Fitted(classes, np.ascontiguousarray(coef), intercept)
    fitted.check(model.n_features_in_)
    return fitted


def are_label_type(dtype: np.dtype[Any]) -> bool:
    """Whether labels of a dtype are str, bool, integers or floats, not Python objects."""
    return dtype.kind in "biuU" or (dtype.kind == "f" and dtype.itemsize <= 8)


def _check_classes(classes: Array) -> None:
    if classes.ndim != 1 or len(classes) < 2:
        raise ValueError(f"classes_ must hold at least two labels, got the shape {classes.shape}")
    try:
        ascending = bool(np.all(classes[:-1] < classes[1:]))
    except TypeError as error:
        raise ValueError(f"labels in classes_ must be of types with an order: {error}") from error
    if not ascending:  # of NaN nothing is
        raise ValueError("classes_ must be sorted, each label once")
