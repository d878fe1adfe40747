"""Stopping where a validation loss no longer falls, and the rows that are held out for it."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

from fastsoftmax import FastSoftmax
from fastsoftmax._estimator.early_stopping import EarlyStopping, held_out_rows
from fastsoftmax._estimator.targets import Targets
from fastsoftmax.objective import StochasticObjective


def targets_of(y):
    """Labels, which are class numbers, or probabilities as a fit sees them."""
    if y.ndim == 2:
        return Targets(np.arange(y.shape[1]), None, y)
    return Targets(np.unique(y), y)


@pytest.fixture
def noisy(rng):
    """Rows that a fit learns by heart, as most features tell nothing."""
    X = rng.normal(size=(160, 60))
    y = (2.0 * X[:, :3] + rng.gumbel(size=(160, 3))).argmax(axis=1)
    y[:3] = [0, 1, 2]
    return X, y


@pytest.fixture
def sets(noisy):
    X, y = noisy
    return (X[:100], y[:100]), [(X[:100], y[:100]), (X[100:], y[100:])]


@pytest.fixture(params=["lbfgs", "newton-cholesky", "sgd"])
def solver(request):
    return request.param


def model_of(solver, **parameters):
    steps = {"max_iter": 60, "batch_size": 10, "learning_rate": 0.5} if solver == "sgd" else {}
    return FastSoftmax(
        **{
            "C": 1e3,
            "solver": solver,
            "early_stopping": True,
            "min_delta": 0.0,
            "random_state": 0,
            "n_jobs": 1,
            **steps,
            **parameters,
        }
    )


class TestEvalSet:
    def test_the_last_set_decides_and_the_best_coefficients_stay(self, sets, solver):
        train, eval_set = sets
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # not even where it has not converged
            model = model_of(solver).fit(*train, eval_set=eval_set)
        losses = [values[-1] for values in model.history_["eval_loss"]]
        best = model.best_iteration_
        assert model.best_score_ == min(losses) == losses[best - 1]
        assert 0 < best < model.n_iter_[0] == len(losses)
        X, y = eval_set[-1]
        assert log_loss(y, model.predict_proba(X)) == pytest.approx(model.best_score_, rel=1e-9)
        assert not model.converged_
        assert model.gap_ > model.tol
        plain = clone(model).set_params(early_stopping=False, max_iter=best)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            plain.fit(*train)
        np.testing.assert_array_equal(model.coef_, plain.coef_)
        np.testing.assert_array_equal(model.intercept_, plain.intercept_)
        assert model.objective_ == pytest.approx(plain.objective_, rel=1e-12)

    def test_patience(self, sets, solver):
        train, eval_set = sets
        for patience in (1, 3):
            model = model_of(solver, n_iter_no_change=patience).fit(*train, eval_set=eval_set)
            assert model.n_iter_[0] == model.best_iteration_ + patience

    @pytest.mark.parametrize("min_delta", [0.01, 0.1])
    def test_min_delta(self, sets, min_delta):
        """The count begins anew where the loss is so much below that at the last such time."""
        train, eval_set = sets
        model = model_of("sgd", learning_rate=0.02, min_delta=min_delta).fit(
            *train, eval_set=eval_set
        )
        losses = [values[-1] for values in model.history_["eval_loss"]]
        reference, wait, stopped = np.inf, 0, None
        for i, loss in enumerate(losses, start=1):
            wait += 1
            if loss < reference - min_delta:
                reference, wait = loss, 0
            if wait == model.n_iter_no_change and stopped is None:
                stopped = i
        assert (stopped or 60) == model.n_iter_[0]
        assert model.best_score_ == min(losses)

    def test_where_the_optimum_comes_first(self, sets):
        train, eval_set = sets
        model = model_of("lbfgs", C=1e-3).fit(*train, eval_set=eval_set)
        plain = model_of("lbfgs", C=1e-3, early_stopping=False).fit(*train)
        assert model.n_iter_ == plain.n_iter_
        if model.best_iteration_ == model.n_iter_[0]:
            assert model.converged_
            np.testing.assert_array_equal(model.coef_, plain.coef_)
        assert model.converged_ == (model.gap_ <= model.tol)

    def test_max_iter_is_told_all_the_same(self, sets):
        train, eval_set = sets
        with pytest.warns(ConvergenceWarning, match="max_iter=2"):
            model_of("lbfgs", max_iter=2).fit(*train, eval_set=eval_set)

    def test_a_warm_start_that_was_best(self, sets, solver):
        train, eval_set = sets
        model = model_of(solver, warm_start=True).fit(*train, eval_set=eval_set)
        coef, score = model.coef_, model.best_score_
        model.set_params(n_iter_no_change=2, C=1e6).fit(*train, eval_set=eval_set)
        assert model.best_score_ <= score * (1.0 + 1e-9)
        if model.best_iteration_ == 0:
            np.testing.assert_allclose(model.coef_, coef, rtol=1e-6, atol=1e-9)
            assert model.n_iter_[0] == 2
        assert np.isfinite(model.objective_)
        assert model.gap_ <= 1.0

    def test_no_iterations(self, sets, solver):
        train, eval_set = sets
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = model_of(solver, max_iter=0).fit(*train, eval_set=eval_set)
        assert model.best_iteration_ == 0
        X, y = eval_set[-1]
        assert log_loss(y, model.predict_proba(X)) == pytest.approx(model.best_score_)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
    def test_an_interruption_leaves_the_best(self, sets, solver, error):
        train, eval_set = sets
        whole = model_of(solver).fit(*train, eval_set=eval_set)

        def interrupt(state):
            if state.iteration == whole.n_iter_[0] - 1:
                raise error

        model = model_of(solver)
        with pytest.raises(error):
            model.fit(*train, eval_set=eval_set, callbacks=[interrupt])
        np.testing.assert_array_equal(model.coef_, whole.coef_)
        np.testing.assert_array_equal(model.intercept_, whole.intercept_)
        assert model.best_iteration_ == whole.best_iteration_
        assert not model.converged_

    def test_an_interruption_before_the_first_iteration_restores_no_earlier_fit(
        self, sets, monkeypatch
    ):
        """The best of nothing is not what the model held before."""
        train, eval_set = sets
        model = model_of("sgd").fit(*train, eval_set=eval_set)
        before = model.coef_

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(StochasticObjective, "sgd_steps", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*train, eval_set=eval_set)
        assert (model.coef_ != before).any()
        assert model.n_iter_.tolist() == [0]

    def test_attributes_are_of_the_last_fit(self, sets):
        train, eval_set = sets
        model = model_of("lbfgs").fit(*train, eval_set=eval_set)
        assert type(model.best_iteration_) is int
        assert type(model.best_score_) is float
        model.set_params(early_stopping=False, C=1.0).fit(*train)
        assert not hasattr(model, "best_iteration_")
        assert not hasattr(model, "best_score_")
        model.set_params(early_stopping=True).fit(*train, eval_set=eval_set).partial_fit(*train)
        assert not hasattr(model, "best_iteration_")


@pytest.mark.parametrize("min_delta", [0.0, 0.5])
def test_a_loss_that_does_not_fall_is_no_gain(min_delta):
    model = FastSoftmax(n_iter_no_change=3, min_delta=min_delta).fit([[0.0], [1.0]], [0, 1])
    stopping = EarlyStopping(model)
    stopping.begin(2.0, counts=True)
    for iteration, loss in enumerate([2.0 - min_delta] * 2, start=1):
        assert not stopping.see(iteration, loss)
    assert stopping.see(3, 2.0 - min_delta)
    assert model.best_iteration_ == (1 if min_delta else 0)


def numbered(n_rows):
    """Rows that differ."""
    return np.arange(n_rows, dtype=float)[:, np.newaxis]


class TestHeldOutRows:
    @pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
    @pytest.mark.parametrize("soft", [False, True])
    def test_the_fit_is_that_to_the_other_rows(self, noisy, solver, form, soft, rng, real):
        X, y = noisy[0].astype(real), noisy[1]
        weights = rng.uniform(0.5, 2.0, len(y))
        target = rng.dirichlet(np.full(3, 0.2), len(y)) if soft else y
        held = held_out_rows(model_of(solver), form(X), targets_of(target), weights)
        share = weights[held].sum() / weights.sum()
        assert 0.1 <= share <= 0.1 + weights.max() / weights.sum()
        left = np.delete(np.arange(len(y)), held)
        options = {"class_weight": {0: 2.0}, "tol": 1e-4}
        model = model_of(solver, **options).fit(form(X), target, weights)
        n_iter = model.best_iteration_
        plain = model_of(solver, early_stopping=False, max_iter=n_iter, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            plain.fit(form(X[left]), target[left], weights[left])
        tolerance = 1e-7 if real is np.float64 else 2e-2
        np.testing.assert_allclose(model.coef_, plain.coef_, rtol=tolerance, atol=tolerance)
        truth = (target[held] if soft else np.eye(3)[y[held]]) * weights[held, np.newaxis]
        truth = truth * [2.0, 1.0, 1.0]
        expected = -(truth * model.predict_log_proba(X[held])).sum() / truth.sum()
        assert model.best_score_ == pytest.approx(
            expected, rel=1e-6 if real is np.float64 else 1e-4
        )
        assert {len(values) for values in model.history_["eval_loss"]} == {1}

    def test_balanced_weights_are_those_of_the_rows_that_are_fitted_to(self, noisy, rng):
        X, y = noisy
        weights = rng.uniform(0.5, 2.0, len(y))
        left = np.delete(
            np.arange(len(y)), held_out_rows(model_of("lbfgs"), X, targets_of(y), weights)
        )
        options = {"class_weight": "balanced", "tol": 1e-10}
        model = model_of("lbfgs", n_iter_no_change=1000, **options).fit(X, y, weights)
        plain = model_of("lbfgs", early_stopping=False, **options).fit(
            X[left], y[left], weights[left]
        )
        assert model.history_["objective"][-1] == pytest.approx(plain.objective_, rel=1e-9)

    def test_random_state(self, noisy, solver):
        fits = [model_of(solver, random_state=seed).fit(*noisy) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(fits[0].coef_, fits[1].coef_)
        assert (fits[0].coef_ != fits[2].coef_).any()

    @pytest.mark.parametrize(("fraction", "n"), [(0.1, 10), (0.25, 25), (0.5, 50), (1e-9, 1)])
    def test_stratified(self, fraction, n):
        labels = np.repeat([0, 1, 2], [60, 30, 10])
        model = FastSoftmax(validation_fraction=fraction, random_state=3)
        rows = held_out_rows(model, numbered(100), targets_of(labels), np.ones(100))
        assert len(rows) == len(set(rows)) == n
        assert (np.diff(rows) > 0).all()
        if n > 1:
            counts = np.bincount(labels[rows])
            np.testing.assert_allclose(
                counts, [60 * fraction, 30 * fraction, 10 * fraction], atol=1
            )

    def test_the_last_row_of_a_class_stays(self):
        labels = np.array([0] * 20 + [1, 2])
        for seed in range(20):
            model = FastSoftmax(validation_fraction=0.99, random_state=seed)
            rows = held_out_rows(model, numbered(22), targets_of(labels), np.ones(22))
            assert rows.max() < 20
            assert len(rows) == 19

    def test_rows_of_weight_0_are_absent(self):
        labels = np.arange(20) % 2
        weights = (np.arange(20) < 10).astype(float)
        model = FastSoftmax(validation_fraction=0.5)
        rows = held_out_rows(model, numbered(20), targets_of(labels), weights)
        assert len(rows) == 5
        assert rows.max() < 10

    def test_equal_rows_are_on_one_side(self, rng):
        X = rng.integers(0, 3, (400, 3)).astype(float)
        labels = rng.integers(0, 2, 400)
        held = np.zeros(400, dtype=bool)
        model = FastSoftmax(random_state=0)
        held[held_out_rows(model, X, targets_of(labels), np.ones(400))] = True
        assert 40 <= held.sum() < 60
        sides = {}
        for row, label, side in zip(X, labels, held, strict=True):
            sides.setdefault((*row, label), set()).add(side)
        assert all(len(found) == 1 for found in sides.values())

    def test_the_heaviest_of_a_class_stays(self):
        """The share is one of weight: a row that has nearly all of it must not go."""
        labels = np.repeat([0, 1], 20)
        weights = np.ones(40)
        weights[[3, 30]] = 1e3
        for seed in range(20):
            model = FastSoftmax(validation_fraction=0.1, random_state=seed)
            rows = held_out_rows(model, numbered(40), targets_of(labels), weights)
            assert len(rows) == 38  # all others together have less than the share

    @pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.8])
    @pytest.mark.parametrize("soft", [False, True])
    def test_weights_are_repeats_in_any_order(self, rng, fraction, soft):
        X = rng.normal(size=(80, 3))
        probs = rng.dirichlet(np.ones(4), 80)
        labels = probs.argmax(axis=1)
        weights = rng.integers(0, 4, 80)
        weights[:4] = 7
        again = rng.permutation(np.repeat(np.arange(80), weights))
        model = FastSoftmax(validation_fraction=fraction, random_state=1)
        targets = targets_of(probs if soft else labels)
        once = held_out_rows(model, X, targets, 0.1 * weights)
        twice = held_out_rows(model, X[again], targets.of_rows(again), np.full(len(again), 0.1))
        assert set(again[twice]) == set(once)
        assert len(twice) == weights[once].sum()
        share = weights[once].sum() / weights.sum()
        assert fraction <= share <= fraction + 7 / weights.sum()

    def test_a_fit_to_weights_is_that_to_repeats(self, noisy, rng, solver):
        """Batches of as many rows as there are: the rows held out were counted among them."""
        X, y = noisy
        weights = rng.integers(0, 3, len(y))
        weights[:3] = 1
        again = np.repeat(np.arange(len(y)), weights)
        models = [
            model_of(solver, batch_size=1000).fit(*data)
            for data in ((X, y, weights), (X[again], y[again]))
        ]
        assert models[0].best_iteration_ == models[1].best_iteration_
        assert models[0].best_score_ == pytest.approx(models[1].best_score_, rel=1e-9)
        # (the preconditioner of L-BFGS looks at some rows alone)
        if solver != "lbfgs":
            np.testing.assert_allclose(models[0].coef_, models[1].coef_, rtol=1e-6, atol=1e-9)

    def test_many_classes(self, rng):
        labels = np.concatenate([np.arange(500), rng.integers(0, 500, 4500)])
        model = FastSoftmax(random_state=0)
        rows = held_out_rows(model, numbered(5000), targets_of(labels), np.ones(5000))
        assert len(rows) == 500
        left = np.bincount(np.delete(labels, rows), minlength=500)
        assert left.min() >= 1

    def test_equal_rows_alone(self):
        X = np.repeat([[0.0], [1.0]], 50, axis=0)
        with pytest.raises(ValueError, match="no class has two different ones"):
            FastSoftmax(early_stopping=True).fit(X, X[:, 0])

    def test_a_class_that_is_never_the_likeliest(self):
        probs = np.tile([0.6, 0.4, 0.0], (10, 1))
        probs[4] = [0.6, 0.3, 0.1]
        for seed in range(10):
            model = FastSoftmax(validation_fraction=0.9, random_state=seed)
            rows = held_out_rows(model, numbered(10), targets_of(probs), np.ones(10))
            assert 4 not in rows
            assert len(rows) >= 8

    def test_too_few_rows(self):
        with pytest.raises(ValueError, match="early_stopping=True needs rows to hold out"):
            FastSoftmax(early_stopping=True).fit([[0.0], [1.0]], [0, 1])

    def test_the_callers_arrays(self, noisy):
        X, y = noisy
        weights = np.ones(len(y))
        for array in (X, y, weights):
            array.flags.writeable = False
        model_of("sgd").fit(X, y, weights)
        np.testing.assert_array_equal(weights, 1.0)

    def test_label_smoothing_is_for_the_fit_alone(self, noisy):
        X, y = noisy
        model = model_of("lbfgs", label_smoothing=0.3).fit(X, y)
        held = held_out_rows(model, X, targets_of(y), np.ones(len(y)))
        assert model.best_score_ == pytest.approx(
            log_loss(y[held], model.predict_proba(X[held]), labels=[0, 1, 2])
        )

    def test_two_classes_of_strings(self, noisy, solver):
        X, y = noisy
        names = np.where(y > 0, "yes", "no")
        model = model_of(solver).fit(X, names)
        assert model.coef_.shape == (1, 60)
        assert model.score(X, names) > 0.6

    def test_in_a_grid_search(self, noisy):
        search = GridSearchCV(model_of("lbfgs"), {"n_iter_no_change": [1, 5]}, cv=3).fit(*noisy)
        assert hasattr(search.best_estimator_, "best_score_")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("early_stopping", "auto"),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("n_iter_no_change", 0),
        ("n_iter_no_change", 1.5),
        ("min_delta", -0.1),
    ],
)
def test_parameters(noisy, name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        FastSoftmax(**{name: value}).fit(*noisy)
