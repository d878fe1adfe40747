"""That the grid of everyday data measures what it says. Nothing about seconds.

python -m pytest bench/test_everyday.py
"""

import argparse
import json

import numpy as np
import pytest
from fits import everyday
from fits.contestants import FASTSOFTMAX, RIVALS
from fits.process import OUT_OF_TIME
from fits.referee import Entry, Referee
from fits.shapes import SHAPES, Shape
from measuring import tabular
from results import chart, standings, tables
from scipy import sparse

from fastsoftmax import FastSoftmax


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_shapes_are_made_as_named_and_the_same_each_time(shape):
    made, again = (shape.problem(0.01) for _ in range(2))
    assert made.X.shape == (max(16, shape.n_rows // 100), shape.n_features)
    assert made.X.dtype == shape.dtype
    assert made.n_classes == shape.n_classes
    assert made.labels.dtype == np.int32
    assert 0 <= made.labels.min() <= made.labels.max() < shape.n_classes
    np.testing.assert_array_equal(made.labels, again.labels)
    assert made.is_sparse == (shape.kind in ("CSR", "hashed text"))
    if made.is_sparse:
        assert made.X.has_canonical_format
    difference = made.X != again.X
    assert (difference.nnz if made.is_sparse else np.count_nonzero(difference)) == 0


def test_names_of_shapes_are_unique():
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)


def test_kinds_of_tables_are_what_they_are_called():
    np.testing.assert_array_equal(tabular.table("one-hot", 50, 30, 2).X.sum(axis=1), 3.0)
    assert 0.01 < tabular.table("imbalanced", 20_000, 25, 2).labels.mean() < 0.03
    spread = tabular.table("raw scales", 500, 40, 3).X.std(axis=0)
    assert spread.min() < 0.1 < 100 < spread.max()
    strength = np.linalg.svd(tabular.table("correlated", 500, 40, 2).X, compute_uv=False)
    assert strength[9] > 2 * strength[10]
    made = tabular.table("separable", 200, 5, 3)
    assert FastSoftmax(C=1e8).fit(made.X, made.labels).score(made.X, made.labels) == 1.0
    made = tabular.table("CSR", 100, 1000, 2)
    assert sparse.issparse(made.X)
    assert 50 < made.X.nnz / 100 <= tabular.CSR_ROW


def _search():
    tries = [(storage, s) for storage in ("float32", "float64") for s in everyday.SETTINGS]
    return everyday.Search(RIVALS[0], tries)


def test_the_first_settings_that_reach_the_gap_count():
    search = _search()
    assert search.next(1.0).settings == everyday.DEFAULTS
    search.note({"gap": 1e-2, "n_iter": 100, "CPU seconds": 1.0}, 1e-4)
    assert search.next(1.0).settings["tol"] == 1e-4
    assert search.next(1.0).settings["max_iter"] > 100
    search.note({"gap": 1e-3, "n_iter": 150, "CPU seconds": 2.0}, 1e-4)
    assert search.next(1.0).settings["tol"] == 1e-6
    assert search.seconds == np.inf
    search.note({"gap": 9e-5, "n_iter": 200, "CPU seconds": 3.0}, 1e-4)
    assert (search.ended, search.seconds, search.tries) == ("reached", 3.0, [])
    assert search.again()[1:3] == ("float32", {"tol": 1e-6, "max_iter": everyday.MOST_ITERATIONS})


def test_settings_that_change_nothing_are_left_out():
    search, asked = _search(), []
    while search.tries:
        entry = search.next(1.0)
        asked.append((entry.storage, entry.settings["tol"]))
        search.note({"gap": 1e-2, "n_iter": 7, "CPU seconds": 1.0}, 1e-4)
    assert asked == [(s, tol) for s in ("float32", "float64") for tol in (1e-4, 1e-6, 1e-8)]
    assert search.ended == "its own end"
    search = _search()
    search.note({"failed": OUT_OF_TIME}, 1e-4)
    assert (search.ended, search.tries) == (OUT_OF_TIME, [])


def test_a_fit_that_is_ended_does_not_end_the_others(tmp_path):
    options = argparse.Namespace(scale=1.0, threads=1, repeat_seconds=0.0)
    referee = Referee(Shape("normal", 20_000, 25, 2).workload, tmp_path, options)
    entries = [
        Entry(FASTSOFTMAX, "as is", settings, limit)
        for settings, limit in (
            ({}, 60.0),
            ({}, 1e-6),
            ({"C": "none"}, 60.0),
            ({"tol": 1e-8}, 60.0),
        )
    ]
    first, ended, wrong, last = referee.fits(entries)
    assert ended == {"failed": OUT_OF_TIME}
    assert wrong == {"failed": "TypeError"}
    assert last["gap"] <= 1e-8 <= first["CPU seconds"] + first["seconds"]


def test_a_grid_is_written_shown_and_drawn(tmp_path, capsys):
    file = tmp_path / "grid.json"
    only = ["--shapes", "150x4", "--rivals", "newton-cholesky", "--repeats=2", "--threads=2"]
    everyday.main([*only, "--scale=0.5", "--repeat-seconds=0", "--json", str(file)])
    assert capsys.readouterr().out.startswith("normal 150x4 K3 ")
    results = json.loads(file.read_text())
    (row,) = results["rows"]
    ours, rival = (row["contestants"][n] for n in ("fastsoftmax", "scikit-learn newton-cholesky"))
    assert ours["gap"] <= 1e-4 == row["gap"]
    assert rival["tol"] == 1e-4 and rival["gap"] <= row["gap"]
    assert [
        len(entry[f"{clock}, runs"]) for entry in (ours, rival) for clock in ("CPU", "wall")
    ] == 4 * [2]
    assert tables.tables(results).count("\n| normal 150x4 K3") == 2
    pytest.importorskip("matplotlib")
    drawn = file.with_suffix(".svg")
    chart.main([str(file)])
    first = drawn.read_text()
    chart.main([str(file)])
    assert drawn.read_text() == first


def _row(name, **milliseconds):
    """A row of results; below 0 is a limit that a contestant was ended at."""
    contestants = {}
    for contestant, value in milliseconds.items():
        said = {"CPU, ms": value, "gap": 1e-5} if value > 0 else {"limit, ms": -value}
        contestants[contestant.replace("_", " ")] = {"ended": "", **said}
    return {"workload": name, "threads": 1, "contestants": contestants}


def test_losses_and_rivals_without_an_end_are_shown():
    rows = [
        _row("won", fastsoftmax=1.0, fastsoftmax_lbfgs=0.5, sag=4.0, saga=3.0),
        _row("lost", fastsoftmax=2.0, sag=1.0, saga=-5.0),
        _row("ended", fastsoftmax=1.0, sag=-30.0, saga=-20.0),
    ]
    lines = list(standings.lines({"rows": rows}))
    assert lines[0].startswith(
        "3 shapes. By CPU time of one thread, our default is the fastest on 2. "
    )
    best = "On 2 of 3 shapes, our default takes at most 1.2 times the time of our fastest solver."
    assert lines[0].endswith(best)
    assert lines[2] == "A rival is quicker on: lost."
    shown = [
        [cell.strip() for cell in line.split("|")[1:7]] for line in lines if "| 1e-05 |" in line
    ]
    assert shown == [
        ["won", "1e-05", "1", "3", "saga", "3.00"],
        ["lost", "1e-05", "2", "1", "sag", "**0.50**"],
        ["ended", "1e-05", "1", "> 20", "", "> 20.0"],
    ]
    assert "| 2.00 (lbfgs) |" in "\n".join(lines)
    assert "| lost | 2 |  | 1 | > 5 |" in lines


def test_results_that_are_not_there_are_said_to_be_missing(tmp_path):
    assert tables.read_all(tmp_path).count("Not measured yet.") == len(tables.COMMITTED)
