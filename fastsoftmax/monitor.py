"""Observing a fit: its history, lines of progress, callbacks and evaluation sets."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.cached import cached_property
from fastsoftmax.columns import in_columns, whole
from fastsoftmax.floating_point import users_code


@dataclass(frozen=True)
class FitState:
    """The state of a fit after an iteration (an epoch, for ``solver="sgd"``), for callbacks.

    Attributes
    ----------
    solver : str
        "lbfgs", "newton-cholesky", "owlqn" or "sgd".
    iteration : int
        From 1.
    n_iter : int
        Maximum number of iterations.
    loss : float
        Mean cross-entropy over the training rows, in nats. For "sgd" it is the running mean of the
        epoch: the loss of a row is that before the step of its batch.
    accuracy : float
        Share of correctly predicted training rows, a weighted and, for "sgd", running mean as the
        loss.
    objective : float or None
        The penalised objective; None for "sgd".
    gap : float or None
        The certified bound on (objective - minimum) / objective; None for "sgd".
    seconds : float
        Duration of this iteration, without evaluation sets.
    rows_per_second : float
        Training rows of this iteration divided by `seconds`.
    eval_loss, eval_accuracy : tuple of float
        Mean cross-entropy, in nats, and accuracy on each evaluation set; empty if there is none.
    elapsed_seconds : float
        Time since `fit` was called.
    metrics : mapping
        The same numbers by name: ``{"train": {"loss": ..., "accuracy": ...}, "eval_0": {...}}``,
        with an "eval_<i>" for each evaluation set (rows held out for early stopping are "eval_0").
    coef_, intercept_ : ndarray
        Coefficients of this iteration, in the shapes of the attributes of `FastSoftmax`, read-only.
        They are copied at the first access, which must be during the callback's call. Later it is
        a RuntimeError, so that a list of states does not hold the coefficients of all iterations.
    """

    solver: str
    iteration: int
    n_iter: int
    loss: float
    accuracy: float
    objective: float | None
    gap: float | None
    seconds: float
    rows_per_second: float
    eval_loss: tuple[float, ...]
    eval_accuracy: tuple[float, ...]
    elapsed_seconds: float = 0.0

    @cached_property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """Loss and accuracy of the training rows and of each evaluation set, by name."""
        named = {"train": MappingProxyType({"loss": self.loss, "accuracy": self.accuracy})}
        for i, (loss, accuracy) in enumerate(zip(self.eval_loss, self.eval_accuracy, strict=True)):
            named[f"eval_{i}"] = MappingProxyType({"loss": loss, "accuracy": accuracy})
        return MappingProxyType(named)

    @property
    def coef_(self) -> Array:
        """Coefficients of this iteration, read-only, (n_classes, n_features) or (1, n_features)."""
        return self._coefficients[0]

    @property
    def intercept_(self) -> Array:
        """Intercepts of this iteration, read-only, (n_classes,) or (1,)."""
        return self._coefficients[1]

    @cached_property
    def _coefficients(self) -> tuple[Array, Array]:
        source: Callable[[], tuple[Any, Array]] | None = self.__dict__.get("_source")
        if source is None:
            raise RuntimeError(
                f"the coefficients of iteration {self.iteration} are gone: ask for coef_ and "
                "intercept_ while the callback runs"
            )
        coef, intercept = source()
        weights = np.array(coef) if isinstance(coef, np.ndarray) else whole(coef)
        bias = np.array(intercept)
        weights.flags.writeable = bias.flags.writeable = False
        return weights, bias

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the numbers, and the coefficients if they were accessed."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_source", "metrics")}


# Keys of the history, which has one value of each per iteration.
HISTORY = ("loss", "accuracy", "objective", "gap", "seconds", "eval_loss", "eval_accuracy")

Callback = Callable[[FitState], object]


@runtime_checkable
class EvaluationRows(Protocol):
    """Rows with labels, wherever they are: a `Shard`, for example. Their weights have mean 1."""

    n_rows: int
    columns: Array | None  # the users' columns that they have, None for all

    def metrics(self, weights: Array, bias: Array) -> tuple[float, float]:
        """Return the sums of loss and hits."""


class Stopping(Protocol):
    """Decides by a validation loss when a fit stops."""

    def begin(self, loss: float, *, counts: bool) -> None:
        """Record the validation loss of the start; counts: whether the start may be the result."""

    def see(self, iteration: int, loss: float) -> bool:
        """Record the validation loss after an iteration, from 1; return True to stop."""

    def restore(self) -> bool:
        """Restore the best iteration, once; return False if it is the last one."""


@dataclass(eq=False)
class Monitor:
    """Records the history of a fit, prints progress and calls callbacks.

    However the fit, its context, ends: early stopping restores the best coefficients and callbacks
    are told.
    """

    solver: str
    n_rows: int
    n_iter: int
    eval_shards: Sequence[EvaluationRows]  # rows to evaluate after each iteration
    callbacks: Sequence[Callback]  # `close` calls their `on_fit_end`, of those that have one
    verbose: int  # at least 1: print a line for each iteration
    began: float  # start of the fit, by `time.perf_counter`
    # Bytes of the features where they are read in every pass: then lines tell the speed.
    n_bytes: float = field(default=0.0, init=False)
    # Gets the loss of the last evaluation set, before the callbacks.
    stopping: Stopping | None = None

    def __post_init__(self) -> None:
        """Begin with an empty history."""
        self.history: dict[str, list[object]] = {name: [] for name in HISTORY}
        self._clock = time.perf_counter()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End."""
        try:  # (in no generator, where a callback's StopIteration would become another error)
            if self.stopping is not None:
                self.stopping.restore()
        finally:
            self.close()

    def note_start(self, weights: Any, bias: Array, *, is_fitted: bool) -> None:
        """Evaluate the start; is_fitted: whether it is the result of an earlier fit."""
        if self.stopping is not None:
            loss, _ = _evaluated(self.eval_shards[-1], weights, bias)
            self.stopping.begin(loss, counts=is_fitted)
        self._clock = time.perf_counter()

    def go_on(self, history: Mapping[str, Sequence[object]]) -> None:
        """Begin after the iterations of an earlier fit instead."""
        for name, values in history.items():
            self.history[name].extend(values)
        self._clock = time.perf_counter()

    @property
    def is_watched(self) -> bool:
        """Whether anything is reported during the fit."""
        return bool(self.callbacks or self.eval_shards or self.verbose or self.stopping)

    def record(
        self,
        iteration: int,
        loss: float,
        accuracy: float,
        coefficients: Callable[[], tuple[Any, Array]],
        objective: float | None = None,
        gap: float | None = None,
    ) -> bool:
        """Record an iteration; return True if the fit has to stop."""
        seconds = time.perf_counter() - self._clock
        losses: tuple[float, ...] = ()
        accuracies: tuple[float, ...] = ()
        if self.eval_shards:
            weights, bias = coefficients()
            evaluations = [_evaluated(shard, weights, bias) for shard in self.eval_shards]
            losses, accuracies = zip(*evaluations, strict=True)
        entry: Any = (loss, accuracy, objective, gap, seconds, losses, accuracies)
        for values, value in zip(self.history.values(), entry, strict=True):
            values.append(value)
        stop = False
        if self.is_watched:  # in tiny problems a FitState takes as long as the iteration
            state = FitState(
                solver=self.solver,
                iteration=iteration,
                n_iter=self.n_iter,
                rows_per_second=self.n_rows / max(seconds, 1e-9),
                elapsed_seconds=time.perf_counter() - self.began,
                **dict(zip(HISTORY, entry, strict=True)),
            )
            stop = self._tell(state, coefficients)
        self._clock = time.perf_counter()
        return stop

    def _tell(self, state: FitState, coefficients: Callable[[], tuple[Any, Array]]) -> bool:
        """Report an iteration to all who watch; return True if one of them stops the fit."""
        if self.verbose:
            print(_line(state, self.n_bytes), flush=True)
        early = self.stopping
        stop = early is not None and early.see(state.iteration, state.eval_loss[-1])
        state.__dict__["_source"] = coefficients
        try:
            # A list: all callbacks are called, also after one that returns True.
            with users_code():
                answers = [callback(state) for callback in self.callbacks]
        finally:
            del state.__dict__["_source"]
        # (only a True, Python's or numpy's, stops; any other answer means nothing)
        return stop or any(isinstance(a, bool | np.bool_) and bool(a) for a in answers)

    def close(self) -> None:
        """Call `on_fit_end` of the callbacks that have it, whatever ended the fit."""
        if not self.callbacks:
            return
        with users_code(), ExitStack() as stack:
            for callback in reversed(self.callbacks):
                end = getattr(callback, "on_fit_end", None)
                if callable(end):
                    stack.callback(end)


