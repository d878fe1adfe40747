"""The elastic net: against scikit-learn's saga, its certificate, and coefficients of exactly 0."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version
from sparse_rows import random_array

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path, reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum.working_set import Subset
from fastsoftmax.problem import elastic_net
from fastsoftmax.problem.centered_pass import CenteredPass
from fastsoftmax.problem.elastic_net import DualPoint
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard

# scikit-learn before 1.8 heeds l1_ratio only so
NAMED = parse_version(sklearn.__version__) < parse_version("1.8")
SAGA = {"penalty": "elasticnet"} if NAMED else {}
LOADERS = {"two classes": load_breast_cancer, "iris": load_iris, "wine": load_wine}


def saga(X, y, weights=None, **options):
    model = LogisticRegression(
        solver="saga", tol=1e-10, max_iter=20_000, random_state=0, **SAGA, **options
    )
    return model.fit(X, y, weights)


def fit(X, y, weights=None, C=1.0, l1_ratio=1.0, tol=1e-9, **options):
    return FastSoftmax(C, l1_ratio=l1_ratio, tol=tol, **options).fit(X, y, weights)


def value(model, X, y, C, l1_ratio, weights=None, scale=1.0):
    """F in float64, scale being what coefficients are penalised times."""
    X = X.toarray() if sparse.issparse(X) else np.asarray(X, dtype=np.float64)
    W, b = model.coef_.astype(np.longdouble), model.intercept_.astype(np.longdouble)
    logits = (X.astype(np.longdouble) @ W.T + b).astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    of_label = logits[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    losses = np.logaddexp.reduce(logits, axis=1) - of_label
    weights = np.ones(len(y)) if weights is None else weights
    V = W.astype(np.float64) * scale
    penalty = l1_ratio * np.abs(V).sum() + 0.5 * (1.0 - l1_ratio) * (V * V).sum()
    return float((weights @ losses + penalty / C) / weights.sum())


@pytest.fixture
def rows(rng):
    """300 rows of 8 features, 3 of which matter, in 4 classes."""
    X = rng.normal(size=(300, 8))
    return X, (X[:, :4] * [2, 1, 1, 0] + rng.normal(size=(300, 4))).argmax(axis=1)


@pytest.fixture(params=[1.0, 0.5])
def l1_ratio(request):
    return request.param


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("name", LOADERS)
    @pytest.mark.parametrize("fit_intercept", [True, False])
    def test_coefficients(self, name, l1_ratio, fit_intercept):
        X, y = LOADERS[name](return_X_y=True)
        X = StandardScaler().fit_transform(X)
        options = {"C": 0.05, "l1_ratio": l1_ratio, "fit_intercept": fit_intercept}
        ours, theirs = fit(X, y, tol=1e-10, **options), saga(X, y, **options)
        assert ours.converged_ and ours.coef_.shape == theirs.coef_.shape
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-5)
        intercepts = ours.intercept_, theirs.intercept_
        if len(intercepts[0]) > 1:  # what all have in common changes nothing
            intercepts = tuple(intercept - intercept.mean() for intercept in intercepts)
        np.testing.assert_allclose(*intercepts, atol=2e-5)
        # each exact zero is one of theirs, and some are
        assert np.array_equal(ours.coef_ == 0.0, np.abs(theirs.coef_) < 1e-6)
        assert (ours.coef_ == 0.0).any()

    def test_weights_standardize_and_csr(self, rows, l1_ratio, rng):
        X, y = rows
        weights = rng.uniform(0.0, 2.0, len(y))
        X[np.abs(X) < 0.5] = 0.0
        X[:, 1] *= 100.0
        scaled = StandardScaler().fit_transform(X, sample_weight=weights)
        theirs = saga(scaled, y, weights, C=0.1, l1_ratio=l1_ratio)
        for rows_ in (X, sparse.csr_array(X), sparse.csc_array(X)):
            ours = fit(rows_, y, weights, C=0.1, l1_ratio=l1_ratio, standardize=True)
            deviation = np.sqrt(np.average((X - np.average(X, 0, weights)) ** 2, 0, weights))
            np.testing.assert_allclose(ours.coef_ * deviation, theirs.coef_, atol=2e-5)

    def test_a_path_of_c(self, l1_ratio):
        X, y = load_digits(return_X_y=True)
        X, y = X[:500] / 16.0, y[:500]
        for C, n_most in [(0.1, 200), (1.0, 640)]:
            ours, theirs = fit(X, y, C=C, l1_ratio=l1_ratio), saga(X, y, C=C, l1_ratio=l1_ratio)
            best = value(ours, X, y, C, l1_ratio)
            assert best <= value(theirs, X, y, C, l1_ratio) * (1.0 + 1e-9)
            assert ours.objective_ == pytest.approx(best, rel=1e-12)
            assert 0 < np.count_nonzero(ours.coef_) < n_most


class TestCertificate:
    """The gap is never below the true one, which a fit to more digits tells."""

    @pytest.mark.parametrize("real", [np.float64, np.float32])
    @pytest.mark.parametrize("kind", ["plain", "scales", "offset", "duplicates", "no intercept"])
    def test_truth(self, rows, kind, real, l1_ratio):
        X, y = rows
        if kind == "scales":
            X = X * np.logspace(-4, 4, 8)
        elif kind == "offset":
            X = X + 1e4
        elif kind == "duplicates":
            X = np.hstack([X, X])
        X = X.astype(real)
        exact = X.astype(np.float64)
        options = {"C": 3.0, "l1_ratio": l1_ratio, "fit_intercept": kind != "no intercept"}
        centered = exact - exact.mean(axis=0) if options["fit_intercept"] else exact
        best = fit(centered, y, tol=2e-11, max_iter=5000, **options)
        for tol in (1e-1, 1e-2, 1e-4, 1e-6):
            with warnings.catch_warnings():  # what float32 coefficients can hold
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = fit(X, y, tol=tol, **options)
            reached = value(model, exact, y, 3.0, l1_ratio)
            assert model.objective_ == pytest.approx(reached, rel=1e-6 + 1e-2 * tol)
            true = (reached - best.objective_) / reached
            assert true <= model.gap_ + 2e-11
            assert model.converged_ == (model.gap_ <= tol)
            assert model.converged_ or (kind == "offset" and real == np.float32)

    @pytest.mark.parametrize("n_classes", [2, 4])
    @pytest.mark.parametrize("fit_intercept", [True, False])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_bound_anywhere(self, rng, n_classes, fit_intercept, smoothing, l1_ratio):
        X, probs = rng.normal(size=(40, 5)) + 1.0, rng.dirichlet(np.ones(n_classes), 40)
        weights = rng.uniform(0.5, 1.5, 40)
        shard = build_shard(
            X, None, probs, weights / weights.mean(), n_classes, backend=reference,
            label_smoothing=smoothing,
        )  # fmt: skip
        problem = build_problem(
            Rows([shard]), 0.01 * (1 - l1_ratio), l1=0.01 * l1_ratio, fit_intercept=fit_intercept
        )
        model = FastSoftmax(
            1 / (0.01 * weights.sum()), l1_ratio=l1_ratio, fit_intercept=fit_intercept,
            label_smoothing=smoothing, tol=1e-12, backend="numpy", max_iter=3000,
        ).fit(X, probs, weights)  # fmt: skip
        point = problem.coordinates.point_of(model.coef_, model.intercept_)
        for objective in (
            SoftmaxObjective(problem),
            SoftmaxObjective(problem, CenteredPass(problem)),
        ):
            for size in (0.0, 0.01, 0.1, 1.0):
                at = objective.evaluate(point + size * rng.normal(size=len(point)))
                bound = objective.gap_bound(at)
                assert bound >= at.value - model.objective_ - 1e-11
            at = objective.evaluate(point)
            assert objective.gap_bound(at) <= 1e-5 * at.value

    def test_best_share(self, rng):
        """The share of the targets is the best of a fine grid."""
        size, l1 = rng.exponential(size=(3, 50)), 0.7
        for l2, chord in [(1e-3, 1.0), (1.0, 5.0), (100.0, 0.01), (0.0, 1.0), (1.0, -1.0)]:
            shares = np.linspace(0.0, 1.0, 100_001)
            if l2 > 0.0:
                over = [np.maximum(s * size - l1, 0.0) for s in shares[::100]]
                beyond = np.array([(part**2).sum() for part in over]) / (2 * l2)
                bounds = 2.0 + (1.0 - shares[::100]) * chord + beyond
            else:
                bounds = 2.0 + (1.0 - shares[shares * size.max() <= l1]) * chord
            found = elastic_net.gap_bound(DualPoint(2.0, chord, 0.0, size), l1, l2)
            assert max(bounds.min(), 0.0) * (1 - 1e-2) <= found <= max(bounds.min(), 0.0) + 1e-9

    def test_what_is_not_finite_certifies_nothing(self):
        size = np.array([[np.nan, 1.0]])
        assert elastic_net.gap_bound(DualPoint(1.0, 1.0, 0.0, size), 0.1, 0.0) == np.inf

    def test_few_iterations_are_told(self, rows):
        X, y = rows
        with pytest.warns(ConvergenceWarning, match="max_iter=3 iterations"):
            model = fit(X, y, max_iter=3)
        assert not model.converged_ and model.gap_ > 1e-9 and model.n_iter_[0] == 3
        best = fit(X, y, tol=1e-12)
        assert 1 - best.objective_ / model.objective_ <= model.gap_ <= 1.0


class TestZeros:
    def test_all_of_them(self, rows, l1_ratio):
        X, y = rows
        model = fit(X, y, C=1e-6, l1_ratio=l1_ratio)
        assert not model.coef_.any()
        assert model.n_iter_[0] == 0 and model.gap_ <= 1e-12 and model.converged_
        shares = np.bincount(y) / len(y)
        np.testing.assert_allclose(model.predict_proba(X[:1])[0], shares, rtol=1e-12)

    def test_where_the_first_feature_enters(self, rows):
        X, y = rows
        shares = np.bincount(y) / len(y)
        grad = ((shares - np.eye(4)[y]).T @ X) / len(y)
        C = 1.0 / (len(y) * np.abs(grad).max())
        assert not fit(X, y, C=0.999 * C).coef_.any()
        entered = fit(X, y, C=1.001 * C).coef_ != 0.0
        assert entered.sum() == 1 and entered.ravel()[np.abs(grad).argmax()]

    def test_unscaled_features(self, rows):
        X, y = rows
        scales = np.logspace(-4, 4, 8)
        model = fit(X * scales, y, C=10.0, tol=1e-8)
        assert model.converged_
        assert not model.coef_[:, 0].any()  # it would need coefficients of 1e4
        assert model.coef_[:, 4].any()
        standardized = fit(X * scales, y, C=10.0, tol=1e-8, standardize=True)
        plain = fit(X, y, C=10.0, tol=1e-8, standardize=True)
        np.testing.assert_allclose(standardized.coef_ * scales, plain.coef_, atol=1e-5)

    def test_equal_columns(self, rows, l1_ratio):
        X, y = rows
        once, twice = fit(X, y, l1_ratio=l1_ratio), fit(np.hstack([X, X]), y, l1_ratio=l1_ratio)
        assert twice.converged_
        if l1_ratio == 1.0:  # the optimum is not unique, its value is
            assert twice.objective_ == pytest.approx(once.objective_, rel=1e-8)
        else:  # halves cost less
            assert twice.objective_ < once.objective_
            np.testing.assert_allclose(twice.coef_[:, :8], twice.coef_[:, 8:], atol=1e-4)

    def test_columns_that_do_not_vary(self, rows):
        X, y = rows
        constant = np.hstack([X, np.zeros((300, 1)), np.full((300, 1), 7.0)])
        model = fit(constant, y)
        assert not model.coef_[:, 8:].any()
        assert model.objective_ == pytest.approx(fit(X, y).objective_, rel=1e-8)


class TestInputs:
    def test_number_types(self, rng):
        X = rng.integers(0, 100, (200, 12)).astype(np.uint8)
        y = (X[:, :3] + rng.normal(0, 30, (200, 3))).argmax(axis=1)
        expected = fit(X / 255.0, y, C=0.5)
        assert 0 < np.count_nonzero(expected.coef_) < 36
        for dtype in (np.uint8, np.int8, np.float16, np.float32):
            model = fit(X.astype(dtype), y, C=0.5, input_scale=1 / 255, tol=1e-6)
            assert model.coef_.dtype == np.float32 and model.converged_
            np.testing.assert_allclose(model.coef_ * 255, expected.coef_, atol=2e-2)
            assert model.objective_ == pytest.approx(expected.objective_, rel=1e-5)
        rows_ = sparse.csr_array(X.astype(np.float32))
        model = fit(rows_, y, C=0.5, input_scale=1 / 255, tol=1e-6)
        assert model.objective_ == pytest.approx(expected.objective_, rel=1e-5)

    def test_weights_are_counts(self, rows, rng, l1_ratio):
        X, y = rows
        counts = rng.integers(0, 3, len(y))
        weighted = fit(X, y, counts, l1_ratio=l1_ratio)
        repeated = fit(np.repeat(X, counts, axis=0), np.repeat(y, counts), l1_ratio=l1_ratio)
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)
        assert weighted.objective_ == pytest.approx(repeated.objective_, rel=1e-8)

    def test_soft_targets_and_smoothing(self, rows, l1_ratio):
        X, y = rows
        smoothed = fit(X, y, label_smoothing=0.1, l1_ratio=l1_ratio)
        soft = fit(X, 0.9 * np.eye(4)[y] + 0.025, l1_ratio=l1_ratio)
        assert smoothed.converged_ and soft.converged_
        np.testing.assert_allclose(smoothed.coef_, soft.coef_, atol=1e-5)

    @pytest.mark.parametrize("n_features", [8, 5000], ids=["narrow", "wide"])
    def test_threads_and_backends(self, rng, n_features):
        X = random_array((300, n_features), density=0.02, rng=rng, dtype=np.float64).tocsr()
        y = rng.integers(0, 3, 300)
        X = sparse.hstack([X, sparse.csr_array(np.eye(3)[y] + rng.normal(size=(300, 3)))]).tocsr()
        for rows_ in (X, X.toarray()):
            models = [
                fit(rows_, y, tol=1e-6, n_jobs=n, backend=backend)
                for n, backend in [(1, "auto"), (3, "auto"), (1, "numpy")]
            ]
            assert models[0].coef_.tobytes() == models[1].coef_.tobytes()
            assert models[0].gap_ == models[1].gap_
            np.testing.assert_allclose(models[0].coef_, models[2].coef_, atol=1e-2)
            assert models[0].objective_ == pytest.approx(models[2].objective_, rel=1e-6)

    def test_inputs_stay_as_they_are(self, rows):
        X, y = rows
        X.flags.writeable = y.flags.writeable = False
        weights = np.ones(len(y))
        weights.flags.writeable = False
        assert fit(X, y, weights).converged_


class TestWorkingSets:
    """Wide problems are solved for few of their features, and certified for all."""

    @pytest.fixture
    def wide(self, rng):
        n, d = 400, 6000
        X = random_array((n, d), density=0.01, rng=rng, dtype=np.float64).tocsr()
        W = np.zeros((d, 3))
        W[:200] = rng.normal(size=(200, 3)) * 4
        return X, (X @ W + rng.gumbel(size=(n, 3))).argmax(axis=1)

    @pytest.mark.parametrize("real", [np.float64, np.float32])
    @pytest.mark.parametrize("kind", ["csr", "dense"])
    @pytest.mark.parametrize("standardize", [False, True])
    def test_optimality_of_all_features(self, wide, real, kind, standardize, l1_ratio):
        X, y = wide
        C = 0.5 if standardize else 3.0
        given = X.astype(real) if kind == "csr" else X.toarray().astype(real)
        model = fit(given, y, C=C, l1_ratio=l1_ratio, standardize=standardize, tol=1e-6)
        assert model.converged_
        z = X.toarray()
        scale = z.std(axis=0) if standardize else np.ones(z.shape[1])
        scale[scale == 0.0] = 1.0
        V = model.coef_.astype(np.float64) * scale
        z = (z - z.mean(axis=0)) / scale
        grad = ((model.predict_proba(X) - np.eye(3)[y]).T @ z) / len(y)
        unit = 1.0 / (C * len(y))
        grad += unit * (1.0 - l1_ratio) * V
        assert np.abs(grad).max() <= l1_ratio * unit * (1.0 + 1e-3)
        kept = V != 0.0
        assert 0 < kept.sum() < 0.5 * kept.size
        np.testing.assert_allclose(grad[kept], -l1_ratio * unit * np.sign(V[kept]), rtol=2e-2)
        assert model.objective_ == pytest.approx(
            value(model, X, y, C, l1_ratio, scale=scale), rel=1e-6
        )

    def test_the_same_values(self, rng):
        """A subset's points are those of the whole where the other coefficients are 0."""
        X = rng.normal(size=(50, 9)) * np.logspace(-1, 1, 9) + 3.0
        labels, ones = rng.integers(0, 3, 50).astype(np.int32), np.ones(50)
        features = np.array([1, 4, 7])
        for given in (X, sparse.csr_array(X)):
            for options in ({}, {"standardize": True}, {"fit_intercept": False}):
                shard = build_shard(given, labels, None, ones, 3, backend=reference)
                options = {"fit_intercept": True, "input_scale": 0.5, **options}
                full = SoftmaxObjective(build_problem(Rows([shard]), 0.01, l1=0.02, **options))
                for fine in (False, True):
                    subset = Subset(full, features, fine=fine)
                    inside = rng.normal(size=subset.objective.problem.n_params)
                    point = subset.outside(inside)
                    np.testing.assert_allclose(subset.inside(point), inside, rtol=1e-12)
                    seen, at = subset.objective.evaluate(inside), full.evaluate(point)
                    assert seen.value == pytest.approx(at.value, rel=1e-12)
                    assert seen.loss == pytest.approx(at.loss, rel=1e-12)

    @pytest.mark.parametrize("options", [{}, {"standardize": True}])
    def test_the_same_rows_where_a_certificate_is_wanted(self, rng, options):
        """Without an intercept a subset's rows were moved by the rounding of their mean.

        Its bound was of other rows then: a gap of 2e-9 read 5e-15.
        """
        X = (3.0 + rng.normal(size=(150, 9))).astype(np.float32)
        labels, ones = rng.integers(0, 3, 150).astype(np.int32), np.ones(150, np.float32)
        shard = build_shard(X, labels, None, ones, 3, backend=reference)
        options = {"fit_intercept": False, "input_scale": 3.0, **options}
        problem = build_problem(Rows([shard]), 0.01, l1=0.02, **options)
        full = SoftmaxObjective(problem, CenteredPass(problem))
        subset = Subset(full, np.array([1, 4, 7]), fine=True)
        inside = rng.normal(size=subset.objective.problem.n_params)
        seen, at = subset.objective.evaluate(inside), full.evaluate(subset.outside(inside))
        assert seen.value == pytest.approx(at.value, rel=1e-13)
        np.testing.assert_allclose(
            subset.objective.problem.coordinates.matrix_of(seen.gradient),
            problem.coordinates.matrix_of(at.gradient)[:, subset.features],
            atol=1e-13,
        )

    def test_the_bound_allows_for_the_rounding_of_the_loss(self, rng):
        """In float32. Bounds may have the loss itself."""
        errors = []
        for n_rows in (20, 60, 400):
            X = rng.normal(size=(n_rows, 30)).astype(np.float32)
            labels = rng.integers(0, 3, n_rows).astype(np.int32)
            point = rng.normal(size=90).astype(np.float32).astype(np.float64)
            at = {}
            for real in (np.float32, np.float64):
                ones = np.ones(n_rows, real)
                shard = build_shard(X.astype(real), labels, None, ones, 3, backend=reference)
                problem = build_problem(Rows([shard]), 0.01, l1=0.02, fit_intercept=False)
                objective = SoftmaxObjective(problem)
                at[real] = objective.evaluate(point), objective.noise(objective.evaluate(point))
            (rounded, noise), (exact, least) = at[np.float32], at[np.float64]
            assert abs(rounded.loss - exact.loss) <= noise <= 1e-6 * exact.loss
            assert 0.0 < least < 1e-14
            errors.append(abs(rounded.loss - exact.loss))
        assert max(errors) > 0.0

    def test_the_same_values_where_means_are_inexact(self, rng):
        """Features of float32 that are far from 0: the centred ones have means of their own."""
        X = (rng.normal(size=(500, 9)) + 1e5).astype(np.float32)
        labels, ones = rng.integers(0, 3, 500).astype(np.int32), np.ones(500)

        def objective(X):
            shard = build_shard(X, labels, None, ones.astype(X.dtype), 3, backend=reference)
            problem = build_problem(Rows([shard]), 0.01, l1=0.02, fit_intercept=True)
            return SoftmaxObjective(problem)

        full, exact = objective(X), objective(X.astype(np.float64))
        subset = Subset(full, np.array([1, 4, 7]), fine=True)
        assert (np.abs(subset.objective.problem.coordinates.center) > 1e-9).any()
        inside = 10.0 * rng.normal(size=subset.objective.problem.n_params)
        point = subset.outside(inside)
        np.testing.assert_allclose(subset.inside(point), inside, rtol=1e-12)
        coefficients = full.problem.coordinates.coefficients_of(point)
        at = exact.evaluate(exact.problem.coordinates.point_of(*coefficients))
        assert subset.objective.evaluate(inside).value == pytest.approx(at.value, rel=1e-10)

    def test_interrupted(self, wide):
        X, y = wide

        def interrupt(state):
            if state.iteration == 7:
                raise KeyboardInterrupt

        model = FastSoftmax(3.0, l1_ratio=1.0)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y, callbacks=[interrupt])
        assert model.n_iter_[0] == 7 and not model.converged_
        assert model.coef_.shape == (3, 6000) and model.coef_.any()
        reached = value(model, X, y, 3.0, 1.0)
        assert model.objective_ == pytest.approx(reached, rel=1e-6)

    def test_what_is_told_on_the_way(self, wide):
        X, y = wide
        seen = []
        model = FastSoftmax(3.0, l1_ratio=1.0, tol=1e-5).fit(
            X, y, eval_set=[(X, y)], callbacks=[seen.append]
        )
        assert [state.iteration for state in seen] == list(range(1, model.n_iter_[0] + 1))
        assert {state.solver for state in seen} == {"owlqn"}
        for state in seen:  # the same rows: what is evaluated is the whole model of the iteration
            assert state.eval_loss[0] == pytest.approx(state.loss, rel=1e-6)
            true = (state.objective - model.objective_) / state.objective
            assert true <= state.gap + 1e-9 <= 1.0 + 1e-9

    def test_stopped(self, wide):
        X, y = wide
        model = FastSoftmax(3.0, l1_ratio=1.0)
        model.fit(X, y, callbacks=[lambda state: state.iteration == 5])
        assert model.n_iter_[0] == 5 and model.gap_ > 1e-4
        with pytest.warns(ConvergenceWarning, match="max_time"):
            assert fit(X, y, max_time=1e-9).gap_ > 1e-4


