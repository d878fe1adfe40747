"""Fits to rows on the workers of a Dask cluster."""

import pickle

import numpy as np
import pytest
from rows_in_parts import PARTS, D, K, N, cut, form_of, made_rows
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sparse_rows import random_array

from fastsoftmax import FastSoftmax
from fastsoftmax._streaming import sample, streamed

pytest.importorskip("dask", reason="Dask is not installed")
pytest.importorskip("distributed", reason="Dask's distributed scheduler is not installed")

import dask
import dask.array as da
import pandas as pd
from rows_on_dask import MARKS, SIZES, array, delayed, local, made_before, pieces, remote, same

from fastsoftmax._dask import fits, partitions
from fastsoftmax._dask.remote import Remote
from fastsoftmax._estimator.batch_source import Batch
from fastsoftmax.dask import DaskFastSoftmax

STORAGES = [np.float64, np.float32, np.uint8, "csr"]

pytestmark = MARKS


def test_labels_are_cut_as_rows_are():
    """Also where they come in as many chunks of other sizes."""
    X = da.zeros((10, 2), chunks=((4, 6), (2,)))
    blocks = partitions._beside(da.arange(10, chunks=((7, 3),)), X, "y")
    assert [len(block.compute()) for block in blocks] == [4, 6]


@pytest.mark.parametrize("n_rows", [2, 4])
def test_a_partition_that_was_computed_again_with_other_rows(n_rows):
    with pytest.raises(ValueError, match=f"it had 3 rows, and was computed again with {n_rows}"):
        fits._shard(Batch(0, np.zeros((n_rows, 2))), None, None, (3,))


@pytest.fixture(params=STORAGES, ids=lambda s: getattr(s, "__name__", s))
def form(request):
    return form_of(request.param)


@pytest.fixture
def rows(rng):
    return made_rows(rng)


def _fails_from(value, least):
    if value[0] >= least:
        raise ZeroDivisionError(f"of {value[0]:g}")
    return value.copy()


