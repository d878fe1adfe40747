"""Models of scikit-learn, PyTorch and ONNX that a fitted model becomes, and the way back."""

import inspect
import sys
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.fixes import parse_version

from fastsoftmax import FastSoftmax, FastSoftmaxCV

OLD = parse_version(sklearn.__version__) < parse_version("1.8")  # has multi_class and penalty
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")
LABELS = {
    "int": np.array([-3, 5, 2**40]),
    "uint8": np.array([7, 8, 200], dtype=np.uint8),
    "str": np.array(["", "zebra 🦓", "ß"]),
    "str objects": np.array(["a", "b", "ü"], dtype=object),
    "int objects": np.array([1, 2, 3], dtype=object),
    "float": np.array([-1.0, 0.0, 2.0]),
    "float16": np.array([-1.0, 0.0, 2.0], dtype=np.float16),
    "float32": np.array([-1.0, 0.0, 2.0], dtype=np.float32),
    "bool": np.array([False, True]),
    "bool objects": np.array([False, True], dtype=object),
}


@pytest.fixture
def X(rng, real):
    return rng.normal(size=(80, 5)).astype(real)


@pytest.fixture(params=[2, 3])
def y(rng, X, request):
    logits = X[:, : request.param] + 0.5 * rng.gumbel(size=(len(X), request.param))
    return logits.argmax(axis=1)


@pytest.fixture
def model(X, y):
    return FastSoftmax(n_jobs=1).fit(X, y)


def assert_same_answers(one, other, X, rtol=1e-4, atol=1e-6):
    for method in METHODS:
        ours, theirs = getattr(one, method)(X), getattr(other, method)(X)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        if method == "predict":
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


class TestToSklearn:
    @pytest.mark.parametrize(
        "estimator",
        [
            FastSoftmax(n_jobs=1),
            FastSoftmax(C=np.inf, n_jobs=1),
            FastSoftmax(solver="sgd", max_iter=2, random_state=0, n_jobs=1),
            FastSoftmax(fit_intercept=False, standardize=True, n_jobs=1),
            FastSoftmax(input_scale=0.1, label_smoothing=0.1, n_jobs=1),
            FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, n_jobs=1),
        ],
        ids=repr,
    )
    def test_same_answers(self, X, y, estimator):
        model = clone(estimator).fit(X, y)
        assert_same_answers(model.to_sklearn(), model, X)
        assert model.to_sklearn().score(X, y) == model.score(X, y)

    def test_parameters(self, X, y):
        weights = {0: 2.0}
        model = FastSoftmax(
            C=0.25,
            fit_intercept=False,
            class_weight=weights,
            solver="newton-cholesky",
            tol=1e-6,
            max_iter=77,
            warm_start=True,
            random_state=3,
            verbose=0,
            n_jobs=1,
        ).fit(X, y)
        other = model.to_sklearn()
        changed = {
            "C": 0.25,
            "fit_intercept": False,
            "class_weight": weights,
            "solver": "newton-cholesky",
            "tol": 1e-6,
            "max_iter": 77,
            "warm_start": True,
            "random_state": 3,
        }
        assert other.get_params() == LogisticRegression(**changed).get_params()
        np.testing.assert_array_equal(other.n_iter_, model.n_iter_)
        assert FastSoftmax.from_sklearn(other).get_params() == {
            **FastSoftmax().get_params(),
            **changed,
        }

    def test_another_fit_there_is_the_same_optimum(self, X, y):
        model = FastSoftmax(C=0.3, tol=1e-10, n_jobs=1).fit(X.astype(np.float64), y)
        other = model.to_sklearn().set_params(tol=1e-10).fit(X.astype(np.float64), y)
        np.testing.assert_allclose(other.coef_, model.coef_, atol=1e-4)

    def test_epochs_are_no_iterations(self, X, y):
        model = FastSoftmax(solver="sgd", max_iter=2).fit(X, y)
        assert model.to_sklearn().max_iter == LogisticRegression().max_iter

    def test_arrays_are_copies(self, model, X):
        before = model.predict_proba(X)
        other = model.to_sklearn()
        for array in (other.coef_, other.intercept_, other.classes_):
            array[...] = 0
        np.testing.assert_array_equal(model.predict_proba(X), before)

    @pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
    def test_labels(self, X, labels):
        model = FastSoftmax(n_jobs=1).fit(X, np.arange(len(X)) % len(labels))
        model.classes_ = labels
        other = model.to_sklearn()
        assert other.classes_.dtype == model.classes_.dtype
        np.testing.assert_array_equal(other.predict(X), model.predict(X))

    def test_names_of_features(self, X, y):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=list("abcde"))
        other = FastSoftmax(n_jobs=1).fit(frame, y).to_sklearn()
        other.predict(frame)
        again = FastSoftmax.from_sklearn(other)
        again.predict(frame)
        for model in (other, again):
            with pytest.raises(ValueError, match="names should match"):
                model.predict(frame[list("edcba")])


