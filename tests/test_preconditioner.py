"""Statistics of a shard's rows, and the preconditioners that are made of them."""

import time

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax, preconditioner, reference
from fastsoftmax.coordinates import Coordinates
from fastsoftmax.csr_shard import CsrShard
from fastsoftmax.preconditioner import build_blocks, build_diagonals, build_shared
from fastsoftmax.shard import DenseShard, in_threads

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
    shard_type = DenseShard if request.param == "dense" else CsrShard
    X = X if request.param == "dense" else sparse.csr_array(X)
    shard = shard_type(X, labels, None, row_weights, n_classes, backend=reference, n_threads=2)
    n_logits = 1 if n_classes == 2 else n_classes
    return shard, rng.normal(size=(n_logits, d)), rng.normal(size=n_logits)


def coordinates_of(shard, bias):
    center = shard.feature_sums() / shard.n_rows
    scale = np.linspace(0.5, 2.0, shard.n_features)
    return Coordinates(center, scale, len(bias), fit_intercept=True)


def exact_blocks(shard, weights, bias):
    """Each logit's block of the Hessian of the mean loss, in scaled coordinates."""
    at = coordinates_of(shard, bias)
    k, m = len(bias), shard.n_features + 1
    hessian = shard.hessian(weights, bias, at.center, with_bias=True).reshape(k, m, k, m)
    scale = np.concatenate([at.scale, [1.0]])
    return [hessian[i, :, i] * scale * scale[:, np.newaxis] / shard.n_rows for i in range(k)]


def test_units_do_not_matter(problem, real):
    """Squares of these would overflow, or vanish, in float32."""
    shard, _, bias = problem
    at = coordinates_of(shard, bias)
    plain = shard.second_moments(at.center, 1)[0]
    units = np.array([1e25, 1.0, 1e-25, 1e10, 1e-10, 1.0])
    if isinstance(shard, CsrShard):
        X = sparse.csr_array((shard.X.toarray() * units).astype(real))
    else:
        X = (shard.X * units).astype(real)
    other = type(shard)(
        X, shard.labels, None, shard.row_weights, shard.n_classes, backend=reference
    )
    moments = other.second_moments(at.center * units, 1)[0]
    np.testing.assert_allclose(moments / units / units[:, np.newaxis], plain, rtol=1e-4, atol=1e-3)


def test_diagonals(problem, real):
    shard, weights, bias = problem
    at = coordinates_of(shard, bias)
    blocks = exact_blocks(shard, weights, bias)
    built = build_diagonals([shard], at, PENALTY, weights, bias)
    d = shard.n_features
    expected = [1.0 / (np.diagonal(block)[:d] + PENALTY) for block in blocks]
    np.testing.assert_allclose(built.inverse, expected, rtol=2e-4)
    np.testing.assert_allclose(
        built.bias_inverse, [1.0 / block[d, d] for block in blocks], rtol=2e-4
    )


def test_blocks(problem):
    shard, weights, bias = problem
    built = build_blocks([shard], coordinates_of(shard, bias), PENALTY, weights, bias)
    for inverse, block in zip(built.inverses, exact_blocks(shard, weights, bias), strict=True):
        ridge = np.diag([PENALTY] * shard.n_features + [0.0])
        np.testing.assert_allclose(inverse @ (block + ridge), np.eye(len(block)), atol=2e-3)


def test_shared(problem, rng):
    """Shares add up to the whole, and the product is with the inverse of each."""
    shard, weights, bias = problem
    d, k = shard.n_features, len(bias)
    at = coordinates_of(shard, bias)
    built = build_shared([shard], at, PENALTY, weights, bias)
    blocks = exact_blocks(shard, weights, bias)
    whole = np.sum([block[:d, :d] for block in blocks], axis=0)
    share = np.array([block[d, d] for block in blocks])
    share /= share.sum()
    gradient = rng.normal(size=k * (d + 1))
    expected = np.array(
        [
            np.linalg.solve(s * whole + PENALTY * np.eye(d), g)
            for s, g in zip(share, gradient[: k * d].reshape(k, d), strict=True)
        ]
    )
    if k > 1:
        expected -= expected.mean(axis=0)
    np.testing.assert_allclose(
        built.apply(gradient)[: k * d].reshape(k, d), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["blocks", "shared", "diagonals"])
def test_each_leads_to_the_optimum(kind, monkeypatch, rng):
    if kind == "shared":
        monkeypatch.setattr(preconditioner, "_BLOCK_NUMBERS", 0)
    if kind == "diagonals":
        monkeypatch.setattr(preconditioner, "_DENSE_FEATURES", 1)
    X = rng.normal(size=(300, 20)) * np.logspace(-1, 1, 20)
    y = (X @ rng.normal(size=(20, 5)) + rng.normal(size=(300, 5))).argmax(axis=1)
    expected = FastSoftmax(solver="newton-cholesky", tol=1e-12).fit(X, y)
    actual = FastSoftmax(solver="lbfgs", tol=1e-9).fit(X, y)
    assert actual.converged_
    assert actual.objective_ == pytest.approx(expected.objective_, rel=1e-8)
    assert actual.n_iter_[0] > 15  # long enough that it was refined


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
