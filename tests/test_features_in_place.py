"""The number type that X is read in, what of it is copied, and that values survive."""

import re
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax._estimator.features import stored_features
from fastsoftmax.foreign_arrays import as_array
from fastsoftmax.functional import linear_cross_entropy, softmax

N_ROWS, N_FEATURES = 6000, 40
NAMES = [f"c{j}" for j in range(N_FEATURES)]
ALLOWED = 400_000  # bytes: a block that is searched for NaN, and columns of frames


@pytest.fixture(scope="module")
def ones():
    """(zeros and ones as bool, labels): every type holds them."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, size=(N_ROWS, N_FEATURES)).astype(bool)
    return X, X[:, 0].astype(int) + X[:, 1]


def quick(**parameters):
    return FastSoftmax(**{"n_jobs": 1, "max_iter": 3, "tol": 1.0, **parameters})


def as_record_field(X):
    records = np.zeros(len(X), dtype=[("flag", "u1"), ("x", X.dtype, X.shape[1])])
    records["x"] = X
    return records["x"]


def frame(dtype):
    return lambda X: pd.DataFrame(X, columns=NAMES).astype(dtype)


def frame_of(first, others):
    def make(X):
        result = pd.DataFrame(X, columns=NAMES).astype(others)
        result["c0"] = result["c0"].astype(first)
        return result

    return make


def polars_frame(dtype):
    return lambda X: pl.DataFrame(X.astype(np.uint8), schema=NAMES).cast(dtype)


def torch_tensor(dtype):
    def make(X):
        torch = pytest.importorskip("torch")
        return torch.tensor(X).to(getattr(torch, dtype))

    return make


def from_package(package, make):
    return lambda X: make(pytest.importorskip(package), X)


class DlpackOnly:
    """An array that has nothing but DLPack's methods."""

    def __init__(self, array, device=None):
        self._array, self._device = array, device
        self.shape = array.shape

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._device or self._array.__dlpack_device__()


