"""What the functions of `reference` share: their signature, and rows of logits in plain numpy."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from fastsoftmax.arrays import Array, slices

P = ParamSpec("P")
R = TypeVar("R")

# A block's logits: half a megabyte in float64, of which about eight arrays are alive at a time.
# The quickest of 2^12 to 2^20 on 60000 x 784 float32 with 10 classes (numpy 2.4, 2 cores).
_BLOCK_NUMBERS = 1 << 16
# A block of a gradient pass has at least this many rows: each block costs a product that reads
# and writes the whole gradient.
MIN_GRAD_ROWS = 16

# Settings that every kernel has, in their order; they have no effect here.
_SETTINGS = (
    inspect.Parameter("isa", inspect.Parameter.KEYWORD_ONLY, default=None),
    inspect.Parameter("n_threads", inspect.Parameter.KEYWORD_ONLY, default=1),
)


def threaded(function: Callable[P, R]) -> Callable[..., R]:
    """Decorate the twin of a kernel: it also takes `isa` and `n_threads`, and gives no warnings.

    Infinities and NaN are results here, not mishaps.
    """
    return _twin(function, _SETTINGS)


def serial(function: Callable[P, R]) -> Callable[..., R]:
    """As `threaded`, for a kernel that has `isa` alone."""
    return _twin(function, _SETTINGS[:1])


def _twin(function: Callable[P, R], settings: tuple[inspect.Parameter, ...]) -> Callable[..., R]:
    signature = inspect.signature(function)
    parameters = [*signature.parameters.values(), *settings]

    @functools.wraps(function)
    def computing(*args: Any, **named: Any) -> R:
        for setting in settings:
            named.pop(setting.name, None)
        with np.errstate(all="ignore"):
            return function(*args, **named)

    computing.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return computing


class Shifted(NamedTuple):
    """Rows of logits z in terms of their largest, in float64."""

    gap: Array  # (n, K) largest - z
    exps: Array  # (n, K) exp(-gap)
    largest: Array  # (n, 1), NaN where the row has a NaN
    at: Array  # (n, 1) index of the largest
    others: Array  # (n, 1) sum of exps without the largest; NaN where a row has no distribution


class Targets:
    """What rows are compared with, and their weights: checked once, as `targets` of the functions.

    Either labels (n,), int32, or distributions target_probs (n, n_classes) are given; the others
    are None. Labels must not change while this object is in use; the compiled kernels take a copy.
    """

    def __init__(
        self,
        labels: Array | None,
        target_probs: Array | None,
        row_weights: Array,
        label_smoothing: float,
        n_classes: int,
    ) -> None:
        if (labels is None) == (target_probs is None):
            raise ValueError("exactly one of labels and target_probs must be given")
        if labels is not None and labels.size:
            low, high = labels.min(), labels.max()
            if low < 0 or high >= n_classes:
                raise ValueError(
                    f"labels must lie in [0, {n_classes}), got values from {low} to {high}"
                )
        self.labels = labels
        self.target_probs = target_probs
        self.row_weights = row_weights
        self.label_smoothing = label_smoothing
        self.n_classes = n_classes

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.row_weights)

    def __getitem__(self, rows: slice) -> "Targets":
        """Return adjacent rows."""
        part = copy.copy(self)
        part.row_weights = self.row_weights[rows]
        part.labels = None if self.labels is None else self.labels[rows]
        part.target_probs = None if self.target_probs is None else self.target_probs[rows]
        return part

    def of(self, rows: Any) -> tuple[Array, Array, Array]:
        """(smoothed distributions in a new float64 array, likeliest class, weight) of rows."""
        if self.target_probs is not None:
            target = self.target_probs[rows].astype(np.float64)
            likeliest = target.argmax(axis=1)
        else:
            assert self.labels is not None
            likeliest = self.labels[rows]
            target = np.zeros((len(likeliest), self.n_classes))
            target[np.arange(len(target)), likeliest] = 1.0
        if self.label_smoothing:
            target *= 1.0 - self.label_smoothing
            target += self.label_smoothing / self.n_classes
        return target, likeliest, self.row_weights[rows]


def shift(logits: Array) -> Shifted:
    z = logits.astype(np.float64, copy=False)
    at = z.argmax(axis=1)[:, np.newaxis]
    largest = np.take_along_axis(z, at, axis=1)
    gap = largest - z
    exps = np.exp(-gap)
    if logits.dtype == np.float64:
        # Rounding gap to ulp(gap) / 2 would cost exp as many ulp as gap / 2: carry the remainder
        # of the difference (Knuth's two-sum), as exp(-(gap + r)) = exp(-gap) (1 - r).
        back = gap - largest
        remainder = (largest - (gap - back)) - (z + back)
        exps -= exps * np.where(gap < np.inf, remainder, 0.0)
    np.put_along_axis(exps, at, 0.0, axis=1)
    others = exps.sum(axis=1, keepdims=True)
    others += largest - largest  # NaN for a row that holds NaN or +inf, or nothing but -inf
    np.put_along_axis(exps, at, 1.0, axis=1)
    return Shifted(gap, exps, largest, at, others)


def all_logits(logits: Array, n_classes: int) -> Array:
    """Return the logits of all classes; of two with one logit class 0 has 0."""
    if logits.shape[1] < n_classes:
        logits = np.column_stack([np.zeros_like(logits), logits])
    return logits


def row_losses(row: Shifted, target: Array) -> Array:
    """sum_k target_k (logsumexp(z) - z_k), a sum of terms that are all >= 0."""
    terms = np.where(target > 0.0, target * row.gap, 0.0)  # 0 * inf counts as 0
    losses: Array = terms.sum(axis=1) + np.log1p(row.others[:, 0])
    return losses


def residual_of(row: Shifted, target: Array, row_weights: Array) -> Array:
    """row_weight * (softmax - target), without cancellation where both are near 1."""
    total = 1.0 + row.others
    residual: Array = row.exps / total - target
    t = np.take_along_axis(target, row.at, axis=1)
    plain = np.take_along_axis(residual, row.at, axis=1)
    near_one = np.where(t > 0.5, (1.0 - t) - row.others / total, plain)
    np.put_along_axis(residual, row.at, near_one, axis=1)
    residual *= row_weights[:, np.newaxis]
    return residual


def features_of(X: Any, rows: Any, real: np.dtype[Any]) -> Any:
    """Return rows to compute with; dense ones in C order, as the order decides a product's bits."""
    x = X[rows]
    return np.require(x, real, "C") if isinstance(x, np.ndarray) else x.astype(real, copy=False)


def blocks(n_rows: int, width: int, min_rows: int = 1) -> Iterator[slice]:
    return slices(n_rows, max(min_rows, _BLOCK_NUMBERS // max(1, width)))
