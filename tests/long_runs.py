"""Fits and predictions of every kind, for hours: nothing may grow, and no bit may change.

    python tests/long_runs.py                                 # 10,000 fits, 1,000,000 predictions
    python tests/long_runs.py --fits 600 --predictions 20000

Each kind of call is repeated in turns. After a warm-up the process is measured: resident memory,
bytes and blocks that are in use, threads and open files. It exits with 1 where something grew, and
the first result of a kind that differs is an AssertionError.
"""

import argparse
import ctypes
import gc
import io
import itertools
import os
import pickle
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy import sparse
from sparse_rows import random_array

from fastsoftmax import (
    FastSoftmax,
    FastSoftmaxCV,
    cross_entropy,
    fastsoftmax_path,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    softmax,
)
from fastsoftmax.datasets import iter_batches

N, D, K = 60, 6, 3
# What the process may have more of at the end. The system's allocator and caches of numpy, of
# scikit-learn and of Python's types grow slowly to a bound; a leak of one block of the smallest
# size in each fit, or of one in each hundred predictions, would be more.
MOST = {
    "resident bytes": 16 << 20,
    "bytes in use": 1 << 18,
    "blocks": 2000,
    "threads": 0,
    "files": 0,
}


# ---- what is called


def rows():
    """Features by their storage, with labels, probabilities and weights."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D))
    y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))).argmax(axis=1)
    y[:K] = np.arange(K)
    scaled = np.clip(40.0 * X, -128, 127)
    wide = random_array((N, 2000), density=0.004, rng=rng, format="csr")
    some = np.where(np.abs(X) > 0.5, X, 0.0)
    stored = {
        "float64": X,
        "float32": X.astype(np.float32),
        "float16": X.astype(np.float16),
        "int8": scaled.astype(np.int8),
        "uint8": (scaled + 128).astype(np.uint8),
        "by columns": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[::-1, ::2],
        "list": X.tolist(),
        "csr": sparse.csr_array(some),
        "csr float32": sparse.csr_array(some.astype(np.float32)),
        "csc": sparse.csc_array(some),
        "wide csr": wide,
    }
    if find_spec("pandas"):
        import pandas as pd

        stored["pandas"] = pd.DataFrame(X, columns=list("abcdef"))
    if find_spec("polars"):
        import polars as pl

        stored["polars"] = pl.DataFrame(dict(zip("abcdef", X.T, strict=True)))
    return stored, y, rng.dirichlet(np.ones(K), N), rng.choice([0.5, 1.0, 2.0], N)


def fitted(X, y, *, sample_weight=None, model=FastSoftmax, fit=None, **parameters):
    """Return a function that fits, and the function's result."""

    def call():
        made = model(**{"max_iter": 4, "n_jobs": 2, **parameters})
        return made.fit(X, y, sample_weight, **(fit or {}))

    return call


def fits(folder):
    """Calls that fit, save or load, by name; each returns an estimator or arrays."""
    stored, y, probs, weights = rows()
    X = stored["float64"]
    sgd = {"solver": "sgd", "random_state": 0, "batch_size": 16, "momentum": 0.9}
    calls = {}
    for name, some in stored.items():
        for solver in ("auto", "lbfgs", "sgd"):
            how = sgd if solver == "sgd" else {"solver": solver}
            scale = 1 / 64 if name.endswith("int8") else 1.0
            calls[f"{solver}, {name}"] = fitted(some, y, input_scale=scale, **how)
    for name in ("float64", "uint8", "csr"):
        calls[f"numpy, {name}"] = fitted(stored[name], y, backend="numpy", solver="lbfgs")
    calls["newton"] = fitted(X, y, solver="newton-cholesky")
    calls["standardize, weights"] = fitted(X, y, sample_weight=weights, standardize=True)
    calls["probabilities"] = fitted(X, probs, solver="lbfgs", label_smoothing=0.1)
    calls["two classes"] = fitted(X, y > 0, solver="lbfgs", class_weight="balanced")
    calls["elastic net"] = fitted(X, y, l1_ratio=0.5, C=0.3)
    calls["lasso, csr"] = fitted(stored["csr"], y, l1_ratio=1.0, C=0.3)
    calls["no penalty"] = fitted(X, y, C=np.inf)
    calls["few rows"] = fitted(np.tile(X, 12), y, solver="lbfgs")
    calls["early stopping"] = fitted(X, y, solver="lbfgs", early_stopping=True, random_state=0)
    watch = {"eval_set": [(X[:20], y[:20])], "callbacks": [lambda state: state.coef_ is None]}
    calls["watched"] = fitted(X, y, solver="lbfgs", fit=watch)
    calls["checkpoint"] = fitted(X, y, solver="lbfgs", fit={"checkpoint": folder / "checkpoint"})
    batches = [(X[i : i + 20], y[i : i + 20]) for i in range(0, N, 20)]
    calls["batches"] = fitted(batches, None, solver="lbfgs")
    calls["batches, sgd"] = fitted(batches, None, **sgd)
    ahead = {"batch_size": 25, "prefetch": 2, "random_state": 0}  # (it shuffles anew in each pass)
    calls["iter_batches"] = lambda: fitted(iter_batches(X, y, **ahead), None)()
    np.save(folder / "X.npy", X)
    calls["file"] = fitted(folder / "X.npy", y)
    calls["memory map"] = lambda: fitted(np.load(folder / "X.npy", mmap_mode="r"), y)()
    calls["cross-validation"] = fitted(X, y, model=FastSoftmaxCV, Cs=[0.1, 1.0], cv=2)
    calls["path"] = lambda: list(fastsoftmax_path(X, y, Cs=[0.1, 1.0], n_jobs=2)[:2])

    def steps():
        model = FastSoftmax(**sgd)
        for batch in batches:
            model.partial_fit(*batch, classes=range(K))
        return model

    def refused():
        """Errors, too, leave nothing behind."""
        model = FastSoftmax(solver="lbfgs")
        for wrong in (np.full((N, D), np.nan), X[:-1]):
            try:
                model.fit(wrong, y)
            except ValueError:
                continue
            raise AssertionError
        return model.fit(X, y)

    calls["partial_fit"], calls["refused"] = steps, refused
    model = FastSoftmax(solver="lbfgs").fit(X, y)

    def saved():
        file = io.BytesIO()
        model.save(file)
        file.seek(0)
        return FastSoftmax.load(file).coef_

    def saved_to_disk():
        model.save(folder / "model.npz")
        return FastSoftmax.load(folder / "model.npz").coef_

    calls["save, load"], calls["a file"] = saved, saved_to_disk
    calls["pickle"] = lambda: pickle.loads(pickle.dumps(model)).predict_proba(X)
    return calls


