"""Mini-batches: every row once, orders, kinds of arrays, and the thread that gathers ahead."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax import batches as module
from fastsoftmax.batches import iter_batches


@pytest.fixture
def rng():
    return np.random.default_rng(20170828)


@pytest.fixture
def table(rng):
    """Rows of three numbers; the first is the row's index, and so is y."""
    X = rng.standard_normal((23, 3))
    X[:, 0] = np.arange(23)
    return X, np.arange(23)


class TestBatches:
    @pytest.mark.parametrize("prefetch", [0, 1, 3, 100])
    @pytest.mark.parametrize("shuffle", [True, False])
    @pytest.mark.parametrize("size", [1, 5, 22, 23, 24, 1000])
    @pytest.mark.parametrize("drop_last", [True, False])
    def test_every_row_once(self, table, prefetch, shuffle, size, drop_last):
        X, y = table
        batches = iter_batches(
            X, y, size, shuffle=shuffle, random_state=0, drop_last=drop_last, prefetch=prefetch
        )
        for _ in range(2):
            parts = list(batches)
            assert len(parts) == len(batches) == (23 // size if drop_last else -(-23 // size))
            for X_b, y_b in parts:
                np.testing.assert_array_equal(X_b, X[y_b])
                assert len(y_b) == size or (not drop_last and len(y_b) == 23 % size)
            seen = [row for _, y_b in parts for row in y_b]
            assert len(set(seen)) == len(seen)
            if not drop_last:
                assert len(seen) == 23
            if not shuffle:
                assert seen == list(range(len(seen)))

    @staticmethod
    def orders(batches, n):
        return [np.concatenate([y_b for _, y_b in batches]).tolist() for _ in range(n)]

    @pytest.mark.parametrize(
        "state",
        [
            lambda: 0,
            lambda: np.uint8(3),
            lambda: 2**100,
            lambda: np.random.default_rng(5),
            lambda: np.random.RandomState(5),
        ],
    )
    def test_order_is_new_each_time_and_reproducible(self, table, state):
        first = self.orders(iter_batches(*table, 5, random_state=state()), 3)
        assert first[0] != first[1] != first[2] != first[0]
        assert self.orders(iter_batches(*table, 4, random_state=state(), prefetch=2), 3) == first

    def test_no_seed(self, table):
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        first, second = (self.orders(iter_batches(*table, 5), 1) for _ in range(2))
        assert first != second
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    def test_a_generator_gives_each_object_another_order(self, table):
        rng = np.random.default_rng(1)
        first, second = (iter_batches(*table, 5, random_state=rng) for _ in range(2))
        assert self.orders(first, 1) != self.orders(second, 1)

    def test_iterations_are_independent(self, table):
        expected = self.orders(iter_batches(*table, 1, random_state=2), 2)
        batches = iter_batches(*table, 1, random_state=2)
        pairs = [(int(a[1][0]), int(b[1][0])) for a, b in zip(batches, batches, strict=True)]
        assert [list(order) for order in zip(*pairs, strict=True)] == expected

    def test_an_epoch_left_early_counts(self, table):
        batches = iter_batches(*table, 5, random_state=2)
        next(iter(batches))
        assert (
            self.orders(batches, 1) == self.orders(iter_batches(*table, 5, random_state=2), 2)[1:]
        )

    def test_pickle(self, table):
        batches = iter_batches(*table, 5, random_state=2, prefetch=1)
        list(batches)
        assert self.orders(pickle.loads(pickle.dumps(batches)), 2) == self.orders(batches, 2)

    def test_weights_and_soft_targets(self, table, rng):
        X, _ = table
        targets, weights = rng.random((23, 4)), rng.random(23)
        for X_b, targets_b, weights_b in iter_batches(X, targets, 6, sample_weight=weights):
            rows = X_b[:, 0].astype(int)
            np.testing.assert_array_equal(targets_b, targets[rows])
            np.testing.assert_array_equal(weights_b, weights[rows])

    def test_in_order_without_copies(self, table):
        X, y = table
        for X_b, y_b in iter_batches(X, y, 6, shuffle=False):
            assert np.shares_memory(X_b, X)
            assert np.shares_memory(y_b, y)

    def test_input_is_not_written_to(self, table):
        X, y = table
        X.flags.writeable = y.flags.writeable = False
        assert len(list(iter_batches(X, y, 6))) == 4

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_lists_and_strings(self, shuffle):
        for X_b, y_b in iter_batches([[0.0], [1.0], [2.0]], ["0", "1", "2"], 2, shuffle=shuffle):
            assert [str(int(x)) for x in X_b[:, 0]] == y_b.tolist()

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_memmap(self, table, tmp_path, shuffle):
        X, y = table
        X.tofile(tmp_path / "X")
        mapped = np.memmap(tmp_path / "X", dtype=X.dtype, mode="r", shape=X.shape)
        for X_b, y_b in iter_batches(mapped, y, 6, shuffle=shuffle):
            assert type(X_b) is np.ndarray
            np.testing.assert_array_equal(X_b, X[y_b])

    @pytest.mark.parametrize("shuffle", [True, False])
    @pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_matrix", "coo_array"])
    def test_sparse(self, table, shuffle, kind):
        sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
        X, y = table
        for X_b, y_b in iter_batches(getattr(sparse, kind)(X), y, 6, shuffle=shuffle):
            assert X_b.format == "csr"
            np.testing.assert_array_equal(X_b.toarray(), X[y_b])

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_pandas(self, table, shuffle):
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        X, y = table
        index = np.arange(23)[::-1]
        frame = pandas.DataFrame(X, columns=list("abc"), index=index)
        series = pandas.Series(y, index=index)
        for X_b, y_b in iter_batches(frame, series, 6, shuffle=shuffle):
            assert list(X_b.columns) == list("abc")
            assert (X_b.index == y_b.index).all()
            np.testing.assert_array_equal(X_b.to_numpy(), X[y_b.to_numpy()])

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_polars(self, table, shuffle):
        polars = pytest.importorskip("polars", reason="polars is not installed")
        X, y = table
        frame, series = polars.DataFrame(X, schema=list("abc")), polars.Series(y)
        for X_b, y_b in iter_batches(frame, series, 6, shuffle=shuffle):
            assert X_b.columns == list("abc")
            np.testing.assert_array_equal(X_b.to_numpy(), X[y_b.to_numpy()])

    def test_no_rows(self):
        batches = iter_batches(np.empty((0, 3)), np.empty(0))
        assert len(batches) == 0
        assert list(batches) == []

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"y": np.zeros(3)}, ValueError, "y has 3 rows and X has 4"),
            ({"sample_weight": [1.0]}, ValueError, "sample_weight has 1 rows and X has 4"),
            ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
            ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, not 2.0"),
            ({"batch_size": True}, TypeError, "batch_size must be an integer, not True"),
            ({"prefetch": -1}, ValueError, "prefetch must be at least 0, not -1"),
            ({"prefetch": None}, TypeError, "prefetch must be an integer, not None"),
            ({"random_state": -1}, ValueError, "random_state must be at least 0, not -1"),
            ({"random_state": "0"}, TypeError, "random_state must be an integer, not '0'"),
            ({"X": 3.0}, TypeError, "X must be an array with rows"),
            ({"X": iter([1])}, TypeError, "X must be an array with rows"),
            ({"X": [[1], [2, 3]]}, ValueError, "X is no array"),
            ({"y": "abcd"}, TypeError, "y must be an array with rows"),
            ({"y": None}, TypeError, "y must be an array with rows"),
        ],
    )
    def test_bad_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            iter_batches(**{"X": np.zeros((4, 2)), "y": np.zeros(4), **arguments})


