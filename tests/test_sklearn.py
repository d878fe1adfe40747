"""FastSoftmax among scikit-learn's own: its estimator checks, and what wraps estimators."""

import inspect
import pickle

import joblib
import numpy as np
import pytest
import sklearn
from scipy.optimize import minimize, root
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris, make_blobs
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_class_weight_classifiers,
    estimator_checks_generator,
)
from sklearn.utils.validation import check_is_fitted

from fastsoftmax import FastSoftmax, FastSoftmaxCV

CLASS_WEIGHTS = ("check_class_weight_classifiers",)
# Each with the checks that are about something else, as tests below prove; everything else passes,
# without exception.
CONFIGURATIONS = {
    "default": (FastSoftmax(), ()),
    "serial": (FastSoftmax(n_jobs=1), ()),
    "two threads": (FastSoftmax(n_jobs=2), ()),
    "numpy": (FastSoftmax(backend="numpy"), ()),
    "numpy, lbfgs": (FastSoftmax(backend="numpy", solver="lbfgs", tol=1e-10), ()),
    "numpy, sgd": (FastSoftmax(backend="numpy", solver="sgd", max_iter=20), ()),
    "numpy, standardized": (FastSoftmax(backend="numpy", standardize=True), ()),
    "balanced": (FastSoftmax(class_weight="balanced", n_jobs=1), ()),
    # two fits that end anywhere within the default tolerance differ by more than a check allows
    "lbfgs": (FastSoftmax(solver="lbfgs", tol=1e-10, n_jobs=1), ()),
    "newton": (FastSoftmax(solver="newton-cholesky", n_jobs=1), ()),
    "warm start": (FastSoftmax(warm_start=True, n_jobs=1), ()),
    "elastic net": (FastSoftmax(l1_ratio=0.5, n_jobs=1), ()),
    "standardized": (FastSoftmax(standardize=True, n_jobs=1), ()),
    "scaled": (FastSoftmax(input_scale=0.5, n_jobs=1), ()),
    "smoothed": (FastSoftmax(label_smoothing=0.1, n_jobs=1), ()),
    "weak penalty": (FastSoftmax(C=1e4, tol=1e-9, n_jobs=1), ()),
    "strong penalty": (FastSoftmax(C=1e-3, n_jobs=1), ()),
    "verbose": (FastSoftmax(verbose=1, n_jobs=1), ()),
    # expects class weights to act through the intercept
    "no intercept": (FastSoftmax(fit_intercept=False, n_jobs=1), CLASS_WEIGHTS),
    "no intercept, standardized": (
        FastSoftmax(fit_intercept=False, standardize=True, n_jobs=1),
        CLASS_WEIGHTS,
    ),
    "no penalty": (FastSoftmax(C=np.inf, n_jobs=1), ()),
    "no penalty, numpy": (FastSoftmax(C=np.inf, backend="numpy"), ()),
    "no penalty, standardized": (FastSoftmax(C=np.inf, standardize=True, n_jobs=1), ()),
    "lasso": (FastSoftmax(l1_ratio=1.0, n_jobs=1), ()),
    "elastic net, numpy": (FastSoftmax(l1_ratio=0.5, backend="numpy"), ()),
    "elastic net, standardized": (FastSoftmax(l1_ratio=0.5, standardize=True, n_jobs=1), ()),
    "owlqn": (FastSoftmax(solver="owlqn", l1_ratio=None, tol=1e-10, n_jobs=1), ()),
    "balanced, smoothed": (
        FastSoftmax(class_weight="balanced", label_smoothing=0.1, standardize=True, n_jobs=1),
        (),
    ),
    "in a time": (FastSoftmax(max_time=600.0, max_iter=50, random_state=0, n_jobs=1), ()),
    "early stopping": (FastSoftmax(early_stopping=True, n_jobs=1), ()),
    "early stopping, numpy": (FastSoftmax(early_stopping=True, backend="numpy"), ()),
    "early stopping, no penalty": (FastSoftmax(C=np.inf, early_stopping=True, n_jobs=1), ()),
    "early stopping, elastic net": (
        FastSoftmax(early_stopping=True, l1_ratio=0.5, n_jobs=1),
        (),
    ),
    "early stopping, impatient": (
        FastSoftmax(
            early_stopping=True,
            validation_fraction=0.4,
            n_iter_no_change=1,
            min_delta=0.0,
            n_jobs=1,
        ),
        (),
    ),
    "sgd": (FastSoftmax(solver="sgd", max_iter=20, n_jobs=1), ()),
    "sgd, momentum": (FastSoftmax(solver="sgd", momentum=0.9, max_iter=20, n_jobs=1), ()),
    # two of the rows held out count there, and those may be luckiest while steps are too long
    "sgd, early stopping": (
        FastSoftmax(solver="sgd", early_stopping=True, max_iter=20, n_jobs=1),
        CLASS_WEIGHTS,
    ),
    "sgd, early stopping, standardized": (
        FastSoftmax(
            solver="sgd",
            early_stopping=True,
            standardize=True,
            learning_rate=0.5,
            momentum=0.5,
            batch_size=100,
            max_iter=20,
            n_jobs=1,
        ),
        (),
    ),
    "sgd, strong penalty": (FastSoftmax(solver="sgd", C=0.01, max_iter=20, n_jobs=1), ()),
    "sgd, standardized": (
        FastSoftmax(solver="sgd", standardize=True, label_smoothing=0.1, max_iter=20, n_jobs=1),
        (),
    ),
}


