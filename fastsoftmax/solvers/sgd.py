"""Mini-batch stochastic gradient descent with momentum and a constant learning rate.

The update is that of `torch.optim.SGD`: velocity = momentum * velocity + g;
params -= learning_rate * velocity, where g is the gradient of a batch, the penalty's included.
"""

from collections.abc import Callable

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.protocols import Steps


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

    on_epoch (epoch, running mean loss, running accuracy) is called after each epoch, counted from
    1; True stops. Returns the epochs that were run: fewer than n_epochs if on_epoch stopped, or if
    the loss ceased to be finite.
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
