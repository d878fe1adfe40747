"""What every estimator is once it is fitted: its attributes, who sets them, and its pickles."""

import inspect
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin

from fastsoftmax._version import __version__
from fastsoftmax.arrays import Array
from fastsoftmax.columns import InColumns, Whole, private_name, store, stored
from fastsoftmax.problem.evaluation import Evaluation
from fastsoftmax.shards.rows import Rows


class Learnt(TypedDict, total=False):
    """What a fit sets: each key is the attribute of that name with "_" behind it."""

    classes: Array
    coef: Any
    intercept: Array
    temperature: float
    n_iter: ArrayLike
    gap: float
    objective: float
    converged: bool
    solver: str
    history: dict[str, list[Any]]
    best_iteration: int
    best_score: float
    n_features_in: int
    feature_names_in: Array


class _PenaltyName:
    """The attribute `penalty`: "l1", "elasticnet" or "l2", or None where C is infinite.

    It is no parameter, `l1_ratio` and `C` decide. `sklearn.feature_selection.SelectFromModel` reads
    it, and keeps every feature that has a coefficient where it is "l1". A subclass may have a
    parameter of this name, which a property would not let it set.
    """

    def __get__(self, estimator: Any, owner: Any = None) -> Any:
        if estimator is None:
            return self
        if getattr(estimator, "C", 1.0) == np.inf:
            return None
        if not estimator.l1_ratio:
            return "l2"
        return "l1" if estimator.l1_ratio == 1.0 else "elasticnet"


class NothingLearnt(ValueError):
    """A fit has no result; the estimator becomes what it was before."""


class NotFinite(NothingLearnt):
    """A fit found no finite coefficients; the message says what to do."""


class Refused(NothingLearnt):
    """A fit cannot go on from a checkpoint; the message says why."""


class FittedEstimator(ClassifierMixin, BaseEstimator):
    """The parameters and attributes that `FastSoftmax` and `FastSoftmaxCV` share."""

    l1_ratio: float | None
    fit_intercept: bool
    class_weight: dict[Any, float] | str | None
    standardize: bool
    input_scale: float
    tol: float
    max_iter: int
    random_state: int | np.random.RandomState | None
    n_jobs: int | None
    verbose: int
    backend: str

    n_features_in_: int
    classes_: Array
    intercept_: Array
    temperature_: float
    n_iter_: Array
    gap_: float
    converged_: bool
    solver_: str

    penalty = _PenaltyName()
    coef_ = Whole()  # ndarray or, after `sparsify`, a csr_array

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what is accepted."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle, joblib, skops and copies, with the version."""
        state = {**super().__getstate__(), "_fastsoftmax_version": __version__}
        # (plain tuples, which skops has no need to trust)
        return {k: tuple(v) if isinstance(v, InColumns) else v for k, v in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, with a warning if its version may mean something else by it."""
        name = type(self).__name__
        if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
            raise ValueError(
                f"the state of a {name} must be a dict of its attributes, "
                f"got {type(state).__name__}: what it was read from is damaged"
            )
        state = dict(state)
        version = state.pop("_fastsoftmax_version", None)
        if version != __version__:
            if not _is_compatible(version):
                saved_by = "an unnamed version" if version is None else f"version {version}"
                warnings.warn(
                    f"this {name} was saved by {saved_by} of fastsoftmax and is read by "
                    f"{__version__}: its parameters or predictions may differ. Save it again, or "
                    "use save(path) and load(path), whose files every later version reads.",
                    UserWarning,
                    stacklevel=2,
                )
            parameters = inspect.signature(type(self).__init__).parameters
            for parameter in parameters.values():  # those that the other version lacked
                if parameter.default is not inspect.Parameter.empty:
                    state.setdefault(parameter.name, parameter.default)
        for key in map(private_name, ("coef_", "coefs_paths_")):
            if isinstance(state.get(key), tuple):
                state[key] = InColumns(*state[key])
        super().__setstate__(state)


def set_learnt(estimator: FittedEstimator, **learnt: Unpack[Learnt]) -> None:
    """Set what a fit, or a step of one, has learnt; nothing else sets these attributes."""
    if "n_iter" in learnt:
        learnt["n_iter"] = np.array(learnt["n_iter"], dtype=np.int32, ndmin=1)
    for name, value in learnt.items():
        store(estimator, f"{name}_", value)


def forget_fit(estimator: FittedEstimator) -> None:
    """Forget the optimum of an earlier fit: how far it was, and which iteration was the best."""
    set_learnt(estimator, gap=np.inf, objective=np.nan, converged=False)
    for name in ("best_iteration_", "best_score_"):
        if hasattr(estimator, name):
            delattr(estimator, name)


@contextmanager
def nothing_set_without_coefficients(estimator: FittedEstimator) -> Iterator[None]:
    """Give an estimator the attributes of before back, where a fit has no result.

    An error before there are coefficients, such as a bad argument, also leaves a model as it was.
    """
    before, coef = vars(estimator).copy(), stored_coef(estimator)
    try:
        yield
    except Exception as error:
        if isinstance(error, NothingLearnt) or stored_coef(estimator) is coef:
            for name in vars(estimator).keys() - before.keys():
                delattr(estimator, name)
            for name, value in before.items():
                setattr(estimator, name, value)
        if isinstance(error, NothingLearnt):
            raise ValueError(*error.args) from None
        raise


def check_finite(at: Evaluation, rows: Rows) -> None:
    """Raise a NotFinite where a fit to these rows ended at what is no number."""
    kept = (part.astype(rows.real, copy=False) for part in (at.weights, at.bias))
    if math.isfinite(at.value) and all(np.isfinite(part).all() for part in kept):
        return
    row, feature, value = rows.largest_feature()
    advice = "scale the features, or replace numbers that stand for missing ones"
    if rows.real == np.float32:
        advice = f"pass X as float64, {advice}"
    raise NotFinite(
        f"the fit found no finite coefficients: feature {feature} of row {row} of X, the farthest "
        f"from 0, is {value:g}, and sums or coefficients of such features are too large for "
        f"{rows.real}; {advice}"
    )


def stored_coef(estimator: FittedEstimator) -> Any:
    """Return coefficients as they are kept: an array, `InColumns` or, sparsified, a csr_array."""
    return stored(estimator, "coef_")


def coef_of(estimator: FittedEstimator, columns: Array | None, weights: Array) -> Any:
    """Return coefficients of some columns of X (None for all) as `set_learnt` takes them."""
    if columns is None:
        return weights
    return InColumns(columns, weights, estimator.n_features_in_)


def _is_compatible(version: Any) -> bool:
    """Whether what a version has pickled means the same here, by semantic versioning."""
    saved, here = (
        re.match(r"(\d+)\.(\d+)", text) if isinstance(text, str) else None
        for text in (version, __version__)
    )
    if saved is None or here is None:
        return False
    (major, minor), (our_major, our_minor) = (tuple(map(int, m.groups())) for m in (saved, here))
    return major == our_major and (minor == our_minor or (major > 0 and minor < our_minor))