class TestFits:
    @pytest.mark.parametrize("solver", ["auto", "lbfgs"])
    def test_bits_are_those_of_a_local_fit(self, client, rows, form, solver):
        X, y, weights = rows
        X = form(X)
        scale = {"input_scale": 1 / 60} if X.dtype.kind in "ui" else {}
        options = {"solver": solver, **scale}
        same(remote(delayed(X, y, weights), **options), local(X, y, weights, **options))

    @pytest.mark.parametrize(
        "options",
        [
            {"standardize": True, "fit_intercept": False},
            {"class_weight": "balanced", "C": 0.01},
            {"class_weight": {0: 3.0}, "label_smoothing": 0.1},
        ],
        ids=lambda options: ", ".join(options),
    )
    @pytest.mark.parametrize("soft", [False, True])
    def test_parameters(self, client, rows, options, soft, rng):
        X, y, weights = rows
        if soft:
            y = 0.8 * np.eye(K)[y] + 0.2 * rng.dirichlet(np.ones(K), N)
        options = {"solver": "lbfgs", **options}
        expected = local(X, y, weights, **options)
        same(remote(array(X), array(y), array(weights), **options), expected)

    @pytest.mark.parametrize("most", [0, 1 << 27], ids=["large", "small"])
    def test_elastic_nets(self, client, rows, form, most, monkeypatch):
        monkeypatch.setattr(streamed, "_MOST_HELD", most)
        X, y, _ = rows
        X, options = form(X), {"l1_ratio": 0.7, "C": 0.1, "standardize": True}
        same(remote(delayed(X, y), **options), local(X, y, **options))

    @pytest.mark.parametrize(("name", "most"), [("_MOST_ROWS", 70), ("_MOST_BYTES", 5000)])
    def test_samples(self, client, rows, form, name, most, monkeypatch):
        X, y, weights = rows
        X = form(X)
        options = {"solver": "lbfgs", "class_weight": "balanced"}
        monkeypatch.setattr(sample, name, most)
        same(remote(delayed(X, y, weights), **options), local(X, y, weights, **options))

    def test_sparse_columns_without_entries(self, client, rng):
        X = random_array((N, 3000), density=0.002, rng=rng, format="csr")
        y = np.arange(N) % 3
        same(remote(delayed(X, y), solver="lbfgs"), local(X, y, solver="lbfgs"))

    def test_forms(self, client, rows):
        X, y, weights = rows
        expected = local(X, y, weights, solver="lbfgs")
        lazy = dask.delayed(lambda a: a, pure=False)
        for given in (
            (array(X), array(y), array(weights)),
            (array(X).rechunk((SIZES, 5)), da.from_array(y, chunks=100), weights),
            (array(X), y.tolist(), weights),
            (delayed(X, y, weights),),
            (client.compute(delayed(X, y, weights)),),
            ([(lazy(a), b, lazy(c)) for a, b, c in cut(X, y, weights)],),
            (client.persist(array(X)), array(y), array(weights)),
        ):
            same(remote(*given, solver="lbfgs"), expected)

    def test_frames(self, client, rows):
        dd = pytest.importorskip("dask.dataframe")
        X, y, weights = rows
        names = np.array(["shirt", "coat", "bag"])[y]
        table = pd.DataFrame(X, columns=[f"x{j}" for j in range(D)]).assign(y=names, w=weights)
        frame = dd.concat([dd.from_pandas(table[part], npartitions=1) for part in PARTS])
        features = frame[[f"x{j}" for j in range(D)]]
        model = remote(features, frame["y"], frame["w"], solver="lbfgs")
        expected = local(X, names, weights, solver="lbfgs")
        np.testing.assert_array_equal(model.coef_, expected.coef_)
        assert model.classes_.tolist() == ["bag", "coat", "shirt"]
        assert model.feature_names_in_.tolist() == [f"x{j}" for j in range(D)]
        found = model.predict(features).compute()
        assert found.index.equals(table.index)
        np.testing.assert_array_equal(found, expected.predict(X))
        proba = model.predict_proba(features).compute()
        assert proba.columns.tolist() == model.classes_.tolist()
        np.testing.assert_array_equal(proba, expected.predict_proba(X))
        assert model.score(features, frame["y"]) == expected.score(X, names)

    def test_empty_and_weightless_partitions(self, client, rows):
        X, y, _ = rows
        parts = delayed(X, y)
        parts.insert(1, dask.delayed((X[:0], y[:0])))
        parts.append(dask.delayed((X[:5], y[:5], np.zeros(5))))
        same(remote(parts, solver="lbfgs"), local(X, y, solver="lbfgs"))

    def test_watched_and_warm(self, client, rows, capsys):
        X, y, _ = rows
        model = DaskFastSoftmax(tol=1e-6, warm_start=True, verbose=1, solver="lbfgs")
        model.fit(array(X), array(y), eval_set=[(X[:50], y[:50])])
        assert "rows/s" in capsys.readouterr().out
        assert len(model.history_["eval_loss"]) == model.n_iter_[0]
        assert model.fit(array(X), array(y)).n_iter_[0] <= 1
        with pytest.warns(ConvergenceWarning, match="max_iter=2"):
            remote(array(X), array(y), max_iter=2, solver="lbfgs")

    def test_eval_sets_on_the_cluster(self, client, rows, form):
        """Each of its own partitions, one of which has no rows; values are those of local sets."""
        X, y, weights = rows
        X = form(X)
        empty = dask.delayed((X[:0], y[:0]))
        sets = [([*delayed(X, y)[1:], empty], None), (X[:50], y[:50])]
        options = {"solver": "lbfgs", "early_stopping": True, "n_iter_no_change": 1000}
        model = remote(delayed(X, y, weights), eval_set=sets, **options)
        expected = local(X, y, weights, eval_set=[(X[150:], y[150:]), sets[1]], **options)
        same(model, expected)
        for name in ("eval_loss", "eval_accuracy"):
            values = np.array(expected.history_[name])
            np.testing.assert_allclose(model.history_[name], values, rtol=1e-6)
        with pytest.raises(ValueError, match=r"eval_set\[0\] must hold rows"):
            remote(delayed(X, y), eval_set=[([empty], None)])
        with pytest.raises(ValueError, match=r"partition 0 .*eval_set\[0\] .* got row weights"):
            remote(delayed(X, y), eval_set=[(delayed(X, y, weights), None)])
        with pytest.raises(ValueError, match=r"partition 2 .*eval_set\[0\] holds .*7"):
            remote(delayed(X, y), eval_set=[(delayed(X, np.where(np.arange(N) < 399, y, 7)), None)])

    def test_eval_sets_of_arrays_and_frames(self, client, rows):
        dd = pytest.importorskip("dask.dataframe")
        X, y, _ = rows
        names = [f"x{j}" for j in range(D)]
        table = pd.DataFrame(X, columns=names).assign(y=y)
        frame = dd.from_pandas(table, npartitions=3)
        model = remote(
            frame[names], frame["y"], eval_set=[(frame[names], frame["y"])], solver="lbfgs"
        )
        losses = np.ravel(model.history_["eval_loss"])
        np.testing.assert_allclose(losses, model.history_["loss"], rtol=1e-12)
        model = DaskFastSoftmax(solver="lbfgs")
        model.fit(array(X), array(y), X_val=array(X[::-1]), y_val=y[::-1])
        losses = np.ravel(model.history_["eval_loss"])
        np.testing.assert_allclose(losses, model.history_["loss"], rtol=1e-12)

    def test_a_checkpoint(self, client, rows, tmp_path):
        X, y, _ = rows
        parts, file = delayed(X, y), tmp_path / "fit.npz"
        model = DaskFastSoftmax(solver="lbfgs", max_iter=4)
        with pytest.warns(ConvergenceWarning):
            model.fit(parts, checkpoint=file)
        later = DaskFastSoftmax(solver="lbfgs").fit(parts, resume=file)
        same(later, DaskFastSoftmax(solver="lbfgs").fit(parts))
        assert later.n_iter_[0] > 4
        with pytest.raises(ValueError, match="other data or parameters"):
            DaskFastSoftmax(C=0.1, solver="lbfgs").fit(parts, resume=file)

    def test_workers_add_up_what_they_have(self, client, rows):
        """Of adjacent partitions a worker sends one sum."""
        X, y, _ = rows
        first, second = sorted(client.nthreads())
        rng = np.random.default_rng(0)
        expected = remote([dask.delayed(part) for part in pieces(X, y, 8)], solver="lbfgs")
        for places in ([first] * 4 + [second] * 4, rng.permutation([first, second] * 4).tolist()):
            parts = [
                client.submit(tuple, part, workers=[place], pure=False)
                for part, place in zip(pieces(X, y, 8), places, strict=True)
            ]
            same(remote(parts, solver="lbfgs"), expected)
        same(FastSoftmax(tol=1e-6, solver="lbfgs").fit(pieces(X, y, 8)), expected)
        parts = [
            client.submit(np.full, 4, float(i), workers=[place], pure=False)
            for i, place in enumerate([first] * 4 + [second] * 4)
        ]
        values, n_sent = Remote(client, parts), []
        values.wait()
        collect = values._collect
        values._collect = lambda *args: n_sent.append(collect(*args)) or n_sent[-1]
        np.testing.assert_array_equal(values.added(np.add, np.copy), np.full(4, 28.0))
        assert [len(answers) for answers, _ in n_sent] == [2]
        with pytest.raises(ZeroDivisionError, match="of 5"):
            values.added(np.add, _fails_from, 5.0)

    def test_rows_stay_on_the_workers(self, client, rows):
        """What comes from there is no larger than a model, or than rows drawn for a start."""
        X, y, _ = rows
        model = remote(array(X), array(y), solver="lbfgs", n_jobs=3)
        same(model, local(X, y, solver="lbfgs"))
        assert not made_before(client)


