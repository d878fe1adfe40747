"""What a pass over the rows tells of F at one point, and what a pass is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner
from fastsoftmax.cached import cached_property


class Dots(NamedTuple):
    """Sums over the coefficients that certificates are made of; r is the gradient of F by V."""

    rr: float
    rv: float
    rb: float | None  # b is `BaseGradient.gradient`, which may not be known yet
    vb: float | None


class BaseGradient(NamedTuple):
    """Gradient of the mean cross-entropy by V of centred features, rows at `class_share`."""

    gradient: Array  # (n_logits, n_features)
    square: float  # its squared length


class Located(Protocol):
    """Where a Hessian is taken."""

    @property
    def weights(self) -> Array:
        """Coefficients (n_logits, n_features) for raw features."""

    @property
    def bias(self) -> Array:
        """Intercepts (n_logits,) for raw features."""


class Place(NamedTuple):
    """Such a place, and nothing else."""

    weights: Array
    bias: Array


class Seen(Located, Protocol):
    """What a fit tells of a point while it runs."""

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""

    @property
    def accuracy(self) -> float:
        """Weighted share of the rows whose largest logit is that of the target."""

    @property
    def value(self) -> float:
        """F."""


@dataclass(frozen=True)
class Evaluation:
    """F at one point."""

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
    origin: "Pass"
    scaled_weights: Array | None = None  # V, from a pass over centred rows
    centered_residual: Array | None = None  # gradient by V of centred features, from such a pass


class SeenElsewhere:
    """A point that was found in other unknowns; its coefficients are made when asked for."""

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


class Pass(Protocol):
    """How F is computed: by passes over the rows as they are stored, or over centred ones."""

    epsilon: float  # relative rounding error of the number type

    def evaluate(self, point: Array) -> Evaluation:
        """Evaluate F at a solver's vector."""

    def evaluate_coefficients(self, weights: Array, bias: Array) -> Evaluation:
        """Evaluate F at weights and bias for raw features."""

    def coefficients(self, point: Array) -> tuple[Array, Array]:
        """Return weights and bias for raw features as the pass sees them."""

    def rounded(self, at: Evaluation) -> Evaluation:
        """Evaluate the coefficients in the number type of X; at itself where they are."""

    def base(self) -> BaseGradient:
        """Return the gradient at the class shares; the first call may take a pass."""

    def known_base(self) -> Array | None:
        """Return the gradient that `base` returns, where that needs no pass."""

    def note_base(self, gradient: Array) -> None:
        """Keep the gradient that `base` returns, where it is known from elsewhere."""

    def mean_shift(self) -> Array | None:
        """Return the mean of the centred and scaled features that rounding left; if known."""

    def noise(self, at: Evaluation) -> float:
        """Return the size of errors in F and its bound where terms cancel."""

    def gradient_error(self, at: Evaluation, units: Array) -> float:
        """Return the length of the errors in the gradient by V, each feature's times its unit."""


def square_of(gradient: Array) -> BaseGradient:
    """Return a base gradient with its squared length."""
    return BaseGradient(gradient, inner(gradient, gradient))
