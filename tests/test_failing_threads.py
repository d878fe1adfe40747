"""Threads that the system refuses to the kernels and to Python, from each on: the same bits."""

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("fastsoftmax.kernels")
from failing_memory import compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler, and Linux")

# Each case in a forked child, which has no threads yet and asks for all of its own.
REFUSED = """
import ctypes, os, sys, warnings
import numpy as np
from scipy import sparse
from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax.datasets import iter_batches

warnings.simplefilter("ignore")
shim = ctypes.CDLL(None)
shim.refuse_threads.argtypes = [ctypes.c_long] * 2
rng = np.random.default_rng(0)
X = rng.normal(size=(6000, 120)).astype(np.float32)
y = X[:, :4].argmax(axis=1)
S = sparse.csr_array(np.where(X > 0.5, X, 0))
parts = [(X[i:i + 1000], y[i:i + 1000]) for i in range(0, 6000, 1000)]
common = {"n_jobs": 4, "max_iter": 3, "random_state": 0}

def run():
    ahead = iter_batches(X, y, batch_size=1500, prefetch=2, random_state=0)
    models = [
        FastSoftmax(solver="lbfgs", **common).fit(X, y),
        FastSoftmax(solver="lbfgs", **common).fit(S, y),
        FastSoftmax(solver="sgd", **common).fit(X, y),
        FastSoftmax(solver="lbfgs", **common).fit(parts),
        FastSoftmax(solver="sgd", **common).fit(ahead),
        FastSoftmax(solver="newton-cholesky", **common).fit(X, y),
        FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, n_jobs=4, max_iter=3).fit(X[:, :9], y),
    ]
    results = [(m.coef_, m.predict_proba(X[:, :m.n_features_in_])) for m in models]
    return b"".join(part.tobytes() for result in results for part in result)

def in_child(first, until):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        shim.refuse_threads(first, until)
        try:
            result = run() + shim.threads_asked_for().to_bytes(8, "big")
        except BaseException as error:
            import traceback; result = "".join(traceback.format_exception(error)[-4:]).encode()
        with os.fdopen(writer, "wb") as file:
            file.write(result)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return result[:-8], int.from_bytes(result[-8:], "big"), result[-1500:].decode(errors="replace")

expected, n_threads, _ = in_child(0, 0)
assert n_threads > 3, n_threads
numbers = sorted({1, 2, 3, 4, n_threads // 2, n_threads})
for number in numbers:
    for until in (number + 1, 10**9)[number == n_threads:]:
        found, _, last = in_child(number, until)
        assert found == expected, (number, until, last)
print(n_threads, "done")
"""


def test_refused_from_each_one_on(tmp_path, run_python):
    library = tmp_path / "failing_threads.so"
    source = Path(__file__).parent / "c" / "failing_threads.c"
    options = ["-std=c11", "-O1", "-shared", "-fPIC", "-fvisibility=hidden"]
    subprocess.run([compiler(), *options, source, "-o", library, "-ldl", "-pthread"], check=True)
    # (OpenBLAS sends SIGINT to the process where it gets no thread)
    environment = {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}
    assert run_python(REFUSED, **environment).endswith("done\n")
