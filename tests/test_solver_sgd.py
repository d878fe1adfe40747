"""Mini-batch descent: what it asks of a problem, and the steps that the textbook prescribes."""

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax
from fastsoftmax.backend import resolve_backend
from fastsoftmax.datasets import load_fashion_mnist_sample
from fastsoftmax.solvers import sgd


class Rows:
    """Stands in for an objective: notes what the descent asks for."""

    n_rows = 10

    def __init__(self, losses=(1.0,)):
        self.losses = list(losses)
        self.orders, self.velocities = [], []

    def sgd_steps(self, params, velocity, order, batch_size, learning_rate, momentum):
        self.orders.append(order)
        self.velocities.append(velocity)
        params += 1.0
        if velocity is not None:
            velocity += momentum
        return self.losses[min(len(self.orders), len(self.losses)) - 1], 0.5


def descend(rows, n_epochs=4, momentum=0.0, seed=0, **more):
    params = np.zeros(3)
    n = sgd.descend(
        rows,
        sgd.Run(params, np.random.RandomState(seed)),
        n_epochs=n_epochs,
        batch_size=4,
        learning_rate=0.1,
        momentum=momentum,
        **more,
    )
    return n, params


class TestSgd:
    def test_each_epoch_sees_every_row_once_in_a_new_order(self):
        rows = Rows()
        n, params = descend(rows)
        assert n == 4
        np.testing.assert_array_equal(params, 4.0)
        for order in rows.orders:
            assert order.dtype == np.int64
            np.testing.assert_array_equal(np.sort(order), np.arange(10))
        assert len({tuple(order) for order in rows.orders}) == 4

    def test_seed(self):
        orders = []
        for seed in (0, 0, 1):
            rows = Rows()
            descend(rows, seed=seed)
            orders.append(np.array(rows.orders))
        np.testing.assert_array_equal(orders[0], orders[1])
        assert (orders[0] != orders[2]).any()

    def test_velocity_lives_on_over_epochs(self):
        rows = Rows()
        descend(rows, momentum=0.5)
        assert all(velocity is rows.velocities[0] for velocity in rows.velocities)
        np.testing.assert_array_equal(rows.velocities[0], 4 * 0.5)

    def test_no_momentum_no_velocity(self):
        rows = Rows()
        descend(rows)
        assert rows.velocities == [None] * 4

    def test_no_epochs(self):
        rows = Rows()
        n, params = descend(rows, n_epochs=0)
        assert n == 0
        assert not rows.orders
        assert not params.any()

    def test_stop_by_callback(self):
        seen = []
        n, _ = descend(
            Rows([3.0, 2.0, 1.0]),
            on_epoch=lambda epoch, loss, accuracy: seen.append((epoch, loss)) or epoch == 2,
        )
        assert n == 2
        assert seen == [(1, 3.0), (2, 2.0)]

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_loss_that_is_not_finite_ends_it(self, bad):
        rows = Rows([1.0, bad])
        n, _ = descend(rows)
        assert n == len(rows.orders) == 2


def textbook(
    X, y, weights, *, C, fit_intercept, n_epochs, batch_size, learning_rate, momentum, seed
):
    """(W, b, running loss of each epoch), in plain numpy, a batch at a time."""
    n, d = X.shape
    n_classes = y.max() + 1
    n_logits = 1 if n_classes == 2 else n_classes
    rng = np.random.RandomState(seed)
    W, b = rng.normal(0.0, 0.01, (n_logits, d)), np.zeros(n_logits)
    move_W, move_b = np.zeros_like(W), np.zeros_like(b)
    weight_decay = 1.0 / (C * weights.sum())
    weights = weights / weights.mean()
    batch_size = min(batch_size, n)
    losses = []
    for _ in range(n_epochs):
        order = rng.permutation(n)
        loss = 0.0
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            logits = X[rows] @ W.T + b
            if n_logits == 1:
                logits = np.column_stack([np.zeros(len(rows)), logits])
            probs = softmax(logits, axis=1)
            loss -= weights[rows] @ np.log(probs[np.arange(len(rows)), y[rows]])
            residual = weights[rows, None] * (probs - np.eye(n_classes)[y[rows]])
            residual = residual[:, -n_logits:] / batch_size
            decay = weight_decay * len(rows) / batch_size
            move_W = momentum * move_W + residual.T @ X[rows] + decay * W
            W = W - learning_rate * move_W
            if fit_intercept:
                move_b = momentum * move_b + residual.sum(axis=0)
                b = b - learning_rate * move_b
        losses.append(loss / n)
    return W, b, losses


