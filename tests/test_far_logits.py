"""Logits beyond the range of their number type, and fits to rows that have no finite optimum.

Rows of -3.4e38 or 1e38 stand for "no data": their logits overflowed, probabilities were NaN, and
class 0 was predicted; a fit to 40 of them returned NaN.
"""

from fractions import Fraction

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path

LARGEST = {np.float32: 3.4e38, np.float64: 1.7e308}
STORED = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sparse.csr_array}


@pytest.fixture(params=["native", "numpy"])
def backend(request):
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def real(request):
    return request.param


def fitted(rng, n_classes, real, **options):
    X, y = rng.normal(size=(60, 5)).astype(real), np.arange(60) % n_classes
    return FastSoftmax(**options).fit(X, y), X, y


def exact_logits(model, X):
    """Logits of all classes, as fractions."""
    coef, intercept = model.coef_.tolist(), model.intercept_.tolist()
    logits = [
        [
            sum((Fraction(x) * Fraction(w) for x, w in zip(row, ws, strict=True)), Fraction(b))
            for ws, b in zip(coef, intercept, strict=True)
        ]
        for row in X.tolist()
    ]
    return [[Fraction(0), *row] for row in logits] if len(coef) == 1 else logits


@pytest.fixture(params=[2, 3, 10], ids=lambda k: f"{k} classes")
def far(request, rng, real, backend):
    """(model, rows, numbers of the classes by exact logit, largest first)."""
    model, _, _ = fitted(rng, request.param, real, backend=backend)
    model.coef_ = (100.0 * model.coef_).astype(real)
    X = rng.normal(size=(30, 5))
    for row in X[::2]:
        places = rng.integers(0, 5, 3)
        row[places] = LARGEST[real] * rng.choice([-1.0, -0.1, 0.1, 1.0], 3)
    X = X.astype(real)
    order = [sorted(range(len(row)), key=lambda k: (-row[k], k)) for row in exact_logits(model, X)]
    return model, X, np.array(order)


@pytest.mark.parametrize("storage", STORED)
def test_overflowing_logits_keep_their_order(far, real, storage):
    model, X, order = far
    X, best, n_classes = STORED[storage](X), order[:, 0], order.shape[1]
    assert model.predict(X).tolist() == best.tolist()
    proba, logs = model.predict_proba(X), model.predict_log_proba(X)
    logits = model.decision_function(X)
    for values in (proba, logs, logits):
        assert values.dtype == real
        assert np.isfinite(values).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    if n_classes == 2:
        assert (logits > 0.0).tolist() == (best == 1).tolist()
    else:
        descending = np.take_along_axis(logits, order, axis=1)
        assert (descending[:, :-1] >= descending[:, 1:]).all()
        assert (descending[::2, 0] > descending[::2, 1]).all()
    labels, top = model.predict_topk(X, n_classes)
    assert labels.tolist() == order.tolist()
    assert np.array_equal(top, np.take_along_axis(proba, order, axis=1))
    assert model.predict_with_reject(X[::2], 0.5, reject_label=-1).tolist() == best[::2].tolist()
    costs = 1.0 - np.eye(n_classes)
    assert model.predict_cost_sensitive(X, costs).tolist() == proba.argmax(axis=1).tolist()
    assert model.score(X, best) == 1.0


def test_evaluate_and_evaluation_sets_see_overflowing_rows(far, rng):
    model, X, order = far
    right = model.evaluate(X, order[:, 0])
    assert (right.accuracy, right.loss < 1.0) == (1.0, True)
    wrong = model.evaluate(X, order[:, -1])
    assert wrong.accuracy == 0.0
    assert 1e30 < wrong.loss < np.inf
    weights = np.arange(len(X)) % 2.0  # without the rows that overflow
    usual = model.evaluate(X, order[:, -1], sample_weight=weights)
    assert usual.loss == pytest.approx(model.evaluate(X[1::2], order[1::2, -1]).loss)


def test_ties_share_and_the_first_class_wins(backend):
    model = FastSoftmax(backend=backend).fit(np.eye(3, dtype=np.float32), [0, 1, 2])
    model.coef_ = np.array([[0, 0, 9], [9, 9, 0], [9, 9, 0]], np.float32)
    model.intercept_ = np.zeros(3, np.float32)
    X = np.array([[3e38, 3e38, 0]], np.float32)
    assert model.predict_proba(X).tolist() == [[0.0, 0.5, 0.5]]
    assert model.predict(X).tolist() == [1]
    assert model.decision_function(X)[0, 1] == model.decision_function(X)[0, 2]
    np.testing.assert_allclose(model.predict_log_proba(X)[0, 1:], -np.log(2.0), rtol=1e-6)
    # sums of both signs that overflow, and are 0 and 1
    model.coef_ = np.array([[9, -9, 1], [9, -9, 0], [0, 0, 0]], np.float32)
    p = model.predict_proba(np.array([[3e38, 3e38, 1]], np.float32))
    np.testing.assert_allclose(p, [np.exp([1, 0, 0]) / np.exp([1, 0, 0]).sum()], rtol=1e-6)


