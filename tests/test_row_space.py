"""Fewer rows than features: the problem in the span of its rows."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax, FastSoftmaxCV, reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import row_space
from fastsoftmax.optimum.row_space import RowSpace
from fastsoftmax.optimum.stage import seen_outside
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard


@pytest.fixture(params=[2, 4], ids=["two classes", "four"])
def n_classes(request):
    return request.param


@pytest.fixture(params=["intercept", "no intercept", "standardized", "standardized, no intercept"])
def options(request):
    return {
        "fit_intercept": "no intercept" not in request.param,
        "standardize": "standardized" in request.param,
    }


def wide_rows(rng, n_classes, n=24, d=60):
    y = np.arange(n) % n_classes
    centers = rng.normal(size=(n_classes, d))
    return (centers[y] + rng.normal(size=(n, d))) * np.logspace(-1, 1, d), y


@pytest.fixture
def objective(rng, n_classes, options):
    """Two shards of float64 rows, weighted, of soft targets."""
    X, _ = wide_rows(rng, n_classes)
    probs = rng.dirichlet(np.ones(n_classes), len(X))
    weights = rng.uniform(0.5, 1.5, len(X))
    weights[3] = 0.0
    weights /= weights.mean()
    shards = [
        build_shard(
            X[rows],
            None,
            np.ascontiguousarray(probs[rows]),
            weights[rows],
            n_classes,
            label_smoothing=0.1,
            backend=reference,
        )
        for rows in (slice(0, 10), slice(10, None))
    ]
    return SoftmaxObjective(build_problem(Rows(shards), 0.02, **options))


def test_the_same_values(objective, rng):
    space = RowSpace(objective.problem)
    inner = SoftmaxObjective(space.problem)
    assert space.problem.n_features <= objective.problem.n_rows
    for _ in range(3):
        inside = rng.normal(size=space.problem.n_params)
        seen = inner.evaluate(inside)
        at = objective.evaluate(space.outside(inside))
        assert at.value == pytest.approx(seen.value, rel=1e-10)
        assert at.loss == pytest.approx(seen.loss, rel=1e-10)
        assert at.square == pytest.approx(seen.square, rel=1e-10)
        outside = seen_outside(space, seen)
        np.testing.assert_allclose(outside.weights, at.weights, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(outside.bias, at.bias, rtol=1e-9, atol=1e-12)


def test_there_and_back(objective, rng):
    space = RowSpace(objective.problem)
    inside = rng.normal(size=space.problem.n_params)
    np.testing.assert_allclose(space.inside(space.outside(inside)), inside, rtol=1e-9, atol=1e-9)
    # what lies outside the span changes no logit, and is left behind
    point = rng.normal(size=objective.problem.n_params)
    within = space.outside(space.inside(point))
    assert objective.evaluate(within).loss == pytest.approx(
        objective.evaluate(point).loss, rel=1e-9
    )
    assert objective.evaluate(within).square < objective.evaluate(point).square


def test_blocks_of_columns(objective, rng, monkeypatch):
    whole = RowSpace(objective.problem)
    monkeypatch.setattr(row_space, "_BLOCK_NUMBERS", 7 * objective.problem.n_rows)
    point = rng.normal(size=whole.problem.n_params)
    np.testing.assert_allclose(
        RowSpace(objective.problem).inside(whole.outside(point)) ** 2,
        point**2,
        rtol=1e-7,
        atol=1e-7,
    )


def fit_both(monkeypatch, X, y, **parameters):
    """The same fit with and without."""
    weights = parameters.pop("sample_weight", None)
    found = FastSoftmax(**parameters).fit(X, y, sample_weight=weights)
    with monkeypatch.context() as patch:
        patch.setattr(row_space, "_MOST_ROWS", 0)
        parameters |= {"tol": 1e-10, "max_iter": 20000}
        plain = FastSoftmax(**parameters).fit(X.astype(np.float64), y, sample_weight=weights)
    assert found.converged_ and plain.converged_
    assert found.objective_ <= plain.objective_ * (1.0 + found.gap_ + 1e-7)
    return found, plain


@pytest.mark.parametrize("is_spread", [False, True], ids=["alike", "of many sizes"])
def test_passes_over_the_rows_come_first(is_spread, rng, monkeypatch):
    """Where the span costs many passes it is entered only if they make slow progress."""
    X = rng.normal(size=(400, 2000))
    y = (X @ rng.normal(size=2000) + 20.0 * rng.normal(size=400) > 0).astype(int)
    X *= np.exp(2.0 * rng.normal(size=2000)) if is_spread else 1.0
    entered, init = [], RowSpace.__init__

    def note(self, full):
        entered.append(full)
        init(self, full)

    monkeypatch.setattr(RowSpace, "__init__", note)
    model = FastSoftmax(n_jobs=1).fit(X, y)
    assert model.converged_
    assert bool(entered) == is_spread
    assert len(model.history_["gap"]) == model.n_iter_[0]


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_fits_agree(real, n_classes, options, rng, monkeypatch):
    X, y = wide_rows(rng, n_classes)
    X = X.astype(real)
    weights = rng.uniform(0.0, 2.0, len(X))
    found, plain = fit_both(monkeypatch, X, y, C=0.3, tol=1e-8, sample_weight=weights, **options)
    np.testing.assert_allclose(found.coef_, plain.coef_, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(found.intercept_, plain.intercept_, rtol=2e-3, atol=2e-3)
    assert found.coef_.dtype == real


@pytest.mark.parametrize("storage", [np.uint8, np.int8, np.float16])
def test_storages(storage, n_classes, rng, monkeypatch):
    y = np.arange(30) % n_classes
    X = (rng.integers(0, 100, (30, 70)) + 5 * y[:, np.newaxis] * (np.arange(70) < 9)).astype(
        storage
    )
    fit_both(monkeypatch, np.asfortranarray(X), y, input_scale=0.01)


def test_many_classes_of_few_rows(rng, monkeypatch):
    """More coefficients than suit Newton's method."""
    y = np.arange(60) % 20
    X = (rng.normal(size=(20, 200))[y] + rng.normal(size=(60, 200))).astype(np.float32)
    fit_both(monkeypatch, X, y, C=10.0)


