"""Which tasks are raced, by whom, and what each takes at least.

A builder makes the race for given sizes; rows are multiplied by `scale` (1 for results, less to try
the benchmarks out). New storages, shapes and tasks are new arguments or new builders here; the
bench_*.py files and compare.py only list them.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import problems
import rivals
from floor import Work
from harness import NATIVE, ONE_THREAD, Race, close
from problems import Problem

from fastsoftmax import FastSoftmax, cross_entropy, functional, kernels

N_THREADS = kernels.max_threads()
ISAS = kernels.available_isas()
BY_CLASS = "numpy, logits K x n"
CONTESTANTS = (NATIVE, ONE_THREAD, "numpy", "scikit-learn", "torch")
BATCH, RATE = 256, 0.1
ISA_TITLE = ", instruction sets"


def n_rows_of(n_rows: int, scale: float, multiple: int = 1) -> int:
    """n_rows * scale, at least 16, and a multiple of something where it is scaled."""
    if scale == 1:
        return n_rows
    return max(16, 2 * multiple, int(n_rows * scale) // multiple * multiple)


def _threads(call: Callable[[int], Any]) -> dict[str, Callable[[], Any]]:
    """The native contestants: all threads, and one where that is fewer."""
    runs = {NATIVE: functools.partial(call, N_THREADS)}
    if N_THREADS > 1:
        runs[ONE_THREAD] = functools.partial(call, 1)
    return runs


def _isas(call: Callable[[str], Any]) -> dict[str, Callable[[], Any]]:
    """The native contestants of a race of instruction sets."""
    return {isa: functools.partial(call, isa) for isa in ISAS}


# ---- rows of logits ----

ROWS_FORMULA = "reads n K and writes n K numbers; no flops are counted (exponentials bound it too)"


def softmax(
    operation: str, n_rows: int, n_classes: int, *, isas: bool = False, scale: float = 1
) -> Race:
    """softmax or log_softmax of rows, written to an array that is there already."""
    z = problems.logits(n_rows_of(n_rows, scale), n_classes).X
    out = np.empty_like(z)
    function, kernel = getattr(functional, operation), getattr(kernels, f"{operation}_rows")

    def by_isa(isa: str) -> np.ndarray:
        kernel(out, z, isa=isa, n_threads=N_THREADS)
        return out

    runs = _isas(by_isa) if isas else _threads(lambda n: function(z, out=out, n_jobs=n))
    is_softmax = operation == "softmax"
    runs["numpy"] = functools.partial(
        rivals.numpy_softmax if is_softmax else rivals.numpy_log_softmax, z, out
    )
    if not isas:
        runs["scikit-learn"] = functools.partial(
            rivals.sklearn_softmax if is_softmax else rivals.scipy_log_softmax, z
        )
    if not isas and (torch := rivals.torch_or_none()):
        tz, tout, rival = torch.from_numpy(z), torch.from_numpy(out), getattr(torch, operation)
        runs["torch"] = lambda: rival(tz, 1, out=tout).numpy()
    return Race(
        f"{operation}, {len(z)} x {n_classes}, float32" + ISA_TITLE * isas,
        runs,
        close(1e-4, elementwise=is_softmax),
        Work(0, z.nbytes, z.nbytes),
        ROWS_FORMULA,
        referee="numpy",
    )


def cross_entropy_rows(n_rows: int, n_classes: int, *, scale: float = 1) -> Race:
    """Mean cross-entropy of rows of logits and its gradient, in a new array."""
    problem = problems.logits(n_rows_of(n_rows, scale), n_classes)
    z, y = problem.X, problem.labels
    runs = _threads(lambda n: cross_entropy(z, y, return_grad=True, n_jobs=n))
    runs["numpy"] = lambda: rivals.numpy_cross_entropy(z, y)
    if rivals.torch_or_none():
        runs["torch"] = rivals.torch_cross_entropy(z, y)
    return Race(
        f"cross_entropy with gradient, {len(z)} x {n_classes}, float32",
        runs,
        close(1e-4),
        Work(0, z.nbytes, z.nbytes),
        ROWS_FORMULA,
        referee="numpy",
    )


# ---- one pass: loss and gradient ----

PASS_FORMULA = "4 n d K flops; reads the n d numbers of X once, as they are stored"


def _pass_problem(kind: str, sizes: tuple[int, ...], storage: str, scale: float) -> Problem:
    if kind == "fashion":
        (n_rows,) = sizes
        return problems.fashion(n_rows_of(n_rows, scale)).stored_as(storage, 1 / 255)
    n_rows, n_features, n_classes = sizes
    return problems.probe(n_rows_of(n_rows, scale), n_features, n_classes).stored_as(storage)


def native_pass(problem: Problem, W: np.ndarray, b: np.ndarray) -> Callable[..., Any]:
    """A call of the kernel with everything ready: what an evaluation in a fit costs."""
    ones = np.ones(len(problem.X), dtype=problem.real)
    grad_W, grad_b = np.empty(W.shape), np.empty(b.shape)
    arguments = (problem.X, problem.labels, None, ones, 0.0, W, b, problem.n_classes)

    def run(**options: Any) -> tuple[float, np.ndarray, np.ndarray]:
        loss, _ = kernels.loss_grad(grad_W, grad_b, *arguments, **options)
        return loss, grad_W, grad_b

    return run


def loss_grad(
    kind: str,
    sizes: tuple[int, ...],
    *,
    storage: str = "float32",
    isas: bool = False,
    scale: float = 1,
) -> Race:
    """Loss and gradient of softmax regression, in one pass over X.

    Rivals get X in the type that is computed in, whatever it is stored as.
    """
    problem = _pass_problem(kind, sizes, storage, scale)
    W, b = problems.weights(problem)
    n, d = problem.X.shape
    task = problem.X.astype(problem.real, copy=False), problem.labels, W, b
    run = native_pass(problem, W, b)
    runs = (
        _isas(lambda isa: run(isa=isa, n_threads=N_THREADS))
        if isas
        else _threads(lambda n_threads: run(n_threads=n_threads))
    )
    runs["numpy"] = rivals.numpy_pass(*task)
    if not isas:
        runs[BY_CLASS] = rivals.numpy_pass_by_class(*task)
        if sklearn_run := rivals.sklearn_pass(*task, n_threads=N_THREADS):
            runs["scikit-learn"] = sklearn_run
        if rivals.torch_or_none():
            runs["torch"] = rivals.torch_pass(*task)
    return Race(
        f"loss + gradient, {problem.size}" + ISA_TITLE * isas,
        runs,
        close(1e-4 if problem.real == np.float32 else 1e-11),
        Work(4.0 * n * d * problem.n_classes, problem.X.nbytes, real=problem.real.name),
        PASS_FORMULA,
        referee="numpy",
    )


# ---- stochastic gradient descent ----


def sgd_epoch(n_rows: int, *, scale: float = 1) -> Race:
    """One epoch over shuffled rows, from the same start, in the same order, in whole batches."""
    problem = problems.fashion(n_rows_of(n_rows, scale, BATCH)).stored_as("float32", 1 / 255)
    X, labels, K = problem.X, problem.labels, problem.n_classes
    n, d = X.shape
    rng = np.random.default_rng(0)
    order = rng.permutation(n)[: n // BATCH * BATCH].astype(np.int64)
    start = rng.normal(0, 0.01, (K, d)).astype(np.float32)
    ones = np.ones(n, dtype=np.float32)

    def native(n_threads: int) -> tuple[np.ndarray, np.ndarray]:
        params = np.append(start, np.zeros(K, dtype=np.float32))
        kernels.sgd_steps(
            params, None, X, labels, None, ones, 0.0, K, order, BATCH, RATE, 0.0, 0.0, True,
            n_threads=n_threads,
        )  # fmt: skip
        return params[:-K].reshape(K, d), params[-K:]

    def rival(epoch: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            params = start.copy(), np.zeros(K, dtype=np.float32)
            return epoch(params, X, labels, order, BATCH, RATE)

        return run

    runs = _threads(native) | {"numpy": rival(rivals.numpy_epoch)}
    if rivals.torch_or_none():
        runs["torch"] = rival(rivals.torch_epoch)
    return Race(
        f"SGD epoch, batch {BATCH}, {n} x {d}, K = {K}, float32",
        runs,
        close(1e-3),
        Work(4.0 * len(order) * d * K, X.itemsize * len(order) * d),
        PASS_FORMULA + " (in random order)",
        referee="numpy",
    )


def textbook(n_rows: int, *, n_epochs: int = 10, scale: float = 1) -> Race:
    """The textbook run as users call it: W from N(0, 0.01), own shuffles. The losses must agree."""
    problem = problems.fashion(n_rows_of(n_rows, scale, BATCH)).stored_as("float32", 1 / 255)
    X, labels = problem.X, problem.labels

    def native(n_threads: int) -> tuple[np.ndarray, np.ndarray]:
        model = FastSoftmax(
            C=np.inf, solver="sgd", max_iter=n_epochs, batch_size=BATCH, learning_rate=RATE,
            random_state=0, n_jobs=n_threads,
        ).fit(X, labels)  # fmt: skip
        return model.coef_, model.intercept_

    def result(params: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
        """Training loss and accuracy at the end."""
        W, b = (np.ascontiguousarray(p, dtype=np.float32) for p in params)
        ones = np.ones(len(X), dtype=np.float32)
        arguments = (X, labels, None, ones, 0.0, W, b, problem.n_classes)
        return tuple(s / len(X) for s in kernels.loss_grad(None, None, *arguments, n_threads=1))

    def check(answer: tuple[float, float], expected: tuple[float, float]) -> None:
        # Fewer rows are fewer steps, and the luck of the shuffle counts for more.
        allowed = 0.01 if scale == 1 else 0.1
        off = abs(answer[0] - expected[0]) / expected[0]
        assert off <= allowed, f"loss {answer[0]:.4f} instead of {expected[0]:.4f}"
        assert scale != 1 or answer[1] > 0.7, f"accuracy {answer[1]:.3f}"

    runs = _threads(native)
    if rivals.torch_or_none():
        task = X, labels, problem.n_classes, n_epochs, BATCH, RATE
        runs["torch"] = lambda: rivals.torch_textbook(*task)
    return Race(
        f"textbook run, {n_epochs} epochs, {len(X)} x {X.shape[1]}",
        runs,
        check,
        referee="torch" if "torch" in runs else NATIVE,
        answer=result,
    )


# ---- prediction ----


def predict_proba(n_rows: int, *, scale: float = 1) -> Race:
    """Probabilities from fitted models with the same coefficients."""
    problem = problems.fashion(n_rows_of(n_rows, scale) if n_rows > 1 else 1)
    problem = problem.stored_as("float32", 1 / 255)
    X, K = problem.X, problem.n_classes
    n, d = X.shape
    W, b = problems.weights(problem)

    def native_model(n_jobs: int) -> FastSoftmax:
        model = FastSoftmax(n_jobs=n_jobs)
        model.classes_, model.n_features_in_ = np.arange(K), d
        model.coef_, model.intercept_ = W, b
        return model

    models = {n_jobs: native_model(n_jobs) for n_jobs in {1, N_THREADS}}
    runs = _threads(lambda n_jobs: models[n_jobs].predict_proba(X))
    runs["numpy"] = lambda: rivals.numpy_predict_proba(X, W, b)
    other = rivals.sklearn_model(W, b)
    runs["scikit-learn"] = lambda: other.predict_proba(X)
    if rivals.torch_or_none():
        runs["torch"] = rivals.torch_predict_proba(X, W, b)
    return Race(
        f"predict_proba, {n} x {d}, K = {K}, float32",
        runs,
        close(1e-4),
        Work(2.0 * n * d * K, X.nbytes, 4.0 * n * K) if n > 1 else None,
        "2 n d K flops; reads n d numbers and writes n K",
        referee="numpy",
    )
