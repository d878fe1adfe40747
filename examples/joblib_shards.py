"""
Shards in other processes
=========================

A fit asks its shards questions, and adds up the answers (`fastsoftmax/shards/protocol.py`). So they
may be anywhere. Here each is a file that processes of joblib read; the fit has the same bits as one
in this process, of the same shards. A cluster needs no more than this class.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from fastsoftmax.backend import resolve_backend
from fastsoftmax.datasets import load_fashion_mnist_sample
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.optimum.stage import Limits
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.protocol import Facts
from fastsoftmax.shards.rows import Rows, build_shard


def made(path):
    """Return the shard of a file. Row weights have mean 1, and labels are 0, 1, ..."""
    part = np.load(path)
    ones = np.ones(len(part["y"]), dtype=np.float32)
    backend = resolve_backend("auto")
    return build_shard(part["X"], part["y"].astype(np.int32), None, ones, 10, backend=backend)


def answered(path, question, args, options):
    """Answer for one shard, in whatever process."""
    return question(made(path), *args, **options)


class JoblibShards:
    survey = None  # nothing is known from a pass before

    def __init__(self, paths, n_rows):
        self.paths, self.like = paths, made(paths[0])
        self.facts = Facts(n_rows, len(paths), self.like.numbers_per_row * n_rows, True, False)

    def ask(self, question, *args, **options):
        """Yield the answers in the order of the shards."""
        calls = (delayed(answered)(path, question, args, options) for path in self.paths)
        yield from Parallel(n_jobs=2, return_as="generator")(calls)


# %%
# Four files, and the fit.
X, y = load_fashion_mnist_sample("train")
if "--small" in sys.argv:
    X, y = X[:, ::8], y
with tempfile.TemporaryDirectory() as folder:
    paths = [Path(folder) / f"{i}.npz" for i in range(4)]
    for i, path in enumerate(paths):
        np.savez(path, X=X[250 * i : 250 * (i + 1)], y=y[250 * i : 250 * (i + 1)])
    found = []
    for shards in (JoblibShards(paths, len(X)), [made(path) for path in paths]):
        rows = Rows(shards)
        problem = build_problem(rows, l2=1.0 / len(X), fit_intercept=True, input_scale=1 / 255)
        limits = Limits(tol=1e-3, max_iter=1000)
        solution = full_batch.solve(
            SoftmaxObjective(problem), problem.null_point, limits, newton=False
        )
        found.append(solution.result)
a, b = found
accuracy = a.evaluation.accuracy
print(f"certified gap {a.gap:.0e} after {a.n_iter} iterations, accuracy {accuracy:.2f}")
print(f"the same bits as in this process: {bool((a.point == b.point).all())}")
