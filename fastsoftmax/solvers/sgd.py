"""Mini-batch stochastic gradient descent with momentum and a constant learning rate.

The update is that of `torch.optim.SGD` (weight decay is the gradient of the penalty, on the weights
alone): velocity = momentum * velocity + g; params -= learning_rate * velocity.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from fastsoftmax.arrays import Array


class Steps(Protocol):
    """What the solver asks of a problem."""

    n_rows: int

    def sgd_steps(
        self,
        params: Array,
        velocity: Array | None,
        order: Array,
        batch_size: int,
        learning_rate: float,
        momentum: float,
    ) -> tuple[float, float]:
        """Run the batches of `order`; params and velocity change in place.

        Returns mean loss and accuracy over the rows, as each batch saw them before its update.
        """


def descend(
    objective: Steps,
    params: Array,
    *,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    rng: np.random.RandomState,
    on_epoch: Callable[[int, float, float], bool] = lambda epoch, loss, accuracy: False,
) -> int:
    """Run epochs over freshly shuffled rows; params change in place.

    Parameters
    ----------
    objective : Steps
    params : ndarray, flat
    n_epochs, batch_size : int
    learning_rate, momentum : float
    rng : RandomState
    on_epoch : callable (epoch, running mean loss, running accuracy) -> bool
        Called after each epoch, counted from 1; True stops.

    Returns
    -------
    int
        Epochs that were run. Fewer than n_epochs if on_epoch stopped, or if the loss ceased to be
        finite.
    """
    velocity = np.zeros_like(params) if momentum else None
    for epoch in range(1, n_epochs + 1):
        order = rng.permutation(objective.n_rows).astype(np.int64, copy=False)
        loss, accuracy = objective.sgd_steps(
            params, velocity, order, batch_size, learning_rate, momentum
        )
        if on_epoch(epoch, loss, accuracy) or not np.isfinite(loss):
            return epoch
    return n_epochs
