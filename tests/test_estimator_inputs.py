"""What FastSoftmax reads, leaves alone, and refuses with a clear error."""

import re
import warnings

import numpy as np
import pytest
from sklearn.exceptions import DataConversionWarning, NotFittedError

from fastsoftmax import FastSoftmax

METHODS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]


@pytest.fixture
def data(rng):
    X = rng.integers(0, 100, size=(60, 4)).astype(np.float64)
    y = (X @ rng.normal(size=(4, 3)) + 100.0 * rng.gumbel(size=(60, 3))).argmax(axis=1)
    y[:3] = [0, 1, 2]
    return X, y


@pytest.fixture
def fitted(data):
    return quick().fit(*data)


def quick(**parameters):
    """A cheap fit."""
    return FastSoftmax(**{"n_jobs": 1, "tol": 0.1, **parameters})


# ---- layouts and types


def as_read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


def as_strided(X):
    return np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]


def as_rows_apart(X):
    wide = np.full((len(X), X.shape[1] + 3), 99, dtype=X.dtype)
    wide[:, 1:-2] = X
    return wide[:, 1:-2]


def as_backwards(X):
    return X[::-1].copy()[::-1]


def as_unaligned(X):
    memory = np.zeros(X.nbytes + 1, dtype=np.uint8)
    result = memory[1:].view(X.dtype).reshape(X.shape)
    result[...] = X
    return result


def as_record_field(X):
    """Rows whose distance is no multiple of an element."""
    records = np.zeros(len(X), dtype=[("flag", "u1"), ("x", X.dtype, X.shape[1])])
    records["x"] = X
    return records["x"]


# what is read in place
STORED = ["float64", "float32", "float16", "uint8", "int8"]

LAYOUTS = {
    "read-only": as_read_only,
    "Fortran": np.asfortranarray,
    "strided": as_strided,
    "rows apart": as_rows_apart,
    "backwards": as_backwards,
    "other byte order": lambda X: X.astype(X.dtype.newbyteorder()),
    "unaligned": as_unaligned,
    "record field": as_record_field,
}


