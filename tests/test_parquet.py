"""Fits to rows in Parquet files."""

import numpy as np
import pytest

from fastsoftmax import FastSoftmax
from fastsoftmax.data_sources import ParquetRows, parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ds = pytest.importorskip("pyarrow.dataset")

N, D = 300, 5


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(N, D)).astype(np.float32)
    y = (X[:, 0] > 0.3).astype(int) + (X[:, 1] > rng.normal(size=N))
    return X, np.array(["a", "b", "c"])[y], rng.uniform(1, 2, N)


def columns(X, y, weights):
    return pa.table({**{f"x{j}": X[:, j] for j in range(D)}, "label": y, "w": weights})


def lists(X, y, weights):
    features = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), D)
    label = pa.array(y).dictionary_encode()
    return pa.table({"features": features, "label": label, "w": weights})


def fitted(*args, **options):
    return FastSoftmax(tol=1e-4, solver="lbfgs").fit(*args, **options)


def same(a, b):
    for name in ("coef_", "intercept_", "gap_", "classes_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("table", [columns, lists])
def test_a_folder(rows, table, tmp_path):
    for i, part in enumerate((slice(0, 120), slice(120, N))):
        own = table(*(array[part] for array in rows))
        pq.write_table(own, tmp_path / f"{i}.parquet", row_group_size=50)
    files = sorted(tmp_path.glob("*.parquet"))
    features = ["features"] if table is lists else [f"x{j}" for j in range(D)]
    sources = [
        ParquetRows(path, weight="w", features=features)
        for path in (tmp_path, str(tmp_path), files, ds.dataset(tmp_path, format="parquet"))
    ]
    X, y, weights = rows
    batches = list(sources[0])
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), X)
    assert np.concatenate([batch[1] for batch in batches]).tolist() == y.tolist()
    expected = fitted(batches)
    whole = fitted(X, y, weights)
    assert expected.objective_ == pytest.approx(whole.objective_, rel=1e-4)
    for source in sources:
        assert source.features == features
        same(fitted(source), expected)
    assert len(list(ParquetRows(tmp_path, features=features, block_bytes=4 * D * 20))) > 12
    plain = ParquetRows(tmp_path, None, features=features)
    np.testing.assert_array_equal(expected.predict(plain), expected.predict(X))
    assert expected.score(sources[0]) == pytest.approx(expected.score(X, y, weights))


@pytest.mark.parametrize("table", [columns, lists])
@pytest.mark.parametrize("block_rows", [1, 7, 9, 100, 107])
def test_blocks_that_cut_what_is_read_at_once(rows, table, block_rows, tmp_path):
    """A part of an array of pyarrow: of lists, `values` would be those of all of it."""
    pq.write_table(table(*rows), tmp_path / "t.parquet", row_group_size=50)
    features = ["features"] if table is lists else [f"x{j}" for j in range(D)]
    options = {"weight": "w", "features": features, "block_bytes": 4 * D * block_rows}
    for path in (tmp_path / "t.parquet", ds.dataset(tmp_path, format="parquet")):
        blocks = list(ParquetRows(path, **options))
        assert {len(X) for X, *_ in blocks[:-1]} == {block_rows}
        for found, expected in zip(zip(*blocks, strict=True), rows, strict=True):
            np.testing.assert_array_equal(np.concatenate(found), expected)


def test_columns_by_default_and_number_types(rng, tmp_path):
    table = pa.table({"a": pa.array([1, 2, 3, 4], pa.uint8()), "b": [0.5, 1.0, 2.0, 1.0],
                      "c": [True, False, True, True], "label": [0, 1, 0, 1]})  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    source = ParquetRows(tmp_path / "t.parquet")
    assert source.features == ["a", "b", "c"]
    ((X, y),) = source
    assert X.dtype == np.float64 and X[2].tolist() == [3.0, 2.0, 1.0] and y.tolist() == [0, 1, 0, 1]
    ((X, _),) = ParquetRows(tmp_path / "t.parquet", features="a")
    assert X.dtype == np.uint8 and X.shape == (4, 1)


