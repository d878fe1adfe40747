"""fastsoftmax_path; FastSoftmaxCV among scikit-learn's own, and what it refuses."""

import inspect
import pickle
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import (
    GridSearchCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path

CS = [0.01, 1.0, 100.0]
# What float64 certifies even of the folds of iris at C = 100.
TOL = 1e-9


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600] / 16.0, y[:600]


@parametrize_with_checks(
    [
        FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, n_jobs=1),
        FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, refit=False, scoring="neg_log_loss", n_jobs=1),
        FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, backend="numpy", n_jobs=1),
        FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, l1_ratio=0.5, n_jobs=1),
        FastSoftmaxCV(Cs=2, cv=2, input_scale=0.5, random_state=0, n_jobs=1),
        FastSoftmaxCV(
            Cs=[0.1, 1.0],
            cv=3,
            class_weight="balanced",
            standardize=True,
            one_standard_error=True,
            scoring="neg_log_loss",
            n_jobs=1,
        ),
    ]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_estimator_checks(estimator, check):
    check(estimator)


class TestPath:
    @pytest.mark.parametrize("data", ["iris", "digits", "two classes"])
    def test_each_is_the_fit_at_its_C(self, iris, digits, data):
        X, y = digits if data == "digits" else iris
        y = y > 0 if data == "two classes" else y
        weights = np.arange(len(y)) % 3 + 0.5
        path = fastsoftmax_path(X, y, CS[::-1], sample_weight=weights, tol=TOL, n_jobs=1)
        assert path.Cs.tolist() == CS
        assert (path.gaps <= TOL).all()
        assert path.n_iter.shape == (3,)
        for i, C in enumerate(CS):
            one = FastSoftmax(C, tol=TOL, n_jobs=1).fit(X, y, weights)
            np.testing.assert_array_equal(path.classes, one.classes_)
            scale = np.abs(one.coef_).max()
            np.testing.assert_allclose(path.coefs[i], one.coef_, rtol=0, atol=1e-3 * scale)
            np.testing.assert_allclose(
                path.intercepts[i], one.intercept_, rtol=0, atol=1e-3 * scale
            )

    def test_options_reach_the_fits(self, iris):
        X, y = iris
        options = {
            "fit_intercept": False,
            "class_weight": {0: 3.0},
            "standardize": True,
            "tol": 1e-14,
            "n_jobs": 1,
        }
        path = fastsoftmax_path(X, y, [1.0], **options)
        one = FastSoftmax(1.0, **options).fit(X, y)
        np.testing.assert_allclose(path.coefs[0], one.coef_, rtol=1e-6)
        path = fastsoftmax_path(X, y, [1.0], input_scale=0.1, tol=1e-14, n_jobs=1)
        one = FastSoftmax(1.0, input_scale=0.1, tol=1e-14, n_jobs=1).fit(X, y)
        np.testing.assert_allclose(path.coefs[0], one.coef_, rtol=1e-6)

    def test_number_of_Cs(self, iris):
        path = fastsoftmax_path(*iris, Cs=3, n_jobs=1)
        np.testing.assert_allclose(path.Cs, [1e-4, 1.0, 1e4])

    @pytest.mark.parametrize("Cs", [0, [], [0.0], [1.0, -1.0], [np.inf], [np.nan], [[1.0]], "x"])
    def test_wrong_Cs(self, iris, Cs):
        with pytest.raises(ValueError, match="Cs must be"):
            fastsoftmax_path(*iris, Cs=Cs)

    def test_warning(self, iris):
        with pytest.warns(ConvergenceWarning, match="3 of 3 fits.*max_iter=1") as caught:
            path = fastsoftmax_path(*iris, CS, max_iter=1, n_jobs=1)
        (warning,) = caught
        assert warning.filename == __file__
        assert path.gaps.max() > 0.95
        assert "of the one at C=1 nothing could be certified" in str(warning.message)

    def test_warm_starts_save_iterations(self, digits):
        Cs = np.geomspace(0.1, 1.0, 6)
        path = fastsoftmax_path(*digits, Cs, n_jobs=1)
        cold = sum(FastSoftmax(C, n_jobs=1).fit(*digits).n_iter_[0] for C in Cs)
        assert path.n_iter.sum() < cold

    def test_warning_with_the_largest_gap(self, iris):
        with pytest.warns(ConvergenceWarning) as caught:
            path = fastsoftmax_path(*iris, CS, max_iter=4, n_jobs=1)
        assert f"gap is {path.gaps.max():.1e}" in str(caught[0].message)

    def test_keeps_of_a_fit_only_what_it_returns(self):
        """Not its preconditioner (0.7 MB) and pairs, of use to no other."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(500, 300))
        y = (X[:, :10] + 3.0 * rng.normal(size=(500, 10))).argmax(axis=1)
        peaks = []
        for n_Cs in (2, 12):
            tracemalloc.start()
            fastsoftmax_path(X, y, np.geomspace(0.01, 1.0, n_Cs), tol=1e-2, n_jobs=1)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 2e6


class TestErrors:
    @pytest.mark.parametrize(
        ("splits", "message"),
        [
            ([], "at least one pair"),
            ([(np.arange(50), np.arange(50, 150))], "split 0 of cv need a weight above 0 in at"),
            ([(np.arange(150), [])], "split 0 of cv must hold row numbers"),
            ([(np.arange(151), [0])], "split 0 of cv does not fit"),
            ([(np.arange(150), np.ones(3, dtype=bool))], "split 0 of cv does not fit"),
        ],
    )
    def test_splits(self, iris, splits, message):
        with pytest.raises(ValueError, match=message):
            FastSoftmaxCV(CS, cv=splits, n_jobs=1).fit(*iris)

    def test_rows_left_out_without_weight(self, iris):
        weights = np.ones(150)
        weights[::3] = 0.0
        split = (weights > 0, weights == 0)
        with pytest.raises(ValueError, match="test rows of split 0"):
            FastSoftmaxCV(CS, cv=[split], n_jobs=1).fit(*iris, weights)

    @pytest.mark.parametrize(
        "parameters",
        [{"Cs": 0}, {"Cs": "a"}, {"cv": "a"}, {"scoring": "a"}, {"refit": 2}, {"tol": -1.0}],
        ids=str,
    )
    def test_parameters(self, iris, parameters):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            FastSoftmaxCV(**parameters).fit(*iris)

    def test_one_fold_has_no_standard_error(self, iris):
        splits = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
        with pytest.raises(ValueError, match="one_standard_error"):
            FastSoftmaxCV(CS, cv=splits, one_standard_error=True).fit(*iris)

    def test_one_warning(self, digits):
        with pytest.warns(ConvergenceWarning, match="10 of 10 fits.*max_iter=2") as caught:
            model = FastSoftmaxCV(CS, cv=3, max_iter=2, n_jobs=1).fit(*digits)
        (warning,) = caught
        assert warning.filename == __file__
        assert not model.converged_
        assert max(model.gaps_.max(), model.gap_) > 0.95
        assert "nothing could be certified" in str(warning.message)

    def test_warning_where_precision_ends(self, digits):
        X, y = digits[0].astype(np.float32), digits[1]
        with pytest.warns(ConvergenceWarning, match="as far as float32 goes"):
            FastSoftmaxCV(CS, cv=2, tol=1e-16, n_jobs=1).fit(X, y)


class TestScikitLearn:
    def test_pipeline_clone_pickle(self, iris):
        pipeline = make_pipeline(StandardScaler(), FastSoftmaxCV(CS, cv=3, n_jobs=1))
        fitted = clone(pipeline).fit(*iris)
        assert fitted.score(*iris) > 0.9
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict_proba(iris[0]), fitted.predict_proba(iris[0]))

    def test_parameters(self):
        model = FastSoftmaxCV(3, one_standard_error=True)
        assert repr(model) == "FastSoftmaxCV(Cs=3, one_standard_error=True)"
        assert clone(model).get_params() == model.get_params()

    def test_names_are_those_of_scikit_learn(self):
        ours, theirs = (
            set(inspect.signature(c).parameters) for c in (FastSoftmaxCV, LogisticRegressionCV)
        )
        choices = {"full_path", "certify_folds", "one_standard_error"}
        added = choices | {"standardize", "input_scale", "backend"}
        assert ours - theirs == added | {"l1_ratio"}  # theirs: l1_ratios

    def test_inside_a_search(self, iris):
        search = GridSearchCV(
            FastSoftmaxCV(CS, cv=2, n_jobs=1), {"standardize": [False, True]}, cv=2
        )
        assert search.fit(*iris).score(*iris) > 0.9

    def test_verbose(self, iris, capsys):
        FastSoftmaxCV(CS, cv=2, verbose=1, n_jobs=1).fit(*iris)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 7
        assert all("gap" in line for line in lines)
        assert all("score" in line and "left" in line for line in lines[:6])  # the last: all rows


class TestRefit:
    @pytest.mark.parametrize(
        ("options", "solver"),
        [({}, "newton-cholesky"), ({"l1_ratio": 0.5}, "owlqn"), ({"wide": True}, "lbfgs")],
    )
    def test_attributes_are_those_of_the_last_fit(self, iris, digits, options, solver):
        options = dict(options)
        X, y = digits if options.pop("wide", False) else iris
        clf = FastSoftmaxCV(Cs=CS, cv=3, scoring="neg_log_loss", n_jobs=1, **options).fit(X, y)
        again = FastSoftmax(C=clf.C_, n_jobs=1, **options).fit(X, y)
        assert clf.solver_ == again.solver_ == solver
        assert clf.history_.keys() == again.history_.keys()
        assert {len(values) for values in clf.history_.values()} == {len(clf.history_["loss"])}
        assert clf.history_["objective"][-1] == pytest.approx(clf.objective_, rel=1e-12)
        assert clf.history_["gap"][-1] == pytest.approx(clf.gap_)
        assert clf.objective_ * (1.0 - clf.gap_) <= again.objective_
        assert again.objective_ * (1.0 - again.gap_) <= clf.objective_
        clf.set_params(refit=False).fit(X, y)
        assert not any(hasattr(clf, name) for name in ("objective_", "history_", "solver_"))

    def test_load(self, iris, tmp_path):
        clf = FastSoftmaxCV(Cs=CS, cv=3, n_jobs=1).fit(*iris)
        clf.save(tmp_path / "model.npz")
        loaded = FastSoftmaxCV.load(tmp_path / "model.npz")
        assert type(loaded) is FastSoftmax
        assert (loaded.C, loaded.objective_) == (clf.C_, clf.objective_)
        np.testing.assert_array_equal(loaded.predict_proba(iris[0]), clf.predict_proba(iris[0]))
