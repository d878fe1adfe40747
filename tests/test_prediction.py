"""Prediction by a fitted model: agreement of the methods, what is refused, what is reported."""

import re
import tracemalloc
import warnings

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from fastsoftmax import FastSoftmax

STORED = ["float64", "float32", "float16", "uint8", "int8"]
# Methods of X alone, with what else they need.
METHODS = {
    "decision_function": (),
    "predict": (),
    "predict_proba": (),
    "predict_log_proba": (),
    "predict_topk": (1,),
}


def call(model, method, X, y=None):
    if method in ("evaluate", "score"):
        return getattr(model, method)(X, model.classes_[:1].repeat(len(X)) if y is None else y)
    return getattr(model, method)(X, *METHODS[method])


EVERY_METHOD = [*METHODS, "evaluate", "score"]


@pytest.fixture(params=[2, 5], ids=["2 classes", "5 classes"])
def n_classes(request):
    return request.param


@pytest.fixture(params=["auto", "numpy"])
def backend(request):
    return request.param


def make_data(rng, n_classes, n=150, d=7):
    X = rng.integers(0, 100, size=(n, d)).astype(np.float64)
    y = (X @ rng.normal(size=(d, n_classes)) + 60.0 * rng.gumbel(size=(n, n_classes))).argmax(1)
    y[:n_classes] = np.arange(n_classes)
    return X, y


@pytest.fixture
def data(rng, n_classes):
    return make_data(rng, n_classes)


@pytest.fixture
def model(data, backend):
    return FastSoftmax(n_jobs=1, tol=0.1, backend=backend).fit(*data)


def tampered(model, coef, intercept=0.0):
    """The model with other coefficients."""
    model.coef_ = np.full_like(model.coef_, coef)
    model.intercept_ = np.full_like(model.intercept_, intercept)
    return model


class TestTopk:
    def test_agrees_with_predict_proba(self, data, model, n_classes):
        X, _ = data
        probs = model.predict_proba(X)
        order = (-model.predict_log_proba(X)).argsort(axis=1, kind="stable")
        for k in range(1, n_classes + 1):
            labels, best = model.predict_topk(X, k)
            assert labels.shape == best.shape == (len(X), k)
            np.testing.assert_array_equal(labels, model.classes_[order[:, :k]])
            np.testing.assert_array_equal(best, np.take_along_axis(probs, order[:, :k], axis=1))
        np.testing.assert_array_equal(model.predict_topk(X, np.int8(1))[0][:, 0], model.predict(X))

    def test_string_labels_and_number_types(self, data, n_classes, backend):
        X, y = data
        names = np.array(["ant", "bee", "cat", "dog", "eel"])[:n_classes]
        for dtype, real in (("float32", np.float32), ("uint8", np.float32), ("float64", float)):
            model = FastSoftmax(n_jobs=1, backend=backend).fit(X.astype(dtype), names[y])
            labels, best = model.predict_topk(X.astype(dtype), 2)
            assert labels.dtype == names.dtype
            assert best.dtype == real
            assert set(labels[0]) <= set(names)

    def test_equal_logits(self, data, model, n_classes):
        labels, best = tampered(model, 0.0).predict_topk(data[0], n_classes)
        assert (labels == model.classes_).all()
        np.testing.assert_allclose(best, 1.0 / n_classes)

    @pytest.mark.parametrize("k", [0, -1, 6, 10**30])
    def test_k_out_of_range(self, data, model, n_classes, k):
        with pytest.raises(ValueError, match=rf"k must lie in \[1, {n_classes}\], got {k}"):
            model.predict_topk(data[0], k)

    @pytest.mark.parametrize("k", [1.0, "1", None, [1], True, np.True_])
    def test_k_of_another_type(self, data, model, k):
        with pytest.raises(TypeError, match=f"k must be an integer, got {re.escape(repr(k))}"):
            model.predict_topk(data[0], k)

    def test_memory(self, kernels, rng):
        """Many rows and classes: nothing is as large as the product of their numbers."""
        X = rng.normal(size=(500, 3)).astype(np.float32)
        model = FastSoftmax(n_jobs=2).fit(X[:4], [0, 1, 2, 3])
        model.classes_ = np.arange(20_000)
        model.coef_ = rng.normal(size=(20_000, 3)).astype(np.float32)
        model.intercept_ = np.zeros(20_000, np.float32)
        y = rng.integers(20_000, size=500)
        for use in (
            lambda: model.predict_topk(X, 5),
            lambda: model.predict(X),
            lambda: model.score(X, y),
            lambda: model.evaluate(X, y),
        ):
            use()
            tracemalloc.start()
            try:
                use()
                assert tracemalloc.get_traced_memory()[1] < 0.7 * 4 * 500 * 20_000
            finally:
                tracemalloc.stop()