def checks():
    """All checks of the default configuration; of each other one in five, each time others."""
    for i, (name, (estimator, left_out)) in enumerate(CONFIGURATIONS.items()):
        for j, (instance, check) in enumerate(estimator_checks_generator(estimator)):
            check_name = getattr(check, "func", check).__name__
            if check_name in left_out:
                continue
            marks = () if name == "default" or (i + j) % 5 == 0 else pytest.mark.slow
            yield pytest.param(instance, check, id=f"{name}-{check_name}", marks=marks)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_estimator_checks(estimator, check):
    check(estimator)


def test_the_default_configuration_leaves_no_check_out():
    assert CONFIGURATIONS["default"] == (CONFIGURATIONS["default"][0], ())
    assert repr(CONFIGURATIONS["default"][0]) == "FastSoftmax()"


def test_what_is_left_out():
    left_out = {name: checks for name, (_, checks) in CONFIGURATIONS.items() if checks}
    assert left_out == {
        "no intercept": CLASS_WEIGHTS,
        "no intercept, standardized": CLASS_WEIGHTS,
        "sgd, early stopping": CLASS_WEIGHTS,
    }


class WithoutIntercept(ClassifierMixin, BaseEstimator):
    """The exact minimum of what `FastSoftmax` (and `LogisticRegression`) minimises, by scipy."""

    def __init__(self, standardize=False, class_weight=None):
        self.standardize = standardize
        self.class_weight = class_weight

    def fit(self, X, y):
        self.classes_, labels = np.unique(y, return_inverse=True)
        self.center_, self.scale_ = np.zeros(X.shape[1]), np.ones(X.shape[1])
        weights = np.array([self.class_weight[label] for label in y])
        if self.standardize:
            self.center_ = np.average(X, axis=0, weights=weights)
            variance = np.average((X - self.center_) ** 2, axis=0, weights=weights)
            self.scale_ = np.sqrt(variance)
        Z, Y = (X - self.center_) / self.scale_, np.eye(len(self.classes_))[labels]
        # of two classes the first has logit 0
        free = slice(1 if len(self.classes_) == 2 else 0, None)

        def value_and_gradient(flat):
            V = np.zeros((len(self.classes_), X.shape[1]))
            V[free] = flat.reshape(-1, X.shape[1])
            log_probs = log_softmax(Z @ V.T, axis=1)
            value = -(weights * (Y * log_probs).sum(axis=1)).sum() + 0.5 * (V**2).sum()
            gradient = (weights[:, np.newaxis] * (np.exp(log_probs) - Y)).T @ Z + V
            return value, gradient[free].ravel()

        near = minimize(value_and_gradient, np.zeros(Y[:, free].shape[1] * X.shape[1]), jac=True).x
        found = root(lambda flat: value_and_gradient(flat)[1], near, tol=1e-14).x
        # strong convexity, of modulus 1: the minimum is not further away than this
        assert np.linalg.norm(value_and_gradient(found)[1]) < 1e-3 * np.linalg.norm(found)
        V = np.zeros((len(self.classes_), X.shape[1]))
        V[free] = found.reshape(-1, X.shape[1])
        self.coef_ = V / self.scale_
        return self

    def predict(self, X):
        return self.classes_[((X - self.center_) @ self.coef_.T).argmax(axis=1)]


