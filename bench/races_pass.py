"""One pass over the rows: loss and gradient, as the evaluations of a fit call it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import rivals
import rivals_sparse
from floor import Work
from harness import Race, Run, close
from problems import Problem, weights
from races import (
    ISA_TITLE,
    N_THREADS,
    SCIPY,
    TRANSPOSED,
    isas,
    native_rows,
    problem_of,
    threads,
)

from fastsoftmax import kernels

BY_CLASS = "numpy, logits K x n"
FORMULA = "4 n d flops for each logit; reads the n d numbers of X once, as they are stored"
CSR_FORMULA = (
    "4 flops for each stored number and logit; reads X (values and indices) and W once, and "
    "writes a gradient"
)


def native_pass(problem: Problem, W: np.ndarray, b: np.ndarray) -> Callable[..., Any]:
    """A call of the kernel with everything ready: what an evaluation in a fit costs."""
    ones = np.ones(len(problem.labels), dtype=problem.real)
    grad_W, grad_b = np.empty(W.shape), np.empty(b.shape)
    rows = native_rows(problem, with_grad=True)
    targets = kernels.Targets(problem.labels, None, ones, 0.0, problem.n_classes)
    arguments = (rows, targets, W, b)

    def run(**options: Any) -> tuple[float, np.ndarray, np.ndarray]:
        loss, _ = kernels.loss_grad(grad_W, grad_b, *arguments, **options)
        return loss, grad_W, grad_b

    return run


def loss_grad(
    kind: str,
    sizes: tuple[int, ...],
    *,
    storage: str = "float32",
    indices: str = "int32",
    order: str = "C",
    by_isa: bool = False,
    scale: float = 1,
) -> Race:
    """Loss and gradient of softmax regression, in one pass over X; of two classes with one logit.

    Rivals get X in the type that is computed in, whatever it is stored as.
    """
    problem = problem_of(kind, sizes, storage=storage, indices=indices, order=order, scale=scale)
    W, b = weights(problem)
    run = native_pass(problem, W, b)

    def native(n_threads: int) -> Any:
        return run(n_threads=n_threads)

    runs = isas(lambda isa: run(isa=isa, n_threads=N_THREADS)) if by_isa else threads(native)
    others = _rivals(problem, W, b)
    referee = next(iter(others))
    runs |= {referee: others[referee]} if by_isa else others
    n_read, n_written = problem.n_bytes, 0.0
    if problem.is_sparse:  # of dense rows W is small beside X
        n_read, n_written = n_read + W.nbytes, float(W.nbytes)
    return Race(
        f"loss + gradient, {problem.size}" + ", F order" * (order == "F") + ISA_TITLE * by_isa,
        runs,
        close(1e-4 if problem.real == np.float32 else 1e-11),
        Work(4.0 * problem.n_numbers * len(W), n_read, n_written, real=problem.real.name),
        CSR_FORMULA if problem.is_sparse else FORMULA,
        referee=referee,
        by_threads=native,
    )


def _rivals(problem: Problem, W: np.ndarray, b: np.ndarray) -> dict[str, Run]:
    """The other contestants, the referee first."""
    X, labels = problem.computed, problem.labels
    task = labels, W, b
    if problem.is_sparse:
        twin = rivals.numpy_binary_pass if len(W) == 1 else rivals_sparse.scipy_pass
        runs = {SCIPY: twin(X, X.T, *task), TRANSPOSED: twin(X, X.T.tocsr(), *task)}
    elif len(W) == 1:
        runs = {"numpy": rivals.numpy_binary_pass(X, X.T, *task)}
    else:
        runs = {"numpy": rivals.numpy_pass(X, *task)}
        runs[BY_CLASS] = rivals.numpy_pass_by_class(X, *task)
    if sklearn_run := rivals.sklearn_pass(X, *task, n_threads=N_THREADS):
        runs["scikit-learn"] = sklearn_run
    if rivals.torch_or_none():
        torch_pass = rivals_sparse.torch_pass if problem.is_sparse else rivals.torch_pass
        runs["torch"] = torch_pass(X, *task)
    return runs
