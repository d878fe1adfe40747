"""One thread pool at a time, and a main thread that answers signals."""

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

# Order of a matrix whose inverse or eigenvectors take some hundredths of a second.
_LARGE = 512


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


_lock = threading.Lock()
_users = 0
_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS libraries to one thread.

    The small products of a solver would wake their threads between the passes of the kernels, and
    two pools spin against each other: a fit took 3.3 s with and 1.2 s without (60000 x 784, 10
    classes). The limit is of the process: of fits in several Python threads the first sets it and
    the last takes it away, so that none of them sees it change (the bits of a product depend on
    its threads).
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
    """Yield function(argument) in order; calls that let go of the GIL run side by side.

    Each call computes by itself what it would alone, so the bits do not depend on n_threads (those
    of a BLAS with threads of its own would).
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
    except BaseException:  # such as Ctrl-C, which does not wait for what nobody wants any more
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def answering_signals(order: int, function: Callable[..., R], *args: Any) -> R:
    """Return function(*args), computed in another thread while the main one waits.

    For what a library computes in one call from matrices of a large order, such as eigenvectors: it
    would keep Python from answering Ctrl-C for seconds. Nothing can end such a call: after an
    interruption it goes on to its end, and its result is dropped, so it may write to nothing that
    is used afterwards. Small matrices, and other threads than the main one, make no detour.
    """
    if order < _LARGE or threading.current_thread() is not threading.main_thread():
        return function(*args)
    outcome: Future[R] = Future()
    context = contextvars.copy_context()  # numpy's error state among it

    def run() -> None:
        try:
            outcome.set_result(context.run(function, *args))
        except BaseException as error:  # raised where the result is asked for
            outcome.set_exception(error)

    threading.Thread(target=run, name="fastsoftmax-linalg", daemon=True).start()
    return outcome.result()
