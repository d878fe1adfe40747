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

    def __iter__(self) -> Iterator[Any]:
        """Read all batches: (X, y), (X, y, sample_weight), or X alone without y."""
        return self.read(Buffers())

    @abstractmethod
    def read(self, buffers: "Buffers") -> Iterator[Any]:
        """Read all batches, in their order, into buffers, which may be those of an earlier pass."""

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


def _holders(item: Any) -> int:
    """Return how many references there are to an item, with those of the caller and the call."""
    return sys.getrefcount(item)


_PAGE = 4096


def _alone() -> int:
    item = object()
    return _holders(item)


_ALONE = _alone()  # where only the caller holds it


class Buffers:
    """Memory for blocks, used again when nobody holds an array of it any more.

    New memory costs as much as half of reading it: the system fills it with zeros. So all are large
    enough for every block, and passes use those of the passes before. Threads may take at the same
    time: what one looks at is not in the list.
    """

    def __init__(self) -> None:
        self._held: list[Array] = []
        self._least = 0

    def reserve(self, n_bytes: int) -> None:
        """Make new ones large enough for blocks of so many bytes."""
        self._least = max(self._least, n_bytes)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any], place: int = 0) -> Array:
        """Return an array of any content.

        place is that of the content in its file. Copies are a fifth faster where both begin at the
        same place of a page.
        """
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        others: list[Array] = []
        found = None
        while found is None and self._held:
            try:
                free = self._held.pop()
            except IndexError:  # another thread has taken it
                break
            if _holders(free) <= _ALONE and free.nbytes >= n_bytes + _PAGE:
                found = free
            else:
                others.append(free)
            del free
        if found is None:
            found = np.empty(max(n_bytes, self._least) + _PAGE, dtype=np.uint8)
        first = (place - found.ctypes.data) % _PAGE
        first -= (found.ctypes.data + first) % dtype.alignment
        taken = found[first : first + n_bytes].view(dtype).reshape(shape)
        self._held += [*others, found]
        return taken
