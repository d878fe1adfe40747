"""
Shards in other processes
=========================

Other processes read the rows from files. The fit has the same bits as in one process.

The rows of a fit are cut into shards. The fit asks each shard the same questions, and adds up the
answers (``fastsoftmax/shards/protocol.py``). So shards may be in other processes or on other
machines. These modules are internal: they may change between versions.
"""

import sys
import tempfile

import numpy as np
from joblib import Parallel, delayed

from fastsoftmax.backend import resolve_backend
from fastsoftmax.datasets import load_fashion_mnist_sample
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch, stage
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.protocol import Facts
from fastsoftmax.shards.rows import Rows, build_shard


def made(path):
    """Return the shard of a file. Row weights have mean 1, and labels are 0, 1, ..."""
    X, y = np.load(path)["X"], np.load(path)["y"].astype(np.int32)
    ones = np.ones(len(y), dtype=np.float32)
    return build_shard(X, y, None, ones, 10, backend=resolve_backend("auto"))


def answered(path, question, args, options):  # in another process
    return question(made(path), *args, **options)


class JoblibShards:
    survey = None  # nothing is known from a pass before

    def __init__(self, paths, n_rows):
        self.paths, self.like = paths, made(paths[0])
        self.facts = Facts(n_rows, len(paths), self.like.numbers_per_row * n_rows, True, False)

    def ask(self, question, *args, **options):
        calls = (delayed(answered)(path, question, args, options) for path in self.paths)
        yield from Parallel(n_jobs=2, return_as="generator")(calls)


# sphinx_gallery_thumbnail_path = '_static/shards.svg'
X, y = load_fashion_mnist_sample("train")
n, step = len(X), 8 if "--small" in sys.argv else 1
with tempfile.TemporaryDirectory() as folder:
    paths = [f"{folder}/{i}.npz" for i in range(4)]
    for path, part in zip(paths, np.split(np.arange(n), 4), strict=True):
        np.savez(path, X=X[part, ::step], y=y[part])
    for shards in (JoblibShards(paths, n), [made(path) for path in paths]):
        problem = build_problem(Rows(shards), 1 / n, fit_intercept=True, input_scale=1 / 255)
        start, limits = problem.null_point, stage.Limits(tol=1e-3, max_iter=1000)
        found = full_batch.solve(SoftmaxObjective(problem), start, limits, newton=False).result
        print(f"gap {found.gap:.0e}, loss {found.evaluation.loss:.17f}, {found.n_iter} iterations")
