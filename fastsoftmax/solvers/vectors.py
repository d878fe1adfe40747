"""Sums and products of the solvers' vectors: by the backend's threads where they are long."""

from types import ModuleType

import numpy as np
from scipy.linalg.blas import daxpy

from fastsoftmax.arrays import Array
from fastsoftmax.blas import LEAST_SHARED, inner

# Shorter ones are numpy's. From these on a BLAS would have to be held to one thread, which takes
# longer than the sums (5 microseconds a call, 80 calls in an iteration of L-BFGS).
_LEAST = LEAST_SHARED


class Vectors:
    """Operations on flat float64 vectors; without a backend numpy alone computes."""

    def __init__(self, backend: ModuleType | None = None, n_threads: int = 1) -> None:
        self.backend = backend
        self.n_threads = n_threads

    def dot(self, a: Array, b: Array) -> float:
        """Return the sum of a[i] b[i]."""
        if self.backend is None or len(a) < _LEAST:
            return inner(a, b)
        return float(self.backend.dot(a, b, n_threads=self.n_threads))

    def sum(self, y: Array, scale: float, x: Array) -> Array:
        """Return y + scale x, in a new array."""
        if self.backend is None or len(y) < _LEAST:
            return y + (x if scale == 1.0 else scale * x)
        out = np.empty_like(y)
        self.backend.add_scaled(out, y, scale, x, None, n_threads=self.n_threads)
        return out

    def add(
        self, y: Array, scale: float, x: Array, other: Array | None = None, *, out: Array
    ) -> float:
        """Let out, which may be y, be y + scale x; return its product with other (or 0)."""
        if self.backend is not None and len(y) >= _LEAST:
            product = self.backend.add_scaled(out, y, scale, x, other, n_threads=self.n_threads)
            return float(product)
        if self.backend is None:
            np.add(y, scale * x, out=out)
        else:
            if out is not y:
                out[...] = y
            daxpy(x, out, a=scale)
        return 0.0 if other is None else inner(out, other)

    def multiply(self, y: Array, factor: float) -> None:
        """Multiply y by a number, in place."""
        if self.backend is None or len(y) < _LEAST:
            y *= factor
        else:
            self.backend.add_scaled(y, y, factor - 1.0, y, None, n_threads=self.n_threads)
