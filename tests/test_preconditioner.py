"""Statistics of a shard's rows, and the preconditioners that are made of them."""

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax, reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem import curvature
from fastsoftmax.problem.coordinates import Coordinates
from fastsoftmax.problem.curvature import build_diagonals, build_shared, build_whole
from fastsoftmax.problem.problem import Problem, build_problem
from fastsoftmax.problem.raw_pass import RawPass
from fastsoftmax.problem.sampled_blocks import (
    build_sampled_blocks,
    build_shared_block,
    plan,
    shared_rows,
)
from fastsoftmax.shards.curvature import (
    POOL,
    curvature_along,
    curvatures,
    drawn,
    drawn_rows,
    hessian,
)
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.shards.spread import near
from fastsoftmax.threads import in_threads

PENALTY = 0.01


@pytest.fixture(params=[2, 4], ids=["two classes", "four"])
def n_classes(request):
    return request.param


@pytest.fixture(params=["dense", "csr"])
def problem(request, n_classes, rng, real):
    """(shard, weights, bias): a model of a few rows."""
    n, d = 300, 6
    X = (rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.6) + 0.5 * (np.arange(d) == 2)).astype(
        real
    )
    labels = rng.integers(n_classes, size=n).astype(np.int32)
    row_weights = rng.uniform(0.5, 1.5, n).astype(real)
    row_weights /= row_weights.mean()
    X = X if request.param == "dense" else sparse.csr_array(X)
    shard = build_shard(X, labels, None, row_weights, n_classes, backend=reference, n_threads=2)
    n_logits = 1 if n_classes == 2 else n_classes
    return shard, rng.normal(size=(n_logits, d)), rng.normal(size=n_logits)


def coordinates_of(shard, bias):
    center = shard.feature_sums() / shard.n_rows
    scale = np.linspace(0.5, 2.0, shard.n_features)
    return Coordinates(center, scale, len(bias), fit_intercept=True)


def built_at(build, shard, coordinates, weights, bias):
    """What a function of `curvature` makes at a model."""
    share = shard.target_sums() / shard.target_sums().sum()
    start = np.zeros(coordinates.n_params)
    problem = Problem(Rows([shard]), coordinates, share, start, PENALTY)
    return build(problem, RawPass(problem).evaluate_coefficients(weights, bias))


def exact_blocks(shard, weights, bias):
    """Each logit's block of the Hessian of the mean loss, in scaled coordinates."""
    at = coordinates_of(shard, bias)
    k, m = len(bias), shard.n_features + 1
    blocks = hessian(shard, weights, bias, at.center, with_bias=True).reshape(k, m, k, m)
    scale = np.concatenate([at.scale, [1.0]])
    return [blocks[i, :, i] * scale * scale[:, np.newaxis] / shard.n_rows for i in range(k)]


