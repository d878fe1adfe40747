"""Full-batch fits to rows that are read in every pass: batches, files, maps."""

import os
import pickle
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
from rows_in_parts import PARTS, D, K, N, cut, form_of, made_rows
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sparse_rows import random_array

from fastsoftmax import FastSoftmax
from fastsoftmax._streaming import sample, streamed
from fastsoftmax.backend import resolve_backend
from fastsoftmax.data_sources import NpyFiles
from fastsoftmax.data_sources.files import Seen
from fastsoftmax.datasets import iter_batches
from fastsoftmax.shards import protocol
from fastsoftmax.shards.rows import build_shard
from fastsoftmax.threads import read_ahead

STORAGES = [np.float64, np.float32, np.float16, np.uint8, np.int8]


@pytest.fixture(params=[*STORAGES, "csr"], ids=lambda s: getattr(s, "__name__", s))
def form(request):
    return form_of(request.param)


@pytest.fixture
def rows(rng):
    return made_rows(rng)


def fitted(*args, **parameters):
    options = {key: parameters.pop(key) for key in ("classes", "eval_set") if key in parameters}
    return FastSoftmax(**{"tol": 1e-6, "n_jobs": 1, **parameters}).fit(*args, **options)


def same(a, b):
    for name in ("coef_", "intercept_", "gap_", "objective_", "n_iter_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def near(model, other, rtol=1e-3):
    """Both are certified optima of the same objective."""
    assert model.converged_ and other.converged_
    assert model.classes_.tolist() == other.classes_.tolist()
    assert model.objective_ == pytest.approx(other.objective_, rel=2e-6)
    size = np.abs(other.coef_).max()
    np.testing.assert_allclose(model.coef_, other.coef_, atol=5 * rtol * size)


@pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton-cholesky"])
@pytest.mark.parametrize("weighted", [False, True])
def test_fits_are_those_of_the_whole(rows, form, solver, weighted):
    X, y, weights = rows
    arrays = (form(X), y, weights)[: 2 + weighted]
    scale = {"input_scale": 1 / 60} if arrays[0].dtype.kind in "ui" else {}
    model = fitted(cut(*arrays), solver=solver, **scale)
    near(model, fitted(*arrays, solver=solver, **scale))


@pytest.mark.parametrize(
    "options",
    [
        {"standardize": True},
        {"standardize": True, "fit_intercept": False},
        {"class_weight": "balanced"},
        {"class_weight": {0: 3.0}, "label_smoothing": 0.1},
        {"fit_intercept": False, "C": 0.01},
    ],
    ids=lambda options: ", ".join(options),
)
@pytest.mark.parametrize("soft", [False, True])
def test_parameters(rows, options, soft, rng):
    X, y, weights = rows
    if soft:
        y = 0.8 * np.eye(K)[y] + 0.2 * rng.dirichlet(np.ones(K), N)
    given = {"solver": "lbfgs", **options}
    near(fitted(cut(X, y, weights), **given), fitted(X, y, weights, **given))


@pytest.mark.parametrize("most", [0, 1 << 27], ids=["read again", "held"])
def test_elastic_nets(rows, form, most, monkeypatch):
    monkeypatch.setattr(streamed, "_MOST_HELD", most)
    X, y, _ = rows
    X = np.vstack([X.T, X.T**2, np.cos(X.T)]).T if form(X).dtype == np.float64 else X
    options = {"l1_ratio": 0.7, "C": 0.1, "tol": 1e-5, "standardize": True}
    model, whole = fitted(cut(form(X), y), **options), fitted(form(X), y, **options)
    assert model.converged_ and model.objective_ == pytest.approx(whole.objective_, rel=2e-5)
    assert (model.coef_ != 0).sum() == pytest.approx((whole.coef_ != 0).sum(), abs=3)


def test_two_classes_and_strings(rows):
    X, y, _ = rows
    names = np.array(["no", "yes"])[(y > 0).astype(int)]
    model = fitted(cut(X, names))
    near(model, fitted(X, names))
    assert model.classes_.tolist() == ["no", "yes"]
    near(fitted(cut(X, names), classes=["yes", "no"]), model)


def test_sparse_columns_without_entries(rng):
    X = random_array((300, 3000), density=0.002, rng=rng, format="csr")
    y = np.arange(300) % 3
    parts = [(X[:100], y[:100]), (X[100:], y[100:])]
    near(fitted(parts, solver="lbfgs"), fitted(X, y, solver="lbfgs"))


class TestForms:
    """The same shards give the same bits, wherever they come from."""

    def test_batches(self, rows):
        X, y, weights = rows
        batches = cut(X, y, weights)
        expected = fitted(batches, solver="lbfgs")

        class Loader:
            def __iter__(self):
                return iter(batches)

        for given in (tuple(batches), lambda: iter(batches), lambda: batches, Loader()):
            same(fitted(given, solver="lbfgs"), expected)
        same(fitted(batches, solver="lbfgs", n_jobs=3), expected)

    @pytest.mark.parametrize("dtype", STORAGES, ids=lambda dtype: dtype.__name__)
    def test_files(self, rows, tmp_path, dtype):
        X, y, weights = rows
        X = (20 * X + 60).astype(dtype) if np.dtype(dtype).kind != "f" else X.astype(dtype)
        paths = []
        for i, part in enumerate(PARTS):
            paths.append(tmp_path / f"{i}.npy")
            np.save(paths[-1], X[part])
            np.save(tmp_path / f"y{i}.npy", y[part])
            np.save(tmp_path / f"w{i}.npy", weights[part])
        options = {"solver": "lbfgs", "standardize": True, "tol": 1e-3}
        expected = fitted(cut(X, y, weights), **options)
        ys, ws = ([tmp_path / f"{name}{i}.npy" for i in range(3)] for name in "yw")
        maps = [np.load(path, mmap_mode="r") for path in paths]
        for arguments in (
            (paths, y, weights),
            ([str(path) for path in paths], ys, ws),
            (maps, [y[part] for part in PARTS], list(map(np.load, ws))),
            ([X[part] for part in PARTS], y.tolist(), weights),
            ([paths[0], maps[1], X[PARTS[2]]], y, weights),
        ):
            same(fitted(*arguments, **options), expected)
        source = NpyFiles(paths, y, weights, block_bytes=40 * X[:1].nbytes)
        assert len(source) == 4 + 1 + 7
        blocks = fitted(source, **options)
        assert blocks.objective_ == pytest.approx(expected.objective_, rel=1e-3)
        by_steps = fitted(source, solver="sgd", max_iter=2, learning_rate=1e-4)
        assert by_steps.history_["loss"][1] > 0.0

    def test_a_folder(self, rows, tmp_path):
        X, y, _ = rows
        for i, part in enumerate(PARTS):
            np.save(tmp_path / f"{i}.npy", X[part])
        expected = fitted(cut(X, y), solver="lbfgs")
        same(fitted(tmp_path, y, solver="lbfgs"), expected)
        np.testing.assert_array_equal(expected.predict(str(tmp_path)), expected.predict(X))
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"no \.npy files in .*empty"):
            fitted(tmp_path / "empty", y)

    def test_fortran_order_and_a_single_path(self, rows, tmp_path):
        X, y, _ = rows
        np.save(tmp_path / "X.npy", np.asfortranarray(X))
        same(fitted(tmp_path / "X.npy", y, solver="lbfgs"), fitted([X], y, solver="lbfgs"))

    def test_shuffled_batches(self, rows):
        X, y, _ = rows
        batches = iter_batches(X, y, 64, random_state=0, prefetch=1)
        near(fitted(batches, solver="lbfgs"), fitted(X, y, solver="lbfgs"))

    def test_number_types_of_batches_may_differ(self, rows):
        X, y, _ = rows
        mixed = [(np.round(20 * X[:150]).astype(np.int8), y[:150]), (20 * X[150:], y[150:])]
        whole = np.vstack([np.round(20 * X[:150]), 20 * X[150:]]).astype(np.float32)
        near(fitted(mixed), fitted(whole, y))


