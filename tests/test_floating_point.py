"""Numpy's traps are the user's: none in our arithmetic, those of the user in callbacks.

Under `np.errstate(all="raise")` fits ended with "underflow encountered in exp".
"""

import io

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path, functional
from fastsoftmax.floating_point import own_arithmetic, users_code
from fastsoftmax.threads import in_threads

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Factors of the features: subnormal and huge products, and columns of no variance.
KINDS = {
    "plain": np.ones(6),
    "subnormal": np.full(6, 1e-310),
    "small": np.full(6, 1e-30),
    "of all sizes": np.geomspace(1e-308, 1e15, 6),
    "large": np.full(6, 1e30),
    "constant": np.array([1.0, 0.0, 1e-320, 1.0, 1.0, 1.0]),
}
OPTIONS = {
    "auto": {},
    "standardize": {"standardize": True},
    "lbfgs": {"solver": "lbfgs"},
    "1-norm": {"l1_ratio": 0.5},
    "no penalty": {"C": np.inf},
    "early stopping": {"early_stopping": True},
    "smoothing": {"label_smoothing": 0.1, "class_weight": "balanced"},
    "sgd": {"solver": "sgd", "max_iter": 2, "learning_rate": 1e-3},
}


@pytest.fixture(params=["native", "numpy"])
def backend(request):
    return request.param


@pytest.fixture(params=KINDS)
def data(request, rng):
    y = np.arange(60) % 3
    return rng.normal(size=(60, 6)) * KINDS[request.param], y


@pytest.fixture
def trapped():
    """Numpy as a user may set it; nothing may change that."""
    with np.errstate(all="raise"):
        state = np.geterr()
        yield
        assert np.geterr() == state


def accepted(function, *args, **kwargs):
    """Call a function whose arguments may have no answer, which then is a ValueError."""
    try:
        return function(*args, **kwargs)
    except ValueError:
        return None


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
def test_no_method_traps(data, options, storage, backend, trapped):
    X, y = storage(data[0]), data[1]
    seen = []
    model = FastSoftmax(backend=backend, **{"max_iter": 30, **options})
    accepted(
        model.fit, X, y, eval_set=[(X, y)], callbacks=[lambda _: seen.append(np.geterr()["under"])]
    )
    assert set(seen) <= {"raise"}
    if not hasattr(model, "coef_"):
        return
    for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        getattr(model, name)(X)
    model.predict_topk(X, 2)
    model.predict_with_reject(X, 0.4)
    model.predict_cost_sensitive(X, 1.0 - np.eye(3), return_cost=True)
    model.evaluate(X, y)
    model.score(X, y, np.full(60, 1e-320))
    accepted(model.calibrate_temperature, X, y)
    found = accepted(model.statistics, X, y, covariance="laplace" if model.C < 9 else "fisher")
    if found is not None:
        found.table(), found.z, found.aic, found.bic, found.pseudo_r2, repr(found)
    accepted(model.save, io.BytesIO())
    FastSoftmax.from_sklearn(accepted(model.to_sklearn))


def test_steps_batches_and_sweeps_do_not_trap(data, backend, trapped):
    X, y = data
    states = []

    def note():
        states.append(np.geterr()["under"])

    def batches():
        for start in range(0, 60, 20):
            note()
            yield X[start : start + 20], y[start : start + 20]

    def scorer(model, X, y):
        note()
        hits = model.predict(X) == y
        note()
        return float(np.mean(hits))

    class Splitter:
        def split(self, X, y, groups=None):
            note()
            yield np.arange(30), np.arange(30, 60)
            note()
            yield np.arange(30, 60), np.arange(30)

        def get_n_splits(self, *_):
            return 2

    options = {"learning_rate": 1e-3, "momentum": 0.5, "backend": backend}
    model = FastSoftmax(**options)
    for _ in range(2):
        accepted(model.partial_fit, X, y, classes=[0, 1, 2])
    accepted(FastSoftmax(solver="sgd", max_iter=2, **options).fit, batches)
    for scoring in (scorer, "neg_log_loss"):
        sweep = FastSoftmaxCV(Cs=2, cv=Splitter(), scoring=scoring, max_iter=9, backend=backend)
        sweep.fit(X, y).score(X, y)
    fastsoftmax_path(X, y, Cs=2, max_iter=9, backend=backend)
    assert set(states) == {"raise"}


def test_functions_do_not_trap(backend, trapped):
    logits, y = np.array([[0.0, -800.0, 1e-310], [1e308, -1e308, 0.0]]), [0, 1]
    for function in (functional.softmax, functional.log_softmax, functional.logsumexp):
        function(logits, backend=backend)
    weights = [1e-310, 1.0]
    functional.cross_entropy(logits, y, sample_weight=weights, return_grad=True, backend=backend)
    functional.linear_cross_entropy(
        logits, np.full((2, 3), 1e-300), None, y, sample_weight=weights, backend=backend
    )
    functional.accuracy(y, logits, sample_weight=weights)


def test_the_state_is_restored_after_an_error():
    before = np.geterr()
    with pytest.raises(ValueError, match="inconsistent numbers"):
        FastSoftmax().fit(np.eye(3), [0, 1])
    with pytest.raises(ZeroDivisionError):
        FastSoftmax().fit(np.eye(3), [0, 1, 2], callbacks=[lambda _: 1 / 0])
    assert np.geterr() == before


def test_users_code_inside_ours():
    with np.errstate(under="raise", over="print"):

        @own_arithmetic
        def inner():
            return np.geterr()["under"]

        @own_arithmetic
        def outer():
            found = [np.geterr()["under"], inner()]
            with users_code():
                found += [np.geterr()["under"], np.geterr()["over"], inner()]
            return [*found, np.geterr()["under"]]

        assert outer() == ["ignore", "ignore", "raise", "print", "ignore", "ignore"]
        assert np.geterr()["under"] == "raise"


def test_threads_have_the_state_of_their_caller():
    with np.errstate(all="ignore"):
        states = list(in_threads(lambda _: np.geterr()["over"], range(4), 2))
    assert states == ["ignore"] * 4
