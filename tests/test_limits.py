"""What bounds a fit and what it says: max_time, certificates of 1, warnings, rounding."""

import itertools
import time
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax
from fastsoftmax.backend import resolve_backend
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.problem.centered_pass import CenteredPass
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.protocols import Limits


@pytest.fixture
def data(rng):
    X = rng.normal(size=(200, 5))
    y = (X @ rng.normal(size=(5, 3)) + rng.gumbel(size=(200, 3))).argmax(axis=1)
    y[:3] = np.arange(3)
    return X, y


@pytest.fixture(params=["lbfgs", "newton-cholesky", "sgd"])
def solver(request):
    return request.param


class Clock:
    """Time that passes by one second whenever it is looked at."""

    def __init__(self, monkeypatch):
        ticks = itertools.count()
        monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))


class TestMaxTime:
    def test_stops_between_iterations(self, data, solver, monkeypatch):
        Clock(monkeypatch)
        model = FastSoftmax(solver=solver, max_time=3.0, tol=0.0, n_jobs=1, random_state=0)
        with pytest.warns(ConvergenceWarning, match="max_time=3 seconds") as caught:
            model.fit(*data)
        assert len(caught) == 1
        assert not model.converged_
        n_iter = int(model.n_iter_[0])
        assert 0 < n_iter <= 3
        assert {len(values) for values in model.history_.values()} == {n_iter}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            bounded = FastSoftmax(solver=solver, max_iter=n_iter, tol=0.0, n_jobs=1, random_state=0)
            bounded.fit(*data)
        for name in ("coef_", "intercept_", "objective_", "gap_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(bounded, name))
        assert 0.0 < model.gap_ <= 1.0

    def test_the_best_point_is_kept(self, data, monkeypatch):
        Clock(monkeypatch)
        model = FastSoftmax(solver="lbfgs", max_time=4.0, tol=0.0, n_jobs=1)
        with pytest.warns(ConvergenceWarning):
            model.fit(*data)
        assert model.objective_ == min(model.history_["objective"])

    def test_over_before_it_began(self, data):
        with pytest.warns(ConvergenceWarning, match="max_time"):
            model = FastSoftmax(solver="lbfgs", max_time=1e-9, n_jobs=1).fit(*data)
        assert model.n_iter_[0] == 0
        assert np.isfinite(model.coef_).all()

    @pytest.mark.parametrize("max_time", [None, 1e6, np.float32(100.0), 100])
    def test_enough(self, data, solver, max_time):
        plain = FastSoftmax(solver=solver, max_iter=20, n_jobs=1, random_state=0).fit(*data)
        model = FastSoftmax(
            solver=solver, max_iter=20, n_jobs=1, random_state=0, max_time=max_time
        ).fit(*data)
        np.testing.assert_array_equal(model.coef_, plain.coef_)

    @pytest.mark.parametrize("max_time", [0, -1.0, np.nan, "1"])
    def test_errors(self, data, max_time):
        with pytest.raises(ValueError, match="max_time"):
            FastSoftmax(max_time=max_time).fit(*data)

    def test_without_a_penalty(self, data, monkeypatch):
        Clock(monkeypatch)
        with pytest.warns(ConvergenceWarning, match=r"C=inf.*max_time=2 seconds") as caught:
            FastSoftmax(C=np.inf, max_time=2.0, n_jobs=1).fit(*data)
        assert len(caught) == 1


class TestGap:
    def test_is_at_most_1(self, data):
        """The minimum is above 0, whatever a bound by gradients says."""
        with pytest.warns(ConvergenceWarning):
            model = FastSoftmax(solver="lbfgs", C=1e6, max_iter=1, n_jobs=1).fit(*data)
        assert model.gap_ == 1.0
        assert model.history_["gap"] == [1.0]

    def test_of_float32_refers_to_the_rounded_coefficients(self, data):
        X, y = (1e5 * data[0]).astype(np.float32), data[1]
        model = FastSoftmax(n_jobs=1).fit(X, y)
        exact = FastSoftmax(n_jobs=1, tol=1e-13).fit(X.astype(np.float64), y)
        assert model.coef_.dtype == np.float32
        assert model.converged_
        assert (model.objective_ - exact.objective_) / model.objective_ <= model.gap_ + 1e-13
        assert model.objective_ == pytest.approx(exact.objective_, rel=1e-9)


class TestWarnings:
    def test_at_most_one_also_after_several_solvers(self, rng):
        X = rng.normal(size=(80, 4)).astype(np.float32)
        X[:, 0] = 1.7e9 + 300.0 * X[:, 0]  # float32 has steps of 128 there
        y = np.arange(80) % 3
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            FastSoftmax(tol=1e-14, solver="newton-cholesky", n_jobs=1).fit(X, y)
        (warning,) = caught
        assert "as far as float32 goes" in str(warning.message)
        assert "standardize=True" in str(warning.message)

    def test_of_callbacks_are_theirs(self, data, solver):
        """Overflow inside a line search is no news; in a user's code it is."""

        def careless(state):
            np.exp(np.array([1000.0]))

        with pytest.warns(RuntimeWarning, match="overflow"):
            FastSoftmax(solver=solver, max_iter=5, tol=0.5, n_jobs=1).fit(
                *data, callbacks=[careless]
            )
        with np.errstate(over="ignore"):
            FastSoftmax(solver=solver, max_iter=5, tol=0.5, n_jobs=1).fit(
                *data, callbacks=[careless]
            )

    def test_a_class_without_weight_in_eval_set(self, data):
        X, y = data
        with pytest.raises(ValueError, match=r"eval_set\[0\].*leaves out.*weight 0.*2"):
            FastSoftmax(n_jobs=1).fit(X, y, (y != 2).astype(float), eval_set=[(X, y)])
        with pytest.raises(ValueError, match=r"eval_set\[0\].*none of the classes"):
            FastSoftmax(n_jobs=1).fit(X, y, (y != 2).astype(float), eval_set=[(X, y + 7)])


class TestCenteredPass:
    """The same problem by other passes."""

    @staticmethod
    def objectives(rng, real=np.float64, storage="dense", k=3, shift=2.0, **options):
        X = (rng.normal(size=(70, 4)) * [0.5, 1.0, 4.0, 2.0] + shift).astype(real)
        labels = rng.integers(k, size=70).astype(np.int32)
        weights = np.ones(70, dtype=real)
        X = sparse.csr_array(X) if storage == "CSR" else X
        backend = resolve_backend("auto")
        shards = [
            build_shard(X[part], labels[part], None, weights[part], k, backend=backend)
            for part in (slice(0, 30), slice(30, 70))
        ]
        problem = build_problem(Rows(shards), 0.02, **options)
        return SoftmaxObjective(problem), SoftmaxObjective(problem, CenteredPass(problem))

    @pytest.mark.parametrize("storage", ["dense", "CSR"])
    @pytest.mark.parametrize("k", [2, 3])
    @pytest.mark.parametrize("fit_intercept", [True, False])
    @pytest.mark.parametrize("options", [{}, {"standardize": True}, {"input_scale": 0.25}], ids=str)
    def test_is_the_same(self, rng, storage, k, fit_intercept, options):
        plain, centered = self.objectives(
            rng, storage=storage, k=k, fit_intercept=fit_intercept, **options
        )
        for scale in (0.0, 0.1, 1.0):
            point = scale * rng.normal(size=plain.problem.n_params)
            a, b = plain.evaluate(point), centered.evaluate(point)
            assert b.value == pytest.approx(a.value, rel=1e-13)
            assert b.loss == pytest.approx(a.loss, rel=1e-13)
            assert b.accuracy == pytest.approx(a.accuracy)
            for name in ("weights", "bias", "square", "bias_grad", "gradient"):
                np.testing.assert_allclose(getattr(b, name), getattr(a, name), atol=1e-13)
            bound = centered.gap_bound(b)
            assert bound <= plain.gap_bound(a) * (1.0 + 1e-9)
            if fit_intercept:
                assert bound == pytest.approx(plain.gap_bound(a), rel=1e-9)
            again = centered.evaluate_coefficients(b.weights, b.bias)
            assert again.value == pytest.approx(b.value, rel=1e-13)

    @pytest.mark.parametrize(
        ("shift", "fit_intercept"),
        # without an intercept the Hessian has eigenvalues of 1e18 and 1 at a shift of 1e9
        [(0.0, True), (0.0, False), (3.0, True), (3.0, False), (1e5, False), (1e9, True)],
    )
    def test_the_bound_holds(self, rng, shift, fit_intercept):
        plain, centered = self.objectives(rng, shift=shift, fit_intercept=fit_intercept)
        best = full_batch.solve(
            centered, plain.problem.null_point, Limits(1e-12, 200), newton=True
        ).result
        noise = 1e-14 + (4e-16 * shift) ** 2
        for distance in (1e-6, 1e-3, 0.1, 1.0):
            at = centered.evaluate(best.point + distance * rng.normal(size=plain.problem.n_params))
            minimum = best.evaluation.value * (1.0 - best.gap)
            assert centered.gap_bound(at) >= at.value - best.evaluation.value - noise
            assert best.evaluation.value - minimum <= 1e-9

    def test_rounded(self, rng):
        plain, centered = self.objectives(rng, np.float32, shift=1e6, fit_intercept=True)
        at = centered.evaluate(rng.normal(size=plain.problem.n_params))
        rounded = centered.by.rounded(at)
        for name in ("weights", "bias"):
            value = getattr(rounded, name)
            np.testing.assert_array_equal(value, value.astype(np.float32))
        np.testing.assert_allclose(rounded.weights, at.weights, rtol=1e-7)
        # half a step of float32 at 1e6 each, whatever the rounding of W times 1e6 had been
        np.testing.assert_allclose(rounded.centered_bias, at.centered_bias, atol=0.5)

    def test_not_of_wide_sparse_rows(self, rng):
        shard = build_shard(
            sparse.csr_array((3, 5000)), np.array([0, 1, 2], np.int32), None, np.ones(3), 3,
            backend=resolve_backend("auto"),
        )  # fmt: skip
        assert not CenteredPass.is_possible(build_problem(Rows([shard]), 0.1, fit_intercept=True))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_bound_holds_where_logits_cancel(n_classes, C):
    """Features of 1e4 + noise in float32: a pass is wrong by more than tol, and has to know."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(150, 6))
        y = (X @ rng.normal(size=(6, n_classes)) + 2.0 * rng.gumbel(size=(150, n_classes))).argmax(
            axis=1
        )
        X = (1e4 + X).astype(np.float32)
        model = FastSoftmax(C=C).fit(X, y)
        best = FastSoftmax(C=C, tol=1e-12).fit(X.astype(np.float64), y)
        W, b = model.coef_.astype(np.longdouble), model.intercept_.astype(np.longdouble)
        logits = X.astype(np.longdouble) @ W.T + b
        if n_classes == 2:
            logits = np.column_stack([np.zeros_like(logits), logits])
        logits -= logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(150), y]
        value = float(losses.mean() + (W * W).sum() / (2.0 * C * 150))
        assert model.gap_ >= 0.0
        assert (value - best.objective_) / value <= model.gap_ + 1e-7
        assert model.converged_


def test_what_cancels_costs_no_other_stage():
    """Features of 750: the last digits that Newton's method aims at are not to be had."""
    X, y = load_wine(return_X_y=True)
    model = FastSoftmax(tol=1e-8).fit(X, y)
    assert model.converged_ and model.gap_ <= 1e-10
    assert model.n_iter_[0] <= 12


def test_a_bound_that_overflows_certifies_nothing():
    """It was NaN, where 1 is the most that a gap can be."""
    X = np.random.default_rng(0).normal(size=(40, 3)) * 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FastSoftmax().fit(X, np.arange(40) % 3)
    assert 0.0 <= model.gap_ <= 1.0
    assert np.isfinite(model.coef_).all()


@pytest.mark.parametrize("C", [1e307, np.finfo(float).max])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_a_finite_C_is_one_though_its_product_with_the_weights_overflows(C, l1_ratio, rng):
    """It was taken for infinite: an infinite gap, converged_, and no warning."""
    X, y = rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    with pytest.warns(ConvergenceWarning, match="nothing could be certified") as told:
        model = FastSoftmax(C=C, l1_ratio=l1_ratio, n_jobs=1).fit(X, y)
    assert len(told) == 1
    assert model.tol < model.gap_ <= 1.0
    assert not model.converged_
    unpenalised = FastSoftmax(C=np.inf, n_jobs=1).fit(X, y)
    assert model.objective_ == pytest.approx(unpenalised.objective_, rel=1e-9)


@pytest.mark.parametrize("C", [1e-320, 5e-324])
def test_a_penalty_that_overflows(C, data):
    X, y = data
    with pytest.raises(ValueError, match=r"C=.* is too small"):
        FastSoftmax(C=C).fit(X, y)
    with pytest.raises(ValueError, match=r"C=.* is too small"):
        FastSoftmax(C=C).partial_fit(X, y, classes=np.unique(y))
