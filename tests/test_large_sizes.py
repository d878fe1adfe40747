"""Sizes whose products overflow 32 or 64 bits: a clear error at once, or the right result.

Arrays of one element that is read again and again (strides of 0) have any shape and no memory.
"""

import re

import numpy as np
import pytest
from scipy import sparse
from sparse_rows import random_array

from fastsoftmax import (
    FastSoftmax,
    accuracy,
    cross_entropy,
    linear_cross_entropy,
    logsumexp,
    softmax,
)
from fastsoftmax.kernel_arguments import Descent, Scaling

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# What is too large may be refused by numpy, by the system or by us, before any work is done.
REFUSED = (MemoryError, ValueError, OverflowError)
SIZES = [2**31 - 1, 2**31, 2**32 + 1, 2**40, 2**62]


def endless(shape, dtype=np.float64, value=0):
    """An array of any shape with one element."""
    return np.broadcast_to(np.asarray(value, dtype), shape)


def numpy_has(shape, dtype):
    """Whether numpy makes arrays of such a shape."""
    try:
        endless(shape, dtype)
    except ValueError:
        return False
    return True


def is_clear(error):
    """No error of the interpreter's insides, and a message."""
    message = str(error)
    return bool(message) and not re.search("Python int too large|negative dimensions", message)


def refused(call, *args, **kwargs):
    with pytest.raises(REFUSED) as caught:
        call(*args, **kwargs)
    assert is_clear(caught.value), caught.value


# ---- the bridge: shapes as it takes them, buffers that are far too small


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("real", [np.float32, np.float64])
class TestBridge:
    """Outputs of the right shape cannot be had, so every call has to be refused."""

    def test_rows(self, kernels, size, axis, real):
        shape = (size, 3) if axis == 0 else (3, size)
        if not numpy_has(shape, real):
            pytest.skip("numpy has no such shape")
        logits, out = endless(shape, real), np.zeros((3, 3), real)
        for name in ("softmax_rows", "log_softmax_rows"):
            refused(getattr(kernels, name), out, logits)
        refused(kernels.logsumexp_rows, np.zeros(5, real), logits)

    def test_models(self, kernels, size, axis, real):
        shape = (size, 3) if axis == 0 else (3, size)
        if not numpy_has(shape, real):
            pytest.skip("numpy has no such shape")
        X = endless(shape, real)
        for n_logits in (1, 3, 1 << 24, 2**31):
            if not numpy_has((n_logits, shape[1]), real):
                continue
            weights, bias = endless((n_logits, shape[1]), real), np.zeros(3, real)
            refused(kernels.predict_rows, np.zeros((3, 3), real), X, weights, bias, False)
            refused(kernels.affine_rows, np.zeros((3, 3), real), X, weights, bias)
            refused(
                kernels.predict_top, np.zeros((3, 1), np.int64), None, X, weights, bias, n_logits
            )
            targets = kernels.Targets(np.zeros(3, np.int32), None, np.ones(3, real), 0.0, 3)
            grads = np.zeros((3, 3)), np.zeros(3)
            refused(kernels.loss_grad, *grads, X, targets, weights, bias)
            refused(
                kernels.hessian_sums, np.zeros((3, 3)), X, np.ones(3, real), weights, bias,
                Scaling(np.zeros(3), None, False),
            )  # fmt: skip
        refused(
            kernels.sgd_steps, np.zeros(9, real), None, X, targets, np.arange(3),
            Descent(2**62, 0.1, 0.0, 0.0, True),
        )  # fmt: skip


@pytest.mark.parametrize("n_classes", [2**24 + 1, 2**31, 2**40, 2**63 - 1, 2**64, 10**30])
def test_classes_of_the_bridge(kernels, n_classes):
    refused(kernels.Targets, np.zeros(2, np.int32), None, np.ones(2), 0.0, n_classes)


@pytest.mark.parametrize("batch_size", [2**31, 2**32 + 3, 2**62])
def test_batches_larger_than_the_rows(kernels, batch_size):
    X, targets = np.eye(3), kernels.Targets(np.zeros(3, np.int32), None, np.ones(3), 0.0, 2)
    found = []
    for size in (3, batch_size):
        params = np.zeros(4)
        descent = Descent(size, 0.1, 0.0, 0.0, True)
        kernels.sgd_steps(params, None, X, targets, np.arange(3), descent)
        found.append(params)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("number", [2**31, 2**32, 2**62, 2**63 - 1, -1])
def test_row_numbers(kernels, number):
    """Rows that there are not are refused before any is read."""
    X, targets = np.eye(3), kernels.Targets(np.zeros(3, np.int32), None, np.ones(3), 0.0, 2)
    params = np.zeros(4)
    descent = Descent(3, 0.1, 0.0, 0.0, True)
    with pytest.raises(ValueError, match="order"):
        kernels.sgd_steps(params, None, X, targets, np.array([0, number]), descent)
    assert not params.any()


# ---- estimators and functions


