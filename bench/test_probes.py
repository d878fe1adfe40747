"""That probes and sweeps are timed, judged and shown as they say. Nothing about seconds.

python -m pytest bench/test_probes.py
"""

import argparse
import dataclasses
import json

import numpy as np
import pytest
from fits import probes, sweeps, workloads
from fits.contestants import FASTSOFTMAX
from fits.ladder import Ladder
from measuring import problems
from results import tables
from results.probes import CERTIFIED, ONE_PASS, REACHED, shown
from test_smoke import assert_anonymous

FEW = ("--threads=1", "--repeats=2", "--repeat-seconds=0", "--refine=0", "--limit=5")


def _small(scale):
    return problems.probe(120, 6, 3)


@pytest.fixture
def small_probe(monkeypatch):
    for name in ("probe100", probes.SWEPT):
        small = dataclasses.replace(workloads.WORKLOADS[name], make=_small)
        monkeypatch.setitem(workloads.WORKLOADS, name, small)


def test_real_embeddings_are_read_where_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv(problems.DATA_VARIABLE, raising=False)
    assert problems.banking77() is None
    monkeypatch.setenv(problems.DATA_VARIABLE, str(tmp_path))
    assert problems.banking77() is None
    (tmp_path / "embeddings").mkdir()
    X = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float16)
    y = np.repeat(np.arange(5), 20).astype(np.int16)
    np.savez(tmp_path / "embeddings" / "banking77_minilm.npz", X_train=X, y_train=y)
    whole, part = problems.banking77(), problems.banking77(0.25)
    np.testing.assert_array_equal(whole.X, X.astype(np.float32))
    assert (whole.X.dtype, whole.labels.dtype, whole.n_classes) == (np.float32, np.int32, 5)
    np.testing.assert_array_equal(part.X, whole.X[::4])
    np.testing.assert_array_equal(np.unique(part.labels), np.arange(5))  # sorted by class


def test_a_workload_without_its_data_says_why(monkeypatch, capsys):
    monkeypatch.delenv(problems.DATA_VARIABLE, raising=False)
    assert probes.main(["--workloads", "banking77"]) == 0
    said = capsys.readouterr()
    assert said.err.count(f"left out, {problems.DATA_VARIABLE} names no folder") == 5
    assert not said.out


@pytest.mark.usefixtures("small_probe")
def test_probes_take_turns_and_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probes, "KEYS", ("probe100",))
    file = tmp_path / "probes.json"
    probes.main([*FEW, "--rivals", "learn lbfgs", "--json", str(file)])
    text = file.read_text()
    assert_anonymous(text)
    results = json.loads(text)
    (row,) = results["rows"]
    turns = row["turns"]
    assert set(turns) == {REACHED, CERTIFIED, ONE_PASS, "scikit-learn lbfgs"}
    assert all(len(turn["runs"]) == 2 for turn in turns.values())
    for name in (REACHED, CERTIFIED):
        share = turns[name]["seconds"] / turns[ONE_PASS]["seconds"]
        assert turns[name]["passes"] == pytest.approx(share, rel=0.01)
    assert row["certified"]["1e-04"]["certified"]
    assert row["gaps"] == ["1e-04"]
    made = tables.tables(results)
    assert made.count("\n| probe, 120 x 6, K = 3") == 2
    assert "| probe, 120 x 6, K = 3" in capsys.readouterr().out


def test_rivals_that_do_not_finish_say_so():
    point = {"seconds": 20.0, "gap": 3e-3, "max_iter": 64}
    row = {
        "workload": "probe",
        "task": "probe",
        "limit, s": 30.0,
        "certified": {"1e-04": {"certified": True, "n_iter": 9}},
        "notes": {"cyanure": "is not installed"},
        "contestants": {
            "fastsoftmax": {"ended": "reached", "points": []},
            "slow": {"ended": "time limit", "points": [point]},
            "stuck": {"ended": "no progress", "points": [point]},
            "ended": {"ended": "time limit", "points": []},
        },
        "turns": {
            REACHED: {"seconds": 1.0, "runs": [1.0], "passes": 20.0},
            CERTIFIED: {"seconds": 2.0, "runs": [2.0], "passes": 40.0},
            ONE_PASS: {"seconds": 0.05, "runs": [0.05]},
        },
    }
    lines = shown(row).splitlines()
    assert lines[2] == "| probe | 1 | 20 | 2 | 40 | 9 | 0.05 | none finished |  |  |  |"
    assert lines[-1] == "| probe | > 20 (3e-03) | no progress: 20 (3e-03) | time limit |"
    unfinished = {**row, "certified": {}, "turns": {}}
    assert shown(unfinished).splitlines()[2].startswith("| probe | > 30 |  | > 30 |  |")
    row["turns"]["slow"] = {"seconds": 0.5, "runs": [0.5]}
    assert shown(row).splitlines()[2].endswith("| 0.5 | slow | **0.50** | **0.25** |")


def test_the_limit_follows_the_fastest_rival(tmp_path):
    workload = dataclasses.replace(workloads.WORKLOADS["probe100"], make=_small)
    options = argparse.Namespace(scale=1.0, threads=1, repeats=2, once=1.0, limit=30.0)
    options.default_limit = 0.0
    probe = probes.Probe(workload, tmp_path, options)
    assert probe.limit_of(FASTSOFTMAX) == 30.0

    def fit(max_iter):
        return {"n_iter": max_iter, "seconds": 5.0, "gap": 1e-5}

    ladder = probe.ladders["rival"] = Ladder(fit)
    ladder.run(8)
    assert probe.limit_of(FASTSOFTMAX) == 2.0 * 5.0


@pytest.mark.usefixtures("small_probe")
def test_sweeps_have_the_same_folds_and_are_shown(tmp_path):
    file = tmp_path / "probes.json"
    only = ["--workloads", "sweep", "--n-cs", "2", "--folds", "3", "--json", str(file)]
    probes.main([*FEW, *only, "--repeats=1"])
    text = file.read_text()
    assert_anonymous(text)
    results = json.loads(text)
    (row,) = results["rows"]
    assert list(row["sweeps"]) == list(sweeps.SWEEPS)
    full, theirs = (row["sweeps"][name] for name in (sweeps.FULL_PATH, sweeps.SKLEARN_CV))
    assert full["fits"] == 6
    assert full["C"] == theirs["C"]
    assert full["score"] == pytest.approx(theirs["score"], abs=0.02)
    assert len(full["runs"]) == len(theirs["runs"]) == 1
    assert tables.tables(results).count(f"\n| {sweeps.SKLEARN_CV}") == 1


@pytest.mark.usefixtures("small_probe")
def test_sweeps_that_do_not_finish_say_so(tmp_path):
    file = tmp_path / "probes.json"
    probes.main([*FEW, "--workloads", "sweep", "--sweep-limit", "0.001", "--json", str(file)])
    results = json.loads(file.read_text())
    assert {entry["ended"] for entry in results["rows"][0]["sweeps"].values()} == {"time limit"}
    assert tables.tables(results).count("| > 0.001 |") == 3
