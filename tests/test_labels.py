"""Labels of every type that users pass, missing ones, and labels of another kind."""

import numpy as np
import pytest
import sklearn
from scipy import sparse

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path
from fastsoftmax._estimator.label_numbers import numbered_labels
from fastsoftmax._estimator.targets import known_labels, label_array
from fastsoftmax.datasets import iter_batches

OLD = tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 7)

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

NUMBER = np.arange(60) % 3
LARGE = np.array([2**53, 2**53 + 1, 2**53 + 2])[NUMBER]
TEXT = np.array(["ant", "bee", "cat"])[NUMBER]
FLAG = NUMBER > 0
MISSING = np.arange(60) == 17

# What is passed, and the labels and the number type that it means (None for any of strings).
GIVEN = {
    "Int64": (pd.Series(LARGE, dtype="Int64"), LARGE, "int64"),
    "Int8": (pd.Series(NUMBER, dtype="Int8"), NUMBER, "int8"),
    "UInt64": (pd.Series(LARGE, dtype="UInt64"), LARGE, "uint64"),
    "Int64 array": (pd.array(LARGE, dtype="Int64"), LARGE, "int64"),
    "Int64 column": (pd.Series(LARGE, dtype="Int64").to_frame(), LARGE, "int64"),
    "Float64": (pd.Series(NUMBER, dtype="Float64"), NUMBER, "float64"),
    "boolean": (pd.Series(FLAG, dtype="boolean"), FLAG, "bool"),
    "string": (pd.Series(TEXT, dtype="string"), TEXT, None),
    "objects": (pd.Series(TEXT, dtype=object), TEXT, None),
    "category of strings": (pd.Series(TEXT, dtype="category"), TEXT, None),
    "category of Int64": (pd.Series(LARGE, dtype="Int64").astype("category"), LARGE, "int64"),
    "category of bool": (pd.Series(FLAG).astype("category"), FLAG, "bool"),
    "Categorical": (pd.Categorical(TEXT, ["cat", "ant", "bee", "dog"]), TEXT, None),
    "sparse": (pd.Series(pd.arrays.SparseArray(NUMBER)), NUMBER, "int64"),
    "polars Int64": (pl.Series(LARGE), LARGE, "int64"),
    "polars Int8": (pl.Series(NUMBER.astype(np.int8)), NUMBER, "int8"),
    "polars Boolean": (pl.Series(FLAG), FLAG, "bool"),
    "polars String": (pl.Series(TEXT), TEXT, None),
    "polars Categorical": (pl.Series(TEXT.tolist(), dtype=pl.Categorical), TEXT, None),
    "polars Enum": (pl.Series(TEXT.tolist(), dtype=pl.Enum(["cat", "bee", "ant"])), TEXT, None),
    "polars column": (pl.DataFrame({"y": LARGE}), LARGE, "int64"),
    "objects that are integers": (LARGE.astype(object), LARGE, "int64"),
    "objects that are floats": (NUMBER.astype(float).astype(object), NUMBER, "float64"),
    "objects that are booleans": (FLAG.astype(object), FLAG, "bool"),
    "objects that are integers and floats": (
        np.array([0, 1.0, 2], dtype=object)[NUMBER],
        NUMBER,
        "float64",
    ),
    "booleans": (FLAG.tolist(), FLAG, "bool"),
    "tuple": (tuple(LARGE.tolist()), LARGE, "int64"),
    "strings of numpy": (TEXT.astype(np.dtypes.StringDType()), TEXT, None),
    "big endian": (LARGE.astype(">i8"), LARGE, ">i8"),
    "dates": (np.datetime64("2020-01-01") + NUMBER, np.datetime64("2020-01-01") + NUMBER, "M8[D]"),
}

