"""Steps over rows as they come."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from sklearn.base import clone

from fastsoftmax import FastSoftmax


@pytest.fixture(params=[2, 3], ids=["two classes", "three"])
def n_classes(request):
    return request.param


@pytest.fixture
def rows(rng, n_classes):
    X = rng.normal(size=(90, 6)) * (rng.random((90, 6)) < 0.6)
    return X, np.arange(90) % n_classes, rng.uniform(0.5, 2.0, 90)


class Plain:
    """The same steps, written plainly."""

    def __init__(self, model, W, b, n_classes):
        self.model, self.W, self.b, self.n_classes = model, W.copy(), b.copy(), n_classes
        self.velocity = [np.zeros_like(W), np.zeros_like(b)]
        self.seen = 0.0

    def take(self, X, probs, weights):
        m = self.model
        self.seen += weights.sum()
        size = min(m.batch_size, len(X))
        for start in range(0, len(X), size):
            batch = slice(start, start + size)
            x, t, s = X[batch], probs[batch], weights[batch]
            t = (1.0 - m.label_smoothing) * t + m.label_smoothing / self.n_classes
            logits = x @ self.W.T + self.b
            if self.n_classes == 2:
                logits = np.column_stack([np.zeros(len(x)), logits])
            residual = (softmax(logits, axis=1) - t) * s[:, np.newaxis] / size
            residual = residual[:, -len(self.b) :]
            decay = len(x) / size / (m.C * self.seen)
            grad = [residual.T @ x + decay * self.W, residual.sum(axis=0)]
            if not m.fit_intercept:
                grad[1][...] = 0.0
            for velocity, g, params in zip(self.velocity, grad, (self.W, self.b), strict=True):
                velocity *= m.momentum
                velocity += g
                params -= m.learning_rate * velocity


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("soft", [True, False])
def test_steps(rows, n_classes, form, momentum, fit_intercept, soft, rng):
    X, y, weights = rows
    probs = rng.dirichlet(np.ones(n_classes), 90) if soft else np.eye(n_classes)[y]
    model = FastSoftmax(
        C=0.5,
        momentum=momentum,
        fit_intercept=fit_intercept,
        batch_size=16,
        label_smoothing=0.1,
        random_state=0,
    )
    zero = clone(model).set_params(learning_rate=1e-300)
    zero.partial_fit(form(X[:1]), y[:1], classes=range(n_classes))
    plain = Plain(model, zero.coef_, zero.intercept_, n_classes)
    for batch in (slice(0, 30), slice(30, 31), slice(31, 90)):
        target = probs[batch] if soft else y[batch]
        model.partial_fit(
            form(X[batch]), target, classes=range(n_classes), sample_weight=weights[batch]
        )
        plain.take(X[batch], probs[batch], weights[batch])
        np.testing.assert_allclose(model.coef_, plain.W, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(model.intercept_, plain.b, rtol=1e-9, atol=1e-12)
    assert model.n_iter_.tolist() == [3]
    assert not model.converged_ and model.gap_ == np.inf
    assert len(model.history_["loss"]) == 3


def test_resumed_after_pickling(rows, n_classes):
    X, y, _ = rows
    model = FastSoftmax(momentum=0.9, random_state=0, batch_size=10)
    model.partial_fit(X[:40], y[:40], classes=range(n_classes))
    copy = pickle.loads(pickle.dumps(model))
    for each in (model, copy):
        each.partial_fit(X[40:], y[40:])
    np.testing.assert_array_equal(model.coef_, copy.coef_)
    np.testing.assert_array_equal(model.intercept_, copy.intercept_)


def test_a_batch_may_lack_classes(rows):
    X, _, _ = rows
    model = FastSoftmax(random_state=0)
    model.partial_fit(X[:5], ["b"] * 5, classes=["c", "a", "b"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.coef_.shape == (3, 6)
    model.partial_fit(X[5:9], ["a", "a", "c", "c"])
    assert set(model.predict(X)) <= {"a", "b", "c"}


def test_scaled_features(rows, n_classes):
    X, y, _ = rows
    scaled = FastSoftmax(input_scale=0.25, random_state=0)
    scaled.partial_fit(X, y, classes=range(n_classes))
    plain = FastSoftmax(random_state=0).partial_fit(0.25 * X, y, classes=range(n_classes))
    np.testing.assert_allclose(scaled.coef_, 0.25 * plain.coef_, rtol=1e-10)


def test_class_weight(rows, n_classes):
    X, y, weights = rows
    by_class = dict(enumerate(np.linspace(0.5, 2.0, n_classes)))
    a = FastSoftmax(class_weight=by_class, random_state=0)
    b = FastSoftmax(random_state=0)
    of_rows = np.array([by_class[label] for label in y])
    a.partial_fit(X, y, classes=range(n_classes), sample_weight=weights)
    b.partial_fit(X, y, classes=range(n_classes), sample_weight=weights * of_rows)
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-10)
    c = FastSoftmax(class_weight=by_class, random_state=0)
    c.partial_fit(X, np.eye(n_classes)[y], classes=range(n_classes), sample_weight=weights)
    np.testing.assert_allclose(a.coef_, c.coef_, rtol=1e-10)


def test_after_a_fit(rows):
    X, y, _ = rows
    model = FastSoftmax(C=10.0, tol=1e-10, batch_size=90).fit(X, y)
    coef = model.coef_
    model.partial_fit(X, y)  # at the optimum a step over all rows, with its penalty, is none
    seen_twice = 1.0 - 0.1 * (1.0 / (10.0 * 180) - 1.0 / (10.0 * 90))
    np.testing.assert_allclose(model.coef_, coef * seen_twice, rtol=1e-5, atol=1e-7)
    model.fit(X, y)
    np.testing.assert_array_equal(model.coef_, coef)


def test_number_types(rows, n_classes):
    X, y, _ = rows
    model = FastSoftmax(random_state=0).partial_fit(
        X[:30].astype(np.float32), y[:30], classes=range(n_classes)
    )
    assert model.coef_.dtype == np.float32
    model.partial_fit(X[30:60], y[30:60])
    assert model.coef_.dtype == np.float32
    model.partial_fit(np.clip(X[60:], 0, 3).astype(np.uint8), y[60:])
    model = FastSoftmax(random_state=0).partial_fit(X, y, classes=range(n_classes))
    model.partial_fit(X[:9].astype(np.float32), y[:9])
    assert model.coef_.dtype == np.float64


def test_it_learns(n_classes, rng):
    centers = 3.0 * rng.normal(size=(n_classes, 8))
    model = FastSoftmax(random_state=0, momentum=0.9)
    for _ in range(30):
        y = rng.integers(n_classes, size=64)
        model.partial_fit(centers[y] + rng.normal(size=(64, 8)), y, classes=range(n_classes))
    y = rng.integers(n_classes, size=500)
    assert model.score(centers[y] + rng.normal(size=(500, 8)), y) > 0.9
    assert model.history_["loss"][-1] < model.history_["loss"][0]


def test_earlier_results_are_not_written_to(rows, n_classes):
    X, y, _ = rows
    model = FastSoftmax(random_state=0, momentum=0.5).partial_fit(X, y, classes=range(n_classes))
    coef, intercept, velocity = model.coef_, model.intercept_, model._velocity
    before = coef.copy(), intercept.copy(), velocity.copy()
    model.partial_fit(X, y)
    for kept, was in zip((coef, intercept, velocity), before, strict=True):
        np.testing.assert_array_equal(kept, was)


def test_errors(rows, n_classes):
    X, y, _ = rows
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        FastSoftmax().partial_fit(X, y)
    with pytest.raises(ValueError, match="at least 2 labels"):
        FastSoftmax().partial_fit(X, y, classes=[1])
    with pytest.raises(ValueError, match="none of the classes"):
        FastSoftmax().partial_fit(X, y, classes=[0, 77])
    for parameters in ({"standardize": True}, {"class_weight": "balanced"}):
        model = FastSoftmax(**parameters)
        assert not hasattr(model, "partial_fit")
        with pytest.raises(AttributeError, match="partial_fit") as caught:
            model.partial_fit(X, y, classes=range(n_classes))
        assert "needs all rows at once" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="sum to 1"):
        FastSoftmax().partial_fit(X, np.ones((90, n_classes)), classes=range(n_classes))
    model = FastSoftmax().partial_fit(X, y, classes=range(n_classes))
    with pytest.raises(ValueError, match="those of the first call"):
        model.partial_fit(X, y, classes=range(1, n_classes + 1))
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :3], y)
    coef = model.coef_
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(learning_rate=1e200, batch_size=1).partial_fit(X * 1e150, y)
    assert model.coef_ is coef
