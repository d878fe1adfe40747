"""FastSoftmax on sparse X: the same model as on the same numbers made dense."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sparse_rows import random_array

from fastsoftmax import FastSoftmax

CONTAINERS = [
    sparse.csr_array,
    sparse.csr_matrix,
    sparse.csc_array,
    sparse.coo_array,
    sparse.lil_matrix,
]


def problem(n_classes=4, n_rows=300, n_features=30, dtype=np.float64, seed=0):
    """Sparse rows (some empty, some columns too) and learnable labels."""
    rng = np.random.default_rng(seed)
    X = random_array((n_rows, n_features), density=0.2, rng=rng).toarray().astype(dtype)
    X[::17] = 0.0
    X[:, ::11] = 0.0
    logits = X @ rng.normal(size=(n_features, n_classes)) * 4 + rng.normal(size=(n_rows, n_classes))
    return X, logits.argmax(axis=1)


def exact(**parameters):
    return FastSoftmax(**{"tol": 1e-10, **parameters})


def assert_same(a, b, atol=1e-6):
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=0, atol=atol * np.abs(b.coef_).max())
    np.testing.assert_allclose(a.intercept_, b.intercept_, rtol=0, atol=atol * 10)


@pytest.fixture(params=[2, 4], ids=["two classes", "four"])
def data(request):
    return problem(request.param)


class TestFit:
    @pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
    def test_formats(self, data, container):
        X, y = data
        assert_same(exact().fit(container(X), y), exact().fit(X, y))

    @pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky"])
    @pytest.mark.parametrize("fit_intercept", [True, False])
    @pytest.mark.parametrize("backend", ["auto", "numpy"])
    def test_solvers(self, data, solver, fit_intercept, backend):
        X, y = data
        options = {"solver": solver, "fit_intercept": fit_intercept}
        model = exact(backend=backend, **options).fit(sparse.csr_array(X), y)
        assert_same(model, exact(**options).fit(X, y))
        assert model.converged_

    def test_against_scikit_learn(self, data):
        X, y = data
        weights = np.random.default_rng(1).integers(0, 4, len(y)).astype(float)
        theirs = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000)
        assert_same(exact().fit(sparse.csr_array(X), y, weights), theirs.fit(X, y, weights), 1e-5)

    def test_many_features(self):
        """Above the size of dense preconditioners."""
        X, y = problem(n_rows=200, n_features=3000)
        model = exact(C=0.1, tol=1e-8).fit(sparse.csr_array(X), y)
        theirs = LogisticRegression(C=0.1, solver="newton-cg", tol=1e-10, max_iter=1000).fit(X, y)
        assert model.converged_
        assert_same(model, theirs, 1e-3)

    @pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.bool_])
    def test_number_types(self, dtype):
        X, y = problem()
        X = (4 * X).astype(dtype)
        model = exact(tol=1e-6).fit(sparse.csr_array(X), y)
        dense = exact(tol=1e-10).fit(X.astype(np.float64), y)
        assert_same(model, dense, 2e-3)

    def test_int64_indices_duplicates_and_disorder(self, data):
        X, y = data
        whole = sparse.csr_array(X)
        halves = sparse.coo_array(
            (
                np.concatenate([whole.data * 0.25, whole.data * 0.75]),
                tuple(np.tile(c, 2).astype(np.int64) for c in whole.tocoo().coords),
            ),
            shape=X.shape,
        )
        order = np.argsort(halves.row, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(halves.row, minlength=len(y)))])
        doubled = sparse.csr_array(
            (halves.data[order], halves.col[order].astype(np.int64), indptr.astype(np.int64)),
            shape=X.shape,
        )
        assert not doubled.has_canonical_format
        before = doubled.data.copy(), doubled.indices.copy()
        assert_same(exact().fit(doubled, y), exact().fit(X, y))
        assert_same(exact(standardize=True).fit(doubled, y), exact(standardize=True).fit(X, y))
        np.testing.assert_array_equal(doubled.data, before[0])
        np.testing.assert_array_equal(doubled.indices, before[1])

    def test_read_only(self, data):
        X, y = sparse.csr_array(data[0]), data[1]
        for part in (X.data, X.indices, X.indptr):
            part.flags.writeable = False
        exact().fit(X, y)

    def test_eval_set_may_be_stored_otherwise(self, data):
        X, y = data
        model = exact().fit(sparse.csr_array(X), y, eval_set=[(X, y), (sparse.csc_array(X), y)])
        losses = np.array(model.history_["eval_loss"])
        np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-12)
        np.testing.assert_allclose(losses[-1, 0], model.history_["loss"][-1], rtol=1e-6)

    def test_threads_do_not_change_bits(self, data):
        X, y = data
        models = [exact(n_jobs=n).fit(sparse.csr_array(X), y) for n in (1, 2, 3)]
        for model in models[1:]:
            np.testing.assert_array_equal(model.coef_, models[0].coef_)

    def test_classes_without_a_weight(self, data):
        X, y = problem(4)
        weights = (y != 2).astype(float)
        model = exact().fit(sparse.csr_array(X), y, weights)
        assert_same(model, exact().fit(X[y != 2], y[y != 2]))

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("C", [1.0, np.inf])
    def test_sgd(self, data, momentum, C):
        X, y = data
        options = {
            "solver": "sgd", "max_iter": 5, "batch_size": 32, "random_state": 0, "C": C,
            "momentum": momentum,
        }  # fmt: skip
        sparse_model = FastSoftmax(**options).fit(sparse.csr_array(X), y)
        dense_model = FastSoftmax(**options).fit(X, y)
        assert_same(sparse_model, dense_model, 1e-9)
        np.testing.assert_allclose(sparse_model.history_["loss"], dense_model.history_["loss"])

    def test_sgd_standardized(self, data):
        """Scaled, but not shifted, for that would fill X."""
        X, y = data
        scaler = StandardScaler(with_mean=False)
        options = {"solver": "sgd", "random_state": 0, "batch_size": 16, "max_iter": 5}
        other = FastSoftmax(**options).fit(scaler.fit_transform(X), y)
        model = FastSoftmax(standardize=True, **options).fit(sparse.csr_array(X), y)
        np.testing.assert_allclose(model.coef_ * scaler.scale_, other.coef_, atol=1e-9)
        np.testing.assert_allclose(model.intercept_, other.intercept_, atol=1e-9)
        with pytest.raises(ValueError, match="fit_intercept"):
            FastSoftmax(standardize=True, fit_intercept=False, **options).fit(
                sparse.csr_array(X), y
            )


class TestPredict:
    @pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function",
                                        "predict_log_proba"])  # fmt: skip
    @pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
    def test_as_dense(self, data, method, container):
        X, y = data
        model = FastSoftmax().fit(X, y)
        expected = getattr(model, method)(X)
        actual = getattr(model, method)(container(X))
        if method == "predict":
            np.testing.assert_array_equal(actual, expected)
        else:
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)

    def test_the_rest(self, data):
        X, y = data
        model = FastSoftmax().fit(X, y)
        given = sparse.csr_array(X)
        assert model.score(given, y) == model.score(X, y)
        np.testing.assert_allclose(model.evaluate(given, y), model.evaluate(X, y), rtol=1e-12)
        for ours, theirs in zip(
            model.predict_topk(given, 2), model.predict_topk(X, 2), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)

    def test_a_row_alone(self, data):
        X, y = data
        model = FastSoftmax().fit(X, y)
        given = sparse.csr_array(X)
        together = model.predict_proba(given)
        for i in (0, 5, 299):
            np.testing.assert_array_equal(model.predict_proba(given[[i]])[0], together[i])

    def test_no_rows_stored(self, data):
        X, y = data
        model = FastSoftmax().fit(X, y)
        empty = sparse.csr_array((3, X.shape[1]))
        np.testing.assert_allclose(
            model.predict_proba(empty), model.predict_proba(np.zeros((3, 30)))
        )


class TestErrors:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, data, value):
        X, y = sparse.csr_array(data[0]), data[1]
        model = FastSoftmax().fit(X, y)
        X.data[7] = value
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            FastSoftmax().fit(X, y)
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            model.predict_proba(X)

    @pytest.mark.parametrize("bad", [-1, 30, 2**31 - 1])
    @pytest.mark.parametrize("stage", ["fit", "predict"])
    def test_damaged_indices(self, data, bad, stage):
        X, y = sparse.csr_array(data[0]), data[1]
        model = FastSoftmax().fit(X, y)
        X.indices[3] = bad
        with pytest.raises(ValueError):
            FastSoftmax().fit(X, y) if stage == "fit" else model.predict(X)

    def test_damaged_indptr(self, data):
        X, y = sparse.csr_array(data[0]), data[1]
        model = FastSoftmax().fit(X, y)
        X.indptr[5] = 2**30
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError):
                FastSoftmax().fit(X, y)
            with pytest.raises(ValueError):
                model.predict(X)
