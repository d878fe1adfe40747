"""Seeing and steering a fit: history, callbacks, evaluation sets, verbose, warm starts, Ctrl-C."""

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from fastsoftmax import FastSoftmax
from fastsoftmax.monitor import FitState
from fastsoftmax.objective import SoftmaxObjective, StochasticObjective

KEYS = {"loss", "accuracy", "objective", "gap", "seconds", "eval_loss", "eval_accuracy"}


@pytest.fixture
def data(rng):
    X = rng.normal(size=(120, 5))
    y = (X @ rng.normal(size=(5, 3)) + rng.gumbel(size=(120, 3))).argmax(axis=1)
    y[:3] = [0, 1, 2]
    return X, y


@pytest.fixture(params=["lbfgs", "newton-cholesky", "sgd"])
def solver(request):
    return request.param


def model_of(solver, **parameters):
    steps = {"max_iter": 6, "batch_size": 16} if solver == "sgd" else {}
    return FastSoftmax(**{"solver": solver, "random_state": 0, "n_jobs": 1, **steps, **parameters})


def same_model(a, b):
    np.testing.assert_array_equal(a.coef_, b.coef_)
    np.testing.assert_array_equal(a.intercept_, b.intercept_)


class Recorder:
    """A callback that remembers, and stops after some iterations."""

    def __init__(self, stop_after=None, answer=True):
        self.states, self.stop_after, self.answer = [], stop_after, answer

    def __call__(self, state):
        self.states.append(state)
        return self.answer if len(self.states) == self.stop_after else None


class TestHistory:
    def test_a_value_for_each_iteration(self, data, solver):
        model = model_of(solver).fit(*data)
        assert set(model.history_) == KEYS
        assert {len(values) for values in model.history_.values()} == {int(model.n_iter_[0])}
        assert model.n_iter_.shape == (1,)
        assert model.n_iter_.dtype == np.int32
        assert all(seconds > 0.0 for seconds in model.history_["seconds"])
        assert all(value == () for value in model.history_["eval_loss"])
        if solver != "sgd":
            assert model.history_["objective"][-1] == model.objective_
            assert model.history_["gap"][-1] == model.gap_
            assert model.history_["loss"][-1] == pytest.approx(
                log_loss(data[1], model.predict_proba(data[0])), rel=1e-12
            )
            assert model.history_["accuracy"][-1] == pytest.approx(model.score(*data))
            assert (np.diff(model.history_["objective"]) < 1e-15).all()
        else:
            assert set(model.history_["objective"]) == set(model.history_["gap"]) == {None}
            assert model.history_["loss"][-1] < model.history_["loss"][0]

    def test_holds_plain_numbers(self, data, solver):
        model = model_of(solver).fit(*data, eval_set=[data])
        for name in KEYS - {"eval_loss", "eval_accuracy", "objective", "gap"}:
            assert {type(value) for value in model.history_[name]} == {float}
        assert {type(v) for values in model.history_["eval_loss"] for v in values} == {float}

    def test_begins_anew(self, data, solver):
        model = model_of(solver).fit(*data)
        first = model.history_
        n = len(first["loss"])
        model.set_params(warm_start=True).fit(*data)
        assert model.history_ is not first
        assert len(first["loss"]) == n

    def test_weighted_rows(self, rng, data):
        weights = rng.choice([0.0, 1.0, 3.0], len(data[0]))
        model = model_of("lbfgs").fit(*data, weights)
        assert model.history_["loss"][-1] == pytest.approx(
            log_loss(data[1], model.predict_proba(data[0]), sample_weight=weights), rel=1e-12
        )
        assert model.history_["accuracy"][-1] == pytest.approx(model.score(*data, weights))

    def test_many_rows_at_once_change_nothing(self, data, solver):
        plain = model_of(solver).fit(*data)
        watched = model_of(solver).fit(
            *data, eval_set=[data, (data[0][:5], data[1][:5])], callbacks=[Recorder()]
        )
        same_model(plain, watched)


