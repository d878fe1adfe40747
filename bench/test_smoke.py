"""That the benchmarks measure what they say: data, checks, floor, tables. Nothing about seconds.

The benchmarks themselves run on small data with `pytest bench --benchmark-disable --scale 0.01`.
"""

import getpass
import json
import platform
import tempfile
from pathlib import Path

import compare
import floor
import harness
import machine
import numpy as np
import problems
import pytest
import rivals
import summary

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


@pytest.mark.parametrize("make", [rivals.numpy_pass, rivals.numpy_pass_by_class])
def test_quick_twin_agrees_with_the_accurate_one(make):
    problem = problems.probe(300, 20, 7).stored_as("float64")
    W, b = problems.weights(problem)
    grad_W, grad_b = np.empty_like(W), np.empty_like(b)
    rows = problem.X, problem.labels, None, np.ones(300), 0.0, W, b, 7
    loss, _ = reference.loss_grad(grad_W, grad_b, *rows)
    harness.close(1e-12)(make(problem.X, problem.labels, W, b)(), (loss, grad_W, grad_b))


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
    compare.main(
        ["--rows", "predict_proba", "--scale", "0.001", "--seconds", "0", "--json", str(file)]
    )
    assert capsys.readouterr().out.count("predict_proba") == 2
    text = file.read_text()
    assert_anonymous(text)
    record = json.loads(text)
    assert [row["task"][:13] for row in record["rows"]] == ["predict_proba"] * 2
    shown = summary.tables(record)
    assert "A trial run" in shown
    assert shown.count("\n| predict_proba") == 2


def test_tables_keep_and_mark_what_is_lost():
    def entry(contestant, median):
        info = {"contestant": contestant, "GB/s": 12.0, "formula": "reads x"}
        stats = {"median": median, "min": median / 2}
        return {"group": "softmax", "extra_info": info, "stats": stats}

    entries = [entry("native", 0.002), entry("torch", 0.001), entry("numpy", 0.02)]
    record = {"kind": "suite", "scale": 1, "floor": {"threads": 2}, "benchmarks": entries}
    lines = summary.tables({**record, "machine_info": machine.describe()}).splitlines()
    assert lines[-3:] == [
        "| torch | 1 | 0.5 | **0.50** | 12 |  |  |",
        "| native | 2 | 1 | 1.00 | 12 |  |  |",
        "| numpy | 20 | 10 | 10.0 | 12 |  |  |",
    ]


def test_committed_tables_are_those_of_the_committed_results():
    assert summary.main(["--check"]) == 0
    for path in summary.RESULTS.glob("*.json"):
        assert_anonymous(path.read_text())
        assert json.loads(path.read_text())["scale"] == 1, f"{path.name} is a trial run"


def test_machine_is_described_without_names():
    description = machine.describe()
    assert_anonymous(json.dumps(description))
    assert all(description.values())
    assert machine.summary(description).startswith(description["CPU"])


def assert_anonymous(text):
    """Neither host nor user nor folder."""
    for name in (platform.node(), str(Path.home()), f"/{getpass.getuser()}/", str(Path.cwd())):
        assert name not in text
    assert tempfile.gettempdir() not in text
