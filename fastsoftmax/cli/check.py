"""A check of an installation: every compiled kernel against its numpy twin, in about a second.

The twin computes in float64 from the same numbers. An error is the largest difference in an output
divided by the largest value in it. The limit is `LIMIT_EPS` times the machine epsilon: rounding
errors are far below it; the errors of a wrong instruction, tail or thread are far above it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from fastsoftmax import reference
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.kernel_arguments import Descent

LIMIT_EPS = 100
_REALS = (np.float32, np.float64)
# (rows, features, classes): blocks of rows with a remainder, tails of every vector width, two
# classes with one logit, few and many classes.
_SIZES = ((1003, 197, 10), (130, 19, 2), (67, 8, 3), (41, 33, 1009))


@dataclass(frozen=True)
class Problem:
    """Rows, targets and parameters of one real dtype."""

    X: Array
    labels: Array | None
    target_probs: Array | None
    row_weights: Array
    label_smoothing: float
    params: Array  # weights (n_logits, d), then bias (n_logits,)
    logits: Array  # (n, K), so spread out that some rows of softmax are nearly one-hot
    order: Array

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.logits.shape[1])

    @property
    def weights(self) -> Array:
        """Coefficients, (n_logits, d)."""
        n_features = self.X.shape[1]
        n_logits = self.params.size // (n_features + 1)
        return self.params[: n_logits * n_features].reshape(n_logits, n_features)

    @property
    def bias(self) -> Array:
        """Intercepts, (n_logits,)."""
        return self.params[self.weights.size :]

    def targets(self, kernels: ModuleType) -> Any:
        """Return labels or probabilities and row weights as a backend takes them."""
        return kernels.Targets(
            self.labels, self.target_probs, self.row_weights, self.label_smoothing, self.n_classes
        )

    def astype(self, real: Any) -> Problem:
        """Return the same problem with its numbers in another real dtype."""
        return replace(
            self,
            X=self.X.astype(real),
            target_probs=None if self.target_probs is None else self.target_probs.astype(real),
            row_weights=self.row_weights.astype(real),
            params=self.params.astype(real),
            logits=self.logits.astype(real),
        )


@dataclass(frozen=True)
class Result:
    """Errors of one kernel on all problems; `problem` is empty if the kernel is right."""

    isa: str
    real: str
    kernel: str
    error: float
    limit: float
    same_bits: bool
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
    run = KERNELS[name]
    errors = [0.0]
    same_bits = True
    problem = ""
    try:
        for index in range(len(_SIZES)):
            ours, again = (run(kernels, _problem(index, real), isa, t) for t in (1, 2))
            errors += map(_error, ours, _expected(name, index, real))
            same_bits &= all(map(np.array_equal, ours, again))
    except Exception as error:  # the check reports every error
        problem = f"{type(error).__name__}: {error}"
    worst, limit = max(errors), LIMIT_EPS * float(np.finfo(real).eps)
    if not problem and worst > limit:
        problem = f"error {worst:.1e}, limit {limit:.1e}"
    elif not problem and not same_bits:
        problem = "1 and 2 threads give different bits"
    return Result(isa, np.dtype(real).name, name, worst, limit, same_bits, problem)


@functools.cache
def _problem(index: int, real: Any) -> Problem:
    n, n_features, n_classes = _SIZES[index]
    rng = np.random.default_rng(index)
    n_logits = count_logits(n_classes)
    X = rng.standard_normal((n, n_features))
    params = rng.standard_normal(n_logits * (n_features + 1)) / np.sqrt(n_features)
    labels = rng.integers(n_classes, size=n, dtype=np.int32)
    if n_logits == n_classes:  # every other row is classified correctly
        labels[::2] = (X[::2] @ params[:-n_logits].reshape(n_logits, -1).T).argmax(axis=1)
    soft = index == 2
    return Problem(
        X=X,
        labels=None if soft else labels,
        target_probs=rng.dirichlet(np.ones(n_classes), n) if soft else None,
        row_weights=rng.uniform(0.5, 2.0, n),
        label_smoothing=0.1 * (index % 2),
        params=params,
        logits=5.0 * rng.standard_normal((n, n_classes)),
        order=rng.permutation(n),
    ).astype(real)


@functools.cache
def _expected(name: str, index: int, real: Any) -> tuple[Array, ...]:
    return KERNELS[name](reference, _problem(index, real).astype(np.float64), None, 1)


def _error(ours: Array, expected: Array) -> float:
    difference = float(np.abs(ours - expected).max())
    if difference == 0.0:
        return 0.0
    largest = float(np.abs(expected).max())
    return difference / largest if np.isfinite(difference) and largest > 0.0 else np.inf


def _softmax_rows(kernels: ModuleType, p: Problem, isa: Any, n_threads: int) -> tuple[Array, ...]:
    out = np.empty_like(p.logits)
    kernels.softmax_rows(out, p.logits, isa=isa, n_threads=n_threads)
    return (out,)


def _cross_entropy_rows(
    kernels: ModuleType, p: Problem, isa: Any, n_threads: int
) -> tuple[Array, ...]:
    loss, grad = np.empty_like(p.row_weights), np.empty_like(p.logits)
    targets = p.targets(kernels)
    kernels.cross_entropy_rows(loss, grad, p.logits, targets, isa=isa, n_threads=n_threads)
    return loss, grad


def _affine_rows(kernels: ModuleType, p: Problem, isa: Any, n_threads: int) -> tuple[Array, ...]:
    logits = np.empty((len(p.X), len(p.bias)), dtype=p.X.dtype)
    kernels.affine_rows(logits, p.X, p.weights, p.bias, isa=isa, n_threads=n_threads)
    return (logits,)


def _loss_grad(kernels: ModuleType, p: Problem, isa: Any, n_threads: int) -> tuple[Array, ...]:
    grad_weights, grad_bias = np.empty(p.weights.shape), np.empty(p.bias.shape)
    targets, coefficients = p.targets(kernels), (p.weights, p.bias)
    loss, correct = kernels.loss_grad(
        grad_weights, grad_bias, p.X, targets, *coefficients, isa=isa, n_threads=n_threads
    )
    return grad_weights, grad_bias, np.array(loss), np.array(correct)


def _sgd_steps(kernels: ModuleType, p: Problem, isa: Any, n_threads: int) -> tuple[Array, ...]:
    params, velocity = p.params.copy(), np.zeros_like(p.params)
    descent = Descent(batch_size=50, learning_rate=0.1, momentum=0.9, l2=0.01, fit_bias=True)
    steps = (p.targets(kernels), p.order, descent)
    loss, correct = kernels.sgd_steps(params, velocity, p.X, *steps, isa=isa, n_threads=n_threads)
    return params, velocity, np.array(loss), np.array(correct)


KERNELS: dict[str, Callable[[ModuleType, Problem, Any, int], tuple[Array, ...]]] = {
    "softmax_rows": _softmax_rows,
    "cross_entropy_rows": _cross_entropy_rows,
    "affine_rows": _affine_rows,
    "loss_grad": _loss_grad,
    "sgd_steps": _sgd_steps,
}
