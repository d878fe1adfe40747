"""Kernels against their numpy twins in float64, at sizes and values that nobody chose."""

import numpy as np
from fuzz_rows import seeds
from fuzz_settings import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fastsoftmax import reference

REALS = [np.float32, np.float64]
sizes = st.integers(0, 70)


def _logits(draw, rng, shape, real):
    """Logits of any kind: some -inf, some far apart, some equal."""
    kind = draw(st.sampled_from(["plain", "far", "equal", "-inf", "tiny"]))
    logits = rng.standard_normal(shape)
    if kind == "far":
        logits *= 10.0 ** rng.integers(-3, 5, shape)
    elif kind == "equal":
        logits = np.round(logits)
    elif kind == "-inf":
        logits[rng.random(shape) < 0.3] = -np.inf
        logits[:, 0] = 0.0
    elif kind == "tiny":
        logits *= 1e-30
    return logits.astype(real)


@st.composite
def classified(draw):
    """Draw logits with targets and row weights."""
    rng, real = np.random.default_rng(draw(seeds)), draw(st.sampled_from(REALS))
    n, k = draw(sizes), draw(st.integers(1, 40))
    logits = _logits(draw, rng, (n, k), real)
    soft = draw(st.booleans())
    labels = None if soft else rng.integers(k, size=n).astype(np.int32)
    probs = rng.dirichlet(np.ones(k), n).astype(real) if soft else None
    weights = rng.choice([0.0, 1e-6, 1.0, 1e6], n).astype(real)
    smoothing = draw(st.sampled_from([0.0, 0.1, 1.0]))
    return logits, labels, probs, weights, smoothing, k


def _targets(module, labels, probs, weights, smoothing, k):
    return module.Targets(labels, probs, weights, smoothing, k)


@examples(150)
@given(case=classified(), threads=st.sampled_from([1, 2, 3]), data=st.data())
def test_functions_of_rows(kernels, case, threads, data):
    logits = case[0]
    real, isa = logits.dtype, data.draw(st.sampled_from(kernels.available_isas()))
    eps = float(np.finfo(real).eps)
    exact = logits.astype(float)
    for name in ("softmax_rows", "log_softmax_rows"):
        found, twin = np.empty_like(logits), np.empty_like(exact)
        getattr(kernels, name)(found, logits, isa=isa, n_threads=threads)
        getattr(reference, name)(twin, exact)
        np.testing.assert_allclose(found, twin, rtol=20 * eps, atol=20 * np.finfo(real).tiny)
        in_place = logits.copy()
        getattr(kernels, name)(in_place, in_place, isa=isa)
        assert in_place.tobytes() == found.tobytes()
    found, twin = np.empty(len(logits), real), np.empty(len(logits))
    kernels.logsumexp_rows(found, logits, isa=isa, n_threads=threads)
    reference.logsumexp_rows(twin, exact)
    np.testing.assert_allclose(found, twin, rtol=8 * eps, atol=8 * eps)


@examples(150)
@given(case=classified(), threads=st.sampled_from([1, 2, 3]), data=st.data())
def test_cross_entropy(kernels, case, threads, data):
    logits, labels, probs, weights, smoothing, k = case
    real, isa = logits.dtype, data.draw(st.sampled_from(kernels.available_isas()))
    finite = np.isfinite(logits).all()
    loss, grad = np.empty(len(logits), real), np.empty_like(logits)
    targets = _targets(kernels, labels, probs, weights, smoothing, k)
    kernels.cross_entropy_rows(loss, grad, logits, targets, isa=isa, n_threads=threads)
    twin, twin_grad = np.empty(len(logits)), np.empty(logits.shape)
    exact = None if probs is None else probs.astype(float)
    of_twin = _targets(reference, labels, exact, weights.astype(float), smoothing, k)
    reference.cross_entropy_rows(twin, twin_grad, logits.astype(float), of_twin)
    eps = float(np.finfo(real).eps)
    scale = np.maximum(1.0, np.abs(np.where(np.isfinite(logits), logits, 0.0)).max(axis=1))
    if finite:
        assert (np.abs(loss - twin) <= 40 * eps * weights * scale).all()
    else:
        assert np.array_equal(np.isnan(loss), np.isnan(twin))
        assert np.array_equal(np.isinf(loss), np.isinf(twin))
    error = np.abs(grad - twin_grad)
    assert (error <= 40 * eps * weights[:, np.newaxis]).all()