# What makes X of zeros and ones: the type it is read in, and whether that is a copy.
DENSE = {
    "float64": (lambda X: X.astype(np.float64), "float64", False),
    "float32": (lambda X: X.astype(np.float32), "float32", False),
    "float16": (lambda X: X.astype(np.float16), "float16", False),
    "uint8": (lambda X: X.astype(np.uint8), "uint8", False),
    "int8": (lambda X: X.astype(np.int8), "int8", False),
    "bool": (lambda X: X.copy(), "uint8", False),
    "bool, strided": (lambda X: np.repeat(X, 2, axis=1)[::-1, ::-2][::-1, ::-1], "uint8", False),
    "bool, record field": (as_record_field, "uint8", False),
    "float16, strided": (
        lambda X: np.repeat(X.astype(np.float16), 2, axis=1)[:, ::2],
        "float16",
        False,
    ),
    "float32, Fortran order": (lambda X: np.asfortranarray(X, np.float32), "float32", False),
    "float32, record field": (lambda X: as_record_field(X.astype("f4")), "float32", True),
    "float32, other byte order": (lambda X: X.astype(">f4"), "float32", True),
    "float16, other byte order": (lambda X: X.astype(">f2"), "float16", True),
    "float64, other byte order": (lambda X: X.astype(">f8"), "float64", True),
    "int16": (lambda X: X.astype(np.int16), "float64", True),
    "int64": (lambda X: X.astype(np.int64), "float64", True),
    "int32, other byte order": (lambda X: X.astype(">i4"), "float64", True),
    "longdouble": (lambda X: X.astype(np.longdouble), "float64", True),
    "object": (lambda X: X.astype(np.float64).astype(object), "float64", True),
    "masked array": (lambda X: np.ma.masked_array(X.astype("f4")), "float32", False),
    "pandas float32": (frame("float32"), "float32", False),
    "pandas bool": (frame("bool"), "uint8", False),
    "pandas uint8": (frame("uint8"), "uint8", False),
    "pandas Float32": (frame("Float32"), "float32", True),
    "pandas Float64": (frame("Float64"), "float64", True),
    "pandas Int8": (frame("Int8"), "int8", True),
    "pandas UInt8": (frame("UInt8"), "uint8", True),
    "pandas Int64": (frame("Int64"), "float64", True),
    "pandas boolean": (frame("boolean"), "uint8", True),
    "pandas float64 and float32": (frame_of("float64", "float32"), "float64", True),
    "pandas bool and float32": (frame_of("bool", "float32"), "float32", True),
    "pandas bool and uint8": (frame_of("bool", "uint8"), "uint8", True),
    "pandas uint8 and int8": (frame_of("uint8", "int8"), "float32", True),
    "pandas bool and Int8": (frame_of("bool", "Int8"), "float32", True),
    "pandas int64 and Float32": (frame_of("int64", "Float32"), "float64", True),
    "polars Float32": (polars_frame(pl.Float32), "float32", True),
    "polars Boolean": (polars_frame(pl.Boolean), "uint8", True),
    "polars Int8": (polars_frame(pl.Int8), "int8", True),
    "polars Int64": (polars_frame(pl.Int64), "float64", True),
    "arrow-backed float": (
        from_package("pyarrow", lambda _, X: frame("float[pyarrow]")(X)),
        "float32",
        True,
    ),
    "arrow-backed bool": (
        from_package("pyarrow", lambda _, X: frame("bool[pyarrow]")(X)),
        "uint8",
        True,
    ),
    "pyarrow table": (
        from_package(
            "pyarrow", lambda pa, X: pa.table(dict(zip(NAMES, X.T.astype("f4"), strict=True)))
        ),
        "float32",
        True,
    ),
    "torch float32": (torch_tensor("float32"), "float32", False),
    "torch float16": (torch_tensor("float16"), "float16", False),
    "torch uint8": (torch_tensor("uint8"), "uint8", False),
    "torch bool": (torch_tensor("bool"), "uint8", False),
    "torch bfloat16": (torch_tensor("bfloat16"), "float32", True),
    "torch int64": (torch_tensor("int64"), "float64", True),
    "array-api-strict float32": (
        from_package("array_api_strict", lambda xp, X: xp.asarray(X.astype("f4"))),
        "float32",
        False,
    ),
    "bfloat16 of ml_dtypes": (
        from_package("ml_dtypes", lambda extra, X: X.astype(extra.bfloat16)),
        "float32",
        True,
    ),
    "8-bit float of ml_dtypes": (
        from_package("ml_dtypes", lambda extra, X: X.astype(extra.float8_e5m2)),
        "float32",
        True,
    ),
    "jax bfloat16": (
        from_package("jax", lambda jax, X: jax.numpy.asarray(X, dtype="bfloat16")),
        "float32",
        True,
    ),
    "jax float32": (
        from_package("jax", lambda jax, X: jax.numpy.asarray(X, dtype="float32")),
        "float32",
        False,
    ),
    "xarray uint8": (
        from_package("xarray", lambda xr, X: xr.DataArray(X.astype(np.uint8))),
        "uint8",
        False,
    ),
    "DLPack": (lambda X: DlpackOnly(X.astype(np.float32)), "float32", False),
}  # fmt: skip


