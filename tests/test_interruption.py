"""Ctrl-C during long calls: kernels ask for signals between pieces of bounded work.

A timer stands for the user: its handler raises after a millisecond, in which no machine does more
than the first piece of what is given to the kernels here.
"""

import signal
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax
from fastsoftmax.backend import resolve_backend
from fastsoftmax.kernel_arguments import Descent, Scaling
from fastsoftmax.shards.csr_shard import columns_of
from fastsoftmax.threads import answering_signals, in_threads

kernels = pytest.importorskip("fastsoftmax.kernels")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a timer's signal")

N, D, K = 8192, 1024, 1024  # 2^33 multiply-adds of a product: two pieces, or more


class Interrupted(BaseException):
    pass


@contextmanager
def interrupted_soon():
    """Expect an exception from a signal's handler, in the midst of what is done."""

    def interrupt(*args):
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interrupted):
            time.sleep(0.06)  # a kernel that has just looked for signals looks again after 50 ms
            signal.setitimer(signal.ITIMER_REAL, 1e-3)
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    return {
        "X": rng.normal(size=(N, D)).astype(np.float32),
        "weights": rng.normal(size=(K, D)).astype(np.float32),
        "bias": np.zeros(K, dtype=np.float32),
        "labels": (np.arange(N) % K).astype(np.int32),
        "row_weights": np.ones(N, dtype=np.float32),
    }


