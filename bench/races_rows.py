"""Races over rows of logits: softmax, its logarithm, logsumexp, cross-entropy."""

import functools

import numpy as np
import problems
import rivals
from floor import Work
from harness import Race, close
from races import ISA_TITLE, N_THREADS, isas, n_rows_of, threads

from fastsoftmax import cross_entropy, functional, kernels

FORMULA = "reads n K and writes {} numbers; no flops are counted (exponentials bound it too)"


def softmax(
    operation: str,
    n_rows: int,
    n_classes: int,
    *,
    in_place: bool = False,
    by_isa: bool = False,
    scale: float = 1,
) -> Race:
    """softmax or log_softmax of rows, written to an array that is there already.

    In place that is the array of the logits: only the first of many runs starts from them. torch
    has no such softmax, and writes to another array.
    """
    given = problems.logits(n_rows_of(n_rows, scale), n_classes).X
    z = given.copy() if in_place else given
    out = z if in_place else np.empty_like(z)
    function, kernel = getattr(functional, operation), getattr(kernels, f"{operation}_rows")
    is_softmax = operation == "softmax"

    def one_isa(isa: str) -> np.ndarray:
        kernel(out, z, isa=isa, n_threads=N_THREADS)
        return out

    def native(n_threads: int) -> np.ndarray:
        return function(z, out=out, n_jobs=n_threads)

    runs = isas(one_isa) if by_isa else threads(native)
    numpy_rival = rivals.numpy_softmax if is_softmax else rivals.numpy_log_softmax
    runs["numpy"] = functools.partial(numpy_rival, z, out)
    if not by_isa and is_softmax:
        runs["scikit-learn"] = functools.partial(rivals.sklearn_softmax, z, copy=not in_place)
    elif not by_isa:
        runs["scipy"] = functools.partial(rivals.scipy_log_softmax, z)
    if not by_isa and (torch := rivals.torch_or_none()):
        target = np.empty_like(z) if in_place else out
        tz, tout, rival = torch.from_numpy(z), torch.from_numpy(target), getattr(torch, operation)
        runs["torch"] = lambda: rival(tz, 1, out=tout).numpy()
    return Race(
        f"{operation}{' in place' * in_place}, {len(z)} x {n_classes}, float32"
        + ISA_TITLE * by_isa,
        runs,
        close(1e-4, elementwise=is_softmax),
        Work(0, z.nbytes, z.nbytes),
        FORMULA.format("n K"),
        referee="numpy",
        prepare=(lambda: np.copyto(z, given)) if in_place else lambda: None,
        by_threads=native,
    )


def logsumexp(n_rows: int, n_classes: int, *, scale: float = 1) -> Race:
    """log(sum(exp(row))), in a new array."""
    z = problems.logits(n_rows_of(n_rows, scale), n_classes).X
    work = np.empty_like(z)
    runs = threads(lambda n_threads: functional.logsumexp(z, n_jobs=n_threads))
    runs["numpy"] = lambda: rivals.numpy_logsumexp(z, work)
    runs["scipy"] = lambda: rivals.scipy_logsumexp(z)
    if torch := rivals.torch_or_none():
        tz = torch.from_numpy(z)
        runs["torch"] = lambda: torch.logsumexp(tz, 1).numpy()
    return Race(
        f"logsumexp, {len(z)} x {n_classes}, float32",
        runs,
        close(1e-4),
        Work(0, z.nbytes, 4.0 * len(z)),
        FORMULA.format("n"),
        referee="numpy",
    )


def cross_entropy_rows(n_rows: int, n_classes: int, *, scale: float = 1) -> Race:
    """Mean cross-entropy of rows of logits and its gradient, in a new array."""
    problem = problems.logits(n_rows_of(n_rows, scale), n_classes)
    z, y = problem.X, problem.labels
    runs = threads(lambda n: cross_entropy(z, y, return_grad=True, n_jobs=n))
    runs["numpy"] = lambda: rivals.numpy_cross_entropy(z, y)
    if rivals.torch_or_none():
        runs["torch"] = rivals.torch_cross_entropy(z, y)
    return Race(
        f"cross_entropy with gradient, {len(z)} x {n_classes}, float32",
        runs,
        close(1e-4),
        Work(0, z.nbytes, z.nbytes),
        FORMULA.format("n K"),
        referee="numpy",
    )