class TestSample:
    def test_rows_do_not_depend_on_the_cut(self, monkeypatch, rng):
        monkeypatch.setattr(sample, "_MOST_ROWS", 100)
        X, weights = rng.normal(size=(1000, 2)), np.arange(1000.0)
        drawn = []
        for size in (1000, 7):
            rows = sample.RowSample()
            for start in range(0, 1000, size):
                rows.see(X[start : start + size], weights[start : start + size])
            drawn.append(rows.drawn())
        (X_a, numbers), (X_b, _) = drawn
        np.testing.assert_array_equal(X_a, X_b)
        np.testing.assert_array_equal(X_a, X[numbers.astype(int)])
        assert 40 <= len(numbers) <= 100
        assert len(set(numbers.astype(int) % 8)) == 8  # periods do not matter

    def test_bytes_are_bounded_whatever_the_first_batch_is(self, monkeypatch, rng):
        monkeypatch.setattr(sample, "_MOST_BYTES", 1 << 14)
        rows = sample.RowSample()
        for density in (0.0, 0.5, 0.5):
            rows.see(random_array((200, 50), density=density, rng=rng, format="csr"))
        (X,) = rows.drawn()
        assert 64 <= X.shape[0] <= 150 and X.data.nbytes + X.indices.nbytes <= 1 << 14

    @pytest.mark.parametrize("most", [{"_MOST_ROWS": 100}, {"_MOST_BYTES": 3000}, {}])
    def test_rows_that_are_drawn_where_they_are(self, rows, form, most, monkeypatch):
        """They are those that are drawn in one pass."""
        for name, value in most.items():
            monkeypatch.setattr(sample, name, value)
        X, numbers, drawn = form(rows[0]), np.arange(N), sample.RowSample()
        parts, firsts = cut(X, numbers), [part.start for part in PARTS]
        for part in parts:
            drawn.see(*part)
        limit = sample.limit_of(
            sum(sample.halvings(i, x) for i, (x, _) in zip(firsts, parts, strict=True))
        )
        found = sample.joined(
            [sample.drawn_from(i, limit, *part) for i, part in zip(firsts, parts, strict=True)]
        )
        np.testing.assert_array_equal(found[1], drawn.drawn()[1])
        assert len(found[1]) == N if not most else 10 < len(found[1]) < N
        assert abs(found[0] - X[found[1]]).max() == 0

    @pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
    @pytest.mark.parametrize("C", [1.0, np.inf])
    def test_a_fit_with_few_of_the_rows(self, rows, monkeypatch, form, C):
        X, y, weights = rows
        monkeypatch.setattr(sample, "_MOST_ROWS", 100)
        batches = [(form(x), *rest) for x, *rest in cut(X, y, weights)]
        for solver in ("lbfgs", "newton-cholesky"):
            model = fitted(batches, solver=solver, C=C)
            whole = fitted(form(X), y, weights, solver=solver, C=C)
            assert model.converged_
            np.testing.assert_allclose(model.objective_, whole.objective_, rtol=2e-6)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