def batch_threads():
    return [t for t in threading.enumerate() if t.name.startswith("fastsoftmax-batches")]


class TestPrefetch:
    def test_thread_ends_with_the_epoch(self, table):
        list(iter_batches(*table, 5, prefetch=2))
        assert batch_threads() == []

    def test_thread_ends_when_left_early(self, table):
        batches = iter_batches(*table, 1, prefetch=2)
        for _ in batches:
            assert len(batch_threads()) == 1
            break
        iterator = iter(batches)
        next(iterator)
        iterator.close()
        assert batch_threads() == []

    def test_no_thread_before_the_first_batch(self, table):
        iterator = iter(iter_batches(*table, 1, prefetch=2))
        assert batch_threads() == []
        del iterator

    @pytest.mark.parametrize("bad_row", [0, 3, 22])
    def test_error_reaches_the_consumer(self, bad_row):
        class Rows:
            shape = (23,)

            def __getitem__(self, rows):
                if rows.start <= bad_row < rows.stop:
                    raise RuntimeError("a broken disk")
                return np.arange(23)[rows]

        seen = []
        with pytest.raises(RuntimeError, match="a broken disk"):
            for X_b, _ in iter_batches(Rows(), np.zeros(23), 5, shuffle=False, prefetch=2):
                seen.append(X_b)
        assert len(seen) == bad_row // 5
        assert batch_threads() == []

    @pytest.mark.parametrize("prefetch", [1, 3])
    def test_no_more_than_asked_are_gathered_ahead(self, prefetch):
        class Rows:
            shape = (20,)
            n_gathered = 0

            def __getitem__(self, rows):
                self.n_gathered += 1
                return np.arange(20)[rows]

        rows = Rows()
        for n_consumed, _ in enumerate(iter_batches(rows, np.zeros(20), 1, prefetch=prefetch), 1):
            assert n_consumed <= rows.n_gathered <= n_consumed + prefetch
        assert rows.n_gathered == 20

    def test_program_ends_in_the_middle(self):
        code = (
            "import numpy as np; from fastsoftmax.datasets import iter_batches\n"
            "it = iter(iter_batches(np.zeros((99, 2)), np.zeros(99), 1, prefetch=4))\n"
            "next(it); print('done')"
        )
        assert run(code) == "done"


def run(code):
    """Output of a fresh interpreter that imports the package from where this one did."""
    root = str(Path(module.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_import_is_light():
    code = (
        "import sys, fastsoftmax.datasets\n"
        "heavy = 'sklearn', 'scipy', 'pandas', 'urllib.request', 'concurrent.futures', 'PIL'\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert run(code) == "[]"
