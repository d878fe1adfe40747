"""A race: one task, several contestants, answers compared before anything is timed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from floor import Floor, Work

Run = Callable[[], Any]
# (answer, expected answer): raises AssertionError where they differ by more than they may.
Check = Callable[[Any, Any], None]

NATIVE, ONE_THREAD = "native", "native, 1 thread"
QUIET_SECONDS, QUIET_SHARE, PATIENCE_SECONDS = 0.01, 0.1, 1.0
_CHUNK = 1 << 22


@dataclass
class Race:
    """One task and who does it.

    Parameters
    ----------
    name : str
        The task with its sizes.
    runs : dict of str to callable
        By contestant: does the task once, and returns the answer or what `answer` makes it from.
    check : callable
        See `Check`.
    work : Work, optional
        What the task takes at least; without it there are no rates.
    formula : str
        Where `work` comes from.
    referee : str, optional
        The contestant whose answer the others are checked against; without it `check` is passed
        None as the expected answer.
    answer : callable
        From what a run returns to what is checked, outside of the time that is taken.
    prepare : callable
        Called before a run whose answer is checked, where runs change what they start from.
    by_threads : callable, optional
        The native contestant with a number of threads.
    """

    name: str
    runs: dict[str, Run]
    check: Check
    work: Work | None = None
    formula: str = ""
    referee: str | None = None
    answer: Callable[[Any], Any] = lambda result: result
    notes: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    by_threads: Callable[[int], Any] | None = None
    _expected: Any = None

    def verify(self, contestant: str) -> None:
        """Run a contestant once and check its answer."""
        if self.referee is not None and self._expected is None:
            self._expected = _copied(self._answer_of(self.referee))
        answer = self._answer_of(contestant)
        try:
            self.check(answer, self._expected)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {contestant} answers wrongly: {error}") from None

    def _answer_of(self, contestant: str) -> Any:
        self.prepare()
        return self.answer(self.runs[contestant]())


def _copied(answer: Any) -> Any:
    """An answer of its own: contestants may share the array that they write to."""
    if isinstance(answer, tuple):
        return tuple(_copied(part) for part in answer)
    return np.array(answer)


def close(rtol: float, *, elementwise: bool = False) -> Check:
    """A check that numbers and arrays differ by at most rtol.

    Relative to each number, or else to the largest of its array: sums with cancellation, as in a
    gradient, have no small relative error in their small elements, whoever computes them.
    """

    def check(answer: Any, expected: Any) -> None:
        if not isinstance(answer, tuple):
            answer, expected = (answer,), (expected,)
        for i, (a, e) in enumerate(zip(answer, expected, strict=True)):
            a, e = np.asarray(a), np.asarray(e)
            assert a.shape == e.shape, f"shape {a.shape} instead of {e.shape}"
            worst = _largest_error(a.ravel(), e.ravel(), elementwise)
            assert worst <= rtol, f"part {i} differs by {worst:.1e}, at most {rtol:.0e} is allowed"

    return check


def _largest_error(a: np.ndarray, e: np.ndarray, elementwise: bool) -> float:
    """The largest relative error, NaN if there is one; in chunks, to need little memory."""
    scale = 0.0 if elementwise else max(1e-300, float(np.max(np.abs(e), initial=0.0)))
    worst = [0.0]
    for start in range(0, a.size, _CHUNK):
        some = slice(start, start + _CHUNK)
        exact = e[some].astype(np.float64)
        error = np.abs(a[some] - exact)
        worst.append(float(np.max(error / (scale or np.maximum(np.abs(exact), 1e-30)))))
    return float(np.max(worst))


def settle() -> None:
    """Wait until this process rests.

    The threads of OpenBLAS and of each OpenMP (torch and scikit-learn bring their own) spin for up
    to some 30 ms after their work is done, and would take the cores from the next contestant.
    """
    give_up = time.perf_counter() + PATIENCE_SECONDS
    while time.perf_counter() < give_up:
        before = time.process_time()
        time.sleep(QUIET_SECONDS)
        if time.process_time() - before < QUIET_SHARE * QUIET_SECONDS:
            return


def seconds_of(run: Run, n_calls: int = 1) -> float:
    """Seconds of one call, by the clock, over n_calls in a row."""
    start = time.perf_counter()
    for _ in range(n_calls):
        run()
    return (time.perf_counter() - start) / n_calls


def take_turns(runs: Sequence[Run], *, seconds: float, least_rounds: int = 7) -> list[list[float]]:
    """Time contestants in turn, so that they meet the same machine.

    A turn is: settle, one call that is not timed (it wakes the contestant's threads and fills the
    caches), then the timed calls in a row, enough of them for 20 ms. The order is reversed in
    every other round.

    Parameters
    ----------
    runs : sequence of callable
    seconds : float
        No round begins after this time, once there were least_rounds.
    least_rounds : int

    Returns
    -------
    list of lists of float
        For each contestant its seconds a call, one value for each round.
    """
    n_calls = []
    for run in runs:
        settle()
        run()
        n_calls.append(max(1, round(0.02 / max(seconds_of(run), 1e-7))))
    times: list[list[float]] = [[] for _ in runs]
    start, n_rounds = time.perf_counter(), 0
    while n_rounds < least_rounds or time.perf_counter() - start < seconds:
        order = list(range(len(runs)))
        for i in order if n_rounds % 2 == 0 else order[::-1]:
            settle()
            runs[i]()
            times[i].append(seconds_of(runs[i], n_calls[i]))
        n_rounds += 1
    return times


def rates(work: Work | None, seconds: float, floor: Floor) -> dict[str, float]:
    """GB/s, GFLOP/s, and the floor's time, also as a share of the time taken."""
    if work is None:
        return {}
    figures = {"GB/s": work.n_bytes / seconds / 1e9}
    if work.flops:
        figures["GFLOP/s"] = work.flops / seconds / 1e9
    least = floor.seconds(work)
    if least is not None:
        figures |= {"floor, ms": 1e3 * least, "floor / time": least / seconds}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def entries(
    builder: Callable[..., Race], arguments: Sequence[dict[str, Any]], contestants: Sequence[str]
) -> pytest.MarkDecorator:
    """Parametrise a benchmark by `entry` (a builder and its arguments) and `contestant`.

    Contestants of one race follow each other, so that its data is made once.
    """
    values = []
    for given in arguments:
        label = "-".join(map(_label, given.values()))
        for contestant in contestants:
            values.append(pytest.param((builder, given), contestant, id=f"{label}-{contestant}"))
    return pytest.mark.parametrize(("entry", "contestant"), values)


def _label(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
