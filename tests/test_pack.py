"""Features in any memory order: the same bits as in C order, and no copy of X as a whole."""

import tracemalloc

import numpy as np
import pytest

from fastsoftmax import FastSoftmax, linear_cross_entropy
from fastsoftmax.kernel_arguments import Descent

LAYOUTS = {
    "fortran": np.asfortranarray,
    "every third column": lambda x: np.repeat(np.repeat(x, 3, axis=1), 2, axis=0)[::2, ::3],
    "backwards": lambda x: np.asfortranarray(x[::-1, ::-1])[::-1, ::-1],
    "columns backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    """A function that gives a matrix another memory order."""
    return LAYOUTS[request.param]


def features(rng, n, d, storage):
    x = 30 * rng.normal(size=(n, d))
    return x.astype(storage) if np.dtype(storage).kind in "iu" else (x / 30).astype(storage)


@pytest.mark.parametrize(
    "sizes", [(1, 5, 3), (70, 9, 1), (300, 130, 12), (2000, 300, 1000)], ids=str
)
def test_bits(kernels, isa, real, storage, rng, layout, sizes):
    n, d, n_logits = sizes
    if n_logits == 1000 and (real == np.float64 or storage != real):
        pytest.skip("panels: once is enough")
    n_classes = max(2, n_logits)
    X = features(rng, n, d, storage)
    W, b = rng.normal(size=(n_logits, d)).astype(real) / 10, rng.normal(size=n_logits).astype(real)
    labels = rng.integers(n_classes, size=n).astype(np.int32)
    weights, order = np.ones(n, real), rng.permutation(n).astype(np.int64)
    descent = Descent(7, 0.1, 0.0, 0.0, True)

    def results(X, n_threads):
        options = {"isa": isa, "n_threads": n_threads}
        gradients = np.empty((n_logits, d)), np.empty(n_logits)
        logits, probs = np.empty((n, n_logits), real), np.empty((n, n_classes), real)
        top = np.empty((n, 2), np.int64)
        params = np.concatenate([W.ravel(), b])
        targets = kernels.Targets(labels, None, weights, 0.0, n_classes)
        return [
            kernels.loss_grad(*gradients, X, targets, W, b, **options),
            kernels.loss_grad(None, None, X, targets, W, b, **options),
            kernels.affine_rows(logits, X, W, b, **options),
            kernels.predict_rows(probs, X, W, b, False, **options),
            kernels.predict_top(top, None, X, W, b, n_classes, **options),
            kernels.sgd_steps(params, None, X, targets, order, descent, **options),
            *gradients, logits, probs, top, params,
        ]  # fmt: skip

    expected = results(X, 1)
    for n_threads in (1, 3):
        for a, e in zip(results(layout(X), n_threads), expected, strict=True):
            np.testing.assert_array_equal(a, e)


def test_nothing_as_large_as_X_is_made(kernels, rng):
    X = np.asfortranarray(rng.normal(size=(20000, 100)).astype(np.float32))
    y = (np.arange(20000) % 3).astype(np.int32)
    model = FastSoftmax(n_jobs=2, max_iter=1, solver="lbfgs")
    tracemalloc.start()
    try:
        with pytest.warns(match="max_iter"):
            model.fit(X, y)
        model.predict_proba(X[:100])
        linear_cross_entropy(X, model.coef_, model.intercept_, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 2


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky", "sgd"])
def test_fit(rng, layout, solver):
    X = rng.normal(size=(200, 7))
    y = X[:, :3].argmax(axis=1)
    options = {"solver": solver, "max_iter": 20 if solver == "sgd" else 1000, "random_state": 0}
    expected = FastSoftmax(**options).fit(X, y)
    actual = FastSoftmax(**options).fit(layout(X), y)
    np.testing.assert_allclose(actual.coef_, expected.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(actual.predict(layout(X)), expected.predict(X))