@pytest.mark.parametrize("standardize", [False, True])
def test_no_model_without_intercept_passes_what_is_left_out(standardize):
    """Not even the minimum itself: no training, however exact, can pass."""
    ours = FastSoftmax(fit_intercept=False, standardize=standardize, tol=1e-12, n_jobs=1)
    for model in (WithoutIntercept(standardize), ours):
        with pytest.raises(AssertionError):
            check_class_weight_classifiers(type(model).__name__, model)
    for n_classes in (2, 3):
        X, y = make_blobs(centers=n_classes, random_state=0, cluster_std=20)
        class_weight = {k: 1000.0 if k == 0 else 1e-4 for k in range(n_classes)}
        exact = WithoutIntercept(standardize, class_weight).fit(X, y)
        model = clone(ours).set_params(class_weight=class_weight).fit(X, y)
        scale = np.abs(exact.coef_).max()
        expected = exact.coef_[1:] if n_classes == 2 else exact.coef_
        np.testing.assert_allclose(model.coef_, expected, rtol=0.0, atol=1e-4 * scale)
    if not standardize:
        with pytest.raises(AssertionError):
            check_class_weight_classifiers("theirs", LogisticRegression(fit_intercept=False))


class NeverEnough(FastSoftmax):
    """Stops where no later epoch can have the lowest validation loss: after all of them."""

    def fit(self, X, y):
        self.n_iter_no_change = self.max_iter
        return super().fit(X, y)


@pytest.mark.filterwarnings("ignore:solver='sgd' ended")
def test_the_lowest_validation_loss_of_sgd_does_not_pass_what_is_left_out():
    """Features of 20, steps of 0.1: of 1000 epochs the luckiest is one of those that overshoot."""
    parameters = {"solver": "sgd", "n_jobs": 1}
    with pytest.raises(AssertionError):
        check_class_weight_classifiers("", NeverEnough(early_stopping=True, **parameters))
    # and without anything held out the check passes
    check_class_weight_classifiers("", FastSoftmax(**parameters))


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture
def model():
    return FastSoftmax(n_jobs=1)


@pytest.fixture
def fitted(model, iris):
    return model.fit(*iris)


class TestEstimator:
    def test_is_a_classifier(self, model):
        assert is_classifier(model)
        tags = get_tags(model)
        assert tags.classifier_tags.multi_class
        assert not tags.classifier_tags.poor_score
        assert tags.input_tags.sparse

    def test_state_of_being_fitted(self, model, iris):
        with pytest.raises(NotFittedError):
            check_is_fitted(model)
        check_is_fitted(model.fit(*iris))
        assert model.n_features_in_ == 4

    def test_attributes_have_scikit_learns_shapes(self, iris):
        X, y = iris
        for labels in (y, y > 0, np.array(["a", "b", "c"])[y]):
            ours = FastSoftmax().fit(X, labels)
            theirs = LogisticRegression(solver="newton-cholesky").fit(X, labels)
            for name in ("classes_", "coef_", "intercept_", "n_iter_"):
                actual, expected = getattr(ours, name), getattr(theirs, name)
                assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)

    def test_parameters_are_keywords_but_for_C(self):
        parameters = inspect.signature(FastSoftmax).parameters
        assert FastSoftmax(0.5).C == 0.5
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        assert all(p.kind is keyword_only for name, p in parameters.items() if name != "C")

    def test_defaults_that_scikit_learns_model_shares(self):
        ours, theirs = FastSoftmax().get_params(), LogisticRegression().get_params()
        for name in ("C", "fit_intercept", "class_weight", "tol", "warm_start", "random_state"):
            assert ours[name] == theirs[name]

    def test_clone(self, fitted):
        copy = clone(fitted.set_params(C=0.25, class_weight={0: 2.0}))
        assert copy.get_params() == fitted.get_params()
        assert not hasattr(copy, "coef_")

    def test_pictures_of_it(self, fitted):
        assert repr(FastSoftmax(C=2.0, solver="sgd")) == "FastSoftmax(C=2.0, solver='sgd')"
        assert "FastSoftmax" in fitted._repr_html_()

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_pickle(self, fitted, iris, protocol):
        again = pickle.loads(pickle.dumps(fitted, protocol))
        np.testing.assert_array_equal(again.predict_proba(iris[0]), fitted.predict_proba(iris[0]))
        assert again.fit(*iris).converged_

    @pytest.mark.parametrize("mmap_mode", [None, "r"])
    def test_joblib(self, fitted, iris, tmp_path, mmap_mode):
        joblib.dump(fitted, tmp_path / "model")
        again = joblib.load(tmp_path / "model", mmap_mode=mmap_mode)
        np.testing.assert_array_equal(again.predict_proba(iris[0]), fitted.predict_proba(iris[0]))
        assert again.set_params(warm_start=True).fit(*iris).converged_


