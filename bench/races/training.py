"""Races of the parts of a fit: loss and gradient in one pass over the rows, epochs of SGD."""

from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import problems
from measuring.floor import Work
from measuring.harness import NATIVE, Race, Run, close
from measuring.problems import Problem
from races import native, rivals

from fastsoftmax import FastSoftmax

BY_CLASS = "numpy, logits K x n"
SCIPY, TRANSPOSED = "scipy", "scipy, X.T as CSR"
BATCH, RATE = 256, 0.1
PASS_FORMULA = "4 n d flops for each logit; reads the n d numbers of X once, as they are stored"
CSR_PASS_FORMULA = (
    "4 flops for each stored number and logit; reads X (values and indices) and W once, and "
    "writes a gradient"
)
CSR_EPOCH_FORMULA = "4 flops for each stored number of X and class; reads X once, in random order"


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

    Rivals get X in the type of the computation, whatever its storage.
    """
    problem = problems.named(
        kind, sizes, storage=storage, indices=indices, order=order, scale=scale
    )
    W, b = problems.weights(problem)
    run = native.loss_and_gradient(problem, W, b)

    def by_threads(n_threads: int) -> Any:
        return run(n_threads=n_threads)

    others = _rival_passes(problem, W, b)
    referee = next(iter(others))
    if by_isa:
        runs = native.by_isa(lambda isa: run(isa=isa, n_threads=native.N_THREADS))
        runs[referee] = others[referee]
    else:
        runs = native.by_threads(by_threads) | others
    n_read, n_written = problem.n_bytes, 0.0
    if problem.is_sparse:  # of dense rows W is small beside X
        n_read, n_written = n_read + W.nbytes, float(W.nbytes)
    title = ", F order" * (order == "F") + native.ISA_TITLE * by_isa
    return Race(
        f"loss + gradient, {problem.size}{title}",
        runs,
        close(1e-4 if problem.real == np.float32 else 1e-11),
        referee,
        Work(4.0 * problem.n_numbers * len(W), n_read, n_written, real=problem.real.name),
        CSR_PASS_FORMULA if problem.is_sparse else PASS_FORMULA,
        by_threads=by_threads,
    )


def _rival_passes(problem: Problem, W: np.ndarray, b: np.ndarray) -> dict[str, Run]:
    """The other contestants, the referee first."""
    X, labels = problem.computed, problem.labels
    task = labels, W, b
    if problem.is_sparse:
        twin = rivals.numpy_binary_pass if len(W) == 1 else rivals.scipy_pass
        runs = {SCIPY: twin(X, X.T, *task), TRANSPOSED: twin(X, X.T.tocsr(), *task)}
    elif len(W) == 1:
        runs = {"numpy": rivals.numpy_binary_pass(X, X.T, *task)}
    else:
        runs = {"numpy": rivals.numpy_pass(X, *task)}
        runs[BY_CLASS] = rivals.numpy_pass_by_class(X, *task)
    if sklearn_run := rivals.sklearn_pass(X, *task, n_threads=native.N_THREADS):
        runs["scikit-learn"] = sklearn_run
    if rivals.torch_or_none():
        torch_pass = rivals.torch_csr_pass if problem.is_sparse else rivals.torch_pass
        runs["torch"] = torch_pass(X, *task)
    return runs


def sgd_epoch(kind: str, sizes: tuple[int, ...], *, scale: float = 1) -> Race:
    """One epoch over shuffled rows, from the same start, in the same order, in whole batches."""
    problem = problems.named(kind, sizes, scale=scale, multiple=BATCH)
    (n, d), K = problem.X.shape, problem.n_classes
    rng = np.random.default_rng(0)
    order = rng.permutation(n)[: n // BATCH * BATCH].astype(np.int64)
    start = rng.normal(0, 0.01, (K, d)).astype(np.float32)
    run = native.epoch_of_descent(problem, start, order, batch_size=BATCH, learning_rate=RATE)
    if problem.is_sparse:  # rivals are quicker with d x K
        referee, start = SCIPY, np.ascontiguousarray(start.T)
        epochs = {SCIPY: rivals.scipy_epoch, "torch": rivals.torch_csr_epoch}
    else:
        referee = "numpy"
        epochs = {"numpy": rivals.numpy_epoch, "torch": rivals.torch_epoch}
    if not rivals.torch_or_none():
        del epochs["torch"]

    def rival(epoch: Callable[..., Any]) -> Run:
        def run() -> Any:
            params = start.copy(), np.zeros(K, dtype=np.float32)
            return epoch(params, problem.X, problem.labels, order, BATCH, RATE)

        return run

    share = len(order) / n
    return Race(
        f"SGD epoch, batch {BATCH}, {problem.size}",
        native.by_threads(run) | {name: rival(epoch) for name, epoch in epochs.items()},
        close(1e-3),
        referee,
        Work(4.0 * share * problem.n_numbers * K, share * problem.n_bytes),
        CSR_EPOCH_FORMULA if problem.is_sparse else PASS_FORMULA + " (in random order)",
        by_threads=run,
    )


def textbook(n_rows: int, *, n_epochs: int = 10, scale: float = 1) -> Race:
    """The textbook run as users call it: W from N(0, 0.01), own shuffles. The losses must agree."""
    problem = problems.named("fashion", (n_rows,), scale=scale, multiple=BATCH)
    X, labels = problem.X, problem.labels

    def fit(n_threads: int) -> tuple[np.ndarray, np.ndarray]:
        estimator = FastSoftmax(
            C=np.inf, solver="sgd", max_iter=n_epochs, batch_size=BATCH, learning_rate=RATE,
            random_state=0, n_jobs=n_threads,
        ).fit(X, labels)  # fmt: skip
        return estimator.coef_, estimator.intercept_

    def answer(params: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
        """Training loss and accuracy at the end."""
        W, b = (np.ascontiguousarray(p, dtype=np.float32) for p in params)
        return native.mean_loss_and_accuracy(problem, W, b)

    def check(answer: tuple[float, float], expected: tuple[float, float]) -> None:
        # With fewer rows there are fewer steps, and the random order matters more.
        allowed = 0.01 if scale == 1 else 0.1
        off = abs(answer[0] - expected[0]) / expected[0]
        assert off <= allowed, f"loss {answer[0]:.4f} instead of {expected[0]:.4f}"
        assert scale != 1 or answer[1] > 0.7, f"accuracy {answer[1]:.3f}"

    runs = native.by_threads(fit)
    if rivals.torch_or_none():
        task = X, labels, problem.n_classes, n_epochs, BATCH, RATE
        runs["torch"] = lambda: rivals.torch_textbook(*task)
    return Race(
        f"textbook run, {n_epochs} epochs, {len(X)} x {X.shape[1]}",
        runs,
        check,
        referee="torch" if "torch" in runs else NATIVE,
        answer=answer,
    )