def test_passes(rows, form, monkeypatch):
    """One before the fit, and then hardly any but evaluations."""
    X, y, weights = rows
    n_reads, asked = [], []

    def batches():
        n_reads.append(0)
        yield from ((form(x), *rest) for x, *rest in cut(X, y, weights))

    def ask(shards, question, *args, **options):
        asked.append(question.__name__)
        return answers(shards, question, *args, **options)

    answers = streamed.Streamed.ask
    monkeypatch.setattr(streamed.Streamed, "ask", ask)
    monkeypatch.setattr(sample, "_MOST_ROWS", 100)
    fitted(batches, solver="lbfgs", standardize=True)
    assert len(n_reads) == 1 + len(asked)
    # (a small Hessian and the longest row are those of all rows, where these are few)
    assert set(asked) <= {"loss_grad", "hessian", "largest_square"}
    assert asked.count("loss_grad") >= len(asked) - 3


def test_eval_set_warm_start_callbacks_and_lines(rows, capsys):
    X, y, weights = rows
    model = FastSoftmax(tol=1e-6, warm_start=True, verbose=1, solver="lbfgs")
    model.fit(cut(X, y, weights), eval_set=[(X[:50], y[:50])])
    assert "rows/s" in capsys.readouterr().out
    assert len(model.history_["eval_loss"]) == model.n_iter_[0]
    assert model.fit(cut(X, y, weights)).n_iter_[0] <= 1
    seen = []

    def stop(state):
        seen.append(state.iteration)
        return len(seen) == 3

    model.set_params(warm_start=False).fit(cut(X, y), callbacks=[stop])
    assert len(seen) == 3 and model.n_iter_[0] == 3
    early = FastSoftmax(early_stopping=True, solver="lbfgs")
    early.fit(cut(X, y), eval_set=[(X[:50], y[:50])])
    assert early.best_iteration_ >= 1
    with pytest.raises(ValueError, match="early_stopping=True needs an eval_set"):
        early.fit(cut(X, y))