class TestTools:
    def test_pipeline(self, iris):
        X, y = iris
        ours = make_pipeline(StandardScaler(), FastSoftmax(tol=1e-12, n_jobs=1)).fit(X, y)
        theirs = make_pipeline(
            StandardScaler(), LogisticRegression(tol=1e-10, solver="newton-cholesky")
        ).fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-8)

    def test_grid_search_in_processes(self, iris, model):
        grid = {"C": [0.01, 1.0, 100.0]}
        parallel = GridSearchCV(model, grid, n_jobs=2, cv=3, scoring="neg_log_loss").fit(*iris)
        serial = GridSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(*iris)
        np.testing.assert_array_equal(
            parallel.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"]
        )
        np.testing.assert_array_equal(parallel.best_estimator_.coef_, serial.best_estimator_.coef_)

    def test_in_threads(self, iris):
        models = joblib.Parallel(n_jobs=3, prefer="threads")(
            joblib.delayed(FastSoftmax(n_jobs=2).fit)(*iris) for _ in range(6)
        )
        for model in models:
            np.testing.assert_array_equal(model.coef_, models[0].coef_)

    @pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
    def test_cross_val_predict(self, iris, model, method):
        X, y = iris
        result = cross_val_predict(model, X, y, cv=3, method=method)
        assert result.shape == ((150,) if method == "predict" else (150, 3))
        if method == "predict":
            assert np.mean(result == y) > 0.9

    def test_scorers(self, iris, model):
        binary = iris[0][iris[1] > 0], iris[1][iris[1] > 0]
        scores = cross_validate(
            model,
            *binary,
            cv=3,
            scoring={
                "auc": "roc_auc",
                "brier": "neg_brier_score",
                "mine": make_scorer(roc_auc_score, response_method="decision_function"),
            },
        )
        np.testing.assert_array_equal(scores["test_auc"], scores["test_mine"])
        assert scores["test_auc"].min() > 0.9

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda model: CalibratedClassifierCV(model, cv=3),
            lambda model: BaggingClassifier(model, n_estimators=3, random_state=0),
            lambda model: AdaBoostClassifier(model, n_estimators=3, random_state=0),
            lambda model: VotingClassifier([("a", model), ("b", clone(model))], voting="soft"),
            lambda model: VotingClassifier([("a", model), ("b", clone(model))], voting="hard"),
            lambda model: StackingClassifier([("a", model)], final_estimator=clone(model), cv=3),
            lambda model: ClassifierChain(model),
            OneVsRestClassifier,
            OneVsOneClassifier,
        ],
        ids=[
            "calibrated",
            "bagging",
            "boosting",
            "voting",
            "hard voting",
            "stacking",
            "chain",
            "one against the rest",
            "one against one",
        ],
    )
    def test_in_an_ensemble(self, iris, model, wrap):
        X, y = iris
        wrapped = wrap(model)
        if isinstance(wrapped, ClassifierChain):
            wrapped.fit(X, np.column_stack([y > 0, y > 1]))
            assert wrapped.predict(X).shape == (150, 2)
        else:
            assert wrapped.fit(X, y).score(X, y) > 0.8

    def test_thresholds_of_two_classes(self, iris, model):
        X, y = iris[0][iris[1] > 0], np.where(iris[1][iris[1] > 0] == 1, "no", "yes")
        fixed = FixedThresholdClassifier(
            model, threshold=0.9, response_method="predict_proba", pos_label="yes"
        ).fit(X, y)
        probabilities = fixed.estimator_.predict_proba(X)[:, 1]
        np.testing.assert_array_equal(fixed.predict(X) == "yes", probabilities >= 0.9)

    def test_importance_and_curves(self, fitted, iris):
        importance = permutation_importance(fitted, *iris, n_repeats=3, random_state=0)
        assert importance.importances_mean.argmax() >= 2  # petals tell the species
        sizes, train, test = learning_curve(
            clone(fitted), *iris, cv=3, train_sizes=[0.5, 1.0], shuffle=True, random_state=0
        )
        assert train.shape == test.shape == (len(sizes), 3)

    def test_several_targets(self, iris, model):
        X, y = iris
        Y = np.column_stack([y, y == 1])
        assert MultiOutputClassifier(model).fit(X, Y).predict(X).shape == Y.shape

    def test_choice_of_features(self, iris, model):
        assert SelectFromModel(model).fit_transform(*iris).shape[1] < 4
        assert RFE(model, n_features_to_select=2).fit(*iris).transform(iris[0]).shape[1] == 2


