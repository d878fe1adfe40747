"""Mini-batches of arrays, frames and sparse matrices, in a new random order for every epoch."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastsoftmax.foreign_arrays import as_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows: TypeAlias = slice | NDArray[np.int64]

__all__ = ["Batches", "iter_batches"]


class Batches:
    """The mini-batches that `iter_batches` returns; can be iterated repeatedly.

    ``len`` is the number of batches. Each iteration is one epoch. Its order depends only on the
    seed and the number of the iteration. Iterators are independent.
    """

    def __init__(
        self, arrays: list[Any], batch_size: int, seed: int | None, drop_last: bool, prefetch: int
    ) -> None:
        self._arrays, self._n_rows = arrays, int(arrays[0].shape[0])
        self._batch_size, self._drop_last = batch_size, drop_last
        self._seed, self._prefetch = seed, prefetch
        self._n_epochs = 0

    def __len__(self) -> int:
        """Return the number of batches in one iteration."""
        n_whole, rest = divmod(self._n_rows, self._batch_size)
        return n_whole + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Begin the next epoch."""
        rows = self._split(self._n_epochs)
        self._n_epochs += 1
        return self._ahead(rows) if self._prefetch else map(self._gather, rows)

    def _split(self, epoch: int) -> Iterator[Rows]:
        n, size = self._n_rows, self._batch_size
        starts = range(0, len(self) * size, size)
        if self._seed is None:
            return (slice(start, min(start + size, n)) for start in starts)
        order = np.random.default_rng((self._seed, epoch)).permutation(n)
        return (order[start : start + size] for start in starts)

    def _gather(self, rows: Rows) -> tuple[Any, ...]:
        return tuple(_take(array, rows) for array in self._arrays)

    def _ahead(self, rows: Iterator[Rows]) -> Iterator[tuple[Any, ...]]:
        """Gather `prefetch` batches ahead in a thread, which ends with the iteration.

        Where the system refuses a thread, they are gathered when they are asked for.
        """
        from concurrent.futures import Future, ThreadPoolExecutor

        pool = ThreadPoolExecutor(1, thread_name_prefix="fastsoftmax-batches")
        waiting: deque[Future[tuple[Any, ...]]] = deque()
        try:
            for some in islice(rows, self._prefetch):
                try:
                    waiting.append(pool.submit(self._gather, some))
                except (RuntimeError, MemoryError):  # "can't start new thread", for the first one
                    yield from map(self._gather, chain([some], rows))
                    return
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(self._gather, r) for r in islice(rows, 1))
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def iter_batches(
    X: Any,
    y: Any,
    batch_size: int = 256,
    *,
    shuffle: bool = True,
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
    sample_weight: Any = None,
    drop_last: bool = False,
    prefetch: int = 0,
) -> Batches:
    """Divide rows into mini-batches, in a new random order for every iteration.

    Parameters
    ----------
    X : array of shape (n, ...)
        The rows: an ndarray, memmap, pandas or polars frame, or scipy sparse matrix (any but CSR
        is converted to CSR, once), or a tensor of PyTorch. Other arrays and sequences become an
        ndarray.
    y : array of shape (n,) or (n, K)
        Labels or class probabilities, of the same kinds.
    batch_size : int, default=256
        Rows in a batch; the last batch has the remaining rows.
    shuffle : bool, default=True
        Take the rows in a random order, a new one in each iteration. With False the batches of an
        ndarray are views of it.
    random_state : int, Generator, RandomState or None, default=None
        Fixes the orders: equal seeds give equal sequences of iterations. A generator is used once,
        in this call.
    sample_weight : array of shape (n,), default=None
        Row weights, divided like the rows.
    drop_last : bool, default=False
        Leave out a last batch with fewer than `batch_size` rows.
    prefetch : int, default=0
        Number of batches that a background thread gathers ahead. The thread ends with the
        iteration, also if the loop is left early.

    Returns
    -------
    batches : Batches
        A re-iterable of ``(X_b, y_b)``, or ``(X_b, y_b, sample_weight_b)`` with row weights, each
        of the type of its array; ``len(batches)`` is the number of batches.

    Raises
    ------
    TypeError
        If an argument has no rows or is of another type.
    ValueError
        If lengths differ or a number is out of range.

    Examples
    --------
    >>> from fastsoftmax.datasets import iter_batches, load_fashion_mnist_sample
    >>> X, y = load_fashion_mnist_sample()
    >>> batches = iter_batches(X, y, batch_size=256, random_state=0)
    >>> len(batches)
    4
    >>> [X_b.shape for X_b, y_b in batches]
    [(256, 784), (256, 784), (256, 784), (232, 784)]
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    prefetch = whole_number("prefetch", prefetch, 0)
    named = {"X": X, "y": y}
    if sample_weight is not None:
        named["sample_weight"] = sample_weight
    arrays = {name: _as_rows(name, array) for name, array in named.items()}
    n_rows = int(arrays["X"].shape[0])
    for name, array in arrays.items():
        if array.shape[0] != n_rows:
            raise ValueError(f"{name} has {array.shape[0]} rows and X has {n_rows}")
    seed = _seed(random_state) if shuffle else None
    return Batches([*arrays.values()], batch_size, seed, drop_last, prefetch)


def whole_number(name: str, value: Any, least: int) -> int:
    """Return the value as an int; TypeError for other types, ValueError below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def _seed(random_state: Any) -> int:
    if random_state is None:
        return int(np.random.default_rng().integers(2**63))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31, dtype=np.int64))
    return whole_number("random_state", random_state, 0)


def _as_rows(name: str, array: Any) -> Any:
    """Return the array in a form that has a shape and row indexing."""
    if hasattr(array, "tocsr"):
        return array.tocsr()
    if not hasattr(array, "requires_grad"):  # (tensors of PyTorch can be indexed as arrays can)
        array = as_numpy(array, name)
    if not hasattr(array, "shape"):
        given = array
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise ValueError(f"{name} is no array: {error}") from error
        if array.ndim == 1 and array.dtype.kind == "U" and set(map(type, given)) != {str}:
            array = np.array(given, dtype=object)  # numpy would make strings of NaN and numbers
    if len(array.shape) == 0:
        raise TypeError(f"{name} must be an array with rows, not {array!r}")
    return array


def _take(array: Any, rows: Rows) -> Any:
    batch = array.iloc[rows] if hasattr(array, "iloc") else array[rows]
    return np.asarray(batch) if isinstance(batch, np.memmap) else batch
