"""Signals at any time: handlers that raise, and storms of signals whose handlers do nothing.

After a handler has raised, the estimator is as before or whole, numpy's error state is the user's,
and the next fit gives the same bits. Interrupted waits of threads change nothing.
"""

import contextlib
import random
import signal
import sys
import threading

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import ThreadpoolController

from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax.kernel_arguments import Descent

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs a timer's signal"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # (hypothesis watches the garbage collector: Python ignores what a handler raises in there)
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <function gc_cumulative_time:"
        "pytest.PytestUnraisableExceptionWarning"
    ),
]

N, D, K = 200, 8, 3
rng = np.random.default_rng(0)
X = rng.normal(size=(N, D))
y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))).argmax(axis=1)
y[:K] = np.arange(K)
CSR = sparse.csr_array(np.where(np.abs(X) > 0.5, X, 0.0))
BATCHES = [(X[i : i + 50], y[i : i + 50]) for i in range(0, N, 50)]
CASES = {
    "lbfgs": (X, y, {"solver": "lbfgs"}),
    "auto": (X, y, {}),
    "newton": (X, y, {"solver": "newton-cholesky", "standardize": True}),
    "owlqn": (X, y, {"l1_ratio": 0.5, "C": 0.3}),
    "csr": (CSR, y, {"solver": "lbfgs"}),
    "sgd": (X, y, {"solver": "sgd", "batch_size": 10, "momentum": 0.9}),
    "batches": (BATCHES, None, {"solver": "lbfgs"}),
    "early stopping": (X, y, {"solver": "lbfgs", "early_stopping": True}),
}


class Raised(BaseException):
    pass


def model_of(name):
    options = {"max_iter": 5, "tol": 1e-9, "random_state": 0, "n_jobs": 2}
    return FastSoftmax(**{**options, **CASES[name][2]})


def fit(model, name):
    return model.fit(*CASES[name][:2])


