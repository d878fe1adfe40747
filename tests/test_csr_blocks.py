"""The Hessian's blocks of sparse rows, and steps to the minimum of the model which they make."""

import numpy as np
import pytest
from scipy import sparse
from sparse_rows import random_array

from fastsoftmax import reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem import csr_blocks
from fastsoftmax.problem.csr_blocks import build_csr_blocks
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards import block_sums
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.orthant_wise import OrthantModel, minimise
from fastsoftmax.solvers.protocols import Limits
from fastsoftmax.solvers.proximal import model_minimum

L1 = 0.004


@pytest.fixture(params=["native", "numpy"])
def backend(request):
    return reference if request.param == "numpy" else request.getfixturevalue("kernels")


def problem(
    rng, backend=reference, n_classes=3, n_shards=1, real=np.float64, paired=False, **options
):
    X = random_array((400, 30), density=0.2, rng=rng, dtype=np.float64).tocsr().astype(real)
    if paired:
        X = sparse.csr_array(
            X.multiply(1.0 + 0.1 * rng.random((400, 30))) + X[:, np.arange(30) ^ 1]
        )
    y = (X[:, :n_classes].toarray() + 0.3 * rng.random((400, n_classes))).argmax(axis=1)
    weights = rng.uniform(0.5, 1.5, 400)
    weights *= 400 / weights.sum()
    shards = [
        build_shard(
            X[part],
            y[part].astype(np.int32),
            None,
            weights[part].astype(real),
            n_classes,
            backend=backend,
        )
        for part in np.array_split(np.arange(400), n_shards)
    ]
    options = {"fit_intercept": True, "l1": L1, **options}
    l2 = options.pop("l2", 0.0)
    return SoftmaxObjective(build_problem(Rows(shards), l2, **options))


def blocks_at(objective, at, free):
    return build_csr_blocks(objective.problem, at, objective.diagonal(at), free)


class TestBlocks:
    @pytest.mark.parametrize("n_shards", [1, 3])
    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize(
        "options", [{}, {"standardize": True, "l2": 0.01}, {"fit_intercept": False}]
    )
    def test_those_of_the_hessian(self, rng, monkeypatch, backend, n_shards, n_classes, options):
        monkeypatch.setattr(csr_blocks, "_LEAST_CURVATURE", 0.0)
        monkeypatch.setattr(block_sums, "_PANEL_NUMBERS", 1)  # 1024 rows are the least
        objective = problem(rng, backend, n_classes, n_shards, **options)
        point = rng.normal(size=objective.problem.n_params)
        at = objective.evaluate(point)
        weights = rng.random(objective.n_weights) < 0.4
        rest = np.ones(objective.problem.n_params - objective.n_weights, dtype=bool)
        free = np.flatnonzero(np.concatenate([weights, rest]))
        blocks = blocks_at(objective, at, free)
        assert set(blocks.index) == set(free)
        hessian = objective.hessian(at)
        d = objective.problem.n_features
        # `build_hessian` keeps the coefficients as solvers do: V, then the intercepts
        classes = np.concatenate(
            [
                np.repeat(np.arange(objective.problem.n_logits), d),
                np.arange(objective.problem.n_logits),
            ]
        )[: objective.problem.n_params]
        same = classes[blocks.index][:, np.newaxis] == classes[blocks.index]
        expected = np.where(same, hessian[np.ix_(blocks.index, blocks.index)], 0.0)
        found = blocks.product(np.eye(len(blocks.index)))
        # the Hessian's flat direction of all intercepts, and of all classes, has a curvature added
        off = ~np.eye(len(found), dtype=bool)
        np.testing.assert_allclose(found[off], expected[off], atol=1e-3 * np.abs(expected).max())
        np.testing.assert_allclose(
            found.diagonal(), (1 + 1e-6) * objective.diagonal(at)[blocks.index], rtol=1e-12
        )

    def test_of_few_rows_the_diagonal_is_that_of_all(self, rng, monkeypatch):
        monkeypatch.setattr(csr_blocks, "_LEAST_CURVATURE", 1.5)
        objective = problem(rng)
        at = objective.evaluate(rng.normal(size=objective.problem.n_params))
        blocks = blocks_at(objective, at, np.arange(objective.problem.n_params))
        found = blocks.product(np.eye(len(blocks.index)))
        np.testing.assert_allclose(
            found.diagonal(), (1 + 1e-6) * objective.diagonal(at)[blocks.index], rtol=1e-12
        )
        assert np.linalg.eigvalsh(found).min() > 0.0

    def test_too_much_work(self, rng, monkeypatch):
        objective = problem(rng)
        at = objective.evaluate(rng.normal(size=objective.problem.n_params))
        free = np.arange(objective.problem.n_params)
        assert blocks_at(objective, at, free) is not None
        monkeypatch.setattr(csr_blocks, "_MOST_WORK", 100)
        assert blocks_at(objective, at, free) is None

    def test_of_float32_none(self, rng):
        objective = problem(rng, real=np.float32)
        at = objective.evaluate(np.zeros(objective.problem.n_params))
        assert objective.free_blocks(at, np.arange(objective.problem.n_params)) is None

    def test_kept_alone(self, rng):
        objective = problem(rng)
        at = objective.evaluate(rng.normal(size=objective.problem.n_params))
        blocks = blocks_at(objective, at, np.arange(objective.problem.n_params))
        n = len(blocks.index)
        kept = rng.random(n) < 0.5
        vectors = rng.normal(size=(n, 2))
        found = blocks.solve_among(vectors, kept)
        whole = blocks.product(np.eye(n))[np.ix_(kept, kept)]
        assert (found[~kept] == 0.0).all()
        np.testing.assert_allclose(found[kept], np.linalg.solve(whole, vectors[kept]), rtol=1e-8)


