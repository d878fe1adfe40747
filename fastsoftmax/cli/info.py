"""``python -m fastsoftmax info``: what is installed, and whether the kernels are right.

The check compares every compiled kernel with its numpy twin, in about a second. The twin computes
in float64 from the same numbers. An error is the largest difference in an output divided by the
largest value in it. The limit is `LIMIT_EPS` times the machine epsilon: rounding errors are far
below it; the errors of a wrong instruction, tail or thread are far above it.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from fastsoftmax import reference
from fastsoftmax._show_versions import show_versions
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.backend import resolve_backend
from fastsoftmax.kernel_arguments import Descent

LIMIT_EPS = 100
_DESCENT = Descent(batch_size=50, learning_rate=0.1, momentum=0.9, l2=0.01, fit_bias=True)
_REALS = (np.float32, np.float64)
# (rows, features, classes): blocks of rows with a remainder, tails of every vector width, two
# classes with one logit, few and many classes.
_SIZES = ((1003, 197, 10), (130, 19, 2), (67, 8, 3), (41, 33, 1009))


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "info",
        help="print versions, instruction sets and threads, and check the kernels",
        description="Print versions, instruction sets, threads and OpenMP; then compare every "
        "compiled kernel with its numpy twin, for every instruction set of this CPU, in float32 "
        "and float64. The exit code is 1 if one of them is wrong.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print everything; return 1 if a kernel is wrong."""
    show_versions()
    try:
        kernels = resolve_backend("native")
    except ImportError:
        print("\nself-check: skipped, because there are no compiled kernels")
        return 0
    # Flushed, so that the description of the machine is printed before a kernel may crash.
    print(
        "\nself-check: the compiled kernels are compared with numpy in float64. The table shows "
        "the\nlargest error divided by the largest value. A kernel is right if this is at most "
        f"{LIMIT_EPS} times\nthe machine epsilon, and if 1 and 2 threads give the same bits.",
        flush=True,
    )
    start = time.perf_counter()
    print(f"\n{'':<14}" + "".join(f"  {name}" for name in KERNELS))
    results: list[Result] = []
    for result in check_kernels(kernels):
        results.append(result)
        if len(results) % len(KERNELS) == 0:  # a line for each instruction set and type
            row = results[-len(KERNELS) :]
            cells = (f"{r.error:.1e}" if r.ok else "FAILED" for r in row)
            line = "".join(f"  {c:>{len(name)}}" for name, c in zip(KERNELS, cells, strict=True))
            print(f"{f'{result.isa} {result.real}':<14}{line}", flush=True)
    seconds = time.perf_counter() - start
    print()
    wrong = [result for result in results if not result.ok]
    for result in wrong:
        print(f"{result.kernel} on {result.isa} in {result.real}: {result.problem}")
    print(f"self-check: {'FAILED' if wrong else 'ok'} ({seconds:.1f} s)")
    return 1 if wrong else 0


@dataclass(frozen=True)
class Problem:
    """Rows, targets and coefficients of one real dtype."""

    X: Array
    labels: Array | None
    target_probs: Array | None
    row_weights: Array
    label_smoothing: float
    weights: Array  # (n_logits, d)
    bias: Array  # (n_logits,)
    logits: Array  # (n, K), so spread out that some rows of softmax are nearly one-hot
    order: Array

    def astype(self, real: Any) -> Problem:
        """Return the same problem with its numbers in another real dtype."""
        numbers: dict[str, Any] = {
            name: value.astype(real)
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        }
        return replace(self, **numbers)