@pytest.mark.parametrize("n_threads", [1, 2])
class TestOneCall:
    """One call of a kernel answers before its end: the last rows have not been written."""

    def test_predict_rows(self, model, n_threads):
        out = np.full((N, K), -1.0, dtype=np.float32)
        given = model["X"], model["weights"], model["bias"]
        with interrupted_soon():
            kernels.predict_rows(out, *given, False, n_threads=n_threads)
        assert (out[-1] == -1.0).all()

    def test_predict_top(self, model, n_threads):
        out = np.full((N, 1), -1)
        given = model["X"], model["weights"], model["bias"]
        with interrupted_soon():
            kernels.predict_top(out, None, *given, K, n_threads=n_threads)
        assert out[-1] == -1

    def test_affine_rows(self, model, n_threads):
        out = np.full((N, K), np.nan, dtype=np.float32)
        given = model["X"], model["weights"], model["bias"]
        with interrupted_soon():
            kernels.affine_rows(out, *given, n_threads=n_threads)
        assert np.isnan(out[-1]).all()

    @pytest.mark.parametrize("n_classes", [K, 64])
    def test_loss_grad(self, model, n_threads, n_classes):
        """With many coefficients by panels, with few by parts."""
        rows = np.arange(N * K // n_classes) % N
        weights, bias = model["weights"][:n_classes], model["bias"][:n_classes]
        labels = (rows % n_classes).astype(np.int32)
        X = model["X"][rows[: len(rows) // 2]] if n_classes < K else model["X"]
        row_weights = model["row_weights"][rows[: len(X)]]
        targets = kernels.Targets(labels[: len(X)], None, row_weights, 0.0, n_classes)
        out = np.empty(weights.shape), np.empty(n_classes)
        with interrupted_soon():
            kernels.loss_grad(*out, X, targets, weights, bias, n_threads=n_threads)

    def test_hessian_sums(self, model, n_threads):
        """Nothing is written before its end."""
        out = np.full((D, D), -1.0)
        X = np.concatenate([model["X"]] * 2)
        row_weights = np.ones(len(X), dtype=np.float32)
        given = model["weights"][:1], model["bias"][:1], Scaling(np.zeros(D), None, False)
        with interrupted_soon():
            kernels.hessian_sums(out, X, row_weights, *given, n_threads=n_threads)
        assert (out == -1.0).all()

    def test_feature_moments(self, n_threads):
        X, sums = sliding(3 << 20, 512), np.zeros((2, 512))
        ones = np.ones(len(X), np.float32)
        with interrupted_soon():
            given = X, ones, 0 * ones[:512], ones[:512]
            kernels.feature_moments(*sums, *given, n_threads=n_threads)

    def test_one_step(self, model, n_threads):
        """A step over a batch of any size is taken wholly or not at all."""
        params = np.zeros(K * (D + 1), dtype=np.float32)
        targets = kernels.Targets(model["labels"], None, model["row_weights"], 0.0, K)
        descent = Descent(N, 0.1, 0.0, 0.0, True)
        with interrupted_soon():
            kernels.sgd_steps(
                params, None, model["X"], targets, np.arange(N), descent, n_threads=n_threads
            )
        assert not params.any()


@pytest.mark.parametrize("as_csr", [False, True])
def test_whole_steps_are_kept(as_csr):
    """Of many small steps some have been taken, each wholly: else a model would be none at all."""
    rng = np.random.default_rng(0)
    n, d, k, batch = 1000, 30, 5, 2
    order = np.tile(np.arange(n), 500)
    X = rng.normal(size=(n, d))
    if as_csr:
        csr = sparse.csr_array(X)
        X = kernels.CsrRows(csr.data, csr.indices, csr.indptr, d)
    targets = kernels.Targets((np.arange(n) % k).astype(np.int32), None, np.ones(n), 0.0, k)
    params, expected = np.zeros((2, k * (d + 1)))
    descent = Descent(batch, 0.01, 0.0, 0.0, True)
    with interrupted_soon():
        kernels.sgd_steps(params, None, X, targets, order, descent)
    assert params.any()
    for start in range(0, len(order), batch):
        kernels.sgd_steps(expected, None, X, targets, order[start : start + batch], descent)
        if np.array_equal(expected, params):
            break
    assert 0 < start < len(order) - batch


def test_partial_fit_is_as_before(model):
    """An interrupted call leaves the model of the call before, which goes on as if it had none."""
    X, y = model["X"], model["labels"]
    options = {"batch_size": N, "momentum": 0.9, "random_state": 0, "learning_rate": 0.01}
    plain, other = (FastSoftmax(**options) for _ in range(2))
    with interrupted_soon():
        other.partial_fit(X, y, classes=range(K))
    assert not hasattr(other, "coef_")
    for fitted in (plain, other):
        fitted.partial_fit(X[:K], y[:K], classes=range(K))
    with interrupted_soon():
        other.partial_fit(X, y)
    assert other.n_iter_ == 1
    assert not other.converged_
    assert len(other.history_["loss"]) == 1
    for fitted in (plain, other):
        fitted.partial_fit(X[:K], y[:K])
    np.testing.assert_array_equal(other.coef_, plain.coef_)
    np.testing.assert_array_equal(other._velocity, plain._velocity)


def sliding(n_rows, n_features=D):
    """Many rows of bytes in little memory: they overlap."""
    numbers = np.random.default_rng(1).integers(0, 5, n_rows + n_features - 1, dtype=np.uint8)
    return np.lib.stride_tricks.sliding_window_view(numbers, n_features)


def targets_of(n_rows, n_classes):
    labels = (np.arange(n_rows) % n_classes).astype(np.int32)
    weights = np.ones(n_rows, dtype=np.float32)
    return kernels.Targets(labels, None, weights, 0.0, n_classes)


def loss_grad(model, X, n_classes):
    out = np.empty((n_classes, D)), np.empty(n_classes)
    coefficients = model["weights"][:n_classes] / D, model["bias"][:n_classes]
    loss = kernels.loss_grad(*out, X, targets_of(X.shape[0], n_classes), *coefficients, n_threads=2)
    return *out, loss


def every_third(model):
    """Sparse rows of the model's, each other columns."""
    at = np.arange(D) - np.arange(N)[:, np.newaxis]
    csr = sparse.csr_array(np.where(at % 3 == 0, model["X"], np.float32(0)))
    rows = kernels.CsrRows(csr.data, csr.indices, csr.indptr, D)
    rows.set_columns(*columns_of(csr, slice(0, N), kernels.panel_rows(64, 4)))
    return rows


def sgd_step(model):
    params = np.zeros(K * (D + 1), dtype=np.float32)
    given = model["X"], targets_of(N, K), np.arange(N), Descent(N, 0.1, 0.0, 0.0, True)
    kernels.sgd_steps(params, None, *given, n_threads=2)
    return (params,)


def logits(model, function, *more):
    out = np.zeros((N, K), dtype=np.float32)
    function(out, model["X"], model["weights"], model["bias"], *more, n_threads=2)
    return (out,)


def hessian(model):
    out, X = np.zeros((D, D)), sliding(1 << 14)
    given = model["weights"][:1] / D, model["bias"][:1], Scaling(np.zeros(D), None, False)
    kernels.hessian_sums(out, X, np.ones(len(X), dtype=np.float32), *given, n_threads=2)
    return (out,)


def moments(model):
    d, sums = 512, np.zeros((2, 512))
    X = sliding(3 << 20, d)
    ones = np.ones(len(X), np.float32)
    given = X, ones, 0 * ones[:d], ones[:d]
    return *sums, kernels.feature_moments(*sums, *given, n_threads=2)


# Calls that are cut into pieces in the main thread.
CUT = {
    "a pass by parts": lambda model: loss_grad(model, sliding(40_000), 64),
    "a pass by panels": lambda model: loss_grad(model, sliding(4096), K),
    "a pass over sparse rows": lambda model: loss_grad(model, every_third(model), 64),
    "a step": sgd_step,
    "logits": lambda model: logits(model, kernels.affine_rows),
    "probabilities": lambda model: logits(model, kernels.predict_rows, False),
    "a Hessian": hessian,
    "moments": moments,
}


@pytest.mark.parametrize("name", CUT)
def test_pieces_change_nothing(name, model):
    """Threads but the main one are not asked, so their work is not cut: the same bits."""
    there = []
    thread = threading.Thread(target=lambda: there.extend(CUT[name](model)))
    thread.start()
    thread.join()
    for here, other in zip(CUT[name](model), there, strict=True):
        assert np.any(here)
        np.testing.assert_array_equal(here, other)


def test_the_backend_is_the_compiled_one():
    assert resolve_backend("native") is kernels


class TestThreads:
    """Eigenvectors of a large matrix took seconds in one call, which answered nothing."""

    def test_the_main_thread_answers(self, ctrl_c):
        released, ended = threading.Event(), threading.Event()
        main = threading.get_ident()

        def blocks(value):
            signal.pthread_kill(main, signal.SIGINT)
            released.wait(60)
            ended.set()

        with pytest.raises(KeyboardInterrupt):
            answering_signals(10**4, blocks, 1)
        assert not ended.is_set()
        released.set()

    @pytest.mark.parametrize("order", [1, 10**4])
    def test_result_and_errors(self, order):
        with np.errstate(over="ignore"):
            assert answering_signals(order, np.multiply, np.float32(1e38), 10) == np.inf
        with pytest.raises(np.linalg.LinAlgError):
            answering_signals(order, np.linalg.inv, np.zeros((2, 2)))

    def test_what_nobody_wants_is_not_waited_for(self):
        released, ended = threading.Event(), threading.Event()

        def blocks(value):
            if value:
                released.wait(60)
                ended.set()
            return value

        results = in_threads(blocks, range(10), 2)
        assert next(results) == 0
        results.close()
        assert not ended.is_set()
        released.set()
