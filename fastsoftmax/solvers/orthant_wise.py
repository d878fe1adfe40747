"""Orthant-wise limited-memory quasi-Newton (OWL-QN), for a smooth function plus l1 times a 1-norm.

Andrew & Gao (2007), "Scalable training of L1-regularized log-linear models", ICML: within an
orthant the 1-norm is linear. A quasi-Newton step is taken there, and coefficients that would leave
the orthant become exactly 0.

Unlike in that paper, each direction is made for the free coefficients alone (those that are not 0,
or should not be). The pairs of steps and gradient differences are restricted to these. Once the set
of free coefficients has settled, such pairs belong to the Hessian's block for them. The same block
is solved with by Keskar, Nocedal, Oztoprak & Waechter (2016), "A second-order method for convex
L1-regularized optimization with active-set prediction", Optim. Methods Softw. 31.

Passes to a true gap of 1e-4 on images 10000 x 784, K = 10, C = 1: 105.
"""

from collections.abc import Iterator
from typing import Generic, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner
from fastsoftmax.solvers import interior_point
from fastsoftmax.solvers.iteration import iterate
from fastsoftmax.solvers.line_search import Trial, backtrack
from fastsoftmax.solvers.lower_bound import ROUNDING
from fastsoftmax.solvers.pairs import Pairs, pair_of, scale_from, two_loops
from fastsoftmax.solvers.protocols import Blocks, Composite, E, Limits, Result
from fastsoftmax.solvers.proximal import model_minimum
from fastsoftmax.solvers.record import State, array_in, count_in, part_of
from fastsoftmax.solvers.vectors import Vectors

# The figures below are passes to `tol`, of three problems: images 1000 x 784 (float32, K = 10,
# C = 1, l1_ratio = 1, tol = 1e-4), digits 1797 x 64 (l1_ratio = 0.5, tol = 1e-6) and sparse rows
# 2000 x 5000 (K = 5, C = 10, l1_ratio = 1, tol = 1e-6). With the constants as they are: 158, 160
# and 219.

# Iterations at which the Hessian's diagonal is looked up: the first, and each next one after this
# many times the iterations. First at 5 and 30: 159, 164, 235 and 148, 154, 220. Growth by 2 and 8:
# 159, 167, 217 and 156, 164, 219.
_FIRST_REFRESH = 15
_REFRESH_GROWTH = 4
# The blocks come when the set of free coefficients has settled: when F has fallen by at most this
# share in so many iterations. Each next ones come after this many times the iterations.
# Shares of 0.1, 0.01 and 1e-4: 266, 181, 226, then 177, 167, 207, then 147, 167, 233; in 3 and 10
# iterations: 148, 157, 218 and 151, 161, 245. Growth by 4: 158, 166, 219.
_CALM = 1e-3
_CALM_ITERATIONS = 5
_BLOCKS_GROWTH = 2
# The latest pairs keep exact blocks up to date, so these are used for longer. With 20 and 100
# iterations: 227 and 219 (sparse rows; others have no exact blocks).
_EXACT_ITERATIONS = 50
# Pairs tell more here than in `lbfgs`, where a refined preconditioner knows most of it: with 2, 5,
# 10, 15 and 60 pairs 242, 182, 167, 180 and 133 (images), 216, 194, 184, 173 and 159 (digits). So
# they may take eight times the memory: 30 pairs of up to 280000 coefficients.
_MEMORY = 30
_LEAST_MEMORY = 5
_MEMORY_BYTES = 1 << 27
# As of `lbfgs.LbfgsModel`.
_PATIENCE = 60
# In float32 values cease to fall long before gradients are as small as certificates need them.
# Images with a patience of 3: 170; from 8 on they do not need it.
_FLOAT32_PATIENCE = 8
# Where a step to the model's minimum has to be shortened so often, the model is wrong, and steps
# within the orthant go on. With 1, 2 and 8 the same passes: nearly always the first is taken.
_MOST_STRAIGHT_TRIALS = 4

# Where an objective with a small Hessian takes so many iterations, its features nearly depend on
# each other, or differ in size from row to row (600 rows, -9999 in 2 % of 60 features, K = 3,
# C = 10: 1000 iterations to a gap of 0.4). Then steps go to the minimum of the whole model.
_SLOW = 150

# The free coefficients are so few that numpy alone is quick enough.
_VECTORS = Vectors()