def test_units_do_not_matter(rng, real):
    """Squares of these would overflow, or vanish, in float32."""
    X = rng.normal(size=(300, 6)) + np.array([0.0, 3.0, 0.0, -100.0, 0.0, 0.0])
    units = np.array([1e25, 1.0, 1e-25, 1e10, 1e-10, 1.0])

    def spread_of(X):
        labels = np.arange(300, dtype=np.int32) % 2
        weights = np.ones(300, real)
        return Rows([build_shard(X.astype(real), labels, None, weights, 2, backend=reference)])

    plain, other = spread_of(X), spread_of(X * units)
    np.testing.assert_allclose(other.means() / units, plain.means(), rtol=1e-4, atol=1e-4)
    center = X.mean(axis=0)
    squares = other.squares_about(center * units) / units**2
    np.testing.assert_allclose(squares, X.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(plain.squares_about(center), X.var(axis=0), rtol=1e-4)
    lengths = np.linalg.norm((X - center) * plain.spread.units, axis=1)
    for rows, middle in ((plain, center), (other, center * units)):
        assert rows.spread.radius_about(middle) == pytest.approx(lengths.max(), rel=0.2)
        assert rows.spread.radius_about(middle) >= lengths.max() * (1 - 1e-5)


def test_a_shift_and_units_from_some_rows(real):
    sample = np.array([[0.3, 1e30, 5.0], [0.3, -1e30, 6.0]], dtype=real)
    shift, units = near(sample, np.dtype(real))
    assert shift[0] == sample[0, 0] and units[0] == 1.0  # it does not vary
    np.testing.assert_allclose(shift[1:], [0.0, 5.5], atol=1e23)
    np.testing.assert_allclose(units[1:], [1e-30, 2.0], rtol=1e-6)


def within_blocks(shard, at, weights, bias):
    """(D, m, c) of each logit: D is the Hessian's block less what its mean features add."""
    d = shard.n_features
    for block in exact_blocks(shard, weights, bias):
        c, m = block[d, d], block[:d, d] / block[d, d]
        yield block[:d, :d] - c * np.outer(m, m), m, c


def product_with(inverses, gradient, k, fit_intercept):
    """What a preconditioner of these blocks (D^-1, m, c) returns, by whole matrices."""
    d = len(inverses[0][1])
    products = []
    weights, bias = gradient[: k * d].reshape(k, d), gradient[k * d :]
    for i, (within, m, c) in enumerate(inverses):
        if fit_intercept:
            block = np.zeros((d + 1, d + 1))
            block[:d, :d] = np.linalg.inv(within) + c * np.outer(m, m)
            block[:d, d] = block[d, :d] = c * m
            block[d, d] = c
            products.append(np.linalg.solve(block, np.append(weights[i], bias[i])))
        else:
            block = np.linalg.inv(within) + c * np.outer(m, m)
            products.append(np.linalg.solve(block, weights[i]))
    products = np.array(products)
    if k > 1:
        products -= products.mean(axis=0)
    return np.concatenate([products[:, :d].ravel(), products[:, d:].ravel()])


@pytest.fixture(params=[True, False], ids=["intercept", "no intercept"])
def fit_intercept(request):
    return request.param


def assert_product(built, inverses, k, d, fit_intercept, rng, tolerance):
    gradient = rng.normal(size=k * (d + fit_intercept))
    expected = product_with(inverses, gradient, k, fit_intercept)
    np.testing.assert_allclose(built.apply(gradient), expected, rtol=tolerance, atol=tolerance)


def test_diagonals(problem, fit_intercept, rng, real):
    """The diagonal of each class's block, its mean features apart."""
    shard, weights, bias = problem
    at = replace(coordinates_of(shard, bias), fit_intercept=fit_intercept)
    built = built_at(build_diagonals, shard, at, weights, bias)
    d, k = shard.n_features, len(bias)
    inverses = [
        (np.diag(1.0 / (np.diagonal(within) + PENALTY)), m, c)
        for within, m, c in within_blocks(shard, at, weights, bias)
    ]
    assert_product(built, inverses, k, d, fit_intercept, rng, 1e-3)


def estimated(block, squares, z, *, is_exact):
    """What a sampled block of these rows is: a share of the diagonal, and of the products."""
    if is_exact:
        return 0.03 * np.diag(squares) + 0.97 * block
    scaled = z / np.sqrt(squares)
    S = scaled.T @ scaled
    error = (np.linalg.norm(scaled, axis=1) ** 4).sum() - (S**2).sum() / len(z)
    share = np.clip(error / ((S**2).sum() - (np.diag(S) ** 2).sum()), 0.03, 1.0)
    share = 1.0 if share > 0.9 else share
    return share * np.diag(squares) + (1.0 - share) * block


@pytest.mark.parametrize("n_drawn", [3, 400], ids=["few rows", "all"])
def test_sampled_blocks(problem, n_drawn, fit_intercept, rng):
    """Products with the inverse of a share of the diagonal and the rest of the drawn rows."""
    shard, weights, bias = problem
    at = replace(coordinates_of(shard, bias), fit_intercept=fit_intercept)
    share = shard.target_sums() / shard.target_sums().sum()
    whole = Problem(Rows([shard]), at, share, np.zeros(at.n_params), PENALTY)
    model = RawPass(whole).evaluate_coefficients(weights, bias)
    built = build_sampled_blocks(whole, model, n_drawn)
    d, k = shard.n_features, len(bias)
    found = drawn_rows(shard, weights, bias, at.center, n_drawn, with_bias=fit_intercept)
    size = np.append(at.scale, np.ones(int(fit_intercept))) / np.sqrt(found.weight)
    gradient = rng.normal(size=k * (d + fit_intercept))
    expected = []
    for i in range(k):
        z = found.rows[i].astype(np.float64) * size
        squares = found.curvature[i] / found.weight * np.append(whole.variances, 1.0)[: len(size)]
        block = estimated(z.T @ z, squares, z, is_exact=n_drawn >= shard.n_rows)
        block += np.diag([PENALTY] * d + [0.0] * int(fit_intercept))
        own = np.append(gradient[i * d : (i + 1) * d], gradient[k * d + i :][: int(fit_intercept)])
        expected.append(np.linalg.solve(block, own))
    expected = np.array(expected)
    if k > 1:
        expected -= expected.mean(axis=0)
    flat = np.concatenate([expected[:, :d].ravel(), expected[:, d:].ravel()])
    np.testing.assert_allclose(built.apply(gradient), flat, rtol=5e-3, atol=5e-3)


def test_one_block_for_all_classes(problem, rng):
    """At the model without weights all classes have the same block, but for a number."""
    shard, weights, bias = problem
    at = coordinates_of(shard, bias)
    share = np.full(shard.n_classes, 1.0 / shard.n_classes)
    whole = Problem(Rows([shard]), at, share, np.zeros(at.n_params), PENALTY)
    null = RawPass(whole).evaluate_coefficients(np.zeros_like(weights), np.zeros_like(bias))
    gradient = rng.normal(size=at.n_params)
    each = build_sampled_blocks(whole, null, shard.n_rows).apply(gradient)
    together = build_shared_block(whole, shard.n_rows).apply(gradient)
    np.testing.assert_allclose(together, each, rtol=1e-2, atol=1e-2)


def test_more_work_draws_more_rows(problem):
    shard, _, bias = problem
    at = coordinates_of(shard, bias)
    whole = Problem(Rows([shard]), at, np.ones(2), np.zeros(at.n_params), PENALTY)
    few, many = plan(whole, 0.0), plan(whole, np.inf)
    assert few.n_drawn <= many.n_drawn <= shard.n_rows and few.work <= many.work
    assert shared_rows(whole, 0.0) <= shared_rows(whole, np.inf) <= shard.n_rows


def test_whole(problem, fit_intercept, rng):
    """The inverse of the Hessian, but along what all classes have in common."""
    shard, weights, bias = problem
    at = replace(coordinates_of(shard, bias), fit_intercept=fit_intercept)
    built = built_at(build_whole, shard, at, weights, bias)
    whole = Problem(Rows([shard]), at, np.ones(2), np.zeros(at.n_params), PENALTY)
    model = RawPass(whole).evaluate_coefficients(weights, bias)
    matrix = curvature.build_hessian(whole, model)
    direction = rng.normal(size=at.n_params)
    if len(bias) > 1:
        for part in (direction[: at.n_weights], direction[at.n_weights :]):
            part.reshape(len(bias), -1)[...] -= part.reshape(len(bias), -1).mean(axis=0)
    np.testing.assert_allclose(built.apply(matrix @ direction), direction, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "shift", "number"),
    [
        (1.0, 0.0, np.float32),
        (0.0, 3.0, np.float32),  # a constant feature
        (1e5, 0.0, np.float32),
        (1e-7, 0.0, np.float64),
        (1e7, 0.0, np.float64),
        (1.0, 1e4, np.float64),  # far from 0, and without an intercept not centred
    ],
)
def test_some_rows_are_taken_in_float32_where_that_is_enough(rng, size, shift, number):
    X = rng.normal(size=(50, 3)) * [1.0, size, 2.0] + [0.0, shift, 0.0]
    labels = (np.arange(50) % 2).astype(np.int32)
    shard = build_shard(X, labels, None, np.ones(50), 2, backend=reference)
    fit_intercept = shift < 100.0
    problem = build_problem(Rows([shard]), 0.1, fit_intercept=fit_intercept)
    assert curvature._number_for(problem) is number


