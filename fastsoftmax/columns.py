"""Matrices with numbers in some columns: of hashed text, most of 2^20 features never occur.

Nothing can be learnt of a column of X without an entry: its coefficient is 0 at the minimum, and
the objective is that of the other columns. So fits are to the columns in use, and estimators keep
coefficients of these alone. The whole matrix, which may take a hundred times the memory, is made
where users ask for it (`Whole`).
"""

import math
import mmap
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fastsoftmax.arrays import Array

# Up to this share of columns with entries, and from this number of columns on, only those are
# worked on. (12500 filled columns, K = 18, L-BFGS: at a share of 0.8 a fit takes 0.86 of the time
# that it takes with all columns, at 0.5 0.7. Fewer than 1024 columns take little time anyway.)
_SHARE = 0.8
_FEWEST = 1024
# Entries for each column up to which sorting and searching them is quicker than an array as long as
# all columns: of 2^20, it takes 1 ms, as new memory does.
_FEW = 1 / 128
# Bytes from which it is worth while to look for columns of zeros.
_LARGE = 1 << 16


class InColumns(NamedTuple):
    """An array whose last axis is 0 outside of some columns."""

    columns: Array  # (n,) ascending
    values: Array  # (..., n)
    n_columns: int  # of the whole

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        return (*self.values.shape[:-1], self.n_columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type."""
        return self.values.dtype

    def astype(self, dtype: Any) -> "InColumns":
        """Return a copy in a number type."""
        return self._replace(values=self.values.astype(dtype))

    def at(self, columns: Array) -> Array:
        """Return (..., len(columns)) the numbers in other columns, ascending."""
        if columns is self.columns or np.array_equal(columns, self.columns):
            return self.values
        places = np.searchsorted(self.columns, columns)
        places[places == len(self.columns)] = 0
        found = np.take(self.values, places, axis=-1)
        found[..., self.columns[places] != columns] = 0
        return found

    def toarray(self) -> Array:
        """Return the whole, as an array that is the caller's own.

        A matrix lies by rows. What has more dimensions can be far larger and lies by columns, in
        memory of which the system gives only what is written to.
        """
        if self.values.ndim == 2:
            whole: Array = np.zeros(self.shape, dtype=self.dtype)
            whole[:, self.columns] = self.values
            return whole
        by_columns = _untouched((self.n_columns, *self.shape[:-1]), self.dtype)
        by_columns[self.columns] = np.moveaxis(self.values, -1, 0)
        return np.moveaxis(by_columns, 0, -1)


def _untouched(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return zeros in pages of 4 KB, which take no memory until they are written to.

    numpy asks for pages of 2 MB, and a single column in each would take all of the memory.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):  # (on Windows)
        return np.zeros(shape, dtype=dtype)
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype=dtype).reshape(shape)


class Whole:
    """An attribute that may be kept as an `InColumns`; it becomes an array where it is read."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Note the name, which the value of an instance takes the place of."""
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return the array, which is made once."""
        if instance is None:
            return self
        own, name = vars(instance), self._name
        found = own.get(private_name(name))
        if found is not None:
            own[name] = found.toarray()
            own.pop(private_name(name), None)  # (last: another thread finds one of the two)
        if name not in own:
            raise AttributeError(f"{type(instance).__name__!r} object has no attribute {name!r}")
        return own[name]


def private_name(name: str) -> str:
    """Return the name under which an `InColumns` of an attribute is kept."""
    return f"_{name}in_columns"


def store_all(instance: Any, values: Mapping[str, Any]) -> None:
    """Set attributes, of which a `Whole` may be an `InColumns`, all in one step."""
    own = vars(instance)
    new = {private_name(k) if isinstance(v, InColumns) else k: v for k, v in values.items()}
    for name in values:  # the form that it had
        own.pop(name if private_name(name) in new else private_name(name), None)
    own.update(new)


def stored(instance: Any, name: str) -> Any:
    """Return the value of an attribute that is a `Whole` as it is kept; None if there is none."""
    own = vars(instance)
    found = None if name in own else own.get(private_name(name))
    return getattr(instance, name, None) if found is None else found


def whole(matrix: Any) -> Any:
    """Return a matrix of any form as an array, and everything else as it is."""
    is_array = not (sparse.issparse(matrix) or isinstance(matrix, InColumns))
    return matrix if is_array else matrix.toarray()


def sparsified(matrix: Any) -> Any:
    """Return a matrix of any form as a csr_array of what is not 0."""
    if not isinstance(matrix, InColumns):
        return sparse.csr_array(matrix)
    part = sparse.csr_array(matrix.values)
    columns = matrix.columns.astype(np.int32)[part.indices]
    return sparse.csr_array((part.data, columns, part.indptr), shape=matrix.shape)


def stored_numbers(matrix: Any) -> Array:
    """Return the numbers of a matrix of any form that may differ from 0."""
    if isinstance(matrix, InColumns):
        return matrix.values
    return np.asarray(matrix.data if sparse.issparse(matrix) else matrix)


def in_columns(matrix: Any, columns: Array | None) -> Array:
    """Return some columns of a matrix of any form, or all for None, as an array."""
    found: Array
    if columns is None:
        found = whole(matrix)
    elif isinstance(matrix, InColumns):
        found = matrix.at(columns)
    elif sparse.issparse(matrix):
        found = some_columns(sparse.csr_array(matrix), columns, matrix.dtype).toarray()
    else:
        found = np.take(matrix, columns, axis=1)
    return found


def filled_columns(X: Any, *beside: Any) -> Array | None:
    """Return the columns of a CSR matrix that have entries, ascending; None where most do.

    Columns in which other matrices are not 0, such as coefficients to start from, count too.
    """
    n_columns = X.shape[1]
    if not sparse.issparse(X) or n_columns < _FEWEST:
        return None
    entries = X.indices[X.indptr[0] : X.indptr[-1]]
    if few_entries(X) and not beside:
        columns = np.unique(entries).astype(np.intp)
    else:
        used = np.zeros(n_columns, dtype=bool)
        used[entries] = True
        for matrix in beside:
            if isinstance(matrix, InColumns):
                used[matrix.columns] = True
            elif sparse.issparse(matrix):
                used[sparse.csr_array(matrix).indices] = True
            else:
                used |= matrix.any(axis=0)
        columns = np.flatnonzero(used)
    return unless_most(columns, n_columns)


def may_be_unfilled(n_columns: int) -> bool:
    """Whether it is worth while to look for columns without entries."""
    return n_columns >= _FEWEST


def unless_most(columns: Array, n_columns: int) -> Array | None:
    """Return columns that are worked on alone; None where they are most of n_columns."""
    if len(columns) > _SHARE * n_columns:
        return None
    return columns if len(columns) else np.zeros(1, dtype=np.intp)  # no fit is to no features


def numbers_of(columns: Array, n_columns: int) -> Array:
    """Return the place of each of n_columns columns among some of them; -1 for others."""
    number = np.full(n_columns, -1, dtype=np.int32)
    number[columns] = np.arange(len(columns))
    return number


def some_columns(
    X: Any, columns: Array, real: np.dtype[Any], *, number: Array | None = None
) -> Any:
    """Return some columns of a CSR matrix, as one of a number type.

    Its numbers are not copied where none is left out. Indices become int32 where that is enough.
    number is that of `numbers_of`, if it is known.
    """
    first, last = int(X.indptr[0]), int(X.indptr[-1])
    index = np.dtype(np.int32 if last - first < 2**31 else np.int64)
    entries, data, indptr = X.indices[first:last], X.data[first:last], X.indptr - first
    if number is not None:
        indices = number[entries]
    elif len(columns) and few_entries(X):
        indices = np.searchsorted(columns, entries)
        indices[indices == len(columns)] = 0
        indices[columns[indices] != entries] = -1
    else:
        indices = numbers_of(columns, X.shape[1])[entries]
    kept = indices >= 0
    if not kept.all():
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
        indices, data = indices[kept], data[kept]
    data, indices = data.astype(real, copy=False), indices.astype(index, copy=False)
    return sparse.csr_array((data, indices, indptr.astype(index)), (X.shape[0], len(columns)))


def compacted(matrix: Any) -> Any:
    """Return a large matrix without its columns of zeros, to the bit, where they are most."""
    if isinstance(matrix, InColumns):
        columns, values, n_columns = matrix
    elif matrix.nbytes < _LARGE:
        return matrix
    else:
        columns, values, n_columns = np.arange(matrix.shape[1]), matrix, matrix.shape[1]
    bits = values.view(f"u{values.itemsize}")  # (of -0.0 one is set)
    kept = np.flatnonzero(bits.any(axis=0))
    if len(kept) > 0.5 * n_columns:
        return matrix
    kept = kept if len(kept) else np.zeros(1, dtype=np.intp)
    return InColumns(columns[kept], values[:, kept], n_columns)


def few_entries(X: Any) -> bool:
    """Whether a CSR matrix has so few entries that an array as long as a row costs more."""
    return bool(X.indptr[-1] - X.indptr[0] <= _FEW * X.shape[1])
