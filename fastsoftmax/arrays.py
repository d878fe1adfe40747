"""What every module says of arrays: their type, numbers of logits, and rows a few at a time."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

# Of a model, and of the bridge to the kernels.
MOST_CLASSES = 1 << 24


def count_logits(n_classes: int) -> int:
    """Return the number of logits of a model: one for two classes, otherwise one for each class."""
    return 1 if n_classes == 2 else n_classes


def slices(n_rows: int, size: int) -> Iterator[slice]:
    """Yield slices of adjacent rows, `size` rows each but for the last one."""
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))
