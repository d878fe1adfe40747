"""The bound by curvature: never below the distance from the minimum, and near it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.problem import curvature_bound as curvature_bound_module
from fastsoftmax.problem.curvature import hessian_of_rows
from fastsoftmax.problem.curvature_bound import SharperBound, curvature_bound, is_possible
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.protocols import Limits

KINDS = ["normal", "raw scales", "separable", "correlated", "sparse", "weighted"]


def problem_of(kind, n_classes, rng, real, *, fit_intercept=True, C=1.0, n=240, d=4):
    """Rows of one kind, and their penalised problem."""
    X = rng.normal(size=(n, d))
    if kind == "correlated":
        X = X @ rng.normal(size=(d, d)) + 3.0
    logits = X @ rng.normal(size=(d, n_classes)) * (20.0 if kind == "separable" else 1.0)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int32)
    if kind == "raw scales":
        X = X * np.logspace(-2, 3, d) + np.logspace(1, -1, d)
    if kind == "sparse":
        X = sparse.csr_array(X * (rng.random(X.shape) < 0.3))
    row_weights = np.ones(n)
    if kind == "weighted":
        row_weights = rng.exponential(size=n) * (rng.random(n) < 0.8)
        row_weights /= row_weights.mean()
    X, row_weights = X.astype(real), row_weights.astype(real)
    shard = build_shard(X, labels, None, row_weights, n_classes, backend=reference)
    return build_problem(Rows([shard]), 1.0 / (C * n), fit_intercept=fit_intercept)


def path_to_the_minimum(problem):
    """The points of a fit, and the minimum."""
    objective, points = SoftmaxObjective(problem), []
    evaluate = objective.evaluate

    def seen(point):
        points.append(point)
        return evaluate(point)

    objective.evaluate = seen
    limits = Limits(1e-12, 60)
    found = full_batch.solve(objective, problem.null_point, limits, newton=False).result
    return points, found.evaluation.value


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 7])
def test_never_below_the_gap(kind, n_classes, step, rng, real, fit_intercept=True):
    """And close to it near the minimum, where all rows count."""
    problem = problem_of(kind, n_classes, rng, real, fit_intercept=fit_intercept)
    objective = SoftmaxObjective(problem)
    points, least = path_to_the_minimum(problem)
    bounds = []
    for point in points[:: max(1, len(points) // 12)] + points[-2:]:
        at = objective.evaluate(point)
        error = objective.by.gradient_error(at, 1.0 / problem.sizes)
        bound = curvature_bound(problem, at, hessian_of_rows(problem, at, step), error)
        gap = at.value - least
        rounding = 4.0 * objective.epsilon * at.value + objective.noise(at)
        assert bound.value >= gap - rounding
        if bound.value < np.inf and gap > 1e-3 * at.value * (real == np.float32):
            bounds.append(bound.value / max(gap, rounding))
    if step == 1 and real == np.float64 and kind in ("normal", "raw scales", "weighted"):
        assert min(bounds) < 1.5


def test_is_its_formula(rng):
    """Also at small a, where that cancels: errors of the gradient lead there."""
    problem = problem_of("normal", 2, rng, np.float64)
    objective = SoftmaxObjective(problem)
    points, _ = path_to_the_minimum(problem)
    seen = []
    for share in np.geomspace(1e-9, 2.0, 60):
        at = objective.evaluate(points[-1] + share * (points[1] - points[-1]))
        hessian = hessian_of_rows(problem, at)
        nu = np.sqrt(2.0 * curvature_bound(problem, at, hessian, 0.0).estimate)
        bound = curvature_bound(problem, at, hessian, 10.0 * nu**2 * problem.row_radius)
        if not 0.0 < bound.a < 1.0:
            continue
        a = np.longdouble(bound.a)
        terms = a ** np.arange(60) / ((np.arange(60) + 1.0) * (np.arange(60) + 2.0))
        # ((1 - a) log(1 - a) + a) / a^2 is this sum; the last terms matter where a is large
        exact = terms.sum() if a < 0.5 else ((1 - a) * np.log1p(-a) + a) / (a * a)
        assert bound.value >= 2.0 * bound.estimate * float(exact) * (1.0 - 1e-9)
        assert bound.value <= 2.0 * bound.estimate * float(exact) * (1.0 + 1e-6)
        seen.append(bound.a)
    assert min(seen) < 1e-3 < 0.3 < max(seen)


def test_without_an_intercept(rng):
    test_never_below_the_gap("normal", 3, 1, rng, np.float64, fit_intercept=False)


@pytest.mark.parametrize("C", [1e-3, 1e4])
def test_any_penalty(C, rng):
    problem = problem_of("normal", 4, rng, np.float64, C=C)
    objective = SoftmaxObjective(problem)
    points, least = path_to_the_minimum(problem)
    for point in points:
        at = objective.evaluate(point)
        bound = curvature_bound(problem, at, hessian_of_rows(problem, at), 0.0)
        assert bound.value >= at.value - least - 1e-15


def test_what_classes_have_in_common_is_paid_for(rng):
    """The penalty of weights that change no probability is part of the distance."""
    problem = problem_of("normal", 3, rng, np.float64)
    objective = SoftmaxObjective(problem)
    points, least = path_to_the_minimum(problem)
    moved = points[-1].copy()
    problem.coordinates.matrix_of(moved)[...] += rng.normal(size=problem.n_features)
    at = objective.evaluate(moved)
    bound = curvature_bound(problem, at, hessian_of_rows(problem, at), 0.0)
    assert bound.value == pytest.approx(at.value - least, rel=1e-6)


def test_differences_of_logits_are_within_the_radius(rng):
    """r <= R |v|_A for every row and pair of classes; equal where F curves alike everywhere."""
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
    X, labels = np.tile(corners, (3, 1)), rng.permutation(np.arange(24) % 3).astype(np.int32)
    shard = build_shard(X, labels, None, np.ones(24), 3, backend=reference)
    problem = build_problem(Rows([shard]), 0.01, fit_intercept=True)
    at = SoftmaxObjective(problem).evaluate(problem.null_point)
    hessian = hessian_of_rows(problem, at)
    bound = curvature_bound(problem, at, hessian.copy(), 0.0)
    radius = bound.a / np.sqrt(2.0 * bound.estimate)
    hessian[np.arange(9), np.arange(9)] += problem.l2
    inverse = np.linalg.pinv(hessian)
    largest = 0.0
    for x in X:
        for k, other in ((0, 1), (1, 2), (2, 0)):
            weights, bias = np.zeros((3, 3)), np.zeros(3)
            weights[k], weights[other], bias[k], bias[other] = x, -x, 1.0, -1.0
            along = np.concatenate([weights.ravel(), bias])
            largest = max(largest, float(along @ inverse @ along))
    assert np.sqrt(largest) <= radius * (1.0 + 1e-9)
    assert radius == pytest.approx(np.sqrt(largest), rel=0.05)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_errors_of_the_gradient_are_allowed_for(n_classes, rng):
    """The bound for a gradient within some length is not below that of any gradient there."""
    problem = problem_of("normal", n_classes, rng, np.float64)
    objective = SoftmaxObjective(problem)
    points, _ = path_to_the_minimum(problem)
    at = objective.evaluate(points[-1] + 1e-4 * rng.normal(size=len(points[-1])))
    hessian, n_others = hessian_of_rows(problem, at), problem.n_params - problem.n_weights
    sizes = np.append(np.tile(problem.sizes, problem.n_logits), np.ones(n_others))
    noise = 0.1 * float(np.linalg.norm(at.gradient / sizes))
    allowed = curvature_bound(problem, at, hessian.copy(), noise).value
    for _ in range(20):
        error = rng.normal(size=problem.n_params)
        error *= np.sign(error @ at.gradient) * noise / np.linalg.norm(error)
        wrong = replace(at, gradient=at.gradient + sizes * error)
        assert allowed >= curvature_bound(problem, wrong, hessian.copy(), 0.0).value
    assert np.isfinite(allowed)


@pytest.mark.parametrize("spread", [1.0, 1e3, 1e8])
@pytest.mark.parametrize("nu", [0.0, 1e-9, 1e-3, 0.05, 0.2, 5.0])
@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-2])
def test_least_curvature_is_no_more_than_the_least_eigenvalue(spread, nu, noise, rng):
    vectors = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    values = np.append(np.geomspace(1.0, spread, 11), 1.0)
    A = vectors * values @ vectors.T
    least = curvature_bound_module._least_curvature(A, 1e-13 * spread, nu, 1.5, noise)
    assert least <= np.linalg.eigvalsh(A)[0] + 1e-12 * spread
    assert least > 0.0
    if nu * 1.5 / np.sqrt(least) < 0.7:  # where the bound is of use, it is not far off
        a = (nu + noise / np.sqrt(least)) * 1.5 / np.sqrt(least)
        exact = (nu + noise) * 1.5
        assert (a < 1.0) >= (exact < 0.7)


def test_is_tried_only_where_it_may_end_a_fit(rng):
    problem = problem_of("normal", 2, rng, np.float64, n=2000)
    objective = SoftmaxObjective(problem)
    points, _ = path_to_the_minimum(problem)
    start, end = objective.evaluate(points[0]), objective.evaluate(points[-1])
    sharper = SharperBound(problem, objective.by)
    known = objective.gap_bound(start)
    assert sharper.bound(start, known, 1e-4 * start.value) == known
    loose = 1e3 * objective.gap_bound(end) + 1e-3
    assert sharper.bound(end, loose, 1e-4 * end.value) < 1e-4 * end.value


def test_what_is_not_finite_is_not_tried(rng):
    problem = problem_of("normal", 3, rng, np.float64, n=2000)
    objective = SoftmaxObjective(problem)
    at = objective.evaluate(problem.null_point)
    spoilt = replace(at, gradient=np.full_like(at.gradient, np.nan))
    assert SharperBound(problem, objective.by).bound(spoilt, 1.0, 0.5) == 1.0


def test_where_it_holds(rng):
    problem = problem_of("normal", 2, rng, np.float64)
    assert is_possible(problem)
    assert not is_possible(problem.with_penalty(0.0))
    assert not is_possible(problem.with_penalty(0.1, 0.1))
    assert not is_possible(problem_of("normal", 2, rng, np.float64, d=600, n=50))
    rows = problem.rows
    shifted = build_problem(rows, 0.1, fit_intercept=False, standardize=True)
    assert not is_possible(shifted)
