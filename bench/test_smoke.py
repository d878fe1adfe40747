"""That the benchmarks measure what they say: data, checks, floor, tables. Nothing about seconds.

    python -m pytest bench/test_smoke.py

The races themselves run on small data with `pytest bench --benchmark-disable --scale 0.01`.
"""

import dataclasses
import getpass
import importlib.util
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fits import comparison, workloads
from fits.contestants import RIVALS
from fits.ladder import Ladder, fastest, refine_fastest
from measuring import floor, harness, problems, record
from races import in_turn, native, prediction, rivals, rows
from results import chart, tables

from fastsoftmax import reference


def test_made_images_are_like_the_real_ones_and_the_same_each_time(monkeypatch):
    monkeypatch.delenv(problems.DATA_VARIABLE, raising=False)
    made, again = problems.fashion(3000), problems.fashion(3000)
    real, labels = problems._real_images()
    assert made.X.shape == (3000, 784)
    assert made.X.dtype == np.uint8
    np.testing.assert_array_equal(made.X, again.X)
    np.testing.assert_array_equal(np.bincount(made.labels), 3 * np.bincount(labels))
    assert abs(made.X.mean() / real.mean() - 1.0) < 0.05
    assert not (problems.fashion(3000, seed=1).X == made.X).all(axis=1).any()


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-2, 2)])
def test_images_move(down, right):
    image = np.zeros((2, 28, 28), dtype=np.uint8)
    image[:, 10, 5] = 7
    moved = problems._moved(image, np.array([False, True]), down, right)
    assert moved[0, 10 + down, 5 + right] == 7
    assert moved[1, 10 + down, 22 + right] == 7
    assert moved.sum() == 14


def test_probe_has_unit_rows():
    X = problems.probe(50, 32, 5).X
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1.0, rtol=1e-5)


def test_text_is_learnable_and_the_same_each_time():
    made, again = (problems.text(2000, 5000, 4) for _ in range(2))
    X, labels = made.X, made.labels
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(X, part), getattr(again.X, part))
    assert X.has_canonical_format
    assert X.data.min() > 0
    np.testing.assert_allclose((X * X).sum(axis=1), 1.0, rtol=1e-5)
    counts = np.sort(np.bincount(X.indices, minlength=5000))[::-1]
    assert counts[0] > 1000 > 20 * counts[2000]  # few terms are frequent, most are rare
    half = np.arange(2000) < 1000
    centers = np.stack([X[half & (labels == k)].mean(axis=0) for k in range(4)])
    assert np.mean((X[~half] @ centers.T).argmax(axis=1) == labels[~half]) > 0.9
    assert problems.text(20, 5000, 4, indices="int64").X.indices.dtype == np.int64


def test_a_type_of_integers_is_filled():
    quantized = problems.fashion(20).stored_as("int8").X
    assert (quantized.dtype, quantized.min(), quantized.max()) == (np.int8, 0, 127)


@pytest.mark.parametrize("make", [rivals.numpy_pass, rivals.numpy_pass_by_class])
def test_quick_twin_agrees_with_the_accurate_one(make):
    problem = problems.probe(300, 20, 7).stored_as("float64")
    W, b = problems.weights(problem)
    run = make(problem.X, problem.labels, W, b)
    harness.close(1e-12)(run(), _expected(problem, W, b))


def _expected(problem, W, b):
    return native.loss_and_gradient(problem, W, b, backend=reference)()


@pytest.mark.parametrize("form", [lambda X: X.T, lambda X: X.T.tocsr()])
@pytest.mark.parametrize("n_classes", [2, 7])
def test_quick_sparse_twin_agrees_with_the_accurate_one(form, n_classes):
    problem = problems.text(300, 1000, n_classes).stored_as("float64")
    W, b = problems.weights(problem)
    assert W.shape == ((1, 1000) if n_classes == 2 else (7, 1000))
    twin = rivals.numpy_binary_pass if n_classes == 2 else rivals.scipy_pass
    run = twin(problem.X, form(problem.X), problem.labels, W, b)
    harness.close(1e-12)(run(), _expected(problem, W, b))