# What is passed with its label of row 17 missing, and the same without that.
LACKING = {
    "Int64": (pd.Series(NUMBER, dtype="Int64").mask(MISSING), NUMBER),
    "boolean": (pd.Series(FLAG, dtype="boolean").mask(MISSING), FLAG),
    "string": (pd.Series(TEXT, dtype="string").mask(MISSING), TEXT),
    "objects with None": (np.where(MISSING, None, TEXT.astype(object)), TEXT),
    "objects with NaN": (np.where(MISSING, np.nan, TEXT.astype(object)), TEXT),
    "objects with NA": (np.where(MISSING, pd.NA, NUMBER.astype(object)), NUMBER),
    "category": (pd.Series(TEXT, dtype="category").mask(MISSING), TEXT),
    "polars Int64": (
        pl.Series([None if m else i for i, m in zip(NUMBER, MISSING, strict=True)]),
        NUMBER,
    ),
    "polars Boolean": (
        pl.Series([None if m else i for i, m in zip(FLAG, MISSING, strict=True)]),
        FLAG,
    ),
    "polars String": (
        pl.Series([None if m else i for i, m in zip(TEXT, MISSING, strict=True)]),
        TEXT,
    ),
    "list with NaN": ([np.nan if m else str(i) for i, m in zip(TEXT, MISSING, strict=True)], TEXT),
    "list with None": (
        [None if m else int(i) for i, m in zip(NUMBER, MISSING, strict=True)],
        NUMBER,
    ),
    "floats": (np.where(MISSING, np.nan, NUMBER), NUMBER),
    "dates": (
        np.where(MISSING, np.datetime64("NaT", "D"), np.datetime64("2020-01-01") + NUMBER),
        np.datetime64("2020-01-01") + NUMBER,
    ),
    "durations": (
        np.where(MISSING, np.timedelta64("NaT", "D"), NUMBER.astype("m8[D]")),
        NUMBER.astype("m8[D]"),
    ),
    "masked": (np.ma.array(NUMBER, mask=MISSING), NUMBER),
}


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(60, 3))


def batches(X, y):
    return list(iter_batches(X, y, 20, shuffle=False))


def sgd():
    return FastSoftmax(solver="sgd", max_iter=1, random_state=0)


@pytest.mark.filterwarnings("ignore:A column-vector")
@pytest.mark.parametrize("form", GIVEN)
class TestTypes:
    def test_labels_keep_their_type(self, form):
        y, labels, dtype = GIVEN[form]
        read = label_array(y)
        assert read.tolist() == labels.tolist()
        assert read.dtype.kind in "OU" if dtype is None else read.dtype == np.dtype(dtype)

    def test_fits(self, X, form):
        y, labels, dtype = GIVEN[form]
        classes = FastSoftmax().fit(X, labels).classes_
        models = [
            FastSoftmax().fit(X, y, eval_set=[(X, y)]),
            FastSoftmaxCV(Cs=[1.0], cv=2, scoring="balanced_accuracy").fit(X, y),
            sgd().partial_fit(X, y, classes=classes),
            sgd().partial_fit(X, labels, classes=pd.Series(classes)),
            sgd().fit(batches(X, y)),
            sgd().fit(batches(X, y), classes=classes.tolist()),
        ]
        for model in models:
            assert (model.classes_ == classes).all()
            assert model.score(X, y) == model.score(X, labels)
        if dtype is not None:
            assert models[0].classes_.dtype == np.dtype(dtype)
        assert fastsoftmax_path(X, y, Cs=[1.0]).classes.tolist() == classes.tolist()

    def test_questions(self, X, form):
        y, labels, _ = GIVEN[form]
        model = FastSoftmax(C=np.inf, tol=1e-9).fit(X, labels)
        assert model.evaluate(X, y) == model.evaluate(X, labels)
        np.testing.assert_array_equal(model.statistics(X, y).z, model.statistics(X, labels).z)
        expected = model.calibrate_temperature(X, labels).temperature_
        assert model.calibrate_temperature(X, y).temperature_ == expected


def test_arrow(X):
    pa = pytest.importorskip("pyarrow")
    for dtype, labels in (("int64[pyarrow]", LARGE), ("bool[pyarrow]", FLAG)):
        classes = FastSoftmax().fit(X, pd.Series(labels, dtype=dtype)).classes_
        assert classes.tolist() == np.unique(labels).tolist()
        assert classes.dtype == labels.dtype
    strings = pd.Series(TEXT, dtype="string[pyarrow]")
    for y in (strings, pa.array(TEXT.tolist()), pa.array(TEXT.tolist()).dictionary_encode()):
        assert label_array(y).tolist() == TEXT.tolist()
    for y in (strings.mask(MISSING), pa.array(NUMBER, mask=MISSING)):
        with pytest.raises(ValueError, match=r"^y lacks a label in row 17$"):
            FastSoftmax().fit(X, y)


