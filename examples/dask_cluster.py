"""
A fit on a Dask cluster
=======================

Each worker loads and keeps its rows. Only sums are sent, and a worker may die.

The solver runs in this process. For every evaluation it asks all workers for the sums over their
rows. The result has the same bits as a fit in one process to the same partitions, even if a
worker is killed during the fit.
"""

import os
import signal
import sys

import dask
import matplotlib.pyplot as plt
from dask.distributed import Client

from fastsoftmax import FastSoftmax, plot
from fastsoftmax.dask import DaskFastSoftmax
from fastsoftmax.datasets import load_fashion_mnist_sample

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no SIGKILL


def load(part, step):
    """Return rows and labels of one of 4 partitions; this runs on a worker."""
    X, y = load_fashion_mnist_sample("train")
    rows = slice(250 * part, 250 * (part + 1))
    return X[rows, ::step], y[rows]


def kill_one(state):
    """Kill a worker in the third iteration."""
    if state.iteration == 3:
        os.kill(next(iter(client.run(os.getpid).values())), KILL)


if __name__ == "__main__":  # workers are new processes, which import this file
    step = 8 if "--small" in sys.argv else 1
    silent = {"dashboard_address": None, "silence_logs": "CRITICAL"}
    with Client(n_workers=2, threads_per_worker=1, **silent) as client:
        parts = [dask.delayed(load)(part, step) for part in range(4)]
        options = {"C": 0.01, "input_scale": 1 / 255, "solver": "lbfgs"}
        model = DaskFastSoftmax(**options).fit(parts, callbacks=[kill_one])
        print(f"gap {model.gap_:.0e} after {model.n_iter_[0]} iterations, one worker killed")
        print(f"training accuracy {model.score(parts):.2f}")
        here = FastSoftmax(**options).fit([load(part, step) for part in range(4)])
        print("the same bits as here:", (model.coef_ == here.coef_).all())
    plot.gap(model).set_title("a worker was killed in iteration 3")
    plt.show()
