"""The optimum of an elastic net: which features are worked on, and in which number type.

With a 1-norm in the penalty, most features of a wide problem have coefficients of 0. So the problem
is solved for some of its features, the working set. A pass over all features then finds those that
have to join the set, and certifies the whole (Massias, Gramfort & Salmon 2018, ICML, "Celer", and
the sources there). Of text 90000 x 200000, K = 20, C = 10, 3600 features have coefficients.

The certified gap is proportional to the distance of gradients above l1, not to its square as
without a 1-norm, so float32 ends at about 1e-2. From there the features of the working set are
copied in float64, and centred, if that copy is not large. Otherwise passes over centred rows go on
without a copy (`problem.centered_pass`).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum.stage import (
    Limits,
    Result,
    Solution,
    Stage,
    after,
    in_type_of_rows,
    seen_outside,
    with_objective,
)
from fastsoftmax.problem import elastic_net
from fastsoftmax.problem.evaluation import Evaluation, Seen
from fastsoftmax.problem.problem import Problem, build_problem
from fastsoftmax.solvers.lower_bound import LowerBound, share_of
from fastsoftmax.solvers.orthant_wise import OrthantModel, minimise
from fastsoftmax.solvers.record import Damaged, State, array_in, count_in, finite_in, number_in
from fastsoftmax.solvers.resuming import is_same, seen_at

# From this number of features on, most are left out until they are needed, in the type of X.
_WIDE = 4096
_LEAST_FEATURES = 2048
# Features join where a gradient is at least this share of l1, as they may be needed soon.
_NEAR = 0.9
# Each round goes on to this share of the gap before, and the last to this share of tol.
_ROUND = 0.2
_LAST = 0.5
# Rounds in a row without an iteration: what is left is rounding in the pass over all features.
_MOST_IDLE = 5
# Most bytes of a copy in float64.
_COPY_BYTES = 1 << 29


def stages(objective: SoftmaxObjective, precise: SoftmaxObjective | None) -> Iterator[Stage]:
    """Yield the stages of a fit with l1 > 0; precise is the same by passes with more digits.

    The result's reasons are "converged", "max_iter", "precision", "stopped" and "max_time".
    """
    if objective.problem.n_features >= _WIDE:
        yield _Rounds(objective, fine=False)
    else:
        yield _OrthantWise(objective)
    if precise is None:
        yield _Rounds(objective, fine=True)
        return
    if not objective.problem.rows.is_dense and objective.problem.n_features >= _WIDE:
        yield _Rounds(objective, fine=True, is_last=False)  # enough for most tolerances
    yield _Rounds(precise, fine=True)
    yield _OrthantWise(precise, share_of_tol=_LAST)


class _Ending:
    """How the stages of an elastic net hand over and end."""

    def __init__(self, objective: SoftmaxObjective) -> None:
        self._objective = objective

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether rounding ended the stage before the tolerance."""
        return result.reason == "precision" and result.gap > tol

    def conclude(self, result: Result, tol: float) -> Solution:
        """Round the coefficients."""
        return Solution(in_type_of_rows(self._objective, result, tol))


class _OrthantWise(_Ending):
    """Orthant-wise steps over all features."""

    def __init__(self, objective: SoftmaxObjective, share_of_tol: float = 1.0) -> None:
        super().__init__(objective)
        self._share_of_tol = share_of_tol

    def run(self, start: Array, limits: Limits) -> Result | None:
        limits = with_objective(limits, self._objective)
        limits = replace(limits, tol=self._share_of_tol * limits.tol)
        return minimise(self._objective, start, OrthantModel(self._objective), limits)


class _State(NamedTuple):
    """A point of the whole problem, and what is certain about it."""

    point: Array
    at: Evaluation
    lower: LowerBound
    gap: float
    n_iter: int