class TestLayout:
    @pytest.mark.filterwarnings("ignore:solver='sgd' ended")  # the features are not scaled
    @pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", STORED)
    def test_same_bits_and_X_unchanged(self, data, dtype, layout, solver):
        X, y = data[0].astype(dtype), data[1]
        other = LAYOUTS[layout](X)
        plain = quick(solver=solver, max_iter=100, random_state=0).fit(X, y)
        model = quick(solver=solver, max_iter=100, random_state=0).fit(other, y)
        np.testing.assert_array_equal(other, X)
        assert model.coef_.dtype == plain.coef_.dtype
        np.testing.assert_array_equal(model.coef_, plain.coef_)
        for method in METHODS:
            np.testing.assert_array_equal(getattr(model, method)(other), getattr(plain, method)(X))
        np.testing.assert_array_equal(other, X)

    def test_memmap(self, data, tmp_path, real):
        X, y = data[0].astype(real), data[1]
        np.save(tmp_path / "X.npy", X)
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        model = quick().fit(mapped, y)
        plain = quick().fit(X, y)
        np.testing.assert_array_equal(model.coef_, plain.coef_)
        np.testing.assert_array_equal(model.predict_proba(mapped), plain.predict_proba(X))

    def test_y_and_weights_of_any_stride(self, data):
        X, y = data
        plain = quick().fit(X, y, np.arange(60) % 3 + 1.0)
        y2, weights = np.repeat(y, 2)[::2], np.repeat(np.arange(60) % 3 + 1.0, 2)[::2]
        model = quick().fit(X, y2, weights)
        np.testing.assert_array_equal(model.coef_, plain.coef_)

    @pytest.mark.parametrize(
        ("dtype", "computed"),
        [
            (np.float32, np.float32),
            (np.float64, np.float64),
            (np.float16, np.float32),
            (np.uint8, np.float32),
            (np.int8, np.float32),
            (np.int16, np.float64),
            (np.uint16, np.float64),
            (np.int32, np.float64),
            (np.int64, np.float64),
            (bool, np.float32),
            (np.longdouble, np.float64),
            (object, np.float64),
        ],
    )
    def test_number_types(self, rng, dtype, computed):
        X = rng.integers(0, 2 if dtype is bool else 100, size=(60, 4)).astype(dtype)
        y = np.arange(60) % 3
        before = X.copy()
        model = quick().fit(X, y)
        assert model.coef_.dtype == model.intercept_.dtype == computed
        assert model.predict_proba(X).dtype == computed
        np.testing.assert_array_equal(X, before)
        plain = quick().fit(X.astype(computed), y)
        np.testing.assert_array_equal(model.coef_, plain.coef_)
        np.testing.assert_array_equal(model.predict(X), plain.predict(X.astype(computed)))

    def test_prediction_in_the_finer_of_two_types(self, data):
        X, y = data
        for trained, asked, expected in (
            (np.float64, np.float32, np.float64),
            (np.float32, np.float64, np.float64),
            (np.float32, np.uint8, np.float32),
            (np.uint8, np.uint8, np.float32),
        ):
            model = quick().fit(X.astype(trained), y)
            probs = model.predict_proba(X.astype(asked))
            assert probs.dtype == expected
            exact = model.predict_proba(X.astype(asked).astype(np.float64))
            np.testing.assert_allclose(probs, exact, atol=1e-5)

    @pytest.mark.parametrize("n_rows", [0, 1])
    @pytest.mark.parametrize("method", METHODS)
    def test_few_rows_to_predict(self, data, fitted, method, n_rows):
        X, _ = data
        if n_rows == 0:
            with pytest.raises(ValueError, match="0 sample"):
                getattr(fitted, method)(X[:0])
        else:
            np.testing.assert_array_equal(
                getattr(fitted, method)(X[:1])[0], getattr(fitted, method)(X)[0]
            )

    def test_one_feature_one_row_of_each_class(self):
        model = FastSoftmax(n_jobs=1).fit([[0.0], [1.0]], ["a", "b"])
        assert model.coef_.shape == (1, 1)
        assert model.predict([[-1.0], [2.0]]).tolist() == ["a", "b"]

    def test_constant_features(self):
        X = np.full((30, 3), 7.0)
        y = np.arange(30) % 3
        model = FastSoftmax(n_jobs=1).fit(X, y)
        np.testing.assert_allclose(model.predict_proba(X), 1 / 3, rtol=1e-12)
        assert not FastSoftmax(n_jobs=1).fit(np.zeros((30, 3)), y).coef_.any()

    def test_column_vector(self, data):
        X, y = data
        with pytest.warns(DataConversionWarning):
            model = quick().fit(X, y[:, np.newaxis])
        np.testing.assert_array_equal(model.coef_, quick().fit(X, y).coef_)


class TestPrediction:
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_logits_of_1e4(self, n_classes, real):
        X = np.eye(n_classes, dtype=real).repeat(3, axis=0)
        model = quick().fit(X, np.arange(n_classes).repeat(3))
        model.coef_ = (1e4 * np.eye(n_classes)[-len(model.coef_) :]).astype(real)
        log_probs = model.predict_log_proba(X)
        assert np.isfinite(log_probs).all()
        assert log_probs.min() < -9e3
        np.testing.assert_allclose(np.exp(log_probs), model.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0, rtol=1e-6)

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_the_first_of_equal_classes(self, n_classes):
        X = np.eye(n_classes).repeat(2, axis=0)
        model = quick().fit(X, np.arange(n_classes).repeat(2))
        model.coef_[...] = 0.0
        model.intercept_[...] = 0.0
        assert (model.predict(X) == 0).all()

    def test_methods_agree(self, data, fitted):
        X, y = data
        logits = fitted.decision_function(X)
        np.testing.assert_allclose(logits, X @ fitted.coef_.T + fitted.intercept_, rtol=1e-12)
        probs = fitted.predict_proba(X)
        np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=1e-14)
        np.testing.assert_allclose(np.log(probs), fitted.predict_log_proba(X), rtol=1e-12)
        np.testing.assert_array_equal(fitted.predict(X), probs.argmax(axis=1))
        assert fitted.score(X, y) == np.mean(fitted.predict(X) == y)

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_a_row_does_not_depend_on_the_others(self, rng, n_classes, real):
        X = rng.normal(size=(70, 9)).astype(real)
        model = quick().fit(X, np.arange(70) % n_classes)
        together = model.predict_proba(X)
        for i in (0, 1, 33, 69):
            np.testing.assert_array_equal(model.predict_proba(X[i : i + 1])[0], together[i])


# ---- errors