class TestEvalSet:
    def test_values(self, data, solver, real):
        X, y = data[0].astype(real), data[1]
        sets = [(X[:100], y[:100]), (X[100:], y[100:])]
        model = model_of(solver).fit(*sets[0], eval_set=sets)
        for i, (X_i, y_i) in enumerate(sets):
            loss = -model.predict_log_proba(X_i)[np.arange(len(y_i)), y_i].mean()
            assert model.history_["eval_loss"][-1][i] == pytest.approx(loss, rel=1e-5)
            assert model.history_["eval_accuracy"][-1][i] == pytest.approx(model.score(X_i, y_i))
        assert {len(values) for values in model.history_["eval_loss"]} == {2}

    def test_labels_of_any_type_and_not_all_of_them(self, data):
        X, y = data
        names = np.array(["x", "yy", "zzz"])[y]
        part = names != "yy"
        model = model_of("lbfgs").fit(X, names, eval_set=[(X[part], names[part].tolist())])
        assert model.history_["eval_accuracy"][-1] == (model.score(X[part], names[part]),)

    def test_other_number_types(self, data):
        X, y = data
        exact = model_of("lbfgs").fit(X, y, eval_set=[(X, y)])
        mixed = model_of("lbfgs").fit(X, y, eval_set=[(X.astype(np.float32), y)])
        assert mixed.history_["eval_loss"][-1][0] == pytest.approx(
            exact.history_["eval_loss"][-1][0], rel=1e-5
        )

    @pytest.mark.parametrize(
        ("spoil", "error", "match"),
        [
            (lambda X, y: [(X, np.where(y == 0, 9, y))], ValueError, "eval_set"),
            (lambda X, y: [(X, np.array(["a", "b", "c"])[y])], (ValueError, TypeError), None),
            (lambda X, y: [(X[:, :2], y)], ValueError, "features"),
            (lambda X, y: [(X[:5], y)], ValueError, "inconsistent"),
            (lambda X, y: [(X * np.nan, y)], ValueError, "NaN"),
            (lambda X, y: [X, y], TypeError, "eval_set"),
            (lambda X, y: (X, y), TypeError, "eval_set"),
            (lambda X, y: [(X,)], TypeError, "eval_set"),
            (lambda X, y: 3, TypeError, "eval_set"),
        ],
        ids=[
            "unknown label", "labels of another type", "features", "lengths", "NaN",
            "no pairs", "one pair, not in a list", "no labels", "a number",
        ],
    )  # fmt: skip
    def test_errors(self, data, spoil, error, match):
        with pytest.raises(error, match=match):
            model_of("lbfgs").fit(*data, eval_set=spoil(*data))


class TestCallbacks:
    def test_see_every_iteration(self, data, solver):
        recorder = Recorder()
        model = model_of(solver).fit(*data, eval_set=[data], callbacks=[recorder])
        assert [s.iteration for s in recorder.states] == list(range(1, model.n_iter_[0] + 1))
        for name in KEYS:
            assert [getattr(s, name) for s in recorder.states] == model.history_[name]
        for state in recorder.states:
            assert isinstance(state, FitState)
            assert state.solver == solver
            assert state.n_iter == model.max_iter
            assert state.rows_per_second > 0.0

    def test_cannot_change_the_state(self, data):
        def change(state):
            state.loss = 0.0

        with pytest.raises(dataclasses.FrozenInstanceError):
            model_of("lbfgs").fit(*data, callbacks=[change])

    @pytest.mark.parametrize("answer", [True, np.True_], ids=repr)
    def test_true_stops(self, data, solver, answer):
        """Comparisons of numpy numbers give numpy's True."""
        stopper, other = Recorder(stop_after=2, answer=answer), Recorder()
        model = model_of(solver, tol=1e-10).fit(*data, callbacks=[stopper, other])
        assert model.n_iter_.tolist() == [2]
        assert len(model.history_["loss"]) == len(other.states) == 2
        assert not model.converged_
        assert model.gap_ > 1e-10
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            same_model(model, model_of(solver, tol=1e-10, max_iter=2).fit(*data))

    @pytest.mark.parametrize("answer", [None, False, 0])
    def test_anything_else_goes_on(self, data, solver, answer):
        model = model_of(solver).fit(*data, callbacks=[Recorder(stop_after=1, answer=answer)])
        same_model(model, model_of(solver).fit(*data))

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
    def test_an_interruption_keeps_the_last_coefficients(self, data, solver, error):
        def interrupt(state):
            if state.iteration == 3:
                raise error

        model = model_of(solver, tol=1e-10)
        with pytest.raises(error):
            model.fit(*data, callbacks=[interrupt])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            same_model(model, model_of(solver, tol=1e-10, max_iter=3).fit(*data))
        assert model.n_iter_.tolist() == [3]
        assert len(model.history_["loss"]) == 3
        assert not model.converged_
        assert model.predict(data[0]).shape == (len(data[0]),)

    def test_an_interruption_forgets_the_fit_before(self, data):
        """The attributes are of one fit, never of two."""
        X, y = data

        def interrupt(state):
            raise KeyboardInterrupt

        model = model_of("lbfgs").fit(X, y)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, np.array(["a", "b", "c"])[y], callbacks=[interrupt])
        assert model.classes_.tolist() == ["a", "b", "c"]
        assert model.n_iter_.tolist() == [1]
        assert model.predict(X).dtype.kind == "U"

    def test_an_interruption_before_the_first_iteration(self, data, solver, monkeypatch):
        """Old coefficients must not answer with the names of new classes."""
        X, y = data

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        model = model_of(solver).fit(X, y)
        first_call = {"lbfgs": "preconditioner", "newton-cholesky": "evaluate", "sgd": "sgd_steps"}
        kind = StochasticObjective if solver == "sgd" else SoftmaxObjective
        monkeypatch.setattr(kind, first_call[solver], interrupt)
        before = model.coef_
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, np.array(["a", "b", "c"])[(y + 1) % 3])
        has_old_classes = model.classes_.tolist() == [0, 1, 2]
        has_old_coefficients = np.array_equal(getattr(model, "coef_", None), before)
        assert has_old_classes == has_old_coefficients
        assert not model.converged_

    @pytest.mark.parametrize("callbacks", [3, [3], print], ids=repr)
    def test_errors(self, data, callbacks):
        with pytest.raises(TypeError, match="callbacks"):
            model_of("lbfgs").fit(*data, callbacks=callbacks)