def test_curvature_along(problem, rng):
    """That of the Hessian of the loss."""
    shard, weights, bias = problem
    change = rng.normal(size=weights.shape), rng.normal(size=bias.shape)
    found, weight = curvature_along(shard, (weights, bias), change, 1)
    zero = np.zeros(shard.n_features)
    matrix = hessian(shard, weights, bias, zero, with_bias=True)
    flat = np.hstack([change[0], change[1][:, np.newaxis]]).ravel()
    assert found == pytest.approx(flat @ matrix @ flat, rel=1e-4)
    assert weight == pytest.approx(shard.row_weights.sum())


def test_shared(problem, fit_intercept, rng):
    """Shares add up to the whole, and the product is with the inverse of each."""
    shard, weights, bias = problem
    d, k = shard.n_features, len(bias)
    at = replace(coordinates_of(shard, bias), fit_intercept=fit_intercept)
    built = built_at(build_shared, shard, at, weights, bias)
    blocks = list(within_blocks(shard, at, weights, bias))
    whole, total = sum(block[0] for block in blocks), sum(block[2] for block in blocks)
    inverses = [
        (np.linalg.inv(c / total * whole + PENALTY * np.eye(d)), m, c) for _, m, c in blocks
    ]
    assert_product(built, inverses, k, d, fit_intercept, rng, 2e-3)


