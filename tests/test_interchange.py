"""Save and load: what comes back, and what becomes of files on the way."""

import copy
import io
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from fastsoftmax import FastSoftmax, FastSoftmaxCV, __version__

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")
FACTS = ("n_iter_", "gap_", "converged_", "objective_", "n_features_in_")
LABELS = {
    "int": np.array([-3, 5, 2**40]),
    "uint8": np.array([7, 8, 200], dtype=np.uint8),
    "uint64": np.array([0, 1, 2**64 - 1], dtype=np.uint64),
    "float": np.array([-1.0, 0.0, 2.0]),
    "float16": np.array([1.0, 2.0, 3.0], dtype=np.float16),
    "bool": np.array([False, True]),
    "str": np.array(["", "zebra 🦓", "ß"]),
    "str objects": np.array(["a", "b\0", "\ud800"], dtype=object),
    "int objects": np.array([1, 2**63, 2**64 - 1], dtype=object),
    "mixed objects": np.array([False, 2, 2.5], dtype=object),
}


@pytest.fixture
def X(rng):
    return rng.normal(size=(60, 4))


@pytest.fixture
def y(rng, X):
    return (X[:, :3] + 0.5 * rng.gumbel(size=(60, 3))).argmax(axis=1)


@pytest.fixture
def model(X, y):
    return FastSoftmax(C=0.5, n_jobs=1).fit(X, y)


@pytest.fixture
def searched(X, y):
    return FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, n_jobs=1).fit(X, y)


def with_labels(model, labels):
    """The model with other labels, of its first classes."""
    model = copy.copy(model)
    model.classes_ = labels
    if len(labels) == 2:
        model.coef_, model.intercept_ = model.coef_[:1], model.intercept_[:1]
    return model


def saved(model):
    file = io.BytesIO()
    model.save(file)
    return file


def assert_same_predictions(one, other, X):
    for method in METHODS:
        ours, theirs = getattr(one, method)(X), getattr(other, method)(X)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


class TestSaveLoad:
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_round_trip(self, X, y, real, n_classes, tmp_path):
        model = FastSoftmax(C=np.inf, n_jobs=1, max_time=60, class_weight={0: np.float32(2.0)})
        model.fit(X.astype(real), np.minimum(y, n_classes - 1))
        model.save(tmp_path / "model.npz")
        again = FastSoftmax.load(str(tmp_path / "model.npz"))
        assert type(again) is FastSoftmax
        assert again.get_params() == model.get_params()
        for name in (*FACTS, "coef_", "intercept_", "classes_"):
            ours, theirs = getattr(again, name), getattr(model, name)
            assert type(ours) is type(theirs)
            assert np.asarray(ours).dtype == np.asarray(theirs).dtype
            np.testing.assert_array_equal(ours, theirs)
        for dtype in (np.float32, np.float64, np.uint8):
            assert_same_predictions(again, model, np.abs(X).astype(dtype))
        assert again.set_params(warm_start=True).fit(X, y).converged_

    @pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
    def test_labels(self, model, labels):
        classes = FastSoftmax.load(saved(with_labels(model, labels))).classes_
        assert classes.dtype == labels.dtype
        np.testing.assert_array_equal(classes, labels)
        assert [type(label) for label in classes] == [type(label) for label in labels]

    @pytest.mark.parametrize(
        "labels",
        [
            np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]"),
            np.array([1.0, 2.0], dtype=np.longdouble),
            np.array([(1, 2), (3, 4)], dtype="i4,i4"),
            np.array([None, (1, 2)], dtype=object)[[1, 1]],
            np.array([b"a", b"b"], dtype=object),
            np.array([1, 2**64], dtype=object),
        ],
        ids=["dates", "longdouble", "records", "tuples", "bytes", "long int"],
    )
    def test_labels_that_no_file_holds(self, model, labels, tmp_path):
        if np.dtype(np.longdouble).itemsize == 8 and labels.dtype == np.longdouble:
            pytest.skip("long doubles are doubles here")
        with pytest.raises((TypeError, ValueError), match=r"classes_"):
            with_labels(model, labels).save(tmp_path / "model.npz")
        assert not any(tmp_path.iterdir())

    def test_names_of_features(self, X, y):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=["a", "ü", "c d", '"'])
        model = FastSoftmax().fit(frame, y)
        again = FastSoftmax.load(saved(model))
        np.testing.assert_array_equal(again.feature_names_in_, model.feature_names_in_)
        assert again.feature_names_in_.dtype == object
        assert_same_predictions(again, model, frame)
        with pytest.raises(ValueError, match="names should match"):
            again.predict(frame.rename(columns={"a": "b"}))

    def test_temperature(self, model):
        model.temperature_ = 1.25
        assert FastSoftmax.load(saved(model)).temperature_ == 1.25

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_partial_fit_goes_on(self, X, y, momentum):
        model = FastSoftmax(momentum=momentum, random_state=3)
        model.partial_fit(X[:30], y[:30], classes=range(3))
        again = FastSoftmax.load(saved(model))
        for stream in (model, again):
            stream.partial_fit(X[30:], y[30:])
        np.testing.assert_array_equal(again.coef_, model.coef_)
        np.testing.assert_array_equal(again.n_iter_, model.n_iter_)

    def test_random_generators_are_left_out(self, X, y):
        model = FastSoftmax(solver="sgd", max_iter=2, random_state=np.random.RandomState(0))
        model.fit(X, y)
        with pytest.warns(UserWarning, match="random_state will be None") as caught:
            file = saved(model)
        assert caught[0].filename == __file__
        assert FastSoftmax.load(file).random_state is None

    def test_parameters_that_no_file_holds(self, model):
        model.class_weight = {(1, 2): 3.0}
        with pytest.raises(TypeError, match=r"class_weight cannot be saved.*\(1, 2\).*tuple"):
            saved(model)

    def test_of_a_search(self, searched, X):
        again = FastSoftmax.load(saved(searched))
        assert (again.C, again.gap_) == (searched.C_, searched.gap_)
        assert again.tol == searched.tol
        assert_same_predictions(again, searched, X)

    def test_subclasses(self, X, y):
        class Named(FastSoftmax):
            def __init__(self, C=1.0, *, name="nobody"):
                super().__init__(C)
                self.name = name

        file = saved(Named(name="somebody").fit(X, y))
        again = Named.load(file)
        assert type(again) is Named
        assert again.name == "somebody"
        with pytest.raises(ValueError, match=r"'Named' with parameters that FastSoftmax lacks: na"):
            FastSoftmax.load(file)

    def test_not_fitted(self, tmp_path):
        with pytest.raises(NotFittedError):
            FastSoftmax().save(tmp_path / "model.npz")
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_coefficients_that_are_not_finite(self, model, value, tmp_path):
        (tmp_path / "model.npz").write_bytes(b"as it was")
        model.coef_[1, 2] = value
        with pytest.raises(ValueError, match="coef_ must be finite"):
            model.save(tmp_path / "model.npz")
        assert (tmp_path / "model.npz").read_bytes() == b"as it was"