class TestVerbose:
    @pytest.mark.parametrize("verbose", [0, False])
    def test_silent(self, data, solver, verbose, capfd):
        model_of(solver, verbose=verbose).fit(*data)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("verbose", [1, True, 10])
    def test_a_line_for_each_iteration(self, data, solver, verbose, capsys):
        model = model_of(solver, verbose=verbose).fit(*data, eval_set=[data])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == model.n_iter_[0]
        unit = "epoch" if solver == "sgd" else "iteration"
        for i, line in enumerate(lines, start=1):
            assert line.startswith(f"{unit} {i} ")
            assert "loss" in line
            assert "eval 0" in line
            assert ("gap" in line) == (solver != "sgd")


class TestWarmStart:
    def test_from_the_optimum_there_is_nothing_to_do(self, data):
        model = model_of("lbfgs", warm_start=True).fit(*data)
        before = model.coef_
        model.fit(*data)
        assert model.n_iter_[0] == 0
        assert model.converged_
        np.testing.assert_allclose(model.coef_, before, rtol=1e-9)

    def test_a_neighbouring_problem_takes_fewer_iterations(self, data):
        cold = model_of("lbfgs", C=2.0, tol=1e-8).fit(*data)
        warm = model_of("lbfgs", C=1.9, tol=1e-8, warm_start=True).fit(*data)
        warm.set_params(C=2.0).fit(*data)
        assert warm.n_iter_[0] < cold.n_iter_[0]
        np.testing.assert_allclose(warm.coef_, cold.coef_, rtol=1e-2, atol=1e-3)

    def test_sgd_goes_on(self, data):
        model = model_of("sgd", warm_start=True).fit(*data)
        loss = model.history_["loss"]
        model.fit(*data)
        assert model.history_["loss"][0] < loss[0]
        assert model.n_iter_.tolist() == [6]

    def test_off_by_default(self, data, solver):
        model = model_of(solver).fit(*data)
        before = model.coef_.copy()
        model.fit(*data)
        np.testing.assert_array_equal(model.coef_, before)

    @pytest.mark.parametrize("what", ["features", "classes", "NaN"])
    def test_what_does_not_fit_is_not_used(self, data, solver, what):
        X, y = data
        model = model_of(solver, warm_start=True).fit(X, y)
        if what == "features":
            X = X[:, :3]
        elif what == "classes":
            y = np.minimum(y, 1)
        else:
            model.coef_[0, 0] = np.nan
        same_model(model.fit(X, y), model_of(solver).fit(X, y))

    def test_between_solvers_and_number_types(self, data):
        X, y = data
        model = model_of("sgd", warm_start=True).fit(X.astype(np.float32), y)
        model.set_params(solver="lbfgs", max_iter=1000).fit(X, y)
        assert model.coef_.dtype == np.float64
        assert model.converged_

    def test_from_a_weak_penalty_to_a_strong_one(self, real):
        """Every row was decided, and the Hessian there next to nothing."""
        rng = np.random.default_rng(2)
        y = np.arange(120) % 4
        X = (3.0 * rng.normal(size=(4, 6))[y] + rng.normal(size=(120, 6))).astype(real)
        for solver in ("lbfgs", "newton-cholesky"):
            warm = model_of(solver, C=1e8, tol=0.5, warm_start=True)
            with warnings.catch_warnings():  # how near to 0 a loss of float32 gets is not the point
                warnings.simplefilter("ignore", ConvergenceWarning)
                warm.fit(X, y)
            warm.set_params(C=1e-4, tol=1e-4).fit(X, y)
            assert warm.converged_
            cold = model_of(solver, C=1e-4).fit(X, y)
            assert warm.objective_ == pytest.approx(cold.objective_, rel=2e-4)

    @pytest.mark.parametrize("scale", [1e2, 1e4, 1e6, 1e100])
    def test_a_senseless_start_does_not_spoil_the_end(self, data, solver, scale, real):
        X, y = data[0].astype(real), data[1]
        if scale > float(np.finfo(real).max) or solver == "sgd":
            pytest.skip("not a start, or no end that is certified")
        cold = model_of(solver).fit(X, y)
        warm = model_of(solver, warm_start=True).fit(X, y)
        warm.coef_ = real(scale) * np.linspace(-1, 1, 15, dtype=real).reshape(3, 5)
        warm.fit(X, y)
        assert warm.converged_
        assert 0.0 <= warm.gap_ <= warm.tol
        assert warm.objective_ == pytest.approx(cold.objective_, rel=2e-4)

    def test_what_the_caller_holds_is_not_written_to(self, data, solver):
        model = model_of(solver, warm_start=True).fit(*data)
        held = model.coef_
        before = held.copy()
        model.set_params(C=0.01).fit(*data)
        np.testing.assert_array_equal(held, before)


