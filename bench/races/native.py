"""The native contestants, and the only calls of the kernels in the benchmarks.

What the kernels take changes here and nowhere else; a twin (`backend=fastsoftmax.reference`) takes
the same arguments.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring.harness import NATIVE, ONE_THREAD
from measuring.problems import Problem

from fastsoftmax import kernels
from fastsoftmax._arguments import thread_count
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards.csr_shard import columns_of

Array = np.ndarray

N_THREADS = thread_count(None, kernels)
ISAS = kernels.available_isas()
ISA_TITLE = ", instruction sets"


def by_threads(call: Callable[[int], Any]) -> dict[str, Callable[[], Any]]:
    """The native contestants: all threads, and one thread where all are more."""
    runs = {NATIVE: functools.partial(call, N_THREADS)}
    if N_THREADS > 1:
        runs[ONE_THREAD] = functools.partial(call, 1)
    return runs


def by_isa(call: Callable[[str], Any]) -> dict[str, Callable[[], Any]]:
    """The native contestants of a race of instruction sets."""
    return {isa: functools.partial(call, isa) for isa in ISAS}


def loss_and_gradient(
    problem: Problem, W: Array, b: Array, *, backend: Any = kernels
) -> Callable[..., tuple[float, Array, Array]]:
    """A pass over the rows with everything ready: the cost of an evaluation in a fit.

    The call takes `isa` and `n_threads`, and returns the summed loss and its gradients.
    """
    targets = _targets(problem, backend)
    grad_W, grad_b = np.empty(W.shape), np.empty(b.shape)
    X = _rows(problem, with_gradient=True) if backend is kernels else _dense(problem)

    def run(**options: Any) -> tuple[float, Array, Array]:
        loss, _ = backend.loss_grad(grad_W, grad_b, X, targets, W, b, **options)
        return loss, grad_W, grad_b

    return run


def mean_loss_and_accuracy(problem: Problem, W: Array, b: Array) -> tuple[float, float]:
    """Of the rows of a problem, without a gradient, by one thread."""
    n_rows, targets = len(problem.labels), _targets(problem)
    loss, n_correct = kernels.loss_grad(None, None, _rows(problem), targets, W, b, n_threads=1)
    return loss / n_rows, n_correct / n_rows


def epoch_of_descent(
    problem: Problem, start: Array, order: Array, *, batch_size: int, learning_rate: float
) -> Callable[[int], tuple[Array, Array]]:
    """An epoch of plain SGD from W = start and b = 0, by a number of threads; returns W and b."""
    K, d = start.shape
    X, targets = _rows(problem), _targets(problem)
    descent = Descent(batch_size, learning_rate, momentum=0.0, l2=0.0, fit_bias=True)

    def run(n_threads: int) -> tuple[Array, Array]:
        params = np.append(start, np.zeros(K, dtype=start.dtype))
        kernels.sgd_steps(params, None, X, targets, order, descent, n_threads=n_threads)
        return params[:-K].reshape(K, d), params[-K:]

    return run


def softmax_by_isa(operation: str, out: Array, z: Array) -> Callable[[str], Array]:
    """softmax or log_softmax of rows by an instruction set, all threads."""
    kernel = getattr(kernels, f"{operation}_rows")

    def run(isa: str) -> Array:
        kernel(out, z, isa=isa, n_threads=N_THREADS)
        return out

    return run


def _targets(problem: Problem, backend: Any = kernels) -> Any:
    """The labels as a backend takes them, each row with weight 1."""
    ones = np.ones(len(problem.labels), dtype=problem.real)
    return backend.Targets(problem.labels, None, ones, 0.0, problem.n_classes)


def _rows(problem: Problem, *, with_gradient: bool = False) -> Any:
    """X as the kernels take it. Gradients of CSR rows need them by columns too."""
    X = problem.X
    if not problem.is_sparse:
        return X
    rows = kernels.CsrRows(X.data, X.indices, X.indptr, X.shape[1])
    if with_gradient:
        panel_rows = kernels.panel_rows(problem.n_logits, problem.real.itemsize)
        rows.set_columns(*columns_of(X, slice(0, X.shape[0]), panel_rows))
    return rows


def _dense(problem: Problem) -> Array:
    return problem.X.toarray() if problem.is_sparse else problem.X
