"""Decisions by costs, with a reject option, and by calibrated probabilities."""

import pickle
import re
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax._estimator.temperature import best_temperature

NAMES = np.array(["ant", "bee", "cat", "dog", "eel"])


@pytest.fixture(params=[2, 5], ids=["2 classes", "5 classes"])
def n_classes(request):
    return request.param


@pytest.fixture(params=["auto", "numpy"])
def backend(request):
    return request.param


def make_data(rng, n_classes, n=150, d=7):
    X = rng.integers(0, 100, size=(n, d)).astype(np.float64)
    y = (
        (X - 50.0) @ rng.normal(size=(d, n_classes)) + 60.0 * rng.gumbel(size=(n, n_classes))
    ).argmax(1)
    y[:n_classes] = np.arange(n_classes)
    return X, y


@pytest.fixture
def data(rng, n_classes):
    X, y = make_data(rng, n_classes)
    return X, NAMES[y]


@pytest.fixture
def model(data, backend):
    return FastSoftmax(C=1e-3, n_jobs=1, backend=backend).fit(*data)


def two_classes(labels=("well", "ill")):
    """P(class 1) rises from 0 to 1 with the only feature, 1/2 at 0."""
    labels = np.asarray(labels)
    model = FastSoftmax(n_jobs=1).fit([[-1.0], [1.0]], labels)
    model.coef_, model.intercept_ = np.ones((1, 1)), np.zeros(1)
    return model


