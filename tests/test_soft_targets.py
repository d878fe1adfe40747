"""Targets that are probabilities of the classes, and label smoothing."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path

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
    off = probs * (1.0 + 5e-6)  # which rows are divided by
    before = off.copy()
    FastSoftmax().fit(X, off)
    np.testing.assert_array_equal(off, before)
    X.flags.writeable = probs.flags.writeable = off.flags.writeable = False
    FastSoftmax(class_weight="balanced").fit(X, probs)
    FastSoftmax().fit(X, off)


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


# ---- frames, sparse matrices, and sums that are off by rounding


@pytest.fixture
def names(n_classes):
    return ["wolf", "ant", "cat", "bee"][:n_classes]


@pytest.fixture
def frames(probs, names):
    """The same probabilities as frames, with columns in the order given."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pandas.DataFrame(probs, columns=names)
    return {
        "pandas": frame,
        "Float64": frame.astype("Float64"),
        "mixed types": frame.astype({names[0]: object, names[1]: "Float64"}),
        "in another order": frame[sorted(names)],
        "polars": polars.DataFrame(dict(zip(names, probs.T, strict=True))),
    }


def test_columns_name_the_classes(X, probs, frames, names):
    expected = FastSoftmax(tol=1e-10).fit(X, probs, classes=names)
    for frame in frames.values():
        model = FastSoftmax(tol=1e-10).fit(X, frame)
        assert model.classes_.tolist() == sorted(names)
        assert_same(model, expected)
    numbers = list(range(10, 10 + len(names)))
    model = FastSoftmax().fit(X, frames["pandas"], classes=numbers)
    assert model.classes_.tolist() == numbers


def test_columns_are_found_by_their_names(X, frames, names):
    """In batches, steps and evaluation sets, whatever their order is."""
    model = FastSoftmax(solver="sgd", max_iter=2, random_state=0)
    results = []
    for frame in frames.values():
        found = [clone(model).fit([(X, frame)], classes=c) for c in (None, names)]
        found += [
            clone(model).partial_fit(X, frame, c).partial_fit(X, frame) for c in (None, names)
        ]
        assert all(m.classes_.tolist() == sorted(names) for m in found)
        watched = FastSoftmax().fit(X, frame, eval_set=[(X, f) for f in frames.values()])
        results.append([*(m.coef_ for m in found), np.array(watched.history_["eval_loss"])])
        np.testing.assert_allclose(np.ptp(results[-1][-1], axis=1), 0.0, atol=1e-12)
    for others in results[1:]:
        for first, other in zip(results[0], others, strict=True):
            np.testing.assert_allclose(first, other, rtol=1e-9, atol=1e-12)


def test_columns_of_some_classes(X, n_classes, names):
    """As `pandas.get_dummies` makes of a batch that lacks a class."""
    pandas = pytest.importorskip("pandas")
    y = np.array(sorted(names))[np.arange(60) % n_classes]
    model = FastSoftmax(random_state=0).partial_fit(X, y, classes=names)
    rows = np.flatnonzero(np.isin(y, sorted(names)[:2]))
    by_labels = clone(model).partial_fit(X[rows], y[rows], classes=names)
    dummies = pandas.get_dummies(pandas.Series(y[rows]))
    by_columns = clone(model).partial_fit(X[rows], dummies, classes=names)
    np.testing.assert_allclose(by_columns.coef_, by_labels.coef_, rtol=1e-12)
    with pytest.raises(
        ValueError, match=r"the header of y holds a label that is none of the .*'z'"
    ):
        model.partial_fit(X, pandas.get_dummies(pandas.Series(["z", *y[1:]])))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32", "float64", "Int8", "boolean"])
