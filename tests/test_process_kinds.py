"""Fits and predictions in processes of every kind, in threads and in greenlets: the same bits."""

import os
import threading
from importlib.util import find_spec

import numpy as np
import pytest
from sparse_rows import random_array

from fastsoftmax import FastSoftmax

SETTING = """
import os, sys, threading, time
import numpy as np
from scipy import sparse
from fastsoftmax import FastSoftmax, FastSoftmaxCV

rng = np.random.default_rng(0)
X = rng.normal(size=(3000, 60)).astype(np.float32)
y = X[:, :4].argmax(axis=1)
S = sparse.csr_array(np.where(X > 0.5, X, 0))
parts = [(X[i:i + 500], y[i:i + 500]) for i in range(0, 3000, 500)]
common = {"n_jobs": 2, "max_iter": 4, "tol": 0.3, "random_state": 0}
cases = [
    (FastSoftmax(solver="lbfgs", **common), (X, y)),
    (FastSoftmax(solver="newton-cholesky", **common), (X[:, :8], y)),
    (FastSoftmax(solver="lbfgs", **common), (S, y)),
    (FastSoftmax(solver="sgd", **common), (X, y)),
    (FastSoftmax(solver="lbfgs", **common), (parts,)),
]

def result(model, data):
    predicted = model.predict_proba(data[0][0][0] if len(data) == 1 else data[0])
    return model.coef_.tobytes(), predicted.tobytes()

expected = [result(model.fit(*data), data) for model, data in cases]
"""

PROCESSES = """
import multiprocessing

with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
    jobs = [pool.apply_async(model.fit, data) for model, data in 2 * cases]
    found = [job.get(100) for job in jobs]
    assert [result(m, d) for m, (_, d) in zip(found, 2 * cases)] == 2 * expected
    jobs = [pool.apply_async(model.predict_proba, data[:1]) for model, data in cases[:4]]
    assert [job.get(100).tobytes() for job in jobs] == [probs for _, probs in expected[:4]]
assert [result(model.fit(*data), data) for model, data in cases] == expected, "afterwards"
print("done")
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize("method", ["fork", "spawn", pytest.param("forkserver", marks=SLOW)])
def test_processes(method, run_python):
    multiprocessing = pytest.importorskip("multiprocessing")
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("no such processes on this system")
    assert run_python(SETTING + PROCESSES, method).endswith("done\n")


JOBLIB = """
from joblib import Parallel, delayed
from sklearn.model_selection import cross_val_predict

for backend in ("loky", "multiprocessing", "threading"):
    found = Parallel(2, backend=backend)(delayed(model.fit)(*data) for model, data in cases)
    assert [result(m, d) for m, (_, d) in zip(found, cases)] == expected, backend
model = cases[0][0]
one, two = (cross_val_predict(model, X, y, cv=4, n_jobs=n).tobytes() for n in (1, 2))
assert one == two
print("done")
"""


@pytest.mark.slow
def test_joblib(run_python):
    assert run_python(SETTING + JOBLIB).endswith("done\n")


# A thread of each kind of call at the time of the fork: the child has none of them.
FORKS = """
over, n_children = threading.Event(), 5

def work(case):
    model, data = case
    while not over.is_set():
        model.fit(*data)

threads = [threading.Thread(target=work, args=(case,)) for case in cases]
for thread in threads:
    thread.start()
for i in range(n_children):
    time.sleep(0.01)
    child = os.fork()
    if not child:
        try:
            fresh = [(FastSoftmax(**model.get_params()), data) for model, data in cases]
            same = [result(model.fit(*data), data) for model, data in fresh] == expected
        except BaseException:
            same = False
        os._exit(0 if same else 1)
    end = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
            over.set()
            raise AssertionError("a child hangs")
        time.sleep(0.001)
    assert ended[1] == 0, "other bits, or an error, in a child"
over.set()
for thread in threads:
    thread.join()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks_while_threads_fit(run_python):
    """A child does not wait for a lock that another thread held (as functools' properties have)."""
    assert run_python(SETTING + FORKS).endswith("done\n")


GEVENT = """
import gevent

jobs = [gevent.spawn(FastSoftmax(**model.get_params()).fit, *data) for model, data in 3 * cases]
gevent.joinall(jobs, raise_error=True)
found = [job.value for job in jobs]
assert [result(m, d) for m, (_, d) in zip(found, 3 * cases)] == 3 * expected
threads = [threading.Thread(target=model.fit, args=data) for model, data in cases]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert [result(model, data) for model, data in cases] == expected
print("done")
"""


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
@pytest.mark.parametrize("patched", [True, False])
def test_gevent(patched, run_python):
    """Threads of Python that are greenlets: they switch only where one waits."""
    patch = "from gevent import monkey\nmonkey.patch_all()\n" if patched else ""
    assert run_python(patch + SETTING + GEVENT).endswith("done\n")


# ---- threads of Python


def in_many_threads(calls, n_threads=8):
    """Results of calls, all of which begin at once, each in a thread and several times over."""
    start, results = threading.Barrier(n_threads), [None] * n_threads

    def work(i):
        start.wait()
        results[i] = [calls[(i + j) % len(calls)]() for j in range(len(calls))]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    n = len(calls)
    return [[found[(k - i) % n] for i, found in enumerate(results)] for k in range(n)]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 20))
    y = X[:, :3].argmax(axis=1)
    wide = random_array((400, 5000), density=0.001, rng=rng, format="csr")
    return X, wide, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_threads_with_estimators_of_their_own(data):
    y = data[2]
    common = {"n_jobs": 2, "random_state": 0, "max_iter": 5}
    calls = [
        lambda solver=solver, X=X: FastSoftmax(solver=solver, **common).fit(X, y).coef_.tobytes()
        for solver in ("lbfgs", "newton-cholesky", "sgd")
        for X in (data[0], data[1][:, :30])
    ]
    expected = [call() for call in calls]
    for results, one in zip(in_many_threads(calls), expected, strict=True):
        assert set(results) == {one}


def test_threads_with_the_same_estimator(data):
    X, wide, y = data
    model = FastSoftmax(solver="lbfgs", n_jobs=2).fit(X, y)
    calls = [
        lambda: model.predict_proba(X).tobytes(),
        lambda: model.predict(X[:7]).tobytes(),
        lambda: model.predict_topk(X, 2)[1].tobytes(),
        lambda: np.float64(model.score(X, y)).tobytes(),
    ]
    expected = [call() for call in calls]
    for results, one in zip(in_many_threads(calls), expected, strict=True):
        assert set(results) == {one}
    for _ in range(20):  # the whole matrix is made where coef_ is first read
        sparse_model = FastSoftmax(solver="lbfgs", max_iter=2, tol=0.9).fit(wide, y)
        reads = [
            lambda model=sparse_model: model.coef_.tobytes(),
            lambda model=sparse_model: model.predict_proba(wide).tobytes(),
        ]
        assert [len(set(results)) for results in in_many_threads(reads)] == [1, 1]
