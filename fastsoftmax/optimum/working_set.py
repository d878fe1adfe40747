"""The optimum of an elastic net: which features are worked on, and in which number type.

With a 1-norm in the penalty most features of a wide problem have no coefficient but 0. So a problem
is solved for some of its features, the working set; a pass over all of them then tells which others
have to join it, and certifies the whole (Massias, Gramfort & Salmon 2018, ICML, "Celer", and the
sources there). Of text 90000 x 200000, K = 20, C = 10, 3600 features have coefficients.

The gap that the dual point certifies is in proportion to how far gradients are above l1, not to the
square of that as without a 1-norm, so float32 ends at about 1e-2. From there the features of the
working set are copied, centred, in float64, if that copy is not large; if it is, passes go on over
centred rows without a copy (`centered`).
"""

from typing import Any, NamedTuple, cast

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum.centered import CenteredObjective
from fastsoftmax.problem import elastic_net
from fastsoftmax.problem.evaluation import Evaluation, Seen
from fastsoftmax.shards.csr_shard import some_columns
from fastsoftmax.shards.shard import DenseShard, Shard
from fastsoftmax.solvers import protocols
from fastsoftmax.solvers.lower_bound import LowerBound, share_of
from fastsoftmax.solvers.orthant_wise import OrthantModel, minimise

Limits = protocols.Limits[Evaluation]
Result = protocols.Result[Evaluation]

# From so many features on, most are left out until they are needed, in the type of X.
_WIDE = 4096
_LEAST_FEATURES = 2048
# Features join when a gradient is at least this share of l1: those may be needed soon.
_NEAR = 0.9
# Each round goes on to this share of the gap before, and the last to this share of tol.
_ROUND = 0.2
_LAST = 0.5
# Most bytes of a copy in float64.
_COPY_BYTES = 1 << 29
_BLOCK_ROWS = 1024


class _State(NamedTuple):
    """A point of the whole problem, and what is certain about it."""

    point: Array
    at: Evaluation
    lower: LowerBound
    gap: float
    n_iter: int


def solve(objective: SoftmaxObjective, start: Array, limits: Limits) -> Result:
    """Minimise an objective with l1 > 0.

    The result's reason is "converged", "max_iter", "precision", "stopped" or "max_time".
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if objective.n_features >= _WIDE:
            result = _by_rounds(objective, start, limits, 0, fine=False)
        else:
            model: OrthantModel[Evaluation] = OrthantModel(objective)
            result = minimise(objective, start, model, limits)
        if result.reason != "precision" or result.gap <= limits.tol:
            return result
        full = objective
        if CenteredObjective.is_possible(objective):
            full = CenteredObjective(objective)
        if _copy_bytes(objective, result.point) <= _COPY_BYTES:
            result = _by_rounds(full, result.point, limits, result.n_iter, fine=True)
        elif full is not objective:
            result = _on_centered(full, result, limits)
        return result


def _on_centered(full: SoftmaxObjective, before: Result, limits: Limits) -> Result:
    def counted(n_iter: int, at: Evaluation, gap: float) -> bool:
        return limits.on_iteration(before.n_iter + n_iter, at, gap)

    model: OrthantModel[Evaluation] = OrthantModel(full)
    result = minimise(
        full,
        before.point,
        model,
        Limits(_LAST * limits.tol, limits.max_iter - before.n_iter, counted, limits.expired),
    )
    return result._replace(n_iter=before.n_iter + result.n_iter)


def _by_rounds(
    full: SoftmaxObjective, start: Array, limits: Limits, done: int, *, fine: bool
) -> Result:
    """Minimise over growing sets of features, in float64 if fine, until the whole is certified."""
    at = full.evaluate(start)
    bound = elastic_net.gap_bound(full.dual_point(at), full.l1, full.penalty) + full.noise(at)
    state = _certified(full, start, at, bound, LowerBound(full.epsilon), done)
    features = np.empty(0, dtype=np.intp)
    reason = "converged"
    while state.gap > limits.tol:
        if state.n_iter >= limits.max_iter:
            return _result(state, "max_iter")
        if limits.expired():
            return _result(state, "max_time")
        chosen = _chosen(full, state, features if fine else None)
        tol = _LAST * limits.tol if fine else max(_ROUND * state.gap, _LAST * limits.tol)
        subset = Subset(full, chosen, fine=fine)
        inner = _solve_inside(subset, state, limits, tol)
        before, state = state, _outside(full, subset, inner, state)
        if inner.reason in ("stopped", "max_time"):
            return _result(state, inner.reason)
        grown = not np.isin(chosen, features).all() or len(chosen) != len(features)
        if inner.reason == "precision" and not (grown and state.gap < before.gap):
            reason = "precision"
            break
        features = chosen
    return _result(state, "converged" if state.gap <= limits.tol else reason)


def _solve_inside(subset: "Subset", state: _State, limits: Limits, tol: float) -> Result:
    def seen(n_iter: int, at: Evaluation, gap: float) -> bool:
        known = share_of(max(at.value - state.lower.value, 0.0), at.value)

        def coefficients() -> tuple[Array, Array]:
            point = subset.objective.point_of(at.weights, at.bias)
            return subset.full.coefficients_of(subset.outside(point))

        outside = cast(Evaluation, Seen(at.loss, at.accuracy, at.value, coefficients))
        return limits.on_iteration(state.n_iter + n_iter, outside, known)

    inside = subset.objective
    model: OrthantModel[Evaluation] = OrthantModel(inside)
    return minimise(
        inside,
        subset.inside(state.point),
        model,
        Limits(tol, limits.max_iter - state.n_iter, seen, limits.expired),
    )


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
    lower -= elastic_net.gap_bound(known, full.l1, full.penalty)
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
    return protocols.Result(state.point, state.at, state.gap, state.n_iter, reason)


def _largest(full: SoftmaxObjective, at: Evaluation) -> Array:
    """Largest smooth gradient of each feature, less what the squares add."""
    return np.asarray(full.dual_point(at).size.max(axis=0))


def _chosen(full: SoftmaxObjective, state: _State, kept: Array | None) -> Array:
    """Numbers of the features to work on, ascending: those with coefficients, and the steepest.

    Those of kept, if there are any, stay.
    """
    V = state.point[: full.n_weights].reshape(full.n_logits, -1)
    size = _largest(full, state.at)
    needed: Array = np.asarray(V.any(axis=0))
    n_needed = int(needed.sum())
    if kept is not None:
        needed[kept] = True
    else:
        most = max(_LEAST_FEATURES, 2 * n_needed)
        size[needed] = np.inf
        if (size > _NEAR * full.l1).sum() > most:
            steepest = np.argpartition(size, len(size) - most)[-most:]
            return np.sort(steepest)
    return np.flatnonzero(needed | (size > _NEAR * full.l1))


def _copy_bytes(full: SoftmaxObjective, point: Array) -> float:
    """Estimate the memory of a working set's rows in float64."""
    used = point[: full.n_weights].reshape(full.n_logits, -1).any(axis=0).mean()
    share = min(1.0, 1.5 * float(used))
    numbers = 0.0
    for shard in full.shards:
        copied = share if isinstance(shard, DenseShard) else 3.0  # with indices, and by columns
        numbers += copied * shard.row_numbers * shard.n_rows
    return 8.0 * numbers


