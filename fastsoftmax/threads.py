"""Threads that the system may refuse, and a main thread that answers signals."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from fastsoftmax.arrays import Array
from fastsoftmax.blas import in_own_thread, single_threaded_blas

T = TypeVar("T")
R = TypeVar("R")

# Order of a matrix whose inverse or eigenvectors take some hundredths of a second.
_LARGE = 512


def in_threads(
    function: Callable[[T], Array], arguments: Iterable[T], n_threads: int
) -> Iterator[Array]:
    """Yield function(argument) in order; calls that let go of the GIL run side by side.

    Each call computes by itself what it would alone, so the bits do not depend on n_threads. Where
    the system refuses threads, those that there are do the work.
    """
    calls: SimpleQueue[tuple[Future[Array], T] | None] = SimpleQueue()

    def work() -> None:
        while (call := calls.get()) is not None:
            _compute(*call)

    def _compute(outcome: Future[Array], argument: T) -> None:
        if outcome.set_running_or_notify_cancel():
            _set_outcome(outcome, function, argument)

    n_started = 0
    while n_threads > 1 and n_started < n_threads and _start(work, "fastsoftmax", daemon=False):
        n_started += 1
    if n_started == 0:
        yield from map(function, arguments)
        return
    waiting: deque[Future[Array]] = deque()
    try:
        for argument in arguments:
            waiting.append(Future())
            calls.put((waiting[-1], argument))
            if len(waiting) > n_started:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for outcome in waiting:  # after Ctrl-C, for example: nobody wants them any more
            outcome.cancel()
        for _ in range(n_started):
            calls.put(None)


def _start(function: Callable[[], None], name: str, *, daemon: bool) -> bool:
    """Start a thread. Returns whether the system allowed it."""
    try:
        threading.Thread(target=function, name=name, daemon=daemon).start()
    except (RuntimeError, MemoryError):  # "can't start new thread"
        return False
    return True


def _set_outcome(outcome: Future[R], function: Callable[..., R], *args: Any) -> None:
    try:
        outcome.set_result(function(*args))
    except BaseException as error:  # raised where the result is asked for
        outcome.set_exception(error)


@single_threaded_blas
def answering_signals(order: int, function: Callable[..., R], *args: Any) -> R:
    """Return function(*args), computed in another thread while the main one waits.

    For what a library computes in one call from matrices of a large order, such as eigenvectors: it
    would keep Python from answering Ctrl-C for seconds. Nothing can end such a call: after an
    interruption it goes on to its end, and its result is dropped, so it may write to nothing that
    is used afterwards. Small matrices, and other threads than the main one, make no detour; nor is
    there one where the system refuses another thread.
    """
    if order < _LARGE or threading.current_thread() is not threading.main_thread():
        return function(*args)
    outcome: Future[R] = Future()
    context = contextvars.copy_context()  # numpy's error state among it

    def run() -> None:
        _set_outcome(outcome, context.run, in_own_thread, function, *args)

    if not _start(run, "fastsoftmax-linalg", daemon=True):
        return function(*args)
    return outcome.result()
