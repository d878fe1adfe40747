"""Rows on a disk, read block by block: files of numpy, and Parquet.

Each is an iterable of batches ``(X, y)`` or ``(X, y, sample_weight)``, for every fit and prediction
of `fastsoftmax.FastSoftmax`, and for loops of your own. A fit reads all blocks once in each pass,
in their order, and holds only a few of them.
"""

from fastsoftmax.data_sources.files import Buffers, Files
from fastsoftmax.data_sources.npy import NpyFiles, are_npy_files
from fastsoftmax.data_sources.parquet import ParquetRows

__all__ = ["Buffers", "Files", "NpyFiles", "ParquetRows", "are_npy_files"]
