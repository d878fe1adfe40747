"""FastSoftmaxCV against FastSoftmax on copies of rows and scikit-learn's."""

import inspect
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import get_scorer, log_loss, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sparse_rows import random_array

from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax._sweep.folds import Fold

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


def folds_by_copies(X, y, Cs, splits, weights=None, scoring="accuracy", **options):
    """Scores and models of FastSoftmax fitted to copies of the rows of each fold."""
    scores, models = [], []
    for train, test in splits:
        some, held = (None, None) if weights is None else (weights[train], weights[test])
        models.append(
            [FastSoftmax(C, tol=TOL, n_jobs=1, **options).fit(X[train], y[train], some) for C in Cs]
        )
        given = {} if held is None else {"sample_weight": held}
        scorer = get_scorer(scoring)
        scores.append([scorer(model, X[test], y[test], **given) for model in models[-1]])
    return np.array(scores), models


class TestAgainstCopies:
    @pytest.mark.parametrize("data", ["iris", "digits", "two classes"])
    @pytest.mark.parametrize("weighted", [False, True], ids=["", "sample_weight"])
    @pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
    @pytest.mark.parametrize("standardize", [False, True], ids=["", "standardize"])
    def test_folds(self, iris, digits, data, weighted, scoring, standardize):
        X, y = digits if data == "digits" else iris
        y = np.array(["a", "b"])[(y > 0).astype(int)] if data == "two classes" else y
        weights = np.random.default_rng(0).integers(0, 4, len(y)).astype(float)
        weights = weights if weighted else None
        model = FastSoftmaxCV(
            CS, cv=3, scoring=scoring, standardize=standardize, tol=TOL, n_jobs=1
        ).fit(X, y, weights)
        splits = StratifiedKFold(3).split(X, y)
        scores, models = folds_by_copies(
            X, y, CS, splits, weights, scoring, standardize=standardize
        )
        np.testing.assert_allclose(model.scores_, scores, rtol=1e-4, atol=1e-9)
        for i in range(3):
            for j in range(3):
                coef = models[i][j].coef_
                scale = np.abs(coef).max()
                np.testing.assert_allclose(
                    model.coefs_paths_[i, j], coef, rtol=0, atol=1e-3 * scale
                )
        assert model.best_index_ == model.scores_.mean(axis=0).argmax()
        assert CS[model.best_index_] == model.C_
        assert model.n_iter_.shape == model.gaps_.shape == (3, 3)
        best = FastSoftmax(model.C_, standardize=standardize, tol=TOL, n_jobs=1).fit(X, y, weights)
        np.testing.assert_allclose(
            model.coef_, best.coef_, rtol=0, atol=1e-3 * np.abs(best.coef_).max()
        )
        assert model.converged_
        assert model.gap_ <= TOL
        np.testing.assert_array_equal(model.predict(X), best.predict(X))

    @pytest.mark.parametrize("dtype", [np.float32, np.uint8])
    def test_number_types(self, digits, dtype):
        X, y = (digits[0] * 16.0).astype(dtype), digits[1]
        model = FastSoftmaxCV(CS, cv=3, input_scale=1 / 16, n_jobs=1).fit(X, y)
        plain = FastSoftmaxCV(CS, cv=3, n_jobs=1).fit(*digits)
        assert model.coef_.dtype == model.coefs_paths_.dtype == np.float32
        np.testing.assert_allclose(model.scores_, plain.scores_, atol=0.02)

    @pytest.mark.parametrize("standardize", [False, True])
    def test_sparse(self, digits, standardize):
        X, y = digits
        X = np.where(X > 0.5, X, 0.0)
        options = {"cv": 3, "scoring": "neg_log_loss", "tol": TOL, "standardize": standardize}
        dense = FastSoftmaxCV(CS, **options, n_jobs=1).fit(X, y)
        thin = FastSoftmaxCV(CS, **options, n_jobs=1).fit(sparse.csr_array(X), y)
        np.testing.assert_allclose(thin.scores_, dense.scores_, rtol=1e-4)
        assert thin.C_ == dense.C_

    def test_wide(self):
        """More features than a dense preconditioner is made for."""
        rng = np.random.default_rng(0)
        X = random_array((200, 3000), density=0.02, rng=rng, format="csr")
        y = np.asarray(X[:, :60].sum(axis=1) > X[:, 60:120].sum(axis=1)).astype(int)
        model = FastSoftmaxCV(CS, cv=3, scoring="neg_log_loss", tol=1e-8, n_jobs=1).fit(X, y)
        scores, _ = folds_by_copies(
            X, y, CS, StratifiedKFold(3).split(X, y), scoring="neg_log_loss"
        )
        np.testing.assert_allclose(model.scores_, scores, rtol=1e-3)

    def test_one_number_of_threads_is_as_good_as_another(self, digits):
        one, two = (FastSoftmaxCV(CS, cv=3, n_jobs=n).fit(*digits) for n in (1, 2))
        np.testing.assert_array_equal(one.coefs_paths_, two.coefs_paths_)
        np.testing.assert_array_equal(one.scores_, two.scores_)

    def test_no_start_knows_of_the_rows_left_out(self, digits):
        """Where tol is so loose that any start would do, it is what the training rows say."""
        X, y = digits
        train = y > np.arange(600) % 5
        model = FastSoftmaxCV(CS, cv=[(train, ~train)], tol=1e9, n_jobs=1).fit(X, y)
        assert not model.n_iter_.any()
        assert not model.coefs_paths_.any()
        share = np.bincount(y[train])[1:] / train.sum()  # class 0 is not in training
        found = np.exp(model.intercepts_paths_[0, 0, 1:])
        np.testing.assert_allclose(found / found.sum(), share, rtol=1e-12)

    def test_no_start_knows_of_them_where_all_classes_are_there(self, digits, rng):
        X, y = digits
        train = rng.random(len(y)) < 0.7 - 0.04 * y
        model = FastSoftmaxCV(CS, cv=[(train, ~train)], tol=1e9, n_jobs=1).fit(X, y)
        assert not model.n_iter_.any()
        for intercept in model.intercepts_paths_[0]:
            found = np.exp(intercept)
            share = np.bincount(y[train]) / train.sum()
            np.testing.assert_allclose(found / found.sum(), share, rtol=1e-12)

    def test_coefficients_of_two_classes_of_three(self):
        """Two logits whose difference is the one that was fitted."""
        present = np.array([True, False, True])
        fold = Fold(None, present, np.arange(2), None, 1.0, 0.0)
        weights, bias = fold.expanded(np.array([[1.0, -4.0]]), np.array([0.5]))
        np.testing.assert_array_equal(weights[2] - weights[0], [1.0, -4.0])
        assert bias[2] - bias[0] == 0.5 and bias[1] == -np.inf


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("data", ["iris", "digits", "two classes"])
    @pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
    @pytest.mark.parametrize("class_weight", [None, "balanced"])
    def test_scores_and_choice(self, iris, digits, data, scoring, class_weight):
        X, y = digits if data == "digits" else iris
        X, y = X[y < 4], y[y < 4]  # theirs takes minutes for more classes
        y = y > 0 if data == "two classes" else y
        options = {"Cs": CS, "cv": 3, "scoring": scoring, "class_weight": class_weight}
        # not newton-cholesky: scikit-learn 1.6 scores its models of more than two classes wrongly
        theirs = LogisticRegressionCV(**options, solver="newton-cg", tol=1e-9)
        if "use_legacy_attributes" in inspect.signature(LogisticRegressionCV).parameters:
            theirs.set_params(use_legacy_attributes=True, l1_ratios=(0,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs.fit(X, y)
        ours = FastSoftmaxCV(**options, tol=1e-12, n_jobs=1).fit(X, y)
        their_scores = next(iter(theirs.scores_.values())).reshape(3, 3)
        np.testing.assert_allclose(ours.scores_, their_scores, rtol=1e-4, atol=1e-9)
        assert theirs.C_[0] == ours.C_
        assert ours.Cs_.tolist() == list(theirs.Cs_)
        scale = np.abs(theirs.coef_).max()
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-3 * scale)


class TestFolds:
    def test_without_refit(self, iris):
        model = FastSoftmaxCV(CS, refit=False, n_jobs=1).fit(*iris)
        best = model.best_index_
        np.testing.assert_array_equal(model.coef_, model.coefs_paths_[:, best].mean(axis=0))
        np.testing.assert_array_equal(
            model.intercept_, model.intercepts_paths_[:, best].mean(axis=0)
        )
        assert model.gap_ == model.gaps_[:, best].max()
        assert model.score(*iris) > 0.9

    def test_a_class_that_a_fold_lacks(self, iris):
        X, y = iris
        kept = (y != 2) | (np.arange(150) % 2 == 0)
        splits = [(np.flatnonzero(y != 2), np.flatnonzero(y == 2)), (kept, ~kept)]
        model = FastSoftmaxCV(CS, cv=splits, tol=TOL, n_jobs=1).fit(X, y)
        assert (model.scores_[0] == 0.0).all()
        assert np.isneginf(model.intercepts_paths_[0, :, 2]).all()
        assert (model.coefs_paths_[0, :, 2] == 0.0).all()
        pair = FastSoftmax(1.0, tol=TOL, n_jobs=1).fit(X[y != 2], y[y != 2])
        np.testing.assert_allclose(
            model.coefs_paths_[0, 1, 1] - model.coefs_paths_[0, 1, 0], pair.coef_[0], rtol=1e-5
        )
        assert np.isfinite(model.coef_).all()
        assert np.isfinite(model.intercept_).all()
        assert model.score(X, y) > 0.9
        by_hand = make_scorer(
            log_loss, response_method="predict_proba", greater_is_better=False, labels=[0, 1, 2]
        )
        for scoring in ("neg_log_loss", by_hand):
            scored = clone(model).set_params(scoring=scoring).fit(X, y)
            np.testing.assert_allclose(scored.scores_[0], np.log(np.finfo(float).eps))
        mean = clone(model).set_params(refit=False).fit(X, y)
        assert set(mean.predict(X)) == {0, 1}

    def test_four_classes_of_which_a_fold_has_three(self, digits):
        X, y = digits
        X, y = X[y < 4], y[y < 4]
        splits = [(y > 0, y >= 0), *StratifiedKFold(2).split(X, y)]
        model = FastSoftmaxCV(CS, cv=splits, tol=TOL, n_jobs=1).fit(X, y)
        three = FastSoftmax(1.0, tol=TOL, n_jobs=1).fit(X[y > 0], y[y > 0])
        np.testing.assert_allclose(
            model.coefs_paths_[0, 1, 1:], three.coef_, atol=1e-3 * np.abs(three.coef_).max()
        )
        assert model.scores_[0, 1] == np.mean(three.predict(X) == y)

    def test_a_class_without_weight(self, iris):
        X, y = iris
        weights = (y != 2).astype(float)
        model = FastSoftmaxCV(CS, cv=3, tol=TOL, n_jobs=1).fit(X, y, weights)
        assert model.classes_.tolist() == [0, 1]
        assert model.coefs_paths_.shape == (3, 3, 1, 4)
        assert (model.scores_ == 1.0).all()
        by_class = FastSoftmaxCV(CS, cv=3, class_weight={2: 0.0}, n_jobs=1).fit(X, y)
        assert by_class.classes_.tolist() == [0, 1]
        assert (by_class.scores_ < 0.7).all()  # rows of the class count as wrong

    def test_rows_that_occur_twice(self, iris):
        X, y = iris
        rng = np.random.default_rng(0)
        train, test = rng.integers(0, 150, 150), rng.integers(0, 150, 70)
        model = FastSoftmaxCV(CS, cv=[(train, test)], tol=TOL, n_jobs=1).fit(X, y)
        scores, _ = folds_by_copies(X, y, CS, [(train, test)])
        np.testing.assert_allclose(model.scores_, scores)

    def test_splitters(self, iris):
        X, y = iris
        groups = np.arange(150) % 7
        for cv in (KFold(4, shuffle=True, random_state=0), ShuffleSplit(2, random_state=0)):
            model = FastSoftmaxCV([1.0], cv=cv, tol=TOL, n_jobs=1).fit(X, y)
            scores = cross_val_score(FastSoftmax(tol=TOL, n_jobs=1), X, y, cv=cv)
            np.testing.assert_allclose(model.scores_[:, 0], scores)
        model = FastSoftmaxCV([1.0], cv=GroupKFold(3), tol=TOL, n_jobs=1)
        model.fit(X, y, groups=groups)
        scores = cross_val_score(
            FastSoftmax(tol=TOL, n_jobs=1), X, y, cv=GroupKFold(3), groups=groups
        )
        np.testing.assert_allclose(model.scores_[:, 0], scores)

    @pytest.mark.parametrize("size", [1e-300, 1e300])
    def test_weights_of_any_size(self, iris, size):
        plain = FastSoftmaxCV(CS, cv=3, n_jobs=1).fit(*iris)
        Cs = np.array(CS) / size
        model = FastSoftmaxCV(Cs, cv=3, n_jobs=1).fit(*iris, np.full(150, size))
        np.testing.assert_allclose(model.scores_, plain.scores_, rtol=1e-6)


class TestScoring:
    @pytest.mark.parametrize(
        "scoring", ["balanced_accuracy", "roc_auc_ovr", "f1_macro", "neg_brier_score"]
    )
    @pytest.mark.parametrize("weighted", [False, True])
    def test_scorers(self, iris, scoring, weighted):
        X, y = iris[0], np.array(["a", "b", "c"])[iris[1]]
        try:
            get_scorer(scoring)(FastSoftmax().fit(X, y), X, y)
        except ValueError:
            pytest.skip("this scikit-learn scores two classes only with it")
        weights = np.arange(150) % 4 + 0.5 if weighted else None
        model = FastSoftmaxCV(CS, cv=3, scoring=scoring, tol=TOL, n_jobs=1).fit(X, y, weights)
        splits = StratifiedKFold(3).split(X, y)
        scores, _ = folds_by_copies(X, y, CS, splits, weights, scoring)
        np.testing.assert_allclose(model.scores_, scores, rtol=1e-4, atol=1e-6)
        assert model.score(X, y) == get_scorer(scoring)(model, X, y)

    @pytest.mark.parametrize("scoring", ["neg_brier_score", "log loss"])
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_rows_left_out_that_lack_a_class(self, iris, scoring, n_classes):
        """Their metric is told of the classes, where it can be."""
        X, y = iris[0], np.array(["a", "b", "c"])[iris[1] % n_classes]
        if scoring == "log loss":
            scoring = make_scorer(
                log_loss, greater_is_better=False, response_method="predict_proba"
            )
        else:
            metric = get_scorer(scoring)._score_func
            if "labels" not in inspect.signature(metric).parameters:
                pytest.skip("this metric cannot be told of classes")
        left_out = [np.flatnonzero(y == "a")[:20], np.flatnonzero(y == "b")[:20]]
        splits = [(np.setdiff1d(np.arange(150), rows), rows) for rows in left_out]
        model = FastSoftmaxCV([1.0], cv=splits, scoring=scoring, tol=TOL, n_jobs=1).fit(X, y)
        for i, (train, rows) in enumerate(splits):
            fold = FastSoftmax(1.0, tol=TOL, n_jobs=1).fit(X[train], y[train])
            truth, probs = (
                (y[rows, None] == model.classes_).astype(float),
                fold.predict_proba(X[rows]),
            )
            if scoring == "neg_brier_score":
                halved = 0.5 if n_classes == 2 else 1.0
                expected = -halved * np.square(probs - truth).sum(axis=1).mean()
            else:
                expected = np.log((probs * truth).sum(axis=1)).mean()
            assert model.scores_[i, 0] == pytest.approx(expected, rel=1e-4)

    def test_a_function(self, iris):
        def scorer(estimator, X, y):
            assert X.shape == (50, 4)
            return -np.abs(estimator.coef_).sum()

        model = FastSoftmaxCV(CS, cv=3, scoring=scorer, n_jobs=1).fit(*iris)
        assert model.best_index_ == 0

    def test_what_is_no_number(self, iris):
        def scorer(estimator, X, y):
            return np.nan if np.abs(estimator.coef_).sum() < 2.0 else 1.0

        model = FastSoftmaxCV(CS, scoring=scorer, n_jobs=1).fit(*iris)
        assert model.best_index_ > 0
        with pytest.raises(ValueError, match="scoring must return numbers"):
            FastSoftmaxCV(CS, scoring=lambda *args: np.nan, n_jobs=1).fit(*iris)

    def test_one_standard_error(self, digits):
        Cs = np.logspace(-4, 4, 7)
        best = FastSoftmaxCV(Cs, n_jobs=1).fit(*digits)
        model = FastSoftmaxCV(Cs, one_standard_error=True, n_jobs=1).fit(*digits)
        means, i = best.scores_.mean(axis=0), best.best_index_
        least = means[i] - best.scores_[:, i].std(ddof=1) / np.sqrt(5)
        assert model.best_index_ == np.flatnonzero(means >= least)[0] < i

    def test_score_method(self, iris):
        model = FastSoftmaxCV(CS, scoring="neg_log_loss", n_jobs=1).fit(*iris)
        weights = np.arange(150) % 3
        assert model.score(*iris) == pytest.approx(-log_loss(iris[1], model.predict_proba(iris[0])))
        assert model.score(*iris, weights) == pytest.approx(
            -log_loss(iris[1], model.predict_proba(iris[0]), sample_weight=weights)
        )


def test_no_copy_of_X():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (40_000, 100), dtype=np.uint8)
    y = X[:, :3].argmax(axis=1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    FastSoftmaxCV([1e-4, 1e-2], input_scale=1 / 255, tol=1e-2, n_jobs=1).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    # numbers for each row and fold; a copy of X would be 4 MB in bytes, 16 as floats
    per_row = 40_000 * 5 * (4 + 4 + 8) + 40_000 * 40
    assert peak < per_row + 3.5e6