WRONG_X = {
    "NaN": (lambda X: np.where(X[3, 2] == X, np.nan, X), ValueError, "NaN"),
    "inf": (lambda X: np.where(X[3, 2] == X, np.inf, X), ValueError, "infinity"),
    "strings": (lambda X: X.astype(str) + "x", ValueError, "string"),
    "objects": (lambda X: np.full(X.shape, object()), TypeError, "argument must be"),
    "object strings": (lambda X: np.full(X.shape, "x", dtype=object), ValueError, "string"),
    "complex": (lambda X: X + 1j, ValueError, "[Cc]omplex"),
    "1-D": (lambda X: X[:, 0], ValueError, "2D"),
    "3-D": (lambda X: X[:, :, np.newaxis], ValueError, "dim 3"),
    "scalar": (lambda X: 3.0, ValueError, "scalar|2D"),
    "None": (lambda X: None, ValueError, "2D|None|NoneType"),
    "no rows": (lambda X: X[:0], ValueError, "0 sample"),
    "no features": (lambda X: X[:, :0], ValueError, "0 feature"),
    "ragged": (lambda X: [[1.0, 2.0], [3.0]], ValueError, "inhomogeneous|sequence"),
}  # fmt: skip

WRONG_Y = {
    "one class": (lambda y: np.zeros_like(y), ValueError, "one class"),
    "NaN": (lambda y: np.where(y == 0, np.nan, y), ValueError, "y lacks a label in row"),
    "inf": (lambda y: np.where(y == 0, np.inf, y), ValueError, "infinity"),
    "None": (lambda y: None, ValueError, "requires y"),
    "None inside": (lambda y: np.where(y == 0, None, y), (TypeError, ValueError), None),
    "fractions": (lambda y: y + 0.5, ValueError, "[Uu]nknown label type"),
    "too long": (lambda y: np.append(y, 0), ValueError, "inconsistent"),
    "too short": (lambda y: y[1:], ValueError, "inconsistent"),
    "two columns": (lambda y: np.column_stack([y, y]), ValueError, "1d|1D"),
    "mixed": (lambda y: np.array([0, "a", 1.5], dtype=object)[y], (TypeError, ValueError), None),
    "empty": (lambda y: y[:0], ValueError, None),
    "ragged": (lambda y: [[1], [2, 3]] * 30, ValueError, None),
}

WRONG_WEIGHTS = {
    "negative": (lambda w: np.where(np.arange(60) == 5, -0.5, w), ValueError),
    "NaN": (lambda w: np.where(np.arange(60) == 5, np.nan, w), ValueError),
    "inf": (lambda w: np.where(np.arange(60) == 5, np.inf, w), ValueError),
    "all zero": (np.zeros_like, ValueError),
    "too long": (lambda w: np.append(w, 1.0), ValueError),
    "too short": (lambda w: w[1:], ValueError),
    "two columns": (lambda w: np.column_stack([w, w]), ValueError),
    "strings": (lambda w: np.array(["x"] * 60), ValueError),
    "objects": (lambda w: np.full(60, object()), TypeError),
    "empty": (lambda w: w[:0], ValueError),
    "sum too large": (lambda w: np.full(60, 1.7e308), ValueError),
}

WRONG_PARAMETERS = {
    "C": [0.0, -1.0, np.nan, "1", None],
    "fit_intercept": ["yes", None, 2],
    "class_weight": ["equal", 3, {7: 1.0}, {0: -1.0}, {0: np.nan}, {0: np.inf}, {0: "x"}],
    "solver": ["newton", None, 3],
    "tol": [-1e-3, np.nan, None, "1"],
    "max_iter": [-1, 1.5, None],
    "batch_size": [0, 2.5, None],
    "learning_rate": [0.0, -1.0, np.nan, np.inf, "constant"],
    "momentum": [-0.1, 1.0, np.nan, None],
    "warm_start": ["no", None],
    "random_state": ["seed", -1],
    "n_jobs": [0, 1.5, "all"],
    "verbose": [-1, "yes", None],
    "backend": ["cuda", None, 1],
}