class TestEstimator:
    def test_without_a_norm_nothing_changes(self, rows):
        X, y = rows
        expected = FastSoftmax().fit(X, y)
        for options in ({"l1_ratio": None}, {"l1_ratio": 0.0}, {"l1_ratio": 0}):
            assert FastSoftmax(**options).fit(X, y).coef_.tobytes() == expected.coef_.tobytes()
        lbfgs = FastSoftmax(solver="lbfgs").fit(X, y)
        assert FastSoftmax(solver="owlqn").fit(X, y).coef_.tobytes() == lbfgs.coef_.tobytes()
        none = FastSoftmax(np.inf).fit(X, y)
        for solver in ("auto", "newton-cholesky"):
            model = FastSoftmax(np.inf, l1_ratio=1.0, solver=solver).fit(X, y)
            assert model.coef_.tobytes() == none.coef_.tobytes()

    @pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan, "l1"])
    def test_wrong_ratios(self, rows, wrong):
        X, y = rows
        with pytest.raises(ValueError, match="l1_ratio"):
            FastSoftmax(l1_ratio=wrong).fit(X, y)

    @pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky", "sgd"])
    def test_solvers_without_it(self, rows, solver):
        with pytest.raises(ValueError, match=rf"solver='{solver}' takes no 1-norm.*'owlqn'"):
            FastSoftmax(l1_ratio=0.5, solver=solver).fit(*rows)

    def test_partial_fit(self, rows):
        X, y = rows
        assert not hasattr(FastSoftmax(l1_ratio=0.5), "partial_fit")
        with pytest.raises(AttributeError) as caught:
            FastSoftmax(l1_ratio=0.5).partial_fit(X, y, classes=range(4))
        assert "with l1_ratio > 0" in str(caught.value.__cause__)
        assert hasattr(FastSoftmax(np.inf, l1_ratio=0.5), "partial_fit")

    def test_warm_start(self, rows, l1_ratio):
        X, y = rows
        model = fit(X, y, l1_ratio=l1_ratio, tol=1e-8, warm_start=True)
        first = model.coef_
        assert model.sparsify().fit(X, y).n_iter_[0] == 0
        np.testing.assert_array_equal(model.coef_, first)
        model.set_params(C=1.2).fit(X, y)
        assert model.converged_

    def test_path_and_cross_validation(self, rows, l1_ratio):
        X, y = rows
        y = np.minimum(y, 2)  # of an even number of classes, coefficients may not be unique
        Cs = [0.01, 0.1, 1.0]
        path = fastsoftmax_path(X, y, Cs, l1_ratio=l1_ratio, tol=1e-9)
        assert (path.gaps <= 1e-9).all()
        for C, coef in zip(Cs, path.coefs, strict=True):
            np.testing.assert_allclose(coef, fit(X, y, C=C, l1_ratio=l1_ratio).coef_, atol=1e-5)
        assert np.all(np.diff(np.count_nonzero(path.coefs, axis=(1, 2))) > 0)
        search = FastSoftmaxCV(Cs, l1_ratio=l1_ratio, tol=1e-9, scoring="neg_log_loss").fit(X, y)
        refit = fit(X, y, C=search.C_, l1_ratio=l1_ratio)
        np.testing.assert_allclose(search.coef_, refit.coef_, atol=1e-5)
        assert search.converged_


