"""Rows in parts: batches, files and Parquet give the certified fit of the whole."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_checks import (
    check_attributes,
    check_certificate,
    check_predictions,
    left_alone,
    objective_of,
)
from fuzz_problems import problems
from fuzz_rows import SPARSE_FORMS
from fuzz_settings import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fastsoftmax import FastSoftmax, fastsoftmax_path
from fastsoftmax.data_sources import NpyFiles, ParquetRows

_FORMS = ["array", "Fortran order", "strided", "memory map", "pandas", *SPARSE_FORMS]
_STORED = ["float64", "float32", "float16", "uint8", "int8"]


def _cuts(n, k):
    return [slice(n * i // k, n * (i + 1) // k) for i in range(k)]


def _at(given, rows):
    given = given.tocsr() if sparse.issparse(given) else given
    return given.iloc[rows] if hasattr(given, "iloc") else given[rows]


def _fitted(model, *arguments):
    with left_alone():
        return model.fit(*arguments)


@examples(20)
@given(problem=problems(forms=_FORMS, reals=_STORED), parts=st.integers(1, 4))
def test_batches(problem, parts):
    y, weights = problem.targets, problem.weights
    weights = None if weights is None else np.asarray(weights, float)
    batches = [
        (_at(problem.rows.given, rows), _at(y.given, rows))
        + (() if weights is None else (weights[rows],))
        for rows in _cuts(len(problem.rows.values), parts)
    ]
    batches = [b for b in batches if b[0].shape[0]]
    classes = y.classes if y.codes.ndim == 2 else None
    model = FastSoftmax(**problem.parameters)
    with left_alone(problem.rows.given, y.given, weights):
        model.fit(batches, classes=classes)
    check_attributes(model, problem)
    check_certificate(model, problem)
    check_predictions(model, problem.rows.given, problem.rows.values)


@examples(15)
@given(problem=problems(forms=["array", "Fortran order"], reals=_STORED), parts=st.integers(1, 3),
       block_bytes=st.sampled_from([1, 1000, 1 << 20]))  # fmt: skip
def test_npy_files(problem, parts, block_bytes):
    X, y = problem.rows.given, problem.targets.given
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, rows in enumerate(_cuts(len(X), parts)):
            paths.append(Path(folder, f"{i}.npy"))
            np.save(paths[-1], X[rows])
        y = y.toarray() if sparse.issparse(y) else y
        files = NpyFiles(paths, y, problem.weights, block_bytes=block_bytes)
        model = _fitted(FastSoftmax(**problem.parameters), files)
        found = model.predict_proba(NpyFiles(paths, block_bytes=block_bytes))
        assert np.array_equal(found, model.predict_proba(NpyFiles(paths, block_bytes=block_bytes)))
        np.testing.assert_allclose(found, model.predict_proba(X), atol=1e-4)
    check_attributes(model, problem)
    check_certificate(model, problem)


@examples(10)
@given(problem=problems(forms=["array"], reals=["float64", "float32", "uint8", "int8"]),
       groups=st.sampled_from([1, 7, 1000]))  # fmt: skip
def test_parquet(problem, groups):
    X, y = problem.rows.given, problem.targets
    if y.codes.ndim == 2 or isinstance(y.classes[0], float):
        return
    frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])])
    frame["label"] = y.given
    if problem.weights is not None:
        frame["weight"] = np.asarray(problem.weights, float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.parquet")
        pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=groups)
        rows = ParquetRows(path, weight=None if problem.weights is None else "weight")
        model = _fitted(FastSoftmax(**problem.parameters), rows)
    check_attributes(model, problem)
    check_certificate(model, problem)


@examples(10)
@given(problem=problems(), Cs=st.lists(st.sampled_from([1e-3, 0.1, 1.0, 10.0, 1e3]), min_size=1,
                                       max_size=3, unique=True))  # fmt: skip
def test_paths(problem, Cs):
    """Each fit of a path is certified."""
    given = {k: v for k, v in problem.parameters.items()
             if k not in ("C", "label_smoothing", "solver")}  # fmt: skip
    y, weights = problem.targets.given, problem.weights
    with left_alone(problem.rows.given, y, weights):
        path = fastsoftmax_path(problem.rows.given, y, Cs, sample_weight=weights, **given)
    assert path.Cs.tolist() == sorted(Cs)
    for i, C in enumerate(path.Cs):
        model = FastSoftmax(C=float(C), **given)
        model.coef_, model.intercept_ = path.coefs[i], path.intercepts[i]
        model.gap_ = float(path.gaps[i])
        model.converged_ = model.gap_ <= model.tol
        F, V, c = objective_of(model, problem)
        model.objective_ = float(F.value(V, c))
        check_certificate(model, problem)
        assert int(path.n_iter[i]) <= model.max_iter