class TestCosts:
    def test_least_expected_cost(self, rng, data, model, n_classes):
        X, _ = data
        for n_decisions in (1, n_classes, 9):
            cost = rng.normal(size=(n_classes, n_decisions))
            names = [f"act {j}" for j in range(n_decisions)]
            decided, expected = model.predict_cost_sensitive(
                X, cost, decisions=names, return_cost=True
            )
            risk = model.predict_proba(X) @ cost
            np.testing.assert_array_equal(decided, np.array(names)[risk.argmin(axis=1)])
            np.testing.assert_allclose(expected, risk.min(axis=1), rtol=1e-12, atol=1e-14)

    def test_equal_errors_are_predict(self, data, model, n_classes):
        decided = model.predict_cost_sensitive(data[0], 1 - np.eye(n_classes))
        np.testing.assert_array_equal(decided, model.predict(data[0]))
        assert decided.dtype == model.classes_.dtype

    def test_rows_of_costs_are_truths(self):
        """As in a confusion matrix; the other way round the answer differs."""
        model = two_classes(["ill", "well"])  # classes are sorted: ill, well
        X = [[np.log(4.0)]]  # well with the probability 4/5
        cost = [[0.0, 10.0], [1.0, 0.0]]  # to send home who is ill: 10
        decided, expected = model.predict_cost_sensitive(X, cost, return_cost=True)
        assert decided.tolist() == ["ill"]
        assert expected == pytest.approx(0.8)
        assert model.predict_cost_sensitive(X, np.transpose(cost)).tolist() == ["well"]

    def test_named_costs_in_any_order(self):
        pandas = pytest.importorskip("pandas")
        model, X = two_classes(["ill", "well"]), [[np.log(4.0)], [9.0], [-9.0]]
        named = {"well": {"home": 0, "bed": 1}, "ill": {"bed": 0, "home": 10}}
        frame = pandas.DataFrame(named).T
        assert frame.index.tolist() == ["well", "ill"]
        for cost in (named, frame, frame.iloc[::-1], frame[["home", "bed"]]):
            decided = model.predict_cost_sensitive(X, cost)
            assert decided.tolist() == ["bed", "home", "bed"]

    def test_first_of_equal_costs(self, rng, data, model, n_classes):
        cost = np.repeat(rng.random((n_classes, 1)), 7, axis=1)
        decided = model.predict_cost_sensitive(data[0], cost, decisions=range(7))
        np.testing.assert_array_equal(decided, 0)

    def test_what_all_decisions_cost_changes_nothing(self, data, model, n_classes):
        """A large cost of a class, whatever is decided, must not hide differences in rounding."""
        cost = 1.0 - np.eye(n_classes)
        base = 1e15 * np.arange(n_classes)[:, np.newaxis]
        decided, expected = model.predict_cost_sensitive(data[0], cost + base, return_cost=True)
        np.testing.assert_array_equal(decided, model.predict(data[0]))
        shares = model.predict_proba(data[0]) @ base
        np.testing.assert_allclose(expected, shares[:, 0], rtol=1e-12, atol=10)

    @pytest.mark.parametrize("storage", ["float32", "uint8", "csr", "csc", "list"])
    def test_storage(self, rng, backend, storage):
        X, y = make_data(rng, 5)
        stored = {
            "csr": sparse.csr_array,
            "csc": sparse.csc_matrix,
            "list": lambda X: X.tolist(),
        }.get(storage, lambda X: X.astype(storage))(X)
        model = FastSoftmax(C=1e-3, n_jobs=1, backend=backend).fit(stored, y)
        cost = rng.random((5, 5))
        decided, expected = model.predict_cost_sensitive(stored, cost, return_cost=True)
        risk = model.predict_proba(stored).astype(float) @ cost
        np.testing.assert_array_equal(decided, risk.argmin(axis=1))
        assert expected.dtype == np.float64
        np.testing.assert_allclose(expected, risk.min(axis=1), rtol=1e-12)

    def test_blocks(self, rng, monkeypatch):
        """Rows are decided alike, however many are looked at together."""
        X, y = make_data(rng, 5)
        model, cost = FastSoftmax(C=1e-3, n_jobs=1).fit(X, y), rng.random((5, 6))
        options = {"decisions": range(6), "return_cost": True}
        whole = model.predict_cost_sensitive(X, cost, **options)
        for numbers in (1, 40):
            monkeypatch.setattr("fastsoftmax._estimator.decisions._BLOCK_NUMBERS", numbers)
            for rows in (X, sparse.csr_array(X)):
                parts = model.predict_cost_sensitive(rows, cost, **options)
                np.testing.assert_array_equal(parts[0], whole[0])
                np.testing.assert_allclose(parts[1], whole[1], rtol=1e-12)

    def test_memory(self, rng):
        """Neither the probabilities nor the costs of all rows are held at a time."""
        X = rng.normal(size=(4000, 3))
        model = FastSoftmax(n_jobs=1).fit(X[:4], [0, 1, 2, 3])
        model.classes_, model.intercept_ = np.arange(2000), np.zeros(2000)
        model.coef_ = rng.normal(size=(2000, 3))
        cost = rng.random((2000, 2))
        tracemalloc.start()
        try:
            model.predict_cost_sensitive(X, cost, decisions=["a", "b"])
            assert tracemalloc.get_traced_memory()[1] < 0.3 * 8 * 4000 * 2000
        finally:
            tracemalloc.stop()

    def test_labels_of_several_types(self):
        model = two_classes([0, 1])
        cost = [[0, 9, 1], [9, 0, 1]]
        X = [[-9.0], [0.0], [9.0]]
        for label in ("ask", None, np.str_("ask")):
            decided = model.predict_cost_sensitive(X, cost, decisions=[0, 1, label])
            assert decided.dtype == object
            assert decided.tolist() == [0, label, 1]
        decided = model.predict_cost_sensitive(X, cost, decisions=[0, 1, -1])
        assert decided.dtype == np.asarray([0]).dtype
        assert decided.tolist() == [0, -1, 1]
        decided = model.predict_cost_sensitive(X, cost, decisions=np.array(["no", "yes", "ask"]))
        assert decided.tolist() == ["no", "ask", "yes"]
        decided = model.predict_cost_sensitive(X, cost, decisions=[False, True, 7])
        assert [type(label) for label in decided] == [bool, int, bool]

    @pytest.mark.parametrize(
        ("cost", "options", "error", "message"),
        [
            ([[0, 1]], {}, ValueError, "there are 2 classes, and its shape is (1, 2)"),
            ([0, 1], {}, ValueError, "its shape is (2,)"),
            ([[], []], {}, ValueError, "its shape is (2, 0)"),
            ([[0, np.nan], [1, 0]], {}, ValueError, "cost must be finite, got nan"),
            ([[0, 1], [-np.inf, 0]], {}, ValueError, "cost must be finite, got -inf"),
            ([["0", "1"], ["1", "0"]], {}, TypeError, "cost must hold real numbers"),
            ([[0, 1j], [1, 0]], {}, TypeError, "cost must hold real numbers"),
            ([[0, 1, 2], [1, 0, 2]], {}, ValueError, "3 columns for 2 classes: name what"),
            ([[0, 1], [1, 0]], {"decisions": ["a"]}, ValueError, "each of the 2 columns"),
            ([[0, 1], [1, 0]], {"decisions": "ab"}, ValueError, "each of the 2 columns"),
            ([[0, 1], [1, 0]], {"decisions": 2}, ValueError, "each of the 2 columns"),
            ([[0, 1], [1, 0]], {"decisions": [[1], [2]]}, ValueError, "must be scalars"),
            ([[0, 1], [1, 0]], {"decisions": np.eye(2)}, ValueError, "of one dimension"),
            ([[1e308, -1e308], [1, 0]], {}, ValueError, "too large for float64"),
            ({"a": {"x": 1}}, {}, ValueError, "a row for each of the classes ['a', 'b'], got rows"),
            ({"a": {"x": 1}, "b": {"y": 1}}, {}, ValueError, "same decisions for each class"),
            ({"a": [0, 1], "b": [1, 0]}, {}, ValueError, "a dict {class: {decision: cost}}"),
            ({}, {}, ValueError, "a dict {class: {decision: cost}}"),
            ({"a": {}, "b": {}}, {}, ValueError, "its shape is (2, 0)"),
            (
                {"a": {"x": 1}, "b": {"x": 2}},
                {"decisions": ["x"]},
                ValueError,
                "decisions must be None where cost names them",
            ),
        ],
    )
    def test_refused(self, cost, options, error, message):
        with pytest.raises(error, match=re.escape(message).replace("a\\ row", "(one|a)\\ row")):
            two_classes(["a", "b"]).predict_cost_sensitive([[0.0]], cost, **options)

    def test_frame_without_names(self):
        """Of a bare frame the classes cannot be told."""
        pandas = pytest.importorskip("pandas")
        with pytest.raises(ValueError, match="an array needs no names"):
            two_classes().predict_cost_sensitive([[0.0]], pandas.DataFrame(np.eye(2)))
        assert two_classes([0, 1]).predict_cost_sensitive([[5.0]], pandas.DataFrame(np.eye(2))) == 0

    def test_logits_that_overflow(self):
        model = two_classes()
        model.coef_ = np.full((1, 1), 1e300)
        X = [[1e300], [-1e300]]
        assert (
            model.predict_cost_sensitive(X, [[0, 1], [1, 0]]).tolist() == model.predict(X).tolist()
        )
        with pytest.raises(ValueError, match="contains infinity"):
            model.predict_cost_sensitive([[np.inf]], [[0, 1], [1, 0]])
        with pytest.raises(NotFittedError):
            FastSoftmax().predict_cost_sensitive([[1.0]], [[0, 1], [1, 0]])


