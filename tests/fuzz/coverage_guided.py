"""Readers of files, fuzzed by the branches that they take: needs atheris (pip install atheris).

    python tests/fuzz/coverage_guided.py load -max_total_time=600
    python tests/fuzz/coverage_guided.py csr corpus -runs=1000000

The first argument names a reader of `READERS`; the others are libFuzzer's. What a reader raises
beside the errors that it promises ends the run, and the bytes are kept in a file.
"""

import contextlib
import io
import sys
import tempfile
import warnings
import zipfile
from functools import cache
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

with atheris.instrument_imports(include=["fastsoftmax", "zipfile", "gzip", "numpy.lib"]):
    import numpy as np
    from scipy import sparse

    from fastsoftmax import FastSoftmax
    from fastsoftmax._estimator.checkpoint import read_checkpoint
    from fastsoftmax.data_sources import NpyFiles, ParquetRows
    from fastsoftmax.datasets import load_fashion_mnist

import test_fuzz_files as files  # noqa: E402


def load(data, folder):
    model = FastSoftmax.load(io.BytesIO(data))
    assert np.isfinite(model.predict_proba(np.ones((2, model.n_features_in_)))).all()


def checkpoint(data, folder, number=0):
    """Go on from a file, by the fit of this number."""
    path = folder / "state.npz"
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
        read_checkpoint(path)
    model = FastSoftmax(max_iter=6, tol=0.0, **files._FITS[number])
    assert np.isfinite(model.fit(*files._rows(), resume=path).coef_).all()


class Members:
    """The members of sound archives, numbered; bytes are a number and a member's bytes.

    A change of an archive itself rarely comes past its checksums.
    """

    def __init__(self, archives):
        self._found = []
        for number, content in enumerate(archives):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                whole = {name: archive.read(name) for name in archive.namelist()}
            self._found += [(number, whole, name) for name in whole]

    def sound(self):
        return [bytes([i]) + whole[name] for i, (_, whole, name) in enumerate(self._found)]

    def archive(self, data):
        """Return the number of an archive, and its bytes with another member."""
        number, whole, changed = self._found[data[0] % len(self._found)]
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in whole.items():
                archive.writestr(name, data[1:] if name == changed else content)
        return number, file.getvalue()


@cache
def checkpoints():
    return [files._checkpoint(number) for number in range(len(files._FITS))]


@cache
def members(archives):
    return Members(archives())


def load_member(data, folder):
    load(members(files._models).archive(data or b"0")[1], folder)


def checkpoint_member(data, folder):
    number, content = members(checkpoints).archive(data or b"0")
    checkpoint(content, folder, number)


def npy(data, folder):
    path = folder / "x.npy"
    path.write_bytes(data)
    for block in NpyFiles(path):
        np.asarray(block)


def parquet(data, folder):
    path = folder / "x.parquet"
    path.write_bytes(data)
    for block in ParquetRows(path):
        assert len(block[0]) == len(block[1])


def idx(data, folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(data)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(files._LABELS)
    load_fashion_mnist(folder, "test")


def csr(data, folder):
    """Bytes are the lengths, then the numbers of the three arrays."""
    given = atheris.FuzzedDataProvider(data)
    index = (np.int32, np.int64)[given.ConsumeIntInRange(0, 1)]
    starts, places = (given.ConsumeIntListInRange(given.ConsumeIntInRange(0, 9), -3, 9)
                      for _ in range(2))  # fmt: skip
    numbers = given.ConsumeFloatListInRange(given.ConsumeIntInRange(0, 9), -9.0, 9.0)
    X = sparse.csr_array((max(0, len(starts) - 1), given.ConsumeIntInRange(1, 6)), dtype=float)
    X.data, X.indices = np.array(numbers, float), np.array(places, index)
    X.indptr = np.array(starts, index)
    FastSoftmax(max_iter=3, tol=1.0).fit(X, np.arange(X.shape[0]) % 2)


# (reader, sound files, errors that it promises)
READERS = {
    "load": (load, lambda: files._models(), ValueError),
    "load-member": (load_member, lambda: members(files._models).sound(), ValueError),
    "checkpoint": (checkpoint, lambda: checkpoints()[:1], ValueError),
    "checkpoint-member": (checkpoint_member, lambda: members(checkpoints).sound(), ValueError),
    "npy": (npy, lambda: files._ARRAYS, (ValueError, TypeError)),
    "parquet": (parquet, lambda: files._parquet(), ValueError),
    "idx": (idx, lambda: [files._IMAGES], (ValueError, OSError)),
    "csr": (csr, lambda: [], (ValueError, TypeError)),
}


def main():
    read, sound, promised = READERS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as name:
        folder, corpus = Path(name, "files"), Path(name, "corpus")
        folder.mkdir()
        corpus.mkdir()
        for i, content in enumerate(sound()):
            (corpus / str(i)).write_bytes(content)

        def one(data):
            with warnings.catch_warnings(), contextlib.suppress(promised):
                warnings.simplefilter("ignore")
                read(data, folder)

        atheris.Setup([*sys.argv, str(corpus), "-rss_limit_mb=2000", "-timeout=20"], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