def test_other_rows_keep_their_bits(rng, real):
    model, X, _ = fitted(rng, 3, real)
    before = model.predict_proba(X)
    model.coef_ = model.coef_ * real(100)
    before = model.predict_proba(X)
    X[7] = LARGEST[real]
    kept = np.arange(len(X)) != 7
    assert np.array_equal(model.predict_proba(X)[kept], before[kept])


def test_a_temperature_by_which_coefficients_overflow(rng):
    model, X, _ = fitted(rng, 3, np.float32)
    expected = model.predict(X)
    model.temperature_ = 1e-38
    model.coef_ *= np.float32(1e3)
    model.intercept_ *= np.float32(1e3)
    assert model.predict(X).tolist() == expected.tolist()
    assert set(np.unique(model.predict_proba(X))) == {0.0, 1.0}
    assert np.isfinite(model.evaluate(X, expected).loss)


def test_nan_and_infinite_features_are_refused_as_before(rng):
    model, X, y = fitted(rng, 3, np.float32)
    X[3, 1], X[4, 1] = np.inf, 3e38
    for call in (model.predict, model.predict_proba, lambda X: model.evaluate(X, y)):
        with pytest.raises(ValueError, match="Input X contains infinity"):
            call(X)


def test_calibration_names_the_row(rng):
    model, X, y = fitted(rng, 3, np.float32)
    model.coef_ *= np.float32(1000.0)
    X[11] = -3.4e38
    with pytest.raises(ValueError, match="the logits of row 11 of X are too large"):
        model.calibrate_temperature(X, y)


# ---- fits ----

OPTIONS = {
    "auto": {},
    "standardize": {"standardize": True},
    "no intercept": {"fit_intercept": False},
    "lbfgs": {"solver": "lbfgs"},
    "1-norm": {"l1_ratio": 0.5},
    "no penalty": {"C": np.inf},
    "early stopping": {"early_stopping": True},
    "sgd": {"solver": "sgd", "max_iter": 3},
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("storage", ["C", "csr"])
@pytest.mark.parametrize("number", [1e38, -3.4e38, 1.7e308], ids=str)
def test_a_fit_is_finite_or_an_error(rng, options, storage, number):
    real = np.float32 if abs(number) < 1e39 else np.float64
    model, X, y = fitted(rng, 3, real, max_time=5, random_state=0)
    before = dict(vars(model.set_params(**options)))
    X[:40, 2] = number
    try:
        model.fit(STORED[storage](X), y)
    except ValueError as error:
        assert "the fit found no finite coefficients: feature 2 of row" in str(
            error
        ) or "learning_rate=0.1 is too large" in str(error)
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[name] is value for name, value in before.items())
    else:
        assert np.isfinite(model.coef_).all()
        assert np.isfinite(model.intercept_).all()
        assert np.isfinite(model.objective_) or options.get("solver") == "sgd"


def test_standardized_float32_rows_of_1e38_are_fitted(rng):
    _, X, y = fitted(rng, 3, np.float32)
    X[:40, 2] = 1e38
    model = FastSoftmax(standardize=True).fit(X, y)
    assert model.converged_
    same = FastSoftmax(standardize=True).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(model.predict_proba(X), same.predict_proba(X), atol=1e-2)


def test_nothing_is_set_without_coefficients(rng):
    _, X, y = fitted(rng, 3, np.float64)
    X[:40, 2] = 1.7e308
    model, sweep = FastSoftmax(), FastSoftmaxCV(Cs=2, cv=2)
    for estimator in (model, sweep):
        with pytest.raises(ValueError, match="no finite coefficients: feature 2 of row"):
            estimator.fit(X, y)
        assert vars(estimator).keys() == estimator.get_params().keys()
    with pytest.raises(ValueError, match="no finite coefficients"):
        fastsoftmax_path(X, y, Cs=2)
    steps = FastSoftmax(solver="sgd", max_iter=3)
    with pytest.raises(ValueError, match="partial_fit diverged"):
        steps.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="diverged in epoch"):
        steps.fit([(X[:30], y[:30]), (X[30:], y[30:])])
    assert vars(steps).keys() == steps.get_params().keys()


def test_features_too_small_for_their_coefficients(rng):
    _, X, y = fitted(rng, 3, np.float32)
    with pytest.raises(ValueError, match="pass X as float64"):
        FastSoftmax(standardize=True).fit(X * np.float32(1e-40), y)


def test_evaluation_sets_have_finite_losses(rng):
    _, X, y = fitted(rng, 3, np.float32)
    held = X[:20].copy()
    held[3] = -3.4e38
    model = FastSoftmax(C=1e3).fit(20.0 * X, y, eval_set=[(held, y[:20])])
    assert np.isfinite([loss for (loss,) in model.history_["eval_loss"]]).all()
