"""What a softmax regression has learnt, and how files hold its coefficients."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.columns import InColumns, stored_numbers

# Most features that kernels take.
_MOST_FEATURES = 2**31 - 1


class Coefficients(NamedTuple):
    """What a softmax regression has learnt, apart from any estimator."""

    classes: Array  # (n_classes,)
    coef: Any  # (n_logits, n_features) in any form of `columns`; n_logits is 1 for two classes
    intercept: Array  # (n_logits,)

    @property
    def of_all_classes(self) -> tuple[Array, Array]:
        """(coef, intercept) with a row for each class; of two classes the first has zeros.

        For a coef that is an array.
        """
        if len(self.classes) > 2:
            return self.coef, self.intercept
        return (
            np.concatenate([np.zeros_like(self.coef), self.coef]),
            np.append(np.zeros_like(self.intercept), self.intercept),
        )

    def check(self, n_features: int) -> None:
        """Raise a ValueError unless the parts fit together and are finite."""
        classes, coef, intercept = self
        if classes.ndim != 1 or len(classes) < 2:
            raise ValueError(
                f"classes_ must hold at least two labels, got the shape {classes.shape}"
            )
        try:
            ascending = bool(np.all(classes[:-1] < classes[1:]))
        except TypeError as error:
            raise ValueError(
                f"labels in classes_ must be of types with an order: {error}"
            ) from error
        if not ascending:  # of NaN nothing is
            raise ValueError("classes_ must be sorted, each label once")
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
        for name, array in (("coef_", stored_numbers(coef)), ("intercept_", intercept)):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")


def arrays_of(coef: Any) -> dict[str, Array]:
    """Return coefficients as the members of a file, see `model_file`."""
    arrays = {"coef": stored_numbers(coef)}
    if isinstance(coef, InColumns):
        arrays["columns"] = coef.columns.astype(np.int32)
    elif sparse.issparse(coef):
        arrays["columns"] = coef.indices.astype(np.int32)
        arrays["row_starts"] = coef.indptr.astype(np.int64)
    return arrays


def coef_from(arrays: dict[str, Array], n_features: int) -> Any:
    """Return the coefficients of a file's arrays, and take those out that tell their places."""
    coef, columns, starts = (arrays.pop(k, None) for k in ("coef", "columns", "row_starts"))
    if coef is None or columns is None:
        if starts is not None:
            raise ValueError("row_starts need columns")
        return coef
    if starts is None:
        columns = checked_columns("columns", columns, n_features)
        if coef.shape[1:] != columns.shape:
            raise ValueError(f"coef of shape {coef.shape} must have {len(columns)} columns")
        return InColumns(columns, coef, n_features)
    ascend = starts.dtype == np.int64 and bool((starts[1:] >= starts[:-1]).all())
    if not (ascend and starts[0] == 0 and starts[-1] == len(coef) == len(columns)):
        raise ValueError("row_starts must ascend from 0 to the lengths of coef and columns")
    for begin, end in itertools.pairwise(starts):
        checked_columns("columns", columns[begin:end], n_features)
    shape = len(starts) - 1, n_features
    return sparse.csr_array((coef, columns, starts), shape=shape)


def checked_columns(name: str, columns: Array, n_features: int) -> Array:
    """Return numbers of columns as indices, checked."""
    ascend = columns.dtype == np.int32 and bool((columns[1:] > columns[:-1]).all())
    in_range = not len(columns) or (columns[0] >= 0 and columns[-1] < n_features)
    if not (ascend and in_range and n_features <= _MOST_FEATURES):
        raise ValueError(f"{name} must ascend, from 0 or more to less than {n_features}, in int32")
    return columns.astype(np.intp)