class _Rounds(_Ending):
    """Growing sets of features, until the whole is certified.

    fine is whether the features that are worked on are copied in float64; that stage is left out
    where the copy would be large. is_last is whether no stage has more digits; as fine if None.
    """

    def __init__(
        self, objective: SoftmaxObjective, *, fine: bool, is_last: bool | None = None
    ) -> None:
        super().__init__(objective)
        self._fine = fine
        self._is_last = fine if is_last is None else is_last

    def run(self, start: Array, limits: Limits) -> Result | None:
        full, fine = self._objective, self._fine
        limits = with_objective(limits, full)
        left = limits.record.found
        if left is None and fine and _copy_bytes(full.problem, start) > _COPY_BYTES:
            return None
        state = _begun(full, start, left)
        features, chosen, idle = _worked_on(full, left)
        reason = "converged"
        while state.gap > limits.tol:
            if state.n_iter >= limits.max_iter:
                return _result(state, "max_iter")
            if limits.expired():
                return _result(state, "max_time")
            if chosen is None:
                chosen = _chosen(full, state, features if fine else None)
            subset = Subset(full, chosen, fine=fine)
            inside = _with_round(
                limits, state, {"features": features, "chosen": chosen, "idle": idle}
            )
            inner = self._solve_inside(subset, state, inside)
            limits = replace(limits, record=replace(limits.record, found=None))
            before, state = state, _outside(full, subset, inner, state)
            if inner.reason in ("stopped", "max_time"):
                return _result(state, inner.reason)
            grown = not np.isin(chosen, features).all() or len(chosen) != len(features)
            fell = state.gap < before.gap
            moves = grown and fell if inner.reason == "precision" else grown or fell
            idle = 0 if inner.n_iter else idle + 1
            if not moves or idle >= _MOST_IDLE:
                reason = "precision"
                break
            features, chosen = chosen, None
        return _result(state, "converged" if state.gap <= limits.tol else reason)

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether a stage with more digits should go on: after the last copy there is none."""
        return not self._is_last and super().hands_over(result, tol)

    def _solve_inside(self, subset: "Subset", state: _State, limits: Limits) -> Result:
        """Minimise over the features of a subset."""

        def told(n_iter: int, at: Seen, gap: float) -> bool:
            known = share_of(max(at.value - state.lower.value, 0.0), at.value)
            return limits.on_iteration(n_iter, seen_outside(subset, at), known)

        tol = _LAST * limits.tol
        inside = replace(
            limits, tol=tol if self._fine else max(_ROUND * state.gap, tol), on_iteration=told
        )
        objective = subset.objective
        start = subset.inside(state.point)
        return minimise(objective, start, OrthantModel(objective), after(inside, state.n_iter))


def _begun(full: SoftmaxObjective, start: Array, left: State | None) -> _State:
    """Return what is known at the start of the first round, or of the one that left a state."""
    point = start if left is None else finite_in(left, "point", start.shape)
    at, lower, n_iter = full.evaluate(point), LowerBound(full.epsilon), 0
    if left is not None:
        n_iter = count_in(left, "n_iter")
        if is_same(full, at, left):
            lower.value = number_in(left, "lower")
            return _State(point, at, lower, number_in(left, "gap"), n_iter)
        at = full.as_new(at)
    return _certified(full, point, at, full.gap_bound(at) + full.noise(at), lower, n_iter)


def _worked_on(full: SoftmaxObjective, left: State | None) -> tuple[Array, Array | None, int]:
    """Return the features of the round before, those of the round that left a state, and idle."""
    if left is None:
        return np.empty(0, dtype=np.intp), None, 0
    features, chosen = (array_in(left, name).astype(np.intp) for name in ("features", "chosen"))
    if not np.isin(chosen, np.arange(full.problem.n_features)).all():
        raise Damaged("it works on features that there are not")
    return features, chosen, count_in(left, "idle")


def _with_round(limits: Limits, state: _State, worked_on: State) -> Limits:
    """Return limits whose record has a round beside the state of the solver in it."""
    lower, known = state.lower.value, {"point": state.point, "gap": state.gap}
    beside = {**known, **worked_on, **seen_at(state.at), "lower": lower, "n_iter": state.n_iter}
    return replace(limits, record=limits.record.within(lambda: beside))


def _outside(full: SoftmaxObjective, subset: "Subset", inner: Result, before: _State) -> _State:
    """Certify what was found for the features of a subset."""
    point = subset.outside(inner.point)
    at = full.evaluate(point)
    # inside, the subset's gradient has more digits
    dual, own = full.dual_point(at), subset.objective.dual_point(inner.evaluation)
    size = dual.size
    size[:, subset.features] = own.size
    known = own._replace(size=size)
    noise = subset.objective.noise(inner.evaluation)
    lower = inner.evaluation.value - noise
    lower -= elastic_net.gap_bound(known, full.problem.l1, full.problem.l2)
    bound = at.value - lower + full.noise(at)
    return _certified(full, point, at, bound, before.lower, before.n_iter + inner.n_iter)


def _certified(
    full: SoftmaxObjective,
    point: Array,
    at: Evaluation,
    bound: float,
    lower: LowerBound,
    n_iter: int,
) -> _State:
    gap = lower.gap(at.value, max(bound, 0.0), full.noise(at))
    return _State(point, at, lower, gap, n_iter)


def _result(state: _State, reason: str) -> Result:
    return Result(state.point, state.at, state.gap, state.n_iter, reason)


def _chosen(full: SoftmaxObjective, state: _State, kept: Array | None) -> Array:
    """Numbers of the features to work on, ascending: those with coefficients, and the steepest.

    Those of kept, if there are any, stay.
    """
    V = full.problem.coordinates.matrix_of(state.point)
    # the largest smooth gradient of each feature, less what the squares add
    size = np.asarray(full.dual_point(state.at).size.max(axis=0))
    needed: Array = np.asarray(V.any(axis=0))
    n_needed = int(needed.sum())
    if kept is not None:
        needed[kept] = True
    else:
        most = max(_LEAST_FEATURES, 2 * n_needed)
        size[needed] = np.inf
        if (size > _NEAR * full.l1).sum() > most:
            return np.sort(np.argpartition(size, len(size) - most)[-most:])
    return np.flatnonzero(needed | (size > _NEAR * full.l1))


def _copy_bytes(full: Problem, point: Array) -> float:
    """Estimate the memory of a working set's rows in float64."""
    used = full.coordinates.matrix_of(point).any(axis=0).mean()
    share = min(1.0, 1.5 * float(used))
    copied = share if full.rows.is_dense else 3.0  # with indices, and by columns
    return 8.0 * copied * full.rows.stored_numbers