class TestPredictions:
    def test_parts(self, rows, tmp_path):
        X, y, weights = rows
        model = fitted(X, y)
        np.save(tmp_path / "a.npy", X[:150])
        np.save(tmp_path / "b.npy", X[150:])
        paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
        batches = cut(X, y, weights)
        for given in (paths, NpyFiles(paths), NpyFiles(paths, y), batches, lambda: iter(batches)):
            np.testing.assert_array_equal(model.predict(given), model.predict(X))
            np.testing.assert_array_equal(model.predict_proba(given), model.predict_proba(X))
            for method in (model.predict_log_proba, model.decision_function):
                np.testing.assert_array_equal(method(given), method(X))
        for args in ((paths, y, weights), (NpyFiles(paths, y, weights),), (batches,)):
            assert model.score(*args) == pytest.approx(model.score(X, y, weights), rel=1e-12)
            expected = model.evaluate(X, y, weights)
            assert model.evaluate(*args) == pytest.approx(expected, rel=1e-12)
        assert model.score(batches) == pytest.approx(model.score(X, y, weights))

    def test_errors(self, rows):
        X, y, _ = rows
        model = fitted(X, y)
        with pytest.raises(TypeError, match="y is missing"):
            model.score(X)
        with pytest.raises(TypeError, match="y is missing"):
            model.evaluate(lambda: iter([X]))
        with pytest.raises(ValueError, match=r"batch 1 \(from 0\): .* features"):
            model.predict([(X, y), (X[:, :3], y)])


