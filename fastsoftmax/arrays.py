"""What every module says of arrays: their type, and how many logits a number of classes has."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


def count_logits(n_classes: int) -> int:
    """Return the number of logits of a model: one for two classes, otherwise one for each class."""
    return 1 if n_classes == 2 else n_classes
