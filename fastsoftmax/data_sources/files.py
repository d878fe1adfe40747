"""What all sources of files share: names for errors, memory, and whether a file has changed."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array

# Bytes of a block of rows (48 MB): few enough that two blocks take little memory, and so many that
# a pass over one takes milliseconds. At the end of each block threads wait for each other, which
# costs more where processors are shared.
BLOCK_BYTES = 3 << 24


class Files(ABC):
    """Batches that are read from files, and that errors name by these."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Read all batches, in their order."""

    @abstractmethod
    def place_of(self, number: int) -> tuple[str, int]:
        """Return the file that a batch is of, and the number of its first row there."""


class Seen(NamedTuple):
    """A file as it was when it was first seen."""

    path: Path
    size: int
    changed: int  # time of the last change, in nanoseconds

    def check(self) -> None:
        """Raise a ValueError where the file is another one now, or gone."""
        now = seen(self.path)
        if now != self:
            what = f"{self.size} bytes, now {now.size}" if now.size != self.size else "a later time"
            raise ValueError(
                f"{self.path} has changed since it was first read ({what}): a fit needs the same "
                "rows in every pass"
            )


def seen(path: Path) -> Seen:
    """Return what a file is now; a ValueError where there is none."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    return Seen(path, found.st_size, found.st_mtime_ns)


def _holders(items: list[Any], i: int) -> int:
    """Return how many references there are to an item, those of the list and the call included."""
    return sys.getrefcount(items[i])


_ALONE = _holders([object()], 0)  # where only the list holds it


class Buffers:
    """Memory for blocks, used again when nobody holds an array of it any more."""

    def __init__(self) -> None:
        self._held: list[Array] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array of any content."""
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        free = None
        for i in range(len(self._held)):
            if _holders(self._held, i) <= _ALONE and self._held[i].nbytes >= n_bytes:
                free = self._held[i]
                break
        if free is None:
            free = np.empty(n_bytes, dtype=np.uint8)
            self._held.append(free)
        return free[:n_bytes].view(dtype).reshape(shape)