def test_dummies(X, n_classes, dtype):
    pandas = pytest.importorskip("pandas")
    for labels in (["wolf", "ant", "cat", "bee"], [2**53, 2**53 + 1, 7, -1], [True, False]):
        y = pandas.Series([labels[i % min(n_classes, len(labels))] for i in range(60)])
        expected = FastSoftmax(tol=1e-10).fit(X, y)
        options = {"dtype": dtype} if dtype[0].islower() and dtype != "boolean" else {}
        dummies = pandas.get_dummies(y, **options).astype(dtype)
        for form in (dummies, dummies.iloc[:, ::-1]):
            model = FastSoftmax(tol=1e-10).fit(X, form)
            assert model.classes_.dtype == expected.classes_.dtype
            np.testing.assert_array_equal(model.classes_, expected.classes_)
            assert_same(model, expected)


def test_dummies_of_polars_and_default_names(X, probs, n_classes):
    polars = pytest.importorskip("polars")
    y = probs.argmax(axis=1)
    dummies = polars.DataFrame({"y": y.astype(str)}).to_dummies()
    model = FastSoftmax().fit(X, dummies)
    assert model.classes_.tolist() == [f"y_{k}" for k in range(n_classes)]
    plain = FastSoftmax().fit(X, polars.DataFrame(probs))
    assert plain.classes_.tolist() == list(range(n_classes))


def test_names_that_are_no_labels(X, n_classes):
    pandas = pytest.importorskip("pandas")
    one_hot = np.eye(n_classes)[np.arange(60) % n_classes]
    for names, error, match in (
        (["a"] * n_classes, ValueError, "different from each other"),
        ([None, *"abc"[: n_classes - 1]], ValueError, "header of y lacks a label in place 0"),
        ([7, *"abc"[: n_classes - 1]], TypeError, "labels of one type, got int and str"),
    ):
        frame = pandas.DataFrame(one_hot)
        frame.columns = pandas.Index(names, dtype=object)
        with pytest.raises(error, match=match):
            FastSoftmax().fit(X, frame)


@pytest.mark.parametrize(
    "storage", ["csr_array", "csc_array", "coo_array", "csr_matrix", "csc_matrix", "lil_matrix"]
)
def test_sparse_targets(X, probs, form, storage, n_classes):
    make = getattr(sparse, storage)
    one_hot = np.eye(n_classes)[probs.argmax(axis=1)]
    for dense in (probs, one_hot, one_hot.astype(np.uint8), one_hot.astype(bool)):
        y = make(dense)
        assert_same(FastSoftmax(tol=1e-10).fit(form(X), y), FastSoftmax(tol=1e-10).fit(X, dense))
        options = {"solver": "sgd", "max_iter": 2, "random_state": 0}
        results = [
            [
                FastSoftmax(**options).partial_fit(X, targets, range(n_classes)).coef_,
                FastSoftmax(**options).fit([(X, targets)]).coef_,
                FastSoftmax(**options).fit([(X, targets)], classes=range(n_classes)).coef_,
                FastSoftmax().fit(X, dense, eval_set=[(X, targets)]).history_["eval_loss"],
                FastSoftmax(early_stopping=True, random_state=0).fit(X, targets).coef_,
            ]
            for targets in (y, dense)
        ]
        for of_sparse, of_dense in zip(*results, strict=True):
            np.testing.assert_array_equal(of_sparse, of_dense)


@pytest.mark.parametrize(
    ("dtype", "error"), [(np.float16, 2e-3), (np.float32, 5e-5), (np.float64, 5e-6)]
)
def test_sums_are_off_by_the_rounding_of_their_type(X, probs, n_classes, dtype, error):
    off = (probs * (1.0 - error)).astype(dtype)
    normed = off / off.sum(axis=1, keepdims=True, dtype=np.float64)
    assert_same(FastSoftmax(tol=1e-10).fit(X, off), FastSoftmax(tol=1e-10).fit(X, normed))
    options = {"random_state": 0}
    first, second = (
        FastSoftmax(**options).partial_fit(X, y, range(n_classes)).coef_ for y in (off, normed)
    )
    np.testing.assert_allclose(first, second, rtol=1e-12)
    first, second = (
        FastSoftmax().fit(X, probs, eval_set=[(X, y)]).history_["eval_loss"][-1]
        for y in (off, normed)
    )
    assert first == pytest.approx(second, rel=1e-12)
    with pytest.raises(ValueError, match="must sum to 1 within"):
        FastSoftmax().fit(X, (probs * (1.0 - 6.0 * error)).astype(dtype))