# For each kernel: the arrays that it writes, and its other arguments.
KERNELS: dict[str, Callable[[Problem, Any], tuple[tuple[Array, ...], tuple[Any, ...]]]] = {
    "softmax_rows": lambda p, _: ((np.empty_like(p.logits),), (p.logits,)),
    "cross_entropy_rows": lambda p, targets: (
        (np.empty_like(p.row_weights), np.empty_like(p.logits)),
        (p.logits, targets),
    ),
    "affine_rows": lambda p, _: (
        (np.empty((len(p.X), len(p.bias)), dtype=p.X.dtype),),
        (p.X, p.weights, p.bias),
    ),
    "loss_grad": lambda p, targets: (
        (np.empty(p.weights.shape), np.empty(p.bias.shape)),
        (p.X, targets, p.weights, p.bias),
    ),
    "sgd_steps": lambda p, targets: (
        (np.append(p.weights, p.bias), np.zeros(p.weights.size + p.bias.size, p.bias.dtype)),
        (p.X, targets, p.order, _DESCENT),
    ),
}


@dataclass(frozen=True)
class Result:
    """Errors of one kernel on all problems; `problem` is empty if the kernel is right."""

    isa: str
    real: str
    kernel: str
    error: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the kernel is right."""
        return not self.problem


def check_kernels(kernels: ModuleType) -> Iterator[Result]:
    """Compare each kernel of a compiled module with the twin, best instruction set first."""
    for isa in kernels.available_isas():
        for real in _REALS:
            for name in KERNELS:
                yield _check(kernels, name, isa, real)


def _check(kernels: ModuleType, name: str, isa: str, real: Any) -> Result:
    errors = [0.0]
    same_bits = True
    problem = ""
    try:
        for index in range(len(_SIZES)):
            given = _problem(index, real)
            ours, again = (_run(kernels, name, given, isa, n_threads) for n_threads in (1, 2))
            errors += map(_error, ours, _expected(name, index, real))
            same_bits &= all(map(np.array_equal, ours, again))
    except Exception as error:  # the check reports every error
        problem = f"{type(error).__name__}: {error}"
    worst, limit = max(errors), LIMIT_EPS * float(np.finfo(real).eps)
    if not problem and worst > limit:
        problem = f"error {worst:.1e}, limit {limit:.1e}"
    elif not problem and not same_bits:
        problem = "1 and 2 threads give different bits"
    return Result(isa, np.dtype(real).name, name, worst, problem)


@functools.cache
def _problem(index: int, real: Any) -> Problem:
    n, n_features, n_classes = _SIZES[index]
    rng = np.random.default_rng(index)
    n_logits = count_logits(n_classes)
    X = rng.standard_normal((n, n_features))
    params = rng.standard_normal(n_logits * (n_features + 1)) / np.sqrt(n_features)
    weights, bias = params[:-n_logits].reshape(n_logits, n_features), params[-n_logits:]
    labels = rng.integers(n_classes, size=n, dtype=np.int32)
    if n_logits == n_classes:  # every other row is classified correctly
        labels[::2] = (X[::2] @ weights.T).argmax(axis=1)
    soft = index == 2
    return Problem(
        X=X,
        labels=None if soft else labels,
        target_probs=rng.dirichlet(np.ones(n_classes), n) if soft else None,
        row_weights=rng.uniform(0.5, 2.0, n),
        label_smoothing=0.1 * (index % 2),
        weights=weights,
        bias=bias,
        logits=5.0 * rng.standard_normal((n, n_classes)),
        order=rng.permutation(n),
    ).astype(real)


@functools.cache
def _expected(name: str, index: int, real: Any) -> list[Array]:
    return _run(reference, name, _problem(index, real).astype(np.float64), None, 1)


def _run(kernels: ModuleType, name: str, p: Problem, isa: Any, n_threads: int) -> list[Array]:
    """Return what a kernel computes: the arrays that it writes and the numbers that it returns."""
    n_classes = p.logits.shape[1]
    targets = kernels.Targets(p.labels, p.target_probs, p.row_weights, p.label_smoothing, n_classes)
    written, read = KERNELS[name](p, targets)
    returned = getattr(kernels, name)(*written, *read, isa=isa, n_threads=n_threads)
    return [*written, *map(np.array, returned or ())]


def _error(ours: Array, expected: Array) -> float:
    difference = float(np.abs(ours - expected).max())
    if difference == 0.0:
        return 0.0
    largest = float(np.abs(expected).max())
    return difference / largest if np.isfinite(difference) and largest > 0.0 else np.inf
