"""Errors that the user can correct."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """A command cannot be carried out as given; its message is shown without a traceback."""


@contextmanager
def as_command_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into a `CommandError` with the same message."""
    try:
        yield
    except kinds as error:
        raise CommandError(str(error) or type(error).__name__) from error