def test_errors_name_the_row(X, probs):
    for spoilt, match in (
        (0.0, r"must sum to 1 within 1e-05, got a sum of 0.0 in row 5"),
        (-1.0, r"y must hold probabilities, got -.* in row 5"),
        (np.nan, r"y must hold probabilities, got nan in row 5"),
    ):
        bad = probs.copy()
        bad[5] *= spoilt
        for fit in (
            lambda y: FastSoftmax().fit(X, y),
            lambda y: FastSoftmax().fit(X, sparse.csr_array(y)),
            lambda y: FastSoftmax().partial_fit(X, y, classes=range(y.shape[1])),
            lambda y: FastSoftmax(solver="sgd").fit([(X, y)]),
            lambda y: FastSoftmax().fit(X, probs, eval_set=[(X, y)]),
        ):
            with pytest.raises(ValueError, match=match):
                fit(bad)
    with pytest.raises(ValueError, match="y lacks a probability in row 5"):
        FastSoftmax().fit(X, np.ma.array(probs, mask=np.isnan(bad)))


def test_a_row_of_weight_0_may_have_any_probabilities(X, probs):
    weights = np.where(np.arange(60) % 7 == 0, 0.0, 1.0)
    bad = np.where(weights[:, np.newaxis] > 0.0, probs, 0.0)
    model = FastSoftmax(tol=1e-10)
    expected = clone(model).fit(X, probs, weights)
    assert_same(model.fit(X, bad, weights), expected)
    model = FastSoftmax(solver="sgd", max_iter=2, random_state=0)
    first, second = (clone(model).fit([(X, y, weights)]).coef_ for y in (bad, probs))
    np.testing.assert_array_equal(first, second)


class TestScores:
    """Of rows of probabilities: log-loss against them, accuracy against the largest."""

    def test_of_a_model(self, X, probs, form, rng):
        weights = rng.uniform(0.0, 2.0, len(X))
        model = FastSoftmax(n_jobs=1).fit(form(X), probs)
        rows, labels, row_weights = as_rows_of_labels(X, probs, weights)
        found = model.evaluate(form(X), probs, weights)
        expected = model.evaluate(form(rows), labels, row_weights)
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        hits = model.predict(X) == probs.argmax(axis=1)
        assert found.accuracy == pytest.approx(np.average(hits, weights=weights))
        assert model.score(form(X), probs, weights) == found.accuracy
        assert model.score(X, sparse.csr_array(probs)) == pytest.approx(np.mean(hits))
        with pytest.raises(ValueError, match="y must have a column for each of"):
            model.score(X, np.full((len(X), 5), 0.2))
        with pytest.raises(ValueError, match=r"must hold probabilities .* sum of 2\.0"):
            model.evaluate(X, 2.0 * probs)

    def test_columns_are_found_by_their_names(self, X, probs, n_classes):
        pandas = pytest.importorskip("pandas")
        names = list("bdac")[:n_classes]
        frame = pandas.DataFrame(probs, columns=names)
        model = FastSoftmax(n_jobs=1).fit(X, frame)
        assert model.evaluate(X, frame[names[::-1]]) == model.evaluate(X, frame)
        sorted_columns = probs[:, np.argsort(names)]
        assert model.evaluate(X, sorted_columns) == model.evaluate(X, frame)

    def test_temperature(self, X, probs):
        model = FastSoftmax(n_jobs=1, C=100.0).fit(X[:30], probs[:30])
        before = model.evaluate(X[30:], probs[30:]).loss
        model.calibrate_temperature(X[30:], probs[30:])
        assert model.evaluate(X[30:], probs[30:]).loss < before

    def test_logits_that_overflow(self, X, probs, rng):
        X = X.astype(np.float32)
        model = FastSoftmax(n_jobs=1).fit(X, probs)
        X[::7] = 3e38 * np.sign(X[::7])
        rows, labels, row_weights = as_rows_of_labels(X, probs)
        found, expected = model.evaluate(X, probs), model.evaluate(rows, labels, row_weights)
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)  # (probabilities in float32)
        assert 1e30 < found.loss < np.inf

    def test_cross_val_score(self, X, probs):
        scores = cross_val_score(FastSoftmax(n_jobs=1), X, probs, cv=KFold(3))
        for score, (train, test) in zip(scores, KFold(3).split(X), strict=True):
            hits = FastSoftmax(n_jobs=1).fit(X[train], probs[train]).predict(X[test])
            assert score == pytest.approx(np.mean(hits == probs[test].argmax(axis=1)))