def test_features_of_all_sizes(rng):
    """100 rows of 2000 features: without this, 1000 iterations did not reach a gap of 0.4."""
    factors = rng.normal(size=(2000, 20))
    y = np.arange(100) % 3
    X = (rng.normal(size=(100, 20)) + 2.0 * np.eye(3, 20)[y]) @ factors.T
    X = ((X + rng.normal(size=X.shape)) * np.logspace(-1, 1, 2000)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FastSoftmax().fit(X, y)
    assert model.gap_ <= 1e-4
    assert model.n_iter_[0] < 100


def test_rows_that_are_all_alike(n_classes):
    """The span has no dimension left."""
    X, y = np.full((6, 20), 3.0), np.arange(6) % n_classes
    model = FastSoftmax().fit(X, y)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, 0.0, atol=1e-12)


def test_callbacks_see_the_users_coefficients(rng, n_classes):
    X, y = wide_rows(rng, n_classes)
    seen = []

    def look(state):
        seen.append((state.objective, state.gap, state.eval_loss[0]))

    model = FastSoftmax(C=0.3).fit(X, y, callbacks=[look], eval_set=[(X, y)])
    assert len(seen) == model.n_iter_[0]
    assert model.evaluate(X, y).loss == pytest.approx(seen[-1][2], rel=1e-6)
    assert model.objective_ == pytest.approx(seen[-1][0], rel=1e-9)


def test_limits(rng, n_classes):
    X, y = wide_rows(rng, n_classes)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model = FastSoftmax(C=0.3, max_iter=2).fit(X, y)
    assert model.n_iter_[0] == 2 and model.coef_.any()
    assert model.gap_ > 1e-4
    model = FastSoftmax(C=0.3).fit(X, y, callbacks=[lambda state: state.iteration == 1])
    assert model.n_iter_[0] == 1 and not model.converged_


def test_warm_start(rng, n_classes):
    X, y = wide_rows(rng, n_classes)
    model = FastSoftmax(C=0.3, warm_start=True).fit(X, y)
    first = model.n_iter_[0]
    assert model.set_params(C=0.31).fit(X, y).n_iter_[0] < first


def test_cross_validation(rng, n_classes):
    X, y = wide_rows(rng, n_classes, n=40)
    model = FastSoftmaxCV([0.01, 0.1, 1.0], cv=4, certify_folds=True).fit(X, y)
    assert model.gaps_.max() <= 1e-4


def test_no_penalty_is_another_matter(rng, n_classes):
    """The span keeps the weights only where there is a penalty."""
    X, y = wide_rows(rng, n_classes)
    with pytest.warns(ConvergenceWarning, match="separable"):
        FastSoftmax(C=np.inf).fit(X, y)