class TestErrors:
    def test_generators(self, rows):
        with pytest.raises(TypeError, match="callable that returns a new iterator"):
            fitted(iter(cut(*rows)))

    @pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_not_finite(self, rows, form, value):
        X, y, weights = rows
        X[200, 7] = value
        batches = [(form(x), *rest) for x, *rest in cut(X, y, weights)]
        place = r"got (nan|inf) in row 49 of batch 2 \(from 0\), column 7"
        with pytest.raises(ValueError, match=place):
            fitted(batches)
        batches[2][2][49] = 0.0
        with pytest.raises(ValueError, match=place):
            fitted(batches)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            (lambda X, y: X.__setitem__((200, 7), np.nan), r"row 49 of batch 2 .*, column 7"),
            (lambda X, y: y.__setitem__(200, 9), r"batch 2 \(from 0\): y holds .*9.* in row 49"),
        ],
    )
    def test_what_changes_in_a_later_pass(self, rows, change, error):
        X, y, weights = rows
        passes = []

        def batches():
            if len(passes) == 3:
                change(X, y)
            passes.append(0)
            return iter(cut(X, y, weights))

        with pytest.raises(ValueError, match=error):
            fitted(batches, solver="lbfgs")

    @pytest.mark.parametrize(("n_rows", "error"), [(390, "found 390 rows"), (401, "more rows")])
    def test_another_number_of_rows(self, rows, n_rows, error):
        X, y, _ = rows
        passes = []

        def batches():
            n = n_rows if len(passes) == 2 else N
            passes.append(0)
            yield np.resize(X, (n, D)), np.resize(y, n)

        with pytest.raises(ValueError, match=error):
            fitted(batches, solver="lbfgs")

    def test_batches_that_do_not_fit_together(self, rows):
        X, y, _ = rows
        with pytest.raises(ValueError, match=r"batch 1 \(from 0\): .*features"):
            fitted([(X, y), (X[:, :5], y)])
        with pytest.raises(ValueError, match="dense in all batches, or sparse in all"):
            fitted([(X, y), (sparse.csr_array(X), y)])
        with pytest.raises(ValueError, match="no row with a weight above 0 has the class 7"):
            fitted([(X, y)], classes=[0, 1, 2, 7])

    def test_an_error_of_the_reader_is_passed_on(self, rows):
        def batches():
            yield rows[:2]
            raise RuntimeError("the disk is gone")

        with pytest.raises(RuntimeError, match="the disk is gone"):
            fitted(batches)


class TestFiles:
    @pytest.fixture
    def paths(self, rows, tmp_path):
        paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
        np.save(paths[0], rows[0][:150])
        np.save(paths[1], rows[0][150:])
        return paths

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            (lambda path: path.unlink(), "b.npy cannot be read"),
            (lambda path: np.save(path, np.zeros((3, D))), "b.npy has changed"),
            (lambda path: np.save(path, np.zeros((250, D))), "b.npy has changed"),
        ],
        ids=["gone", "shorter", "other numbers"],
    )
    def test_changes_between_passes(self, rows, paths, change, error):
        def stir(state):
            if state.iteration == 2:
                change(paths[1])

        with pytest.raises(ValueError, match=error):
            FastSoftmax(solver="lbfgs", tol=1e-9).fit(paths, rows[1], callbacks=[stir])

    def test_batches_of_memory_maps_are_copies(self, paths):
        """Of a map whose file shrinks later, reading ends the process."""
        mapped = np.load(paths[0], mmap_mode="r")
        for X in NpyFiles([mapped], block_bytes=50 * 8 * D):
            assert not np.shares_memory(X, mapped)

    def test_a_file_that_is_cut_while_it_is_read(self, rows, paths, monkeypatch):
        """Between the look at its size and the read of its last rows."""
        source = NpyFiles(paths, rows[1])
        os.truncate(paths[1], paths[1].stat().st_size - 8)
        monkeypatch.setattr(Seen, "check", lambda self: None)
        with pytest.raises(ValueError, match=r"b.npy has changed: it ends before row 250"):
            list(source)

    def test_errors_name_the_file_and_its_row(self, rows, paths):
        X, y, _ = rows
        other = X[150:].copy()
        other[200, 3] = np.inf
        np.save(paths[1], other)
        with pytest.raises(ValueError, match=r"got inf in row 200 of .*b.npy, column 3"):
            fitted(NpyFiles(paths, y, block_bytes=100 * 8 * D))

    def test_arguments(self, rows, paths, tmp_path):
        X, y, _ = rows
        np.save(tmp_path / "wide.npy", X[:, :5])
        (tmp_path / "text.npy").write_text("no numbers")
        (tmp_path / "rows.parquet").write_text("PAR1")
        for bad, error in (
            ([*paths, tmp_path / "wide.npy"], "must hold 12 features"),
            ([tmp_path / "none.npy"], "none.npy cannot be read"),
            ([tmp_path / "text.npy"], "must be a .npy file"),
            ([tmp_path / "rows.parquet"], "rows.parquet must be read by ParquetRows"),
            ([X, y], "shape"),
            ([], "at least one"),
        ):
            with pytest.raises(ValueError, match=error):
                NpyFiles(bad)
        with pytest.raises(ValueError, match="y must have as many rows"):
            NpyFiles(paths, y[:-1])
        with pytest.raises(ValueError, match="together with y"):
            NpyFiles(paths, sample_weight=y)
        with pytest.raises(TypeError, match=r"must be \(X, y\)"):
            fitted(NpyFiles(paths))
        with pytest.raises(TypeError, match="NpyFiles brings its own labels"):
            fitted(NpyFiles(paths, y), y)
        with pytest.raises(TypeError, match="NpyFiles brings its own labels"):
            fitted(X, y).score(NpyFiles(paths), y)

    @pytest.mark.parametrize("version", [2, 3])
    def test_headers_that_are_said_to_be_long(self, version, tmp_path):
        """Regression: numpy reserved up to 4 GB before it found the end of the file."""
        path = tmp_path / "x.npy"
        path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + b"\0\0\0\x20{'descr'")
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"x\.npy must be a \.npy file.*536870912 bytes"):
                NpyFiles(path)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_versions_of_the_format(self, rows, version, tmp_path):
        with open(tmp_path / "x.npy", "wb") as file:
            np.lib.format.write_array(file, rows[0], version)
        np.testing.assert_array_equal(np.concatenate(list(NpyFiles(tmp_path / "x.npy"))), rows[0])

    def test_blocks_share_memory_only_when_nobody_holds_them(self, rows, paths):
        X, _, _ = rows
        source = NpyFiles(paths, block_bytes=50 * 8 * D)
        np.testing.assert_array_equal(np.concatenate(list(source)), X)
        places = {block.base.ctypes.data for block in source}
        assert len(places) < len(source)