@pytest.mark.parametrize("dtype", STORED)
class TestEvaluate:
    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
    def test_against_scikit_learn(self, rng, data, n_classes, backend, dtype, weighted):
        X, y = data[0].astype(dtype), np.array(["ant", "bee", "cat", "dog", "eel"])[data[1]]
        model = FastSoftmax(n_jobs=1, tol=0.1, backend=backend).fit(X, y)
        weights = rng.choice([0.0, 0.1, 1.0, 30.0], len(y)) if weighted else None
        loss, accuracy = result = model.evaluate(X, y, weights)
        # not scikit-learn's log_loss, which takes logarithms of rounded probabilities
        own = -model.predict_log_proba(X)[np.arange(len(y)), data[1]].astype(np.float64)
        expected = np.average(own, weights=weights)
        assert loss == result.loss
        assert loss == pytest.approx(expected, rel=1e-12 if dtype == "float64" else 1e-5)
        assert isinstance(loss, float)
        assert isinstance(accuracy, float)
        score = model.score(X, y, sample_weight=weights)
        assert score == pytest.approx(
            accuracy_score(y, model.predict(X), sample_weight=weights), rel=1e-14
        )
        assert accuracy == result.accuracy == pytest.approx(score, rel=1e-6)

    def test_is_the_history_of_the_fit(self, data, dtype):
        X, y = data[0].astype(dtype), data[1]
        model = FastSoftmax(n_jobs=1).fit(X, y)
        loss, accuracy = model.evaluate(X, y)
        assert loss == pytest.approx(model.history_["loss"][-1], rel=1e-5)
        assert accuracy == pytest.approx(model.history_["accuracy"][-1], rel=1e-12)

    @pytest.mark.filterwarnings("ignore:solver='sgd' ended")  # after two epochs
    def test_same_bits_for_any_number_of_threads(self, rng, n_classes, dtype):
        X, y = make_data(rng, n_classes, n=6000, d=300)
        X = X.astype(dtype)
        model = FastSoftmax(n_jobs=1, max_iter=2, solver="sgd", learning_rate=1e-6, random_state=0)
        model.fit(X, y)

        def everything(n_jobs):
            model.set_params(n_jobs=n_jobs)
            results = [np.asarray(call(model, name, X, y)) for name in EVERY_METHOD[:4]]
            results += [*model.predict_topk(X, 2), np.array(model.evaluate(X, y))]
            return [r.tobytes() for r in results]

        expected = everything(1)
        assert all(everything(n) == expected for n in (2, 3, 7))


