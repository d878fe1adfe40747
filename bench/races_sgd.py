"""Races of mini-batch gradient descent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import rivals
import rivals_sparse
from floor import Work
from harness import NATIVE, Race, close
from races import native_rows, problem_of, threads
from races_pass import FORMULA

from fastsoftmax import FastSoftmax, kernels
from fastsoftmax.kernel_arguments import Descent

BATCH, RATE = 256, 0.1
CSR_FORMULA = "4 flops for each stored number of X and class; reads X once, in random order"


def sgd_epoch(kind: str, sizes: tuple[int, ...], *, scale: float = 1) -> Race:
    """One epoch over shuffled rows, from the same start, in the same order, in whole batches."""
    problem = problem_of(kind, sizes, scale=scale, multiple=BATCH)
    X, labels, K = problem.X, problem.labels, problem.n_classes
    n, d = X.shape
    rng = np.random.default_rng(0)
    order = rng.permutation(n)[: n // BATCH * BATCH].astype(np.int64)
    start = rng.normal(0, 0.01, (K, d)).astype(np.float32)
    ones = np.ones(n, dtype=np.float32)
    rows = native_rows(problem)
    targets = kernels.Targets(labels, None, ones, 0.0, K)
    descent = Descent(BATCH, RATE, momentum=0.0, l2=0.0, fit_bias=True)

    def native(n_threads: int) -> tuple[np.ndarray, np.ndarray]:
        params = np.append(start, np.zeros(K, dtype=np.float32))
        kernels.sgd_steps(params, None, rows, targets, order, descent, n_threads=n_threads)
        return params[:-K].reshape(K, d), params[-K:]

    if problem.is_sparse:  # rivals are quicker with d x K
        start_there, module, twin = np.ascontiguousarray(start.T), rivals_sparse, "scipy"
    else:
        start_there, module, twin = start, rivals, "numpy"

    def rival(epoch: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            params = start_there.copy(), np.zeros(K, dtype=np.float32)
            return epoch(params, X, labels, order, BATCH, RATE)

        return run

    runs = threads(native) | {twin: rival(getattr(module, f"{twin}_epoch"))}
    if rivals.torch_or_none():
        runs["torch"] = rival(module.torch_epoch)
    share = len(order) / n
    return Race(
        f"SGD epoch, batch {BATCH}, {problem.size}",
        runs,
        close(1e-3),
        Work(4.0 * share * problem.n_numbers * K, share * problem.n_bytes),
        CSR_FORMULA if problem.is_sparse else FORMULA + " (in random order)",
        referee=twin,
        by_threads=native,
    )


def textbook(n_rows: int, *, n_epochs: int = 10, scale: float = 1) -> Race:
    """The textbook run as users call it: W from N(0, 0.01), own shuffles. The losses must agree."""
    problem = problem_of("fashion", (n_rows,), scale=scale, multiple=BATCH)
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
        targets = kernels.Targets(labels, None, ones, 0.0, problem.n_classes)
        return tuple(s / len(X) for s in kernels.loss_grad(None, None, X, targets, W, b))

    def check(answer: tuple[float, float], expected: tuple[float, float]) -> None:
        # Fewer rows are fewer steps, and the luck of the shuffle counts for more.
        allowed = 0.01 if scale == 1 else 0.1
        off = abs(answer[0] - expected[0]) / expected[0]
        assert off <= allowed, f"loss {answer[0]:.4f} instead of {expected[0]:.4f}"
        assert scale != 1 or answer[1] > 0.7, f"accuracy {answer[1]:.3f}"

    runs = threads(native)
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