class OrthantModel(Generic[E]):
    """What is known of the smooth part's Hessian: its diagonal, and the latest pairs."""

    def __init__(self, objective: Composite[E]) -> None:
        self.objective = objective
        self.pairs = Pairs(_MEMORY, _MEMORY_BYTES, _LEAST_MEMORY)
        self.inverse = _inverted(objective.diagonal_bound())
        self.blocks: Blocks | None = None
        self.next_refresh = _FIRST_REFRESH
        self.next_blocks = 0
        self.is_proximal = False
        self.values: list[float] = []

    def look(self, n_iter: int, at: E, free: Array) -> None:
        """Take what the problem tells of the Hessian when it is due."""
        if n_iter >= self.next_refresh:
            self.inverse = _inverted(self.objective.diagonal(at))
            self.next_refresh = _REFRESH_GROWTH * max(n_iter, 1)
        self.values.append(at.value)
        calm = len(self.values) > _CALM_ITERATIONS
        calm = calm and self.values[-1 - _CALM_ITERATIONS] - at.value <= _CALM * at.value
        if calm and n_iter >= self.next_blocks:
            self.blocks = self.objective.free_blocks(at, free)
            self.next_blocks = _BLOCKS_GROWTH * n_iter
            self.is_proximal = self.blocks is not None and self.blocks.is_exact
            if self.is_proximal:
                self.next_blocks = n_iter + _EXACT_ITERATIONS

    def minimum(self, point: Array, at: E) -> Array | None:
        """Return the model's minimum with the 1-norm; None without exact blocks or if not found."""
        if not self.is_proximal or self.blocks is None:
            return None
        l1, n_weights = self.objective.l1, self.objective.n_weights
        pairs = [(pair.moved, pair.change) for pair in self.pairs]
        diagonal = _inverted(self.inverse)
        return model_minimum(point, at.gradient, l1, n_weights, self.blocks, diagonal, pairs)

    def directions(self, steepest: Array, free: Array) -> Iterator[Array]:
        """Yield directions for the free coefficients, from their pseudo-gradient."""
        if self.pairs:
            preconditioner = _OfFree(self.inverse[free], self.blocks, free)
            pairs = self.pairs.among(free, _VECTORS)
            gamma = scale_from(pairs[-1], preconditioner, _VECTORS) if pairs else None
            gamma = 1.0 if gamma is None else gamma
            yield two_loops(steepest, pairs, preconditioner, gamma, _VECTORS)
            self.pairs.clear()
        yield -_OfFree(self.inverse[free], self.blocks, free).apply(steepest)
        self.blocks = None
        yield -self.inverse[free] * steepest

    def learn(self, moved: Array, change: Array) -> None:
        """Note a step and the difference of the smooth gradients at its ends."""
        pair = pair_of(moved, change, _VECTORS)
        if pair is not None:
            self.pairs.add(pair)

    def state(self) -> State:
        """Return what is needed to go on. Blocks are not: those of a later point are better."""
        return {
            "pairs": self.pairs.state(),
            "inverse": self.inverse,
            "next_refresh": self.next_refresh,
            "next_blocks": self.next_blocks if self.blocks is None else 0,
            "values": np.array(self.values),
        }

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.pairs.restore(part_of(state, "pairs"))
        self.inverse = array_in(state, "inverse", self.inverse.shape)
        self.next_refresh = count_in(state, "next_refresh")
        self.next_blocks = count_in(state, "next_blocks")
        self.values = array_in(state, "values").tolist()


def _inverted(diagonal: Array) -> Array:
    return np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0.0)


class _OfFree:
    """The inverse Hessian for the free coefficients without the pairs: its diagonal, and blocks."""

    def __init__(self, inverse: Array, blocks: Blocks | None, free: Array) -> None:
        self._inverse, self._blocks, self._free = inverse, blocks, free

    def apply(self, gradient: Array) -> Array:
        """Return the product with a vector of the free coefficients, in a new array."""
        product = gradient * self._inverse
        if self._blocks is not None:
            self._blocks.solve(gradient, self._free, product)
        return product


class _Orthant(NamedTuple):
    """The free coefficients at a point, and the orthant that a step from there stays in."""

    free: Array  # indices into the point
    steepest: Array  # pseudo-gradient of those
    values: Array
    signs: Array  # of those; 0 where no 1-norm is in the way

    def end(self, direction: Array, step: float) -> Array:
        """Return the values after a step; what would leave the orthant is 0."""
        values = self.values + step * direction
        values[values * self.signs < 0.0] = 0.0
        return values


def pseudo_gradient(point: Array, gradient: Array, l1: float) -> Array:
    """Return the element of least size of the subdifferential of F, for the smooth gradient.

    It is 0 where the coefficient is 0 and should remain so; elsewhere F descends against it.

    Source: Andrew & Gao 2007 (ICML), equation 4.
    """
    at_zero = np.sign(gradient) * np.maximum(np.abs(gradient) - l1, 0.0)
    return np.asarray(np.where(point == 0.0, at_zero, gradient + l1 * np.sign(point)))


def _orthant(objective: Composite[E], point: Array, at: E) -> _Orthant:
    n = objective.n_weights
    steepest = np.concatenate(
        [pseudo_gradient(point[:n], at.gradient[:n], objective.l1), at.gradient[n:]]
    )
    free = np.flatnonzero((point != 0.0) | (steepest != 0.0))
    values, steepest = point[free], steepest[free]
    signs = np.where(values != 0.0, np.sign(values), -np.sign(steepest))
    signs[free >= n] = 0.0
    return _Orthant(free, steepest, values, signs)