@contextlib.contextmanager
def signals(handler, first, interval=0.0):
    """Send this process signals: after some seconds, and again in an interval."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, first, interval)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def interrupted(call, seconds):
    """Make a call, and raise in it after a time; whether that was before its end."""

    def interrupt(*args):
        raise Raised

    try:
        with signals(interrupt, seconds):
            try:
                call()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
    except Raised:
        return True
    return False


def same_bits(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("coef_", "intercept_", "n_iter_", "classes_", "gap_")
    )


def check_whole(model, before):
    now = vars(model)
    if now.get("intercept_") is before.get("intercept_"):
        assert now.keys() == before.keys()
        assert all(now[name] is before[name] for name in now)
        return
    shape = len(model.classes_), model.n_features_in_
    assert model.coef_.shape == shape
    assert model.intercept_.shape == shape[:1]
    assert model.predict_proba(np.ones((1, shape[1]))).shape == (1, shape[0])
    assert not model.converged_ or model.gap_ <= model.tol


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "times",
    [12, pytest.param(100, marks=pytest.mark.slow), pytest.param(2000, marks=pytest.mark.long)],
)
def test_handlers_that_raise_at_random_times(name, times):
    plain, others = fit(model_of(name), name), (X[:40, :3], np.array(list("abcd") * 10))
    fresh, draw = vars(model_of(name)).copy(), random.Random(0)
    error_state, pools = np.geterr(), ThreadpoolController().info()
    n_interrupted = 0
    for i in range(times):
        model = model_of(name)
        if i % 2:
            model.set_params(solver="lbfgs", l1_ratio=0.0, early_stopping=False).fit(*others)
            model.set_params(**{key: fresh[key] for key in model.get_params()})
        before = vars(model).copy()
        seconds = 10.0 ** draw.uniform(-4.0, -1.7)
        if interrupted(lambda model=model: fit(model, name), seconds):
            n_interrupted += 1
            check_whole(model, before)
        else:
            assert same_bits(model, plain)
        assert np.geterr() == error_state
        assert same_bits(fit(model_of(name), name), plain)
    assert n_interrupted
    assert ThreadpoolController().info() == pools


@pytest.mark.parametrize("times", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_partial_fit_and_sweeps_are_all_or_nothing(times):
    """(All: the handler may have raised after the last step, before the call returned.)"""
    draw, error_state = random.Random(0), np.geterr()
    cv = FastSoftmaxCV(Cs=[0.1, 1.0], cv=3).fit(X, y)
    steps = FastSoftmax(batch_size=2, momentum=0.9, random_state=0).partial_fit(X, y, range(K))
    n_interrupted = 0
    for i in range(times):
        model, call = ((cv, cv.fit), (steps, steps.partial_fit))[i % 2]
        before, length = vars(model).copy(), len(model.history_["loss"])
        if interrupted(lambda call=call: call(X[::-1], y), 10.0 ** draw.uniform(-4.0, -2.3)):
            n_interrupted += 1
            changed = {name for name, value in vars(model).items() if value is not before[name]}
            assert vars(model).keys() == before.keys()
            assert not changed or changed >= {"coef_", "intercept_", "n_iter_"}
            lengths = {len(values) for values in model.history_.values()}
            assert len(lengths) == 1
            assert model is cv or lengths == {length + bool(changed)}
        assert np.geterr() == error_state
    assert n_interrupted


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["SIGALRM", "SIGUSR1"])
def test_a_storm_of_signals(name, kind):
    """Handlers do nothing; system calls are interrupted all the time (EINTR)."""
    plain, seen = fit(model_of(name), name), []
    storm = getattr(signal, kind)
    if kind == "SIGALRM":
        with signals(lambda *args: seen.append(1), 2e-4, 2e-4):
            signal.siginterrupt(signal.SIGALRM, True)
            found = [fit(model_of(name), name) for i in range(1000) if i < 3 or not seen]
    else:
        main, over = threading.get_ident(), threading.Event()

        def send():
            while not over.wait(2e-4):
                signal.pthread_kill(main, storm)

        before = signal.signal(storm, lambda *args: seen.append(1))
        sender = threading.Thread(target=send)
        sender.start()
        try:
            found = [fit(model_of(name), name) for i in range(1000) if i < 3 or not seen]
        finally:
            over.set()
            sender.join()
            signal.signal(storm, before)
    assert seen
    assert all(same_bits(model, plain) for model in found)


def test_signals_while_the_pool_waits(kernels):
    """Long loops of several threads: the caller waits for others, and is woken by signals."""
    rows, targets = rng.normal(size=(60_000, 40)).astype(np.float32), np.arange(60_000) % K
    weights, bias = np.zeros((K, 40), np.float32), np.zeros(K, np.float32)
    ones = np.ones(len(rows), np.float32)
    given = kernels.Targets(targets.astype(np.int32), None, ones, 0.0, K)

    def call():
        out = np.empty((K, 40)), np.empty(K)
        params = np.zeros(K * 41, np.float32)
        kernels.sgd_steps(
            params,
            None,
            rows,
            given,
            np.arange(2000),
            Descent(50, 0.1, 0.0, 0.0, True),
            n_threads=4,
        )
        return kernels.loss_grad(*out, rows, given, weights, bias, n_threads=4), *out, params

    plain, seen = call(), []
    with signals(lambda *args: seen.append(1), 2e-4, 2e-4):
        found = [call() for i in range(1000) if i < 20 or not seen]
    assert seen
    for result in found:
        for part, expected in zip(result, plain, strict=True):
            np.testing.assert_array_equal(part, expected)


# ---- a handler that raises at each place, one by one

# Where what is set has to be restored, or changes together: handlers run when a function of Python
# begins and when one of C has ended.
PLACES = ("floating_point", "fitted", "columns", "blas", "monitor", "early_stopping", "contextlib")
PLACES += ("_ufunc_config", "archives", "threads")


class RaisesAt:
    """Raises at the n-th place where a handler may run, in some files; counts for 0."""

    def __init__(self, number):
        self.number, self.n_places = number, 0

    def __call__(self, frame, event, argument):
        if event in ("call", "c_return"):
            name = frame.f_code.co_filename.rpartition("/")[2].removesuffix(".py")
            if name in PLACES:
                self.n_places += 1
                if self.n_places == self.number:
                    raise Raised

    def call(self, function):
        """Make a call; whether it was interrupted."""
        sys.setprofile(self)
        try:
            function()
        except Raised:
            return True
        finally:
            sys.setprofile(None)
        return False


def watched(model):
    return model.fit(X, y, callbacks=[lambda state: None], eval_set=[(X[:50], y[:50])])


CALLS = {
    "lbfgs": (lambda: model_of("lbfgs"), watched),
    "sgd": (lambda: model_of("sgd"), watched),
    "auto": (lambda: model_of("auto"), lambda model: fit(model, "auto")),
    "early stopping": (
        lambda: model_of("early stopping"),
        lambda model: fit(model, "early stopping"),
    ),
    "batches": (lambda: model_of("batches"), lambda model: fit(model, "batches")),
    "partial_fit": (lambda: model_of("sgd"), lambda model: model.partial_fit(X, y, range(K))),
    "CV": (lambda: FastSoftmaxCV(Cs=[0.1, 1.0], cv=2), lambda model: model.fit(X, y)),
}


@pytest.mark.skipif(sys.gettrace() is not None, reason="coverage may have the profiler's place")
@pytest.mark.parametrize("most", [25, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CALLS)
def test_handlers_that_raise_at_each_place(name, most):
    make, call = CALLS[name]
    plain, counter = call(make()), RaisesAt(0)
    assert not counter.call(lambda: call(make()))
    assert counter.n_places > 20
    numbers = range(1, counter.n_places + 1)
    if most is not None:
        numbers = sorted({*np.linspace(1, counter.n_places, most).astype(int).tolist()})
    error_state, pools = np.geterr(), ThreadpoolController().info()
    for number in numbers:
        model = make()
        before = vars(model).copy()
        was_interrupted = RaisesAt(number).call(lambda model=model: call(model))
        assert np.geterr() == error_state, number
        if was_interrupted:
            check_whole(model, before)
        assert same_bits(call(make()), plain), number
    assert ThreadpoolController().info() == pools