class TestChoiceOfSolver:
    @pytest.mark.parametrize(
        ("n_features", "n_classes", "chosen"),
        [(5, 2, "newton-cholesky"), (20, 10, "newton-cholesky"), (50, 10, "lbfgs")],
    )
    def test_auto_goes_by_size(self, rng, n_features, n_classes, chosen):
        X = rng.normal(size=(200, n_features))
        y = np.arange(200) % n_classes
        recorder = Recorder()
        FastSoftmax(n_jobs=1, tol=0.1).fit(X, y, callbacks=[recorder])
        assert {state.solver for state in recorder.states} == {chosen}

    def test_both_reach_the_same_optimum(self, data, real):
        X, y = data[0].astype(real), data[1]
        tol = 1e-12 if real is np.float64 else 1e-5
        models = [model_of(solver, tol=tol).fit(X, y) for solver in ("lbfgs", "newton-cholesky")]
        np.testing.assert_allclose(
            models[0].coef_, models[1].coef_, atol=1e-4 if real is np.float64 else 3e-2
        )
        assert models[0].objective_ == pytest.approx(models[1].objective_, rel=tol)
        assert models[1].n_iter_[0] < models[0].n_iter_[0]


class TestRandomState:
    def test_sgd(self, data):
        fits = [model_of("sgd", random_state=seed).fit(*data) for seed in (1, 1, 2)]
        same_model(fits[0], fits[1])
        assert (fits[0].coef_ != fits[2].coef_).any()
        given = model_of("sgd", random_state=np.random.RandomState(1)).fit(*data)
        same_model(given, fits[0])

    def test_none_is_random(self, data):
        fits = [model_of("sgd", random_state=None).fit(*data) for _ in range(2)]
        assert (fits[0].coef_ != fits[1].coef_).any()

    def test_the_default_solver_has_nothing_random(self, data):
        np.random.seed(0)  # noqa: NPY002 (the state under test)
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        fits = [model_of("auto", random_state=seed).fit(*data) for seed in (0, 1, None)]
        same_model(fits[0], fits[1])
        same_model(fits[0], fits[2])
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_a_warm_start_whose_classes_have_something_in_common(rng):
    """It took 261 iterations instead of 9: preconditioners leave the common part alone."""
    X = rng.normal(size=(2000, 40)) * np.geomspace(1.0, 0.01, 40)
    y = (X @ rng.normal(size=(40, 5)) + rng.gumbel(size=(2000, 5))).argmax(axis=1)
    clf = FastSoftmax(solver="lbfgs", tol=1e-6, warm_start=True).fit(X, y)
    cold = int(clf.n_iter_[0])
    clf.coef_ = clf.coef_ + rng.normal(size=40)
    clf.intercept_ = clf.intercept_ + 3.0
    clf.fit(X, y)
    assert clf.converged_
    assert clf.n_iter_[0] <= cold
    np.testing.assert_allclose(clf.coef_.mean(axis=0), 0.0, atol=1e-10)
