"""standardize and input_scale: the same models as on features that were scaled beforehand."""

import itertools

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fastsoftmax import FastSoftmax, reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.descent import minimise
from fastsoftmax.solvers.lbfgs import LbfgsModel
from fastsoftmax.solvers.protocols import Limits


@pytest.fixture(params=[2, 3], ids=["two classes", "three"])
def data(request):
    rng = np.random.default_rng(0)
    y = np.arange(200) % request.param
    X = rng.normal(size=(200, 5)) + rng.normal(size=(request.param, 5))[y]
    return X * [1e-3, 1.0, 30.0, 1e4, 1.0] + [0.0, 5.0, -100.0, 1e4, 0.3], y


@pytest.fixture(params=["lbfgs", "newton-cholesky"])
def solver(request):
    return request.param


def exact(**parameters):
    return FastSoftmax(**{"tol": 1e-10, **parameters})


def scaled_fit(X, y, weights=None, *, scaler, **parameters):
    """(coefficients for X, intercept for X) of scikit-learn's fit to scaled features."""
    Z = scaler.fit_transform(X, sample_weight=weights)
    theirs = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000, **parameters)
    theirs.fit(Z, y, weights)
    coef = theirs.coef_ / scaler.scale_
    return coef, theirs.intercept_ - coef @ scaler.mean_


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_array, np.asfortranarray])
@pytest.mark.parametrize("weighted", [False, True])
def test_standardize(data, solver, fit_intercept, storage, weighted):
    X, y = data
    weights = np.random.default_rng(3).integers(0, 4, len(y)).astype(float) if weighted else None
    model = exact(standardize=True, solver=solver, fit_intercept=fit_intercept)
    model.fit(storage(X), y, weights)
    coef, intercept = scaled_fit(
        X, y, weights, scaler=StandardScaler(), fit_intercept=fit_intercept
    )
    deviations = X.std(axis=0)
    np.testing.assert_allclose(model.coef_ * deviations, coef * deviations, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.decision_function(X),
                               (X @ coef.T + intercept).squeeze(), atol=1e-4)  # fmt: skip
    assert model.converged_


def test_standardize_does_not_care_for_units(data):
    X, y = data
    units = np.array([1e8, 1e-8, 1.0, 1e5, 1e-4])
    model = exact(standardize=True).fit(X, y)
    other = exact(standardize=True).fit(X * units, y)
    np.testing.assert_allclose(other.coef_ * units, model.coef_, rtol=1e-5)
    assert other.objective_ == pytest.approx(model.objective_, rel=1e-10)


def test_constant_features(data):
    X, y = data
    constant = np.column_stack([X, np.full(len(y), 1e6), np.zeros(len(y))])
    model = exact(standardize=True).fit(constant, y)
    np.testing.assert_allclose(model.coef_[:, -2:], 0.0, atol=1e-8)
    np.testing.assert_allclose(
        model.predict_proba(constant), exact(standardize=True).fit(X, y).predict_proba(X), atol=1e-6
    )


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_array])
def test_input_scale(data, solver, storage, fit_intercept):
    X, y = data
    X = X / X.std(axis=0)
    options = {"solver": solver, "fit_intercept": fit_intercept}
    model = exact(input_scale=0.05, **options).fit(storage(X), y)
    other = exact(**options).fit(X * 0.05, y)
    np.testing.assert_allclose(model.coef_, other.coef_ * 0.05, rtol=1e-5, atol=1e-9)
    assert model.objective_ == pytest.approx(other.objective_, rel=1e-10)
    assert model.gap_ <= 1e-10
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X * 0.05), atol=1e-7)


def test_bytes():
    """What it is for: pixels as they are."""
    rng = np.random.default_rng(1)
    y = np.arange(400) % 4
    X = np.clip(rng.normal(120, 40, (400, 20)) + 30 * rng.normal(size=(4, 20))[y], 0, 255)
    X = X.astype(np.uint8)
    model = FastSoftmax(input_scale=1 / 255, tol=1e-6).fit(X, y)
    other = FastSoftmax(tol=1e-10).fit(X / 255.0, y)
    np.testing.assert_allclose(model.coef_ * 255, other.coef_, atol=2e-3)
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X / 255.0), atol=1e-3)


