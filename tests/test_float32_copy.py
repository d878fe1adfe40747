"""Fits to float64 rows whose first passes are over a copy in float32."""

import itertools
import warnings

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax.backend import resolve_backend
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import float32_copy, full_batch, row_space
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.problem.raw_pass import RawPass
from fastsoftmax.shards.dense_shard import DenseShard
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.protocols import Limits


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Copy small rows, too."""
    monkeypatch.setattr(float32_copy, "_LEAST_NUMBERS", 0)


@pytest.fixture
def n_copies(monkeypatch):
    """Copies made so far, as a list."""
    found, copied = [], DenseShard.in_float32

    def note(self):
        known = bool(self._in_float32)
        X = copied(self)
        if not known:
            found.append(X)
        return X

    monkeypatch.setattr(DenseShard, "in_float32", note)
    return found


def rows_of(rng, n=500, d=40, n_classes=12, spread=1.0):
    X = rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) / np.sqrt(d) + np.eye(d))
    X *= np.exp(spread * rng.normal(size=d))
    logits = X / X.std(axis=0) @ rng.normal(size=(d, n_classes)) / np.sqrt(d)
    y = (3.0 * logits + rng.gumbel(size=(n, n_classes))).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return X, y


def without(monkeypatch, X, y, **parameters):
    """The same fit without a copy."""
    with monkeypatch.context() as patch:
        patch.setattr(float32_copy, "_MOST_NUMBERS", -1)
        return FastSoftmax(**parameters).fit(X, y)


def objective_of(model, X, y, C):
    """F by its formula."""
    logits = X @ model.coef_.T + model.intercept_
    top = logits.max(axis=1)
    loss = top + np.log(np.exp(logits - top[:, np.newaxis]).sum(axis=1))
    loss -= logits[np.arange(len(y)), y]
    return loss.mean() + np.sum(model.coef_**2) / (2.0 * C * len(y))


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-9])
@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"standardize": True}])
@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_the_optimum(rng, monkeypatch, n_copies, tol, options, backend):
    """Certified by the rows themselves, whatever the copy says."""
    X, y = rows_of(rng)
    before = X.copy()
    exact = without(monkeypatch, X, y, tol=1e-11, **options)
    assert not n_copies
    model = FastSoftmax(tol=tol, backend=backend, **options).fit(X, y)
    assert len(n_copies) == 1
    np.testing.assert_array_equal(X, before)
    assert model.converged_ and model.gap_ <= tol
    assert model.coef_.dtype == np.float64
    true_gap = 1.0 - exact.objective_ * (1.0 - exact.gap_) / model.objective_
    assert -1e-12 <= true_gap <= model.gap_ + 1e-11
    if not options:
        assert model.objective_ == pytest.approx(objective_of(model, X, y, 1.0), rel=1e-13)
    if tol == 1e-9:
        np.testing.assert_allclose(model.coef_, exact.coef_, rtol=1e-3, atol=1e-4)


def test_most_passes_are_over_the_copy(rng, n_copies, monkeypatch):
    passes, shard_pass = [], DenseShard.loss_grad

    def note(self, *args, **options):
        passes.append(self.real)
        return shard_pass(self, *args, **options)

    monkeypatch.setattr(DenseShard, "loss_grad", note)
    X, y = rows_of(rng)
    model = FastSoftmax(C=0.1).fit(X, y)
    assert passes[:-1] == [np.float32] * (len(passes) - 1)
    assert passes[-1] == np.float64
    assert len(passes) >= model.n_iter_[0] + 2


def test_the_bits_do_not_depend_on_threads(rng, n_copies):
    X, y = rows_of(rng, 3000, 40)
    one, three = (FastSoftmax(C=0.1, n_jobs=n).fit(X, y) for n in (1, 3))
    np.testing.assert_array_equal(one.coef_, three.coef_)
    np.testing.assert_array_equal(one.intercept_, three.intercept_)
    assert one.gap_ == three.gap_
    assert len(n_copies) == 2


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_orders_of_memory(rng, n_copies, order):
    X, y = rows_of(rng)
    plain = FastSoftmax().fit(X, y)
    given = {"C": X, "F": np.asfortranarray(X), "strided": np.repeat(X, 2, axis=1)[:, ::2]}[order]
    model = FastSoftmax().fit(given, y)
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    np.testing.assert_array_equal(n_copies[0], X.astype(np.float32))


class TestNoCopy:
    """Where float32 tells too little, or nothing would be saved."""

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda X: X.astype(np.float32), id="float32"),
            pytest.param(sparse.csr_array, id="sparse"),
            pytest.param(lambda X: 1e-3 * X / X.std(axis=0) + 1.0, id="far from 0"),
            pytest.param(lambda X: X * 1e-200, id="tiny"),
            pytest.param(lambda X: X * 1e200, id="huge"),
            pytest.param(lambda X: X * 1e6, id="large"),
        ],
    )
    def test_rows(self, rng, n_copies, change):
        X, y = rows_of(rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FastSoftmax(max_iter=30).fit(change(X), y)
        assert not n_copies

    @pytest.mark.parametrize(
        "parameters",
        [
            {"C": np.inf},
            {"l1_ratio": 0.5},
            {"solver": "newton-cholesky"},
            {"solver": "sgd"},
            {"C": 1e12},
        ],
    )
    def test_parameters(self, rng, n_copies, parameters):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FastSoftmax(max_iter=30, **parameters).fit(*rows_of(rng))
        assert not n_copies

    def test_few_and_many_numbers(self, rng, n_copies, monkeypatch):
        X, y = rows_of(rng)
        monkeypatch.setattr(float32_copy, "_LEAST_NUMBERS", X.size + 1)
        FastSoftmax().fit(X, y)
        monkeypatch.setattr(float32_copy, "_LEAST_NUMBERS", 0)
        monkeypatch.setattr(float32_copy, "_MOST_NUMBERS", X.size - 1)
        FastSoftmax().fit(X, y)
        assert not n_copies

    def test_batches_are_streamed(self, rng, n_copies):
        X, y = rows_of(rng)
        FastSoftmax().fit([(X[:200], y[:200]), (X[200:], y[200:])])
        assert not n_copies


class TestFewLogits:
    """There the copy comes where many iterations are left."""

    def test_quick_fits_need_none(self, rng, n_copies):
        X = rng.normal(size=(4000, 400))
        y = (X @ rng.normal(size=400) + 20.0 * rng.normal(size=4000) > 0).astype(int)
        assert FastSoftmax().fit(X, y).converged_
        assert not n_copies

    def test_slow_ones_do(self, rng, n_copies, monkeypatch):
        X = rng.normal(size=(500, 500))
        y = (X @ rng.normal(size=500) > 0).astype(int)
        exact = without(monkeypatch, X, y, tol=1e-10)
        model = FastSoftmax().fit(X, y)
        assert len(n_copies) == 1
        assert model.converged_
        assert 0.0 <= 1.0 - exact.objective_ / model.objective_ + 1e-10 <= model.gap_ + 2e-10
        assert len(model.history_["gap"]) == model.n_iter_[0]


class TestFewRows:
    """The passes that come before the span of the rows are over a copy, too."""

    @pytest.fixture
    def spans(self, monkeypatch):
        found, init = [], row_space.RowSpace.__init__

        def note(self, full):
            found.append(full)
            init(self, full)

        monkeypatch.setattr(row_space.RowSpace, "__init__", note)
        return found

    @pytest.mark.parametrize("is_spread", [False, True])
    def test_the_optimum(self, rng, n_copies, spans, monkeypatch, is_spread):
        X = rng.normal(size=(400, 1200))
        X *= np.exp(2.0 * rng.normal(size=1200)) if is_spread else 1.0
        logits = X / X.std(axis=0) @ rng.normal(size=(1200, 5))
        y = (logits + 40.0 * rng.gumbel(size=(400, 5))).argmax(axis=1)
        model = FastSoftmax(n_jobs=1).fit(X, y)
        assert n_copies[0].shape == X.shape
        assert bool(spans) == is_spread
        assert model.converged_ and len(model.history_["gap"]) == model.n_iter_[0]
        exact = without(monkeypatch, X, y, tol=1e-9)
        assert 0.0 <= 1.0 - exact.objective_ / model.objective_ + 1e-8 <= model.gap_ + 2e-8


class TestEnds:
    """Fits that end while the passes are over the copy are judged by the rows themselves."""

    @pytest.mark.parametrize("n", [1, 3])
    def test_max_iter(self, rng, n_copies, n):
        X, y = rows_of(rng)
        with pytest.warns(match=f"max_iter={n}"):
            model = FastSoftmax(max_iter=n).fit(X, y)
        assert model.n_iter_[0] == n and not model.converged_
        assert model.objective_ == pytest.approx(objective_of(model, X, y, 1.0), rel=1e-13)
        assert 1e-4 < model.gap_ <= 1.0

    def test_a_callback(self, rng, n_copies):
        X, y = rows_of(rng)
        model = FastSoftmax().fit(X, y, callbacks=[lambda state: state.iteration == 2])
        assert model.n_iter_[0] == 2 and not model.converged_
        assert model.objective_ == pytest.approx(objective_of(model, X, y, 1.0), rel=1e-13)

    def test_an_error_of_a_callback(self, rng, n_copies):
        X, y = rows_of(rng)
        model = FastSoftmax()

        def fail(state):
            if state.iteration == 2:
                raise KeyError("of the user")

        with pytest.raises(KeyError):
            model.fit(X, y, callbacks=[fail])
        assert model.n_iter_[0] == 2
        assert model.objective_ == pytest.approx(objective_of(model, X, y, 1.0), rel=1e-6)

    def test_what_callbacks_see(self, rng, n_copies):
        X, y = rows_of(rng)
        seen = []
        model = FastSoftmax().fit(
            X,
            y,
            callbacks=[lambda state: seen.append((state.objective, state.eval_loss[0]))],
            eval_set=[(X, y)],
        )
        assert len(seen) == model.n_iter_[0]
        assert seen[-1][0] == pytest.approx(model.objective_, rel=1e-6)
        assert seen[-1][1] == pytest.approx(model.evaluate(X, y).loss, rel=1e-6)


def test_a_gap_that_only_the_rows_see(rng, n_copies, monkeypatch):
    """L-BFGS goes on with what it has learnt."""
    X, y = rows_of(rng)
    plain = without(monkeypatch, X, y, tol=1e-8)
    monkeypatch.setattr(float32_copy, "_LEAST_TOL", 1e-2)
    model = FastSoftmax(tol=1e-8).fit(X, y)
    assert n_copies and model.converged_ and model.gap_ <= 1e-8
    assert model.n_iter_[0] <= plain.n_iter_[0] + 8
    assert len(model.history_["gap"]) == model.n_iter_[0]


@pytest.mark.parametrize("certified", [True, False])
def test_estimated_gaps(rng, n_copies, certified):
    X, y = rows_of(rng, 600)
    backend = resolve_backend("auto")
    shard = build_shard(X, y.astype(np.int32), None, np.ones(600), 12, backend=backend)
    objective = SoftmaxObjective(build_problem(Rows([shard]), 1e-4, fit_intercept=True))
    limits = Limits(1e-4, 100, certified=certified)
    start = objective.problem.null_point
    result = full_batch.solve(objective, start, limits, newton=False).result
    assert len(n_copies) == 1
    assert result.reason == ("converged" if certified else "estimated")
    assert result.evaluation.value == objective.evaluate(result.point).value
    tight = Limits(1e-10, 500)
    least = full_batch.solve(objective, start, tight, newton=False).result.evaluation.value
    assert -1e-12 <= 1.0 - least / result.evaluation.value <= 1e-4


def test_a_sweep_has_one_copy(rng, n_copies, monkeypatch):
    X, y = rows_of(rng, 500)
    model = FastSoftmaxCV(Cs=[0.01, 0.1, 1.0], cv=3).fit(X, y)
    assert len(n_copies) == 1
    with monkeypatch.context() as patch:
        patch.setattr(float32_copy, "_MOST_NUMBERS", -1)
        plain = FastSoftmaxCV(Cs=[0.01, 0.1, 1.0], cv=3).fit(X, y)
    assert model.C_ == plain.C_
    for C, scores in plain.scores_.items() if isinstance(plain.scores_, dict) else ():
        np.testing.assert_allclose(model.scores_[C], scores, atol=2e-2)


def test_a_sweep_knows_the_gradient_at_the_class_shares(rng, n_copies, monkeypatch):
    """Which certificates need: no fit but the first over some rows takes a pass for it."""
    asked, base = [], RawPass.base

    def note(self):
        asked.append(self.known_base() is None)
        return base(self)

    monkeypatch.setattr(RawPass, "base", note)
    FastSoftmaxCV(Cs=[0.01, 0.1, 1.0], cv=3).fit(*rows_of(rng))
    assert n_copies and sum(asked) == 4  # all rows, and three folds


def test_row_weights(rng, n_copies, monkeypatch):
    X, y = rows_of(rng)
    weights = rng.uniform(0.0, 3.0, len(X))
    weights[:20] = 0.0
    model = FastSoftmax(tol=1e-9).fit(X, y, sample_weight=weights)
    with monkeypatch.context() as patch:
        patch.setattr(float32_copy, "_MOST_NUMBERS", -1)
        exact = FastSoftmax(tol=1e-11).fit(X, y, sample_weight=weights)
    assert n_copies and model.converged_
    np.testing.assert_allclose(model.coef_, exact.coef_, rtol=1e-3, atol=1e-4)


def test_soft_targets(rng, n_copies):
    X, _ = rows_of(rng)
    probs = rng.dirichlet(np.ones(12), len(X))
    model = FastSoftmax(tol=1e-8, label_smoothing=0.05).fit(X, probs)
    assert n_copies and model.converged_ and model.gap_ <= 1e-8


def test_constant_columns(rng, n_copies):
    X, y = rows_of(rng)
    X[:, 3], X[:, 7] = 5.0, 0.0
    model = FastSoftmax(tol=1e-7).fit(X, y)
    assert n_copies and model.converged_
    np.testing.assert_allclose(model.coef_[:, [3, 7]], 0.0, atol=1e-5)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_outliers_and_scales(rng, n_copies, C):
    """Whether there is a copy or not, the certificate is right."""
    for outlier, spread in itertools.product((0.0, 1e3), (0.5, 3.0)):
        X, y = rows_of(rng, spread=spread)
        X[11] *= 1.0 + outlier
        model = FastSoftmax(C=C, max_iter=2000).fit(X, y)
        assert model.converged_ and model.gap_ <= 1e-4
        value = objective_of(model, X, y, C)
        assert model.objective_ == pytest.approx(value, rel=1e-11)