class TestScore:
    @pytest.mark.parametrize(
        "labels",
        [
            ["ant", "bee", "cat"],
            [-7, 0, 3],
            [1.0, 2.0, 3.0],
            np.array([False, True]),
            np.array(["ant", "bee", "cat"], dtype=object),
        ],
        ids=str,
    )
    def test_labels_of_any_type(self, rng, labels):
        labels = np.asarray(labels)
        X, y = make_data(rng, len(labels))
        model = FastSoftmax(n_jobs=1, tol=0.1).fit(X, labels[y])
        for weights in (None, rng.random(len(y)), rng.integers(0, 3, len(y))):
            expected = accuracy_score(labels[y], model.predict(X), sample_weight=weights)
            assert model.score(X, labels[y], weights) == pytest.approx(expected, rel=1e-14)
            assert model.score(X.tolist(), labels[y].tolist(), weights) == pytest.approx(expected)
            assert model.evaluate(X, labels[y], weights).accuracy == pytest.approx(expected)

    @pytest.mark.parametrize("unknown", ["zebra", "aardvark", "box", "beer"])
    def test_unknown_labels_are_wrong(self, rng, unknown):
        X, y = make_data(rng, 3)
        y = np.array(["ant", "bee", "cat"])[y]
        model = FastSoftmax(n_jobs=1, tol=0.1).fit(X, y)
        y = np.where(np.arange(len(y)) % 4 == 0, unknown, y)
        assert model.score(X, y) == accuracy_score(y, model.predict(X)) < 1.0
        assert model.score(X, np.full(len(y), unknown)) == 0.0
        with pytest.raises(ValueError, match=f"y holds a label.*{unknown}"):
            model.evaluate(X, y)

    def test_labels_of_another_kind(self, data, model):
        X, y = data
        for use in (model.score, model.evaluate):
            with pytest.raises(ValueError, match="y holds a label that is none of the classes"):
                use(X, y.astype(str))

    @pytest.mark.parametrize("method", ["score", "evaluate"])
    def test_wrong_y_and_weights(self, data, model, method):
        X, y = data
        ones = np.ones(len(y))
        use = getattr(model, method)
        for wrong in (y[1:], np.append(y, 0), np.column_stack([y, y])):
            with pytest.raises(ValueError, match=r"inconsistent|1d|shape"):
                use(X, wrong)
        with pytest.raises(ValueError, match=r"label|continuous"):
            use(X, y + 0.5)
        for wrong in (-ones, ones[1:], 0.0 * ones, np.nan * ones, np.inf * ones):
            with pytest.raises(ValueError, match="weight"):
                use(X, y, wrong)

    def test_large_weights(self, data, model):
        X, y = data
        huge = np.full(len(y), 1e308)
        assert model.score(X, y, huge) == pytest.approx(model.score(X, y))


def spoilt(X, value, place=(3, 2)):
    X = X.copy()
    X[place] = value
    return X


