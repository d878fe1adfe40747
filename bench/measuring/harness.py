"""A race: one task, several contestants, and answers that are compared before anything is timed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from measuring.floor import Floor, Work

Run = Callable[[], Any]
# (answer, expected answer): raises AssertionError where they differ by more than they may.
Check = Callable[[Any, Any], None]

NATIVE, ONE_THREAD = "native", "native, 1 thread"
QUIET_SECONDS, QUIET_SHARE, PATIENCE_SECONDS = 0.01, 0.1, 1.0
_CHUNK = 1 << 22


@dataclass
class Race:
    """One task and its contestants.

    Parameters
    ----------
    name : str
        The task with its sizes.
    runs : dict of str to callable
        By contestant: does the task once. Returns the answer, or what `answer` makes it from.
    check : callable
        See `Check`.
    referee : str
        The contestant whose answer the others are checked against.
    work : Work, optional
        The least work of the task. Without it there are no rates.
    formula : str
        The formula of `work`, in words.
    answer : callable
        Makes the answer from what a run returns. It is not timed.
    prepare : callable
        Called before a run whose answer is checked, where runs change their own input.
    by_threads : callable, optional
        The native contestant as a function of the number of threads.
    """

    name: str
    runs: dict[str, Run]
    check: Check
    referee: str
    work: Work | None = None
    formula: str = ""
    answer: Callable[[Any], Any] = lambda result: result
    prepare: Callable[[], None] = lambda: None
    by_threads: Callable[[int], Any] | None = None
    _expected: Any = None

    def verify(self, contestant: str) -> None:
        """Run a contestant once and check its answer."""
        if self._expected is None:
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
    """A copy of an answer: contestants may write to the same array."""
    if isinstance(answer, tuple):
        return tuple(_copied(part) for part in answer)
    return np.array(answer)


def close(rtol: float, *, elementwise: bool = False) -> Check:
    """A check that numbers and arrays differ by at most rtol.

    The difference is relative to each number (`elementwise`) or to the largest number of its array.
    The second is for sums with cancellation, such as gradients: the relative error of their small
    elements is large in every implementation.
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
    """Wait until this process uses almost no CPU time.

    The threads of OpenBLAS and of each OpenMP (torch and scikit-learn bring their own) spin for up
    to 30 ms after their work is done. They would take the cores from the next contestant.
    """
    give_up = time.perf_counter() + PATIENCE_SECONDS
    while time.perf_counter() < give_up:
        before = time.process_time()
        time.sleep(QUIET_SECONDS)
        if time.process_time() - before < QUIET_SHARE * QUIET_SECONDS:
            return


def seconds_of(run: Run, n_calls: int = 1) -> float:
    """Seconds of wall time of a call: the mean of n_calls in a row."""
    start = time.perf_counter()
    for _ in range(n_calls):
        run()
    return (time.perf_counter() - start) / n_calls


def take_turns(runs: Sequence[Run], *, seconds: float, least_rounds: int = 7) -> list[list[float]]:
    """Time contestants in turn, so that other load on the machine concerns all of them.

    A turn is: `settle`, one call that is not timed (it wakes the contestant's threads and fills
    the caches), then 20 ms of timed calls. The order is reversed in every other round.

    Parameters
    ----------
    runs : sequence of callable
    seconds : float
        After this time no further round begins, unless there were fewer than least_rounds.
    least_rounds : int

    Returns
    -------
    list of lists of float
        For each contestant the seconds a call, one value for each round.
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
    """GB/s, GFLOP/s, the time of the floor, and its share of the time taken."""
    if work is None:
        return {}
    figures = {"GB/s": work.n_bytes / seconds / 1e9}
    if work.flops:
        figures["GFLOP/s"] = work.flops / seconds / 1e9
    least = floor.seconds(work)
    if least is not None:
        figures |= {"floor, ms": 1e3 * least, "floor / time": least / seconds}
    return {name: rounded(value) for name, value in figures.items()}


def rounded(value: float) -> float:
    """Four digits: times have no more that repeat."""
    return float(f"{value:.4g}")
