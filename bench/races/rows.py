"""Races over rows of logits: softmax, log-softmax, log-sum-exp, cross-entropy."""

import functools

import numpy as np
from measuring import problems
from measuring.floor import Work
from measuring.harness import Race, close
from races import native, rivals

from fastsoftmax import cross_entropy, functional

SHAPES = ((100_000, 10), (10_000, 1_000), (1_000, 100_000))
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
    """softmax or log_softmax of rows, written to an existing array.

    In place, that is the array of the logits: only the first of many runs starts from them. torch
    has no softmax in place and writes to another array.
    """
    given = problems.logits(problems.scaled_rows(n_rows, scale), n_classes).X
    z = given.copy() if in_place else given
    out = z if in_place else np.empty_like(z)
    function, is_softmax = getattr(functional, operation), operation == "softmax"

    def by_threads(n_threads: int) -> np.ndarray:
        return function(z, out=out, n_jobs=n_threads)

    if by_isa:
        runs = native.by_isa(native.softmax_by_isa(operation, out, z))
    else:
        runs = native.by_threads(by_threads)
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
        + native.ISA_TITLE * by_isa,
        runs,
        close(1e-4, elementwise=is_softmax),
        "numpy",
        Work(0, z.nbytes, z.nbytes),
        FORMULA.format("n K"),
        prepare=(lambda: np.copyto(z, given)) if in_place else lambda: None,
        by_threads=by_threads,
    )


def logsumexp(n_rows: int, n_classes: int, *, scale: float = 1) -> Race:
    """log(sum(exp(row))), in a new array."""
    z = problems.logits(problems.scaled_rows(n_rows, scale), n_classes).X
    work = np.empty_like(z)
    runs = native.by_threads(lambda n_threads: functional.logsumexp(z, n_jobs=n_threads))
    runs["numpy"] = lambda: rivals.numpy_logsumexp(z, work)
    runs["scipy"] = lambda: rivals.scipy_logsumexp(z)
    if torch := rivals.torch_or_none():
        tz = torch.from_numpy(z)
        runs["torch"] = lambda: torch.logsumexp(tz, 1).numpy()
    return Race(
        f"logsumexp, {len(z)} x {n_classes}, float32",
        runs,
        close(1e-4),
        "numpy",
        Work(0, z.nbytes, 4.0 * len(z)),
        FORMULA.format("n"),
    )


def cross_entropy_rows(n_rows: int, n_classes: int, *, scale: float = 1) -> Race:
    """Mean cross-entropy of rows of logits and its gradient, in a new array."""
    problem = problems.logits(problems.scaled_rows(n_rows, scale), n_classes)
    z, y = problem.X, problem.labels
    runs = native.by_threads(lambda n: cross_entropy(z, y, return_grad=True, n_jobs=n))
    runs["numpy"] = lambda: rivals.numpy_cross_entropy(z, y)
    if rivals.torch_or_none():
        runs["torch"] = rivals.torch_cross_entropy(z, y)
    return Race(
        f"cross_entropy with gradient, {len(z)} x {n_classes}, float32",
        runs,
        close(1e-4),
        "numpy",
        Work(0, z.nbytes, z.nbytes),
        FORMULA.format("n K"),
    )
