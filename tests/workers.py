"""What processes that share the tests among them (``pytest -n 2``) do otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def one_thread_in_workers() -> Iterator[None]:
    """Give libraries that are loaded inside one thread, unless told otherwise, in such a process.

    There are as many of these as cores, and threads that wait for each other would be slow. Tests
    that ask for a number of threads get it, and children of this process have no limit.
    """
    missing = [name for name in _LIMITS if name not in os.environ]
    if "PYTEST_XDIST_WORKER" not in os.environ:
        missing = []
    os.environ.update(dict.fromkeys(missing, "1"))
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
