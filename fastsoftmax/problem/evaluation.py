"""What a pass over the rows tells of the objective at one point."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from fastsoftmax.arrays import Array


class Dots(NamedTuple):
    """Sums over the coefficients that certificates are made of; r is the gradient of F by V."""

    rr: float
    rv: float
    rb: float | None  # b is `SoftmaxObjective.base_grad`, which may not be known yet
    vb: float | None


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point."""

    weights: Array  # (n_logits, n_features), as the pass saw them, in its number type
    bias: Array  # (n_logits,) float64, for raw features
    loss: float  # mean cross-entropy, in nats
    accuracy: float  # weighted share of rows whose largest logit is that of the target
    value: float  # F
    square: float  # ||V||^2
    bias_grad: Array  # (n_logits,) gradient of the mean cross-entropy by b
    gradient: Array  # flat, of F without its 1-norm, by the solver's vector
    centered_bias: Array  # (n_logits,) b + W mean(x), or b without an intercept
    dots: Dots


class Seen:
    """What `on_iteration` needs of an evaluation; the coefficients are made when asked for."""

    def __init__(
        self,
        loss: float,
        accuracy: float,
        value: float,
        coefficients: Callable[[], tuple[Array, Array]],
    ) -> None:
        self.loss, self.accuracy, self.value = loss, accuracy, value
        self._make = coefficients

    @cached_property
    def _coefficients(self) -> tuple[Array, Array]:
        return self._make()

    @property
    def weights(self) -> Array:
        """As of `Evaluation`."""
        return self._coefficients[0]

    @property
    def bias(self) -> Array:
        """As of `Evaluation`."""
        return self._coefficients[1]