class Subset:
    """The problem of some features; all others have coefficients of 0.

    Parameters
    ----------
    full : SoftmaxObjective
    features : ndarray of shape (n,), ascending
    fine : bool
        Whether the copies of their columns are float64, and those of dense rows centred and scaled;
        otherwise they are of X's type.
    """

    def __init__(self, full: SoftmaxObjective, features: Array, *, fine: bool) -> None:
        self.full, self.features = full, features
        real = np.dtype(np.float64) if fine else full.shards[0].real
        shards = [_restricted(full, shard, features, real, fine=fine) for shard in full.shards]
        plain = SoftmaxObjective.with_features(full, features, shards)
        if isinstance(full, CenteredObjective):  # of whose passes this one needs no more
            plain.__class__ = SoftmaxObjective
        self._is_centered = fine and isinstance(shards[0], DenseShard)
        if self._is_centered:  # as far as the center is known
            plain = SoftmaxObjective(
                shards, full.penalty, fit_intercept=full.fit_intercept, l1=full.l1
            )
        self.objective = plain

    def inside(self, point: Array) -> Array:
        """Return the subset's vector for one of the whole problem, which is 0 elsewhere."""
        full = self.full
        weights = point[: full.n_weights].reshape(full.n_logits, -1)[:, self.features]
        bias = point[full.n_weights :]
        if self._is_centered and full.fit_intercept:
            bias = bias + weights @ self.objective.coordinates.center
        return np.concatenate([weights.ravel(), bias])

    def outside(self, point: Array) -> Array:
        """Return the whole problem's vector for one of the subset."""
        full, n = self.full, self.objective.n_weights
        whole = np.zeros(full.n_params)
        weights = whole[: full.n_weights].reshape(full.n_logits, -1)
        weights[:, self.features] = point[:n].reshape(full.n_logits, -1)
        whole[full.n_weights :] = point[n:]
        if self._is_centered and full.fit_intercept:
            _, whole[full.n_weights :] = self.objective.coefficients_of(point)
        return whole


def _restricted(
    full: SoftmaxObjective, shard: Shard, features: Array, real: np.dtype[Any], *, fine: bool
) -> Shard:
    """Return a shard of some of the features, its numbers of type `real`."""
    if not isinstance(shard, DenseShard):
        X: Any = some_columns(shard.X, features, real)
    elif not fine:
        X = np.empty((shard.n_rows, len(features)), dtype=shard.X.dtype)
        for start in range(0, shard.n_rows, _BLOCK_ROWS):
            X[start : start + _BLOCK_ROWS] = shard.X[start : start + _BLOCK_ROWS][:, features]
    else:
        X = np.empty((shard.n_rows, len(features)))
        center, scale = full.coordinates.center[features], full.coordinates.scale[features]
        for start in range(0, shard.n_rows, _BLOCK_ROWS):
            rows = X[start : start + _BLOCK_ROWS]
            rows[...] = shard.X[start : start + _BLOCK_ROWS][:, features]
            rows -= center
            rows *= scale
    probs = shard.target_probs
    return type(shard)(
        X,
        shard.labels,
        None if probs is None else probs.astype(real, copy=False),
        shard.row_weights.astype(real, copy=False),
        shard.n_classes,
        backend=shard.backend,
        label_smoothing=shard.label_smoothing,
        n_threads=shard.n_threads,
    )