@pytest.mark.parametrize("kind", ["sampled", "shared", "diagonals"])
def test_decided_classes(kind, problem):
    """A class that no row is in doubt about makes no step without a bound."""
    shard, weights, bias = problem
    bias = bias.copy()
    bias[0] = -200.0
    build = {"shared": build_shared, "diagonals": build_diagonals}.get(
        kind, lambda problem, at: build_sampled_blocks(problem, at, 100)
    )
    built = built_at(build, shard, coordinates_of(shard, bias), weights, bias)
    product = built.apply(np.ones(len(bias) * (shard.n_features + 1)))
    assert np.isfinite(product).all()


def test_decided_rows(real):
    """1 - p is the sum of the others' probabilities, though p rounds to 1."""
    shard = build_shard(
        np.ones((1, 1), real), np.zeros(1, np.int32), None, np.ones(1, real), 3, backend=reference
    )
    every = slice(0, 1)
    x, bias = shard.raw(every), np.array([0.0, -20.0, -30.0])
    h = curvatures(shard, x, every, np.zeros((3, 1)), bias)
    np.testing.assert_allclose(h[0, :2], [np.exp(-20.0) + np.exp(-30.0), np.exp(-20.0)], rtol=1e-5)


def test_drawn_rows(rng, real):
    """Rows stand for as much curvature as all have, each for about its own."""
    h = (rng.random(5000) ** 20).astype(real)
    rows, shares = drawn(h, 500)
    assert len(rows) < 500 and (np.diff(rows) > 0).all() and shares.dtype == real
    assert shares.sum() == pytest.approx(h.sum(), rel=1e-5)
    step = h.sum() / 500
    assert (np.abs(shares - h[rows]) <= step * (1 + 1e-5)).all()
    assert set(np.flatnonzero(h > 1.01 * step)) <= set(rows)
    for few in (h[:500], np.zeros(3, real)):
        rows, shares = drawn(few, 500)
        np.testing.assert_array_equal(rows, np.arange(len(few)))
        np.testing.assert_array_equal(shares, few)
    rows, shares = drawn(np.zeros(1000, real), 500)
    assert (shares == 0.0).all()