class TestFiles:
    def test_the_name_is_taken_as_it_is(self, model, tmp_path):
        model.save(tmp_path / "model.bin")
        assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]
        FastSoftmax.load(tmp_path / "model.bin")

    def test_numpy_reads_it(self, model):
        file = saved(model)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            np.testing.assert_array_equal(arrays["coef"], model.coef_)
            assert __version__.encode() in arrays["header"].tobytes()

    def test_same_model_same_bytes(self, model):
        assert saved(model).getvalue() == saved(copy.deepcopy(model)).getvalue()

    def test_replaced_whole_or_not_at_all(self, model, tmp_path, monkeypatch):
        path = tmp_path / "model.npz"
        model.save(path)
        before = path.read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            model.save(path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]

    def test_a_file_that_may_only_be_read(self, model, tmp_path, monkeypatch):
        """Windows replaces and removes no such file; what is written beside it has its mode."""
        path, unlink = tmp_path / "model.npz", Path.unlink
        model.save(path)
        path.chmod(0o444)

        def denied(*_):
            raise PermissionError(13, "Access is denied")

        def unlink_as_there(self, missing_ok=False):
            if self.exists() and not self.stat().st_mode & stat.S_IWUSR:
                denied()
            unlink(self, missing_ok=missing_ok)

        monkeypatch.setattr(os, "replace", denied)
        monkeypatch.setattr(Path, "unlink", unlink_as_there)
        with pytest.raises(PermissionError, match="Access is denied"):
            model.save(path)
        assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
        path.chmod(0o644)

    @pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
    def test_permissions_and_links_stay(self, model, tmp_path):
        path, link = tmp_path / "model.npz", tmp_path / "link"
        model.save(path)
        (tmp_path / "other").touch()
        assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # the umask's
        path.chmod(0o640)
        link.symlink_to(path)
        model.save(link)
        assert link.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o640

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
    def test_pipes_are_written_to(self, model, tmp_path):
        path = tmp_path / "pipe"
        os.mkfifo(path)
        read = []
        reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
        reader.start()
        model.save(path)
        reader.join(timeout=60)
        assert path.is_fifo()
        again = FastSoftmax.load(io.BytesIO(read[0]))
        np.testing.assert_array_equal(again.coef_, model.coef_)

    def test_no_such_file(self, model, tmp_path):
        with pytest.raises(FileNotFoundError):
            FastSoftmax.load(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError):
            model.save(tmp_path / "nothing" / "model.npz")
        with pytest.raises(IsADirectoryError if os.name == "posix" else OSError):
            model.save(tmp_path)

    @pytest.mark.parametrize(
        "file", [None, 3, io.StringIO(), b"model.npz"], ids=lambda file: type(file).__name__
    )
    def test_no_files(self, model, file):
        with pytest.raises(TypeError, match="file must be"):
            model.save(file)
        with pytest.raises(TypeError, match="file must be"):
            FastSoftmax.load(file)