class TestSparsify:
    @pytest.fixture
    def model(self, rows):
        return fit(*rows, C=0.05)

    def test_every_prediction(self, model, rows):
        X, y = rows
        thin = pickle.loads(pickle.dumps(model)).sparsify()
        assert sparse.issparse(thin.coef_) and thin.coef_.shape == model.coef_.shape
        assert thin.coef_.nnz == np.count_nonzero(model.coef_) < model.coef_.size
        thin = pickle.loads(pickle.dumps(thin))
        for given in (X, sparse.csr_array(X), X.astype(np.float32)):
            for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
                expected = getattr(model, method)(given)
                np.testing.assert_array_equal(getattr(thin, method)(given), expected)
            for a, b in zip(thin.predict_topk(given, 2), model.predict_topk(given, 2), strict=True):
                np.testing.assert_array_equal(a, b)
            assert thin.score(given, y) == model.score(given, y)
            assert thin.evaluate(given, y) == model.evaluate(given, y)

    def test_there_and_back(self, model):
        before = model.coef_.copy()
        assert model.densify() is model and model.sparsify() is model
        assert model.sparsify().coef_.dtype == before.dtype
        np.testing.assert_array_equal(model.densify().coef_, before)
        assert isinstance(model.coef_, np.ndarray)

    def test_fits_go_on(self, model, rows):
        X, y = rows
        thin = pickle.loads(pickle.dumps(model)).sparsify()
        for each in (model, thin):
            each.set_params(l1_ratio=0.0, random_state=0).partial_fit(X, y)
        np.testing.assert_array_equal(thin.coef_, model.coef_)

    def test_of_a_search(self, rows):
        X, y = rows
        search = FastSoftmaxCV([0.01, 0.05], l1_ratio=1.0).fit(X, y)
        expected = search.predict_proba(X)
        np.testing.assert_array_equal(search.sparsify().predict_proba(X), expected)

    def test_not_fitted(self):
        for method in ("sparsify", "densify"):
            with pytest.raises(NotFittedError):
                getattr(FastSoftmax(), method)()
