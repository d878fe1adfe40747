"""That works are timed beside processes that are busy, and that end. Nothing about seconds.

python -m pytest bench/test_busy.py
"""

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fits import busy
from fits.busy import ALONE, IN_SUCCESSION, SKLEARN, Entrants, Turns
from fits.contestants import OURS
from measuring import problems
from measuring.harness import Race, close
from measuring.neighbours import busy_neighbours
from races.native import N_THREADS
from results import tables
from results.busy import shown
from test_smoke import assert_anonymous

with_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="whether a process runs is read from /proc"
)
TRIAL = ("--scale=0.005", "--seconds=0", "--rounds=1", "--neighbours", "0.5")


def is_running(process):
    """Whether a process is there, and has not ended as one that nobody has waited for."""
    try:
        return _fields(process)[0] != "Z"
    except OSError:
        return False


def _fields(process):
    """What /proc says of a process, from its state on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def all_end(processes, seconds=20.0):
    """Whether none of them runs, before long."""
    give_up = time.monotonic() + seconds
    while any(map(is_running, processes)) and time.monotonic() < give_up:
        time.sleep(0.01)
    return not any(map(is_running, processes))


def ticks_of_cpu(process):
    """CPU time of a process."""
    return sum(map(int, _fields(process)[11:13]))


@with_proc
def test_neighbours_are_busy_and_end_with_the_block():
    with busy_neighbours(2) as processes:
        assert len(set(processes)) == 2
        assert all(map(is_running, processes))
        before = [ticks_of_cpu(process) for process in processes]
        time.sleep(0.3)
        after = [ticks_of_cpu(process) for process in processes]
        assert all(a > b for a, b in zip(after, before, strict=True))
    assert not any(map(is_running, processes))
    with busy_neighbours(0) as none:
        assert none == []


@with_proc
def test_neighbours_end_after_an_error():
    with pytest.raises(ZeroDivisionError), busy_neighbours(1) as processes:
        _ = 1 / 0
    assert not any(map(is_running, processes))
    early = pytest.raises(RuntimeError, match="ended before its time")
    with early, busy_neighbours(1) as processes:
        os.kill(processes[0], signal.SIGTERM)
        assert all_end(processes)


HOST = """
import signal
import time
from measuring.neighbours import busy_neighbours

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under `nohup ... &`
with busy_neighbours(2) as processes:
    print(*processes, flush=True)
    time.sleep(60)
"""


@with_proc
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_neighbours_end_with_their_process(name):
    """Ctrl-C reaches the whole group of processes; a process that is killed can end nothing."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    host = subprocess.Popen(
        [sys.executable, "-c", HOST], env=environment, start_new_session=True, **given
    )
    processes = [int(word) for word in host.stdout.readline().split()]
    assert len(processes) == 2
    if name == "SIGINT":
        os.killpg(host.pid, signal.SIGINT)
    else:
        host.send_signal(getattr(signal, name))
    assert host.wait(20) != 0
    host.stdout.close()
    assert all_end(processes)


def test_works_are_timed_at_each_load_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(problems.DATA_VARIABLE, raising=False)
    file = tmp_path / "busy.json"
    works = ["embeddings", "epoch", "digits"]
    busy.main([*TRIAL, "--works", *works, "--json", str(file)])
    printed = capsys.readouterr()
    assert "embeddings: left out" in printed.err
    assert "| 0.5 a core, ms | slower | ratio |" in printed.out
    text = file.read_text()
    assert_anonymous(text)
    results = json.loads(text)
    assert [row["workload"] for row in results["rows"]] == works[1:]
    epoch, digits = results["rows"]
    one_thread = [ALONE] * (N_THREADS > 1)
    assert set(epoch["contestants"]) <= {OURS, *one_thread, "torch"}
    assert epoch["notes"].keys() == {"torch"} - epoch["contestants"].keys()
    assert list(digits["contestants"]) == [OURS, *one_thread, SKLEARN]
    for row in results["rows"]:
        assert row["neighbours a core"] == [0.0, 0.5]
        for points in row["contestants"].values():
            assert [point["processes"] for point in points] == [0, round(0.5 * row["cores"])]
            assert points[0]["to quiet"] == 1.0
            assert all(len(point["runs"]) == 1 and point["seconds"] > 0 for point in points)
    made = tables.tables(results)
    assert made.count("\n| fit of digits, 200 x 64") == len(digits["contestants"])


def test_searches_are_made_in_two_processes_and_in_one():
    race, names, _ = busy.WORKS["grid"](0.001)
    assert names == [name + way for name in (OURS, SKLEARN) for way in ("", IN_SUCCESSION)]
    for name in names:
        found = inspect.getclosurevars(race.runs[name]).nonlocals["make"]()
        assert found.n_jobs == (1 if IN_SUCCESSION in name else 2)
        assert len(found.param_grid["C"]) * found.cv == 8
    assert race.answer(race.runs[OURS + IN_SUCCESSION]()) > 0.8


@pytest.mark.parametrize("key", ["sample", "sweep"])
def test_answers_are_checked_before_anything_is_timed(key):
    race, names, _ = busy.WORKS[key](0.001)
    for name in names[:-1]:  # scikit-learn's takes seconds
        race.verify(name)
    race.runs["wrong"] = race.runs[names[0]]
    race._expected = np.array(0.5 * race._expected)
    with pytest.raises(AssertionError, match="wrong answers wrongly"):
        race.verify("wrong")


def test_turns_alternate_and_long_ones_are_not_repeated(monkeypatch):
    order, loads, clock = [], [], [0.0]
    seconds = {"short": 0.02, "long": 5.0}

    def run(name):
        def call():
            order.append(name)
            clock[0] += seconds[name]
            return 1.0

        return call

    @contextlib.contextmanager
    def neighbours(count):
        loads.append(count)
        yield

    monkeypatch.setattr(busy, "settle", lambda: None)
    monkeypatch.setattr(busy, "busy_neighbours", neighbours)
    monkeypatch.setattr(busy.time, "perf_counter", lambda: clock[0])
    race = Race("work", {name: run(name) for name in seconds}, close(0.1), "short")
    turns = Turns(Entrants(race, list(seconds), {}), {0.0: 0, 1.0: 2}, once=1.0)
    order.clear()
    turns.take(0.0, least_rounds=2)
    # A turn of the short one: a call that is not timed, and 5 that are.
    first = [*["short"] * 6, "long"]
    assert order == [*first, *first, *["short"] * 12]
    assert loads == [0, 2, 2, 0]
    assert [len(turns.runs[load, name]) for load in (0.0, 1.0) for name in seconds] == [2, 1, 2, 1]
    assert turns.of("short")[0]["seconds"] == pytest.approx(0.02)


def test_slowdowns_and_ratios():
    def points(quiet, beside):
        made = [(0, quiet, 1.0), (4, beside, beside / quiet)]
        names = ("processes", "seconds", "to quiet")
        return [dict(zip(names, point, strict=True)) for point in made]

    contestants = {OURS: points(0.01, 25.0), SKLEARN: points(0.02, 20.0)}
    row = {"task": "fit", "neighbours a core": [0, 2.0], "contestants": contestants}
    assert shown(row).splitlines()[2:] == [
        "| fit | fastsoftmax | 10 |  | 25000 | 2500 |  |",
        "| fit | scikit-learn | 20 | 2.00 | 20000 | 1000 | **0.80** |",
    ]
