"""Small problems on a Dask cluster, and the same in this process."""

import gc
import os
import signal
import time

import dask
import dask.array as da
import numpy as np
import pytest
from rows_in_parts import cut

from fastsoftmax import FastSoftmax
from fastsoftmax.dask import DaskFastSoftmax

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # (Windows has no SIGKILL)
SIZES = (150, 1, 249)

# Dask's own warnings on its way from one version of a dependency to the next, and sockets that
# close when a worker is killed.
MARKS = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def delayed(*arrays):
    """Partitions that are made on the workers."""
    load = dask.delayed(lambda *part: part, pure=False)
    return [load(*part) for part in cut(*arrays)]


def array(X):
    return da.from_array(X, chunks=(SIZES, *X.shape[1:]))


def pieces(X, y, n):
    return list(zip(np.array_split(X, n), np.array_split(y, n), strict=True))


def kill_workers(client, n=2):
    """Kill workers at once, and return their processes."""
    pids = [*client.run(os.getpid).values()][:n]
    for pid in pids:
        os.kill(pid, KILL)
    return pids


def made_before(client, names=("made_of",)):
    """What shards were made of that is still there: workers hear later that nobody needs it."""
    for _ in range(100):
        gc.collect()  # (errors refer to themselves)
        found = [key for key in client.who_has() if any(name in str(key) for name in names)]
        if not found:
            break
        time.sleep(0.05)
    return found


def local(*arrays, **parameters):
    """The fit in this process to the same shards."""
    options = {key: parameters.pop(key) for key in ("classes", "eval_set") if key in parameters}
    return FastSoftmax(**{"tol": 1e-6, **parameters}).fit(cut(*arrays), **options)


def remote(*args, **parameters):
    options = {
        key: parameters.pop(key)
        for key in ("classes", "eval_set", "callbacks")
        if key in parameters
    }
    return DaskFastSoftmax(**{"tol": 1e-6, **parameters}).fit(*args, **options)


def same(a, b):
    for name in ("coef_", "intercept_", "gap_", "objective_", "n_iter_", "classes_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.coef_.dtype == b.coef_.dtype and a.classes_.dtype == b.classes_.dtype