def peak_of(function):
    """(what a function returns, the most bytes that it held at a time)."""
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fit_silently(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


@pytest.mark.parametrize("kind", DENSE)
def test_type_and_memory_of_dense_features(ones, kind):
    make, stored, copied = DENSE[kind]
    X, y = make(ones[0]), ones[1]
    plain = ones[0].astype(stored)
    fit_silently(quick(), make(ones[0][:50]), y[:50])  # what is imported is not counted
    expected, usual = peak_of(lambda: fit_silently(quick(), plain, y))
    most = ALLOWED + plain.nbytes * copied
    model, peak = peak_of(lambda: fit_silently(quick(), X, y))
    assert peak - usual <= most
    assert model.coef_.dtype == expected.coef_.dtype
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    probs, peak = peak_of(lambda: model.predict_proba(X))
    assert peak - probs.nbytes <= most
    np.testing.assert_array_equal(probs, expected.predict_proba(plain))
    for method in ("predict", "decision_function", "predict_log_proba"):
        np.testing.assert_array_equal(
            getattr(model, method)(X), getattr(expected, method)(plain), err_msg=method
        )
    assert model.score(X, y) == expected.score(plain, y)
    assert model.evaluate(X, y) == expected.evaluate(plain, y)


@pytest.mark.parametrize("kind", ["bool", "float32, other byte order", "pandas Float32",
                                  "pandas boolean", "torch float16", "torch bool"])  # fmt: skip
def test_every_entry_point_reads_the_same_type(ones, kind):
    make, stored, _ = DENSE[kind]
    X, y = make(ones[0][:300]), ones[1][:300]
    plain = ones[0][:300].astype(stored)

    def results(X):
        sgd = quick(solver="sgd", random_state=0)
        yield sgd.fit(X, y).coef_
        yield sgd.partial_fit(X, y).coef_
        yield quick(solver="sgd", random_state=0).fit([(X, y), (X, y)]).coef_
        watched = quick(tol=1e-6, max_iter=100).fit(X, y, eval_set=[(X, y)])
        yield watched.coef_
        yield np.array(watched.history_["eval_loss"])
        yield quick(early_stopping=True, random_state=0).fit(X, y).coef_
        model = quick(C=10.0, tol=1e-10, max_iter=100).fit(X, y)
        yield model.predict_topk(X, 2)[1]
        yield np.array(model.calibrate_temperature(X, y).temperature_)
        yield FastSoftmaxCV([0.1, 1.0], cv=2, max_iter=200, n_jobs=1).fit(X, y).coef_

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found, expected in zip(results(X), results(plain), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_names_of_frames_in_any_type(ones):
    X, y = ones[0][:100], ones[1][:100]
    for dtype in ("Float32", "boolean", "bool", "float32"):
        model = fit_silently(quick(), frame(dtype)(X), y)
        assert model.feature_names_in_.tolist() == NAMES
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(frame(dtype)(X).rename(columns={"c0": "other"}))
        with pytest.raises(ValueError, match=r"39 features|feature names"):
            model.predict(frame(dtype)(X).drop(columns="c39"))
    assert fit_silently(quick(), polars_frame(pl.Float32)(X), y).feature_names_in_[1] == "c1"


@pytest.mark.parametrize("dtype", ["Float32", "Float64", "Int8", "Int64", "boolean", "mixed"])
def test_a_missing_value_is_named(ones, dtype):
    X, y = ones[0][:50], ones[1][:50]
    given = frame("Float32" if dtype == "mixed" else dtype)(X)
    if dtype == "mixed":
        given["c0"] = given["c0"].astype("float64")
    complete = given.copy()
    given.iloc[17, 3] = pd.NA
    model = fit_silently(quick(), complete, y)
    for call in (lambda: quick().fit(given, y), lambda: model.predict(given)):
        with pytest.raises(ValueError, match=r"X must not have missing values.*17 of column 'c3'"):
            call()


def test_a_missing_value_of_polars_is_named():
    X = pl.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1, None, 3]})
    with pytest.raises(ValueError, match=r"X must not have missing values.*row 1 of column 'b'"):
        quick().fit(X, [0, 1, 1])


def test_a_masked_value_is_named(ones):
    X = np.ma.masked_array(ones[0][:50].astype(np.float32))
    X[3, 2] = np.ma.masked
    with pytest.raises(ValueError, match=r"masked values, got one at \[row, column\] \[3, 2\]"):
        quick().fit(X, ones[1][:50])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ">f4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (N_ROWS - 1, N_FEATURES - 1)])
