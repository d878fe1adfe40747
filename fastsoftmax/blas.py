"""Products by a BLAS that is held to one thread.

The bits of a BLAS product depend on how many threads the library uses, and threads that stay awake
after it compete with those of the kernels. OpenBLAS, as numpy and scipy bring it, has one such
number for the whole process: `openblas_set_num_threads_local` changes that one too. So each product
of a fit that is large enough to be shared sets the number to 1 and puts back what was there, in 2
microseconds. Between products (in callbacks, in the kernels' passes, while a greenlet waits)
everybody sees their own number. A limit around the whole fit could not be taken back in every order
of events: whoever enters `threadpool_limits` during the fit notes 1 as the number to restore, and
restores it when the fit is over.

What remains: another thread that enters or leaves such a limit while a product runs. If it enters
then and leaves later, it restores 1; if it changes the number between the steps of a LAPACK
function, the bits may change.
"""

import functools
import itertools
import operator
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from fastsoftmax.arrays import Array

P = ParamSpec("P")
R = TypeVar("R")

# Multiply-adds of a product that no library shares among threads. OpenBLAS does from these on:
# products of vectors 10,000, of a matrix and a vector 9,216, of matrices 262,144.
LEAST_SHARED = 1 << 13


# Functions that return and set the number of threads, whatever a library calls them.
_OPENMP = [("omp_get_max_threads", "omp_set_num_threads")]
_OPENBLAS = [
    (f"{before}openblas_get_num_threads{after}", f"{before}openblas_set_num_threads{after}")
    for before, after in itertools.product(("", "scipy_"), ("", "64_", "_64"))
]


class _Library(NamedTuple):
    """The number of threads of a BLAS library."""

    get: Callable[[], Any]
    set: Callable[[int], Any]


class _Libraries(NamedTuple):
    """Those with one number for the process, and those with one for each thread."""

    shared: list[_Library]
    own: list[_Library]


def _libraries() -> _Libraries:
    return _loaded("scipy.linalg" in sys.modules)


@functools.cache
def _loaded(with_scipy: bool) -> _Libraries:
    """Return the libraries that are loaded; scipy, once it is, brings its own."""
    from threadpoolctl import ThreadpoolController  # functions of arrays do without it

    found = _Libraries([], [])
    for controller in ThreadpoolController().select(user_api="blas").lib_controllers:
        if getattr(controller, "threading_layer", "") == "openmp":
            found.own.append(_functions(controller, _OPENMP))
        else:
            found.shared.append(_functions(controller, _OPENBLAS))
    return found


def _functions(controller: Any, names: list[tuple[str, str]]) -> _Library:
    """Return the library's own functions, or threadpoolctl's for other libraries.

    threadpoolctl >= 3.8 lets one thread at a time set OpenBLAS's number, and does nothing in all
    others.
    """
    for get, set_ in names:
        if hasattr(controller.dynlib, get) and hasattr(controller.dynlib, set_):
            return _Library(getattr(controller.dynlib, get), getattr(controller.dynlib, set_))
    return _Library(controller.get_num_threads, controller.set_num_threads)


class _Limit:
    """One thread for each library that is shared, while somebody holds the limit."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._lock = threading.Lock()
        self._holders: set[object] = set()
        self._before: list[int] = []  # number of each library, while there are holders

    def take(self, holder: object) -> None:
        """Set all numbers to 1. A number that was changed since the first holder is theirs."""
        shared = _libraries().shared
        with self._lock:
            self._holders.add(holder)
            numbers = [library.get() for library in shared]
            if not self._before:
                self._before = numbers
            for i, library in enumerate(shared):
                if numbers[i] != 1:
                    self._before[i] = numbers[i]
                    library.set(1)

    def leave(self, holder: object) -> None:
        """Restore the numbers after the last holder, unless somebody changed them meanwhile."""
        with self._lock:
            self._holders.discard(holder)
            if not self._holders:
                self._restore()

    def _restore(self) -> None:
        for library, number in zip(_libraries().shared, self._before, strict=False):
            if number != 1 and library.get() == 1:
                library.set(number)
        self._before = []

    def after_fork(self) -> None:
        """Restore what threads hold that the child does not have."""
        if self._before:
            self._restore()
        self.forget()


_limit = _Limit()
_here = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit.after_fork)


def single_threaded_blas(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function whose products BLAS would share among threads.

    It calls nothing that is the user's, so that nobody sees the number of threads of that time.
    """

    @functools.wraps(function)
    def held(*args: P.args, **kwargs: P.kwargs) -> R:
        holder = getattr(_here, "holder", None)
        if holder is not None:  # one of these calls another
            _limit.take(holder)
            return function(*args, **kwargs)
        holder = object()
        try:
            _here.holder = holder
            _limit.take(holder)
            return in_own_thread(function, *args, **kwargs)
        finally:
            _here.holder = None
            try:
                _limit.leave(holder)
            except BaseException:  # a signal's, before or while it restored
                _limit.leave(holder)
                raise

    return held


def in_own_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function with 1 as the number of libraries that have one for each thread."""
    own = _libraries().own
    if not own:
        return function(*args, **kwargs)
    before = [library.get() for library in own]

    def restore() -> None:
        for library, number in zip(own, before, strict=True):
            library.set(number)

    try:
        for library in own:
            library.set(1)
        return function(*args, **kwargs)
    finally:
        try:
            restore()
        except BaseException:  # a signal's, before or while it restored
            restore()
            raise


def product(a: Any, b: Any) -> Any:
    """Return a @ b."""
    if a.size * (b.shape[1] if b.ndim > 1 else 1) < LEAST_SHARED:
        return a @ b
    return _product(a, b)


def inner(a: Array, b: Array) -> float:
    """Return the sum of the products of the elements of two arrays."""
    return float(np.vdot(a, b) if a.size < LEAST_SHARED else _inner(a, b))


_product = single_threaded_blas(operator.matmul)
_inner = single_threaded_blas(np.vdot)
