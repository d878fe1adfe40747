"""Steps of the intercepts alone, which bring the certificate."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits

from fastsoftmax import FastSoftmax, reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.curvature import class_curvature
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.protocols import Limits


def shard_of(rng, n_classes=4, n=200, d=5, real=np.float64, is_sparse=False):
    X = rng.normal(size=(n, d)) + 1.0
    logits = X @ rng.normal(size=(d, n_classes)) + 2.0 * rng.normal(size=n_classes)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int32)
    row_weights = rng.exponential(size=n) * (rng.random(n) < 0.8)
    X = X.astype(real)
    return build_shard(
        sparse.csr_array(X * (rng.random(X.shape) < 0.5)) if is_sparse else X,
        labels,
        None,
        (row_weights / row_weights.mean()).astype(real),
        n_classes,
        backend=reference,
    )


def problem_of(rng, C=1.0, fit_intercept=True, **options):
    shard = shard_of(rng, **options)
    return build_problem(Rows([shard]), 1.0 / (C * shard.n_rows), fit_intercept=fit_intercept)


def at_weights_of_the_minimum(problem):
    """The minimum, and an evaluation with its weights and other intercepts."""
    objective = SoftmaxObjective(problem)
    limits = Limits(1e-12, 200)
    found = full_batch.solve(objective, problem.null_point, limits, newton=False).result
    point = found.point.copy()
    shifts = 1e-3 * np.linspace(-1.0, 1.0, problem.n_logits) if problem.n_logits > 1 else 1e-3
    point[problem.n_weights :] += shifts
    return objective, point, found.evaluation.value


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("step", [1, 3])
def test_curvature_of_the_classes(n_classes, is_sparse, step, rng, real):
    shard = shard_of(rng, n_classes, real=real, is_sparse=is_sparse)
    weights = rng.normal(size=(shard.n_logits, shard.n_features))
    bias = rng.normal(size=shard.n_logits)
    found, weight = class_curvature(shard, weights, bias, step)
    logits = np.asarray((shard.X @ weights.T.astype(real)) + bias, dtype=float)[::step]
    if n_classes == 2:
        logits = np.column_stack([np.zeros(len(logits)), logits])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    s = shard.row_weights[::step].astype(float)
    expected = np.diag(s @ p) - (p.T * s) @ p
    own = expected[-shard.n_logits :, -shard.n_logits :]
    scale = 1e-12 if real == np.float64 else 1e-5
    np.testing.assert_allclose(found, own, rtol=scale, atol=scale * s.sum())
    assert weight == pytest.approx(s.sum(), rel=1e-6)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_step_brings_the_certificate(n_classes, rng):
    objective, point, least = at_weights_of_the_minimum(problem_of(rng, n_classes=n_classes))
    at = objective.evaluate(point)
    wanted = 1e-4 * at.value
    assert objective.gap_bound(at) > 10.0 * wanted
    step = objective.tightening(at, wanted)
    assert not step[: objective.n_weights].any()
    new = objective.evaluate(point + step)
    assert np.abs(new.bias_grad).max() < 0.05 * np.abs(at.bias_grad).max()
    assert new.value <= at.value
    # wide of it before, true and close after
    assert new.value - least <= objective.gap_bound(new) < wanted


def test_no_step_where_weights_have_not_converged(rng):
    problem = problem_of(rng)
    objective = SoftmaxObjective(problem)
    at = objective.evaluate(problem.null_point)
    assert objective.tightening(at, 1e-4 * at.value) is None


@pytest.mark.parametrize("case", ["no intercept", "1-norm", "no penalty"])
def test_no_step_where_intercepts_are_not_what_is_left(case, rng):
    problem = problem_of(rng, fit_intercept=case != "no intercept")
    if case != "no intercept":
        l2, l1 = (0.01, 0.01) if case == "1-norm" else (0.0, 0.0)
        problem = problem.with_penalty(l2, l1)
    objective = SoftmaxObjective(problem)
    at = objective.evaluate(problem.null_point)
    assert objective.tightening(at, np.inf) is None


def without_steps(monkeypatch):
    monkeypatch.setattr(SoftmaxObjective, "tightening", lambda self, at, wanted: None)


def test_fits_take_fewer_iterations(monkeypatch):
    X, y = load_digits(return_X_y=True)
    model = FastSoftmax(tol=1e-4).fit(X, y)
    best = FastSoftmax(tol=1e-10, max_iter=1000).fit(X, y)
    assert model.converged_
    assert model.objective_ - best.objective_ <= model.gap_ * model.objective_
    without_steps(monkeypatch)
    assert model.n_iter_[0] < 0.8 * FastSoftmax(tol=1e-4).fit(X, y).n_iter_[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tol", [1e-6, 1e-9])
def test_steps_in_vain_are_few(monkeypatch, tol, dtype):
    """Where rounding is what is left, and at tolerances that are nearly as small."""
    X, y = load_digits(return_X_y=True)
    model = FastSoftmax(tol=tol, max_iter=2000).fit(X.astype(dtype), y)
    without_steps(monkeypatch)
    other = FastSoftmax(tol=tol, max_iter=2000).fit(X.astype(dtype), y)
    assert model.converged_ == other.converged_
    assert model.n_iter_[0] <= 1.1 * other.n_iter_[0]


def test_a_value_that_rises_is_not_taken(rng):
    """Steps that are wrong cost an evaluation, and are not tried again at once."""
    problem = problem_of(rng)
    objective, asked = SoftmaxObjective(problem), []

    def wrong(at, wanted):
        asked.append(at.value)
        step = np.zeros(problem.n_params)
        step[-1] = 1.0
        return step

    objective.tightening = wrong
    limits = Limits(1e-8, 200)
    result = full_batch.solve(objective, problem.null_point, limits, newton=False).result
    assert result.gap <= 1e-8
    assert 0 < len(asked) < 0.8 * result.n_iter
