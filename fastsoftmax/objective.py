"""F as solvers see it: a problem, the pass that evaluates it, its certificate and its curvature.

`problem.problem` states F and its conventions.
"""

from dataclasses import replace

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.cached import cached_property
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.problem import certificate, curvature, elastic_net
from fastsoftmax.problem.csr_blocks import build_csr_blocks
from fastsoftmax.problem.curvature_bound import SharperBound
from fastsoftmax.problem.curved_span import RowSpan
from fastsoftmax.problem.evaluation import Evaluation, Pass, Place
from fastsoftmax.problem.free_blocks import FreeBlocks, build_free_blocks
from fastsoftmax.problem.intercepts import InterceptSteps
from fastsoftmax.problem.preconditioner import InSpan
from fastsoftmax.problem.problem import Problem
from fastsoftmax.problem.raw_pass import RawPass
from fastsoftmax.problem.sampled_blocks import SampledBlocks, SharedBlock
from fastsoftmax.solvers.protocols import Preconditioner, Refinement
from fastsoftmax.solvers.record import State, array_in, number_in, part_of
from fastsoftmax.solvers.vectors import Vectors

# A coefficient of 0 may be free soon where the gradient is this share of l1.
_NEAR = 0.9
# Coefficients, and multiply-adds, of a Hessian that is taken whole beside a 1-norm: tenths of a
# second.
_MOST_PARAMS = 1024
_MOST_WORK = 2e9