def test_not_finite(ones, dtype, value, place):
    X = ones[0].astype(dtype)
    X[place] = value
    with pytest.raises(ValueError, match="NaN" if np.isnan(value) else "infinity"):
        quick().fit(X, ones[1])


# ---- sparse

SPARSE = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
          "float32"]  # fmt: skip


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "bsr"])
@pytest.mark.parametrize("dtype", SPARSE)
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_sparse_number_types(ones, form, dtype, kind):
    X, y = ones[0][:200].astype(dtype), ones[1][:200]
    given = getattr(sparse, f"{form}_{kind}")(X)
    plain = sparse.csr_array(X.astype(np.float32))
    model, expected = (fit_silently(quick(), x, y) for x in (given, plain))
    assert model.coef_.dtype == np.float32
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    probs = model.predict_proba(given)
    assert probs.dtype == np.float32
    np.testing.assert_array_equal(probs, expected.predict_proba(plain))
    assert given.dtype == dtype


def test_sparse_integers_that_float32_lacks():
    """Counts that float32 would round are read as float64."""
    X = np.array([[2**24, 0], [2**24 + 1, 1], [0, 3]])
    for dtype in (np.int32, np.uint64, np.int64):
        kept = stored_features(sparse.csr_array(X.astype(dtype)))
        assert kept.dtype == np.float64
        np.testing.assert_array_equal(kept.toarray(), X)
        assert stored_features(sparse.csr_array((X - (X > 2**24)).astype(dtype))).dtype == "f4"
    assert stored_features(sparse.csr_array(-X)).dtype == "f8"
    assert stored_features(sparse.csr_array(X.astype(np.longdouble))).dtype == np.float64


def test_sparse_sums_of_what_occurs_twice():
    """Duplicates are added up in the type that X is read in, not in one of 8 bits."""
    twice = [[0, 0, 1], [0, 0, 1]]
    X = sparse.coo_array((np.array([100, 100, 7], np.int8), twice), shape=(2, 2))
    assert stored_features(X).toarray().tolist() == [[200.0, 0.0], [0.0, 7.0]]
    X = sparse.coo_array((np.ones(3, bool), twice), shape=(2, 2))
    assert stored_features(X).toarray().tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_sparse_numbers_that_scipy_does_not_know(ones):
    """scipy makes no matrices of them, but can be made to hold them."""
    X, y = ones[0][:200], ones[1][:200]
    expected = fit_silently(quick(), sparse.csr_array(X.astype(np.float32)), y)
    for dtype in (np.float16, ">f4", ">i4"):
        for form in ("csr", "csc"):
            given = getattr(sparse, f"{form}_array")(X.astype(np.float32))
            given.data = given.data.astype(dtype)
            np.testing.assert_array_equal(
                fit_silently(quick(), given, y).coef_, expected.coef_, err_msg=f"{form} {dtype}"
            )


def test_sparse_indices_are_not_copied(ones):
    X = sparse.csr_array(ones[0].astype(np.int64))
    stored = stored_features(X)
    assert np.shares_memory(stored.indices, X.indices)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    assert stored_features(X).indices.dtype == np.int64
    _, peak = peak_of(lambda: stored_features(X))
    assert peak < 4 * X.nnz + 10_000


def test_frames_with_sparse_columns(ones):
    X, y = ones[0][:200], ones[1][:200]
    given = pd.DataFrame.sparse.from_spmatrix(sparse.csr_array(X.astype(np.uint8)), columns=NAMES)
    model = fit_silently(quick(), given, y)
    assert model.coef_.dtype == np.float32
    assert model.feature_names_in_.tolist() == NAMES
    expected = fit_silently(quick(), sparse.csr_array(X.astype(np.float32)), y)
    np.testing.assert_array_equal(model.coef_, expected.coef_)


# ---- functions


