"""Rows in Parquet files, read block by block by pyarrow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.data_sources.files import BLOCK_BYTES, Buffers, Files, seen

# A block is filled in about so many pieces, as pyarrow needs several times the memory of what it
# decodes at once.
_PIECES = 8


class ParquetRows(Files):
    """Rows in a Parquet file, a folder of them, or a dataset of pyarrow, as batches.

    Only the columns that are needed are read, and a few batches are in memory at a time. (Of a
    dataset that is given as such, pyarrow holds some row groups too: they should be small.)

    Parameters
    ----------
    path : path, list of paths, or pyarrow.dataset.Dataset
        A file, a folder (its files in the order of their names), or any dataset of pyarrow, whose
        rows come in the same order each time.
    label : str or None, default="label"
        The column of labels; or a fixed-size list column of class probabilities. None for rows to
        be predicted.
    weight : str, optional
        The column of row weights.
    features : str or list of str, optional
        The columns of features: numbers, or one fixed-size list column of numbers. None for all
        other columns.
    block_bytes : int, default=50331648
        About how many bytes of features a batch has.

    Attributes
    ----------
    features : list of str
        The columns that are read as features, in their order.
    dtype : numpy.dtype
        Of a batch's features: the common type of the columns.

    Raises
    ------
    ImportError
        If pyarrow is not installed (``pip install pyarrow``).
    ValueError
        If there is no such file or column, or a column holds no numbers; and, while they are read,
        if a number is missing, or a file is damaged or has changed since.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pandas as pd
    >>> from fastsoftmax import FastSoftmax
    >>> from fastsoftmax.data_sources import ParquetRows
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "rows.parquet"
    >>> table = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    >>> table.assign(label=["x", "x", "y", "y"]).to_parquet(path)
    >>> rows = ParquetRows(path)
    >>> rows.features
    ['a', 'b']
    >>> FastSoftmax().fit(rows).predict(rows).tolist()
    ['x', 'x', 'y', 'y']
    """

    def __init__(
        self,
        path: Any,
        label: str | None = "label",
        *,
        weight: str | None = None,
        features: str | Sequence[str] | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        dataset, is_given = _dataset(path)
        schema, others = dataset.schema, [c for c in (label, weight) if c is not None]
        if features is None:
            features = [name for name in schema.names if name not in others]
        self.features = [features] if isinstance(features, str) else list(features)
        missing = [name for name in (*others, *self.features) if name not in schema.names]
        if missing or not self.features:
            raise ValueError(
                f"the columns {missing or 'of features'} are not among those of {path}: "
                f"{schema.names[:20]}"
            )
        if weight is not None and label is None:
            raise ValueError("weight is given together with label, which is None")
        kinds = [_numbers_of(schema.field(name)) for name in self.features]
        self.dtype = np.result_type(*(dtype for dtype, _ in kinds))
        self._width = sum(size for _, size in kinds)
        self._rows = max(1, block_bytes // max(1, self._width * self.dtype.itemsize))
        self._others, self._dataset = others, dataset if is_given else None
        is_local = getattr(getattr(dataset, "filesystem", None), "type_name", "") == "local"
        self._files = [seen(Path(file)) for file in dataset.files] if is_local else []
        self._places: dict[int, tuple[str, int]] = {}  # of the batches that were read

    def read(self, buffers: Buffers) -> Iterator[Any]:
        """As of `Files`."""
        for file in self._files:
            file.check()
        for number, block in enumerate(self._blocks(buffers)):
            self._places[number] = block.path, block.first
            yield (block.X, *block.others) if block.others else block.X
            del block

    def _blocks(self, buffers: Buffers) -> Iterator["_Block"]:
        """Yield blocks of rows, each of one file, and as large as they may be but for the last."""
        block: _Block | None = None
        first = 0
        for path, batch in self._read():
            if block is not None and block.path != path:
                yield block.closed()
                block, first = None, 0
            done = 0
            while done < batch.num_rows:
                if block is None:
                    X = buffers.take((self._rows, self._width), self.dtype)
                    block = _Block(path, first, X)
                    del X
                done += block.fill(batch.slice(done), self.features, self._others)
                if block.n_rows == self._rows:
                    first += self._rows
                    yield block.closed()
                    block = None
        if block is not None:
            yield block.closed()

    def _read(self) -> Iterator[tuple[str, Any]]:
        """Yield small batches of pyarrow, each with the name of its file."""
        import pyarrow.parquet as pq

        columns, size = [*self.features, *self._others], max(1, self._rows // _PIECES)
        if self._dataset is not None:
            scanner = self._dataset.scanner(
                columns=columns, batch_size=size, batch_readahead=1, fragment_readahead=1
            )
            with _readable("the dataset"):
                for tagged in scanner.scan_batches():
                    yield getattr(tagged.fragment, "path", "the dataset"), tagged.record_batch
            return
        for file in self._files:
            # (a scanner would decode whole row groups, several at once)
            with (
                _readable(str(file.path)),
                pq.ParquetFile(file.path, pre_buffer=False) as opened,
            ):
                for batch in opened.iter_batches(size, columns=columns):
                    yield str(file.path), batch

    def place_of(self, number: int) -> tuple[str, int]:
        """Return the file that a batch is of, and the number of its first row there."""
        return self._places[number]


class _Block:
    """Rows of a file, which are filled in bit by bit."""

    def __init__(self, path: str, first: int, X: Array) -> None:
        self.path, self.first, self.X, self.n_rows = path, first, X, 0
        self._parts: list[list[Array]] = []
        self.others: list[Array] = []

    def fill(self, batch: Any, features: list[str], others: list[str]) -> int:
        """Add the first rows of a batch, as many as there is room for; return their number."""
        batch = batch.slice(0, len(self.X) - self.n_rows)
        places = {name: i for i, name in enumerate(batch.schema.names)}
        columns = {name: self._column(batch, places, name) for name in (*features, *others)}
        rows, first = self.X[self.n_rows : self.n_rows + batch.num_rows], 0
        for name in features:
            values = _matrix(columns[name])
            if not np.can_cast(values.dtype, rows.dtype, "safe"):
                raise ValueError(
                    f"the column {name!r} holds {values.dtype} in {self.path}, and numbers that "
                    f"{rows.dtype} can hold in the first file"
                )
            rows[:, first : first + values.shape[1]] = values
            first += values.shape[1]
        self._parts.append([_values(columns[name]) for name in others])
        self.n_rows += batch.num_rows
        return int(batch.num_rows)

    def _column(self, batch: Any, places: dict[str, int], name: str) -> Any:
        if name not in places:
            raise ValueError(f"there is no column {name!r} in {self.path}")
        column = batch.column(places[name])
        if column.null_count:
            row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
            row += self.first + self.n_rows
            raise ValueError(f"the column {name!r} lacks a value in row {row} of {self.path}")
        return column

    def closed(self) -> Self:
        """Return the block, whose rows are complete."""
        self.X = self.X[: self.n_rows]
        self.others = [np.concatenate(parts) for parts in zip(*self._parts, strict=True)]
        return self


def _dataset(path: Any) -> tuple[Any, bool]:
    """Return a dataset of pyarrow, and whether it was given as one."""
    try:
        import pyarrow as pa
        import pyarrow.dataset as ds
    except ImportError as error:
        raise ImportError(
            "ParquetRows needs pyarrow: pip install pyarrow", name="pyarrow"
        ) from error
    if isinstance(path, ds.Dataset):
        return path, True
    try:
        paths = [str(p) for p in path] if isinstance(path, list | tuple) else str(path)
        return ds.dataset(paths, format="parquet"), False
    except (OSError, pa.ArrowException, TypeError) as error:
        raise ValueError(f"{path} must be Parquet files or a folder of them: {error}") from error


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Make a ValueError that names the file of what pyarrow raises while it reads."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


def _numbers_of(field: Any) -> tuple[np.dtype[Any], int]:
    """Return the number type of a column, and how many numbers a row of it has."""
    import pyarrow.types as types

    kind, size = field.type, 1
    if types.is_fixed_size_list(kind):
        kind, size = kind.value_type, kind.list_size
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ValueError(
            f"the column {field.name!r} must hold numbers, or lists of one size of numbers, got "
            f"{field.type}"
        )
    return np.dtype(kind.to_pandas_dtype()), int(size)


def _matrix(column: Any) -> Array:
    """(rows, n) a column: of lists the numbers, otherwise one number."""
    size = getattr(column.type, "list_size", 1)
    values = column.flatten() if hasattr(column.type, "list_size") else column
    array: Array = values.to_numpy(zero_copy_only=False)
    return array.reshape(-1, size)


def _values(column: Any) -> Array:
    """Labels, probabilities or row weights."""
    if hasattr(column.type, "list_size"):
        return _matrix(column).copy()
    if hasattr(column, "dictionary"):
        labels, numbers = column.dictionary, column.indices.to_numpy(zero_copy_only=False)
        return np.asarray(labels.to_numpy(zero_copy_only=False)[numbers])
    return np.array(column.to_numpy(zero_copy_only=False))