class SoftmaxObjective:
    """The objective of a problem, by one kind of pass: over its rows as stored, if not given."""

    def __init__(self, problem: Problem, by: Pass | None = None) -> None:
        self.problem = problem
        self.by = RawPass(problem) if by is None else by
        self.epsilon = self.by.epsilon
        self._is_flat = self._is_first_flat = False
        self._sharper = SharperBound(problem, self.by)
        self._intercepts = InterceptSteps(problem)
        self.vectors = Vectors(problem.rows.backend, problem.rows.n_threads)
        self.l1 = problem.l1
        self.n_weights = problem.n_weights

    # ---- value, gradient and certificate ----

    def evaluate(self, point: Array) -> Evaluation:
        """One pass over the rows at a solver's vector."""
        return self.by.evaluate(point)

    def evaluate_coefficients(self, weights: Array, bias: Array) -> Evaluation:
        """One pass over the rows at weights and bias for raw features."""
        return self.by.evaluate_coefficients(weights, bias)

    def gap_bound(self, at: Evaluation) -> float:
        """Return an upper bound on F - min F at a point."""
        return certificate.gap_bound(self.problem, at)

    def sharper_bound(self, at: Evaluation, bound: float, wanted: float) -> float:
        """Return a lower bound than the one that is known, by curvature, if it may be as wanted."""
        return self._sharper.bound(at, bound, wanted)

    def tightening(self, at: Evaluation, wanted: float) -> Array | None:
        """Return a step of the intercepts, where they alone keep the bound above wanted."""
        return self._intercepts.step(at, wanted)

    def dual_point(self, at: Evaluation) -> elastic_net.DualPoint:
        """Return the point of the dual problem that `gap_bound` takes for an elastic net."""
        return certificate.dual_point(self.problem, at)

    def noise(self, at: Evaluation) -> float:
        """Return the size of errors in F and its bound where terms cancel."""
        return self.by.noise(at)

    def start_from(self, coefficients: tuple[Array, Array] | None) -> Array:
        """Return coefficients as a start, unless the model without weights is a better one."""
        null = self.problem.null_point
        if coefficients is None:
            return null
        weights, bias = coefficients
        if len(bias) > 1:
            # A part that all classes have in common changes no probability, and preconditioners do
            # not change it. (A start with such a part took 261 iterations instead of 9.)
            # (With a 1-norm some coefficients are 0 and should remain so.)
            bias = bias - bias.mean()
            weights = weights - weights.mean(axis=0) if self.l1 == 0.0 else weights
        start = self.problem.coordinates.point_of(weights, bias)
        span = self.problem.row_span
        if span is not None:  # no step changes the part outside of the span
            own = self.problem.coordinates.matrix_of(start)
            own[...] = span.project(own)
        with np.errstate(over="ignore", invalid="ignore"):
            better = self.evaluate(start).value < self.evaluate(null).value
        return start if better else null

    # ---- what a fit goes on with ----

    def state(self) -> State:
        """Return what is known beside the problem."""
        base = self.by.known_base()
        known = {} if base is None else {"base": base}
        return {
            **known,
            "next_trial": self._sharper.next_trial,
            "intercepts": self._intercepts.state(),
        }

    def restore(self, state: State) -> None:
        """Go on with what was known."""
        if "base" in state:
            shape = self.problem.n_logits, self.problem.n_features
            self.by.note_base(array_in(state, "base", shape))
        self._sharper.next_trial = number_in(state, "next_trial")
        self._intercepts.restore(part_of(state, "intercepts"))

    def as_new(self, at: Evaluation) -> Evaluation:
        """As of `solvers.protocols.Objective`; takes a pass where a gradient was restored."""
        if self.by.known_base() is None:
            return at
        null = self.by.evaluate(self.problem.null_point)
        if null.centered_residual is not None:
            self.by.note_base(null.centered_residual)
        return replace(at, dots=at.dots._replace(rb=None, vb=None))

    # ---- curvature ----

    @property
    def caution(self) -> float:
        """By how much curvature may grow along the first steps from the model without weights."""
        return curvature.caution(self.problem)

    def preconditioner(self) -> Preconditioner:
        """Invert an estimate of the Hessian at the model without weights."""
        first = curvature.build_first(self.problem, self.row_span)
        self._is_first_flat = _is_diagonal(first)
        return first

    def curvature_along(self, at: Evaluation, direction: Array) -> float:
        """Estimate the product of a direction and the Hessian's product with it."""
        return curvature.curvature_along(self.problem, at, direction)

    def refinement(self, most_cost: float) -> Refinement[Evaluation] | None:
        """Return the best preconditioner for about so many passes, or the cheapest.

        None where the rows of each class have told that no direction stands out: then more rows do
        not either (1500 x 1500 normal numbers: 41 iterations with blocks of 288 and 432 rows, 36
        without). Where those of all classes have told so, that is the cheapest one's to find out:
        the principal components of embeddings are not correlated, but those of a class's rows are
        (10003 x 384, K = 77, C = 100: 174 passes without refinements, 55 with them).
        """
        if self._is_flat:
            return None
        is_cheap = self._is_first_flat and not curvature.is_whole(self.problem)
        most_cost = 0.0 if is_cheap else most_cost
        found = curvature.refinement(self.problem, self.row_span, most_cost)

        def build(at: Evaluation) -> Preconditioner:
            return self._known(found.build(at))

        return Refinement(found.cost, build, found.most_cost)

    def _known(self, refined: Preconditioner) -> Preconditioner:
        self._is_flat, self._is_first_flat = _is_diagonal(refined), False
        return refined

    def place_of(self, at: Evaluation) -> State:
        """Return what the curvature at a point can be found from again."""
        return {"weights": at.weights, "bias": at.bias}

    def refined_at(self, place: State, most_cost: float) -> Preconditioner:
        """Build the refinement of that cost at a place."""
        k, d = self.problem.n_logits, self.problem.n_features
        at = Place(array_in(place, "weights", (k, d)), array_in(place, "bias", (k,)))
        return self._known(curvature.refinement(self.problem, self.row_span, most_cost).build(at))

    def refined_preconditioner(self, at: Evaluation) -> Preconditioner:
        """Approximate the inverse Hessian at a point as well as ever."""
        return curvature.refinement(self.problem, self.row_span, np.inf).build(at)

    def hessian(self, at: Evaluation) -> Array:
        """Return the Hessian of F in the solver's coordinates, in a new array."""
        return curvature.build_hessian(self.problem, at)

    @cached_property
    def row_span(self) -> RowSpan | None:
        """Directions in which F curves without a penalty, as far as passes tell; None for all."""
        span = self.problem.row_span
        if span is None or not isinstance(self.by, RawPass):
            return span
        return span.resolved(self.epsilon)

    def curved_span(self) -> Array | None:
        """Return a basis of the solver's vectors along `row_span`; None for all."""
        span, problem = self.row_span, self.problem
        if span is None:
            return None
        return span.of_points(problem.n_logits, fit_intercept=problem.fit_intercept)

    @cached_property
    def _diagonal_bound(self) -> Array:
        return curvature.diagonal_bound(self.problem)

    def diagonal_bound(self) -> Array:
        """Return the Hessian's diagonal at the model without weights, without the 1-norm."""
        return self._diagonal_bound

    def diagonal(self, at: Evaluation) -> Array:
        """Return the Hessian's diagonal at a point, without the 1-norm."""
        return curvature.diagonal_at(self.problem, at, self.diagonal_bound())

    def free_blocks(self, at: Evaluation, free: Array) -> FreeBlocks | None:
        """Return the Hessian's blocks for some coefficients at a point; None where too large.

        Of sparse rows only in float64, in which a fit ends, and also for coefficients that may be
        free soon.
        """
        rows = self.problem.rows
        if not rows.is_sparse:
            return build_free_blocks(self.problem, at, self.diagonal_bound(), free)
        if rows.real != np.float64:
            return None
        steep = np.abs(at.gradient[: self.n_weights]) > _NEAR * self.l1
        free = np.union1d(free, np.flatnonzero(steep))
        return build_csr_blocks(self.problem, at, self.diagonal(at), free)

    def small_hessian(self, at: Evaluation) -> Array | None:
        """Return the Hessian of F without its 1-norm in float64; None where it costs too much."""
        problem = self.problem
        n, cost = problem.n_params, curvature.hessian_cost(problem)
        if n > _MOST_PARAMS or cost > _MOST_WORK or self.epsilon > np.finfo(np.float64).eps:
            return None
        # (with an l2 of 0 it would curve where all classes move alike, which the 1-norm decides)
        penalised = problem.with_penalty(max(problem.l2, np.finfo(np.float64).tiny), problem.l1)
        return curvature.build_hessian(penalised, at)