@pytest.mark.parametrize("kind", [name for name in DENSE if name != "object"])
def test_functions(ones, kind):
    make, stored, copied = DENSE[kind]
    X, y = make(ones[0]), ones[1]
    W = np.full((3, N_FEATURES), 0.25, np.float32 if stored != "float64" else np.float64)
    W[1] = -0.5
    if kind == "longdouble":
        with pytest.raises(TypeError, match="X must hold real numbers of at most 64 bits"):
            linear_cross_entropy(X, W, None, y)
        return
    (loss, grad, _), peak = peak_of(lambda: linear_cross_entropy(X, W, None, y))
    plain, usual = peak_of(lambda: linear_cross_entropy(ones[0].astype(stored), W, None, y))
    assert grad.dtype == plain[1].dtype
    np.testing.assert_allclose(loss, plain[0], rtol=1e-6)
    np.testing.assert_allclose(grad, plain[1], rtol=1e-5, atol=1e-7)
    if not copied:
        assert peak - usual < ALLOWED
    probs = softmax(make(ones[0][:5]))
    assert type(probs) is np.ndarray
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=2e-3)


# ---- what is refused


class TestRefused:
    """Arrays that numpy cannot read are named, with what to do."""

    def refuse(self, X, pattern, data):
        _, y = data
        model = fit_silently(quick(), data[0].astype(np.float64), y)
        calls = (
            lambda: quick().fit(X, y),
            lambda: model.predict_proba(X),
            lambda: model.score(X, y),
            lambda: quick(solver="sgd").fit([(X, y)], classes=[0, 1, 2]),
            lambda: softmax(X),
        )
        for call in calls:
            with pytest.raises(TypeError, match=pattern) as caught:
                call()
            assert re.search("[Xx]", str(caught.value))

    @pytest.fixture
    def few(self, ones):
        return ones[0][:60], ones[1][:60]

    @pytest.mark.parametrize(("device", "name"), [(2, "CUDA"), (8, "Metal"), (10, "ROCm")])
    def test_devices(self, few, device, name):
        X = DlpackOnly(few[0].astype(np.float32), (device, 0))
        self.refuse(X, rf"memory of the CPU, got .*DlpackOnly on {name}", few)

    @pytest.mark.parametrize("library", ["cupy", "dask"])
    def test_libraries(self, few, library):
        kind = type("Array", (), {"__module__": f"{library}.core", "shape": few[0].shape,
                                  "dtype": np.dtype("f4"), "ndim": 2})  # fmt: skip
        self.refuse(kind(), f"got {library}'s Array", few)

    def test_tensors(self, few):
        torch = pytest.importorskip("torch")
        X = torch.tensor(few[0]).float()
        self.refuse(torch.empty(60, N_FEATURES, device="meta"), "on meta: pass [Xx].cpu", few)
        self.refuse(X.clone().requires_grad_(), r"gradient.*pass [Xx].detach\(\)", few)
        self.refuse(X.to_sparse(), "dense tensor, got .*sparse_coo", few)

    def test_labels_and_weights(self, few):
        torch = pytest.importorskip("torch")
        X, y = few[0].astype(np.float32), few[1]
        there = torch.empty(60, device="meta")
        with pytest.raises(TypeError, match="y must be in the memory of the CPU"):
            quick().fit(X, there)
        with pytest.raises(TypeError, match="sample_weight must be in the memory of the CPU"):
            quick().fit(X, y, there)

    def test_a_device_of_array_api_strict(self, few):
        xp = pytest.importorskip("array_api_strict")
        X = xp.asarray(few[0], device=xp.Device("device1"))
        self.refuse(X, "array_api_strict's Array.*device1", few)


def test_views_are_views(ones):
    X = ones[0].astype(np.float32)
    for given in (X, DlpackOnly(X), np.ma.masked_array(X)):
        assert np.shares_memory(stored_features(given), X)
    frame = pd.DataFrame(X)
    assert np.shares_memory(stored_features(frame), frame.to_numpy())
    assert np.shares_memory(stored_features(ones[0]), ones[0])
    assert as_array(X, "x") is X
