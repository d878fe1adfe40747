"""Models that travel: pickles that name their version, skops, and save and load of model files."""

import copy
import io
import os
import pickle
import threading
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastsoftmax import FastSoftmax, FastSoftmaxCV, __version__, _interchange
from fastsoftmax.model_selection import FastSoftmaxCV as HomeOfCV

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


@pytest.fixture
def version(monkeypatch):
    """A function that sets the version of this package."""

    def set_version(text):
        monkeypatch.setattr(_interchange, "__version__", text)

    return set_version


class TestPickle:
    @pytest.mark.parametrize("made", ["model", "searched"])
    def test_round_trip_names_the_version(self, request, made, X):
        model = request.getfixturevalue(made)
        assert model.__getstate__()["_fastsoftmax_version"] == __version__
        data = pickle.dumps(model)
        assert __version__.encode() in data
        again = pickle.loads(data)
        assert vars(again).keys() == vars(model).keys()
        assert_same_predictions(again, model, X)

    @pytest.mark.parametrize("made", ["model", "searched"])
    def test_joblib_compressed(self, request, made, X, tmp_path):
        model = request.getfixturevalue(made)
        joblib.dump(model, tmp_path / "model.joblib", compress=3)
        assert_same_predictions(joblib.load(tmp_path / "model.joblib"), model, X)

    @pytest.mark.parametrize(
        ("writer", "reader"),
        [
            ("0.1.0", "0.1.7"),
            ("0.1.7", "0.1.0"),
            ("0.1.0.dev0", "0.1.0"),
            ("1.2.0", "1.10.0"),
            ("1.2.3", "1.2.0rc1"),
        ],
    )
    def test_compatible_versions_are_quiet(self, model, version, writer, reader):
        version(writer)
        data = pickle.dumps(model)
        version(reader)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pickle.loads(data)

    @pytest.mark.parametrize(
        ("writer", "reader"),
        [
            ("0.1.0", "0.2.0"),
            ("0.2.0", "0.1.0"),
            ("0.9.0", "1.0.0"),
            ("1.10.0", "1.2.0"),
            ("1.0.0", "2.0.0"),
            ("what?", "1.0.0"),
        ],
    )
    def test_other_versions_are_warned_of(self, model, X, version, writer, reader):
        version(writer)
        data = pickle.dumps(model)
        version(reader)
        with pytest.warns(UserWarning, match=r"saved by version .* read by") as caught:
            again = pickle.loads(data)
        (warning,) = caught
        assert warning.filename == __file__
        assert repr(writer)[1:-1] in str(warning.message)
        assert reader in str(warning.message)
        assert_same_predictions(again, model, X)
        with warnings.catch_warnings():  # saved again it has the version that saved it
            warnings.simplefilter("error")
            pickle.loads(pickle.dumps(again))

    def test_no_version(self, model):
        with pytest.warns(UserWarning, match="an unnamed version"):
            FastSoftmax().__setstate__(vars(model).copy())

    def test_parameters_that_an_older_version_lacked(self, model, X, version):
        """A new parameter would otherwise be an AttributeError in get_params."""
        version("0.1.0")
        state = model.__getstate__()
        del state["max_time"]
        version("0.1.1")
        again = FastSoftmax(max_time=5.0)
        vars(again).clear()
        again.__setstate__(state)
        assert again.max_time is None
        assert repr(again) == repr(model)
        assert "max_time" not in state

    def test_copies(self, model, X):
        for again in (copy.copy(model), copy.deepcopy(model)):
            assert_same_predictions(again, model, X)
            assert "_fastsoftmax_version" not in vars(again)
        assert clone(model).get_params() == model.get_params()

    @pytest.mark.parametrize("state", [None, 3, [("C", 1.0)], {3: 4}])
    def test_a_state_that_is_none(self, state):
        with pytest.raises(ValueError, match="damaged"):
            FastSoftmax().__setstate__(state)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("coef_", np.zeros((3, 5)), "shapes"),
            ("coef_", np.zeros(4), "shapes"),
            ("coef_", np.zeros((3, 4), dtype=object), "coef_ must be .* dtype object"),
            ("coef_", np.zeros((3, 4), dtype=complex), "coef_ must be .* dtype complex"),
            ("coef_", None, "coef_ must be .* nothing"),
            ("intercept_", np.zeros(2), "shapes"),
            ("intercept_", np.array([None] * 3), "intercept_ must be"),
            ("intercept_", 0.0, "intercept_ must be"),
            ("classes_", np.arange(2), "shapes"),
            ("classes_", np.arange(9), "shapes"),
            ("classes_", np.array(3), "classes_ must have one dimension"),
            ("classes_", None, "classes_ must be an array"),
            ("n_features_in_", 3, "features"),
        ],
    )
    @pytest.mark.parametrize("backend", ["auto", "numpy"])
    def test_damaged_states(self, model, X, name, value, message, backend):
        """None reaches a kernel: each is an error that names what is wrong."""
        again = FastSoftmax()
        again.__setstate__({**model.__getstate__(), name: value, "backend": backend})
        for method in METHODS:
            with pytest.raises(ValueError, match=message):
                getattr(again, method)(X)
        with pytest.raises(ValueError, match=r"classes_|coef_|intercept_"):
            again.to_sklearn()

    @pytest.mark.parametrize("name", ["coef_", "intercept_", "classes_"])
    def test_states_that_lack_something(self, model, X, name):
        state = model.__getstate__()
        del state[name]
        again = FastSoftmax()
        again.__setstate__(state)
        for method in METHODS:
            with pytest.raises(ValueError, match=f"{name} must be .* nothing"):
                getattr(again, method)(X)
        with pytest.raises(NotFittedError):
            again.to_sklearn()


class TestSkops:
    @pytest.mark.parametrize("made", ["model", "searched"])
    def test_round_trip(self, request, made, X):
        io = pytest.importorskip("skops.io")
        model = request.getfixturevalue(made)
        data = io.dumps(model)
        trusted = [f"{type(model).__module__}.{type(model).__qualname__}"]
        assert io.get_untrusted_types(data=data) == trusted
        assert_same_predictions(io.loads(data, trusted=trusted), model, X)

    def test_all_kinds_of_parameters_need_no_more_trust(self, X, y):
        io = pytest.importorskip("skops.io")
        model = FastSoftmax(
            solver="sgd",
            momentum=0.5,
            random_state=np.random.RandomState(0),
            class_weight={0: np.float64(2.0)},
        ).partial_fit(X, y, classes=range(3))
        data = io.dumps(model)
        assert io.get_untrusted_types(data=data) == ["fastsoftmax.estimator.FastSoftmax"]
        again = io.loads(data, trusted=["fastsoftmax.estimator.FastSoftmax"])
        np.testing.assert_array_equal(again.partial_fit(X, y).coef_, model.partial_fit(X, y).coef_)


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
        assert not hasattr(HomeOfCV, "load")

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

    @pytest.mark.parametrize("file", [None, 3, io.StringIO(), b"model.npz"], ids=repr)
    def test_no_files(self, model, file):
        with pytest.raises(TypeError, match="file must be"):
            model.save(file)
        with pytest.raises(TypeError, match="file must be"):
            FastSoftmax.load(file)
