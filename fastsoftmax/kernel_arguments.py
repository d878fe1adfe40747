"""What travels to the kernels as one object, apart from rows and targets."""

from typing import NamedTuple

from fastsoftmax.arrays import Array


class Descent(NamedTuple):
    """How mini-batch steps go."""

    batch_size: int
    learning_rate: float
    momentum: float
    l2: float
    fit_bias: bool
    squared_scale: Array | None = None
    center: Array | None = None


class GradientTerms(NamedTuple):
    """What the gradient of F is made of, beside sums over the rows."""

    center: Array
    scale: Array | None
    base: Array | None
    share: float
    l2: float


class NewtonSettings(NamedTuple):
    """What Newton's method for small problems is told."""

    class_share: Array
    l2: float
    fit_intercept: bool
    tol: float
    target: float
