"""What callbacks see and may do; progress bars; scikit-learn's own callbacks; Ctrl-C."""

import copy
import dataclasses
import io
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastsoftmax import FastSoftmax
from fastsoftmax.monitor import FitState, TqdmProgress

try:
    from sklearn import callback as sklearn_callback
except ImportError:
    sklearn_callback = None

with_sklearn_callbacks = pytest.mark.skipif(
    sklearn_callback is None, reason="sklearn.callback comes with scikit-learn 1.9"
)


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
    steps = {"max_iter": 4, "batch_size": 16} if solver == "sgd" else {}
    return FastSoftmax(**{"solver": solver, "random_state": 0, "n_jobs": 1, **steps, **parameters})


class TestState:
    def test_coefficients_are_those_of_the_iteration(self, data, solver, real):
        X, y = data[0].astype(real), data[1]
        seen = []
        model = model_of(solver).fit(
            X, y, callbacks=[lambda state: seen.append((state.coef_, state.intercept_))]
        )
        for i, (coef, intercept) in enumerate(seen, start=1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                part = model_of(solver, max_iter=i).fit(X, y)
            assert coef.dtype == intercept.dtype == real
            np.testing.assert_array_equal(coef, part.coef_)
            np.testing.assert_array_equal(intercept, part.intercept_)
        np.testing.assert_array_equal(seen[-1][0], model.coef_)

    def test_coefficients_cannot_be_written_to(self, data, solver):
        def write(state):
            with pytest.raises(ValueError, match="read-only"):
                state.coef_[0, 0] = 1.0
            with pytest.raises(ValueError, match="read-only"):
                state.intercept_ += 1.0
            with pytest.raises(dataclasses.FrozenInstanceError):
                state.coef_ = np.zeros((3, 5))
            assert state.coef_ is state.coef_

        watched = model_of(solver).fit(*data, callbacks=[write])
        np.testing.assert_array_equal(watched.coef_, model_of(solver).fit(*data).coef_)
        watched.coef_[0, 0] = 1.0  # the model's own may be

    def test_coefficients_that_nobody_asked_for_are_not_held(self, data, solver):
        """A list of states would otherwise hold all models of a fit."""
        states = []
        model_of(solver).fit(*data, callbacks=[states.append])
        with pytest.raises(RuntimeError, match="coefficients of iteration 1 are gone"):
            _ = states[0].coef_

        def ask(state):
            states[-1:] = [state]
            _ = state.coef_

        model_of(solver).fit(*data, callbacks=[ask])
        assert states[-1].coef_.shape == (3, 5)

    def test_metrics(self, data, solver):
        states = []
        model_of(solver).fit(
            *data, eval_set=[data, (data[0][:9], data[1][:9])], callbacks=[states.append]
        )
        for state in states:
            assert list(state.metrics) == ["train", "eval_0", "eval_1"]
            assert state.metrics["train"] == {"loss": state.loss, "accuracy": state.accuracy}
            for i in range(2):
                expected = {"loss": state.eval_loss[i], "accuracy": state.eval_accuracy[i]}
                assert state.metrics[f"eval_{i}"] == expected
            with pytest.raises(TypeError):
                state.metrics["train"] = {}
            with pytest.raises(TypeError):
                state.metrics["train"]["loss"] = 0.0

    def test_seconds(self, data, solver):
        states = []
        model_of(solver).fit(*data, callbacks=[states.append])
        elapsed = [state.elapsed_seconds for state in states]
        assert (np.diff(elapsed) > 0.0).all()
        assert sum(state.seconds for state in states) <= elapsed[-1]

    def test_is_plain_data(self, data):
        states = []

        def ask(state):
            if state.iteration == 1:
                _ = state.coef_, state.metrics
            states.append(state)
            states.append(copy.copy(state))

        model_of("lbfgs").fit(*data, callbacks=[ask])
        for state in states:
            again = pickle.loads(pickle.dumps(state))
            assert again == state
            assert again.metrics == state.metrics
            fields = dataclasses.asdict(state)
            assert FitState(**fields) == state
            assert "coef" not in repr(state)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(states[0])).coef_, states[0].coef_)

    def test_validation_rows_are_a_set(self, data):
        states = []
        model_of("sgd", early_stopping=True).fit(*data, callbacks=[states.append])
        assert {len(state.eval_loss) for state in states} == {1}
        assert states[-1].metrics["eval_0"]["loss"] == states[-1].eval_loss[0]


class Ender:
    """A callback that wants to know the end."""

    def __init__(self, fail_at=None):
        self.events, self.fail_at = [], fail_at

    def __call__(self, state):
        self.events.append(state.iteration)
        if state.iteration == self.fail_at:
            raise ZeroDivisionError

    def on_fit_end(self):
        self.events.append("end")


