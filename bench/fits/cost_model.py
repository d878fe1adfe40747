"""What a fit costs, on paper: operations, bytes and seconds from the size of the rows.

docs/scale.md explains the formulas. n rows, d features, K classes; m rows for a preconditioner.

    a pass            4 n d K operations; reads n d numbers
    a preconditioner  2 (m d^2 + 20 d^3 + 3 m K d) operations, m = min(n, max(4096, 16 d))
    an iteration      4 K d^2 operations; moves 20 vectors of K (d + 1) numbers
    the start         as much as a pass, and 3 times reading X

They are for many classes and dense rows, where one matrix is shared by the preconditioners of all
classes. Where classes or features are few other preconditioners are taken.
"""

import math
from dataclasses import dataclass, replace

VECTOR_BYTES = 8  # the solver's numbers are float64
# Vectors of all coefficients that are in memory at the peak of a fit, where no fit was measured:
# 20000 x 768, K = 1000 took 136 MB without X.
VECTORS = 19.0
VECTORS_MOVED = 20.0  # in an iteration: the step, the gradient, the pairs, the preconditioner
LEAST_ROWS, ROWS_PER_FEATURE = 4096, 16  # of a preconditioner
EIGEN = 20.0  # multiply-adds of the eigenvectors of a matrix, for each d^3
READS, ROW_BYTES = 3.0, 12.0  # of X before the first pass; of a label and its weight
EFFICIENCY = 0.95  # of twice as many cores, where one thread alone was not measured


@dataclass(frozen=True)
class Size:
    """Rows to fit."""

    n_rows: int
    n_features: int
    n_classes: int
    number_bytes: int  # of a number of X as it is stored

    @property
    def x_bytes(self) -> float:
        return float(self.n_rows) * self.n_features * self.number_bytes

    @property
    def pass_flops(self) -> float:
        return 4.0 * self.n_rows * self.n_features * self.n_classes

    @property
    def n_coefficients(self) -> float:
        return float(self.n_classes) * (self.n_features + 1)

    @property
    def square_flops(self) -> float:
        """Products of all coefficients with two matrices of d x d."""
        return 4.0 * self.n_classes * float(self.n_features) ** 2

    @property
    def preconditioner_flops(self) -> float:
        d, K = float(self.n_features), float(self.n_classes)
        m = float(min(self.n_rows, max(LEAST_ROWS, ROWS_PER_FEATURE * self.n_features)))
        return 2.0 * (m * d * d + EIGEN * d**3 + 3.0 * m * K * d)


@dataclass(frozen=True)
class Counts:
    """How often a fit does what."""

    iterations: int
    preconditioners: int = 1  # after the first

    @property
    def evaluations(self) -> int:
        """Passes: one an iteration, one at the start, and about one that a line search repeats."""
        return self.iterations + 2


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second, as measured with a number of threads.

    efficiency is how much of its speed each thread keeps where there are twice as many.
    """

    n_threads: int
    flops: float  # of a pass of the size in question
    read_bytes: float
    efficiency: float = EFFICIENCY

    def on(self, n_cores: int) -> "Rates":
        """The same for another number of cores; memory is not taken to become faster."""
        doublings = math.log2(n_cores / self.n_threads)
        gain = n_cores / self.n_threads * self.efficiency**doublings
        return replace(self, n_threads=n_cores, flops=gain * self.flops)


@dataclass(frozen=True)
class Seconds:
    """The parts of a fit's time."""

    passes: float
    preconditioners: float
    iterations: float
    start: float
    one_pass: float

    @property
    def total(self) -> float:
        return self.passes + self.preconditioners + self.iterations + self.start


def seconds(size: Size, counts: Counts, rates: Rates) -> Seconds:
    """Predict the time of a fit."""
    one_pass = max(size.pass_flops / rates.flops, size.x_bytes / rates.read_bytes)
    moved = VECTORS_MOVED * VECTOR_BYTES * size.n_coefficients
    iteration = size.square_flops / rates.flops + moved / rates.read_bytes
    return Seconds(
        passes=counts.evaluations * one_pass,
        preconditioners=counts.preconditioners * size.preconditioner_flops / rates.flops,
        iterations=counts.iterations * iteration,
        start=one_pass + READS * size.x_bytes / rates.read_bytes,
        one_pass=one_pass,
    )


def fixed_bytes(size: Size) -> float:
    """Memory of a fit beside X that no vector takes: matrices of d x d, labels and weights."""
    matrices = 4.0 * VECTOR_BYTES * float(size.n_features) ** 2
    return matrices + ROW_BYTES * size.n_rows


def memory(size: Size, vectors: float = VECTORS) -> float:
    """Predict the peak of memory of a fit beside X, in bytes."""
    return fixed_bytes(size) + vectors * VECTOR_BYTES * size.n_coefficients


def vectors_of(size: Size, n_bytes: float) -> float:
    """How many vectors a measured peak holds, beside X."""
    return max(0.0, n_bytes - fixed_bytes(size)) / (VECTOR_BYTES * size.n_coefficients)
