"""Memory that is refused once, at each request of the bridge and of numpy's arrays, one by one.

The call raises a MemoryError (or does without), nothing it was given has changed, no block is lost,
and the next call gives the same bits. By default some of numpy's requests are refused, ``-m slow``
takes more of them and ``-m long`` all.
"""

import io

import numpy as np
import pytest
from scipy import sparse
from sparse_rows import random_array

from fastsoftmax import (
    FastSoftmax,
    FastSoftmaxCV,
    cross_entropy,
    fastsoftmax_path,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    softmax,
)

pytest.importorskip("fastsoftmax.kernels")
from failing_memory import BRIDGE, KINDS, NUMPY, Memory, compiler

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="needs a C compiler, Linux and CPython"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

N, D, K = 90, 6, 3


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Requests for memory, which can be refused."""
    with Memory(tmp_path_factory.mktemp("failing_memory")).installed() as found:
        yield found


# ---- inputs, shared by all and never changed


def frozen(array):
    array.flags.writeable = False
    return array


rng = np.random.default_rng(0)
X = frozen(rng.normal(size=(N, D)))
y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))).argmax(axis=1)
y[:K] = np.arange(K)
PROBS = frozen(rng.dirichlet(np.ones(K), N))
WEIGHTS = frozen(rng.choice([0.0, 1.0, 2.0], N))
BYTES = frozen(rng.integers(0, 256, size=(N, 2 * D)).astype(np.uint8))[:, ::2]
CSR = random_array((N, 40), density=0.2, rng=rng, format="csr")
WIDE = random_array((N, 3000), density=0.002, rng=rng, format="csr")
FEW = frozen(rng.normal(size=(20, 300)))
BATCHES = [(X[i : i + 30], y[i : i + 30]) for i in range(0, N, 30)]
EVAL = {"eval_set": [(X[:20], y[:20])], "callbacks": [lambda state: state.coef_ is None]}
OTHER = frozen(rng.normal(size=(40, 4))), np.array(list("abcde" * 8))  # of an earlier fit

# What is fitted to, with what parameters, and more arguments of fit.
FITS = {
    "auto": (X, y, {}, {}),
    "lbfgs": (X, y, {"solver": "lbfgs"}, {}),
    "lbfgs, two threads": (X, y, {"solver": "lbfgs", "n_jobs": 2}, {}),
    "float32, weights": (
        X.astype(np.float32), y, {"solver": "lbfgs", "standardize": True},
        {"sample_weight": WEIGHTS},
    ),
    "newton": (X, y > 0, {"solver": "newton-cholesky", "standardize": True}, {}),
    "bytes, strided": (BYTES, y, {"solver": "lbfgs", "input_scale": 1 / 255}, {}),
    "elastic net": (X, y, {"l1_ratio": 0.5, "C": 0.1}, {}),
    "lasso, csr": (CSR, y, {"l1_ratio": 1.0, "C": 0.3}, {}),
    "csr": (CSR, y, {"solver": "lbfgs"}, {}),
    "wide csr": (WIDE, y, {"solver": "lbfgs"}, {}),
    "few rows": (FEW, y[:20], {"solver": "lbfgs"}, {}),
    "probabilities": (X, PROBS, {"solver": "lbfgs", "label_smoothing": 0.1}, {}),
    "no penalty": (X, y, {"C": np.inf}, {}),
    "sgd": (X, y, {"solver": "sgd", "momentum": 0.9, "batch_size": 16}, {}),
    "sgd, csr": (CSR, y, {"solver": "sgd", "momentum": 0.9, "batch_size": 16}, {}),
    "sgd, wide csr": (WIDE, y, {"solver": "sgd", "batch_size": 16}, {}),
    "early stopping": (X, y, {"solver": "lbfgs", "early_stopping": True}, {}),
    "watched": (X, y, {"solver": "sgd", "batch_size": 32}, EVAL),
    "batches": (BATCHES, None, {"solver": "lbfgs"}, {}),
    "batches, sgd": (BATCHES, None, {"solver": "sgd"}, {}),
}  # fmt: skip


def estimator_of(name, *, is_fitted=False):
    """An estimator for a case, if wanted one that has been fitted to something else."""
    wanted = {"max_iter": 3, "n_jobs": 1, "random_state": 0, "tol": 1e-7, **FITS[name][2]}
    model = FastSoftmax(solver="lbfgs", max_iter=2)
    if is_fitted:
        model.fit(*OTHER)
    return model.set_params(**{"solver": "auto", **wanted})


def fit(model, name):
    features, targets, _, more = FITS[name]
    return model.fit(features, targets, **more)


def result_of(model):
    """The arrays and numbers that a fit has made, all but the seconds, by name."""
    found = {**vars(model), "history_": {**model.history_, "seconds": None}}
    return {name: value for name, value in found.items() if name.endswith(("_", "_columns"))}


def are_same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(are_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(are_same, a, b))
    return isinstance(b, type(a)) and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def numbers_to_refuse(memory, kind, call, most):
    """Which requests of a call to refuse, the first one after its last included."""
    call()
    memory.allow()
    call()
    n = memory.requests(kind) + 1
    if most is None or n <= most:
        return range(1, n + 1)
    return sorted({*np.linspace(1, n, most).astype(int).tolist()})


def refused(memory, kind, number, call):
    """What a call returns, or the MemoryError that it raises, where a request is refused."""
    memory.refuse(kind, number)
    try:
        return call(), None
    except MemoryError as error:
        return None, error.with_traceback(None)
    finally:
        memory.allow()


def check_left(model, before, *, keeps_steps=False):
    """An estimator is what it was, or what a fit had come to: whole, and able to predict."""
    now = vars(model)
    if now.get("intercept_") is before.get("intercept_"):
        assert now.keys() == before.keys()
        assert [name for name in now if now[name] is not before[name]] == []
        return
    n_classes = len(model.classes_)
    shape = (1 if n_classes == 2 else n_classes), model.n_features_in_
    assert model.coef_.shape == shape
    probs = model.predict_proba(np.ones((2, model.n_features_in_)))
    assert probs.shape == (2, n_classes)
    assert np.isfinite(probs).all()
    assert len(model.history_["loss"]) or keeps_steps
    assert not model.converged_ or model.gap_ <= model.tol


SAMPLES = [
    pytest.param(BRIDGE, 24, id="bridge"),
    pytest.param(BRIDGE, None, id="bridge, all", marks=pytest.mark.slow),
    pytest.param(NUMPY, 8, id="numpy"),
    pytest.param(NUMPY, 25, id="numpy, more", marks=pytest.mark.slow),
    pytest.param(NUMPY, None, id="numpy, all", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("kind", "most"), SAMPLES)
@pytest.mark.parametrize("name", FITS)
def test_fits(name, kind, most, memory):
    expected = result_of(fit(estimator_of(name), name))
    numbers = numbers_to_refuse(memory, kind, lambda: fit(estimator_of(name), name), most)
    live = memory.live()
    errors = [check_fit(memory, kind, number, name, expected) for number in numbers]
    assert errors.count(True) >= min(len(numbers) - 1, 1)
    check_blocks(memory, live)


def check_fit(memory, kind, number, name, expected):
    """Refuse one request of a fit; whether that was an error."""
    model = estimator_of(name, is_fitted=number % 2 == 0)
    before = vars(model).copy()
    _, error = refused(memory, kind, number, lambda: fit(model, name))
    if error is None:
        assert are_same(result_of(model), expected)
    else:
        check_left(model, before, keeps_steps=name == "batches, sgd")
    again = fit(estimator_of(name), name)
    assert are_same(result_of(again), expected), f"the fit after request {number}"
    return error is not None


def check_blocks(memory, live):
    now = memory.live()
    assert all(now[kind] <= live[kind] for kind in KINDS), f"lost: {live} blocks are now {now}"


# ---- other calls


def model_file(model):
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def made_by(method, *arguments):
    return lambda model: getattr(model, method)(*arguments)


CALLS = {
    "predict_proba": made_by("predict_proba", X),
    "predict_proba, list": made_by("predict_proba", X.tolist()),
    "predict_proba, bytes": made_by("predict_proba", BYTES),
    "predict_proba, csr": made_by("predict_proba", sparse.csr_array(X)),
    "predict_log_proba": made_by("predict_log_proba", X),
    "decision_function": made_by("decision_function", X),
    "predict": made_by("predict", X),
    "predict_topk": made_by("predict_topk", X, 2),
    "predict_with_reject": made_by("predict_with_reject", X, 0.3),
    "evaluate": lambda model: tuple(model.evaluate(X, y)),
    "score": made_by("score", X, y),
    "statistics": lambda model: model.statistics(X, y, covariance="laplace").conf_int,
    "save": model_file,
    "load": lambda model: FastSoftmax.load(io.BytesIO(SAVED)).coef_,
    "to_sklearn": lambda model: model.to_sklearn().coef_,
    "cross-validation": lambda model: FastSoftmaxCV(Cs=[0.1, 1.0], cv=2).fit(X, y).coef_,
    "path": lambda model: list(fastsoftmax_path(X, y, Cs=[0.1, 1.0])[:2]),
    "softmax": lambda model: softmax(X),
    "log_softmax": lambda model: log_softmax(X, axis=0),
    "logsumexp": lambda model: logsumexp(X),
    "cross_entropy": lambda model: cross_entropy(X, y, return_grad=True),
    "linear_cross_entropy": lambda model: linear_cross_entropy(X, model.coef_, model.intercept_, y),
}
SAVED = model_file(FastSoftmax(solver="lbfgs").fit(X, y))


@pytest.mark.parametrize(("kind", "most"), SAMPLES)
@pytest.mark.parametrize("name", CALLS)
def test_calls(name, kind, most, memory):
    model = FastSoftmax(solver="lbfgs", random_state=0).fit(X, y)
    call = CALLS[name]
    expected = call(model)
    numbers = numbers_to_refuse(memory, kind, lambda: call(model), most)
    live = memory.live()
    for number in numbers:
        check_call(memory, kind, number, lambda: call(model), model, expected)
    check_blocks(memory, live)


def check_call(memory, kind, number, call, model, expected):
    """Refuse one request of a call that changes nothing."""
    before = vars(model).copy()
    result, error = refused(memory, kind, number, call)
    assert error is not None or are_same(result, expected)
    now = vars(model)
    assert now.keys() == before.keys()
    assert all(now[key] is before[key] for key in now)
    assert are_same(call(), expected), f"the call after request {number}"


@pytest.mark.parametrize(("kind", "most"), SAMPLES)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("case", ["partial_fit", "partial_fit, wide", "temperature", "CV"])
def test_all_or_nothing(case, first, kind, most, memory):
    """Steps, calibration and cross-validation have no last iteration to keep."""
    features = WIDE if case.endswith("wide") else X

    def call(model):
        if case == "CV":
            return model.fit(X, y)
        if case == "temperature":
            return model.calibrate_temperature(X, y)
        return model.partial_fit(features, y, classes=range(K))

    def made():
        if case == "CV":
            model = FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, n_jobs=1)
            return model if first else model.fit(*OTHER)
        model = FastSoftmax(random_state=0, momentum=0.9, solver="sgd", max_iter=2)
        if case == "temperature":
            return model.fit(X, y)
        return model if first else call(model)

    expected = result_of(call(made()))
    for number in numbers_to_refuse(memory, kind, lambda: call(made()), most):
        model = made()
        before, lengths = vars(model).copy(), history_lengths(model)
        _, error = refused(memory, kind, number, lambda model=model: call(model))
        if error is not None:
            now = vars(model)
            assert now.keys() == before.keys()
            assert [key for key in now if now[key] is not before[key]] == []
            assert history_lengths(model) == lengths
            call(model)
        assert are_same(result_of(model), expected)


def history_lengths(model):
    return [len(values) for values in getattr(model, "history_", {}).values()]


@pytest.mark.filterwarnings("error")
def test_refused_twice_in_a_row(memory):
    """What follows an error has no memory either: the first error arrives, not another one."""
    for number in range(1, 40, 3):
        memory.refuse(NUMPY, number)
        with pytest.raises(MemoryError):
            fit(estimator_of("watched"), "watched")
        memory.allow()
