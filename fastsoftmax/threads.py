"""One thread pool at a time."""

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Array = NDArray[Any]
T = TypeVar("T")


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
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[Array]] = deque()
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
