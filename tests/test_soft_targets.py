"""Targets that are probabilities of the classes, and label smoothing."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

from fastsoftmax import FastSoftmax

SOLVERS = ["newton-cholesky", "lbfgs"]


@pytest.fixture(params=[2, 4], ids=["two classes", "four"])
def n_classes(request):
    return request.param


@pytest.fixture(params=[np.asarray, sparse.csr_array], ids=["dense", "csr"])
def form(request):
    return request.param


@pytest.fixture
def X(rng):
    return rng.normal(size=(60, 5)) * (rng.random((60, 5)) < 0.7)


@pytest.fixture
def probs(rng, X, n_classes):
    logits = X @ rng.normal(size=(5, n_classes)) + rng.normal(size=(60, n_classes))
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True)


def as_rows_of_labels(X, probs, weights=None):
    """The same as rows of labels: each row once for each class, weighted."""
    n, k = probs.shape
    weights = np.ones(n) if weights is None else weights
    return (
        np.repeat(X, k, axis=0),
        np.tile(np.arange(k), n),
        (weights[:, np.newaxis] * probs).ravel(),
    )


def assert_same(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(a.intercept_, b.intercept_, rtol=tolerance, atol=tolerance)
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_one_hot_targets_are_labels(X, probs, form, solver, fit_intercept):
    y = probs.argmax(axis=1)
    model = FastSoftmax(solver=solver, fit_intercept=fit_intercept, tol=1e-10)
    of_labels = clone(model).fit(form(X), y)
    for one_hot in (np.eye(probs.shape[1])[y], np.eye(probs.shape[1], dtype=int)[y]):
        assert_same(model.fit(form(X), one_hot), of_labels)
    np.testing.assert_array_equal(model.classes_, of_labels.classes_)
    np.testing.assert_array_equal(model.predict(X), of_labels.predict(X))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("standardize", [True, False])
def test_a_row_counts_like_rows_of_labels(X, probs, form, solver, standardize, rng):
    weights = rng.uniform(0.0, 2.0, len(X))
    model = FastSoftmax(solver=solver, standardize=standardize, tol=1e-11)
    rows, labels, row_weights = as_rows_of_labels(X, probs, weights)
    expected = clone(model).fit(form(rows), labels, sample_weight=row_weights)
    actual = model.fit(form(X), probs, sample_weight=weights)
    assert actual.converged_ and expected.converged_
    assert_same(actual, expected)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.5, 1: 3.0}, {1: 0.0}])
def test_class_weight(X, probs, class_weight, n_classes):
    if class_weight == {1: 0.0}:
        if n_classes == 2:
            pytest.skip("one class is left")
        with pytest.raises(ValueError, match="gives none to class 1: leave its column out"):
            FastSoftmax(class_weight=class_weight).fit(X, probs)
        return
    model = FastSoftmax(class_weight=class_weight, tol=1e-11)
    rows, labels, row_weights = as_rows_of_labels(X, probs)
    expected = clone(model).fit(rows, labels, sample_weight=row_weights)
    assert_same(model.fit(X, probs), expected)


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_few_rows_of_many_features(rng, real, n_classes):
    X = rng.normal(size=(20, 50)).astype(real)
    probs = rng.dirichlet(np.ones(n_classes), 20).astype(real)
    model = FastSoftmax(tol=1e-6).fit(X, probs)
    rows, labels, row_weights = as_rows_of_labels(X, probs)
    expected = FastSoftmax(tol=1e-9).fit(rows.astype(float), labels, sample_weight=row_weights)
    assert_same(model, expected, 1e-3)


@pytest.mark.parametrize("soft", [False, True])
def test_label_smoothing(X, probs, form, soft, n_classes):
    y = probs if soft else probs.argmax(axis=1)
    targets = probs if soft else np.eye(n_classes)[y]
    smoothed = 0.7 * targets + 0.3 / n_classes
    model = FastSoftmax(label_smoothing=0.3, tol=1e-10).fit(form(X), y)
    assert_same(model, FastSoftmax(tol=1e-10).fit(form(X), smoothed))


def test_sgd(X, probs, form, n_classes):
    y = probs.argmax(axis=1)
    options = {"solver": "sgd", "max_iter": 3, "random_state": 0, "batch_size": 16}
    of_labels = FastSoftmax(**options).fit(form(X), y)
    of_probs = FastSoftmax(**options).fit(form(X), np.eye(n_classes)[y])
    np.testing.assert_allclose(of_probs.coef_, of_labels.coef_, rtol=1e-6, atol=1e-9)
    FastSoftmax(**options, label_smoothing=0.1).fit(form(X), probs)


@pytest.mark.parametrize("labels", [["b", "a", "d", "c"], [10, -1, 3, 2.5]])
def test_classes(X, probs, labels, n_classes):
    labels = labels[:n_classes]
    model = FastSoftmax(tol=1e-10).fit(X, probs, classes=labels)
    assert model.classes_.tolist() == sorted(labels)
    plain = FastSoftmax(tol=1e-10).fit(X, probs)
    order = np.argsort(labels)
    np.testing.assert_allclose(
        model.predict_proba(X), plain.predict_proba(X)[:, order], rtol=1e-5, atol=1e-8
    )
    np.testing.assert_array_equal(model.predict(X), np.array(labels)[plain.predict(X)])
    assert model.fit(X, probs, classes=labels, eval_set=[(X, model.predict(X))]).converged_


def test_data_frames(X, probs):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    model = FastSoftmax(tol=1e-10).fit(frame, pandas.DataFrame(probs))
    assert_same(model, FastSoftmax(tol=1e-10).fit(X, probs))
    assert model.feature_names_in_.tolist() == list("abcde")


def test_nothing_is_written_to(X, probs):
    X.flags.writeable = probs.flags.writeable = False
    FastSoftmax(class_weight="balanced").fit(X, probs)


def test_errors(X, probs, n_classes):
    model = FastSoftmax()
    bad = probs.copy()
    bad[3, 0] = -0.1
    with pytest.raises(ValueError, match="y must hold probabilities"):
        model.fit(X, bad)
    bad[3, 0] = np.nan
    with pytest.raises(ValueError, match="y must hold probabilities"):
        model.fit(X, bad)
    with pytest.raises(ValueError, match=r"each row of y must sum to 1.*in row 0"):
        model.fit(X, 2.0 * probs)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, probs[:-1])
    with pytest.raises(TypeError, match="y"):
        model.fit(X, probs.astype(str))
    with pytest.raises(ValueError, match=f"each of the {n_classes} columns"):
        model.fit(X, probs, classes=[1])
    with pytest.raises(ValueError, match="different from each other"):
        model.fit(X, probs, classes=[1] * n_classes)
    with pytest.raises(ValueError, match="classes names the columns"):
        model.fit(X, probs.argmax(axis=1), classes=[0, 1])
    with pytest.raises(ValueError, match="label_smoothing"):
        FastSoftmax(label_smoothing=1.0).fit(X, probs)


def test_a_class_without_probability(X, probs, n_classes):
    """Its intercept would go to minus infinity."""
    wider = np.column_stack([probs, np.zeros(len(X))])
    with pytest.raises(ValueError, match=f"none to class {n_classes}"):
        FastSoftmax().fit(X, wider)
    assert FastSoftmax(label_smoothing=0.1).fit(X, wider).converged_
    weights = np.ones(len(X))
    wider[0] = np.eye(n_classes + 1)[-1]
    weights[0] = 0.0
    with pytest.raises(ValueError, match=f"none to class {n_classes}"):
        FastSoftmax().fit(X, wider, sample_weight=weights)


def test_a_column_of_labels_is_still_one(X, probs):
    with pytest.warns(UserWarning, match="column-vector"):
        FastSoftmax().fit(X, probs.argmax(axis=1)[:, np.newaxis])
