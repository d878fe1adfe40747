"""Rows in CSR form: the kernels against the numpy twin, and what they refuse."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse
from sparse_rows import random_array

from fastsoftmax import reference
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.shards.csr_shard import columns_of
from fastsoftmax.shards.rows import build_shard

# rows, features, classes, share of numbers that are stored
SIZES = [
    (0, 3, 3, 0.5),
    (1, 1, 2, 1.0),
    (70, 9, 5, 0.3),
    (200, 1, 3, 0.5),
    (63, 40, 16, 0.1),
    (64, 40, 17, 0.1),
    (65, 700, 4, 0.01),
    (500, 90, 20, 0.1),
    (130, 50, 97, 0.2),
    (40, 30, 230, 0.2),
]


@pytest.fixture(params=[np.int32, np.int64], ids=["int32", "int64"])
def index(request):
    """The type of indices."""
    return request.param


@pytest.fixture(params=["real", "float32"])
def stored(request, real):
    """The dtype of the values."""
    if request.param == "float32" and real == np.float32:
        pytest.skip("this is 'real'")
    return np.dtype(real if request.param == "real" else request.param)


def make_matrix(rng, n_rows, n_features, share, dtype, index):
    """A CSR matrix with unsorted indices, duplicates, an empty row and an empty column."""
    X = random_array((n_rows, n_features), density=share, rng=rng, format="lil")
    if n_rows > 2 and n_features > 2:
        X[1] = 0
        X[:, 1] = 0
    X = X.tocsr()
    data = rng.normal(size=X.nnz).astype(dtype)
    indices = X.indices.astype(index)
    for begin, end in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        rng.shuffle(indices[begin:end])
        if end - begin > 2:
            indices[begin] = indices[begin + 1]
    return sparse.csr_array((data, indices, X.indptr.astype(index)), shape=X.shape)


class Task:
    """A matrix with weights and targets, and a function of it by a backend."""

    def __init__(self, rng, sizes, real, stored, index, *, one_logit=False, panel_rows=64):
        n, d, K, share = sizes
        self.X = make_matrix(rng, n, d, share, stored, index)
        self.K = 2 if one_logit else K
        self.real = np.dtype(real)
        n_logits = 1 if one_logit else K
        self.W = rng.normal(size=(n_logits, d)).astype(real)
        self.b = rng.normal(size=n_logits).astype(real)
        self.labels = rng.integers(self.K, size=n).astype(np.int32)
        self.row_weights = rng.random(n).astype(real)
        self.order = rng.permutation(n).astype(np.int64)
        self.squared_scale = rng.uniform(0.5, 2.0, d).astype(real)
        self.panel_rows = panel_rows

    def targets(self, module, smoothing=0.1):
        return module.Targets(self.labels, None, self.row_weights, smoothing, self.K)

    def rows(self, module, *, with_columns=True):
        X = self.X
        rows = module.CsrRows(X.data, X.indices, X.indptr, X.shape[1])
        if with_columns:
            rows.set_columns(*columns_of(X, slice(0, X.shape[0]), self.panel_rows))
        return rows

    def logits(self, module, **options):
        out = np.full((self.X.shape[0], len(self.b)), 7, dtype=self.real)
        module.affine_rows(out, self.rows(module, with_columns=False), self.W, self.b, **options)
        return out

    def loss_grad(self, module, *, with_grad=True, with_columns=True, **options):
        grad_W = np.full(self.W.shape, 7.0) if with_grad else None
        grad_b = np.full(self.b.shape, 7.0) if with_grad else None
        sums = module.loss_grad(
            grad_W, grad_b, self.rows(module, with_columns=with_grad and with_columns),
            self.targets(module), self.W, self.b, **options,
        )  # fmt: skip
        return [np.array(sums)] + ([grad_W, grad_b] if with_grad else [])

    def sgd(self, module, momentum, l2, fit_bias, *, scaled=False, center=None, batch=9, **options):
        params = np.concatenate([self.W.ravel(), self.b])
        velocity = np.full_like(params, 0.01) if momentum else None
        scale = self.squared_scale if scaled else None
        descent = Descent(batch, 0.1, momentum, l2, fit_bias, scale, center)
        sums = module.sgd_steps(
            params, velocity, self.rows(module, with_columns=False), self.targets(module),
            self.order, descent, **options,
        )  # fmt: skip
        return [params, np.array(sums)] + ([velocity] if momentum else [])


def assert_close(ours, theirs, real):
    tolerance = 2e-5 if real == np.float32 else 1e-12
    for a, e in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * (1e-2 + np.abs(e).max(initial=0)))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
class TestAgainstTheTwin:
    def test_affine_rows(self, kernels, isa, real, stored, index, sizes, rng):
        task = Task(rng, sizes, real, stored, index)
        assert_close([task.logits(kernels, isa=isa)], [task.logits(reference)], real)

    @pytest.mark.parametrize("panel_rows", [1, 64, 100])
    def test_loss_grad(self, kernels, isa, real, stored, index, sizes, rng, panel_rows):
        for one_logit in (False, True):
            options = {"one_logit": one_logit, "panel_rows": panel_rows}
            task = Task(rng, sizes, real, stored, index, **options)
            expected = task.loss_grad(reference)
            assert_close(task.loss_grad(kernels, isa=isa, n_threads=2), expected, real)
            loss_only = task.loss_grad(kernels, isa=isa, with_grad=False)
            assert_close(loss_only, expected[:1], real)
            if one_logit:
                by_rows = task.loss_grad(kernels, with_columns=False, isa=isa, n_threads=2)
                assert_close(by_rows, expected, real)

    @pytest.mark.parametrize("scaled", [False, True])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("decay", [0.0, 0.05])
    def test_sgd_steps(self, kernels, isa, real, sizes, rng, momentum, decay, scaled):
        for one_logit in (False, True):
            task = Task(rng, sizes, real, real, np.int32, one_logit=one_logit)
            arguments = momentum, decay, not scaled
            ours = task.sgd(kernels, *arguments, scaled=scaled, isa=isa)
            assert_close(ours, task.sgd(reference, *arguments, scaled=scaled), real)


def test_columns_of_many_entries(kernels, isa, real, rng):
    """Their sums go on in double after 512 entries of a panel."""
    for n_rows in (512, 513, 1600):
        task = Task(rng, (n_rows, 3, 4, 1.0), real, real, np.int32, panel_rows=2048)
        assert_close(task.loss_grad(kernels, isa=isa), task.loss_grad(reference), real)


def test_the_twin_is_right(rng):
    """Against the same rows made dense, which other tests hold to account."""
    task = Task(rng, (60, 20, 4, 0.2), np.float64, np.float64, np.int64)
    dense = np.ascontiguousarray(task.X.toarray())
    grad_W, grad_b = np.empty_like(task.W), np.empty_like(task.b)
    sums = reference.loss_grad(grad_W, grad_b, dense, task.targets(reference), task.W, task.b)
    assert_close(task.loss_grad(reference), [np.array(sums), grad_W, grad_b], np.float64)


@pytest.mark.parametrize("one_logit", [False, True])
def test_bits_do_not_depend_on_threads(kernels, real, rng, one_logit):
    """Large enough that rows and columns are cut and shared out."""
    task = Task(rng, (9000, 3000, 20, 0.02), real, real, np.int32, one_logit=one_logit)
    task.panel_rows = kernels.panel_rows(len(task.b), np.dtype(real).itemsize) // 30

    def results(n_threads):
        options = {"n_threads": n_threads}
        return [
            task.logits(kernels, **options),
            *task.loss_grad(kernels, **options),
            *(task.loss_grad(kernels, with_columns=False, **options) if one_logit else ()),
            *task.sgd(kernels, 0.9, 0.01, True, batch=256, **options),
        ]

    expected = results(1)
    for n_threads in (2, 3, 7):
        for a, e in zip(results(n_threads), expected, strict=True):
            np.testing.assert_array_equal(a, e)
    if one_logit:  # rows that add to sixteen gradients
        assert_close(expected[4:7], task.loss_grad(reference), real)


def test_a_row_does_not_depend_on_the_others(kernels, isa, real, rng):
    """Few rows take another way, which leaves the weights where they are."""
    task = Task(rng, (400, 50, 20, 0.3), real, real, np.int32)
    together = task.logits(kernels, isa=isa)
    whole = task.X
    for i in (0, 7, 399):
        task.X = whole[i : i + 1]
        np.testing.assert_array_equal(task.logits(kernels, isa=isa)[0], together[i])


def test_steps_without_a_batch_in_them(kernels, rng):
    """More steps than the table of powers holds."""
    task = Task(rng, (5000, 4, 3, 0.3), np.float64, np.float64, np.int32)
    ours = task.sgd(kernels, 0.9, 0.001, True, batch=1)
    assert_close(ours, task.sgd(reference, 0.9, 0.001, True, batch=1), np.float64)


class TestErrors:
    @pytest.fixture
    def parts(self):
        return [np.ones(3), np.array([0, 2, 1], np.int32), np.array([0, 2, 3], np.int32), 3]

    @pytest.mark.parametrize("bad", [-1, 3, 2**31 - 1])
    def test_indices(self, kernels, parts, bad):
        parts[1][1] = bad
        with pytest.raises(ValueError, match="indices"):
            kernels.CsrRows(*parts)

    @pytest.mark.parametrize(
        "bad", [[0, 2, 4], [-1, 2, 3], [0, 3, 2], [1, 0, 3], [0, 2**31 - 1, 3]]
    )
    def test_indptr(self, kernels, parts, bad):
        parts[2][:] = bad
        with pytest.raises(ValueError, match="indptr"):
            kernels.CsrRows(*parts)

    def test_wide_indices(self, kernels, parts):
        parts[1], parts[2] = parts[1].astype(np.int64), parts[2].astype(np.int64)
        parts[1][0] = 2**32  # 0 in its low half
        with pytest.raises(ValueError, match="indices"):
            kernels.CsrRows(*parts)

    def test_types(self, kernels, parts):
        for i, wrong in ((0, np.ones(3, np.int32)), (1, np.zeros(3)), (2, np.zeros(3, np.int64))):
            given = [*parts]
            given[i] = wrong
            with pytest.raises(TypeError):
                kernels.CsrRows(*given)

    def test_float64_values_for_float32(self, kernels, parts):
        rows = kernels.CsrRows(*parts)
        with pytest.raises(ValueError, match="float64"):
            kernels.affine_rows(
                np.empty((2, 2), np.float32), rows, np.ones((2, 3), np.float32),
                np.ones(2, np.float32),
            )  # fmt: skip

    def test_gradient_without_columns(self, kernels, rng):
        task = Task(rng, (5, 4, 3, 0.5), np.float64, np.float64, np.int32)
        with pytest.raises(ValueError, match="set_columns"):
            kernels.loss_grad(
                np.empty((3, 4)), np.empty(3), task.rows(kernels, with_columns=False),
                task.targets(kernels), task.W, task.b,
            )  # fmt: skip

    @pytest.mark.parametrize("part", range(6))
    @pytest.mark.parametrize("change", ["last", "first", "length"])
    def test_columns(self, kernels, rng, part, change):
        X = make_matrix(rng, 20, 10, 0.3, np.float64, np.int32)
        rows = kernels.CsrRows(X.data, X.indices, X.indptr, 10)
        columns = list(columns_of(X, slice(0, 20), 7))
        if part == 0:
            columns[0] = {"last": 0, "first": -1, "length": 3}[change]
        elif change == "length":
            columns[part] = columns[part][:-1].copy()
        elif part == 5:
            pytest.skip("any value will do")
        else:
            columns[part][0 if change == "first" else -1] += 1000
        with pytest.raises(ValueError):
            rows.set_columns(*columns)

    def test_columns_are_set_once(self, kernels, rng):
        X = make_matrix(rng, 20, 10, 0.3, np.float64, np.int32)
        rows = kernels.CsrRows(X.data, X.indices, X.indptr, 10)
        rows.set_columns(*columns_of(X, slice(0, 20), 7))
        with pytest.raises(ValueError, match="already"):
            rows.set_columns(*columns_of(X, slice(0, 20), 7))

    def test_columns_are_set_once_by_threads(self, kernels, rng):
        """They check without the GIL; a pass may then read the columns of the first."""
        X = make_matrix(rng, 4000, 500, 0.5, np.float64, np.int32)
        rows = kernels.CsrRows(X.data, X.indices, X.indptr, 500)
        columns = columns_of(X, slice(0, 4000), 640)
        barrier = threading.Barrier(4)

        def is_first(_):
            barrier.wait(60)
            try:
                rows.set_columns(*columns)
            except ValueError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(is_first, range(4))) == 1

    def test_velocity_without_momentum(self, kernels, rng):
        task = Task(rng, (5, 4, 3, 0.5), np.float64, np.float64, np.int32)
        velocity, params = np.ones(15), np.zeros(15)
        order = np.arange(5)
        found = []
        for X in (task.rows(kernels), task.X.toarray()):
            velocity[:], params[:] = 1, 0
            descent = Descent(1, 0.1, 0.0, 0.0, True)
            kernels.sgd_steps(params, velocity, X, task.targets(kernels, 0.0), order, descent)
            found.append(velocity.copy())
        np.testing.assert_allclose(found[0], found[1], rtol=1e-12, atol=1e-15)

    def test_columns_of_one_feature(self, kernels, rng):
        """Two threads would add to the same gradient."""
        X = make_matrix(rng, 20, 10, 0.3, np.float64, np.int32)
        rows = kernels.CsrRows(X.data, X.indices, X.indptr, 10)
        columns = columns_of(X, slice(0, 20), 20)
        columns[3][1] = columns[3][0]
        with pytest.raises(ValueError, match="features"):
            rows.set_columns(*columns)

    def test_center_is_for_dense(self, kernels, rng):
        task = Task(rng, (5, 4, 3, 0.5), np.float64, np.float64, np.int32)
        with pytest.raises(ValueError, match="center"):
            task.sgd(kernels, 0.0, 0.0, True, scaled=True, center=np.zeros(4))


class TestShard:
    def shard(self, X, **options):
        n = X.shape[0]
        labels = (np.arange(n) % 3).astype(np.int32)
        weights = np.linspace(0.5, 1.5, n)
        return build_shard(X, labels, None, weights, 3, backend=reference, **options)

    def test_moments(self, rng):
        X = make_matrix(rng, 50, 8, 0.4, np.float64, np.int32)
        dense, shard = X.toarray(), self.shard(X)
        weights, center = shard.row_weights, rng.normal(size=8)
        np.testing.assert_allclose(shard.feature_sums(), weights @ dense)
        np.testing.assert_allclose(shard.squares(center), weights @ (dense - center) ** 2)
        assert not X.has_canonical_format  # what was given is as it was

    def test_squares_of_a_far_column(self):
        X = sparse.csr_array(1e8 + np.arange(20.0)[:, np.newaxis] % 2)
        shard = self.shard(X)
        center = shard.feature_sums() / shard.row_weights.sum()
        expected = shard.row_weights @ (X.toarray() - center) ** 2
        np.testing.assert_allclose(shard.squares(center), expected, rtol=1e-6)

    def test_parts_of_the_rows(self, rng, monkeypatch):
        """A pass is cut into calls, each of which needs the columns of its own rows."""
        X = make_matrix(rng, 5000, 8, 0.4, np.float64, np.int32)
        W, b = rng.normal(size=(3, 8)), rng.normal(size=3)
        whole = self.shard(X).loss_grad(W, b)
        monkeypatch.setattr("fastsoftmax.shards.shard._WORK_PER_CALL", 1)
        parts = self.shard(X).loss_grad(W, b)
        assert_close(parts, whole, np.float64)
