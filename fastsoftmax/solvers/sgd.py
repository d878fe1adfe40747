"""Mini-batch stochastic gradient descent with momentum and a constant learning rate.

The update is that of `torch.optim.SGD`: velocity = momentum * velocity + g;
params -= learning_rate * velocity, where g is the gradient of a batch, the penalty's included.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.protocols import Steps
from fastsoftmax.solvers.record import (
    Damaged,
    State,
    array_in,
    count_in,
    finite_in,
    number_in,
    part_of,
)


@dataclass
class Run:
    """The state of a run, which epochs change (params and velocity in place)."""

    params: Array
    rng: np.random.RandomState
    velocity: Array | None = None  # None means 0
    n_epochs: int = 0

    def state(self) -> State:
        """Return copies of all that is needed to go on."""
        _, keys, place, has_normal, normal = self.rng.get_state()
        state: State = {
            "params": self.params.copy(),
            "n_epochs": self.n_epochs,
            "rng": {"keys": keys, "place": place, "has_normal": has_normal, "normal": normal},
        }
        return state if self.velocity is None else {**state, "velocity": self.velocity.copy()}


def run_from(state: State, like: Array) -> Run:
    """Return a run that goes on from a state; like has the shape and the number type of params."""
    real = like.dtype
    params, velocity = finite_in(state, "params", like.shape, real).astype(real), None
    if "velocity" in state:
        velocity = finite_in(state, "velocity", like.shape, real).astype(real)
    left, rng = part_of(state, "rng"), np.random.RandomState()
    keys = array_in(left, "keys").astype(np.uint32)
    normal = count_in(left, "has_normal"), number_in(left, "normal")
    try:
        rng.set_state(("MT19937", keys, count_in(left, "place"), *normal))
    except (ValueError, TypeError, OverflowError) as error:
        raise Damaged(f"rng is no state: {error}") from error
    return Run(params, rng, velocity, count_in(state, "n_epochs"))


def descend(
    objective: Steps,
    run: Run,
    *,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    on_epoch: Callable[[int, float, float], bool] = lambda epoch, loss, accuracy: False,
    leave: Callable[[State], None] | None = None,
) -> int:
    """Run epochs over freshly shuffled rows, up to n_epochs with those that were run before.

    on_epoch (epoch, running mean loss, running accuracy) is called after each epoch, counted from
    1; True stops. leave gets the state after each. Returns the epochs that were run: fewer than
    n_epochs if on_epoch stopped, or if the loss ceased to be finite.
    """
    if momentum and run.velocity is None:
        run.velocity = np.zeros_like(run.params)
    while run.n_epochs < n_epochs:
        order = run.rng.permutation(objective.n_rows).astype(np.int64, copy=False)
        loss, accuracy = objective.sgd_steps(
            run.params, run.velocity, order, batch_size, learning_rate, momentum
        )
        run.n_epochs += 1
        stop = on_epoch(run.n_epochs, loss, accuracy)
        if leave is not None and np.isfinite(loss):
            leave(run.state())
        if stop or not np.isfinite(loss):
            break
    return run.n_epochs
