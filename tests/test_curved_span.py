"""Fits without a penalty where features depend on each other: steps along the rows alone."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from fastsoftmax import FastSoftmax


REPEATS = [3, 0, 2, 1, 4, 0, 1, 2, 1, 3, 0, 2]


@pytest.fixture(params=["native", "numpy"])
def backend(request):
    return request.param


@pytest.fixture
def wide(rng):
    """Few rows of many features, whose classes any line separates."""
    return rng.random((12, 30)), np.arange(12) % 3


@pytest.fixture
def overlapping(rng):
    """Rows that no line separates, the sum of the first three features of which is 1."""
    X = np.hstack([np.eye(3)[rng.integers(0, 3, 300)], rng.normal(size=(300, 2))])
    y = (X @ rng.normal(size=(5, 3)) + rng.gumbel(size=(300, 3))).argmax(axis=1)
    return X, y


def fit(X, y, sample_weight=None, **parameters):
    model = FastSoftmax(C=np.inf, solver="newton-cholesky", n_jobs=1, **parameters)
    return model.fit(X, y, sample_weight)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize(
    "parameters", [{}, {"fit_intercept": False}, {"standardize": True}], ids=str
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_repeats(wide, form, parameters, n_classes, backend, rng):
    """The inverse of a singular Hessian made steps of its rounding: predictions differed by 1%."""
    X, y = wide[0], wide[1] % n_classes
    again = rng.permutation(np.repeat(np.arange(12), REPEATS))
    weighted = fit(form(X), y, REPEATS, backend=backend, **parameters)
    repeated = fit(form(X[again]), y[again], backend=backend, **parameters)
    assert weighted.n_iter_ == repeated.n_iter_
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-7)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_in_the_span_of_the_rows(wide, n_classes, backend):
    X, y = wide[0], wide[1] % n_classes
    model = fit(X, y, REPEATS, backend=backend)
    rows = X[np.array(REPEATS) > 0]
    centered = rows - np.average(X, axis=0, weights=REPEATS)
    outside = model.coef_ - model.coef_ @ np.linalg.pinv(centered) @ centered
    assert np.abs(outside).max() < 1e-10 * np.abs(model.coef_).max()
    if n_classes > 2:
        assert np.abs(model.coef_.sum(axis=0)).max() < 1e-10 * np.abs(model.coef_).max()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_optimum_is_that_of_other_solvers_from_0(overlapping, n_classes, backend):
    """Of all optima the shortest, as gradients are in the span of the rows."""
    X, y = overlapping[0], overlapping[1] % n_classes
    model = fit(X, y, backend=backend)
    assert model.converged_
    centered = X - X.mean(axis=0)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(centered, y)
    np.testing.assert_allclose(model.coef_, theirs.coef_, rtol=1e-4, atol=1e-5)


def test_scales_of_features_do_not_matter(overlapping):
    X, y = overlapping
    plain = fit(X, y)
    for scales in ([1e3, 1e3, 1e3, 1e-2, 1.0], [1e7, 1e7, 1e7, 1e-3, 1.0]):
        scaled = fit(X * scales, y)
        assert scaled.converged_
        assert scaled.objective_ == pytest.approx(plain.objective_, rel=1e-10)


@pytest.mark.parametrize("columns", [[0, 1, 2, 3, 0], [0, 1, 2, 3, 3, 3]])
def test_features_that_are_there_twice(columns):
    X, y = load_iris(return_X_y=True)
    y = y > 1
    once, twice = fit(X, y), fit(X[:, columns], y)
    assert twice.objective_ == pytest.approx(once.objective_, rel=1e-9)
    for j in range(4):
        same = np.flatnonzero(np.array(columns) == j)
        np.testing.assert_allclose(
            twice.coef_[0, same], once.coef_[0, j] / len(same), rtol=1e-5, atol=1e-8
        )


def test_constant_features(overlapping):
    X, y = overlapping
    more = np.column_stack([X, np.full(300, 0.1), np.zeros(300)])
    plain, padded = fit(X, y), fit(more, y)
    np.testing.assert_allclose(padded.coef_[:, :5], plain.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(padded.coef_[:, 5:], 0.0, atol=1e-9)