class TestModelMinimum:
    @pytest.mark.parametrize("n_pairs", [0, 3])
    def test_optimality(self, rng, n_pairs):
        """Of the model that is B0 with BFGS's updates, one after another."""
        objective = problem(rng)
        n, size = objective.n_weights, objective.problem.n_params
        point = rng.normal(size=size) * (rng.random(size) < 0.5)
        point[n:] = rng.normal(size=size - n)
        at = objective.evaluate(point)
        # coefficients 3, 10, ... are in no block: they have the diagonal
        free = np.setdiff1d(np.arange(size), np.arange(3, n, 7))
        blocks, diagonal = blocks_at(objective, at, free), objective.diagonal(at)
        B = np.diag(diagonal)
        B[np.ix_(blocks.index, blocks.index)] = blocks.product(np.eye(len(blocks.index)))
        gradient = at.gradient
        used = np.concatenate([blocks.index, np.arange(3, n, 7)])
        used = used[np.isin(used, blocks.index) | (point[used] != 0) | (abs(gradient[used]) > L1)]
        pairs = []
        for _ in range(n_pairs):
            step = np.zeros(size)
            step[used] = 0.01 * rng.normal(size=len(used))
            change = objective.evaluate(point + step).gradient - gradient
            pairs.append((step, change))
            s, y = step[used], change[used]
            own = B[np.ix_(used, used)]
            own = own - np.outer(own @ s, own @ s) / (s @ own @ s) + np.outer(y, y) / (y @ s)
            B[np.ix_(used, used)] = own
        end = model_minimum(point, gradient, L1, n, blocks, diagonal, pairs)
        slope = gradient[used] + B[np.ix_(used, used)] @ (end - point)[used]
        values, in_norm = end[used], used < n
        zero = in_norm & (values == 0.0)
        assert 0 < zero.sum() < in_norm.sum()
        assert (np.abs(slope[zero]) <= L1 * (1.0 + 1e-9)).all()
        inside = np.where(in_norm, slope + L1 * np.sign(values), slope)[~zero]
        np.testing.assert_allclose(inside, 0.0, atol=1e-9)
        others = np.setdiff1d(np.arange(size), used)
        np.testing.assert_array_equal(end[others], point[others])

    def test_what_is_not_finite(self, rng):
        objective = problem(rng)
        at = objective.evaluate(np.zeros(objective.problem.n_params))
        blocks = blocks_at(objective, at, np.arange(objective.problem.n_params))
        gradient = np.full(objective.problem.n_params, np.nan)
        point = np.zeros(objective.problem.n_params)
        found = model_minimum(
            point, gradient, L1, objective.n_weights, blocks, objective.diagonal(at), []
        )
        assert found is None


class TestSolver:
    @pytest.mark.parametrize("options", [{}, {"l2": 1e-5}])
    def test_fewer_iterations_to_the_same_minimum(self, rng, backend, options, monkeypatch):
        """Of features in pairs that are nearly alike, which a diagonal knows nothing of."""
        objective = problem(rng, backend, paired=True, l1=L1 / 4, **options)
        start = objective.problem.null_point
        near = minimise(objective, start, OrthantModel(objective), Limits(1e-2, 2000)).point
        fits = []
        for with_blocks in (True, False):
            if not with_blocks:
                monkeypatch.setattr(objective, "free_blocks", lambda at, free: None)
            fits.append(minimise(objective, near, OrthantModel(objective), Limits(1e-10, 2000)))
        assert [fit.reason for fit in fits] == ["converged"] * 2
        assert fits[0].evaluation.value == pytest.approx(fits[1].evaluation.value, rel=1e-9)
        assert fits[0].n_iter < 0.8 * fits[1].n_iter

    def test_steps_that_fail_are_left(self, rng, monkeypatch):
        """Where the model has no minimum to be found, orthant-wise steps go on."""
        objective = problem(rng)
        monkeypatch.setattr(
            "fastsoftmax.solvers.orthant_wise.model_minimum", lambda *arguments: None
        )
        fit = minimise(
            objective, objective.problem.null_point, OrthantModel(objective), Limits(1e-8, 2000)
        )
        assert fit.reason == "converged"