def predictions():
    """Calls that predict, by name; each returns an array, or a tuple of them."""
    stored, y, *_ = rows()
    X = stored["float64"]
    model = FastSoftmax(solver="lbfgs", n_jobs=2).fit(X, y)
    single = FastSoftmax(solver="lbfgs", n_jobs=2).fit(X.astype(np.float32), y)
    by_name = FastSoftmax().fit(stored["pandas"], y) if "pandas" in stored else model
    wide = FastSoftmax(solver="lbfgs").fit(stored["wide csr"], y)
    models = {"wide csr": wide, "pandas": by_name, "polars": by_name, "float32": single}
    calls = {}
    for name, some in stored.items():
        of = models.get(name, model)
        calls[f"predict_proba, {name}"] = lambda of=of, some=some: of.predict_proba(some)
        calls[f"predict, {name}"] = lambda of=of, some=some: of.predict(some)
    for method in ("decision_function", "predict_log_proba"):
        calls[method] = lambda name=method: getattr(model, name)(X)
    calls["one row"] = lambda: model.predict_proba(X[:1])
    calls["predict_topk"] = lambda: model.predict_topk(X, 2)
    calls["evaluate"] = lambda: np.array(model.evaluate(X, y).loss)
    plain = FastSoftmax(backend="numpy").fit(X, y)
    calls["numpy"] = lambda: plain.predict_proba(X)
    calls["softmax"] = lambda: softmax(X)
    calls["log_softmax"] = lambda: log_softmax(X, axis=0)
    calls["logsumexp"] = lambda: logsumexp(X)
    calls["cross_entropy"] = lambda: cross_entropy(X, y, return_grad=True)
    W, b = model.coef_, model.intercept_
    calls["linear_cross_entropy"] = lambda: linear_cross_entropy(X, W, b, y)

    return calls


# ---- what is measured


def bits(result):
    """The bytes of what a call returns."""
    if hasattr(result, "coef_"):
        result = (result.coef_, result.intercept_, result.n_iter_)
    parts = result if isinstance(result, tuple | list) else (result,)
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


class _MallInfo(ctypes.Structure):
    """What mallinfo2 of glibc returns: ten sizes in bytes."""

    _fields_ = [(f"number_{i}", ctypes.c_size_t) for i in range(10)]

    @property
    def in_use(self):
        return self.number_7 + self.number_4  # uordblks: of its heaps; hblkhd: mapped alone


def measured():
    """What the process has in use, by name, as far as this system tells."""
    gc.collect()
    found = {"blocks": sys.getallocatedblocks()}
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found["resident bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
        found["threads"] = len(os.listdir("/proc/self/task"))
        found["files"] = len(os.listdir("/proc/self/fd"))
        try:
            mallinfo = ctypes.CDLL(None).mallinfo2  # of glibc
        except AttributeError:
            return found
        mallinfo.restype = _MallInfo
        found["bytes in use"] = mallinfo().in_use
    return found


def repeated(calls, n, first):
    """Make n calls in turns, and compare the results with the first, or note them there."""
    for name, call in itertools.islice(itertools.cycle(calls.items()), n):
        result = bits(call())
        assert first.setdefault(name, result) == result, f"{name}: other bits than the first time"


def run(n_fits, n_predictions, *, n_rounds=10, tell=lambda text: None):
    """Return growth after the warm-up by name, and how many kinds of calls there were.

    The warm-up is a tenth of the calls, at least three of each kind.
    """
    warnings.simplefilter("ignore")
    first, shares = {}, 1.0 / n_rounds
    with tempfile.TemporaryDirectory() as folder:
        kinds = fits(Path(folder)), predictions()
        for calls, n in zip(kinds, (n_fits, n_predictions), strict=True):
            repeated(calls, max(int(n * shares), 3 * len(calls)), first)
        before = now = measured()
        tell(f"warm: {before}")
        for i in range(1, n_rounds):
            for calls, n in zip(kinds, (n_fits, n_predictions), strict=True):
                repeated(calls, int(n * shares), first)
            now = measured()
            tell(f"{i + 1} of {n_rounds}: { {k: now[k] - before[k] for k in now} }")
        growth = {name: now[name] - before[name] for name in now}
    return growth, tuple(map(len, kinds))


def main():
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=10_000)
    parser.add_argument("--predictions", type=int, default=1_000_000)
    options = parser.parse_args()
    growth, kinds = run(
        options.fits, options.predictions, tell=lambda text: print(text, flush=True)
    )
    print(f"{kinds[0]} kinds of fits, {kinds[1]} of predictions; growth: {growth}")
    grown = {name: more for name, more in growth.items() if more > MOST[name]}
    if grown:
        sys.exit(f"grown: {grown}")


if __name__ == "__main__":
    main()
