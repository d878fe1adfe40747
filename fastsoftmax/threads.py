"""Threads that the system may refuse, and a main thread that answers signals."""

import contextvars
import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from fastsoftmax.arrays import Array
from fastsoftmax.blas import in_own_thread, single_threaded_blas
from fastsoftmax.floating_point import own_arithmetic, users_code

T = TypeVar("T")
R = TypeVar("R")

# Order of a matrix whose inverse or eigenvectors take a few hundredths of a second.
_LARGE = 512
# Multiply-adds of products that are worth a second thread: milliseconds. (With threads for all, a
# fit of digits takes 70 instead of 60 ms.)
_LEAST_WORK = 1 << 25
# Threads of a process that help with calls of functions.
_MOST_HELPERS = 256


def in_threads(
    function: Callable[[T], Array],
    arguments: Iterable[T],
    n_threads: int,
    work: float = math.inf,
) -> Iterator[Array]:
    """Yield function(argument) in order; calls that release the GIL run in parallel.

    Each call computes the same as without threads, so the bits do not depend on n_threads. The
    calling thread makes the calls that no other has begun: it waits only for one that is under way.
    Where the system refuses threads, those that there are do the work. It is done in one where it
    is small; `work` is in multiply-adds.
    """
    if n_threads <= 1 or work < _LEAST_WORK:
        yield from map(function, arguments)
        return
    calls: SimpleQueue[_Call[Array] | None] = SimpleQueue()
    n_helpers = 0
    waiting: deque[Future[Array]] = deque()
    try:
        for argument in arguments:
            waiting.append(Future())
            context = contextvars.copy_context()  # it holds numpy's error state
            calls.put(_Call(waiting[-1], context, function, argument))
            if n_helpers < min(n_threads, len(waiting)) - 1:
                n_helpers = n_helpers + 1 if _helpers.ask(calls) else n_threads
            if len(waiting) > n_threads:
                yield _first(waiting, calls)
        while waiting:
            yield _first(waiting, calls)
    finally:
        for outcome in waiting:  # after Ctrl-C, for example, when the results are not needed
            outcome.cancel()
        calls.put(None)


class _Call(Generic[R]):
    """A call that any thread may make, and its result."""

    def __init__(
        self,
        outcome: Future[R],
        context: contextvars.Context,
        function: Callable[[T], R],
        argument: T,
    ) -> None:
        self._outcome = outcome
        self._run = functools.partial(context.run, function, argument)

    def make(self) -> None:
        """Make it, if it is still wanted. Ctrl-C is an exception here, too."""
        if not self._outcome.set_running_or_notify_cancel():
            return
        _set_outcome(self._outcome, self._run)
        error = self._outcome.exception()
        if error is not None and not isinstance(error, Exception):
            raise error


def _first(waiting: deque[Future[R]], calls: SimpleQueue[_Call[R] | None]) -> R:
    """Return the first result. Until it is there, make calls that nobody has begun."""
    while not waiting[0].done():
        try:
            call = calls.get_nowait()
        except Empty:
            break
        if call is not None:
            call.make()
    return waiting.popleft().result()


class _Helpers:
    """Threads that stay, and make calls of queues until there is a None.

    To start a thread takes until it runs, which may be milliseconds where others want the
    processors. So threads are started once.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a forked child, which has none of the threads."""
        self._pool = ThreadPoolExecutor(_MOST_HELPERS, thread_name_prefix="fastsoftmax")

    def ask(self, calls: SimpleQueue[Any]) -> bool:
        """Have one more thread make calls. Returns whether the system allowed it."""
        try:
            self._pool.submit(_help, calls)
        except (RuntimeError, MemoryError):  # "can't start new thread"
            return False
        return True


def _help(calls: SimpleQueue[_Call[Any] | None]) -> None:
    while (call := calls.get()) is not None:
        call.make()
    calls.put(None)  # for the others


_helpers = _Helpers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.forget)


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

    if not _start(read, "fastsoftmax-reading"):
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


def _start(function: Callable[[], None], name: str) -> bool:
    """Start a thread that ends with the process. Returns whether the system allowed it."""
    try:
        threading.Thread(target=function, name=name, daemon=True).start()
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

    if not _start(run, "fastsoftmax-linalg"):
        return function(*args)
    return outcome.result()
