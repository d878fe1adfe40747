"""The same bits for any number of threads, in threads of Python and in processes; the GIL."""

import os
import sys
import threading

import numpy as np
import pytest

from fastsoftmax import FastSoftmax, threads
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.threads import in_threads

# A small tour of the kernels in one call; its result is a bytes object.
TOUR = """
import numpy as np
from fastsoftmax import kernels
from fastsoftmax.kernel_arguments import Descent

def tour(n_threads, isa=None, real=np.float32):
    rng = np.random.default_rng(5)
    n, d, n_classes = 2100, 180, 24
    X = rng.normal(size=(n, d)).astype(real)
    weights, bias = rng.normal(size=(n_classes, d)).astype(real), np.zeros(n_classes, dtype=real)
    labels, row_weights = rng.integers(n_classes, size=n).astype(np.int32), np.ones(n, dtype=real)
    how = {"isa": isa, "n_threads": n_threads}
    logits, out = np.empty((2, n, n_classes), dtype=real)
    row_out = np.empty(n, dtype=real)
    result = []
    kernels.affine_rows(logits, X, weights, bias, **how)
    for name in ("softmax_rows", "log_softmax_rows"):
        getattr(kernels, name)(out, logits, **how)
        result += [logits.tobytes(), out.tobytes()]
    kernels.logsumexp_rows(row_out, logits, **how)
    result.append(row_out.tobytes())
    smooth = kernels.Targets(labels, None, row_weights, 0.1, n_classes)
    kernels.cross_entropy_rows(row_out, out, logits, smooth, **how)
    result += [row_out.tobytes(), out.tobytes()]
    grads = np.empty((n_classes, d)), np.empty(n_classes)
    targets = kernels.Targets(labels, None, row_weights, 0.0, n_classes)
    sums = kernels.loss_grad(*grads, X, targets, weights, bias, **how)
    result += [np.array(sums).tobytes(), grads[0].tobytes(), grads[1].tobytes()]
    params = np.append(weights.ravel(), bias)
    order, descent = rng.permutation(n), Descent(700, 0.1, 0.9, 0.01, True)
    sums = kernels.sgd_steps(params, np.zeros_like(params), X, targets, order, descent, **how)
    return b"".join([*result, np.array(sums).tobytes(), params.tobytes()])
"""

THREADS = [1, 2, 3, 7, 64]

# (n, d, d in float64, n_classes) of loss_grad: see CUTS in test_loss_grad.py.
PASSES = {
    "parts": (700, 100, 100, 120),
    "64 parts": (8250, 56, 56, 64),
    "a panel": (290, 5250, 2630, 50),
    "panels": (2060, 70, 35, 3900),
}


@pytest.fixture(scope="module")
def tour(kernels):
    """What a tour of the kernels gives, as bytes."""
    names = {}
    exec(TOUR, names)
    return names["tour"]


def test_threads_do_not_change_a_bit(tour, isa, real):
    expected = tour(1, isa, real)
    for n_threads in (*THREADS, 2):
        assert tour(n_threads, isa, real) == expected, n_threads


@pytest.mark.parametrize("name", PASSES)
def test_passes_cut_in_any_way(name, kernels, make_problem, isa, real):
    n, d, d_double, n_classes = PASSES[name]
    problem = make_problem(n, d if real is np.float32 else d_double, n_classes)
    expected = None
    for n_threads in THREADS if name != "panels" else (1, 3):
        out = np.empty(problem.weights.shape), np.empty(problem.bias.shape)
        sums = kernels.loss_grad(*out, *problem.whole(kernels), isa=isa, n_threads=n_threads)
        expected = expected or (sums, *out)
        assert sums == expected[0]
        np.testing.assert_array_equal(out[0], expected[1])
        np.testing.assert_array_equal(out[1], expected[2])
    for n_threads in (1, 3) if name != "panels" else (3,):
        sums = kernels.loss_grad(None, None, *problem.whole(kernels), isa=isa, n_threads=n_threads)
        assert sums == expected[0]


@pytest.mark.parametrize(("d", "n_classes"), [(784, 10), (2000, 70)])
def test_batches_cut_in_any_way(d, n_classes, kernels, make_problem, isa, rng):
    """The update too is divided among threads where there are many parameters."""
    problem = make_problem(300, d, n_classes)
    order = rng.integers(300, size=600)
    expected = None
    for n_threads in THREADS:
        params, velocity = problem.params, np.zeros_like(problem.params)
        how = Descent(256, 0.1, 0.9, 0.01, True)
        sums = kernels.sgd_steps(
            params, velocity, *problem.rows(kernels), order, how, isa=isa, n_threads=n_threads
        )
        expected = expected or (sums, params, velocity)
        assert sums == expected[0]
        np.testing.assert_array_equal(params, expected[1])
        np.testing.assert_array_equal(velocity, expected[2])


