"""Small linear algebra that several parts of the package share."""

import numpy as np

from fastsoftmax.arrays import Array


def length(vector: Array) -> float:
    """Euclidean length, finite also where squares are not."""
    most = float(np.finfo(np.float64).max)
    largest = min(float(np.max(np.abs(vector), initial=0.0)), most)
    if largest == 0.0:
        return 0.0
    return min(largest * float(np.linalg.norm(vector / largest)), most)
