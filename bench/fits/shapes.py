"""The grid of everyday data: what is fitted by `everyday.py`. A new shape is a line of `SHAPES`."""

from typing import NamedTuple

import numpy as np
from fits.workloads import Workload
from measuring import problems, tabular
from measuring.problems import Problem


class Shape(NamedTuple):
    """A problem by its size.

    Parameters
    ----------
    kind : str
        Of `tabular.table`; or "images" (the packaged ones, pixels / 255), "made images" (more of
        them, see `problems.fashion`), "hashed text" (`problems.text`: most columns are empty).
    n_rows, n_features, n_classes : int
    dtype : str
    C : float
    """

    kind: str
    n_rows: int
    n_features: int
    n_classes: int
    dtype: str = "float64"
    C: float = 1.0

    @property
    def name(self) -> str:
        size = f"{self.kind} {self.n_rows}x{self.n_features} K{self.n_classes}"
        dtype = "" if self.dtype == "float64" else f" {self.dtype}"
        return size + dtype + (f" C{self.C:g}" if self.C != 1.0 else "")

    @property
    def workload(self) -> Workload:
        return Workload(self.kind, self.problem, self.C)

    def problem(self, scale: float) -> Problem:
        """The rows; their number is multiplied by scale."""
        n_rows = problems.scaled_rows(self.n_rows, scale)
        if self.kind == "images":
            made = problems.packaged()
            X, labels = made.X[:n_rows], made.labels[:n_rows]
            return made._replace(X=X, labels=labels).stored_as(self.dtype, 1 / 255)
        if self.kind == "made images":
            return problems.fashion(n_rows).stored_as(self.dtype, 1 / 255)
        size = n_rows, self.n_features, self.n_classes
        made = (
            problems.text(*size) if self.kind == "hashed text" else tabular.table(self.kind, *size)
        )
        return made._replace(X=made.X.astype(np.dtype(self.dtype), copy=False))


SHAPES = [
    Shape("normal", 100, 3, 2),
    Shape("normal", 150, 4, 3),
    Shape("normal", 500, 10, 2),
    Shape("normal", 3_000, 20, 4),
    Shape("normal", 20_000, 25, 2),
    Shape("normal", 20_000, 20, 10),
    Shape("normal", 100_000, 50, 2),
    Shape("normal", 200_000, 40, 2),
    Shape("normal", 1_000_000, 10, 2),
    Shape("normal", 4_000, 400, 2),
    Shape("normal", 1_500, 1_500, 2),
    Shape("normal", 2_000, 2_000, 2),
    Shape("normal", 20_000, 100, 2, "float32"),
    Shape("normal", 50_000, 50, 10, "float32"),
    Shape("normal", 5_000, 500, 10, "float32"),
    Shape("wide", 300, 2_000, 3),
    Shape("wide", 400, 8_000, 2),
    Shape("correlated", 2_000, 30, 10),
    Shape("correlated", 3_000, 300, 3),
    Shape("correlated", 5_000, 50, 2),
    Shape("correlated", 50_000, 100, 2),
    Shape("raw scales", 500, 10, 3),
    Shape("raw scales", 20_000, 25, 2),
    Shape("raw scales", 20_000, 40, 3),
    Shape("one-hot", 2_000, 50, 2),
    Shape("one-hot", 20_000, 200, 2),
    Shape("one-hot", 50_000, 100, 3),
    Shape("CSR", 5_000, 3_000, 2),
    Shape("CSR", 2_000, 50_000, 10),
    Shape("hashed text", 10_000, 1 << 20, 2),
    Shape("hashed text", 5_000, 1 << 20, 10),
    Shape("imbalanced", 2_000, 20, 3),
    Shape("imbalanced", 20_000, 25, 2),
    Shape("separable", 1_000, 50, 3),
    Shape("separable", 20_000, 25, 2),
    Shape("images", 1_000, 784, 10),
    Shape("images", 1_000, 784, 10, C=0.1),
    Shape("images", 1_000, 784, 10, "float32"),
    Shape("made images", 7_500, 784, 10),
]
