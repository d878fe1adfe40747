"""Rows in ``.npy`` files, memory maps and arrays, read block by block."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.data_sources.files import BLOCK_BYTES, Buffers, Files, Seen, seen

# Bytes of a header, as in numpy.
_MOST_HEADER = 10_000


class NpyFiles(Files):
    """Rows in ``.npy`` files or memory maps, as batches of some megabytes.

    Files are read in order, by plain reads. When nothing refers to a batch any more, its memory is
    used for a later batch. `FastSoftmax.fit` makes an `NpyFiles` if X is a path, or a list of
    paths, memory maps or arrays.

    Parameters
    ----------
    X : path, memory map, or list of them
        Each holds rows of shape (rows, n_features), all of one dtype. The list may also contain
        arrays in memory. The path of a folder means its ``.npy`` files in the order of their names.
        Files in Fortran order take several times as long to read.
    y : array-like of shape (n_rows,) or (n_rows, n_classes), or list of paths or arrays, optional
        The targets of all rows in one array, or for each part of X a path or an array. Without
        them the rows can be predicted.
    sample_weight : array-like of shape (n_rows,), or list of paths or arrays, optional
        Row weights, given as y is.
    block_bytes : int, default=50331648
        The largest number of bytes of the features of a batch (at least one row). Sums are added
        batch by batch. So the last bits of a fit depend on this number, and on the sizes of the
        files.

    Attributes
    ----------
    n_rows, n_features : int
    dtype : numpy.dtype
        Of the features.

    Raises
    ------
    ValueError
        If a file cannot be read or is cut short, or shapes, dtypes or lengths do not fit together;
        and, while they are read, if a file has changed since.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from fastsoftmax import FastSoftmax
    >>> from fastsoftmax.data_sources import NpyFiles
    >>> folder, rng = pathlib.Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for part in range(3):
    ...     np.save(folder / f"X{part}.npy", rng.normal(size=(100, 4)).astype(np.float32))
    >>> rows = NpyFiles(sorted(folder.glob("X*.npy")), y=np.arange(300) % 3)
    >>> rows.n_rows, rows.n_features, len(rows)
    (300, 4, 3)
    >>> model = FastSoftmax().fit(rows)
    >>> model.converged_, model.predict(rows).shape
    (True, (300,))
    """

    def __init__(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, block_bytes: int = BLOCK_BYTES
    ) -> None:
        if not isinstance(block_bytes, int) or block_bytes < 1:
            raise ValueError(f"block_bytes must be an integer >= 1, got {block_bytes!r}")
        self._parts = [_part(item, "X") for item in _listed(X)]
        if not self._parts:
            raise ValueError("X must hold at least one path or array, got an empty list")
        first = self._parts[0]
        for part in self._parts:
            if len(part.shape) != 2:
                raise ValueError(f"{part.name} must hold rows of features, got shape {part.shape}")
            if part.shape[1] != first.shape[1] or part.dtype != first.dtype:
                raise ValueError(
                    f"{part.name} must hold {first.shape[1]} features of {first.dtype} as "
                    f"{first.name} does, got {part.shape[1]} of {part.dtype}"
                )
        self.n_features, self.dtype = int(first.shape[1]), first.dtype
        sizes = [part.shape[0] for part in self._parts]
        self.n_rows = sum(sizes)
        self._others = [
            _Beside(given, sizes, name)
            for given, name in ((y, "y"), (sample_weight, "sample_weight"))
            if given is not None
        ]
        if y is None and sample_weight is not None:
            raise ValueError("sample_weight is given together with y, which is missing")
        rows = max(1, block_bytes // max(1, self.n_features * self.dtype.itemsize))
        self._blocks = [
            _Block(number, start, stop)
            for number, size in enumerate(sizes)
            for start, stop in _cut(size, rows)
        ]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._blocks)

    def read(self, buffers: Buffers) -> Iterator[Any]:
        """As of `Files`."""
        most = max((block.stop - block.start for block in self._blocks), default=0)
        buffers.reserve(most * self.n_features * self.dtype.itemsize)
        for block in self._blocks:
            X = self._parts[block.part].read(block.start, block.stop, buffers)
            if not self._others:
                yield X
            else:
                yield (X, *(other.read(block) for other in self._others))
            del X

    def place_of(self, number: int) -> tuple[str, int]:
        """Return the file that a batch is of, and the number of its first row there."""
        block = self._blocks[number]
        return self._parts[block.part].name, block.start


class _Block(NamedTuple):
    """Adjacent rows of a part."""

    part: int
    start: int
    stop: int


def _cut(n_rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of about equal size."""
    n_blocks = -(-n_rows // most)
    for i in range(n_blocks):
        yield n_rows * i // n_blocks, n_rows * (i + 1) // n_blocks


def are_npy_files(X: Any) -> bool:
    """Whether X is a path, or a list of paths, memory maps or matrices: what `NpyFiles` takes."""
    if isinstance(X, str | os.PathLike):
        return True
    if not isinstance(X, list | tuple) or not X:
        return False
    return all(
        isinstance(item, str | os.PathLike) or (isinstance(item, np.ndarray) and item.ndim == 2)
        for item in X
    )


def _listed(given: Any) -> list[Any]:
    """Return parts as a list; of a folder its files in the order of their names."""
    if isinstance(given, str | os.PathLike) and os.path.isdir(given):
        found = sorted(Path(given).glob("*.npy"))
        if not found:
            raise ValueError(f"there are no .npy files in {given}")
        return list(found)
    return list(given) if isinstance(given, list | tuple) else [given]


# ---- parts: a file or an array ----


class _Part(Protocol):
    """Rows that can be read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int, buffers: Buffers) -> Array:
        """Return some rows."""


class _File:
    """A .npy file in C order: plain reads, so that a file that shrinks is an error, no crash."""

    def __init__(self, path: Path, mapped: np.memmap[Any, Any]) -> None:
        self.name, self.shape, self.dtype = str(path), mapped.shape, mapped.dtype
        self._offset, self._seen = int(mapped.offset), seen(path)
        self._row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def read(self, start: int, stop: int, buffers: Buffers) -> Array:
        """Return some rows; a ValueError where the file is not as it was."""
        self._seen.check()
        place = self._offset + start * self._row_bytes
        found = buffers.take((stop - start, *self.shape[1:]), self.dtype, place)
        into = memoryview(found.reshape(-1).view(np.uint8).data)
        try:
            with open(self._seen.path, "rb", buffering=0) as file:
                file.seek(place)
                while into.nbytes:
                    n_bytes = file.readinto(into)
                    if not n_bytes:
                        raise ValueError(f"{self.name} has changed: it ends before row {stop}")
                    into = into[n_bytes:]
        except OSError as error:
            raise ValueError(f"{self.name} cannot be read: {error.strerror}") from error
        return found


class _Mapped:
    """A memory map, or a file in Fortran order: rows are copied when they are read."""

    def __init__(self, array: Array, name: str, unchanged: Seen | None = None) -> None:
        self.name, self.shape, self.dtype = name, array.shape, array.dtype
        self._array, self._seen = array, unchanged

    def read(self, start: int, stop: int, buffers: Buffers) -> Array:
        """Return a copy of some rows."""
        if self._seen is not None:
            self._seen.check()
        found = buffers.take((stop - start, *self.shape[1:]), self.dtype)
        np.copyto(found, self._array[start:stop])
        return found


class _InMemory:
    """An array, a frame or a sparse matrix, of which views are taken."""

    def __init__(self, array: Any, name: str) -> None:
        self.name, self.shape = name, tuple(array.shape)
        self.dtype = getattr(array, "dtype", np.dtype(object))
        self._array = array.iloc if hasattr(array, "iloc") else array

    def read(self, start: int, stop: int, buffers: Buffers) -> Any:
        """Return some rows."""
        return self._array[start:stop]


def _part(item: Any, name: str) -> _Part:
    if isinstance(item, str | os.PathLike):
        return _file(Path(item))
    if isinstance(item, np.memmap):
        return _Mapped(item, str(item.filename or name))
    if not hasattr(item, "shape"):
        item = np.asarray(item)
    return _InMemory(item, name)


def _file(path: Path) -> _Part:
    unchanged = seen(path)
    if path.suffix in (".parquet", ".pq"):
        raise ValueError(f"{path} must be read by ParquetRows of fastsoftmax.data_sources")
    try:
        _check_header(path)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # what numpy's reader of headers raises has no common class
        raise ValueError(f"{path} must be a .npy file of numbers: {error}") from error
    if not isinstance(mapped, np.memmap):  # such as .npz
        raise ValueError(f"{path} must be a .npy file, got {type(mapped).__name__}")
    if mapped.flags.c_contiguous:
        return _File(path, mapped)
    return _Mapped(mapped, str(path), unchanged)


def _check_header(path: Path) -> None:
    """Refuse a header that is said to be long: numpy refuses it too, but reserves its memory."""
    with open(path, "rb") as file:
        begin = file.read(12)
    n_bytes = int.from_bytes(begin[8:12], "little")  # from version 2 of the format on
    if begin[:6] == np.lib.format.MAGIC_PREFIX and begin[6:7] > b"\x01" and n_bytes > _MOST_HEADER:
        raise ValueError(f"its header is said to have {n_bytes} bytes")


class _Beside:
    """Targets or row weights: in one array, or in as many parts as X."""

    def __init__(self, given: Any, sizes: list[int], name: str) -> None:
        self._starts = np.cumsum([0, *sizes])
        parts = _listed(given)
        self._is_whole = not (len(parts) == len(sizes) and all(map(_is_part, parts)))
        self._parts = [_part(item, name) for item in ([given] if self._is_whole else parts)]
        found = [part.shape[0] if part.shape else 0 for part in self._parts]
        wanted = [sum(sizes)] if self._is_whole else sizes
        if found != wanted:
            raise ValueError(f"{name} must have as many rows as X, {wanted}, got {found}")

    def read(self, block: _Block) -> Any:
        """Return those of a block."""
        if self._is_whole:
            first = int(self._starts[block.part])
            return self._parts[0].read(first + block.start, first + block.stop, Buffers())
        return self._parts[block.part].read(block.start, block.stop, Buffers())


def _is_part(item: Any) -> bool:
    """Whether an item is a path or an array, not a label."""
    if isinstance(item, str):
        return item.endswith(".npy")
    return isinstance(item, os.PathLike) or len(getattr(item, "shape", ())) >= 1
