"""interim"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """When a solver stops, and who is told how it goes."""

    tol: float
    max_iter: int
    on_iteration: Callable[[int, Any, float], bool] = lambda n_iter, at, gap: False
    expired: Callable[[], bool] = lambda: False