class TestSgd:
    def options(self, momentum):
        return {
            "solver": "sgd", "max_iter": 8, "batch_size": 16, "learning_rate": 0.05,
            "momentum": momentum, "random_state": 0,
        }  # fmt: skip

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("fit_intercept", [True, False])
    @pytest.mark.parametrize("backend", ["auto", "numpy"])
    def test_standardize(self, data, momentum, fit_intercept, backend):
        X, y = data
        options = {**self.options(momentum), "fit_intercept": fit_intercept, "backend": backend}
        scaler = StandardScaler()
        other = FastSoftmax(**options).fit(scaler.fit_transform(X), y)
        model = FastSoftmax(standardize=True, **options).fit(X, y)
        np.testing.assert_allclose(model.coef_ * scaler.scale_, other.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(
            model.decision_function(X), other.decision_function(scaler.transform(X)), atol=1e-6
        )
        assert model.objective_ == pytest.approx(other.objective_, rel=1e-8)

    @pytest.mark.parametrize("backend", ["auto", "numpy"])
    def test_deviations_of_one(self, data, backend):
        """Regression: features to be shifted, but not scaled, were refused."""
        y = data[1]
        X = np.where(np.arange(len(y) // 2 * 2) % 2, 6.0, 4.0)[:, np.newaxis]
        y = y[: len(X)]
        options = {**self.options(0.0), "backend": backend}
        model = FastSoftmax(standardize=True, **options).fit(X, y)
        other = FastSoftmax(**options).fit(X - 5.0, y)
        np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-9)

    @pytest.mark.parametrize("storage", [np.asarray, sparse.csr_array])
    def test_input_scale(self, data, storage):
        X, y = data
        X = X / X.std(axis=0)
        options = self.options(0.9)
        other = FastSoftmax(**options).fit(X * 0.1, y)
        model = FastSoftmax(input_scale=0.1, **options).fit(storage(X), y)
        np.testing.assert_allclose(model.coef_, other.coef_ * 0.1, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(
    ("storage", "real", "far", "size"),
    [
        *itertools.product([np.asarray, sparse.csr_array], ["f8", "f4"], [0, 1e3], [8]),
        (np.asarray, "f8", 1e7, 8), (np.asarray, "f4", 1e6, 8), (np.asarray, "f4", 1e6, 0.2),
    ],
)  # fmt: skip
def test_means_and_deviations_have_all_digits(storage, real, far, size, fit_intercept):
    """Also where the first mean has the digits of float32, and of a column that is constant."""
    rng = np.random.default_rng(2)
    X = (size * rng.normal(size=(301, 6)) + far).astype(real)
    X[:, -1] = np.array(far + 0.3, real)  # constant
    weights = rng.uniform(0.5, 1.5, 301)
    weights = (weights / weights.mean()).astype(real)
    labels = (np.arange(301) % 3).astype(np.int32)
    rows = Rows([build_shard(storage(X), labels, None, weights, 3, backend=reference)])
    problem = build_problem(rows, 1e-3, standardize=True, fit_intercept=fit_intercept)
    wide, share = X.astype(np.longdouble), weights.astype(np.longdouble)
    share /= share.sum()
    means = share @ wide
    deviations = np.sqrt(share @ (wide - means) ** 2)
    deviations[-1] = 1.0
    found = problem.coordinates
    np.testing.assert_allclose(found.scale * deviations.astype(float), 1.0, rtol=1e-6)
    little = 1e-6 if fit_intercept else 1e-8  # without an intercept the objective changes by it
    room = np.abs(np.spacing(found.center)) + little * deviations
    assert (np.abs(found.center - means) <= room).all()


def test_deviation_where_no_float64_is_near_the_mean():
    x = 2.0**53 + np.array([0.0, 0.0, 14.0])
    labels = np.arange(3, dtype=np.int32)
    rows = Rows([build_shard(x[:, np.newaxis], labels, None, np.ones(3), 3, backend=reference)])
    problem = build_problem(rows, 1e-3, standardize=True, fit_intercept=True)
    deviation = np.std([0.0, 0.0, 14.0])
    np.testing.assert_allclose(problem.coordinates.scale, 1.0 / deviation, rtol=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_certificate_is_never_below_the_true_gap(data, fit_intercept):
    """Along a whole fit."""
    X, y = data
    labels, ones = y.astype(np.int32), np.ones(len(y))
    shard = build_shard(X, labels, None, ones, len(set(y)), backend=reference)
    rows, options = Rows([shard]), {"fit_intercept": fit_intercept, "standardize": True}
    objective = SoftmaxObjective(build_problem(rows, 1e-3, **options))
    seen = []

    def note(_, at, gap):
        seen.append((at.value, objective.gap_bound(at)))

    best = minimise(
        objective,
        objective.problem.null_point,
        LbfgsModel(objective),
        Limits(1e-13, 500, note),
    ).evaluation.value
    assert len(seen) > 3
    for value, bound in seen:
        assert bound >= (value - best) * (1 - 1e-9) - 1e-13


@pytest.mark.parametrize(
    ("name", "value"),
    [("standardize", "yes"), ("input_scale", 0.0), ("input_scale", -1.0), ("input_scale", np.nan)],
)
def test_wrong_parameters(data, name, value):
    with pytest.raises(ValueError, match=name):
        FastSoftmax(**{name: value}).fit(*data)
