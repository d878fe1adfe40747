"""What a fit has come to after each iteration, for the estimator, its watchers and checkpoints."""

import math
import numbers
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from fastsoftmax._estimator.checkpoint import Checkpoint, Snapshot
from fastsoftmax._estimator.early_stopping import EarlyStopping
from fastsoftmax._estimator.fitted import coef_of, set_learnt
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner
from fastsoftmax.columns import InColumns
from fastsoftmax.monitor import HISTORY, Monitor
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem.problem import Problem
from fastsoftmax.solvers.record import Record, State, array_in, count_in, finite_in, part_of

# Parameters that change what is minimised, and for "sgd" the way; those of `early_stopping` say
# which rows are held out.
_OBJECTIVE = ("C", "l1_ratio", "fit_intercept", "label_smoothing", "standardize", "input_scale")
_DESCENT = ("batch_size", "learning_rate", "momentum")
_HELD_OUT = ("validation_fraction", "random_state")


class Course:
    """The iterations of a fit so far; the latest is what it ends with where it is interrupted."""

    def __init__(self, estimator: FitParameters, problem: Problem, monitor: Monitor) -> None:
        self._estimator, self._problem, self._monitor = estimator, problem, monitor
        self._n_iter = 0
        self._coefficients: Callable[[], tuple[Array, Array]] | None = None

    def note(self, n_iter: int, coefficients: Callable[[], tuple[Array, Array]]) -> None:
        """See an iteration, whose coefficients of the columns in use may be asked for later."""
        self._n_iter, self._coefficients = n_iter, coefficients

    @contextmanager
    def recording(self, checkpoint: Checkpoint | None, *, holds_out: bool) -> Iterator[Record]:
        """Give the solver its record; where a fit is to go on, the course goes on first."""
        if checkpoint is None:
            yield Record()
            return
        facts = _facts(self._estimator, self._problem, self._monitor.solver, holds_out=holds_out)
        with checkpoint.recording(facts, self.take) as record:
            if checkpoint.course is not None:
                self._go_on(checkpoint.course)
            yield record

    def take(self) -> Snapshot:
        """Return what makes the state of the course up to here, at any later time."""
        stopping = self._monitor.stopping
        early = stopping.state() if isinstance(stopping, EarlyStopping) else {}
        n_iter, coefficients, history = self._n_iter, self._coefficients, self._monitor.history
        columns = self._problem.rows.columns

        def snapshot() -> State:
            state: State = {"n_iter": n_iter, "history": _of_history(history, n_iter)}
            state["early_stopping"] = {
                name: value if not isinstance(value, InColumns) else value.values
                for name, value in early.items()
            }
            if coefficients is not None:
                state["coef"], state["intercept"] = coefficients()
            if columns is not None:
                state["columns"] = columns
            return state

        return snapshot

    def _go_on(self, left: State) -> None:
        """Go on after a course: with its history, its coefficients and what stops early."""
        problem, monitor = self._problem, self._monitor
        self._n_iter = count_in(left, "n_iter")
        history = _history(part_of(left, "history"), self._n_iter, monitor.solver)
        monitor.go_on(history)
        if isinstance(monitor.stopping, EarlyStopping):
            in_columns = partial(coef_of, self._estimator, problem.rows.columns)
            monitor.stopping.go_on(part_of(left, "early_stopping"), in_columns)
        coef, intercept = problem.coordinates.coefficients_of(problem.null_point)
        real = problem.rows.real
        if "coef" in left:  # (there is none before the first iteration)
            coef, intercept = (
                finite_in(left, name, like.shape, real)
                for name, like in (("coef", coef), ("intercept", intercept))
            )
            self.note(self._n_iter, lambda: (coef, intercept))
        set_learnt(
            self._estimator,
            coef=coef_of(self._estimator, problem.rows.columns, coef.astype(real)),
            intercept=intercept.astype(real),
            n_iter=self._n_iter,
        )
        left.clear()  # (its arrays are as large as the model)


def check_random_state_is_known(estimator: FitParameters, *, holds_out: bool) -> None:
    """Raise a ValueError where a later fit could not hold out the same rows."""
    if holds_out and not isinstance(estimator.random_state, numbers.Integral):
        raise ValueError(
            "with checkpoint or resume, early_stopping=True without an eval_set needs an integer "
            "random_state, so that another fit holds out the same rows, got "
            f"{estimator.random_state!r}"
        )


def _facts(estimator: FitParameters, problem: Problem, solver: str, *, holds_out: bool) -> State:
    """Return what tells whether two fits are of the same data and parameters.

    Full-batch solvers see the rest: the objective at the point that they go on from. Others have
    a gradient compared.
    """
    names = _OBJECTIVE + (_DESCENT if solver == "sgd" else ())
    names += _HELD_OUT if holds_out else ()
    columns = problem.rows.columns
    more: State = {} if columns is None else {"the columns with entries": columns}
    if solver == "sgd":
        g = SoftmaxObjective(problem).evaluate(problem.null_point).gradient
        more["the length of the gradient where weights are 0"] = math.sqrt(inner(g, g))
    return {
        "solver": solver,
        **{name: float(getattr(estimator, name) or 0.0) for name in names},
        "early_stopping": bool(estimator.early_stopping),
        "the number of rows": problem.n_rows,
        "the number of features": estimator.n_features_in_,
        "the number type": str(problem.rows.real),
        "the classes": np.array([f"{label} " for label in estimator.classes_.tolist()]),
        "the sum of the weights": float(estimator._weight_seen),
        "the shares of the classes (y, sample_weight, class_weight)": problem.class_share,
        **more,
    }


def _of_history(history: dict[str, list[Any]], n_iter: int) -> State:
    """Return the history of some iterations as arrays; NaN for None."""
    state: State = {}
    for name, values in history.items():
        rows = [math.nan if value is None else value for value in values[:n_iter]]
        state[name] = np.array(rows, dtype=np.float64)
    return state


def _history(state: State, n_iter: int, solver: str) -> dict[str, list[Any]]:
    history: dict[str, list[Any]] = {}
    for name in HISTORY:
        of_sets = name.startswith("eval_") and n_iter > 0
        values = array_in(state, name, (n_iter, None) if of_sets else (n_iter,)).tolist()
        if name.startswith("eval_"):
            values = [tuple(row) for row in values]
        elif solver == "sgd" and name in ("objective", "gap"):
            values = [None] * n_iter
        history[name] = values
    return history