@pytest.mark.parametrize("form", LACKING)
def test_missing_labels(X, form):
    """Each entry point says where."""
    y, labels = LACKING[form]
    model = FastSoftmax(C=np.inf).fit(X, labels)
    classes = model.classes_
    calls = [
        lambda: FastSoftmax().fit(X, y),
        lambda: FastSoftmaxCV(Cs=[1.0]).fit(X, y),
        lambda: fastsoftmax_path(X, y),
        lambda: sgd().partial_fit(X, y, classes=classes),
        lambda: model.score(X, y),
        lambda: model.evaluate(X, y),
        lambda: model.statistics(X, y),
        lambda: model.calibrate_temperature(X, y),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^y lacks a label in row 17$"):
            call()
    for options in ({}, {"classes": classes}):
        with pytest.raises(ValueError, match=r"^batch 0 \(from 0\): y lacks a label in row 17$"):
            sgd().fit(batches(X, y), **options)
    with pytest.raises(ValueError, match=r"^eval_set\[1\] lacks a label in row 17$"):
        FastSoftmax().fit(X, labels, eval_set=[(X, labels), (X, y)])
    with pytest.raises(ValueError, match=r"^y_val lacks a label in row 17$"):
        FastSoftmax().fit(X, labels, X_val=X, y_val=y)


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        (np.array(["a", 1, 2], dtype=object)[NUMBER], TypeError, "of one type, got int and str"),
        ([["a", 1, 2.5][i] for i in NUMBER], TypeError, "one type, got float and int and str"),
        ([True, "a"] * 30, TypeError, "of one type, got bool and str"),
        ([2**70, 1] * 30, ValueError, "integers that one type of 64 bits can hold, got 1 to 1180"),
        ([2**63, -1] * 30, ValueError, "integers that one type of 64 bits can hold, got -1 to 92"),
        ([2**53 + 1, 0.5] * 30, ValueError, "both fractions and integers too large for float64"),
        (NUMBER.astype(complex), ValueError, "y must hold labels, got complex numbers"),
        (np.array(3), ValueError, r"y should be a 1d array, got an array of shape \(\)"),
        ([[0, 1], [0]] * 30, ValueError, "y must hold a label for each row, or as many"),
        (NUMBER + 0.5, ValueError, "continuous"),
        (np.where(NUMBER == 1, 0.5, NUMBER), ValueError, "continuous"),
        (sparse.csr_array(NUMBER[:, np.newaxis]), ValueError, "1d array, got a sparse array"),
        (sparse.coo_array(NUMBER), ValueError, "1d array, got a sparse array"),
        (NUMBER[:, np.newaxis, np.newaxis], ValueError, r"1d array, got an array of shape \(60, 1"),
        (set(NUMBER.tolist()), ValueError, "y should be a 1d array"),
        (np.where(MISSING, np.inf, NUMBER), ValueError, "infinity"),
    ],
    ids=str,
)
def test_what_is_no_label(X, y, error, match):
    with pytest.raises(error, match=match):
        FastSoftmax().fit(X, y)


@pytest.mark.skipif(OLD, reason="scikit-learn 1.6 warns only")
def test_bytes_are_refused_as_scikit_learn_does(X):
    with pytest.raises(TypeError, match="bytes"):
        FastSoftmax().fit(X, TEXT.astype("S"))


def test_a_column_warns(X):
    for y in (NUMBER[:, np.newaxis], [[int(i)] for i in NUMBER], pd.DataFrame({"y": NUMBER})):
        with pytest.warns(UserWarning, match="column-vector y"):
            assert FastSoftmax().fit(X, y).classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("scoring", [None, "balanced_accuracy", "single"])
def test_labels_of_another_kind(X, scoring):
    """They cannot be right, and a score of 0 does not say why."""
    if scoring == "single":
        of_numbers, of_text = FastSoftmax().fit(X, NUMBER), FastSoftmax().fit(X, TEXT)
    else:
        model = FastSoftmaxCV(Cs=[1.0], cv=2, scoring=scoring)
        of_numbers, of_text = model.fit(X, NUMBER), FastSoftmaxCV(Cs=[1.0], cv=2).fit(X, TEXT)
    for method in ("score", "evaluate"):
        for model, y in (
            (of_numbers, TEXT),
            (of_numbers, NUMBER.astype(str)),
            (of_numbers, np.datetime64("2020-01-01") + NUMBER),
            (of_text, NUMBER),
            (of_text, pd.Series(FLAG, dtype="boolean")),
        ):
            with pytest.raises(ValueError, match="y holds a label that is none of the classes: "):
                getattr(model, method)(X, y)
    assert of_numbers.score(X, NUMBER.astype(float)) == of_numbers.score(X, NUMBER)
    if scoring != "balanced_accuracy":
        assert of_numbers.score(X, NUMBER + 10) == 0.0
        assert of_text.score(X, np.full(60, "dog")) == 0.0