class TestReject:
    def test_against_probabilities(self, data, model, n_classes):
        X, _ = data
        most = model.predict_proba(X).max(axis=1)
        for threshold in (0.0, 0.5, float(np.median(most)), 1.0):
            labels = model.predict_with_reject(X, threshold, reject_label="none of these")
            expected = np.where(most >= threshold, model.predict(X), "none of these")
            np.testing.assert_array_equal(labels, expected)
        assert (model.predict_with_reject(X, 1 / n_classes) == model.predict(X)).all()

    def test_is_the_decision_of_chows_costs(self, data, model, n_classes):
        cost = np.hstack([1 - np.eye(n_classes), np.full((n_classes, 1), 0.3)])
        options = [*model.classes_, "?"]
        by_cost = model.predict_cost_sensitive(data[0], cost, decisions=options)
        np.testing.assert_array_equal(
            model.predict_with_reject(data[0], 1 - 0.3, reject_label="?"), by_cost
        )
        assert 0 < (by_cost == "?").sum() < len(by_cost)

    def test_threshold_itself_is_accepted(self):
        model = two_classes()
        for X in ([[0.0]], np.zeros((1, 1), np.float32)):
            assert model.predict_with_reject(X, 0.5).tolist() == ["ill"]
            assert model.predict_with_reject(X, np.nextafter(0.5, 1.0)).tolist() == [None]

    def test_threshold_in_float32(self, rng):
        """Probabilities of float32 that print as the threshold are at it."""
        model = FastSoftmax(n_jobs=1).fit(np.array([[-1.0], [1.0]], np.float32), [0, 1])
        X = np.full((1, 1), 0.3, np.float32)
        threshold = float(str(model.predict_proba(X).max()))
        assert model.predict_with_reject(X, threshold).tolist() != [None]

    @pytest.mark.parametrize(
        ("classes", "label", "dtype", "result"),
        [
            ([0, 1], None, object, [0, None]),
            ([0, 1], -1, np.int64, [0, -1]),
            (np.array([0, 1], np.int8), 1000, np.int64, [0, 1000]),
            (np.array([0, 1], np.uint8), -1, np.int64, [0, -1]),
            ([0, 1], np.nan, np.float64, [0.0, np.nan]),
            ([0, 2**60 + 1], np.nan, object, [0, np.nan]),
            ([0, 1], "?", object, [0, "?"]),
            ([1.0, 2.0], np.nan, np.float64, [1.0, np.nan]),
            (["a", "b"], "unknown", "<U7", ["a", "unknown"]),
            (["a", "b"], -1, object, ["a", -1]),
            ([False, True], None, object, [False, None]),
            ([False, True], -1, object, [False, -1]),
            (np.array(["a", "b"], object), "?", object, ["a", "?"]),
        ],
        ids=str,
    )
    def test_labels(self, classes, label, dtype, result):
        for X in ([[-9.0], [0.0]], [[-9.0]]):  # the type does not depend on the rows
            labels = two_classes(classes).predict_with_reject(X, 0.9, reject_label=label)
            assert labels.dtype == dtype
            assert str(labels.tolist()) == str(result[: len(X)])
            if dtype is object:
                assert [type(v) for v in labels] == [type(v) for v in result[: len(X)]]

    @pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan, 95])
    def test_threshold_out_of_range(self, threshold):
        with pytest.raises(ValueError, match=rf"threshold must lie in \[0, 1\], got {threshold}"):
            two_classes().predict_with_reject([[0.0]], threshold)

    @pytest.mark.parametrize("threshold", ["0.5", None, [0.5, 0.5]])
    def test_threshold_of_another_type(self, threshold):
        with pytest.raises(TypeError, match=r"threshold must be a number in \[0, 1\]"):
            two_classes().predict_with_reject([[0.0]], threshold)

    def test_reject_label(self):
        with pytest.raises(ValueError, match="reject_label must be none of the classes, got 'ill'"):
            two_classes().predict_with_reject([[0.0]], 0.5, reject_label="ill")
        with pytest.raises(ValueError, match="reject_label must be a scalar"):
            two_classes().predict_with_reject([[0.0]], 0.5, reject_label=["?"])