@st.composite
def features(draw, real):
    """Draw features as kernels take them: (given, the twin's, values in float64)."""
    rng = np.random.default_rng(draw(seeds))
    n, d = draw(st.sampled_from([0, 1, 2, 7, 63, 64, 65, 130])), draw(sizes)
    storage = draw(st.sampled_from(["real", "float32", "float16", "uint8", "int8", "CSR"]))
    X = rng.standard_normal((n, d)) * 5
    if storage == "CSR":
        X = np.where(rng.random(X.shape) < 0.3, X, 0.0).astype(real)
        matrix = sparse.csr_array(X)
        return (matrix.data, matrix.indices, matrix.indptr, d), X.astype(float)
    dtype = np.dtype(real if storage == "real" else storage)
    if dtype.kind in "iu":
        X = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, X.shape, endpoint=True)
    X = X.astype(dtype)
    if draw(st.booleans()):  # what is around rows is not to be read
        wide = np.full((n, d + 3), 99, dtype)
        wide[:, 1 : d + 1] = X
        X = wide[:, 1 : d + 1]
    elif draw(st.booleans()):
        X = np.asfortranarray(X)
    return X, X.astype(float)


@examples(150)
@given(data=st.data(), real=st.sampled_from(REALS), threads=st.sampled_from([1, 2, 3]))
def test_passes_over_features(kernels, data, real, threads):
    """Logits, predictions, loss and gradient."""
    given, values = data.draw(features(real))
    (n, d), k = values.shape, data.draw(st.integers(1, 35))
    rng = np.random.default_rng(data.draw(seeds))
    n_logits = 1 if k == 2 and data.draw(st.booleans()) else k
    how = {"isa": data.draw(st.sampled_from(kernels.available_isas())), "n_threads": threads}
    weights = (rng.standard_normal((n_logits, d)) / 30).astype(real)
    bias = rng.standard_normal(n_logits).astype(real)
    X = kernels.CsrRows(*given) if isinstance(given, tuple) else given
    exact = weights.astype(float), bias.astype(float)
    size = np.abs(values) @ np.abs(exact[0].T) + np.abs(exact[1]) + 1.0
    error = 4 * (d + 8) * float(np.finfo(real).eps) * size

    logits, twin = np.full((n, n_logits), np.nan, real), np.empty((n, n_logits))
    kernels.affine_rows(logits, X, weights, bias, **how)
    reference.affine_rows(twin, values, *exact)
    assert (np.abs(logits - twin) <= error).all()

    probs, of_twin = np.full((n, k), np.nan, real), np.empty((n, k))
    assert kernels.predict_rows(probs, X, weights, bias, False, **how)
    reference.predict_rows(of_twin, values, *exact, False)
    assert (np.abs(probs - of_twin) <= 4 * error.max(axis=1, keepdims=True)).all()
    _check_gradient(kernels, X, values, (weights, bias, k), how, rng)


def _check_gradient(kernels, X, values, model, how, rng):
    weights, bias, k = model
    n, real = len(values), weights.dtype
    if isinstance(X, kernels.CsrRows):  # (its gradients need columns: test_csr.py)
        return
    labels = rng.integers(k, size=n).astype(np.int32)
    row_weights = rng.choice([0.0, 0.5, 3.0], n).astype(real)
    grads = np.zeros(weights.shape), np.zeros(bias.shape)
    twins = np.zeros(weights.shape), np.zeros(bias.shape)
    targets = _targets(kernels, labels, None, row_weights, 0.1, k)
    found = kernels.loss_grad(*grads, X, targets, weights, bias, **how)
    targets = _targets(reference, labels, None, row_weights.astype(float), 0.1, k)
    exact = weights.astype(float), bias.astype(float)
    expected = reference.loss_grad(*twins, values, targets, *exact)
    unit = 40 * (values.shape[1] + 8) * float(np.finfo(real).eps)
    size = 1.0 + float((row_weights * (np.abs(values) @ np.abs(exact[0].T) + 3.0).max(1)).sum())
    assert abs(found[0] - expected[0]) <= unit * size
    limit = unit * (1.0 + (row_weights[:, np.newaxis] * np.abs(values)).sum(axis=0))
    assert (np.abs(grads[0] - twins[0]) <= limit * (1.0 + size / max(1, n))).all()
    again = np.zeros(weights.shape), np.zeros(bias.shape)
    one = how | {"n_threads": 1}
    kernels.loss_grad(*again, X, _targets(kernels, labels, None, row_weights, 0.1, k), weights,
                      bias, **one)  # fmt: skip
    assert again[0].tobytes() == grads[0].tobytes()
