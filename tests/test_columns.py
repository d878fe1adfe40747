"""Matrices of some columns, and the files of models whose coefficients are mostly 0."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from scipy import sparse
from sparse_rows import random_array

from fastsoftmax import FastSoftmax
from fastsoftmax.columns import InColumns, compacted, filled_columns, in_columns, some_columns

N_COLUMNS = 1 << 16


@pytest.fixture
def rows(rng, real):
    """Rows of three classes, in which few of many columns have entries."""
    X = random_array((120, 60), density=0.1, format="csr", rng=rng)
    y = np.arange(120) % 3
    columns = np.sort(rng.choice(N_COLUMNS, 60, replace=False)).astype(np.int32)
    indices = columns[X.indices]
    X = sparse.csr_array((X.data, indices, X.indptr), shape=(120, N_COLUMNS))
    return X.astype(real), y


def saved(model):
    file = io.BytesIO()
    model.save(file)
    return file


class TestColumns:
    def test_filled_columns(self):
        X = sparse.csr_array(([1.0, 0.0, 2.0], ([0, 1, 1], [2000, 5, 5])), shape=(2, 4096))
        np.testing.assert_array_equal(filled_columns(X), [5, 2000])
        beside = InColumns(np.array([7]), np.ones((1, 1)), 4096)
        np.testing.assert_array_equal(filled_columns(X, beside), [5, 7, 2000])
        coef = np.zeros((2, 4096))
        coef[1, 9] = np.nan
        np.testing.assert_array_equal(filled_columns(X, coef, beside), [5, 7, 9, 2000])
        np.testing.assert_array_equal(filled_columns(X, sparse.csc_array(coef)), [5, 9, 2000])
        assert filled_columns(X.toarray()) is None
        assert filled_columns(X[:, :64]) is None
        assert filled_columns(sparse.csr_array(np.ones((1, 4096)))) is None

    @pytest.mark.parametrize("n_rows", [1, 500])
    def test_some_columns(self, rng, n_rows):
        X = random_array((n_rows, 2000), density=0.005, format="csr", rng=rng)
        none = np.empty(0, dtype=np.intp)
        for columns in (np.unique(X.indices), np.arange(0, 2000, 3), np.array([1999]), none):
            part = some_columns(X, columns, X.dtype)
            np.testing.assert_array_equal(part.toarray(), X.toarray()[:, columns])
        assert np.shares_memory(some_columns(X, np.unique(X.indices), X.dtype).data, X.data)

    def test_every_form_of_a_matrix(self, rng):
        whole = np.zeros((3, 500))
        columns = np.array([2, 3, 99, 499])
        whole[:, columns] = rng.normal(size=(3, 4))
        asked = np.array([0, 3, 99, 100, 498, 499])
        for matrix in (InColumns(columns, whole[:, columns], 500), sparse.csr_array(whole), whole):
            np.testing.assert_array_equal(in_columns(matrix, asked), whole[:, asked])
            np.testing.assert_array_equal(in_columns(matrix, None), whole)

    def test_compacted(self):
        whole = np.zeros((3, 5000))
        whole[1, [4, 17]] = -0.0, 2.0
        found = compacted(whole)
        np.testing.assert_array_equal(found.columns, [4, 17])
        assert found.toarray().tobytes() == whole.tobytes()
        full = np.ones((3, 5000))
        assert compacted(full) is full


class TestFiles:
    def test_of_a_sparsified_model(self, rows):
        X, y = rows
        model = FastSoftmax(l1_ratio=1.0).fit(X, y).sparsify()
        file = saved(model)
        assert file.tell() < 3000 + 12 * model.coef_.nnz
        again = FastSoftmax.load(file)
        assert sparse.issparse(again.coef_)
        np.testing.assert_array_equal(again.coef_.toarray(), model.coef_.toarray())
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))

    def test_of_a_model_that_is_all_zeros(self, rows):
        X, y = rows
        model = FastSoftmax(l1_ratio=1.0, C=1e-6).fit(X, y)
        for each in (model, pickle.loads(pickle.dumps(model)).sparsify()):
            again = FastSoftmax.load(saved(each))
            assert again.coef_.shape == (3, N_COLUMNS)
            np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))

    @pytest.mark.parametrize("whole", [False, True])
    def test_of_mostly_zeros_to_the_bit(self, rows, real, whole):
        X, y = rows
        model = FastSoftmax().fit(X, y)
        if whole:
            filled = np.unique(X.indices)
            model.coef_[0, filled[:2]] = -0.0
            model.coef_[1:, filled[0]] = 0.0
        file = saved(model)
        assert file.tell() < 5000
        again = FastSoftmax.load(file)
        assert isinstance(again.coef_, np.ndarray) and again.coef_.dtype == real
        assert again.coef_.tobytes() == model.coef_.tobytes()

    @pytest.mark.parametrize("n_columns", [20, 5000])
    def test_others_are_of_the_first_format(self, rng, n_columns):
        """Earlier versions read them."""
        X = rng.normal(size=(30, n_columns))
        file = saved(FastSoftmax().fit(X, np.arange(30) % 3))
        file.seek(0)
        assert sorted(np.load(file)) == ["classes", "coef", "header", "intercept"]
        assert b'"format_version": 1,' in file.getvalue()

    def test_pickles(self, rows):
        X, y = rows
        model = FastSoftmax().fit(X, y)
        data = pickle.dumps(model)
        assert len(data) < 10_000
        again = pickle.loads(data)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(again.coef_, model.coef_)

    def test_skops_trusts_what_is_pickled(self, rows):
        skops = pytest.importorskip("skops.io")
        data = skops.dumps(FastSoftmax(solver="sgd", momentum=0.5).partial_fit(*rows, range(3)))
        assert skops.get_untrusted_types(data=data) == ["fastsoftmax.estimator.FastSoftmax"]


class TestDamagedFiles:
    """Places of coefficients are checked before they are used."""

    @pytest.fixture(params=["compact", "sparsified"])
    def members(self, request, rng):
        X = sparse.csr_array(([1.0, 2.0, 3.0], ([0, 1, 2], [5, 77, 4000])), shape=(3, 5000))
        model = FastSoftmax(momentum=0.5, random_state=0).partial_fit(X, range(3), range(3))
        if request.param == "sparsified":
            model.sparsify()
        with zipfile.ZipFile(saved(model)) as archive:
            return {name: np.load(io.BytesIO(archive.read(name))) for name in archive.namelist()}

    def load(self, members):
        file = io.BytesIO()
        np.savez(file, **{name.removesuffix(".npy"): array for name, array in members.items()})
        return FastSoftmax.load(file)

    def refused(self, members, message):
        with pytest.raises(ValueError, match=f"is no model.*{message}"):
            self.load(members)

    def test_what_these_tests_make_is_otherwise_sound(self, members):
        assert self.load(members).coef_.shape == (3, 5000)

    @pytest.mark.parametrize("name", ["columns.npy", "velocity_columns.npy"])
    def test_columns(self, members, name):
        columns = members[name]
        first, last = columns.copy(), columns.copy()
        first[0], last[-1] = -1, 5000
        around = np.resize(np.array([2**31 - 1, -(2**31), -1], dtype=np.int32), len(columns))
        for wrong in (first, last, around, columns[::-1], columns[:-1], columns.astype(np.int64)):
            self.refused(members | {name: wrong}, "columns|velocity|row_starts")

    def test_a_repeated_column(self, members):
        columns = members["columns.npy"].copy()
        columns[1] = columns[0]
        self.refused(members | {"columns.npy": columns}, "columns must ascend")

    @pytest.mark.parametrize("starts", [[0, 3, 2, 9], [1, 3, 6, 9], [0, 3, 6, 8], [0, 9], [-1, 9]])
    def test_row_starts(self, members, starts):
        members["row_starts.npy"] = np.array(starts)
        self.refused(members, "row_starts|coef|columns")

    def test_row_starts_without_columns(self, members):
        members["row_starts.npy"] = np.array([0, 3, 6, 9])
        del members["columns.npy"]
        self.refused(members, "coef|row_starts")

    def test_the_first_format_has_no_places(self, members):
        header = json.loads(members["header.npy"].tobytes())
        assert header["format_version"] == 2
        header["format_version"] = 1
        members["header.npy"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        self.refused(members, "format 1 has no")

    def test_too_many_features(self, members):
        header = json.loads(members["header.npy"].tobytes())
        header["n_features_in"] = 2**40
        members["header.npy"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        self.refused(members, "columns must ascend")
