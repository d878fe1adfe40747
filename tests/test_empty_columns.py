"""Hashed text: most columns of sparse X have no entry, and cost nothing but zeros in `coef_`."""

import io
import pickle
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path, reference
from fastsoftmax._estimator.fitted import stored_coef
from fastsoftmax._streaming.moving import Linear, Moving, linear
from fastsoftmax.columns import InColumns
from fastsoftmax.shards.rows import build_shard

N_COLUMNS, N_FILLED = 1 << 16, 300
SOLVERS = {
    "lbfgs": {"solver": "lbfgs", "C": 5.0},
    "newton": {"solver": "newton-cholesky", "C": 5.0},
    "lasso": {"C": 5.0, "l1_ratio": 1.0},
    "elastic net": {"C": 5.0, "l1_ratio": 0.5, "standardize": True},
    "standardized": {"standardize": True, "C": 0.1},
    "sgd": {"solver": "sgd", "max_iter": 3, "learning_rate": 0.5, "momentum": 0.5},
    "no penalty": {"C": np.inf, "max_iter": 20, "fit_intercept": False},
    "numpy": {"C": 5.0, "backend": "numpy", "max_iter": 5},
}


def hashed(rng, n_classes=3, real=np.float64, n_rows=240, n_columns=N_COLUMNS, n_filled=N_FILLED):
    """(rows with 6 entries each, labels, the filled columns)."""
    columns = np.sort(rng.choice(n_columns, n_filled, replace=False))
    words = rng.integers(n_filled, size=(n_rows, 6))
    y = np.arange(n_rows) % n_classes
    words[:, 0] = y  # tells the class
    words[rng.random(n_rows) < 0.3, 0] = n_filled - 1
    values = 0.1 + rng.random(words.size)
    indptr = np.arange(0, words.size + 1, 6)
    X = sparse.csr_array((values, columns[words.ravel()], indptr), shape=(n_rows, n_columns))
    X.sum_duplicates()
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return X.astype(real), y, np.unique(X.indices)


def with_indices(X, index):
    """The matrix with indices of a type; scipy's constructors choose another."""
    X = X.copy()
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    return X