class TestPenalty:
    """`SelectFromModel` takes a small threshold where an attribute `penalty` is "l1"."""

    @pytest.mark.parametrize("model", [FastSoftmax(0.05), FastSoftmaxCV([0.05], cv=2)])
    def test_every_feature_with_a_coefficient_is_selected(self, model):
        X, y = make_blobs(300, 30, centers=4, random_state=0)
        X = StandardScaler().fit_transform(X)
        model = clone(model).set_params(l1_ratio=1.0)
        selector = SelectFromModel(model).fit(X, y)
        used = (selector.estimator_.coef_ != 0.0).any(axis=0)
        assert 3 < used.sum() < 30
        assert selector.threshold_ == 1e-5
        np.testing.assert_array_equal(selector.get_support(), used)
        for other in ({"l1_ratio": 0.0}, {"l1_ratio": 0.5}, {"l1_ratio": None}):
            selector = SelectFromModel(clone(model).set_params(**other)).fit(X, y)
            assert selector.threshold_ > 1e-5

    def test_it_is_no_parameter(self, iris):
        model = FastSoftmax(l1_ratio=1.0)
        assert (model.penalty, model.set_params(C=np.inf).penalty) == ("l1", None)
        assert FastSoftmax().penalty == FastSoftmax(l1_ratio=None).penalty == "l2"
        assert FastSoftmax(l1_ratio=0.25).penalty == "elasticnet"
        assert "penalty" not in clone(model).get_params()
        with pytest.raises(ValueError, match="Invalid parameter 'penalty'"):
            model.set_params(penalty="l2")
        fitted = FastSoftmax(l1_ratio=1.0).fit(*iris)
        again = pickle.loads(pickle.dumps(fitted))
        assert again.penalty == "l1" and "penalty" not in vars(again)
        assert FastSoftmax.from_sklearn(fitted.to_sklearn()).l1_ratio == 1.0

    def test_a_subclass_may_have_such_a_parameter(self, iris):
        class Named(FastSoftmax):
            def __init__(self, penalty="mine"):
                super().__init__()
                self.penalty = penalty

            _get_param_names = classmethod(lambda cls: ["penalty"])

        assert clone(Named("ours")).penalty == "ours"


