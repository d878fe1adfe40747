"""Threads: BLAS limited to one, calls in parallel, and a main thread that answers signals."""

import contextvars
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from fastsoftmax.arrays import Array

T = TypeVar("T")
R = TypeVar("R")

# Order of a matrix whose inverse or eigenvectors take a few hundredths of a second.
_LARGE = 512


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


_lock = threading.Lock()
_users = 0
_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS libraries to one thread.

    The small products of a solver would wake BLAS threads between the passes of the kernels, and
    two spinning thread pools slow each other: a fit took 3.3 s with BLAS threads and 1.2 s without
    (60000 x 784, 10 classes). The limit is for the process. If fits run in several Python threads,
    the first sets it and the last removes it, so that it does not change during a fit (the bits of
    a product depend on its threads).
    """
    global _users, _limit
    with _lock:
        _users += 1
        if _users == 1:
            _limit = _controller().limit(limits=1, user_api="blas")
            _limit.__enter__()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.__exit__(None, None, None)


def in_threads(
    function: Callable[[T], Array], arguments: Iterable[T], n_threads: int
) -> Iterator[Array]:
    """Yield function(argument) in order; calls that release the GIL run in parallel.

    Each call computes the same as without threads, so the bits do not depend on n_threads (with a
    multi-threaded BLAS they would).
    """
    if n_threads == 1:
        yield from map(function, arguments)
        return
    pool = ThreadPoolExecutor(n_threads)
    waiting: deque[Future[Array]] = deque()
    try:
        for argument in arguments:
            context = contextvars.copy_context()  # numpy's error state among it
            waiting.append(pool.submit(context.run, function, argument))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:  # such as Ctrl-C: do not wait for results that nobody needs
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def answering_signals(order: int, function: Callable[..., R], *args: Any) -> R:
    """Return function(*args), computed in another thread while the main thread waits.

    This is for a library call on a matrix of large order, such as eigenvectors, which would keep
    Python from answering Ctrl-C for seconds. Such a call cannot be ended: after an interruption it
    runs to its end and its result is dropped, so it must not write to anything that is used
    afterwards. For small matrices, and outside the main thread, the function is called directly.
    """
    if order < _LARGE or threading.current_thread() is not threading.main_thread():
        return function(*args)
    outcome: Future[R] = Future()
    context = contextvars.copy_context()  # it holds numpy's error state

    def run() -> None:
        try:
            outcome.set_result(context.run(function, *args))
        except BaseException as error:  # raised by outcome.result()
            outcome.set_exception(error)

    threading.Thread(target=run, name="fastsoftmax-linalg", daemon=True).start()
    return outcome.result()
