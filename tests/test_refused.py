"""What is refused: errors name the argument, and leave a model as it was."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax import FastSoftmax, cross_entropy, linear_cross_entropy
from fastsoftmax.archives import array_from, members_of, write_arrays
from fastsoftmax.data_sources import NpyFiles, ParquetRows


@pytest.fixture
def data(rng):
    return rng.normal(size=(30, 4)), np.arange(30) % 3


class TestNames:
    """Messages of scikit-learn and numpy told what is wrong, and not with what."""

    @pytest.mark.parametrize("weights", ["balanced", object(), ["a"] * 30, np.ones(30) + 1j])
    def test_sample_weight(self, data, weights):
        model = FastSoftmax().fit(*data)
        for method in (model.fit, model.evaluate, model.score):
            with pytest.raises((ValueError, TypeError), match="sample_weight"):
                method(*data, sample_weight=weights)

    @pytest.mark.parametrize("X", [np.full((30, 4), "a"), [["a"] * 4] * 30, np.ones((30, 4)) + 1j])
    def test_features(self, data, X):
        model = FastSoftmax().fit(*data)
        for call in (lambda: model.fit(X, data[1]), lambda: model.predict(X)):
            with pytest.raises((ValueError, TypeError), match=r"\bX\b"):
                call()

    def test_lengths(self, data):
        X, y = data
        model = FastSoftmax().fit(X, y)
        for method in (model.fit, model.evaluate, model.score):
            with pytest.raises(ValueError, match=r"^y: .*inconsistent numbers of samples"):
                method(X, y[:-1])

    def test_rows_of_different_lengths(self):
        with pytest.raises(ValueError, match="X is no array"):
            linear_cross_entropy([[1.0], [2.0, 3.0]], np.ones((2, 1)), None, [0, 1])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("wrong", ["sample_weight", "y", "lengths"])
def test_an_error_leaves_a_model_as_it_was(data, method, wrong):
    """It had the number of features of the call that failed, and predicted no more."""
    X, y = data
    model = FastSoftmax().fit(X[:, :3], y)
    before, expected = dict(vars(model)), model.predict_proba(X[:, :3])
    weights = np.full(30, -1.0) if wrong == "sample_weight" else None
    wider = X if method == "fit" else X[:, :3]
    targets = {"y": np.full(30, np.nan), "lengths": y[:-1]}.get(wrong, y)
    options = {} if method == "fit" else {"classes": [0, 1, 2]}
    with pytest.raises(ValueError):
        getattr(model, method)(wider, targets, sample_weight=weights, **options)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    np.testing.assert_array_equal(model.predict_proba(X[:, :3]), expected)


class TestDamagedFiles:
    def test_npy(self, tmp_path):
        """numpy's reader of headers raised a TokenError."""
        path = tmp_path / "x.npy"
        np.save(path, np.ones((4, 2)))
        content = path.read_bytes()
        path.write_bytes(content.replace(b"'descr'", b"('descr", 1))
        with pytest.raises(ValueError, match=r"x\.npy must be a \.npy file"):
            NpyFiles(path)

    def test_parquet(self, tmp_path):
        """pyarrow raised an OSError that did not name the file."""
        pa = pytest.importorskip("pyarrow")
        path = tmp_path / "x.parquet"
        table = pa.table({"a": np.arange(50.0), "label": np.arange(50) % 2})
        pytest.importorskip("pyarrow.parquet").write_table(table, path, use_dictionary=False)
        content = bytearray(path.read_bytes())
        content[4:40] = b"\xff" * 36  # the header of the first page
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.parquet cannot be read"):
            list(ParquetRows(path))

    @pytest.mark.parametrize("name", ["course.history.loss", "course.history.eval_loss",
                                      "course.intercept", ".point"])  # fmt: skip
    def test_checkpoints(self, data, tmp_path, name):
        """A number in the place of an array was a TypeError."""
        path = tmp_path / "state.npz"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FastSoftmax(max_iter=3, tol=0.0, solver="lbfgs").fit(*data, checkpoint=path)
        _exchange(path, name, np.array(1.0))
        model = FastSoftmax(solver="lbfgs")
        with pytest.raises(ValueError, match="damaged"):
            model.fit(*data, resume=path)
        assert not hasattr(model, "coef_")


def _exchange(path: Path, name, array):
    """Put another array into an archive."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = members_of(archive, path.stat().st_size)
    places = [key for key in members if key.endswith(name)]
    assert places
    arrays = {key: array_from(key, content) for key, content in members.items()}
    with open(path, "wb") as opened:
        write_arrays(opened, arrays | dict.fromkeys(places, array))


@pytest.mark.parametrize("parameter", ["C", "input_scale", "tol"])
def test_integers_of_any_size(data, parameter):
    """numpy knows none of more than 64 bits: C=10**20 was a TypeError."""
    options = {"max_iter": 5, "tol": 1.0, parameter: 10**20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FastSoftmax(**options).fit(*data)
    assert np.isfinite(model.coef_).all()


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_rows_of_weight_0_have_no_loss(backend, request):
    """With numpy 0 times an infinite loss was NaN."""
    if backend == "native":
        request.getfixturevalue("kernels")
    logits = np.array([[0.0, -np.inf, 1.0], [0.0, 1.0, 2.0]])
    for options in ({"sample_weight": [0.0, 1.0]}, {"ignore_index": 1}):
        y = [1, 2]
        plain = cross_entropy(logits[1:], y[1:], backend=backend, reduction="sum")
        found = cross_entropy(logits, y, backend=backend, reduction="sum", **options)
        assert found == plain