def test_large_integers_of_two_types(X):
    """int64 and uint64 meet as float64 in numpy, where 2^53 + 1 is 2^53."""
    model = FastSoftmax().fit(X, LARGE)
    unsigned = LARGE.astype(np.uint64)
    assert model.evaluate(X, unsigned) == model.evaluate(X, LARGE)
    of_batches = sgd().fit([(X[:30], LARGE[:30]), (X[30:], unsigned[30:])])
    assert of_batches.classes_.tolist() == [2**53, 2**53 + 1, 2**53 + 2]
    with pytest.raises(ValueError, match="none of the classes"):
        model.evaluate(X, np.full(60, 2**64 - 1, dtype=np.uint64))
    with pytest.raises(ValueError, match="none of the classes"):
        FastSoftmax().fit(X, NUMBER.astype(np.int8)).evaluate(X, np.full(60, 257))


@pytest.mark.parametrize(
    "y",
    [
        NUMBER,
        NUMBER * 7 - 9,
        NUMBER * 2**61 - 2**62,
        np.array([-128, 0, 127], np.int8)[NUMBER],
        np.array([0, 200, 255], np.uint8)[NUMBER],
        NUMBER.astype(np.uint64) + np.uint64(2**63),
        NUMBER.astype(">i2"),
        FLAG,
        NUMBER - 1.0,
        NUMBER.astype(np.float16),
        np.array([1e15, -1e15, 0.0])[NUMBER],
        TEXT,
        TEXT.astype(object),
        np.array(["", "bee", "\U0001f41d"], dtype=object)[NUMBER],
        np.datetime64("2020-01-01") + NUMBER,
    ],
    ids=lambda y: f"{y.dtype}-{y[2]}",
)
@pytest.mark.parametrize("order", ["ascending", "descending", "strided"])
def test_numbers_are_those_of_sorted_labels(y, order):
    y = np.repeat(y, 2)[::2] if order == "strided" else y[:: 1 if order == "ascending" else -1]
    before = y.copy()
    classes, numbers = numbered_labels(y)
    expected, expected_numbers = np.unique(y, return_inverse=True)
    assert classes.tolist() == expected.tolist() and classes.dtype == y.dtype
    assert numbers.tolist() == expected_numbers.tolist() and numbers.dtype == np.int32
    assert y.tolist() == before.tolist()


@pytest.mark.skipif(OLD, reason="scikit-learn 1.6 does not warn")
@pytest.mark.parametrize("dtype", [int, float, str, object, "M8[D]"])
def test_many_classes_warn_once(X, dtype):
    y = (np.arange(60) % 40).astype(dtype)
    with pytest.warns(UserWarning, match="unique classes is greater than 50%") as caught:
        FastSoftmax().fit(X, y)
    assert len(caught) == 1


@pytest.mark.parametrize("label", [-100, 99])
def test_rows_of_weight_0_may_have_any_label(X, label):
    absent = np.arange(60) % 5 == 0
    weights = np.where(absent, 0.0, 1.0)
    y = np.where(absent, label, NUMBER)
    model = FastSoftmax(C=np.inf, tol=1e-9).fit(X, y, sample_weight=weights)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.evaluate(X, y, weights) == model.evaluate(X, NUMBER, weights)
    assert model.score(X, y, weights) == model.score(X, NUMBER, weights)
    assert np.isfinite(model.statistics(X, y, weights).z).all()
    steps = [
        sgd().partial_fit(X, labels, classes=[0, 1, 2], sample_weight=weights)
        for labels in (y, NUMBER)
    ]
    np.testing.assert_array_equal(steps[0].coef_, steps[1].coef_)
    for options in ({}, {"classes": [0, 1, 2]}):
        of_batches = sgd().fit([(X, y, weights)], **options)
        assert of_batches.classes_.tolist() == [0, 1, 2]


def test_models_travel_with_their_labels(X, tmp_path):
    for form in ("Int8", "boolean", "category of strings"):
        y, labels, _ = GIVEN[form]
        model = FastSoftmax().fit(X, y)
        model.save(tmp_path / "model.npz")
        again = FastSoftmax.load(tmp_path / "model.npz")
        assert again.classes_.tolist() == np.unique(labels).tolist()
        assert again.score(X, y) == model.score(X, y)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_numbers_without_gaps_are_found_without_a_search(dtype):
    info = np.iinfo(dtype)
    n = 256 if info.bits == 8 else 5
    for first in (int(info.min), int(info.max) - n + 1):
        classes = np.array([first + i for i in range(n)], dtype=dtype)
        y = classes[::-1].copy()
        assert known_labels(y, classes).labels.tolist() == list(range(n))[::-1]
        if n == 5:
            outside = y.copy()
            outside[3] = info.max if first == info.min else info.min
            with pytest.raises(ValueError, match=r"none of the classes.* in row 3"):
                known_labels(outside, classes)