class TestModels:
    def test_predictions(self, client, rows, form):
        X, y, weights = rows
        X = form(X)
        model = remote(delayed(X, y))
        parts = [dask.delayed(part) for part, _ in cut(X, y)]
        for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            expected = getattr(model.to_local(), method)(X)
            np.testing.assert_array_equal(getattr(model, method)(X), expected)
            np.testing.assert_array_equal(
                np.concatenate(dask.compute(*getattr(model, method)(parts))), expected
            )
            if isinstance(X, np.ndarray):
                lazy = getattr(model, method)(array(X).rechunk((SIZES, 5)))
                assert (lazy.shape, lazy.dtype) == (expected.shape, expected.dtype)
                np.testing.assert_array_equal(lazy.compute(), expected)
        assert model.score(delayed(X, y, weights)) == pytest.approx(model.score(X, y, weights))
        expected = model.evaluate(X, y, weights)
        assert model.evaluate(delayed(X, y, weights)) == pytest.approx(expected)

    def test_two_classes(self, client, rows):
        X, y, _ = rows
        model = remote(array(X), y > 0)
        logits = model.decision_function(array(X))
        assert logits.shape == (N,)
        np.testing.assert_array_equal(logits.compute(), model.to_local().decision_function(X))
        assert model.predict(array(X)).dtype == bool

    def test_copies(self, client, rows, tmp_path):
        X, y, _ = rows
        model = DaskFastSoftmax(C=0.5, client=client).fit(array(X), array(y))
        plain = model.to_local()
        assert type(plain) is FastSoftmax and plain.C == 0.5
        other = pickle.loads(pickle.dumps(model))
        assert other.client is None
        model.save(tmp_path / "model.npz")
        for kind in (FastSoftmax, DaskFastSoftmax):
            same(kind.load(tmp_path / "model.npz"), model)
        same(plain, model)
        same(other, model)
        again = clone(model)
        assert again.client is client and again.get_params() == model.get_params()
        assert "C=0.5,\n" in repr(again) and "tol" not in repr(again)
        with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
            DaskFastSoftmax(c=1.0)