class Subset:
    """A view of a problem with some of its features, ascending; others have coefficients of 0.

    fine is whether the copies of their columns are float64, and those of dense rows centred and
    scaled; otherwise they are of X's type.
    """

    def __init__(self, objective: SoftmaxObjective, features: Array, *, fine: bool) -> None:
        self._full, self.features = objective.problem, features
        full, rows, coordinates = self._full, self._full.rows, self._full.coordinates
        self._is_centered = fine and rows.is_dense
        real = np.dtype(np.float64) if fine else rows.real
        scaling = None
        if self._is_centered:
            # (an intercept takes up what is left of the mean; as they are, features keep theirs)
            is_mean = coordinates.standardize and not full.fit_intercept
            shift = objective.by.mean_shift() if is_mean else None
            shift = np.zeros(full.n_features) if shift is None else shift
            scaling = (coordinates.center, coordinates.scale, shift)
        own = rows.restricted(features, real, scaling)
        if self._is_centered:  # as far as the center is known
            problem = build_problem(own, full.l2, l1=full.l1, fit_intercept=full.fit_intercept)
        else:
            problem = full.with_features(features, own)
        self.objective = SoftmaxObjective(problem)

    def inside(self, point: Array) -> Array:
        """Return the subset's point for one of the whole problem, which is 0 elsewhere."""
        full, own = self._full, self.objective.problem.coordinates
        weights = full.coordinates.matrix_of(point)[:, self.features]
        bias = point[full.n_weights :]
        if self._is_centered and full.fit_intercept:
            bias = bias + product(weights, own.center)
        return np.concatenate([weights.ravel(), bias])

    def outside(self, point: Array) -> Array:
        """Return the whole problem's point for one of the subset."""
        full, own = self._full, self.objective.problem.coordinates
        whole = np.zeros(full.n_params)
        full.coordinates.matrix_of(whole)[:, self.features] = own.matrix_of(point)
        bias = point[own.n_weights :]
        if self._is_centered and full.fit_intercept:
            _, bias = own.coefficients_of(point)
        whole[full.n_weights :] = bias
        return whole

    def coefficients(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Return W and b of the whole problem for those of the subset."""
        point = self.objective.problem.coordinates.point_of(weights, bias)
        return self._full.coordinates.coefficients_of(self.outside(point))
