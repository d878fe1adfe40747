"""Mistakes of beginners: the error says where the mistake is, and what to do."""

import numpy as np
import pytest
import scipy.sparse as sp

from fastsoftmax import FastSoftmax, FastSoftmaxCV

METHODS = ("predict", "predict_proba", "decision_function")


@pytest.fixture
def data(rng):
    return rng.normal(size=(30, 3)), np.arange(30) % 3


@pytest.fixture
def fitted(data):
    return FastSoftmax(n_jobs=1).fit(*data)


class TestNumbersThatAreNotFinite:
    @pytest.mark.parametrize("value, word", [(np.nan, "NaN"), (np.inf, "infinity")])
    @pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_matrix])
    @pytest.mark.parametrize("real", [np.float64, np.float32, np.float16])
    def test_row_and_column_are_named(self, data, fitted, value, word, form, real):
        """scikit-learn's message is 1,000 characters long, and names neither."""
        X, y = data
        X[17, 2] = X[20, 0] = value
        if real == np.float16 and form in (sp.csr_array, sp.csc_matrix):
            real = np.float32  # scipy has no sparse float16
        X = form(X.astype(real))
        match = rf"^Input X contains {word} in row 17, column 2\. FastSoftmax takes finite"
        with pytest.raises(ValueError, match=match):
            FastSoftmax(n_jobs=1).fit(X, y)
        for method in METHODS:
            with pytest.raises(ValueError, match=match):
                getattr(fitted, method)(X)
        with pytest.raises(ValueError, match="row 17, column 2"):
            fitted.score(X, y)
        with pytest.raises(ValueError, match="row 17, column 2"):
            FastSoftmaxCV(Cs=2, cv=2, n_jobs=1).fit(X, y)

    def test_the_name_of_the_column(self, data):
        pd = pytest.importorskip("pandas")
        X, y = data
        frame = pd.DataFrame(X, columns=["age", "height", "weight"])
        model = FastSoftmax(n_jobs=1).fit(frame, y)
        frame.loc[4, "height"] = None
        for call in (lambda: FastSoftmax().fit(frame, y), lambda: model.predict(frame)):
            with pytest.raises(ValueError, match=r"row 4, column 1 \('height'\)"):
                call()

    def test_columns_of_hashed_text(self):
        """A fit to few of many columns counts all of them."""
        X = sp.csr_array(([1.0, 2.0, 3.0, 4.0], [5, 70_000, 5, 90_000], [0, 1, 2, 3, 4]))
        X.resize(4, 1 << 20)
        model = FastSoftmax(n_jobs=1).fit(X, [0, 1, 0, 1])
        X.data[3] = np.nan
        for call in (lambda: FastSoftmax().fit(X, [0, 1, 0, 1]), lambda: model.predict(X)):
            with pytest.raises(ValueError, match="NaN in row 3, column 90000"):
                call()


class TestText:
    def test_of_a_list(self):
        with pytest.raises(ValueError, match=r"'b'\. X must hold numbers: encode text"):
            FastSoftmax().fit([["1", "b"], ["2", "c"]], [0, 1])

    @pytest.mark.parametrize("library", ["pandas", "polars"])
    def test_of_a_frame(self, library):
        library = pytest.importorskip(library)
        frame = library.DataFrame({"age": [1, 2, 3, 4], "city": ["a", "b", "a", "b"]})
        with pytest.raises(ValueError, match=r"X.*'a' \(column 'city'\).*OneHotEncoder"):
            FastSoftmax().fit(frame, [0, 1, 0, 1])

    def test_of_categories(self):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame({"age": [1, 2], "city": pd.Categorical(["a", "b"])})
        with pytest.raises(ValueError, match=r"\(column 'city'\)"):
            FastSoftmax().fit(frame, [0, 1])


class TestLabels:
    """The repr of a number of numpy, np.int64(0), says nothing to users."""

    @pytest.mark.parametrize("label, shown", [(0, "0"), (1.0, "1.0"), ("a", "'a'"), (True, "True")])
    def test_one_class(self, data, label, shown):
        with pytest.raises(ValueError, match=rf"only one class: {shown}$"):
            FastSoftmax().fit(data[0], np.full(30, label))
        weights = np.r_[np.zeros(29), 1.0]
        y = np.array([label, "b" if isinstance(label, str) else label + 1] * 15)
        shown = "'b'" if shown == "'a'" else repr(y[-1].item())
        with pytest.raises(ValueError, match=rf"leave only one class: {shown}$"):
            FastSoftmax().fit(data[0], y, weights)

    def test_labels_that_the_fit_has_not_seen(self, data, fitted):
        X, y = data
        with pytest.raises(ValueError, match=r"classes: '0'\. It holds strings"):
            fitted.score(X, y.astype(str))
        with pytest.raises(ValueError, match="none of the classes: 7 in row 2"):
            fitted.evaluate(X, np.where(np.arange(30) == 2, 7, y))

    def test_class_weight_of_other_classes(self, data):
        with pytest.raises(ValueError, match=r"\(\[7\]\), and lacks classes that y holds \(\[1, 2"):
            FastSoftmax(class_weight={0: 1.0, 7: 2.0}).fit(*data)


def test_errors_about_arguments_name_the_class():
    """They named the class of the package that has the constructor."""
    with pytest.raises(
        TypeError, match=r"^FastSoftmax\.__init__\(\) got an unexpected .*'penalty'"
    ):
        FastSoftmax(penalty="l2")
    with pytest.raises(TypeError, match=r"^FastSoftmaxCV\.__init__\(\) got an unexpected"):
        FastSoftmaxCV(penalty="l2")


def test_a_pair_in_place_of_a_list_of_pairs(data):
    with pytest.raises(TypeError, match=r"such as \[\(X, y\)\], got ndarray as one of the pairs"):
        FastSoftmax().fit(*data, eval_set=data)