def test_quick_estimator_agrees_with_the_accurate_one():
    problem = problems.probe(300, 20, 7).stored_as("float64")
    W, b = problems.weights(problem)
    estimator = prediction.NumpyEstimator(W, b, is_sparse=False)
    probs = np.empty((300, 7))
    reference.predict_rows(probs, problem.X, W, b, False)
    ranks = np.argsort(-probs, axis=1)
    top, best = estimator.predict_topk(problem.X, 3)
    np.testing.assert_array_equal(top, ranks[:, :3])
    np.testing.assert_allclose(best, np.take_along_axis(probs, top, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(estimator.predict(problem.X), ranks[:, 0])
    np.testing.assert_allclose(np.exp(estimator.predict_log_proba(problem.X)), probs, rtol=1e-12)
    loss, _, _ = _expected(problem, W, b)
    accuracy = np.mean(ranks[:, 0] == problem.labels)
    np.testing.assert_allclose(
        estimator.evaluate(problem.X, problem.labels), (loss / 300, accuracy)
    )


def test_answers_in_place_are_checked_from_the_logits():
    race = rows.softmax("softmax", 20, 5, in_place=True)
    for name in (harness.NATIVE, "numpy", harness.NATIVE):
        race.verify(name)
        race.runs[name]()


@pytest.mark.parametrize("wrong", [1.01, np.nan, np.inf])
@pytest.mark.parametrize("elementwise", [False, True])
def test_wrong_answers_are_not_timed(wrong, elementwise):
    right = np.ones((3, 4))
    off = right.copy()
    off[1, 2] = wrong
    race = harness.Race(
        "ones",
        {"right": lambda: (1.0, right), "wrong": lambda: (1.0, off)},
        harness.close(1e-3, elementwise=elementwise),
        referee="right",
    )
    race.verify("right")
    with pytest.raises(AssertionError, match="ones: wrong answers wrongly: part 1"):
        race.verify("wrong")


def test_turns_are_as_many_for_each():
    times = harness.take_turns([lambda: sum(range(100)), lambda: None], seconds=0, least_rounds=3)
    assert [len(t) for t in times] == [3, 3]
    assert min(map(min, times)) > 0


def test_floor_is_the_larger_of_arithmetic_and_memory(monkeypatch):
    monkeypatch.setattr(floor, "N_TRIALS", 2)
    monkeypatch.setattr(floor, "TRIAL_SECONDS", 1e-3)
    measured = floor.Floor(1)
    reading = floor.Work(flops=1, n_read=1 << 20)
    if measured.seconds(reading) is None:
        pytest.skip("no compiler")
    rate = measured.read(1 << 20)
    assert measured.seconds(reading) == pytest.approx((1 << 20) / rate / 1e9)
    busy = floor.Work(flops=1e9, n_read=1, real="float64")
    assert measured.seconds(busy) == pytest.approx(1 / measured.multiply_adds("float64"))
    assert len(measured.as_dict()) == 4


def test_ratios_are_written_and_shown(tmp_path, capsys):
    file = tmp_path / "ratios.json"
    in_turn.ratios(
        ["--rows", "predict_proba", "--scale", "0.001", "--seconds", "0", "--json", str(file)]
    )
    assert capsys.readouterr().out.count("predict_proba") == 2
    text = file.read_text()
    assert_anonymous(text)
    results = json.loads(text)
    assert [row["task"][:13] for row in results["rows"]] == ["predict_proba"] * 2
    shown = tables.tables(results)
    assert "A trial run" in shown
    assert shown.count("\n| predict_proba") == 2


def test_gains_by_threads_are_written_and_shown(tmp_path, capsys):
    file = tmp_path / "scaling.json"
    in_turn.scaling(
        ["--rows", "loss_grad", "--scale", "0.001", "--seconds", "0", "--json", str(file)]
    )
    assert capsys.readouterr().out.count("loss + gradient") == 3
    text = file.read_text()
    assert_anonymous(text)
    results = json.loads(text)
    for row in results["rows"]:
        assert row["threads"] == in_turn.thread_counts(native.N_THREADS)
        assert row["speed-up"][0] == 1
    assert tables.tables(results).count("\n| loss + gradient") == 3


FEW_FITS = ("--scale=0.001", "--limit=2", "--threads=1", "--refine=0", "--repeats=1")


@pytest.fixture
def small_workloads(monkeypatch):
    """Few gaps, for few fits: each is a process, which takes a second."""
    images = dataclasses.replace(workloads.WORKLOADS["fashion"], gaps=(1e-2, 1e-4))
    iris = dataclasses.replace(workloads.WORKLOADS["iris"], l1_ratio=0.5, gaps=(0.5,))
    monkeypatch.setitem(workloads.WORKLOADS, "fashion", images)
    monkeypatch.setitem(workloads.WORKLOADS, "iris, elastic net", iris)


@pytest.mark.usefixtures("small_workloads")
def test_fits_to_the_optimum_are_written_shown_and_drawn(tmp_path, capsys):
    file = tmp_path / "fits.json"
    only = ["--workloads", "fashion", "--rivals", "learn newton-cg"]
    comparison.main([*only, *FEW_FITS, "--repeat-seconds=0", "--json", str(file)])
    assert "| 1e-04 |" in capsys.readouterr().out
    text = file.read_text()
    assert_anonymous(text)
    results = json.loads(text)
    (row,) = results["rows"]
    assert set(row["contestants"]) >= {"fastsoftmax", "scikit-learn newton-cg"}
    ours = row["contestants"]["fastsoftmax"]
    for gap in ("1e-02", "1e-04"):
        point = tables._reaching(ours, gap)
        assert point["gap"] <= float(gap)
        assert row["certified"][gap]["gap"] <= float(gap)
        assert row["certified"][gap]["certified"]
    for entry in row["contestants"].values():
        assert all(point["gap"] > -1e-12 and point["seconds"] > 0 for point in entry["points"])
    assert tables.tables(results).count("\n| Fashion-MNIST size") == 2
    pytest.importorskip("matplotlib")
    drawn = tmp_path / "chart.svg"
    chart.main([str(file), "--out", str(drawn)])
    first = drawn.read_text()
    assert_anonymous(first)
    chart.main([str(file), "--out", str(drawn)])
    assert drawn.read_text() == first


@pytest.mark.usefixtures("small_workloads")
def test_elastic_net_is_fitted_by_those_that_have_it(tmp_path):
    file = tmp_path / "fits.json"
    only = ["--workloads", "iris, elastic net", "--rivals", "saga", "cholesky"]
    comparison.main([*only, *FEW_FITS, "--repeat-seconds=0", "--json", str(file)])
    (row,) = json.loads(file.read_text())["rows"]
    assert set(row["contestants"]) == {"fastsoftmax", "scikit-learn saga"}
    assert row["notes"] == {"scikit-learn newton-cholesky": "is asked for L2 only"}
    assert 0 < row["nonzero"] < row["coefficients"] == 12
    assert row["certified"]["5e-01"]["gap"] <= 0.5


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_rivals_that_are_not_here_have_a_reason(rival):
    absent = rival.absent(12, 2, 0.0)
    if importlib.util.find_spec(rival.module) is None:
        assert absent == "is not installed"
        pytest.skip(f"{rival.name} {absent}")
    assert not absent
    assert rival.absent(10**9, 1000, 1.0) or rival.elastic


def test_ladders_find_the_quickest_fit_to_a_gap():
    asked = []

    def fit(max_iter):
        asked.append(max_iter)
        return {"n_iter": max_iter, "seconds": 1e-3 * max_iter, "gap": 10.0 ** (-max_iter / 100)}

    ladder = Ladder(fit)
    ladder.climb(8, 1e-4, limit=1.0)
    assert (asked, ladder.ended) == ([8, 16, 32, 64, 128, 256, 512], "reached")
    assert ladder.reaching(1e-2)["max_iter"] == 256
    assert ladder.missing(1e-2)["max_iter"] == 128
    other = Ladder(lambda n: {"n_iter": 3, "seconds": 2.0, "gap": 0.5})
    other.climb(8, 1e-4, limit=9.0)
    assert other.ended == "its own end"
    ladders = {"quick": ladder, "slow": other}
    refine_fastest(ladders, 1e-2, [], rounds=9)
    assert 200 <= ladder.reaching(1e-2)["max_iter"] <= 1.15 * 200
    assert fastest(ladders, 1e-2) == "quick"
    cut = Ladder(fit)
    cut.climb(8, 1e-9, limit=0.4)
    assert cut.ended == "time limit"
    assert cut.points[-1]["max_iter"] == 360
    failing = Ladder(lambda n: {"failed": "why"})
    failing.climb(8, 1e-9, limit=0.3)
    assert (failing.ended, failing.points) == ("why", [])


@pytest.mark.parametrize("n_classes", [2, 7])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.25])
def test_objective_is_that_of_the_twin(n_classes, l1_ratio):
    problem = problems.text(300, 1000, n_classes).stored_as("float64")
    W, b = problems.weights(problem)
    loss, _, _ = _expected(problem, W, b)
    penalty = l1_ratio * np.sum(np.abs(W)) + (1 - l1_ratio) / 2 * np.sum(W * W)
    value = (loss + penalty / 3.0) / 300
    fitted = workloads.Workload("text", lambda scale: problem, C=3.0, l1_ratio=l1_ratio)
    assert fitted.objective(problem, W, b) == pytest.approx(value, rel=1e-13)
    halved = dataclasses.replace(fitted, input_scale=0.5)
    twice = problem._replace(X=2 * problem.X)
    assert halved.objective(twice, W, b) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (20, [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20])]
)
def test_thread_counts_end_with_all(most, counts):
    assert in_turn.thread_counts(most) == counts