class TqdmProgress:
    """A callback that draws a tqdm progress bar, in terminals and notebooks.

    For "sgd" it counts the epochs up to `max_iter`. Other solvers have no total, as they stop when
    they have converged. It shows losses and, if there is one, the certified gap.

    Parameters
    ----------
    **options
        For `tqdm.tqdm`, such as ``desc="fit"``, ``file=sys.stdout`` or ``leave=False``.

    Raises
    ------
    ImportError
        If tqdm is not installed (``pip install tqdm``).

    Examples
    --------
    >>> from fastsoftmax import FastSoftmax
    >>> from fastsoftmax.monitor import TqdmProgress
    >>> X, y = [[0.0], [1.0], [2.0]], ["a", "b", "c"]
    >>> model = FastSoftmax().fit(X, y, callbacks=[TqdmProgress()])  # doctest: +SKIP
    """

    def __init__(self, **options: Any) -> None:
        _tqdm()
        self.options = options
        self._bar: Any = None

    def __call__(self, state: FitState) -> None:
        """Move the bar by one iteration."""
        if self._bar is None:
            total, unit = (state.n_iter, "epoch") if state.solver == "sgd" else (None, "iteration")
            self._bar = _tqdm()(**{"total": total, "unit": unit, **self.options})
        shown = {"loss": f"{state.loss:.4f}"}
        if state.gap is not None:
            shown["gap"] = f"{state.gap:.1e}"
        for i, loss in enumerate(state.eval_loss):
            shown[f"eval_{i}"] = f"{loss:.4f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def on_fit_end(self) -> None:
        """Close the bar; the next fit gets another."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled, without the bar, which belongs to this process."""
        return {"options": self.options, "_bar": None}


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("TqdmProgress needs tqdm: pip install tqdm") from error
    return tqdm


