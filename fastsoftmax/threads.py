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
from fastsoftmax.floating_point import own_arithmetic, users_code

T = TypeVar("T")
R = TypeVar("R")

# Order of a matrix whose inverse or eigenvectors take a few hundredths of a second.
_LARGE = 512


def in_threads(
    function: Callable[[T], Array], arguments: Iterable[T], n_threads: int
) -> Iterator[Array]:
    """Yield function(argument) in order; calls that release the GIL run in parallel.

    Each call computes the same as without threads, so the bits do not depend on n_threads. Where
    the system refuses threads, those that there are do the work.
    """
    calls: SimpleQueue[tuple[Future[Array], contextvars.Context, T] | None] = SimpleQueue()

    def work() -> None:
        while (call := calls.get()) is not None:
            outcome, context, argument = call
            if outcome.set_running_or_notify_cancel():
                _set_outcome(outcome, context.run, function, argument)

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
            context = contextvars.copy_context()  # it holds numpy's error state
            calls.put((waiting[-1], context, argument))
            if len(waiting) > n_started:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for outcome in waiting:  # after Ctrl-C, for example: nobody needs the results
            outcome.cancel()
        for _ in range(n_started):
            calls.put(None)


def read_ahead(items: Iterator[T], n_ahead: int = 1) -> Iterator[T]:
    """Yield the items of an iterator, which a thread reads: at most n_ahead before they are used.

    Where the system refuses a thread, the items are read when they are asked for. The thread ends
    with the iteration, also if that is left early; it is not waited for where an item takes long.
    """
    slots, found = threading.Semaphore(n_ahead), SimpleQueue[tuple[bool, Any]]()
    is_over = threading.Event()
    with users_code():  # the iterator may run code of the user's, in their error state
        context = contextvars.copy_context()
    step = own_arithmetic(next)

    def read() -> None:
        try:
            while slots.acquire() and not is_over.is_set():
                found.put((True, context.run(step, items)))
        except BaseException as error:  # StopIteration too: raised where the item is asked for
            found.put((False, error))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    if not _start(read, "fastsoftmax-reading", daemon=True):
        yield from items
        return
    try:
        while True:
            is_item, item = found.get()
            if not is_item:
                if isinstance(item, StopIteration):
                    return
                raise item
            slots.release()
            yield item
            del item  # its memory may be used again
    finally:
        is_over.set()
        slots.release()


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
    """Return function(*args), computed in another thread while the main thread waits.

    This is for a library call on a matrix of large order, such as eigenvectors, which would keep
    Python from answering Ctrl-C for seconds. Such a call cannot be ended: after an interruption it
    runs to its end and its result is dropped, so it must not write to anything that is used
    afterwards. For small matrices, outside the main thread, and where the system refuses another
    thread, the function is called directly.
    """
    if order < _LARGE or threading.current_thread() is not threading.main_thread():
        return function(*args)
    outcome: Future[R] = Future()
    context = contextvars.copy_context()  # it holds numpy's error state

    def run() -> None:
        _set_outcome(outcome, context.run, in_own_thread, function, *args)

    if not _start(run, "fastsoftmax-linalg", daemon=True):
        return function(*args)
    return outcome.result()
