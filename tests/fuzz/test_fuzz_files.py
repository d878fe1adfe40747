"""Files that are broken: an error of the kind that is promised, quickly and in little memory."""

import contextlib
import gzip
import io
import struct
import tempfile
import tracemalloc
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from fuzz_bytes import broken, broken_archives
from fuzz_settings import examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax
from fastsoftmax._estimator.checkpoint import read_checkpoint
from fastsoftmax.data_sources import NpyFiles, ParquetRows
from fastsoftmax.datasets import load_fashion_mnist

# Bytes that reading a small broken file may take. (60000 images, which a header may promise, take
# 47 MB of address space before they are read.)
_MOST = 80_000_000


@contextlib.contextmanager
def little_memory():
    """Check that Python and numpy allocate no more than `_MOST` bytes at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < _MOST
    finally:
        tracemalloc.stop()


def _rows(n=12, d=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)).astype(dtype), np.arange(n) % 3


@cache
def _models():
    """Sound files of models of every kind."""
    X, y = _rows()
    sgd = FastSoftmax(solver="sgd", momentum=0.9, max_iter=2, random_state=0)
    models = [
        FastSoftmax().fit(X, y),
        FastSoftmax(class_weight={0: 2.0}).fit(pd.DataFrame(X, columns=[*"abc"]), y),
        FastSoftmax().fit(X, np.array([*"abc"] * 4, dtype=object)),
        FastSoftmax(l1_ratio=1.0, C=0.3).fit(X, y).sparsify(),
        sgd.partial_fit(X, y, classes=[0, 1, 2]),
    ]
    found = []
    for model in models:
        file = io.BytesIO()
        model.save(file)
        found.append(file.getvalue())
    return found


@examples(400)
@given(data=st.data())
def test_models(data):
    content = data.draw(broken_archives(data.draw(st.sampled_from(_models()))))
    with little_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # X lacks names of features
        try:
            model = FastSoftmax.load(io.BytesIO(content))
        except ValueError:
            return
        found = model.predict_proba(np.ones((2, model.n_features_in_)))
    assert np.isfinite(found).all()


# Fits whose checkpoints differ in what they hold.
_FITS = [
    {"solver": "lbfgs"}, {"solver": "newton-cholesky"}, {"l1_ratio": 0.5},
    {"solver": "sgd", "momentum": 0.9, "random_state": 0},
    {"early_stopping": True, "random_state": 0, "solver": "lbfgs"},
]  # fmt: skip


@cache
def _checkpoint(number):
    X, y = _rows()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = Path(folder, "state.npz")
        FastSoftmax(max_iter=4, tol=0.0, **_FITS[number]).fit(X, y, checkpoint=path)
        return path.read_bytes()


@examples(200)
@given(data=st.data(), number=st.integers(0, len(_FITS) - 1))
def test_checkpoints(data, number):
    content = data.draw(broken_archives(_checkpoint(number)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = Path(folder, "state.npz")
        path.write_bytes(content)
        model = FastSoftmax(max_iter=8, tol=0.0, **_FITS[number])
        with little_memory():
            with contextlib.suppress(ValueError):
                read_checkpoint(path)
            try:
                model.fit(*_rows(), resume=path)
            except ValueError:
                assert not hasattr(model, "coef_")
                return
        assert np.isfinite(model.coef_).all()


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_ARRAYS = [_npy(_rows()[0]), _npy(np.asfortranarray(_rows()[0])), _npy(_rows()[0].astype(">f8"))]


@examples(300)
@given(content=st.sampled_from(_ARRAYS).flatmap(broken))
def test_npy_files(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        path.write_bytes(content)
        with little_memory():
            try:
                rows = NpyFiles(path)
                parts = [np.asarray(part) for part in rows]
                FastSoftmax(max_iter=2, tol=1.0).fit(path, np.arange(rows.n_rows) % 2)
            except (ValueError, TypeError):
                return
        assert sum(map(len, parts)) == rows.n_rows


@cache
def _parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    X, y = _rows()
    found = []
    for compression in ("none", "snappy"):
        file = pa.BufferOutputStream()
        table = pa.table({"a": X[:, 0], "b": X[:, 1].astype(float), "label": y})
        pq.write_table(table, file, compression=compression)
        found.append(file.getvalue().to_pybytes())
    file = pa.BufferOutputStream()
    rows = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    label = pa.array(np.array([*"abc"])[y]).dictionary_encode()
    pq.write_table(pa.table({"rows": rows, "label": label}), file, row_group_size=5)
    found.append(file.getvalue().to_pybytes())
    return found


@examples(200)
@given(content=st.deferred(lambda: st.sampled_from(_parquet()).flatmap(broken)))
def test_parquet(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.parquet")
        path.write_bytes(content)
        with little_memory():
            try:
                rows = ParquetRows(path)
                for part in rows:
                    assert len(part[0]) == len(part[1])
            except ValueError:
                return


def _idx(array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


_IMAGES = _idx(np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28))
_LABELS = _idx(np.arange(3, dtype=np.uint8))


@examples(200)
@given(data=st.data(), zipped=st.booleans(), which=st.sampled_from(["images", "labels"]))
def test_idx_files(data, zipped, which):
    files = {"images": _IMAGES, "labels": _LABELS}
    outside = zipped and data.draw(st.booleans())
    if not outside:
        files[which] = data.draw(broken(files[which]))
    if zipped:
        files = {name: gzip.compress(raw, mtime=0) for name, raw in files.items()}
    if outside:
        files[which] = data.draw(broken(files[which]))
    with tempfile.TemporaryDirectory() as folder:
        for name, dims in (("images", 3), ("labels", 1)):
            suffix = ".gz" if zipped else ""
            Path(folder, f"t10k-{name}-idx{dims}-ubyte{suffix}").write_bytes(files[name])
        with little_memory():
            try:
                X, y = load_fashion_mnist(folder, "test")
            except (ValueError, OSError):
                return
        assert len(X) == len(y) and y.max(initial=0) <= 9
