"""The history of a fit, from an estimator or a dict: its columns, times and kind of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

X_AXES = ("iteration", "seconds")


def final_estimator(estimator: Any) -> Any:
    """Return the last step of a pipeline, anything else unchanged."""
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if isinstance(steps, list) and steps else estimator


def checked_as_fitted(estimator: Any, wanted: str) -> None:
    """Raise a TypeError unless this is an estimator, and a NotFittedError unless it is fitted."""
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        name = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(f"{wanted} is wanted, not {name}")
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)


def record_of(clf_or_history: Any) -> Mapping[str, Any]:
    """Return `history_` of a fitted estimator, or the dict itself."""
    estimator = final_estimator(clf_or_history)
    record = getattr(estimator, "history_", estimator)
    if isinstance(record, Mapping):
        return record
    wanted = "a fitted FastSoftmax or its history_"
    checked_as_fitted(estimator, wanted)
    if hasattr(estimator, "coefs_paths_"):
        raise TypeError(f"{wanted} is wanted; of a {type(estimator).__name__} there is plot.path")
    raise ValueError(
        f"this {type(estimator).__name__} has no history_: that comes from fit, and neither load "
        "nor from_sklearn brings it. Fit it, or keep the model with pickle."
    )


def column(record: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    """Return one number for each step, NaN for None; no numbers if the history lacks the key."""
    return np.array([math.nan if v is None else v for v in record.get(key, ())], dtype=np.float64)


def eval_columns(record: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    """Return (n_sets, n_steps), NaN in steps without evaluation; n_sets may be 0."""
    rows = [tuple(row) for row in record.get(key, ())]
    n_sets = max((len(row) for row in rows), default=0)
    padded = [row + (math.nan,) * (n_sets - len(row)) for row in rows]
    return np.array(padded, dtype=np.float64).reshape(len(rows), n_sets).T


def eval_labels(names: Sequence[str] | None, n_sets: int) -> Sequence[str]:
    """Return a name for each evaluation set."""
    if names is None:
        return ["test"] if n_sets == 1 else [f"eval {i}" for i in range(1, n_sets + 1)]
    if isinstance(names, str):
        raise TypeError(f"eval_names must be a sequence of names, got the string {names!r}")
    if len(names) != n_sets:
        raise ValueError(f"eval_names holds {len(names)} names for {n_sets} evaluation sets")
    return names


def seconds_of(record: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the seconds from the start of the first step to the end of each step."""
    seconds = np.cumsum(column(record, "seconds"))
    if not seconds.size:
        raise ValueError("x='seconds' needs a history that holds seconds; this one holds none")
    return seconds


def checked_x(x: str) -> str:
    """Return the name of a horizontal axis, or raise a ValueError."""
    if x not in X_AXES:
        raise ValueError(f"x must be 'iteration' or 'seconds', not {x!r}")
    return x


def unit_of(clf_or_history: Any, record: Mapping[str, Any]) -> str:
    """Return the name of the steps; a bare history without objectives is of "sgd"."""
    estimator = final_estimator(clf_or_history)
    if math.isnan(getattr(estimator, "objective_", 0.0)):
        return "call of partial_fit"
    without_objective = all(value is None for value in record.get("objective", ()))
    default = "sgd" if without_objective else "lbfgs"
    return "epoch" if getattr(estimator, "solver", default) == "sgd" else "iteration"
