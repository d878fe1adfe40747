"""FastSoftmaxCV and fastsoftmax_path on float32 features as people have them: not scaled at all.

There rounding ends a fit early unless it goes on in float64. Warnings are errors here, so that no
fit may miss `tol`, and each is compared with a FastSoftmax of its own rows.
"""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path

CS = [0.01, 10.0]
TOL = 1e-4

SCALES = {
    "1e-8": lambda X: 1e-8 * X,
    "1e8": lambda X: 1e8 * X,
    "1e-8 to 1e8": lambda X: X * np.geomspace(1e-8, 1e8, X.shape[1]),
    "1e4 + noise": lambda X: 1e4 + X,
    "1e6 + noise": lambda X: 1e6 + 100.0 * X,
}
# rows, features, classes; up to 320 coefficients are fitted by Newton's method
SIZES = {
    "Newton": (150, 6, 3),
    "Newton, two classes": (150, 6, 2),
    "L-BFGS": (600, 10, 30),
}


@pytest.fixture(params=SCALES)
def scale(request):
    return SCALES[request.param]


@pytest.fixture(params=SIZES)
def problem(request, scale):
    n, d, k = SIZES[request.param]
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    signal = X @ rng.normal(size=(d, k)) * np.sqrt(6.0 / d)
    y = (signal + 4.0 * rng.gumbel(size=(n, k))).argmax(axis=1)
    y[: 2 * k] = np.arange(2 * k) % k
    return scale(X).astype(np.float32), y


def assert_same_optimum(coef, intercept, gap, model, X, y):
    """Both are within `tol` of the minimum, so their objectives differ by no more."""
    assert gap <= TOL
    assert_same_objective(coef, intercept, model, X, y)


def assert_same_objective(coef, intercept, model, X, y):
    assert model.gap_ <= TOL
    value = objective(coef, intercept, model.C, X, y)
    own = objective(model.coef_, model.intercept_, model.C, X, y)
    assert value == pytest.approx(own, rel=1.01 * TOL)


def objective(coef, intercept, C, X, y):
    """F in extended precision: W x and b cancel where features are far from 0."""
    W, b = coef.astype(np.longdouble), intercept.astype(np.longdouble)
    logits = X.astype(np.longdouble) @ W.T + b
    if logits.shape[1] == 1:
        logits = np.column_stack([np.zeros(len(X)), logits])
    largest = logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    loss = (log_sums - logits[np.arange(len(X)), y]).mean()
    return float(loss + (W * W).sum() / (2.0 * C * len(X)))


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["intercept", "no intercept"])
class TestUnscaledFloat32:
    def test_path(self, problem, fit_intercept):
        X, y = problem
        options = {"fit_intercept": fit_intercept, "tol": TOL, "n_jobs": 1}
        models = [FastSoftmax(C, **options).fit(X, y) for C in CS]
        path = fastsoftmax_path(X, y, CS, **options)
        for i, model in enumerate(models):
            fit = path.coefs[i], path.intercepts[i], path.gaps[i]
            assert_same_optimum(*fit, model, X, y)

    @pytest.mark.parametrize("certify", [False, True])
    def test_cross_validation(self, problem, fit_intercept, certify):
        X, y = problem
        options = {"fit_intercept": fit_intercept, "tol": TOL, "n_jobs": 1}
        splits = [train for train, _ in StratifiedKFold(2).split(X, y)]
        models = [[FastSoftmax(C, **options).fit(X[rows], y[rows]) for C in CS] for rows in splits]
        cv = FastSoftmaxCV(CS, cv=2, certify_folds=certify, **options).fit(X, y)
        assert cv.converged_
        for i, rows in enumerate(splits):
            for j in range(len(CS)):
                fold = cv.coefs_paths_[i, j], cv.intercepts_paths_[i, j]
                assert_same_objective(*fold, models[i][j], X[rows], y[rows])
        assert not certify or (cv.gaps_ <= TOL).all()
        best = FastSoftmax(cv.C_, **options).fit(X, y)
        assert_same_optimum(cv.coef_, cv.intercept_, cv.gap_, best, X, y)