def _evaluated(shard: EvaluationRows, weights: Any, bias: Array) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy) of rows whose row weights have mean 1."""
    loss, correct = shard.metrics(in_columns(weights, shard.columns), bias)
    return loss / shard.n_rows, min(correct / shard.n_rows, 1.0)  # (the sums are rounded)


def _line(state: FitState, n_bytes: float = 0.0) -> str:
    """Return a line in columns of the same width in every iteration.

    n_bytes is how many are read in one, where that is to be told.
    """
    unit = "epoch" if state.solver == "sgd" else "iteration"
    parts = [f"{unit} {state.iteration:<{len(str(state.n_iter))}}", f"loss {state.loss:.6f}"]
    if state.gap is not None:
        parts.append(f"gap {state.gap:<7.1e}")
    parts.append(f"accuracy {state.accuracy:.4f}")
    for i, (loss, accuracy) in enumerate(zip(state.eval_loss, state.eval_accuracy, strict=True)):
        parts.append(f"eval {i}: loss {loss:.6f} accuracy {accuracy:.4f}")
    seconds = state.seconds
    parts.append(f"{seconds:.2f} s" if seconds >= 1.0 else f"{1e3 * seconds:.2f} ms")
    if n_bytes:
        speed = 1e-9 * n_bytes / max(seconds, 1e-9)
        parts.append(f"{state.rows_per_second:.2e} rows/s  {speed:.2f} GB/s")
    return "  ".join(parts)