def _search(
    objective: Composite[E], point: Array, at: E, orthant: _Orthant, direction: Array
) -> tuple[Array, E] | None:
    """Return the end of a step along a direction, within the orthant, and the evaluation there."""
    free, steepest = orthant.free, orthant.steepest
    ascends = (orthant.values == 0.0) & (direction * orthant.signs < 0.0)
    direction = np.where(ascends, 0.0, direction)
    penalised = objective.l1 * orthant.signs  # the gradient of the 1-norm

    def trial_of(step: float) -> Trial | None:
        values = orthant.end(direction, step)
        moved = values - orthant.values
        slope = inner(steepest, moved)
        if not np.isfinite(slope) or not moved.any():
            return None
        end = point.copy()
        end[free] = values
        return Trial(end, slope, lambda gradient: inner(gradient[free] + penalised, moved))

    return backtrack(objective, at, trial_of)


def _search_straight(
    objective: Composite[E], point: Array, at: E, end: Array
) -> tuple[Array, E] | None:
    """Return a point on the line to where a model has its minimum, and the evaluation there.

    The conditions are those of Lee, Sun & Saunders 2014 (see `proximal`), equation 2.20.
    """
    n, l1 = objective.n_weights, objective.l1

    def trial_of(step: float) -> Trial | None:
        trial = end if step == 1.0 else point + step * (end - point)
        moved = trial - point
        longer = l1 * float((np.abs(trial[:n]) - np.abs(point[:n])).sum())
        slope = inner(at.gradient, moved) + longer
        if not slope < 0.0:
            return None
        return Trial(trial, slope, lambda gradient: inner(gradient, moved) + longer)

    return backtrack(objective, at, trial_of, _MOST_STRAIGHT_TRIALS)


def minimise(
    objective: Composite[E], start: Array, model: OrthantModel[E], limits: Limits[E]
) -> Result[E]:
    """Minimise from `start` until the certified relative gap is at most `limits.tol`.

    Steps go to the minimum of the model where it has exact blocks, or the whole Hessian after many
    iterations, or else along a direction within the orthant. Arguments and result as of
    `descent.minimise`, without "floor" and "stationary". What the model has learnt stays in it.
    """
    return iterate(objective, start, _OrthantSteps(objective, model), limits)


class _OrthantSteps(Generic[E]):
    """Steps within an orthant, or to the minimum of a model."""

    target = np.inf

    def __init__(self, objective: Composite[E], model: OrthantModel[E]) -> None:
        self._objective, self._model = objective, model
        self.patience = _FLOAT32_PATIENCE if objective.epsilon > 1e-10 else _PATIENCE
        self._moved: Array | None = None

    def is_done(self, at: E) -> str | None:
        """Return None: there is no other reason to stop."""
        return None

    def step(self, n_iter: int, point: Array, at: E, excess: float) -> tuple[Array, E] | None:
        """Return the end of a step that descends enough, and the evaluation there."""
        found = self._found(n_iter, point, at)
        if found is not None:
            self._moved = found[0] - point
        return found

    def _found(self, n_iter: int, point: Array, at: E) -> tuple[Array, E] | None:
        objective, model = self._objective, self._model
        orthant = _orthant(objective, point, at)
        model.look(n_iter, at, orthant.free)
        if n_iter >= _SLOW:
            found = self._found_by_hessian(point, at)
            if found is not None:
                return found
        if model.is_proximal:
            end = model.minimum(point, at)
            found = None if end is None else _search_straight(objective, point, at, end)
            if found is not None:
                return found
            model.is_proximal = False  # until the next blocks come
        for direction in model.directions(orthant.steepest, orthant.free):
            found = _search(objective, point, at, orthant, direction)
            if found is not None:
                return found
        return None

    def _found_by_hessian(self, point: Array, at: E) -> tuple[Array, E] | None:
        objective = self._objective
        hessian = objective.small_hessian(at)
        if hessian is None:
            return None
        n, l1 = objective.n_weights, objective.l1
        end = interior_point.model_minimum(point, at.gradient, l1, n, hessian, at.value)
        if end is None:
            return None
        found = _search_straight(objective, point, at, end)
        if found is None:  # near the minimum no value tells, but the gradient may be better there
            new = objective.evaluate(end)
            as_low = new.value <= at.value + ROUNDING * objective.epsilon * abs(at.value)
            found = (end, new) if as_low else None
        return found

    def learn(self, before: E, at: E) -> None:
        """Let the model learn from the step."""
        moved, self._moved = self._moved, None
        if moved is not None:
            self._model.learn(moved, at.gradient - before.gradient)

    def state(self) -> State:
        """Return what is needed to go on."""
        return {"model": self._model.state()}

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self._model.restore(part_of(state, "model"))