class TestFrames:
    @pytest.fixture(params=["pandas", "polars"])
    def frame(self, request, iris):
        library = pytest.importorskip(request.param)
        names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
        frame = library.DataFrame(dict(zip(names, iris[0].T, strict=True)))
        if not hasattr(StandardScaler().fit(frame), "feature_names_in_"):
            pytest.skip(f"this scikit-learn cannot read the names of this {request.param}")
        return frame

    @pytest.fixture
    def pandas(self):
        return pytest.importorskip("pandas")

    def test_names(self, iris, model, frame):
        plain = clone(model).fit(*iris)
        model.fit(frame, iris[1])
        assert model.feature_names_in_.tolist() == list(frame.columns)
        np.testing.assert_array_equal(model.coef_, plain.coef_)
        np.testing.assert_array_equal(model.predict_proba(frame), plain.predict_proba(iris[0]))
        with pytest.warns(UserWarning, match="feature names"):
            model.predict(iris[0])
        with pytest.raises(ValueError, match="feature names"):
            model.predict(frame[list(frame.columns)[::-1]])
        assert not hasattr(model.fit(*iris), "feature_names_in_")

    def test_set_output(self, iris, model, pandas):
        frame = pandas.DataFrame(iris[0], columns=list("abcd"))
        pipeline = make_pipeline(StandardScaler(), model).set_output(transform="pandas")
        pipeline.fit(frame, iris[1])
        assert pipeline[-1].feature_names_in_.tolist() == list("abcd")

    def test_series_of_labels_and_weights(self, iris, model, pandas):
        names = np.array(["x", "y", "z"])[iris[1]]
        weights = np.arange(150) % 3 + 1.0
        plain = clone(model).fit(iris[0], names, weights)
        shuffled_index = np.random.default_rng(0).permutation(150)
        for labels in (
            pandas.Series(names, index=shuffled_index),
            pandas.Series(names, dtype="category"),
            pandas.Series(names, dtype="string"),
            pandas.Series(names, dtype=object),
        ):
            model.fit(iris[0], labels, pandas.Series(weights, index=shuffled_index))
            np.testing.assert_array_equal(model.coef_, plain.coef_)
            assert model.predict(iris[0][:1]) == ["x"]

    @pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
    def test_nullable_types(self, iris, model, pandas, dtype):
        y = iris[1] > 0 if dtype == "boolean" else iris[1]
        model.fit(iris[0], pandas.Series(y, dtype=dtype))
        assert model.predict(iris[0][:1]) == [0]
        if dtype == "Float64":
            frame = pandas.DataFrame(iris[0], dtype=dtype)
            np.testing.assert_array_equal(model.fit(frame, y).coef_, model.fit(iris[0], y).coef_)
            frame.iloc[3, 1] = pandas.NA
            with pytest.raises(ValueError, match="NaN"):
                model.fit(frame, y)

    def test_missing_labels(self, iris, model, pandas):
        for labels in (
            pandas.Series(iris[1], dtype="Int64").where(iris[1] > 0),
            pandas.Series(["x", "y", None] * 50),
        ):
            with pytest.raises((ValueError, TypeError)):
                model.fit(iris[0], labels)

    def test_float32_frames_stay_float32(self, iris, model, pandas):
        assert model.fit(pandas.DataFrame(iris[0], dtype="float32"), iris[1]).coef_.dtype == "f4"


