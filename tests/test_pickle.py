"""Pickles, joblib and skops: the same predictions, the version named, damage told."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastsoftmax import FastSoftmax, FastSoftmaxCV, __version__
from fastsoftmax._estimator import fitted as fitted_model

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


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


def assert_same_predictions(one, other, X):
    for method in METHODS:
        ours, theirs = getattr(one, method)(X), getattr(other, method)(X)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def version(monkeypatch):
    """A function that sets the version of this package."""

    def set_version(text):
        monkeypatch.setattr(fitted_model, "__version__", text)

    return set_version


def test_buffers_that_are_not_aligned(model, X):
    """As messages between the processes of a cluster have them."""
    buffers = []
    packed = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    odd = [memoryview(b"." + bytes(buffer.raw()))[1:] for buffer in buffers]
    other = pickle.loads(packed, buffers=odd)
    assert not other.coef_.flags.aligned
    assert_same_predictions(model, other, X)


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
