"""One thread pool at a time."""

import functools
from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import ThreadpoolController


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def single_threaded_blas() -> AbstractContextManager[Any]:
    """Hold BLAS libraries to one thread.

    The small products of a solver would wake their threads between the passes of the kernels, and
    two pools spin against each other: a fit took 3.3 s with and 1.2 s without (60000 x 784, 10
    classes).
    """
    context: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return context
