"""What is handed to the kernels as one object, beside rows and targets.

The backends read the attributes of these; `fastsoftmax.kernels` checks them.
"""

from typing import NamedTuple

from fastsoftmax.arrays import Array


class Descent(NamedTuple):
    """How steps of mini-batch gradient descent are taken; see `sgd_steps` of the backend."""

    batch_size: int
    learning_rate: float
    momentum: float
    l2: float
    fit_bias: bool
    squared_scale: Array | None = None  # (n_features,)
    center: Array | None = None  # (n_features,), only together with squared_scale


class GradientTerms(NamedTuple):
    """What turns sums over rows into the gradient of F; see `assemble_gradient` of the backend."""

    center: Array  # (n_features,)
    scale: Array | None  # (n_features,), None for ones
    base: Array | None  # (n_logits, n_features)
    share: float  # of the sums in the loss
    l2: float


class Scaling(NamedTuple):
    """Coordinates z = scale * (x - center) of rows; see `hessian_sums` of the backend."""

    center: Array  # (n_features,)
    scale: Array | None  # (n_features,), None for ones
    with_bias: bool  # whether a 1 stands behind them


class NewtonSettings(NamedTuple):
    """What Newton's method needs beside rows and targets; see `newton_steps` of the backend."""

    scaling: Scaling  # the coordinates of the rows
    class_share: Array  # (n_classes,) mean smoothed target of each class
    l2: float
    tol: float
    target: float
