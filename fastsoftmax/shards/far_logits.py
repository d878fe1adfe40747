"""Logits beyond the range of their number type: computed once more, as they are without that limit.

Products of finite numbers overflow: a feature may be -3.4e38 for "no data", say. Infinite logits
have no order, and a difference of two is NaN. So here the logits of a row are float64 numbers times
a power of two, by which its features are divided first, where float64 overflows too. Then the
classes have the order, the differences and the ties of the exact logits, to rounding. From these
come probabilities (mostly 0 and 1; equal logits share), their logarithms, and logits. What is
beyond the largest number of a type becomes one of its largest numbers, in order.

Kernels tell whether any logit of a call is not finite. Only then such rows are looked for.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array, slices

# Numbers of a block of features or logits (8 MB of float64).
_BLOCK_NUMBERS = 1 << 20
# Powers of two below which sums, differences and quotients by a number in [0.5, 1) are finite.
_MOST = 1020


class Model(NamedTuple):
    """Finite coefficients; an intercept may be -inf, that of a class which never occurs."""

    weights: Array  # (n_logits, n_features), of any float type
    bias: Array  # (n_logits,)
    temperature: float = 1.0  # what logits are divided by

    def is_valid(self) -> bool:
        """Whether the coefficients are such numbers."""
        return bool(np.isfinite(self.weights).all() and (self.bias < np.inf).all())


class FarLogits(NamedTuple):
    """Logits of some rows, one for each class: values * 2^exponents."""

    rows: Array  # their numbers
    values: Array  # (n_rows, n_classes) float64; -inf for a class that never occurs
    exponents: Array  # (n_rows, 1) integers

    def in_range(self, real: np.dtype[Any]) -> Array:
        """Return the logits in a number type."""
        return _in_range(self.values, self.exponents, real)

    def ranked(self) -> Array:
        """Return the numbers of the classes by logit, largest first, of equal ones the smaller."""
        order: Array = np.argsort(-self.values, axis=1, kind="stable")
        return order

    def probabilities(self) -> Array:
        """Return the softmax, in float64."""
        _, terms = self._terms()
        return np.asarray(terms / terms.sum(axis=1, keepdims=True))

    def log_probabilities(self, real: np.dtype[Any]) -> Array:
        """Return the logarithms of the softmax in a number type."""
        below, terms = self._terms()
        first = below.argmax(axis=1)[:, np.newaxis]
        np.put_along_axis(terms, first, 0.0, axis=1)
        return _in_range(below, self.exponents, real, less=np.log1p(terms.sum(1, keepdims=True)))

    def _terms(self) -> tuple[Array, Array]:
        """Return values less the largest one of the row, and exponentials of these logits."""
        below = self.values - self.values.max(axis=1, keepdims=True)
        return below, np.exp(np.ldexp(below, self.exponents))


def blocks(X: Any, n_classes: int) -> Iterator[slice]:
    """Yield slices of rows whose features and logits take little memory in float64."""
    return slices(X.shape[0], max(1, _BLOCK_NUMBERS // max(1, X.shape[1], n_classes)))


def far_logits(
    x: Any, rows: Any, weights: Array, bias: Array, model: Model, computing: tuple[Any, int]
) -> FarLogits | None:
    """Return logits of those rows where one, or the difference of two, overflows; None for none.

    x is an array or a CSR matrix, and rows the same as the backend takes it; rows with NaN or
    infinity get logits of NaN. weights and bias are the coefficients with which logits overflow,
    and model the same before they were divided by the temperature. computing is the backend and the
    number of threads.
    """
    backend, n_threads = computing
    logits = np.empty((x.shape[0], len(bias)), dtype=weights.dtype)
    backend.affine_rows(logits, rows, weights, bias, n_threads=n_threads)
    logits = logits[:, model.bias > -np.inf]
    spread = np.ptp(logits, axis=1) if logits.shape[1] > 1 else logits.sum(axis=1)
    far = np.flatnonzero(~np.isfinite(spread))
    if not far.size:
        return None
    dense = x[far].toarray() if sparse.issparse(x) else x[far]
    dense = np.ascontiguousarray(dense, dtype=np.float64)
    exponents = _exponents(dense, model)
    values = np.empty((len(far), len(bias)))
    backend.affine_rows(
        values,
        np.ldexp(dense, -exponents),
        np.ascontiguousarray(model.weights, dtype=np.float64),
        np.zeros(len(bias)),
        n_threads=n_threads,
    )
    values += np.ldexp(np.asarray(model.bias, dtype=np.float64), -exponents)
    values[~np.isfinite(dense).all(axis=1)] = np.nan
    temperature, of_temperature = math.frexp(model.temperature)
    values /= temperature
    if values.shape[1] == 1:  # of two classes the first one's logit is 0
        values = np.hstack([np.zeros_like(values), values])
    return FarLogits(far, values, exponents - of_temperature)


def _exponents(x: Array, model: Model) -> Array:
    """Return the powers of two to divide rows by, so that nothing overflows in float64."""
    of_rows = np.frexp(np.abs(x).max(axis=1, initial=0.0, keepdims=True))[1]
    weights = np.asarray(model.weights, dtype=np.float64)
    of_weights = int(np.frexp(np.abs(weights).max(initial=0.0))[1])
    finite_bias = np.where(np.isfinite(model.bias), model.bias, 0.0).astype(np.float64)
    of_bias = int(np.frexp(np.abs(finite_bias).max(initial=0.0))[1])
    of_sums = of_rows + (of_weights + x.shape[1].bit_length())
    exponents: Array = np.maximum(0, np.maximum(of_sums, of_bias) + 1 - _MOST)
    return exponents


def _in_range(
    values: Array, exponents: Array, real: np.dtype[Any], less: Array | float = 0.0
) -> Array:
    """Return values * 2^exponents - less in a number type, where `less` is small; -inf remains.

    The k-th largest of the different values is at most the k-th largest number of the type, and so
    with the smallest: what is out of range keeps its order.
    """
    largest = np.finfo(real).max
    unit = float(largest) - float(np.nextafter(largest, real.type(0)))
    order = np.argsort(values, axis=1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=1)
    # (the difference of two classes that never occur is NaN)
    differs = (np.diff(ascending, axis=1) > 0.0) & ~np.isneginf(ascending[:, :-1])
    steps = np.zeros(values.shape, dtype=np.int64)
    np.cumsum(differs, axis=1, out=steps[:, 1:])
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps, axis=1)
    highest = float(largest) - (steps[:, -1:] - ranks) * unit
    lowest = -float(largest) + ranks * unit
    result = np.clip(np.ldexp(values, exponents) - less, lowest, highest)
    return np.where(np.isneginf(values), -np.inf, result).astype(real)