def test_any_bits_of_memory_before(kernels, isa, make_problem, real):
    """Results come from the inputs alone: outputs and scratch may hold anything before."""
    problem = make_problem(300, 20, 5)
    expected = None
    for fill in (0.0, np.nan, np.inf, -1e30):
        garbage = [np.full(k, fill) for k in (1000, 30_000, 100_000)]
        del garbage  # memory that is likely to be handed out again
        out = np.full(problem.weights.shape, fill), np.full(problem.bias.shape, fill)
        sums = kernels.loss_grad(*out, *problem.whole(kernels), isa=isa, n_threads=2)
        expected = expected or (sums, *out)
        assert sums == expected[0]
        np.testing.assert_array_equal(out[0], expected[1])
        np.testing.assert_array_equal(out[1], expected[2])


def test_kernels_have_threads(kernels):
    """Built without the atomics of C11, as by old compilers of Microsoft, they are serial."""
    assert kernels.openmp() or kernels.max_threads() >= min(2, os.cpu_count() or 1)


def test_python_threads(tour):
    """Several threads at once share the pool."""
    expected, results = tour(1), {}

    def work(i):
        results[i] = [tour(n_threads) for n_threads in (1, 2, 3)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    assert all(result == expected for some in results.values() for result in some)


FORK = """
import os, sys

before = sys.argv[1] == "parallel"  # whether the parent had threads before it forked

def in_child(generations):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        result = tour(2)
        if generations > 1:
            assert in_child(generations - 1) == result
        with os.fdopen(writer, "wb") as file:
            file.write(result)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return result

if before:
    first = tour(2)
children = [in_child(2), in_child(1)]
expected = tour(1)
assert children == [expected] * 2, "bits in the children"
assert tour(2) == expected, "bits in the parent afterwards"
if before:
    assert first == expected
    assert in_child(1) == expected
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("before", ["parallel", "serial"])
def test_forked_children(before, kernels, run_python):
    """The threads of the parent are not in the child, which starts its own."""
    assert run_python(TOUR + FORK, before) == "done\n"


POOL = """
import multiprocessing

if __name__ == "__main__":
    expected = tour(2)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(tour, [1, 2, 3]) == [expected] * 3
    print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_pool(kernels, run_python):
    assert run_python(TOUR + POOL) == "done\n"


LOKY = """
from joblib import Parallel, delayed

if __name__ == "__main__":
    expected = tour(2)
    for backend in ("loky", "threading"):
        results = Parallel(n_jobs=2, backend=backend)(delayed(tour)(n) for n in (1, 2, 3, 7))
        assert results == [expected] * 4, backend
    print("done")
"""


def test_joblib(kernels, run_python):
    assert run_python(TOUR + LOKY) == "done\n"


LIMITS = """
import threadpoolctl

assert kernels.max_threads() == 2 or not kernels.openmp(), kernels.max_threads()
expected = tour(1)
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    assert kernels.max_threads() == 1 or not kernels.openmp()
    assert tour(2) == expected
assert tour(2) == expected
print("done")
"""


def test_limits_are_seen(kernels, run_python):
    """OMP_NUM_THREADS and threadpoolctl decide max_threads()."""
    pytest.importorskip("threadpoolctl")
    assert run_python(TOUR + LIMITS, OMP_NUM_THREADS="2") == "done\n"


BESIDE = """
import sys
from importlib.util import find_spec
from sklearn.ensemble import HistGradientBoostingClassifier
from fastsoftmax import FastSoftmax

def gradient_boosting():
    HistGradientBoostingClassifier(max_iter=3).fit(X, y)

def torch_product():
    import torch
    assert torch.ones(300, 300).mm(torch.ones(300, 300)).sum() == 300**3

X = np.random.default_rng(0).normal(size=(4000, 60))
y = X[:, :3].argmax(axis=1)
others = [gradient_boosting] + [torch_product] * (find_spec("torch") is not None)
if "before" in sys.argv:
    for other in reversed(others):
        other()
expected = FastSoftmax(n_jobs=2).fit(X, y).coef_
for other in others:
    other()
    assert (FastSoftmax(n_jobs=2).fit(X, y).coef_ == expected).all(), other
print("done")
"""


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("order", ["before", "after"])
def test_beside_other_openmp(order, run_python):
    """scikit-learn and PyTorch bring an OpenMP each; whichever is loaded first, all work."""
    assert run_python(TOUR + BESIDE, order, OMP_NUM_THREADS="2") == "done\n"


STATE = """
import ctypes

libm = ctypes.CDLL(None)
before = libm.fegetround()
tiny = np.float32(1e-38)
expected = tour(2)
assert libm.fegetround() == before == 0
assert tiny / np.float32(8) > 0, "subnormal numbers are flushed to zero"
assert tour(3) == expected
print("done")
"""


@pytest.mark.skipif(os.name != "posix", reason="fegetround is looked up in the process itself")
def test_float_state_is_left_alone(kernels, run_python):
    assert run_python(TOUR + STATE) == "done\n"


LONG = {
    # What another thread can see of an output while a call is under way, and in no other moment.
    "exp_values": ("out", (4_000_000,)),
    "softmax_rows": ("out", (200_000, 20)),
    "log_softmax_rows": ("out", (200_000, 20)),
    "cross_entropy_rows": ("grad", (200_000, 20)),
    "affine_rows": ("logits", (200_000, 20)),
}


def long_call(kernels, name, shape):
    """Output and call, which takes some milliseconds and writes from the first row to the last."""
    rows = np.zeros(shape, dtype=np.float32)
    if name == "affine_rows":
        weights, bias = np.zeros((shape[1], 50), np.float32), np.zeros(shape[1], np.float32)
        X = np.zeros((shape[0], 50), np.float32)
        return rows, lambda: kernels.affine_rows(rows, X, weights, bias)
    logits = np.zeros(shape, dtype=np.float32)
    if name == "cross_entropy_rows":
        loss, labels = np.empty(shape[0], np.float32), np.ones(shape[0], np.int32)
        ones = np.ones(shape[0], np.float32)
        targets = kernels.Targets(labels, None, ones, 0.0, shape[1])
        return rows, lambda: kernels.cross_entropy_rows(loss, rows, logits, targets)
    return rows, lambda: getattr(kernels, name)(rows, logits)


@pytest.mark.parametrize("name", LONG)
def test_the_gil_is_let_go(name, kernels):
    """Another thread sees the first row written and the last one not, which it cannot otherwise."""
    out, call = long_call(kernels, name, LONG[name][1])
    first, last = out.reshape(-1)[:1], out.reshape(-1)[-1:]
    seen, stop = threading.Event(), threading.Event()

    def watch():
        while not stop.is_set() and not seen.is_set():
            if first[0] != 7 and last[0] == 7:
                seen.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(1000):
            last[0] = first[0] = 7
            call()
            if seen.is_set():
                break
    finally:
        stop.set()
        watcher.join()
    assert seen.is_set()


# ---- threads that the system refuses

REFUSED = """
import os, resource, sys
from fastsoftmax import FastSoftmax

expected = tour(1)
kind, left = sys.argv[1], int(sys.argv[2])
if kind == "address space":
    n_bytes = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes + (left << 20),) * 2)
else:
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    except PermissionError:
        if os.getuid() == 0:
            print("skip")
            sys.exit()
    resource.setrlimit(resource.RLIMIT_NPROC, (left,) * 2)
for n_threads in (64, 2, 3, 64, 16):
    assert tour(n_threads) == expected, n_threads
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")
@pytest.mark.parametrize(
    ("kind", "left"),
    [("address space", 60), ("address space", 300), ("processes", 0), ("processes", 8)],
)
def test_refused_threads(kind, left, kernels, run_python):
    """The work is done by those that there are."""
    printed = run_python(TOUR + REFUSED, kind, str(left))
    if printed == "skip\n":
        pytest.skip("no other user can be taken here, and limits do not bind root")
    assert printed == "done\n"


@pytest.fixture
def no_threads(monkeypatch):
    """Returns a function after which Python starts no more than so many threads."""
    helpers = threads._Helpers()  # those of other tests have theirs
    monkeypatch.setattr(threads, "_helpers", helpers)

    def allow(n_threads):
        started, start = [], threading.Thread.start

        def refuse(self):
            if len(started) >= n_threads:
                raise RuntimeError("can't start new thread")
            started.append(self)
            start(self)

        monkeypatch.setattr(threading.Thread, "start", refuse)

    return allow


@pytest.mark.parametrize("n_allowed", [0, 1, 2, 4])
def test_results_in_fewer_threads(n_allowed, no_threads):
    no_threads(n_allowed)
    assert [int(a) for a in in_threads(np.array, range(20), 4)] == list(range(20))


def test_others_do_the_calls_of_a_thread_that_is_held_up():
    """The calling thread waits for calls that are under way, and for no thread."""
    held_up, released = [], threading.Event()

    def call(value):
        if threading.current_thread() is not threading.main_thread() and value:
            held_up.append(value)
            released.wait(60)  # as where the system does not run it
        return np.array(value)

    results, before = in_threads(call, range(20), 2), []
    while not held_up and len(before) < 19:
        before.append(int(next(results)))
    released.set()
    assert [*before, *map(int, results)] == list(range(20))


def test_ctrl_c_in_a_call(no_threads):
    """It is answered at once, not when the turn of the call has come."""
    no_threads(0)
    begun = []

    def call(value):
        begun.append(value)
        if value == 1:
            raise KeyboardInterrupt
        return np.array(value)

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(call, range(20), 2))
    assert begun == [0, 1]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fits_without_a_thread(no_threads, rng):
    """A fit of 700 features inverts a matrix in a thread, so that the main one answers Ctrl-C."""
    X, y = rng.normal(size=(900, 700)), rng.integers(3, size=900)
    models = [FastSoftmax(n_jobs=n, max_iter=3, tol=1e-12) for n in (1, 3)]
    expected = models[0].fit(X, y).coef_
    no_threads(0)
    for model in models:
        np.testing.assert_array_equal(model.fit(X, y).coef_, expected)