class TestSweep:
    def test_one_hot_targets_are_labels(self, X, probs, n_classes):
        y = probs.argmax(axis=1)
        options = {"Cs": [0.1, 1.0], "cv": 3, "scoring": "neg_log_loss", "n_jobs": 1, "tol": 1e-9}
        of_labels = FastSoftmaxCV(**options).fit(X, y)
        of_probs = FastSoftmaxCV(**options).fit(X, np.eye(n_classes)[y])
        np.testing.assert_allclose(of_probs.scores_, of_labels.scores_, rtol=1e-6)
        assert_same(of_probs, of_labels, 1e-4)
        path = fastsoftmax_path(X, np.eye(n_classes)[y], [0.1, 1.0], n_jobs=1)
        expected = fastsoftmax_path(X, y, [0.1, 1.0], n_jobs=1)
        np.testing.assert_allclose(path.coefs, expected.coefs, rtol=1e-2, atol=1e-2)

    @pytest.mark.parametrize("class_weight", [None, {0: 3.0}])
    @pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
    def test_scores_are_those_of_each_fold(self, X, probs, class_weight, scoring):
        options = {"class_weight": class_weight, "n_jobs": 1, "tol": 1e-9}
        splits = list(KFold(3).split(X))
        clf = FastSoftmaxCV([0.1, 1.0], cv=splits, scoring=scoring, **options).fit(X, probs)
        for scores, (train, test) in zip(clf.scores_, splits, strict=True):
            for score, C in zip(scores, clf.Cs_, strict=True):
                model = FastSoftmax(C=C, **options).fit(X[train], probs[train])
                loss, accuracy = model.evaluate(X[test], probs[test])
                assert score == pytest.approx(
                    accuracy if scoring == "accuracy" else -loss, abs=1e-6
                )
        loss, accuracy = clf.evaluate(X, probs)
        assert clf.score(X, probs) == (accuracy if scoring == "accuracy" else -loss)

    def test_folds_are_stratified_by_the_largest(self, X, probs, n_classes):
        order = np.argsort(probs.argmax(axis=1), kind="stable")
        clf = FastSoftmaxCV([1.0], cv=2, n_jobs=1).fit(X[order], probs[order])
        assert clf.scores_.min() > 1.0 / n_classes

    def test_a_callable_gets_rows_of_y(self, X, probs):
        seen = []

        def score(model, X, y):
            seen.append(y)
            return -model.evaluate(X, y).loss

        clf = FastSoftmaxCV([1.0], cv=KFold(2), scoring=score, n_jobs=1).fit(X, probs)
        np.testing.assert_allclose(np.concatenate(seen), probs)
        assert clf.score(X, probs) == -clf.evaluate(X, probs).loss

    def test_refusals(self, X, probs):
        with pytest.raises(ValueError, match="scoring='f1_macro' needs labels: where y holds prob"):
            FastSoftmaxCV([1.0], cv=2, scoring="f1_macro").fit(X, probs)
        probs[:, 0], probs[:30, 1:] = (
            0.0,
            probs[:30, 1:] / probs[:30, 1:].sum(axis=1)[:, np.newaxis],
        )
        probs[30:] = 1.0 / probs.shape[1]
        with pytest.raises(ValueError, match="split 1 of cv give no probability to class 0: pass"):
            FastSoftmaxCV([1.0], cv=KFold(2)).fit(X, probs)