class TestErrors:
    @pytest.mark.parametrize("what", WRONG_X)
    def test_fit_X(self, data, what):
        spoil, error, match = WRONG_X[what]
        with pytest.raises(error, match=match):
            quick().fit(spoil(data[0]), data[1])

    @pytest.mark.parametrize("what", [name for name in WRONG_X if name != "no features"])
    @pytest.mark.parametrize("method", METHODS)
    def test_predict_X(self, data, fitted, what, method):
        spoil, error, match = WRONG_X[what]
        with pytest.raises(error, match=match):
            getattr(fitted, method)(spoil(data[0]))

    @pytest.mark.parametrize("method", METHODS)
    def test_another_number_of_features(self, data, fitted, method):
        with pytest.raises(ValueError, match=r"3 features.*4 features"):
            getattr(fitted, method)(data[0][:, :3])

    @pytest.mark.parametrize("what", WRONG_Y)
    def test_y(self, data, what):
        spoil, error, match = WRONG_Y[what]
        with pytest.raises(error, match=match):
            quick().fit(data[0], spoil(data[1]))

    @pytest.mark.parametrize("what", WRONG_WEIGHTS)
    def test_sample_weight(self, data, what):
        spoil, error = WRONG_WEIGHTS[what]
        with pytest.raises(error) as caught:
            quick().fit(*data, sample_weight=spoil(np.ones(60)))
        if what not in ("strings", "objects", "empty"):
            assert "weight" in str(caught.value).lower()

    def test_weights_that_leave_one_class(self, data):
        X, y = data
        with pytest.raises(ValueError, match="class"):
            quick().fit(X, y, (y == 1).astype(float))

    @pytest.mark.parametrize(
        ("name", "value"), [(name, v) for name, values in WRONG_PARAMETERS.items() for v in values]
    )
    def test_parameters(self, data, name, value):
        with pytest.raises((ValueError, TypeError), match=name):
            quick(solver="sgd").set_params(**{name: value}).fit(*data)

    def test_a_parameter_equal_to_a_valid_one(self, data):
        """What was found valid is not checked again, but 1 is not True."""
        model = quick(fit_intercept=True, verbose=0).fit(*data)
        for wrong in (1, 1.0):
            with pytest.raises(ValueError, match="fit_intercept"):
                model.set_params(fit_intercept=wrong).fit(*data)
        model.set_params(fit_intercept=np.True_).fit(*data)

    @pytest.mark.parametrize("solver", ["newton-cg", "sag", "saga", "liblinear"])
    def test_solvers_of_scikit_learn(self, data, solver):
        with pytest.raises(ValueError, match=rf"'auto' in place of .*'{solver}'"):
            quick(solver=solver).fit(*data)

    def test_X_too_large_for_float32(self, data):
        X = data[0].astype(np.float32) * np.float32(1e36)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model = quick(max_iter=50).fit(X, data[1])
            except ValueError as error:
                assert "X" in str(error)
            else:
                assert np.isfinite(model.coef_).all()

    @pytest.mark.parametrize("method", [*METHODS, "score"])
    def test_not_fitted(self, data, method):
        with pytest.raises(NotFittedError, match="not fitted"):
            getattr(FastSoftmax(), method)(*(data if method == "score" else data[:1]))

    def test_a_refused_fit_leaves_the_last_one(self, data, fitted):
        before = fitted.predict_proba(data[0])
        with pytest.raises(ValueError, match="weight"):
            fitted.fit(*data, sample_weight=-np.ones(60))
        np.testing.assert_array_equal(fitted.predict_proba(data[0]), before)


TAMPERED = {
    "coef_ with too few features": ("coef_", lambda m: m.coef_[:, :3]),
    "coef_ with too few classes": ("coef_", lambda m: m.coef_[:2]),
    "coef_ with too many classes": ("coef_", lambda m: np.zeros((300, 4))),
    "coef_ 1-D": ("coef_", lambda m: m.coef_[0]),
    "coef_ 3-D": ("coef_", lambda m: m.coef_[np.newaxis]),
    "coef_ empty": ("coef_", lambda m: m.coef_[:0]),
    "coef_ None": ("coef_", lambda m: None),
    "intercept_ too short": ("intercept_", lambda m: m.intercept_[:2]),
    "intercept_ too long": ("intercept_", lambda m: np.zeros(4)),
    "intercept_ scalar": ("intercept_", lambda m: 0.0),
    "classes_ too many": ("classes_", lambda m: np.arange(9)),
    "classes_ too few": ("classes_", lambda m: m.classes_[:2]),
    "classes_ empty": ("classes_", lambda m: m.classes_[:0]),
}


@pytest.mark.parametrize("what", TAMPERED)
@pytest.mark.parametrize("method", METHODS)
def test_damaged_model(data, fitted, what, method):
    name, spoil = TAMPERED[what]
    setattr(fitted, name, spoil(fitted))
    with pytest.raises((ValueError, TypeError), match=re.compile("coef_|intercept_|classes_")):
        getattr(fitted, method)(data[0])