def test_tables_keep_and_mark_what_is_lost():
    def entry(contestant, median):
        info = {"contestant": contestant, "GB/s": 12.0, "formula": "reads x"}
        stats = {"median": median, "min": median / 2}
        return {"group": "softmax", "extra_info": info, "stats": stats}

    entries = [entry("native", 0.002), entry("torch", 0.001), entry("numpy", 0.02)]
    results = {"kind": "suite", "scale": 1, "floor": {"threads": 2}, "benchmarks": entries}
    lines = tables.tables({**results, "machine_info": record.describe()}).splitlines()
    assert lines[-3:] == [
        "| torch | 1 | 0.5 | **0.50** | 12 |  |  |",
        "| native | 2 | 1 | 1.00 | 12 |  |  |",
        "| numpy | 20 | 10 | 10.0 | 12 |  |  |",
    ]


def test_a_point_is_a_line():
    points = [{"seconds": 1.5, "runs": [1.5]}, {"seconds": 2.0, "runs": []}]
    value = {"floor": {}, "rows": [{"name": "a", "points": points, "trace": [(1.0, 0.5)]}]}
    text = record.as_lines(value)
    assert json.loads(text) == json.loads(json.dumps(value))
    assert text.splitlines()[6:8] == [
        '    {"seconds": 1.5, "runs": [1.5]},',
        '    {"seconds": 2.0, "runs": []}',
    ]


def test_committed_tables_are_those_of_the_committed_results():
    assert tables.main(["--check"]) == 0
    for path in tables.RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert_anonymous(text)
        assert text == record.as_lines(json.loads(text)) + "\n"
        assert json.loads(text)["scale"] == 1, f"{path.name} is a trial run"


def test_machine_is_described_without_names():
    description = record.describe()
    assert_anonymous(json.dumps(description))
    assert all(description.values())
    assert record.sentence(description).startswith(description["CPU"])


def assert_anonymous(text):
    """Neither host nor user nor folder."""
    for name in (platform.node(), str(Path.home()), f"/{getpass.getuser()}/", str(Path.cwd())):
        assert name not in text
    assert tempfile.gettempdir() not in text