class TestErrors:
    @pytest.mark.parametrize(
        ("spoil", "error"),
        [
            (
                lambda X, y: (np.where(X[49, 7] == X, np.nan, X), y),
                "got nan in row 49 of PLACE, column 7",
            ),
            (lambda X, y: (X[:, :5], y), "5 features, but DaskFastSoftmax is expecting 12"),
            (lambda X, y: (X, np.where(np.arange(len(y)) == 5, 9, y)), "y holds .*9"),
            (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
            (lambda X, y: (sparse.csr_array(X), y), "dense in all batches, or sparse in all"),
        ],
        ids=["nan", "width", "class", "length", "sparse"],
    )
    def test_of_a_partition(self, client, rows, spoil, error):
        X, y, _ = rows
        parts = delayed(X, y)
        parts[2] = dask.delayed(spoil)(X[PARTS[2]], y[PARTS[2]])
        place = r"partition 2 \(from 0\)"
        error = error.replace("PLACE", place) if "PLACE" in error else f"{place}.*{error}"
        with pytest.raises(ValueError, match=error):
            remote(parts, classes=range(K))

    def test_a_partition_that_cannot_be_loaded(self, client, rows):
        X, y, _ = rows

        def fails():
            raise OSError("no such bucket")

        with pytest.raises(OSError, match="no such bucket") as caught:
            remote([*delayed(X, y), dask.delayed(fails)()])
        assert "partition 3" in caught.value.__notes__[0]
        with pytest.raises(TypeError, match="batch 3 must be"):
            remote([*delayed(X, y), dask.delayed(3)])
        del caught
        assert not made_before(client, ["made_of", "batch"])  # rows are let go of

    def test_arguments(self, client, rows):
        X, y, _ = rows
        with pytest.raises(TypeError, match="FastSoftmax is for rows in memory"):
            remote(X, y)
        with pytest.raises(TypeError, match="y is missing"):
            remote(array(X))
        with pytest.raises(ValueError, match="X has 400 rows, and y has 399"):
            remote(array(X), y[:-1])
        with pytest.raises(ValueError, match="X has 400 rows, and y has 399"):
            remote(array(X), da.from_array(y[:-1]))
        with pytest.raises(TypeError, match="bring their labels"):
            remote(delayed(X, y), y)
        with pytest.raises(ValueError, match="solver='sgd'"):
            remote(array(X), y, solver="sgd")
        with pytest.raises(ValueError, match="early_stopping=True needs an eval_set"):
            remote(array(X), y, early_stopping=True)
        with pytest.raises(TypeError, match="client must be a"):
            remote(array(X), y, client=3)
        with pytest.raises(TypeError, match="DaskFastSoftmax"):
            FastSoftmax().fit(array(X), array(y))