class TestWhatIsNotFinite:
    @pytest.mark.parametrize("method", EVERY_METHOD)
    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
    def test_in_X(self, data, model, method, dtype, value):
        """Wherever it is, whatever sign the weights have, and where they are 0."""
        X, y = data[0].astype(dtype), data[1]
        match = "Input X contains NaN" if np.isnan(value) else "Input X contains infinity"
        wanted = rf"{match}"
        for coef in (None, 0.0, 1.0, -1.0):
            if coef is not None:
                tampered(model, coef)
            for place in ((0, 0), (64, 6), (-1, -1)):
                wrong = spoilt(X, value, place)
                for given in (wrong, wrong[::-1].copy()[::-1], np.asfortranarray(wrong)):
                    with pytest.raises(ValueError, match=wanted):
                        call(model, method, given, y)
            for label in (0, 1):  # a logit of -inf has a loss of 0 where class 0 is true
                with pytest.raises(ValueError, match=wanted):
                    call(model, method, spoilt(X[:1], value, (0, 0)), np.array([label]))

    @pytest.mark.parametrize("method", EVERY_METHOD)
    def test_the_error_is_that_of_fit(self, data, model, method):
        X, y = data
        with pytest.raises(ValueError) as expected:
            FastSoftmax().fit(spoilt(X, np.nan), y)
        with pytest.raises(ValueError, match="NaN") as actual:
            call(model, method, spoilt(X, np.nan), y)
        assert str(actual.value) == str(expected.value)

    @pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
    def test_other_containers(self, data, model, method):
        X, y = data
        for given in (spoilt(X, np.nan).tolist(), spoilt(X, np.nan).astype(object)):
            with pytest.raises(ValueError, match="NaN"):
                call(model, method, given, y)

    @pytest.mark.parametrize("method", EVERY_METHOD)
    def test_logits_that_overflow_are_no_error(self, data, model, method, n_classes):
        """X is finite, so there is a result, if not of numbers."""
        X = data[0].astype(np.float32)
        model.coef_ = np.full(model.coef_.shape, 1e38, dtype=np.float32)
        model.intercept_ = np.zeros(len(model.coef_), dtype=np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = call(model, method, X, data[1])
        if method == "predict":
            assert set(result) <= set(range(n_classes))

    @pytest.mark.parametrize("method", METHODS)
    def test_a_model_that_is_not_finite(self, data, model, method):
        tampered(model, np.nan)
        call(model, method, data[0])


class TestFastPath:
    @pytest.mark.parametrize("dtype", STORED)
    @pytest.mark.parametrize("method", METHODS)
    def test_containers_agree(self, data, model, method, dtype):
        X = data[0].astype(dtype)
        expected = call(model, method, X)
        for given in (
            np.asfortranarray(X),
            X.view(type("Mine", (np.ndarray,), {})),
            np.repeat(X, 2, axis=1)[:, ::2],
            np.repeat(X, 2, axis=0)[::2],
        ):
            for a, b in zip(call(model, method, given), expected, strict=True):
                np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("method", EVERY_METHOD)
    @pytest.mark.parametrize("n_features", [6, 8])
    def test_another_number_of_features(self, data, model, method, n_features):
        with pytest.raises(ValueError, match=f"X has {n_features} features, but FastSoftmax is ex"):
            call(model, method, np.ones((4, n_features)))

    @pytest.mark.parametrize("method", EVERY_METHOD)
    def test_no_rows(self, data, model, method):
        with pytest.raises(ValueError, match="0 sample"):
            call(model, method, data[0][:0], data[1][:0])

    @pytest.mark.parametrize("method", EVERY_METHOD)
    def test_not_fitted(self, data, method):
        with pytest.raises(NotFittedError, match="not fitted"):
            X, y = data
            unfitted = FastSoftmax()
            arguments = METHODS.get(method, (y,))
            getattr(unfitted, method)(X, *arguments)

    @pytest.mark.parametrize("method", EVERY_METHOD)
    def test_names_of_features(self, data, model, method):
        """A model that has seen names warns of an array without them, as scikit-learn's does."""
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(data[0], columns=list("abcdefg"))
        named = FastSoftmax(n_jobs=1, tol=0.1, backend=model.backend).fit(frame, data[1])
        expected = call(model, method, data[0], data[1])
        for a, b in zip(
            np.atleast_1d(call(named, method, frame, data[1])), np.atleast_1d(expected), strict=True
        ):
            np.testing.assert_array_equal(a, b)
        with pytest.warns(UserWarning, match="feature names") as caught:
            call(named, method, data[0], data[1])
        assert len(caught) == 1
        with pytest.raises(ValueError, match="NaN"), pytest.warns(UserWarning) as caught:
            call(named, method, spoilt(data[0], np.nan), data[1])
        assert len(caught) == 1

    def test_coefficients_replaced_or_changed(self, data, model):
        """Nothing of them is kept between calls."""
        X = data[0].astype(np.float32)
        logits = model.decision_function(X)
        assert model.predict_proba(X).dtype == np.float64
        model.coef_[...] *= -1.0
        model.intercept_ *= -1.0
        np.testing.assert_allclose(model.decision_function(X), -logits, rtol=1e-6)
        model.coef_ = model.coef_.astype(np.float32)
        model.intercept_ = model.intercept_.astype(np.float32)
        assert model.predict_proba(X).dtype == np.float32
        np.testing.assert_allclose(model.decision_function(X), -logits, rtol=1e-3, atol=1e-4)

    def test_nothing_is_written_to(self, data, model):
        X, y = (a.copy() for a in data)
        for array in (X, y, model.coef_, model.intercept_, model.classes_):
            array.setflags(write=False)
        for method in EVERY_METHOD:
            call(model, method, X, y)


def test_scores_as_scikit_learns_model(data, model):
    theirs = LogisticRegression(max_iter=10_000).fit(*data)
    ours = FastSoftmax(n_jobs=1, tol=1e-10, backend=model.backend).fit(*data)
    assert ours.score(*data) == theirs.score(*data)


def test_no_accuracy_is_above_1():
    """Regression: 1.0000000000000002, as sums of row weights are rounded in different orders."""
    right = np.eye(3)[np.arange(24) % 3]
    model = FastSoftmax(C=1e4).fit(1e3 * right, 0.9 * right + 0.1 / 3)
    for seed in range(40):
        weights = np.random.default_rng(seed).uniform(1e11, 1e12, 24)
        given = 1e3 * right, 0.9 * right + 0.1 / 3, weights
        assert model.score(*given) <= 1.0
        assert model.evaluate(*given).accuracy <= 1.0