class TestEnd:
    def test_is_told_once(self, data, solver):
        ender = Ender()
        model = model_of(solver).fit(*data, callbacks=[ender, lambda state: None])
        assert ender.events == [*range(1, model.n_iter_[0] + 1), "end"]

    def test_is_told_to_all_however_the_fit_ends(self, data, solver):
        enders = [Ender(), Ender(fail_at=2), Ender()]
        with pytest.raises(ZeroDivisionError):
            model_of(solver, tol=1e-12).fit(*data, callbacks=enders)
        assert [ender.events for ender in enders] == [[1, 2, "end"], [1, 2, "end"], [1, "end"]]

    def test_of_batches(self, data):
        ender = Ender()
        model_of("sgd").fit([data], callbacks=[ender])
        assert ender.events == [1, 2, 3, 4, "end"]


class TestVerbose:
    def test_columns(self, data, solver, capsys):
        """Figures of all iterations stand below each other."""
        model_of(solver, verbose=1, max_iter=50, C=1e3).fit(*data, eval_set=[data])
        lines = capsys.readouterr().out.splitlines()
        assert len({line.index("  loss") for line in lines}) == 1
        assert len({line.index("accuracy") for line in lines}) == 1
        assert len({line.index("eval 0: loss") for line in lines}) == 1


class TestTqdm:
    @pytest.fixture(autouse=True)
    def tqdm(self):
        return pytest.importorskip("tqdm")

    def test_a_bar(self, data, solver):
        out = io.StringIO()
        bar = TqdmProgress(file=out, desc="a fit", mininterval=0)
        model = model_of(solver).fit(*data, eval_set=[data], callbacks=[bar])
        last = out.getvalue().rstrip().split("\r")[-1]
        assert "a fit" in last
        assert "loss=" in last and "eval_0=" in last
        n_iter = model.n_iter_[0]
        assert (f"{n_iter}/4" in last) if solver == "sgd" else (f"{n_iter}iteration" in last)
        assert ("gap=" in last) == (solver != "sgd")
        assert out.getvalue().endswith("\n")

    def test_again_and_after_an_error(self, data):
        out = io.StringIO()
        bar = TqdmProgress(file=out)
        with pytest.raises(ZeroDivisionError):
            model_of("sgd").fit(*data, callbacks=[bar, Ender(fail_at=1)])
        assert bar._bar is None
        model_of("sgd").fit(*data, callbacks=[bar])
        assert "4/4" in out.getvalue()
        assert pickle.loads(pickle.dumps(TqdmProgress(desc="x"))).options == {"desc": "x"}


def test_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install tqdm"):
        TqdmProgress()


class Hooks:
    """A callback of scikit-learn's kind that notes its calls."""

    def __init__(self, stop_at=None, fail_at=None):
        self.calls, self.models, self.stop_at, self.fail_at = [], [], stop_at, fail_at

    def setup(self, estimator, context):
        self.calls.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.calls.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.calls.append(("end", context.task_name))
        self.models.append((fitted_estimator.coef_, fitted_estimator.score(X, y), metadata))
        if len(self.models) == self.fail_at:
            raise ZeroDivisionError
        return len(self.models) == self.stop_at