def _is_diagonal(preconditioner: Preconditioner) -> bool:
    """Whether rows have told of an inverse that no direction stands out."""
    inner = preconditioner.inner if isinstance(preconditioner, InSpan) else preconditioner
    return isinstance(inner, SampledBlocks | SharedBlock) and inner.is_diagonal


class StochasticObjective:
    """F as mini-batch descent sees it: steps over some rows at a time.

    fitted_to numbers the rows that are fitted to, whose weights have mean 1 then; others are held
    out.
    """

    def __init__(self, problem: Problem, fitted_to: Array | None = None) -> None:
        self.problem = problem
        self.n_rows = problem.n_rows if fitted_to is None else len(fitted_to)
        self._fitted_to = fitted_to
        self._rows = problem.rows
        if fitted_to is not None:
            self._rows = problem.rows.reweighted_by(len(fitted_to) / problem.n_rows)

    def start(self, rng: np.random.RandomState) -> tuple[Array, Array]:
        """Return W and b for raw features, where V is drawn from N(0, 0.01^2) and the bias is 0."""
        problem, center = self.problem, self._center
        shape = problem.n_logits, problem.n_features
        weights = rng.normal(0.0, 0.01, shape) * problem.coordinates.scale
        return weights, np.zeros(len(weights)) if center is None else -product(weights, center)

    def sgd_steps(
        self,
        params: Array,
        velocity: Array | None,
        order: Array,
        batch_size: int,
        learning_rate: float,
        momentum: float,
    ) -> tuple[float, float]:
        """Mini-batch steps in the user's coordinates: params is W and after it b, of X's type.

        order holds numbers among the rows that are fitted to. Returns mean loss and accuracy.
        """
        if self._fitted_to is not None:
            order = self._fitted_to[order]
            batch_size = min(batch_size, self.n_rows)  # as if there were no other rows
        scale, center = self.problem.coordinates.scale, self._center
        plain = center is None and bool((scale == 1.0).all())
        loss, correct = self._rows.sgd_steps(
            params,
            velocity,
            order,
            Descent(
                batch_size,
                learning_rate,
                momentum,
                self.problem.l2,
                self.problem.fit_intercept,
                None if plain else scale**2,
                center,
            ),
        )
        return loss / len(order), correct / len(order)

    @property
    def _center(self) -> Array | None:
        """What features are shifted by: nothing where rows are sparse.

        With an intercept that changes the way to the optimum, not the optimum.
        """
        problem = self.problem
        shifted = problem.coordinates.standardize and problem.rows.is_dense
        return problem.coordinates.center if shifted else None
