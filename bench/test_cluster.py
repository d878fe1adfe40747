"""That the model of an evaluation on a cluster computes what it says. Nothing about seconds.

python -m pytest bench/test_cluster.py
"""

import json
from dataclasses import replace

import pytest
from fits import cluster, cluster_model
from fits.cluster_model import Machines, Task
from measuring import record
from results import chart, tables
from test_smoke import assert_anonymous

TASK = Task(1000, 49, 10, 4)
MACHINES = Machines(1e6, 1e9, 0.5, 0.1, 1e3, client_flops=1e6, client_bytes=1e6)


def test_parts_of_an_evaluation():
    assert TASK.model_bytes == 8 * 10 * 50
    assert cluster_model.traffic_bytes(TASK, 3, 4) == (1 + 3 + 2 * 4) * 4000
    found = cluster_model.evaluation(TASK, 3, 4, MACHINES)
    assert found.computing == pytest.approx(4 * 1000 * 49 * 10 / 3e6)
    assert found.messages == pytest.approx(0.5 + 2 * 0.1)
    assert found.traffic == pytest.approx(12 * 4000 / 1e3)
    assert found.client == pytest.approx((20 * 4000 + 4 * 10 * 49**2) / 1e6)
    assert found.total == pytest.approx(
        found.computing + found.messages + found.traffic + found.client
    )
    slow = replace(MACHINES, read_bytes=1e3, cores=2)
    assert cluster_model.evaluation(TASK, 3, 4, slow).computing == 1000 * 49 * 4 / 2e3


def test_sparse_rows():
    task = Task(1000, 10_000, 10, 8, numbers_per_row=7)
    assert (task.pass_flops, task.x_bytes) == (4 * 7000 * 10, 8 * 7000)
    assert task.solver_flops == 0.0


@pytest.mark.parametrize(("workers", "sums"), [(1, 1), (2, 2), (3, 5), (4, 4), (8, 8), (16, 8)])
def test_sums_of_adjacent_partitions(workers, sums):
    assert cluster_model.sums_of(8, workers) == sums


def test_more_workers_than_are_useful():
    best = cluster_model.best_workers(TASK, replace(MACHINES, link_bytes=1e6))
    times = [
        cluster_model.evaluation(TASK, n, n, replace(MACHINES, link_bytes=1e6)).total
        for n in (best - 1, best, best + 1)
    ]
    assert min(times) == times[1]
    assert cluster_model.all_reduced(TASK, 10, MACHINES).traffic == 2 * 4000 / 1e3


def test_predictions_are_written_beside_measurements(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask's distributed scheduler is not installed")
    pytest.importorskip("matplotlib", reason="charts need it")
    file = tmp_path / "cluster.json"
    monkeypatch.setattr(cluster, "CHECKED", {"probe, small": Task(400, 8, 5, 4)})
    monkeypatch.setattr(cluster, "TRAFFIC", Task(8, 20, 5, 4))
    monkeypatch.setattr(cluster, "SAMPLE_ROWS", 64)
    small = dict(zip(cluster.LARGE, ((16, 9), (16, 5), (500, 9)), strict=True))
    monkeypatch.setattr(cluster, "SAMPLES", small)
    cluster.main(["--seconds=0", "--workers", "1", "--json", str(file)])
    assert_anonymous(file.read_text())
    results = json.loads(file.read_text())
    checked, *predicted = results["rows"]
    assert checked["predicted, s"] > 0 < checked["measured, s"]
    assert [row["task"] for row in predicted] == [*cluster.LARGE]
    made = tables.tables(results)
    assert "\n| probe, small | 1 | 1 |" in made and "predicted, not measured" in made
    chart.main([str(file), "--out", str(tmp_path / "cluster.svg")])
    text = (tmp_path / "cluster.svg").read_text()
    assert "<svg" in text


def test_the_chart_is_readable_on_a_telephone():
    path = tables.RESULTS / "cluster.json"
    if not path.exists():
        pytest.skip("not measured yet")
    figure = chart.draw_cluster(record.read(path))
    assert 96 * figure.get_size_inches()[0] <= 390
    panel = figure.axes[0]
    assert min(text.get_fontsize() for text in (*panel.texts, panel.title)) >= 10