def fit(X, y, *args, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some fits are short
        return FastSoftmax(**{"random_state": 0, "n_jobs": 1, **parameters}).fit(X, y, *args)


def assert_same_fit(wide, narrow, filled):
    """To the last bit."""
    np.testing.assert_array_equal(wide.coef_[:, filled], narrow.coef_)
    assert not np.delete(wide.coef_, filled, axis=1).any()
    np.testing.assert_array_equal(wide.intercept_, narrow.intercept_)
    np.testing.assert_array_equal(wide.n_iter_, narrow.n_iter_)
    assert wide.gap_ == narrow.gap_
    np.testing.assert_equal(wide.objective_, narrow.objective_)
    for name, values in narrow.history_.items():
        if name != "seconds":
            assert wide.history_[name] == values


class TestFits:
    @pytest.mark.parametrize("name", SOLVERS)
    @pytest.mark.parametrize("n_classes", [2, 5])
    @pytest.mark.parametrize("index", [np.int32, np.int64])
    def test_are_those_on_the_filled_columns(self, rng, real, name, n_classes, index):
        n_filled = 40 if name == "newton" else N_FILLED
        X, y, filled = hashed(rng, n_classes, real, n_filled=n_filled)
        wide = fit(with_indices(X, index), y, **SOLVERS[name])
        assert_same_fit(wide, fit(X[:, filled], y, **SOLVERS[name]), filled)
        assert wide.coef_.shape[1] == wide.n_features_in_ == N_COLUMNS
        assert wide.coef_.dtype == real and wide.coef_.flags.c_contiguous

    def test_nothing_is_written_to(self, rng):
        X, y, _ = hashed(rng)
        before = X.copy()
        for array in (X.data, X.indices, X.indptr):
            array.flags.writeable = False
        fit(X, y).predict(X)
        np.testing.assert_array_equal(X.indices, before.indices)

    def test_the_minimum_is_that_of_all_columns(self, rng):
        """Dense rows of the same features are fitted to with all of them."""
        X, y, _ = hashed(rng, n_columns=2000, n_filled=60)
        sparse_fit, dense = fit(X, y, tol=1e-10), fit(X.toarray(), y, tol=1e-10)
        np.testing.assert_allclose(sparse_fit.coef_, dense.coef_, atol=1e-4)
        assert np.isclose(sparse_fit.objective_, dense.objective_, rtol=1e-8)

    def test_rows_in_part_of_the_arrays(self, rng):
        """What lies outside of indptr is not read."""
        X, y, _ = hashed(rng)
        expected = fit(X, y)
        padded = sparse.csr_array((240, N_COLUMNS))
        padded.data = np.concatenate([[0.5], X.data, [1.0]])
        padded.indices = np.concatenate([[5], X.indices, [7]]).astype(np.int32)
        padded.indptr = X.indptr + np.int32(1)
        np.testing.assert_array_equal(fit(padded, y).coef_, expected.coef_)

    @pytest.mark.parametrize("place", [-1, N_COLUMNS, 2**31 - 1, -(2**31)])
    def test_damaged_indices(self, rng, place):
        X, y, _ = hashed(rng)
        model = fit(X, y)
        X.indices[17] = place
        for call in (lambda: fit(X, y), lambda: model.predict(X), lambda: model.score(X, y)):
            with pytest.raises(ValueError, match="indices must lie in"):
                call()

    def test_no_entries_at_all(self):
        X = sparse.csr_array((6, 5000))
        model = fit(X, [0, 1, 2] * 2)
        assert not model.coef_.any() and model.converged_
        np.testing.assert_allclose(model.predict_proba(X), 1 / 3)

    def test_the_error_names_the_users_column(self, rng):
        X, y, filled = hashed(rng)
        X.data[X.indices == filled[0]] = 1.7e308
        with pytest.raises(ValueError, match=f"feature {filled[0]} of row"):
            fit(X, y)

    @pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
    def test_evaluation_sets_and_callbacks(self, rng, solver):
        X, y, filled = hashed(rng)
        others, _, _ = hashed(np.random.default_rng(5))
        others = sparse.csr_array(others + X)  # rows with entries in other columns, too
        seen = []

        def look(state):
            assert state.coef_.shape == (3, N_COLUMNS)
            seen.append(state.coef_[:, filled])

        def fitted(X, other):
            return FastSoftmax(solver=solver, max_iter=5, random_state=0, tol=1e-12, n_jobs=1).fit(
                X,
                y,
                eval_set=[(X[::2], y[::2]), (other, y)],
                callbacks=[look] if X.shape[1] == N_COLUMNS else [],
            )

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wide, narrow = fitted(X, others), fitted(X[:, filled], others[:, filled])
        losses = [np.array(model.history_.pop("eval_loss")) for model in (wide, narrow)]
        np.testing.assert_array_equal(*(loss[:, 0] for loss in losses))
        np.testing.assert_allclose(*(loss[:, 1] for loss in losses), rtol=1e-12)
        assert_same_fit(wide, narrow, filled)
        assert len(seen) == wide.n_iter_[0]
        np.testing.assert_array_equal(seen[-1], wide.coef_[:, filled])

    @pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
    def test_early_stopping(self, rng, solver):
        X, y, _ = hashed(rng)
        model = fit(X, y, solver=solver, early_stopping=True, max_iter=30, C=1e3)
        losses = [loss for (loss,) in model.history_["eval_loss"]]
        assert model.best_score_ == min(losses)
        assert model.coef_.shape == (3, N_COLUMNS)

    @pytest.mark.parametrize("form", ["as it is kept", "whole", "sparsified"])
    def test_warm_start_keeps_what_new_rows_lack(self, rng, form):
        """Of sgd, coefficients that no row of a second fit has must not be lost."""
        X, y, _ = hashed(rng)
        model = fit(X, y, solver="sgd", max_iter=2, warm_start=True, C=np.inf)
        before = model.coef_.copy()
        model = pickle.loads(pickle.dumps(fit(X, y, **model.get_params())))
        if form == "sparsified":
            model.sparsify()
        elif form == "whole":
            model.coef_ = model.coef_.copy()
        some = X.copy()
        lacking = np.unique(X.indices)[::2]
        some.data[np.isin(some.indices, lacking)] = 0.0
        some.eliminate_zeros()
        model.fit(some, y)
        np.testing.assert_array_equal(model.coef_[:, lacking], before[:, lacking])

    def test_warm_start_at_the_optimum(self, rng):
        X, y, _ = hashed(rng)
        model = fit(X, y, warm_start=True)
        assert model.fit(X, y).n_iter_[0] == 0

    def test_threads_change_no_bit(self, rng):
        X, y, _ = hashed(rng)
        one, three = fit(X, y), fit(X, y, n_jobs=3)
        np.testing.assert_array_equal(one.coef_, three.coef_)

    def test_memory(self, rng):
        """The whole coefficients would take 100 MB, and a fit several times that."""
        X, y, _ = hashed(rng, n_classes=12, n_columns=1 << 20)
        tracemalloc.start()
        try:
            model = fit(X, y)
            model.predict(X)
            model.save(io.BytesIO())
            assert tracemalloc.get_traced_memory()[1] < 30e6
            assert model.coef_.nbytes == 12 * 8 << 20
            assert tracemalloc.get_traced_memory()[1] < 130e6
        finally:
            tracemalloc.stop()


class TestSweeps:
    @pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
    def test_path(self, rng, l1_ratio):
        X, y, filled = hashed(rng)
        options = {"Cs": [0.1, 1.0], "l1_ratio": l1_ratio}
        wide, narrow = (fastsoftmax_path(x, y, **options) for x in (X, X[:, filled]))
        assert wide.coefs.shape == (2, 3, N_COLUMNS)
        np.testing.assert_array_equal(wide.coefs[..., filled], narrow.coefs)
        assert np.count_nonzero(wide.coefs) == np.count_nonzero(narrow.coefs)
        for name in ("intercepts", "gaps", "n_iter"):
            np.testing.assert_array_equal(getattr(wide, name), getattr(narrow, name))
        wide.coefs[0, 0, 0] = 1.0  # it is the caller's own

    @pytest.mark.parametrize("scoring", [None, "neg_log_loss", "balanced_accuracy"])
    @pytest.mark.parametrize("refit", [True, False])
    def test_cross_validation(self, rng, scoring, refit):
        X, y, filled = hashed(rng)
        wide, narrow = (
            FastSoftmaxCV([0.1, 1.0], cv=3, scoring=scoring, refit=refit).fit(x, y)
            for x in (X, X[:, filled])
        )
        np.testing.assert_array_equal(wide.scores_, narrow.scores_)
        assert "coefs_paths_" not in vars(wide)
        wide = pickle.loads(pickle.dumps(wide))
        np.testing.assert_array_equal(wide.coefs_paths_[..., filled], narrow.coefs_paths_)
        assert wide.coefs_paths_ is wide.coefs_paths_
        np.testing.assert_array_equal(wide.coef_[:, filled], narrow.coef_)
        np.testing.assert_array_equal(wide.predict_proba(X), narrow.predict_proba(X[:, filled]))

    def test_a_second_fit_replaces_the_paths(self, rng):
        X, y, filled = hashed(rng)
        model = FastSoftmaxCV([0.1, 1.0], cv=3).fit(X, y)
        assert model.coefs_paths_.shape == (3, 2, 3, N_COLUMNS)
        assert model.fit(X[:, filled], y).coefs_paths_.shape == (3, 2, 3, len(filled))
        assert model.fit(X, y).coefs_paths_.shape == (3, 2, 3, N_COLUMNS)

    def test_a_fold_that_lacks_a_class(self, rng):
        X, y, filled = hashed(rng)
        splits = [(np.flatnonzero(y < 2), np.flatnonzero(y == 2)), (np.arange(120), np.arange(240))]
        wide, narrow = (FastSoftmaxCV([1.0], cv=splits).fit(x, y) for x in (X, X[:, filled]))
        np.testing.assert_array_equal(wide.scores_, narrow.scores_)
        np.testing.assert_array_equal(wide.coefs_paths_[..., filled], narrow.coefs_paths_)

    def test_scorers_of_users_get_their_columns(self, rng):
        X, y, _ = hashed(rng)

        def score(estimator, rows, labels):
            assert rows.shape[1] == estimator.coef_.shape[1] == N_COLUMNS
            return estimator.score(rows, labels)

        ours = FastSoftmaxCV([1.0], cv=3).fit(X, y)
        np.testing.assert_array_equal(
            FastSoftmaxCV([1.0], cv=3, scoring=score).fit(X, y).scores_, ours.scores_
        )


class TestPrediction:
    @pytest.fixture(params=["as it is kept", "whole", "sparsified"])
    def models(self, request, rng):
        X, y, filled = hashed(rng)
        wide, narrow = fit(X, y), fit(X[:, filled], y)
        if request.param == "whole":
            assert wide.coef_ is wide.coef_
        elif request.param == "sparsified":
            wide.sparsify()
        return wide, narrow, X, y, filled

    @pytest.mark.parametrize("n_rows", [1, 240, 24000])
    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    def test_is_that_of_the_filled_columns(self, models, n_rows, temperature):
        wide, narrow, X, y, filled = models
        wide.temperature_ = narrow.temperature_ = temperature
        rows = np.resize(np.arange(240), n_rows)
        X, y = X[rows], y[rows]
        for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            np.testing.assert_array_equal(
                getattr(wide, name)(X), getattr(narrow, name)(X[:, filled])
            )
        assert wide.score(X, y) == narrow.score(X[:, filled], y)
        assert wide.evaluate(X, y) == narrow.evaluate(X[:, filled], y)

    def test_other_columns(self, models):
        """What the fit has not seen changes nothing, but is looked at."""
        wide, narrow, X, _, filled = models
        other = X.copy()
        other.indices[np.isin(other.indices, filled[::2])] = np.setdiff1d(range(9), filled)[0]
        expected = narrow.predict_proba(other[:, filled])
        np.testing.assert_allclose(wide.predict_proba(other), expected, rtol=1e-12)
        other.data[other.indices < 9] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            wide.predict_proba(other)

    def test_dense_rows(self, models):
        wide, narrow, X, _, filled = models
        np.testing.assert_allclose(
            wide.predict_proba(X[:20].toarray()), narrow.predict_proba(X[:20, filled].toarray())
        )

    def test_many_filled_columns(self, models, rng):
        wide = models[0]
        X = sparse.csr_array(rng.normal(size=(2, N_COLUMNS)))
        expected = X @ wide.densify().coef_.T + wide.intercept_
        np.testing.assert_allclose(wide.decision_function(X), expected)

    def test_assigned_coefficients_count(self, models):
        wide, _, X, _, _ = models
        wide.coef_ = np.zeros((3, N_COLUMNS))
        np.testing.assert_array_equal(np.ptp(wide.decision_function(X), axis=0), 0.0)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(wide)).coef_, wide.coef_)

    def test_changed_coefficients_count(self, models):
        wide, _, X, _, filled = models
        wide.densify()
        wide.coef_[:, filled] = 0.0
        np.testing.assert_array_equal(np.ptp(wide.decision_function(X), axis=0), 0.0)

    def test_threads_find_the_coefficients(self, rng):
        X, y, _ = hashed(rng)
        for _ in range(20):
            model, found = fit(X, y, max_iter=1), []
            threads = [
                threading.Thread(target=lambda m=model, f=found: f.append(m.coef_.shape))
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert found == [(3, N_COLUMNS)] * 4


class TestSteps:
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_columns_fill_later(self, rng, real, momentum):
        """As steps over the dense rows, but for the start of columns that the first batch lacks."""
        X, y, _ = hashed(rng, real=real, n_columns=3000)
        options = {"momentum": momentum, "random_state": 0, "n_jobs": 1, "batch_size": 10}
        model = FastSoftmax(**options)
        batches = [(X[i : i + 40], y[i : i + 40]) for i in range(0, 240, 40)]
        model.partial_fit(*batches[0], classes=range(3))
        dense = pickle.loads(pickle.dumps(model))
        dense.coef_ = dense.coef_.copy()
        for rows, labels in batches[1:]:
            model.partial_fit(rows, labels)
            dense.partial_fit(rows.toarray(), labels)
            assert isinstance(stored_coef(model), InColumns)
        np.testing.assert_allclose(model.coef_, dense.coef_, rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(model.intercept_, dense.intercept_, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("between", ["coef_", "sparsify", "pickle", "save", "nothing"])
    def test_go_on_from_every_form(self, rng, momentum, between):
        X, y, _ = hashed(rng)
        options = {"momentum": momentum, "random_state": 0, "n_jobs": 1}
        model, other = FastSoftmax(**options), FastSoftmax(**options)
        for start in range(0, 240, 60):
            rows = slice(start, start + 60)
            model.partial_fit(X[rows], y[rows], classes=range(3))
            other.partial_fit(X[rows], y[rows], classes=range(3))
            if between == "coef_":
                assert other.coef_.shape == (3, N_COLUMNS)
            elif between == "sparsify":
                other.sparsify()
            elif between == "pickle":
                other = pickle.loads(pickle.dumps(other))
            elif between == "save":
                file = io.BytesIO()
                other.save(file)
                other = FastSoftmax.load(file)
        np.testing.assert_array_equal(model.coef_, other.densify().coef_)

    def test_earlier_results_are_not_written_to(self, rng):
        X, y, _ = hashed(rng)
        model = FastSoftmax(momentum=0.5, random_state=0)
        model.partial_fit(X[:120], y[:120], classes=range(3))
        stored = stored_coef(model)
        before = stored.values.copy()
        model.partial_fit(X[:120], y[:120])
        np.testing.assert_array_equal(stored.values, before)

    def test_fit_to_batches(self, rng):
        X, y, filled = hashed(rng)

        def fitted(X):
            batches = [(X[60 * i : 60 * i + 60], y[60 * i : 60 * i + 60]) for i in range(4)]
            model = FastSoftmax(solver="sgd", max_iter=4, random_state=0, momentum=0.5, n_jobs=1)
            return model.fit(batches, eval_set=[(X, y)])

        wide = fitted(X)
        assert wide.coef_.shape == (3, N_COLUMNS)
        assert not np.delete(wide.coef_, filled, axis=1).any()
        assert wide.history_["loss"][-1] < wide.history_["loss"][0]
        narrow = fitted(X[:, filled])
        assert np.abs(wide.coef_[:, filled] - narrow.coef_).max() < 0.1  # their starts differ

    def test_velocity_stays_with_its_columns(self, rng):
        """Columns of a later batch join with 0, between those that have moved."""
        X, y, _ = hashed(rng, n_columns=3000)
        first, second = (
            build_shard(X[rows], y[rows].astype(np.int32), None, np.ones(20), 3, backend=reference)
            for rows in (slice(0, 20), slice(20, 40))
        )
        start = Linear(InColumns(np.zeros(1, np.intp), np.zeros((3, 1)), 3000), np.zeros(3))
        moving = Moving(start, None, first, with_velocity=True)
        moving.params[:] = rng.normal(size=len(moving.params))
        moving.velocity[:] = rng.normal(size=len(moving.params))
        before = [
            linear(v.copy(), moving.columns, (3, 3000)) for v in (moving.params, moving.velocity)
        ]
        moving.joined_by(second)
        for old, now in zip(before, (moving.params, moving.velocity), strict=True):
            new = linear(now, moving.columns, (3, 3000))
            assert len(new.weights.columns) > len(old.weights.columns)
            np.testing.assert_array_equal(new.weights.toarray(), old.weights.toarray())
            np.testing.assert_array_equal(new.bias, old.bias)
