"""What a fit tells while it runs: the history, lines of progress, callbacks, evaluation sets."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastsoftmax.shard import Array, Shard


@dataclass(frozen=True)
class FitState:
    """What a callback sees after an iteration (an epoch, for ``solver="sgd"``).

    Attributes
    ----------
    solver : str
        "lbfgs", "newton-cholesky" or "sgd".
    iteration : int
        From 1.
    n_iter : int
        The most iterations there will be.
    loss : float
        Mean cross-entropy over the training rows, in nats. For "sgd" the running mean of the epoch:
        each row counts with the coefficients that its batch saw.
    accuracy : float
        Share of training rows predicted right, weighted and running as the loss.
    objective : float or None
        The penalised objective; None for "sgd".
    gap : float or None
        The certified bound on (objective - minimum) / objective; None for "sgd".
    seconds : float
        Duration of this iteration, evaluation sets not counted.
    rows_per_second : float
    eval_loss, eval_accuracy : tuple of float
        Mean cross-entropy and accuracy on each evaluation set.
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


Callback = Callable[[FitState], object]


class Monitor:
    """Collects the history of a fit and passes it on.

    Parameters
    ----------
    solver : str
    n_rows, n_iter : int
    eval_shards : sequence of Shard
        Rows to evaluate after each iteration.
    callbacks : sequence of callable (FitState) -> object
        One that returns True stops the fit.
    verbose : int
        From 1, a line for each iteration.
    """

    def __init__(
        self,
        solver: str,
        n_rows: int,
        n_iter: int,
        eval_shards: Sequence[Shard],
        callbacks: Sequence[Callback],
        verbose: int,
    ) -> None:
        self.solver = solver
        self.n_rows = n_rows
        self.n_iter = n_iter
        self.eval_shards = eval_shards
        self.callbacks = callbacks
        self.verbose = verbose
        self.history: dict[str, list[object]] = {
            name: []
            for name in (
                "loss", "accuracy", "objective", "gap", "seconds", "eval_loss", "eval_accuracy"
            )
        }  # fmt: skip
        self._clock = time.perf_counter()

    def record(
        self,
        iteration: int,
        loss: float,
        accuracy: float,
        coefficients: Callable[[], tuple[Array, Array]],
        objective: float | None = None,
        gap: float | None = None,
    ) -> bool:
        """Note an iteration; True if a callback wants the fit to stop."""
        seconds = time.perf_counter() - self._clock
        evaluations = []
        if self.eval_shards:
            weights, bias = coefficients()
            for shard in self.eval_shards:
                sums = shard.loss_grad(weights, bias, with_grad=False)
                evaluations.append((sums.loss / shard.n_rows, sums.correct / shard.n_rows))
        state = FitState(
            solver=self.solver,
            iteration=iteration,
            n_iter=self.n_iter,
            loss=loss,
            accuracy=accuracy,
            objective=objective,
            gap=gap,
            seconds=seconds,
            rows_per_second=self.n_rows / max(seconds, 1e-9),
            eval_loss=tuple(loss for loss, _ in evaluations),
            eval_accuracy=tuple(accuracy for _, accuracy in evaluations),
        )
        for name, values in self.history.items():
            values.append(getattr(state, name))
        if self.verbose:
            print(_line(state), flush=True)
        # every callback is called, also after one that wants to stop
        wishes = [_is_true(callback(state)) for callback in self.callbacks]
        self._clock = time.perf_counter()
        return any(wishes)


def _is_true(answer: object) -> bool:
    """Whether a callback answered True; comparisons of numpy numbers give numpy's own."""
    return isinstance(answer, bool | np.bool_) and bool(answer)


def _line(state: FitState) -> str:
    unit = "epoch" if state.solver == "sgd" else "iteration"
    parts = [f"{unit} {state.iteration}", f"loss {state.loss:.6f}"]
    if state.gap is not None:
        parts.append(f"gap {state.gap:.1e}")
    parts.append(f"accuracy {state.accuracy:.4f}")
    for i, (loss, accuracy) in enumerate(zip(state.eval_loss, state.eval_accuracy, strict=True)):
        parts.append(f"eval {i}: loss {loss:.6f} accuracy {accuracy:.4f}")
    parts.append(f"{state.seconds:.3f} s")
    return "  ".join(parts)