@pytest.mark.filterwarnings("ignore:solver='sgd' ended")  # labels are random
@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"momentum": 0.9},
        {"fit_intercept": False},
        {"C": 0.01},
        {"C": np.inf},
        {"batch_size": 1},
        {"batch_size": 50},  # the rows divided without a rest
        {"batch_size": 1000},  # more than there are
        {"weighted": True, "momentum": 0.5},
    ],
    ids=str,
)
def test_the_textbooks_steps(rng, case, n_classes, backend):
    case = {"C": 1.0, "fit_intercept": True, "batch_size": 32, "momentum": 0.0, **case}
    X = rng.normal(size=(100, 5)) + 1.0
    y = rng.integers(n_classes, size=100)
    weights = rng.choice([0.0, 1.0, 2.5], 100) if case.pop("weighted", False) else np.ones(100)
    W, b, losses = textbook(X, y, weights, n_epochs=3, learning_rate=0.2, seed=7, **case)
    model = FastSoftmax(
        solver="sgd",
        max_iter=3,
        learning_rate=0.2,
        random_state=7,
        n_jobs=1,
        backend=backend,
        **case,
    ).fit(X, y, None if (weights == 1.0).all() else weights)
    np.testing.assert_allclose(model.coef_, W, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.history_["loss"], losses, rtol=1e-10)
    assert model.n_iter_.tolist() == [3]


def test_float32_follows_float64(rng):
    X = rng.normal(size=(200, 6))
    y = rng.integers(3, size=200)
    single, double = (
        FastSoftmax(solver="sgd", max_iter=5, random_state=0, n_jobs=1).fit(X.astype(real), y)
        for real in (np.float32, np.float64)
    )
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.coef_, double.coef_, rtol=1e-4, atol=1e-6)


def test_divergence_is_told(rng):
    X = 1e200 * rng.normal(size=(50, 3))
    with pytest.raises(ValueError, match="learning_rate=1e"):
        FastSoftmax(solver="sgd", learning_rate=1e150, n_jobs=1, random_state=0).fit(
            X, rng.integers(3, size=50)
        )


def test_full_batches_approach_the_default_solver(rng):
    X = rng.normal(size=(300, 3))
    y = (X @ rng.normal(size=(3, 3)) + rng.gumbel(size=(300, 3))).argmax(1)
    best = FastSoftmax(tol=1e-10, n_jobs=1).fit(X, y)
    model = FastSoftmax(
        solver="sgd", max_iter=300, batch_size=300, learning_rate=0.5, momentum=0.9, n_jobs=1
    ).fit(X, y)
    assert model.objective_ == pytest.approx(best.objective_, rel=1e-8)
    assert model.gap_ >= (model.objective_ - best.objective_) / model.objective_ - 1e-14
    assert model.converged_ == (model.gap_ <= model.tol)


@pytest.mark.parametrize("limit", ["_STEPS_PER_CALL", "_WORK_PER_CALL"])
def test_calls_are_short_and_change_nothing(monkeypatch, rng, limit):
    """Ctrl-C is answered between calls of the kernel: steps of many weights took ten seconds."""
    X = rng.normal(size=(64, 7))
    y = np.arange(64) % 5
    options = {"solver": "sgd", "max_iter": 2, "batch_size": 4, "momentum": 0.9, "random_state": 0}
    whole = FastSoftmax(**options).fit(X, y)
    n_calls = 0
    backend = resolve_backend("auto")
    take = backend.sgd_steps

    def counted(*args, **kwargs):
        nonlocal n_calls
        n_calls += 1
        return take(*args, **kwargs)

    monkeypatch.setattr(backend, "sgd_steps", counted)
    monkeypatch.setattr(f"fastsoftmax.shards.shard.{limit}", 1)
    parts = FastSoftmax(**options).fit(X, y)
    assert n_calls == 2 * 16
    np.testing.assert_array_equal(parts.coef_, whole.coef_)
    np.testing.assert_array_equal(parts.intercept_, whole.intercept_)


class TestWorseThanNothing:
    """Steps that are too large for unscaled features ended at any loss, without a word."""

    OPTIONS = {"solver": "sgd", "random_state": 0, "n_jobs": 1, "max_iter": 2}  # noqa: RUF012

    @pytest.mark.parametrize("batches", [False, True])
    def test_bytes(self, batches):
        X, y = load_fashion_mnist_sample("train")
        data = ([(X[:500], y[:500]), (X[500:], y[500:])],) if batches else (X, y)
        with pytest.warns(ConvergenceWarning, match=r"has 2\.3.*input_scale=1 / 255 .*max_iter"):
            FastSoftmax(**self.OPTIONS).fit(*data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            FastSoftmax(input_scale=1 / 255, **self.OPTIONS).fit(*data)

    def test_shares_of_the_classes(self, rng):
        """A class of 2 % is predicted by its share at a loss of 0.098, by equal ones at 0.69."""
        X, y = rng.normal(size=(500, 2)), np.arange(500) % 50 == 0
        with pytest.warns(ConvergenceWarning, match=r"ended at a loss of 0\.6.* has 0\.098"):
            FastSoftmax(**self.OPTIONS, learning_rate=1e-3).fit(X, y)

    def test_what_is_stopped_is_not_judged(self):
        X, y = load_fashion_mnist_sample("train")
        FastSoftmax(**self.OPTIONS).fit(X, y, callbacks=[lambda state: True])
        with pytest.warns(ConvergenceWarning, match="max_time"):
            FastSoftmax(**self.OPTIONS, max_time=1e-9).fit(X, y)
