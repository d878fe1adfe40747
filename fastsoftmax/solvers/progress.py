"""The progress of a solver, and a prediction of the iterations that are left."""

import math

import numpy as np

from fastsoftmax.arrays import Array

# A prediction uses at least this many past iterations.
_LEAST = 3


class Progress:
    """The bounds of some iterations, in units of the one that is wanted."""

    def __init__(self) -> None:
        self._logs: list[float] = []

    def __len__(self) -> int:
        """Return how many were seen."""
        return len(self._logs)

    def note(self, excess: float) -> None:
        """Record the bound of an iteration; a bound that is larger than the last one is ignored."""
        log = math.log(excess) if excess > 0.0 else -math.inf
        self._logs.append(min(log, self._logs[-1]) if self._logs else log)

    def state(self) -> Array:
        """Return the logarithms of the bounds."""
        return np.array(self._logs)

    def restore(self, logs: Array, growth: float) -> None:
        """Continue after earlier bounds, in units that are smaller by a factor."""
        self._logs = (logs + math.log(growth)).tolist() if 0.0 < growth < math.inf else []

    def remaining(self) -> float | None:
        """Predict the iterations that are left, at the pace of the latest half; None if unknown."""
        n_latest = max(_LEAST, len(self._logs) // 2)
        last, before = self._logs[-1], self._logs[-1 - n_latest]
        if not (math.isfinite(last) and math.isfinite(before)):
            return None if last > 0.0 else 0.0
        return max(last, 0.0) * n_latest / (before - last) if last < before else math.inf