def test_blocks_of_drawn_rows(rng, real):
    """Nearly those of all rows, which are decided but for a few."""
    n, d, k = 20000, 5, 3
    X = rng.normal(size=(n, d)).astype(real)
    shard = build_shard(
        X, rng.integers(k, size=n).astype(np.int32), None, np.ones(n, real), k, backend=reference
    )
    weights, bias = 6.0 * rng.normal(size=(k, d)), rng.normal(size=k)
    center = shard.feature_sums() / n
    every = drawn_rows(shard, weights, bias, center, n, with_bias=True)
    some = drawn_rows(shard, weights, bias, center, 1000, with_bias=True)
    pool = len(range(0, n, max(1, n // (1000 * POOL))))
    assert every.weight == n and some.weight == pool
    for few, all_rows in zip(some.rows, every.rows, strict=True):
        part = few.T @ few * (every.weight / some.weight)
        ratios = np.linalg.eigvals(np.linalg.solve(all_rows.T @ all_rows, part)).real
        assert ratios.min() > 0.8 and ratios.max() < 1.25


@pytest.mark.parametrize("kind", ["whole", "blocks", "shared", "diagonals"])
def test_each_leads_to_the_optimum(kind, monkeypatch, rng):
    built = []
    monkeypatch.setattr(curvature, "WHOLE_PARAMS", 512 if kind == "whole" else 0)
    names = {"whole": "build_whole", "blocks": "build_sampled_blocks"}
    name = names.get(kind, f"build_{kind}")
    build = getattr(curvature, name)
    monkeypatch.setattr(curvature, name, lambda *args: built.append(1) or build(*args))
    if kind in ("shared", "diagonals"):
        monkeypatch.setattr(curvature, "plan_blocks", lambda *args: None)
    if kind == "diagonals":
        monkeypatch.setattr(curvature, "_DENSE_FEATURES", 1)
    X = rng.normal(size=(300, 20)) * np.logspace(-1, 1, 20)
    y = (X @ rng.normal(size=(20, 5)) + rng.normal(size=(300, 5))).argmax(axis=1)
    expected = FastSoftmax(solver="newton-cholesky", tol=1e-12).fit(X, y)
    actual = FastSoftmax(solver="lbfgs", tol=1e-9).fit(X, y)
    assert actual.converged_
    assert actual.objective_ == pytest.approx(expected.objective_, rel=1e-8)
    assert built


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_results_of_threads_come_in_order(n_threads):
    def slow_at_first(i):
        time.sleep(0.01 * (i == 0))
        return np.array(i)

    assert [int(a) for a in in_threads(slow_at_first, range(20), n_threads)] == list(range(20))


def test_errors_of_threads_are_raised():
    def fails(i):
        raise KeyError(i)

    with pytest.raises(KeyError):
        list(in_threads(fails, range(3), 2))


def test_rows_without_curvature_leave_the_diagonal(capfd):
    """BLAS was given a matrix without rows, printed that, and went on."""
    X = np.full((2, 3), 65504.0, dtype=np.float16)
    model = FastSoftmax(C=1e-10, standardize=True, fit_intercept=False)
    model.fit(X, np.eye(2), [1e3, 1e-6])
    assert model.converged_
    assert "On entry to" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", ["components", "normal"])
def test_features_without_correlations(kind):
    """All rows together tell of no direction; those of a class do so, or not."""
    rng = np.random.default_rng(5)
    n_classes, n, d = 12, 3000, 60
    labels = rng.integers(0, n_classes, n).astype(np.int32)
    X = rng.normal(size=(n, d))
    if kind == "components":
        shapes = rng.normal(size=(n_classes, d, d)) * np.logspace(0, -2, d)
        X = np.einsum("ij,ikj->ik", X, shapes[labels])
        _, _, axes = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
        X = (X - X.mean(axis=0)) @ axes.T
        X /= X.std(axis=0)
    shard = build_shard(X, labels, None, np.ones(n), n_classes, backend=reference)
    problem = build_problem(Rows([shard]), 1e-4, fit_intercept=True)
    objective = SoftmaxObjective(problem)
    assert objective.preconditioner().is_diagonal
    at = objective.evaluate(rng.normal(size=problem.n_params) * (kind == "components"))
    first = objective.refinement(1e9)
    assert first.most_cost == 0.0 and first.cost < 100.0  # the cheapest one finds out
    assert first.build(at).is_diagonal == (kind == "normal")
    again = objective.refinement(1e9)
    if kind == "normal":
        assert again is None
    else:
        assert again.most_cost == 1e9 and again.cost > first.cost