class TestEstimator:
    """What needs terabytes is refused before it is begun."""

    @pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton-cholesky", "owlqn", "sgd"])
    @pytest.mark.parametrize("n_features", [2**38, 2**50])
    def test_features(self, solver, n_features):
        """Coefficients alone are terabytes. (Rows of zeros, so nothing else is wrong.)"""
        X = endless((4, n_features), np.int8)
        model = FastSoftmax(solver=solver, l1_ratio=0.5 if solver == "owlqn" else 0.0)
        with pytest.raises(MemoryError) as caught:
            model.fit(X, [0, 1, 2, 0])
        assert is_clear(caught.value)
        assert not [name for name in vars(model) if name.endswith("_")]

    @pytest.mark.parametrize("n_rows", [2**40, 2**60])
    def test_rows(self, n_rows):
        model = FastSoftmax().fit(np.eye(3), [0, 1, 2])
        X = endless((n_rows, 3), np.int8)
        for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            refused(getattr(model, name), X)
        refused(model.predict_topk, X, 2)

    @pytest.mark.parametrize("n_features", [2**31 - 1, 2**31, 2**40, 2**62])
    @pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
    def test_sparse_features(self, solver, n_features):
        """Of so many columns few have entries: a fit is to those, and the same."""
        small = random_array((30, 5), density=0.5, rng=np.random.default_rng(0), format="csr")
        columns = np.array([0, 7, 2**20, 2**30 + 1, n_features - 1])
        X = sparse.csr_array(
            (small.data, columns[small.indices], small.indptr.astype(np.int64)),
            shape=(30, n_features),
        )
        y = np.arange(30) % 3
        options = {"solver": solver, "max_iter": 3, "tol": 1e-9, "random_state": 0}
        try:
            model = FastSoftmax(**options, C=0.1).fit(X, y)
        except REFUSED as error:
            assert is_clear(error)
            return
        assert model.predict_proba(X).shape == (30, 3)
        assert np.isfinite(model.predict_log_proba(X)).all()
        if solver == "lbfgs":
            plain = FastSoftmax(**options, C=0.1).fit(small, y)
            np.testing.assert_allclose(
                model.predict_proba(X), plain.predict_proba(small), rtol=1e-6
            )

    @pytest.mark.parametrize("n_classes", [2**24 + 1, 2**31, 2**40])
    def test_classes(self, n_classes):
        """A column of probabilities for each of many classes: refused, whatever the rows."""
        probs = endless((2, n_classes), np.float32, 1.0 / n_classes)
        with pytest.raises(REFUSED) as caught:
            FastSoftmax().fit(np.eye(2), probs[:, : 2**33])
        assert is_clear(caught.value)

    @pytest.mark.parametrize("name", ["batch_size", "max_iter"])
    @pytest.mark.parametrize("value", [2**31, 2**40, 2**62, 2**63, 10**30])
    def test_parameters(self, name, value):
        """Numbers that no integer of C holds are as good as any large one, or refused."""
        if name == "max_iter":
            model = FastSoftmax(max_iter=value)
        else:
            model = FastSoftmax(solver="sgd", max_iter=2, batch_size=value, random_state=0)
        try:
            model.fit(np.eye(3), [0, 1, 2])
        except REFUSED as error:
            assert name in str(error)
        else:
            assert model.predict(np.eye(3)).shape == (3,)


@pytest.mark.parametrize("shape", [(2**40, 3), (3, 2**40), (2**31, 2**28), (2**20, 2**20, 2**19)])
def test_functions(shape):
    logits = endless(shape, np.float32)
    refused(softmax, logits)
    if len(shape) == 2:
        refused(cross_entropy, logits, endless(shape[:1], np.int64))
        if 2**40 in shape:
            refused(logsumexp, logits, axis=0 if shape[1] == 2**40 else 1)
        if shape[0] == 2**40:
            refused(accuracy, endless(shape, np.float32), endless(shape[:1], np.int64))


def test_linear_cross_entropy():
    """The model alone is terabytes: refused before a row is read."""
    X = endless((2, 2**40), np.float32)
    refused(linear_cross_entropy, X, endless((3, 2**40), np.float32), np.zeros(3), [0, 1])


# ---- real sizes


@pytest.mark.long
def test_more_than_2_to_the_31_elements(tmp_path):
    """3,000,000 rows of 800 bytes in a sparse file: places beyond 2^31 are read, each once.

    The classes are those of the few rows that are not 0, at both ends and beside 2^31.
    """
    n, d = 3_000_000, 800
    path = tmp_path / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", np.uint8, (n, d))
    places = np.array([0, 1, 2**31 // d - 1, 2**31 // d, 2**31 // d + 1, n - 2, n - 1])
    X[places, places % d] = 200
    X[places, d - 1] = 7
    X.flush()
    y = np.zeros(n, np.int8)
    y[places] = np.arange(len(places)) % 2 + 1
    weights = np.zeros(n)
    weights[places] = 1.0
    weights[:5] = 1.0
    rows = np.flatnonzero(weights)
    options = {"solver": "lbfgs", "C": 0.1, "tol": 1e-6, "input_scale": 1 / 255, "n_jobs": 2}
    read = np.load(path, mmap_mode="r")
    model = FastSoftmax(**options).fit(read, y, sample_weight=weights)
    few = FastSoftmax(**options).fit(np.ascontiguousarray(read[rows]), y[rows])
    np.testing.assert_allclose(model.coef_, few.coef_, atol=1e-5)
    probs = model.predict_proba(read)
    expected = model.predict_proba(np.ascontiguousarray(read[places]))
    np.testing.assert_array_equal(probs[places], expected)