def split_fit(rng, n_classes, **params):
    """(a model that is too sure of itself, rows that it has not seen)."""
    X, y = load_digits(return_X_y=True) if n_classes > 2 else load_breast_cancer(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        dtype = params.pop("dtype", float)
        params = {"C": 1e4, "standardize": True, "n_jobs": 1, **params}
        X = X.astype(dtype)
        return FastSoftmax(**params).fit(X[::2], y[::2]), X[1::2], y[1::2]


def mean_loss(logits, y, temperature):
    """Mean cross-entropy, by numpy."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(y)), y])


class TestTemperature:
    @pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
    def test_minimises_the_held_out_loss(self, rng, n_classes, backend, dtype):
        if dtype == "uint8" and n_classes == 2:
            pytest.skip("features that bytes cannot hold")
        model, X, y = split_fit(rng, n_classes, backend=backend, dtype=dtype)
        logits = model.decision_function(X).astype(float)
        logits = np.column_stack([0 * logits, logits]) if n_classes == 2 else logits
        found = minimize_scalar(
            lambda log_t: mean_loss(logits, y, np.exp(log_t)),
            bounds=(-5, 5),
            options={"xatol": 1e-10},
        )
        before, coef = model.evaluate(X, y), model.coef_.copy()
        assert model.calibrate_temperature(X, y) is model
        precise = dtype == "float64"
        assert model.temperature_ == pytest.approx(np.exp(found.x), rel=1e-5 if precise else 1e-3)
        after = model.evaluate(X, y)
        assert after.loss == pytest.approx(found.fun, rel=1e-9 if precise else 1e-5)
        assert after.loss < 0.8 * before.loss
        assert after.accuracy == before.accuracy
        np.testing.assert_array_equal(model.coef_, coef)

    def test_every_method_uses_it(self, rng, n_classes, backend):
        model, X, y = split_fit(rng, n_classes, backend=backend)
        labels, logits = model.predict(X), model.decision_function(X)
        model.calibrate_temperature(X, y)
        np.testing.assert_allclose(model.decision_function(X), logits / model.temperature_)
        np.testing.assert_array_equal(model.predict(X), labels)
        probs = model.predict_proba(X)
        logits = logits / model.temperature_
        logits = np.column_stack([0 * logits, logits]) if n_classes == 2 else logits
        scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(probs, scaled / scaled.sum(axis=1, keepdims=True), rtol=1e-9)
        np.testing.assert_allclose(model.predict_log_proba(X), np.log(probs), rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(model.predict_topk(X, 1)[1][:, 0], probs.max(axis=1))
        assert model.score(X, y) == np.mean(labels == y)
        assert model.evaluate(X, y).loss == pytest.approx(mean_loss(logits, y, 1.0))
        cost = rng.random((n_classes if n_classes == 2 else 10,) * 2)
        np.testing.assert_array_equal(
            model.predict_cost_sensitive(X, cost), (probs @ cost).argmin(axis=1)
        )
        rejected = model.predict_with_reject(X, 0.9, reject_label=-1) == -1
        np.testing.assert_array_equal(rejected, probs.max(axis=1) < 0.9)

    def test_agrees_with_scikit_learn(self, rng, n_classes):
        calibration = pytest.importorskip("sklearn.calibration")
        frozen = pytest.importorskip("sklearn.frozen")
        constraints = calibration.CalibratedClassifierCV._parameter_constraints
        if "temperature" not in constraints["method"][0].options:
            pytest.skip("this scikit-learn has no temperature scaling")
        model, X, y = split_fit(rng, n_classes)
        theirs = calibration.CalibratedClassifierCV(
            frozen.FrozenEstimator(model), method="temperature"
        ).fit(X, y)
        expected = theirs.predict_proba(X)
        np.testing.assert_allclose(
            model.calibrate_temperature(X, y).predict_proba(X), expected, atol=1e-7
        )

    def test_weights(self, rng, n_classes):
        model, X, y = split_fit(rng, n_classes)
        weights = rng.integers(0, 4, len(y))
        rows = np.repeat(np.arange(len(y)), weights)
        once = model.calibrate_temperature(X[rows], y[rows]).temperature_
        found = model.calibrate_temperature(X, y, weights).temperature_
        assert found == pytest.approx(once, rel=1e-9)
        assert model.calibrate_temperature(X, y, 1e-9 * weights).temperature_ == pytest.approx(
            found
        )
        assert model.calibrate_temperature(X, y).temperature_ != pytest.approx(found, rel=1e-3)

    def test_earlier_temperature_plays_no_part(self, rng):
        model, X, y = split_fit(rng, 10)
        first = model.calibrate_temperature(X, y).temperature_
        assert model.calibrate_temperature(X, y).temperature_ == first

    def test_threads_and_storage(self, rng):
        model, X, y = split_fit(rng, 10)
        first = model.calibrate_temperature(X, y).temperature_
        model.n_jobs = 3
        assert model.calibrate_temperature(X, y).temperature_ == first
        sparse_rows = sparse.csr_matrix(X)
        assert model.calibrate_temperature(sparse_rows, y).temperature_ == pytest.approx(first)

    def test_life(self, rng):
        """It is kept with the model, and gone once the coefficients are others."""
        model, X, y = split_fit(rng, 10)
        assert model.temperature_ == 1.0
        found = model.calibrate_temperature(X, y).temperature_
        copied = pickle.loads(pickle.dumps(model))
        assert copied.temperature_ == found
        np.testing.assert_array_equal(copied.predict_proba(X), model.predict_proba(X))
        assert not hasattr(clone(model), "temperature_")
        raw = model.coef_.copy()
        partial = copied.set_params(standardize=False, learning_rate=1e-9).partial_fit(X, y)
        assert partial.temperature_ == 1.0
        np.testing.assert_allclose(partial.coef_, raw, rtol=1e-3, atol=1e-6)
        warm = model.set_params(warm_start=True, C=1.0).fit(X, y)
        assert warm.temperature_ == 1.0
        del warm.temperature_  # as in a model of an earlier version
        assert warm.predict_proba(X).shape == (len(X), 10)

    def test_exported(self, rng, tmp_path):
        model, X, y = split_fit(rng, 10)
        model.calibrate_temperature(X, y).save(tmp_path / "model.npz")
        expected = model.predict_proba(X)
        loaded = FastSoftmax.load(tmp_path / "model.npz")
        np.testing.assert_array_equal(loaded.predict_proba(X), expected)
        np.testing.assert_allclose(model.to_sklearn().predict_proba(X), expected, atol=1e-12)

    def test_cross_validated(self):
        X, y = load_digits(return_X_y=True)
        model = FastSoftmaxCV(Cs=[1e-4], cv=2, n_jobs=1).fit(X[:200], y[:200])
        assert model.temperature_ == 1.0
        before = model.evaluate(X[200:400], y[200:400]).loss
        model.calibrate_temperature(X[200:400], y[200:400])
        assert model.evaluate(X[200:400], y[200:400]).loss < before
        assert model.predict_with_reject(X, 1.0).dtype == object
        assert model.fit(X[:200], y[:200]).temperature_ == 1.0

    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
    def test_damaged(self, value):
        model = two_classes()
        model.temperature_ = value
        with pytest.raises(ValueError, match="temperature_ must be finite and > 0"):
            model.predict_proba([[0.0]])

    def test_refused(self, rng):
        model, X, y = split_fit(rng, 10)
        with pytest.raises(ValueError, match="none of the classes"):
            model.calibrate_temperature(X, y + 1)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            model.calibrate_temperature(X, y[1:])
        with pytest.raises(ValueError, match="sample_weight must be >= 0"):
            model.calibrate_temperature(X, y, -np.ones(len(y)))
        with pytest.raises(ValueError, match="contains NaN"):
            model.calibrate_temperature(np.full_like(X, np.nan), y)
        with pytest.raises(NotFittedError):
            FastSoftmax().calibrate_temperature(X, y)
        assert model.temperature_ == 1.0


class TestWithoutABestTemperature:
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]])

    def calibrated(self, y, scale=1.0):
        model = two_classes(["a", "b"])
        model.coef_ = model.coef_ * scale
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.calibrate_temperature(self.X, np.array(list(y)))
        assert all(issubclass(w.category, ConvergenceWarning) for w in caught)
        assert np.isfinite(model.predict_log_proba(self.X)).all()
        return model, [str(w.message) for w in caught]

    @pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 8.0])
    def test_all_right(self, scale):
        model, (message,) = self.calibrated("aabb", scale)
        assert "every row's label has the largest logit" in message
        assert f"temperature_ is {model.temperature_:g}" in message
        assert 0.0 < model.temperature_ <= scale
        assert 0.0 <= model.evaluate(self.X, list("aabb")).loss < 1e-6

    def test_all_right_and_sure(self):
        """A model that is surer than anyone can tell is not made less so."""
        model, (message,) = self.calibrated("aabb", 1e4)
        assert model.temperature_ == 1.0
        assert "every row's label" in message

    @pytest.mark.parametrize("y", ["bbaa", "aaaa", "baab"])
    @pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
    def test_no_better_than_chance(self, y, scale):
        model, (message,) = self.calibrated(y, scale)
        assert "the logits do not help to predict these labels" in message
        np.testing.assert_allclose(model.predict_proba(self.X), 0.5, atol=1e-3)

    def test_equal_logits(self):
        model, (message,) = self.calibrated("aabb", 0.0)
        assert model.temperature_ == 1.0
        assert "do not help" in message

    @pytest.mark.parametrize("scale", [1e-100, 1e-6, 1.0, 1e6, 1e100])
    def test_logits_of_any_size(self, scale):
        """One wrong of four: the best loss is the same, the temperature in proportion."""
        model, messages = self.calibrated("abbb", scale)
        assert messages == []
        reference, _ = self.calibrated("abbb")
        assert model.temperature_ == pytest.approx(scale * reference.temperature_)

    def test_search(self):
        """From every start the zero of an increasing slope."""
        for root in (1e-200, 1e-9, 0.3, 1.0, 3.0, 16.0, 1e9, 1e200):
            found, reason = best_temperature(lambda b, r=root: np.tanh(b / r - 1.0) / r, 2, 1e-12)
            assert found == pytest.approx(1.0 / root)
            assert reason == ""