def test_filtered_datasets(rows, tmp_path):
    pq.write_table(columns(*rows), tmp_path / "t.parquet")
    dataset = ds.dataset(tmp_path, format="parquet").filter(ds.field("x0") > 0)
    kept = rows[0][:, 0] > 0
    source = ParquetRows(dataset, features=[f"x{j}" for j in range(D)])
    np.testing.assert_array_equal(np.concatenate([X for X, _ in source]), rows[0][kept])


class TestErrors:
    @pytest.fixture
    def path(self, rows, tmp_path):
        pq.write_table(columns(*rows), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    def test_arguments(self, path, tmp_path):
        for options, error in (
            ({"label": "species"}, "'species'.* not among those of"),
            ({"features": ["x0", "x9"]}, "'x9'"),
            ({"features": ["label"], "label": "w"}, "must hold numbers"),
            ({"label": None, "weight": "w"}, "together with label"),
        ):
            with pytest.raises(ValueError, match=error):
                ParquetRows(path, **options)
        with pytest.raises(ValueError, match="must be Parquet files"):
            ParquetRows(tmp_path / "none.parquet")

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("x1", r"'x1' lacks a value in row 7 of .*t.parquet"),
            ("label", r"'label' lacks a value in row 7 of .*t.parquet"),
        ],
    )
    def test_missing_values(self, rows, path, name, error):
        table = columns(*rows)
        values = table[name].to_pylist()
        values[7] = None
        i = table.schema.get_field_index(name)
        pq.write_table(table.set_column(i, name, pa.array(values)), path)
        with pytest.raises(ValueError, match=error):
            fitted(ParquetRows(path, weight="w", block_bytes=4 * D * 3))

    def test_files_that_differ(self, rows, path, tmp_path):
        X, y, weights = rows
        source = {"weight": "w", "features": ["x0", "x1"]}
        for table, error in (
            (columns(X.astype(np.float64), y, weights), "'x0' holds float64 in .*u.parquet"),
            (columns(*rows).drop_columns("x1"), "no column 'x1' in .*u.parquet"),
        ):
            pq.write_table(table, tmp_path / "u.parquet")
            with pytest.raises(ValueError, match=error):
                fitted(ParquetRows([path, tmp_path / "u.parquet"], **source))

    @pytest.mark.parametrize("gone", [False, True])
    def test_changes_between_passes(self, rows, path, gone):
        def stir(state):
            if gone:
                path.unlink()
            else:
                pq.write_table(columns(*rows)[:100], path)

        with pytest.raises(ValueError, match=r"t.parquet (has changed|cannot be read)"):
            fitted(ParquetRows(path, weight="w"), callbacks=[stir])


def test_probabilities_in_a_column_of_lists(rng, tmp_path):
    """Rows and classes in their order."""
    probs = rng.dirichlet(np.ones(3), 20)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), 3)
    pq.write_table(pa.table({"x": rng.normal(size=20), "p": lists}), tmp_path / "p.parquet")
    ((_, found),) = ParquetRows(tmp_path / "p.parquet", "p")
    np.testing.assert_array_equal(found, probs)


class Counting:
    """A batch of pyarrow that counts how often its names are listed, which takes all of them."""

    n_listed = 0

    def __init__(self, batch):
        self._batch, self.num_rows, self.column = batch, batch.num_rows, batch.column

    def slice(self, *args):
        return Counting(self._batch.slice(*args))

    @property
    def schema(self):
        Counting.n_listed += 1
        return self._batch.schema


def test_many_columns_are_found_by_one_list(monkeypatch):
    """Each column listed the names of all: half of the time of 784 columns."""
    monkeypatch.setattr(Counting, "n_listed", 0)
    names = [f"x{j}" for j in range(50)]
    batch = pa.record_batch([pa.array([float(j), 1.0]) for j in range(50)], names=names)
    block = parquet._Block("a file", 0, np.empty((2, 50)))
    assert block.fill(Counting(batch), names, []) == 2
    np.testing.assert_array_equal(block.X, [np.arange(50), np.ones(50)])
    assert Counting.n_listed == 1