class TestFromSklearn:
    @pytest.mark.parametrize(
        "clf",
        [
            LogisticRegression(),
            LogisticRegression(C=np.inf, solver="newton-cg"),
            LogisticRegression(fit_intercept=False, class_weight="balanced", tol=1e-3),
            LogisticRegression(solver="newton-cholesky"),
            LogisticRegressionCV(Cs=[0.1, 1.0], cv=2),
            LogisticRegressionCV(Cs=[0.1, 1.0], cv=2, refit=False),
        ],
        ids=repr,
    )
    @pytest.mark.filterwarnings("ignore::FutureWarning")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_same_answers(self, X, y, clf):
        clf = clone(clf).fit(X, y)
        model = FastSoftmax.from_sklearn(clf)
        assert_same_answers(model, clf, X)
        assert (model.fit_intercept, model.tol) == (clf.fit_intercept, clf.tol)
        assert (model.gap_, model.converged_) == (np.inf, False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)

    @pytest.mark.parametrize("fit_intercept", [True, False])
    def test_liblinear_of_two_classes(self, X, fit_intercept):
        y = X[:, 0] > 0
        clf = LogisticRegression(solver="liblinear", fit_intercept=fit_intercept).fit(X, y)
        model = FastSoftmax.from_sklearn(clf)
        assert model.solver == "auto"
        assert_same_answers(model, clf, X.astype(model.coef_.dtype))

    def test_one_vs_rest_is_refused(self, X, model, y):
        """Its probabilities are no softmax of its logits; newer versions refuse to fit it."""
        other = model.to_sklearn()
        other.solver = "liblinear"
        if len(model.classes_) == 2:
            FastSoftmax.from_sklearn(other)
        else:
            with pytest.raises(ValueError, match="one-vs-rest"):
                FastSoftmax.from_sklearn(other)
            other.solver, other.multi_class = "lbfgs", "ovr"
            with pytest.raises(ValueError, match="one-vs-rest"):
                FastSoftmax.from_sklearn(other)

    @pytest.mark.skipif(not OLD, reason="this scikit-learn has no multi_class")
    @pytest.mark.filterwarnings("ignore::FutureWarning")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_multinomial_model_of_two_classes(self, X):
        """There the softmax is of [-o, o], which doubles the log-odds."""
        y = X[:, 0] > 0
        clf = LogisticRegression(multi_class="multinomial").fit(X, y)
        model = FastSoftmax.from_sklearn(clf)
        np.testing.assert_allclose(model.predict_proba(X), clf.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(
            model.decision_function(X), 2.0 * clf.decision_function(X), rtol=1e-4, atol=1e-6
        )

    @pytest.mark.skipif(not OLD, reason="newer ones deprecate penalty")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_no_penalty(self, X, y):
        assert np.isinf(FastSoftmax.from_sklearn(LogisticRegression(penalty=None).fit(X, y)).C)

    def test_chosen_C(self, X, y):
        model = FastSoftmaxCV(Cs=[0.125, 1.0], cv=2, n_jobs=1).fit(X, y)
        assert model.to_sklearn().C == model.C_

    def test_round_trip(self, model, X):
        again = FastSoftmax.from_sklearn(model.to_sklearn())
        np.testing.assert_array_equal(again.coef_, model.coef_)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert again.coef_.dtype == model.coef_.dtype

    def test_sparse_coefficients(self, model, X):
        again = FastSoftmax.from_sklearn(model.to_sklearn().sparsify())
        np.testing.assert_array_equal(again.coef_, model.coef_)

    def test_arrays_are_copies(self, model, X):
        other = model.to_sklearn()
        again = FastSoftmax.from_sklearn(other)
        other.coef_[...] = 0.0
        np.testing.assert_array_equal(again.coef_, model.coef_)

    def test_subclasses(self, model):
        class Named(FastSoftmax):
            pass

        assert type(Named.from_sklearn(model.to_sklearn())) is Named

    @pytest.mark.parametrize(
        "clf",
        [RidgeClassifier(), make_pipeline(LogisticRegression()), LogisticRegression, None],
        ids=repr,
    )
    def test_other_models(self, clf):
        with pytest.raises(TypeError, match="clf must be a fitted LogisticRegression"):
            FastSoftmax.from_sklearn(clf)

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            FastSoftmax.from_sklearn(LogisticRegression())

    def test_coefficients_that_are_not_finite(self, model):
        other = model.to_sklearn()
        other.coef_[0, 0] = np.nan
        with pytest.raises(ValueError, match="coef_ must be finite"):
            FastSoftmax.from_sklearn(other)


class TestToTorch:
    def test_same_answers(self, model, X):
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        layer = model.to_torch()
        assert torch.rand(1) == expected  # it takes no random numbers
        assert isinstance(layer, torch.nn.Linear)
        assert layer.out_features == len(model.classes_)
        assert layer.weight.requires_grad
        logits = layer(torch.from_numpy(X))
        probs = torch.softmax(logits, dim=1).detach().numpy()
        assert probs.dtype == X.dtype
        np.testing.assert_allclose(probs, model.predict_proba(X), atol=1e-6)
        labels = model.classes_[logits.argmax(dim=1).numpy()]
        np.testing.assert_array_equal(labels, model.predict(X))

    def test_weights_are_copies(self, model, X):
        torch = pytest.importorskip("torch")
        before = model.predict_proba(X)
        with torch.no_grad():
            model.to_torch().weight.zero_()
        np.testing.assert_array_equal(model.predict_proba(X), before)


class TestToOnnx:
    @staticmethod
    def run(proto, X):
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        assert [i.name for i in session.get_inputs()] == ["X"]
        assert [o.name for o in session.get_outputs()] == ["label", "probabilities"]
        return session.run(None, {"X": X})

    @pytest.mark.parametrize("dtype", [np.float32, "float64"])
    def test_same_answers(self, model, X, dtype):
        onnx = pytest.importorskip("onnx")
        proto = model.to_onnx(dtype=dtype)
        onnx.checker.check_model(proto, full_check=True)
        X = X.astype(dtype)
        for rows in (X, X[:1], 100.0 * X):
            labels, probs = self.run(proto, rows)
            assert probs.dtype == X.dtype
            np.testing.assert_array_equal(labels, model.predict(rows))
            np.testing.assert_allclose(probs, model.predict_proba(rows), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
    def test_labels(self, X, labels):
        pytest.importorskip("onnx")
        model = FastSoftmax(n_jobs=1).fit(X, np.arange(len(X)) % len(labels))
        model.classes_ = labels
        answers, _ = self.run(model.to_onnx(), X.astype(np.float32))
        assert answers.tolist() == model.predict(X.astype(np.float32)).tolist()

    def test_features_far_from_zero(self, rng):
        """In float32 the logits would lose 3 digits and more: float64 models stay float64."""
        pytest.importorskip("onnx")
        X = (1e6 + rng.normal(size=(200, 3))).astype(np.float32)
        y = (X[:, 0] > X[:, 1]).astype(int)
        model = FastSoftmax(n_jobs=1).fit(X.astype(np.float64), y)
        _, probs = self.run(model.to_onnx(), X)
        np.testing.assert_allclose(probs, model.predict_proba(X), atol=1e-6)

    def test_of_a_search(self, X, y):
        pytest.importorskip("onnx")
        model = FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, n_jobs=1).fit(X, y)
        _, probs = self.run(model.to_onnx(dtype=X.dtype), X)
        np.testing.assert_allclose(probs, model.predict_proba(X), atol=1e-6)

    @pytest.mark.parametrize("dtype", [np.float16, int, object])
    def test_dtypes(self, model, dtype):
        with pytest.raises(ValueError, match="dtype must be float32 or float64"):
            model.to_onnx(dtype=dtype)

    @pytest.mark.parametrize(
        "labels",
        [
            np.array([1, 2, 2**64 - 1], dtype=np.uint64),
            np.array([1, 2.5, 3], dtype=object),
            np.array([1, 2, 3], dtype="M8[D]"),
        ],
        ids=repr,
    )
    def test_labels_that_onnx_lacks(self, X, labels):
        model = FastSoftmax(n_jobs=1).fit(X, np.arange(len(X)) % 3)
        model.classes_ = labels
        with pytest.raises(ValueError, match="ONNX has labels"):
            model.to_onnx()


@pytest.mark.parametrize(
    ("package", "method", "advice"),
    [("torch", "to_torch", "pip install torch"), ("onnx", "to_onnx", "pip install onnx")],
)
def test_packages_that_are_missing(model, monkeypatch, package, method, advice):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=advice):
        getattr(model, method)()


def test_temperature_is_part_of_the_coefficients(model, X):
    logits = model.decision_function(X)
    model.temperature_ = 2.5
    other = model.to_sklearn()
    assert other.coef_.dtype == X.dtype
    np.testing.assert_allclose(other.decision_function(X), logits / 2.5, rtol=1e-4, atol=1e-6)
    model.temperature_ = 0.0
    with pytest.raises(ValueError, match="temperature_ must be"):
        model.to_sklearn()


@pytest.mark.parametrize("method", ["to_sklearn", "to_torch", "to_onnx"])
def test_not_fitted(method):
    for estimator in (FastSoftmax(), FastSoftmaxCV()):
        with pytest.raises(NotFittedError):
            getattr(estimator, method)()


def test_every_parameter_of_one_name_is_carried(X, y):
    """A new parameter that scikit-learn has too is carried, or named among those that are not."""
    ours = set(inspect.signature(FastSoftmax).parameters)
    theirs = set(inspect.signature(LogisticRegression).parameters)
    carried = {"C", "fit_intercept", "class_weight", "tol", "max_iter", "warm_start"}
    carried |= {"random_state", "verbose", "solver"}
    assert (ours & theirs) - {"n_jobs", "l1_ratio"} == carried