@with_sklearn_callbacks
class TestSklearnCallbacks:
    def test_hooks(self, data, solver):
        hooks = Hooks()
        model = model_of(solver).set_callbacks(hooks).fit(*data)
        task = "epoch" if solver == "sgd" else "iteration"
        n_iter = int(model.n_iter_[0])
        assert hooks.calls == [
            ("setup", "fit"),
            ("begin", "fit"),
            *[("begin", task), ("end", task)] * n_iter,
            ("end", "fit"),
            ("teardown", "fit"),
        ]
        np.testing.assert_array_equal(hooks.models[-1][0], model.coef_)
        assert hooks.models[-1][1] == model.score(*data)
        assert (hooks.models[0][0] != model.coef_).any()
        plain = model_of(solver).fit(*data)
        np.testing.assert_array_equal(plain.coef_, model.coef_)

    def test_weights_are_metadata(self, data):
        hooks = Hooks()
        weights = np.ones(120)
        model_of("lbfgs").set_callbacks(hooks).fit(*data, weights)
        assert hooks.models[0][2]["sample_weight"] is weights

    def test_stops(self, data, solver):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = model_of(solver, tol=1e-12).set_callbacks(Hooks(stop_at=2)).fit(*data)
        assert model.n_iter_.tolist() == [2]

    def test_an_error_is_cleaned_up_after(self, data, solver):
        hooks = Hooks(fail_at=2)
        model = model_of(solver, tol=1e-12).set_callbacks(hooks)
        with pytest.raises(ZeroDivisionError):
            model.fit(*data)
        assert hooks.calls[-1] == ("teardown", "fit")
        assert model.n_iter_.tolist() == [2]
        assert not hasattr(model, "_callback_fit_ctx")
        hooks.fail_at = None
        model.fit(*data)

    def test_batches(self, data):
        class Count(Hooks):
            def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
                assert X is None and y is None
                self.models.append(fitted_estimator)

        count = Count()
        model_of("sgd").set_callbacks(count).fit(lambda: [data])
        assert len(count.models) == 5

    def test_with_other_callbacks(self, data):
        hooks, states = Hooks(), []
        model = model_of("lbfgs").set_callbacks(hooks)
        model.fit(*data, callbacks=[states.append])
        assert len(states) == len(hooks.models) - 1 == model.n_iter_[0]
        copied = clone(model)
        copied.fit(*data)
        assert len(hooks.models) == 2 * (len(states) + 1)
        model.set_callbacks().fit(*data)
        assert len(hooks.models) == 2 * (len(states) + 1)

    def test_scoring_monitor(self, data, solver):
        monitor = sklearn_callback.ScoringMonitor(scoring="neg_log_loss")
        model = model_of(solver).set_callbacks(monitor).fit(*data)
        logged = [row["neg_log_loss"] for row in monitor.get_logs().data]
        assert len(logged) == model.n_iter_[0] + 1
        if solver != "sgd":
            by_iteration = [
                row["neg_log_loss"]
                for row in monitor.get_logs().data
                if row["task_name"] == "iteration"
            ]
            np.testing.assert_allclose(by_iteration, -np.array(model.history_["loss"]), rtol=1e-9)

    @pytest.mark.parametrize("n_jobs", [None, 2])
    def test_in_a_grid_search(self, data, n_jobs):
        monitor = sklearn_callback.ScoringMonitor(scoring="accuracy")
        model = model_of("sgd").set_callbacks(monitor)
        search = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=3, n_jobs=n_jobs).fit(*data)
        assert search.best_estimator_.n_iter_.tolist() == [4]
        rows = monitor.get_logs("all")
        assert sum(len(log.data) for log in rows) == 7 * 5

    def test_progress_bar(self, data, solver, capsys):
        pytest.importorskip("rich")
        model_of(solver).set_callbacks(sklearn_callback.ProgressBar()).fit(*data)
        assert "FastSoftmax - fit" in capsys.readouterr().out
        search = GridSearchCV(model_of(solver), {"C": [0.1, 1.0]}, cv=2)
        search.set_callbacks(sklearn_callback.ProgressBar(max_propagation_depth=None)).fit(*data)
        assert "FastSoftmax" in capsys.readouterr().out
        pipeline = make_pipeline(StandardScaler(), model_of(solver))
        pipeline.set_callbacks(sklearn_callback.ProgressBar()).fit(*data)
        assert "100%" in capsys.readouterr().out

    def test_pickle(self, data):
        model = model_of("lbfgs").set_callbacks(Hooks()).fit(*data)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.coef_, model.coef_)


@pytest.mark.skipif(sklearn_callback is not None, reason="about scikit-learn before 1.9")
def test_without_sklearn_callbacks():
    assert not hasattr(FastSoftmax(), "set_callbacks")


INTERRUPTED = """
    import signal, sys, warnings
    import numpy as np
    from fastsoftmax import FastSoftmax, FastSoftmaxCV
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under `nohup ... &`
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    # more work than any machine does in the time that the test waits
    X, y = rng.normal(size=(20000, 300)), rng.integers(40, size=20000)
    told = False
    def tell(*args):
        global told
        if not told:
            told = True
            print("running", flush=True)
    model = FastSoftmax(n_jobs=1, tol=0.0, max_iter=10**6, solver="sgd")
    try:
        {code}
    except KeyboardInterrupt:
        kept = hasattr(model, "coef_") and bool(np.isfinite(model.coef_).all())
        print("interrupted", kept, getattr(model, "converged_", None), flush=True)
"""
CASES = {
    "epochs": "model.fit(X, y, callbacks=[tell])",
    "full batch": """
model.set_params(solver="lbfgs", C=np.inf)
while True:
    model.fit(X, y, callbacks=[tell])
""",
    "batches": """
def batches():
    for i in range(0, 20000, 500):
        yield X[i:i + 500], y[i:i + 500]
        tell()
model.fit(batches, classes=range(40))
""",
    "partial_fit": """
model.set_params(batch_size=16)
while True:
    model.partial_fit(X, y, classes=range(40))
    tell()
""",
    "early stopping": """
model.set_params(early_stopping=True, n_iter_no_change=10**6).fit(X, y, callbacks=[tell])
""",
    "cross-validation": "tell(); FastSoftmaxCV(n_jobs=1, Cs=500, cv=50, tol=1e-10).fit(X, y)",
}


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize("case", CASES)
def test_ctrl_c(case):
    """A real signal, to a process of its own."""
    code = textwrap.dedent(INTERRUPTED).replace("    {code}", textwrap.indent(CASES[case], "    "))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    fitted = case != "cross-validation"
    assert out == f"interrupted {fitted} {False if fitted else None}\n"
    assert process.returncode == 0