class TestMetadataRouting:
    @pytest.fixture(autouse=True)
    def routing(self):
        with sklearn.config_context(enable_metadata_routing=True):
            yield

    @pytest.fixture
    def weights(self):
        return np.random.default_rng(0).integers(0, 4, 150).astype(float)

    def test_pipeline(self, iris, weights):
        pipeline = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            FastSoftmax(n_jobs=1).set_fit_request(sample_weight=True),
        ).fit(*iris, sample_weight=weights)
        by_hand = FastSoftmax(n_jobs=1).fit(
            StandardScaler().fit_transform(iris[0]), iris[1], weights
        )
        np.testing.assert_array_equal(pipeline[-1].coef_, by_hand.coef_)

    def test_grid_search(self, iris, weights):
        model = FastSoftmax(n_jobs=1).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=3).fit(*iris, sample_weight=weights)
        best = FastSoftmax(search.best_params_["C"], n_jobs=1).fit(*iris, weights)
        np.testing.assert_array_equal(search.best_estimator_.coef_, best.coef_)

    def test_callbacks_and_eval_set(self, iris):
        seen = []
        model = FastSoftmax(n_jobs=1).set_fit_request(callbacks=True, eval_set=True)
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(*iris, callbacks=[seen.append], eval_set=[iris])
        assert len(seen) == pipeline[-1].n_iter_[0]
        assert len(seen[-1].eval_loss) == 1

    @pytest.mark.parametrize("solver", ["auto", "sgd"])
    def test_a_pipeline_transforms_validation_rows(self, iris, solver):
        X, y = iris[0] * 100.0 + 1e4, np.array(["a", "b", "c"])[iris[1]]
        model = FastSoftmax(early_stopping=True, solver=solver, random_state=0, max_iter=20)
        wanted = clone(model).set_fit_request(X_val=True, y_val=True)
        pipeline = make_pipeline(StandardScaler(), wanted, transform_input=["X_val"])
        pipeline.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
        scaler = StandardScaler().fit(X[::2])
        known = [(scaler.transform(X[1::2]), y[1::2])]
        by_hand = clone(model).fit(scaler.transform(X[::2]), y[::2], eval_set=known)
        np.testing.assert_array_equal(pipeline[-1].coef_, by_hand.coef_)
        assert pipeline[-1].history_["eval_loss"] == by_hand.history_["eval_loss"]
        assert pipeline[-1].best_score_ == by_hand.best_score_
        seen = []
        model.fit(X, y, X_val=X, y_val=y, callbacks=[seen.append])
        assert "eval_0" in seen[-1].metrics

    def test_weights_that_nobody_asked_for(self, iris, weights):
        with pytest.raises(ValueError, match="sample_weight"):
            make_pipeline(StandardScaler(), FastSoftmax(n_jobs=1)).fit(*iris, sample_weight=weights)


class TestValidationRows:
    @pytest.mark.filterwarnings("ignore:solver='sgd' ended")  # features are not scaled
    def test_they_are_an_evaluation_set(self, iris):
        X, y = iris
        for solver in ("auto", "sgd"):
            model = FastSoftmax(solver=solver, max_iter=9, early_stopping=True, random_state=0)
            pairs = [(X[::2], y[::2])]
            first = clone(model).fit(*pairs[0], X_val=X[1::2], y_val=y[1::2])
            second = clone(model).fit(*pairs[0], eval_set=[(X[1::2], y[1::2])])
            np.testing.assert_array_equal(first.coef_, second.coef_)
            assert first.history_["eval_loss"] == second.history_["eval_loss"]
        batches = [(X[i : i + 50], y[i : i + 50]) for i in range(0, 150, 50)]
        model.fit(batches, classes=[0, 1, 2], X_val=X, y_val=np.eye(3)[y])
        assert len(model.history_["eval_loss"][-1]) == 1

    def test_errors(self, iris):
        X, y = iris
        for options, match in (
            ({"X_val": X}, "given together: y_val is missing"),
            ({"y_val": y}, "given together: X_val is missing"),
            ({"X_val": X, "y_val": y, "eval_set": []}, "as eval_set, or as X_val and y_val"),
            ({"X_val": X, "y_val": y + 7}, "y_val holds a label that is none of the classes"),
            ({"X_val": X, "y_val": y.astype(str)}, "y_val .* It holds strings, and"),
            ({"X_val": X[:9], "y_val": y}, "inconsistent"),
        ):
            with pytest.raises(ValueError, match=match):
                FastSoftmax().fit(X, y, **options)


def test_a_fold_that_lacks_a_class_is_scored(iris):
    """Labels that a fit has not seen count as wrong, as everywhere in scikit-learn."""
    X, y = iris
    for labels in (y, np.array(["a", "b", "c"])[y]):
        cut = [(np.flatnonzero(y < 2), np.flatnonzero(y >= 1))]
        search = GridSearchCV(FastSoftmax(), {"C": [1.0]}, cv=cut, error_score="raise")
        assert 0.0 < search.fit(X, labels).best_score_ <= 0.5


def test_convergence_warning_is_scikit_learns(iris):
    with pytest.warns(ConvergenceWarning):
        FastSoftmax(max_iter=1, n_jobs=1).fit(*iris)
