"""Numpy's floating-point error state: our own while we compute, the user's while their code runs.

`numpy.seterr` and `numpy.errstate` say what underflow, overflow and the like do in all code of a
thread. What users want to hear of their own arithmetic says nothing of ours, in which a probability
that underflows is an ordinary number. So every public function computes in a state that ignores
all, and callbacks, scorers, batches and splitters run in the state that users have set.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Section:
    """Code that runs in our own error state; it can be left and entered again, until it ends.

    A signal's handler may raise between any two steps. So each step leaves something that the next
    ones put right, and may be taken twice; `numpy.errstate` fails where it is left twice.
    """

    def __init__(self) -> None:
        self._users: Any = None  # their state, as far as it is known
        self._is_ours = self._is_over = False

    def enter(self) -> None:
        if self._is_over:
            return
        if not self._is_ours:
            self._users = np.geterr()
        self._is_ours = True
        np.seterr(all="ignore")
        _section.set(self)

    def leave(self) -> None:
        _section.set(None)
        if self._users is not None:
            np.seterr(**self._users)
        self._is_ours = False

    def end(self) -> None:
        self._is_over = True  # also for the remains of a `users_code` that is ended later
        self.leave()


_section: ContextVar[_Section | None] = ContextVar("fastsoftmax_floating_point", default=None)


def own_arithmetic(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function: it computes without traps and warnings of numpy's."""

    @functools.wraps(function)
    def computing(*args: P.args, **kwargs: P.kwargs) -> R:
        if _section.get() is not None:  # one of ours calls another
            return function(*args, **kwargs)
        section = _Section()
        try:
            section.enter()
            return function(*args, **kwargs)
        finally:
            try:
                section.end()
            except BaseException:  # a signal's, before or while it ended
                section.end()
                raise

    return computing


def is_own_arithmetic() -> bool:
    """Whether a public function runs, so that `users_code` is in charge of what users have set."""
    return _section.get() is not None


@contextmanager
def users_code() -> Iterator[None]:
    """Run code of the user's inside ours, in the error state that the user has set."""
    section = _section.get()
    if section is None:
        yield
        return
    try:
        section.leave()
        yield
    finally:
        section.enter()


def users_items(iterable: Iterable[T]) -> Iterator[T]:
    """Yield what an iterable of the user's does."""
    with users_code():
        iterator = iter(iterable)
    while True:
        with users_code():
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
        del item  # its memory may be used for the next one
