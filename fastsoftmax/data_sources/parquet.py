"""Rows in Parquet files, read block by block by pyarrow."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.data_sources.files import BLOCK_BYTES, Files, Seen, seen


class ParquetRows(Files):
    """Rows in a Parquet file, a folder of them, or a dataset of pyarrow, as batches.

    Only the columns that are needed are read, and a few batches are in memory at a time (and of
    each file the compressed part that pyarrow reads at once, a row group).

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
    block_bytes : int, default=33554432
        About how many bytes of features a batch has.

    Attributes
    ----------
    features : list of str
        The columns that are read as features, in their order.

    Raises
    ------
    ImportError
        If pyarrow is not installed (``pip install 'fastsoftmax[parquet]'``).
    ValueError
        If there is no such file or column, or a column holds no numbers; and, while they are read,
        if a number is missing or a file has changed since.

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
        self._dataset = _dataset(path)
        schema, others = self._dataset.schema, [c for c in (label, weight) if c is not None]
        if features is None:
            features = [name for name in schema.names if name not in others]
        self.features = [features] if isinstance(features, str) else list(features)
        self._others = others
        missing = [name for name in (*others, *self.features) if name not in schema.names]
        if missing or not self.features:
            raise ValueError(
                f"the columns {missing or 'of features'} are not among those of {path}: "
                f"{schema.names[:20]}"
            )
        if weight is not None and label is None:
            raise ValueError("weight is given together with label, which is None")
        row_bytes = sum(_row_bytes(schema.field(name)) for name in self.features)
        self._rows = max(1, block_bytes // max(1, row_bytes))
        self._files: list[Seen] = [
            seen(Path(file))
            for file in getattr(self._dataset, "files", [])
            if getattr(self._dataset.filesystem, "type_name", "") == "local"
        ]
        self._places: dict[int, tuple[str, int]] = {}  # of the batches that were read

    def __iter__(self) -> Iterator[Any]:
        """Read all batches: (X, y), (X, y, sample_weight), or X alone without a label."""
        for file in self._files:
            file.check()
        rows_of: dict[str, int] = {}
        scanner = self._dataset.scanner(
            columns=[*self.features, *self._others],
            batch_size=self._rows,
            batch_readahead=1,
            fragment_readahead=1,
        )
        for number, tagged in enumerate(scanner.scan_batches()):
            batch, path = tagged.record_batch, getattr(tagged.fragment, "path", "the dataset")
            first = rows_of.get(path, 0)
            rows_of[path] = first + batch.num_rows
            self._places[number] = path, first
            for name in (*self.features, *self._others):
                _refuse_missing(batch.column(name), name, path, first)
            X = _features(batch, self.features)
            if not self._others:
                yield X
            else:
                yield (X, *(_column(batch.column(name)) for name in self._others))

    def place_of(self, number: int) -> tuple[str, int]:
        """Return the file that a batch is of, and the number of its first row there."""
        return self._places[number]


def _dataset(path: Any) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.dataset as ds
    except ImportError as error:
        raise ImportError(
            "ParquetRows needs pyarrow: pip install 'fastsoftmax[parquet]'", name="pyarrow"
        ) from error
    if isinstance(path, ds.Dataset):
        return path
    try:
        return ds.dataset(
            [str(p) for p in path] if isinstance(path, list | tuple) else str(path),
            format="parquet",
        )
    except (OSError, pa.ArrowInvalid, TypeError) as error:
        raise ValueError(f"{path} must be Parquet files or a folder of them: {error}") from error


def _row_bytes(field: Any) -> int:
    import pyarrow.types as types

    kind, size = field.type, 1
    if types.is_fixed_size_list(kind):
        kind, size = kind.value_type, kind.list_size
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ValueError(
            f"the column {field.name!r} must hold numbers, or lists of one size of numbers, got "
            f"{field.type}"
        )
    return int(size * max(1, kind.bit_width // 8))


def _refuse_missing(column: Any, name: str, path: str, first: int) -> None:
    if column.null_count:
        row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise ValueError(f"the column {name!r} lacks a value in row {first + row} of {path}")


def _features(batch: Any, names: list[str]) -> Array:
    """(rows, n_features) the features of a batch."""
    parts = [_matrix(batch.column(name)) for name in names]
    if len(parts) == 1:
        return parts[0]
    dtype = np.result_type(*(part.dtype for part in parts))
    X = np.empty((batch.num_rows, sum(part.shape[1] for part in parts)), dtype=dtype)
    done = 0
    for part in parts:
        X[:, done : done + part.shape[1]] = part
        done += part.shape[1]
    return X


def _matrix(column: Any) -> Array:
    """(rows, n) a column: of lists the numbers, otherwise one number."""
    size = getattr(column.type, "list_size", 1)
    values = column.flatten() if hasattr(column.type, "list_size") else column
    array: Array = values.to_numpy(zero_copy_only=False)
    return array.reshape(-1, size)


def _column(column: Any) -> Array:
    """Labels, probabilities or row weights."""
    if hasattr(column.type, "list_size"):
        return _matrix(column)
    if hasattr(column, "dictionary"):
        labels, numbers = column.dictionary, column.indices.to_numpy(zero_copy_only=False)
        return np.asarray(labels.to_numpy(zero_copy_only=False)[numbers])
    return np.asarray(column.to_numpy(zero_copy_only=False))