class TestReadAhead:
    def test_order_bound_and_end(self):
        read, seen = [], []
        for i in read_ahead(iter(read.append(i) or i for i in range(20)), 2):
            seen.append(i)
            assert len(read) <= len(seen) + 2
        assert seen == list(range(20))

    def test_left_early(self):
        closed = threading.Event()

        def items():
            try:
                yield from range(100)
            finally:
                closed.set()

        for i in read_ahead(items()):
            if i == 3:
                break
        assert closed.wait(10.0)

    def test_state_of_floating_point_is_the_users(self, rows):
        X, y, _ = rows

        def batches():
            for part in cut(X, y):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    np.ones(1) / np.zeros(1)
                assert len(caught) == 1
                yield part

        fitted(batches)
        with np.errstate(divide="ignore"), pytest.raises(AssertionError):
            fitted(batches)


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_shards_are_pickled(rows, form, backend):
    X, y, weights = rows
    X = form(X)
    real = np.float64 if X.dtype == np.float64 else np.float32
    backend = resolve_backend(backend)
    shard = build_shard(X, y.astype(np.int32), None, weights.astype(real), K, backend=backend)
    buffers = []
    packed = pickle.dumps(shard, protocol=5, buffer_callback=buffers.append)
    odd = [memoryview(b"." + bytes(buffer.raw()))[1:] for buffer in buffers]  # not aligned
    W, b = np.full((K, D), 0.1), np.zeros(K)
    for other in (pickle.loads(pickle.dumps(shard)), pickle.loads(packed, buffers=odd)):
        for a, c in zip(shard.loss_grad(W, b), other.loss_grad(W, b), strict=True):
            np.testing.assert_array_equal(a, c)
    for answer in (protocol.float64_targets(shard), protocol.every_row(shard, 7)):
        pickle.dumps(answer)


def test_a_fit_that_falls_short_says_so(rows):
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        fitted(cut(*rows), max_iter=2, solver="lbfgs")
