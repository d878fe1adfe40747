"""Memory for blocks of files: used again, and aligned as the files are."""

import threading
import time

import numpy as np
import pytest

from fastsoftmax._estimator.batch_source import BatchSource
from fastsoftmax.data_sources import Buffers, NpyFiles


def test_passes_use_the_memory_of_the_passes_before(tmp_path):
    """Blocks of 50 and 51 rows needed three pieces of memory in each pass, which were new."""
    for i, n in enumerate((101, 151)):
        np.save(tmp_path / f"X{i}.npy", np.arange(n * 4096.0).reshape(n, 4096))
    source = BatchSource(NpyFiles(tmp_path, np.zeros(252), block_bytes=51 * 4096 * 8))
    first = {batch.X.base.ctypes.data for batch in source}
    assert len(first) <= 2
    assert {batch.X.base.ctypes.data for batch in source} <= first


def test_blocks_are_where_they_are_in_a_page_of_the_file(tmp_path):
    X = np.arange(7000, dtype=np.uint8).reshape(1000, 7)
    np.save(tmp_path / "X.npy", X)
    offset = np.load(tmp_path / "X.npy", mmap_mode="r").offset
    first = 0
    for block in NpyFiles(tmp_path / "X.npy", block_bytes=7 * 300):
        assert (block.ctypes.data - offset - 7 * first) % 4096 == 0
        np.testing.assert_array_equal(block, X[first : first + len(block)])
        first += len(block)
    assert first == 1000


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble])
@pytest.mark.parametrize("place", [0, 1, 80, 4095])
def test_arrays_are_aligned_and_kept_apart(dtype, place):
    """Also where numbers in a file begin anywhere."""
    buffers, dtype = Buffers(), np.dtype(dtype)
    buffers.reserve(300)
    arrays = [buffers.take((n, 3), dtype, place) for n in (4, 5, 1, 30)]
    for i, array in enumerate(arrays):
        array[...] = i
    assert all(array.flags.aligned for array in arrays)
    assert [float(array.min()) for array in arrays] == [0.0, 1.0, 2.0, 3.0]
    assert [float(array.max()) for array in arrays] == [0.0, 1.0, 2.0, 3.0]
    address = arrays[3].ctypes.data
    del arrays, array
    assert buffers.take((30, 3), dtype, place).ctypes.data == address


def test_threads_that_take_at_the_same_time():
    buffers, wrong = Buffers(), []

    def take(number):
        for _ in range(2000):
            array = buffers.take((16,), np.dtype(np.int64))
            array[...] = number
            time.sleep(0.0)
            if (array != number).any():
                wrong.append(number)
            del array

    threads = [threading.Thread(target=take, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
