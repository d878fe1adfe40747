"""Bad arguments: an error that names the argument, and an estimator that is as it was."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fuzz_checks import left_alone
from fuzz_rows import seeds
from fuzz_settings import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax, cross_entropy, linear_cross_entropy, softmax

_STRANGE = [None, "x", b"x", (), [1], {}, object, np.nan, -1, -1e300, np.inf, -np.inf, 1e300, 0,
            0.5, 2, 1.5, True, 2**70, np.ones(2), np.float32(-1), np.int8(-1), 1j]  # fmt: skip
PARAMETERS = sorted(FastSoftmax().get_params())


def _data(seed, n=12, d=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), np.arange(n) % 3


@examples(200)
@given(name=st.sampled_from(PARAMETERS), value=st.sampled_from(_STRANGE))
def test_parameters(name, value):
    """Whatever a parameter is, a fit works, or the error names it."""
    X, y = _data(0)
    model = FastSoftmax(**{"max_iter": 5, "tol": 1.0, "solver": "lbfgs"} | {name: value})
    if name == "verbose" and not isinstance(value, str | bytes):
        return
    if name == "n_jobs" and isinstance(value, int | np.integer) and value > 100:
        return
    before = dict(vars(model))
    try:
        with np.errstate(all="raise"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y)
    except (ValueError, TypeError) as error:
        assert name in str(error), error
        assert vars(model).keys() == before.keys()
    else:
        assert np.isfinite(model.coef_).all()


def _with(array, place, value):
    array = array.copy()
    array.flat[place % array.size] = value
    return array


def _changed_rows(draw, X):
    """X that no fit takes."""
    place = draw(st.integers(0, X.size - 1))
    form = draw(st.sampled_from([np.asarray, np.asfortranarray, sparse.csr_array, pd.DataFrame]))
    real = draw(st.sampled_from([np.float64, np.float32, np.float16]))
    choices = [
        form(_with(X, place, draw(st.sampled_from([np.nan, np.inf, -np.inf]))).astype(
            np.float32 if form is sparse.csr_array and real is np.float16 else real)),
        X[:, 0], X[np.newaxis], X[:, :0], X[:0], X[:-1], X.astype(complex), X.astype(str),
        X.astype(object) + 1j, None, 3, "no such file.npy", np.array(["a"] * len(X)), object(),
        pd.DataFrame(X).astype("Float64").mask(pd.DataFrame(X) > X.max() - 1e-9),
        [[1.0, 2.0], [3.0]] * (len(X) // 2),
    ]  # fmt: skip
    # by number: older releases of hypothesis print each value, and pandas 2.2 warns of float16 then
    return choices[draw(st.integers(0, len(choices) - 1))]


def _changed_labels(draw, y):
    """Labels that no fit takes."""
    K = 3
    probs = np.full((len(y), K), 1.0 / K)
    place = draw(st.integers(0, len(y) - 1))
    return draw(st.sampled_from([
        y[:-1], y[:, np.newaxis][:, [0, 0]] + 0.5, np.zeros(len(y)), [0] * len(y), None, 3,
        object(),
        _with(y.astype(float), place, np.nan), _with(y.astype(object), place, None),
        pd.Series(_with(y.astype(object), place, None), dtype="Int64"),
        _with(y.astype(object), place, "a").tolist(), _with(probs, place, -0.5),
        _with(probs, place, np.nan), probs[:, :1], probs * 2, probs[:-1], probs[np.newaxis],
        y.astype(complex), sparse.csr_array(probs * 2), pd.DataFrame(probs * 3),
        np.eye(K)[[0] * len(y)],
    ]))  # fmt: skip


def _changed_weights(draw, n):
    """Row weights that no fit takes."""
    ones = np.ones(n)
    place = draw(st.integers(0, n - 1))
    return draw(st.sampled_from([
        _with(ones, place, -1.0), _with(ones, place, np.nan), _with(ones, place, np.inf), ones[:-1],
        np.zeros(n), ones[:, np.newaxis][:, [0, 0]], ["a"] * n, ones + 1j, object(), "balanced",
        np.full(n, 1e308), [None] * n,
    ]))  # fmt: skip


_NAMES = {
    "X": "X|file",
    "y": "y|label|class|probabilit",
    "sample_weight": "sample_weight|weights",
}


@examples(300)
@given(
    data=st.data(),
    which=st.sampled_from(["X", "y", "sample_weight"]),
    method=st.sampled_from(["fit", "partial_fit", "evaluate", "score", "eval_set", "functions"]),
)
def test_rows_targets_and_weights(data, which, method):
    X, y = _data(data.draw(seeds))
    weights = None
    if which == "X":
        X = _changed_rows(data.draw, X)
    elif which == "y":
        y = _changed_labels(data.draw, y)
    else:
        weights = _changed_weights(data.draw, len(y))
    model = FastSoftmax(max_iter=3, tol=1.0, random_state=0)
    if method in ("evaluate", "score"):
        model.fit(*_data(1))
    before = dict(vars(model))
    call = _call(model, method, X, y, weights)
    try:
        with left_alone(traps=True):
            call()
    except (ValueError, TypeError, FileNotFoundError) as error:
        names = _NAMES[which]
        if "numbers of samples" in str(error) or "must be of shape" in str(error):
            names = "X|y|eval_set|sample_weight"  # (which of them is wrong nobody knows)
        assert any(word in str(error) for word in names.split("|")), error
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[k] is v for k, v in before.items())
    else:
        accepted = method in ("evaluate", "score", "partial_fit", "functions", "eval_set")
        assert accepted or which == "X", (which, method)
        if hasattr(model, "coef_"):
            assert np.isfinite(model.coef_).all()


def _call(model, method, X, y, weights):
    match method:
        case "fit":
            return lambda: model.fit(X, y, weights)
        case "partial_fit":
            return lambda: model.partial_fit(X, y, [0, 1, 2], weights)
        case "evaluate":
            return lambda: model.evaluate(X, y, weights)
        case "score":
            return lambda: model.score(X, y, weights)
        case "eval_set":
            return lambda: model.fit(*_data(2), eval_set=[(X, y)])
    coef, intercept = np.ones((3, 3)), np.zeros(3)
    return lambda: linear_cross_entropy(X, coef, intercept, y, sample_weight=weights)


@examples(100)
@given(data=st.data(), method=st.sampled_from([
    "predict", "predict_proba", "predict_log_proba", "decision_function"]))  # fmt: skip
def test_rows_to_predict(data, method):
    model = FastSoftmax(max_iter=3, tol=1.0).fit(*_data(0))
    X = _changed_rows(data.draw, _data(data.draw(seeds))[0])
    try:
        found = getattr(model, method)(X)
    except (ValueError, TypeError, FileNotFoundError) as error:
        assert any(word in str(error) for word in _NAMES["X"].split("|")), error
    else:
        assert len(found) == len(X)
        assert not np.issubdtype(found.dtype, np.floating) or np.isfinite(found).all()


@examples(60)
@given(x=st.sampled_from(_STRANGE), axis=st.sampled_from([-1, 0, 3, None, 1.5, "x", (0, 0)]))
def test_functions(x, axis):
    try:
        found = softmax(x, axis=axis)
    except (ValueError, TypeError) as error:
        assert str(error)
    else:
        assert np.shape(found) == np.shape(x)
    with pytest.raises((ValueError, TypeError)):
        cross_entropy(np.ones((2, 3)), [0, 3])
