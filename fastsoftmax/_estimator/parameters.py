"""The parameters of `FastSoftmax`, and what they accept."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints

from fastsoftmax._estimator.fitted import FittedEstimator
from fastsoftmax.arrays import Array

_names: dict[type, list[str]] = {}
# Of each class, the values of parameters that were valid when they were last checked, and their
# types (True is no number of iterations, and equal to 1). Values of other types may change.
_valid: dict[type, dict[str, tuple[type, Any]]] = {}
_UNCHANGING = (bool, float, int, str, type(None))


class SolverNames(StrOptions):
    """Names whose error says what takes the place of the solvers that only scikit-learn has."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()} ('auto' in place of scikit-learn's 'newton-cg', 'sag', 'saga' "
            "and 'liblinear')"
        )


class FitParameters(FittedEstimator):
    """`FastSoftmax` without its methods: the functions that fit, step and test take this."""

    # set by fits, beside the attributes that both estimators have
    objective_: float
    history_: dict[str, list[Any]]
    best_iteration_: int
    best_score_: float
    # of mini-batch steps, which go on in the next `partial_fit`; flat, for some columns of X
    _velocity: Array | None
    _velocity_columns: Array | None  # None for all
    _weight_seen: float  # sum of the row weights of all rows so far

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's protocol)
        "C": [Interval(numbers.Real, 0.0, None, closed="right")],
        "l1_ratio": [Interval(numbers.Real, 0.0, 1.0, closed="both"), None],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(numbers.Real, 0.0, 1.0, closed="left")],
        "standardize": ["boolean"],
        "input_scale": [Interval(numbers.Real, 0.0, None, closed="neither")],
        "solver": [SolverNames({"auto", "lbfgs", "newton-cholesky", "owlqn", "sgd"})],
        "tol": [Interval(numbers.Real, 0.0, None, closed="left")],
        "max_iter": [Interval(numbers.Integral, 0, None, closed="left")],
        "max_time": [Interval(numbers.Real, 0.0, None, closed="neither"), None],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "learning_rate": [Interval(numbers.Real, 0.0, None, closed="neither")],
        "momentum": [Interval(numbers.Real, 0.0, 1.0, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0.0, 1.0, closed="neither")],
        "n_iter_no_change": [Interval(numbers.Integral, 1, None, closed="left")],
        "min_delta": [Interval(numbers.Real, 0.0, None, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [
            Interval(numbers.Integral, None, -1, closed="right"),
            Interval(numbers.Integral, 1, None, closed="left"),
            None,
        ],
        "verbose": ["verbose"],
        "backend": [StrOptions({"auto", "native", "numpy"})],
    }

    def __init__(
        self,
        C: float = 1.0,
        *,
        l1_ratio: float | None = 0.0,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        label_smoothing: float = 0.0,
        standardize: bool = False,
        input_scale: float = 1.0,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 1000,
        max_time: float | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.1,
        momentum: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        min_delta: float = 1e-4,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        backend: str = "auto",
    ) -> None:
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.standardize = standardize
        self.input_scale = input_scale
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.min_delta = min_delta
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.backend = backend

    __init__.__qualname__ = "FastSoftmax.__init__"  # in errors about arguments that it lacks

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # scikit-learn inspects the signature in every fit: 6 % of one of 1 ms
        if cls not in _names:
            _names[cls] = super()._get_param_names()
        return list(_names[cls])

    def _validate_params(self) -> None:
        # scikit-learn checks all of them in every fit: 15 % of one of 1.6 ms
        valid = _valid.setdefault(type(self), {})
        new = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if (type(value), value) != valid.get(name)
        }
        validate_parameter_constraints(
            self._parameter_constraints, new, caller_name=type(self).__name__
        )
        for name, value in new.items():
            if type(value) in _UNCHANGING:
                valid[name] = type(value), value
