"""What the solvers ask of others, and what they return.

Solvers know no rows, classes or features. A problem is whatever satisfies these protocols.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.solvers.record import Record, State
from fastsoftmax.solvers.vectors import Vectors

# ---- problems ----


class Point(Protocol):
    """What an evaluation tells the solver."""

    @property
    def value(self) -> float:
        """The objective."""

    @property
    def gradient(self) -> Array:
        """Its gradient, flat; of its smooth part, where the objective is `Composite`."""


E = TypeVar("E", bound=Point)
E_contra = TypeVar("E_contra", bound=Point, contravariant=True)
Seen_contra = TypeVar("Seen_contra", contravariant=True)


class Objective(Protocol[E]):
    """A function to be minimised. Its values are >= 0."""

    @property
    def epsilon(self) -> float:
        """Relative rounding error of the number type of an evaluation."""

    @property
    def vectors(self) -> Vectors:
        """Sums and products of points and gradients."""

    def evaluate(self, point: Array) -> E:
        """Value and gradient."""

    def gap_bound(self, at: E) -> float:
        """Return an upper bound on value - minimum."""

    def noise(self, at: E) -> float:
        """Return the size of errors in value and bound where terms cancel."""

    def sharper_bound(self, at: E, bound: float, wanted: float) -> float:
        """Return a lower bound than the one that is known, if it may be one that is wanted."""

    def tightening(self, at: E, wanted: float) -> Array | None:
        """Return a step that lowers the bound but hardly the value; None if that is not due."""

    def as_new(self, at: E) -> E:
        """Forget sums over the data that were restored from a run whose data may be others.

        Returns the evaluation without them, so that every certificate is of the data of now.
        """


class TwiceDifferentiable(Objective[E], Protocol[E]):
    """What `newton.NewtonModel` asks of an objective besides."""

    def hessian(self, at: E) -> Array:
        """Return the matrix of second derivatives at a point, (n, n), in a new array."""


class Preconditioner(Protocol):
    """An approximation of the inverse Hessian."""

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""


class Refinement(NamedTuple, Generic[Seen_contra]):
    """A better approximation of the inverse Hessian that can be had at a point."""

    cost: float  # in evaluations
    build: Callable[[Seen_contra], Preconditioner]
    most_cost: float  # what it may cost: it can be had again for that, at the same point


class Preconditioned(Objective[E], Protocol[E]):
    """What `lbfgs.LbfgsModel` asks of an objective besides."""

    @property
    def caution(self) -> float:
        """By how much curvature may grow along the first steps, >= 1."""

    def preconditioner(self) -> Preconditioner:
        """Approximate the inverse Hessian, up to a factor, for the start."""

    def curvature_along(self, at: E, direction: Array) -> float:
        """Estimate the product of a direction and the Hessian's product with it."""

    def refinement(self, most_cost: float) -> "Refinement[E] | None":
        """Return the best one for about so many evaluations, or the cheapest; None if none is."""

    def place_of(self, at: E) -> State:
        """Return what a refinement can be built from again."""

    def refined_at(self, place: State, most_cost: float) -> Preconditioner:
        """Build what `refinement` had for this cost, at a place."""


class Blocks(Protocol):
    """A block diagonal matrix: the Hessian for some of the coefficients, near a point."""

    @property
    def index(self) -> Array:
        """Numbers of the coefficients, block by block."""

    @property
    def is_exact(self) -> bool:
        """Whether steps to the minimum of the model that they make are worth taking."""

    def solve(self, vector: Array, free: Array, out: Array) -> None:
        """Write the product of the inverse with a vector, those elements that there are blocks for.

        free holds the numbers of the vector's coefficients, ascending.
        """

    def product(self, vectors: Array) -> Array:
        """Return the product with vectors (n,) or (n, m), in the order of `index`."""

    def solve_among(self, vectors: Array, kept: Array) -> Array:
        """Return the product of the inverse of the rows and columns that are kept with vectors.

        vectors and the mask kept are in the order of `index`; elements not kept are 0.
        """


class Composite(Objective[E], Protocol[E]):
    """A smooth function plus l1 times a 1-norm, as `orthant_wise` asks for it."""

    @property
    def l1(self) -> float:
        """The factor of the 1-norm, > 0."""

    @property
    def n_weights(self) -> int:
        """How many elements of a point, the first ones, are in the 1-norm."""

    def diagonal_bound(self) -> Array:
        """Return the diagonal of the smooth part's Hessian, or a rough idea of it: flat, >= 0."""

    def diagonal(self, at: E) -> Array:
        """Return it near a point; as of diagonal_bound, 0 where that is 0."""

    def free_blocks(self, at: E, free: Array) -> Blocks | None:
        """Return the blocks of some coefficients near a point; None if there are none."""

    def small_hessian(self, at: E) -> Array | None:
        """Return the whole Hessian of the smooth part at a point; None where it is not small."""


class Steps(Protocol):
    """What `sgd` asks of a problem."""

    @property
    def n_rows(self) -> int:
        """How many terms the objective is the mean of."""

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


# ---- runs ----


class Model(Protocol[E_contra]):
    """A quadratic model of the objective around a point, for `descent`."""

    # Relative gap to go on to where `tol` asks for less, because the last digits are cheap; inf
    # where they are not.
    target: float
    # Iterations without a smaller gap, while the value does not fall visibly, after which the
    # precision of the arithmetic counts as exhausted.
    patience: int
    confirmations: int  # in a row, of hardly any expected decrease, before the model is believed

    def look(self, n_iter: int, at: E_contra, excess: float) -> None:
        """See the point that the next direction starts from.

        excess is the bound on value - minimum there, in units of the one that ends the run; it may
        be inf.
        """

    def directions(self, gradient: Array) -> Iterator[Array]:
        """Yield the direction to take, and fallback directions for where it makes no progress."""

    def learn(self, moved: Array, change: Array) -> None:
        """Note a step and the difference of the gradients at its ends."""

    def state(self) -> State:
        """Return what the model needs to go on after an iteration."""

    def restore(self, state: State, growth: float) -> None:
        """Go on as the model that was in a state, in place of what is known.

        growth is by what excesses are larger than they were, because of another tolerance.
        """


@dataclass(frozen=True)
class Limits(Generic[Seen_contra]):
    """When a run ends, and who is told how it goes."""

    tol: float  # bound on (F - min F) / F at which to stop
    max_iter: int  # each costs one evaluation, rarely two
    # called after each iteration; True stops
    on_iteration: Callable[[int, Seen_contra, float], bool] = lambda n_iter, at, gap: False
    expired: Callable[[], bool] = lambda: False  # whether time is up; asked before each iteration
    certified: bool = True  # whether only a bound will do; where not, `descent` takes an estimate
    record: Record = Record()  # noqa: RUF009 (it is frozen) where the state is left, and found


class Result(NamedTuple, Generic[E]):
    """Where a solver stopped, and why."""

    point: Array
    evaluation: E
    gap: float  # relative: bound on (value - minimum) / value
    n_iter: int
    reason: str  # one of those of the solver's `minimise`
    direction: Array | None = None  # the model's last one, not a fallback
    gain: float = np.inf  # relative: what it expected there, half a squared Newton decrement
