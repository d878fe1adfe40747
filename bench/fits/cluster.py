"""A model of an evaluation on a Dask cluster, checked on local workers, and taken to larger ones.

    python bench cluster                                   a few minutes
    python bench cluster --scale 0.01 --workers 1 2        a trial run
    python bench cluster --json bench/results/cluster.json

`cluster_model` holds the formulas. Measured in this process: the speed of a pass with one thread,
for the rows of each task. Measured on 1 to 4 local workers of one thread each: what messages take
(a model of two classes and one row) and what bytes take (a large model and few rows). From these,
evaluations of three tasks are predicted, and then measured. Last, evaluations of larger tasks are
predicted for machines that `ASSUMED` describes.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fits import cluster_model
from fits.cluster_model import Machines, Task
from fits.referee import say
from measuring import harness, problems, record
from measuring.floor import Floor
from measuring.harness import rounded
from races import native
from results.cluster import CLUSTER, shown

PARTITIONS = 8
WORKERS = (1, 2, 3, 4)
SAMPLE_ROWS = 4096
CHECKED = {
    "images, 60000 x 784, K = 10, uint8": Task(60_000, 784, 10, 1),
    "probe, 50000 x 512, K = 100, float32": Task(50_000, 512, 100, 4),
    "probe, 20000 x 768, K = 1000, float32": Task(20_000, 768, 1000, 4),
}
LATENCY, TRAFFIC = Task(PARTITIONS, 4, 2, 4), Task(PARTITIONS, 2000, 500, 4)
LARGE = {
    "ImageNet, 1.28e6 x 2048, K = 1000": Task(1_281_167, 2048, 1000, 2),
    "1e9 x 1000, K = 10": Task(1e9, 1000, 10, 4),
    "1e8 x 1e6, K = 1e4, 100 numbers a row": Task(1e8, 1_000_000, 10_000, 8, 100),
}
# A sample of the rows of each large task, whose pass is measured.
SAMPLES = dict(zip(LARGE, ((2048, 1000), (1000, 10), (20_000, 1000)), strict=True))
COUNTS = tuple(2**i for i in range(11))
# Machines that are not there: 16 cores, each of which keeps 0.95 of its speed with each doubling, a
# network of 10 Gbit/s, and memory of 100 GB/s.
CORES, EFFICIENCY, LINK, MEMORY = 16, 0.95, 1.25e9, 1e11
ASSUMED = {"cores": CORES, "efficiency": EFFICIENCY, "link, GB/s": 1.25, "memory, GB/s": 100.0}


def pass_speed(problem: problems.Problem, seconds: float) -> float:
    """Operations a second of one thread, in a pass over rows."""
    run = native.loss_and_gradient(problem, *problems.weights(problem))
    (times,) = harness.take_turns([lambda: run(n_threads=1)], seconds=seconds, least_rounds=3)
    return 4.0 * problem.n_numbers * problem.n_classes / float(np.median(times))


def problem_of(task: Task, n_rows: int, seed: int = 0) -> problems.Problem:
    """Rows of a task that is checked."""
    if task.number_bytes == 1:
        return problems.fashion(n_rows, task.n_classes, seed)
    return problems.probe(n_rows, task.n_features, task.n_classes, seed)


def _part(task: Task, n_rows: int, number: int) -> tuple[Any, Any]:  # on a worker
    """Rows with labels; few rows with probabilities, so that there is every class."""
    problem = problem_of(task, n_rows, number)
    if n_rows < 4 * task.n_classes:
        return problem.X, np.full((n_rows, task.n_classes), 1.0 / task.n_classes)
    problem.labels[: task.n_classes] = np.arange(task.n_classes)
    return problem.X, problem.labels


class Local:
    """A cluster of processes on this machine, of one thread each."""

    def __init__(self, n_workers: int) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=None
        )
        self.client, self.n_workers = Client(self._cluster), n_workers
        self.client.wait_for_workers(n_workers)

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._cluster.close()

    def evaluation(self, task: Task, seconds: float) -> float:
        """The median time of an evaluation of all rows."""
        rows = self._rows(task)
        weights, bias = np.zeros((rows.n_logits, task.n_features)), np.zeros(rows.n_logits)
        out = np.empty_like(weights)

        def run() -> None:
            rows.loss_grad(weights, bias, out=out)

        return timed(run, seconds)

    def _rows(self, task: Task) -> Any:
        from fastsoftmax._dask import fits
        from fastsoftmax.dask import DaskFastSoftmax
        from fastsoftmax.shards.rows import Rows

        size, parts = max(1, int(task.n_rows) // PARTITIONS), []
        for worker, address in enumerate(sorted(self.client.nthreads())):
            for place in cluster_model.places_of(worker, PARTITIONS, self.n_workers):
                made = self.client.submit(_part, task, size, place, workers=[address], pure=False)
                parts.append(made)
        given = fits.Given(self.client, parts, None, None, range(task.n_classes))
        _, shards = fits.found_shards(DaskFastSoftmax(), given)
        return Rows(shards)


def timed(run: Callable[[], None], seconds: float) -> float:
    """The median time of some runs, after two that are not counted."""
    for _ in range(2):
        run()
    times, start = list[float](), time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


class Report:
    """What was measured, and the rows of the results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.rows = options, list[dict[str, Any]]()
        self.floor = Floor(1)
        self.measured: dict[str, dict[int, float]] = {}

    def measure(self, tasks: dict[str, Task]) -> None:
        """Measure evaluations of all tasks with every number of workers."""
        asked = {"latency": LATENCY, "traffic": TRAFFIC, **tasks}
        for n_workers in self.options.workers:
            say(f"{n_workers} local workers")
            with Local(n_workers) as local:
                for name, task in asked.items():
                    took = local.evaluation(task, self.options.seconds)
                    self.measured.setdefault(name, {})[n_workers] = took

    def network(self) -> tuple[float, float, float]:
        """Seconds of the first worker, of one more, and bytes a second."""
        counts, took = np.array(list(self.measured["latency"].items())).T
        each = max(0.0, float(np.polyfit(counts, took, 1)[0])) if len(counts) > 1 else 0.0
        first = float(np.mean(took - each * (counts - 1)))
        links = []
        for n, seconds in self.measured["traffic"].items():
            n_bytes = cluster_model.traffic_bytes(TRAFFIC, n, cluster_model.sums_of(PARTITIONS, n))
            links.append(n_bytes / max(1e-9, seconds - first - each * (n - 1)))
        return first, each, float(np.median(links))

    def check(self, tasks: dict[str, Task]) -> None:
        """Predict what was measured."""
        first, each, link = self.network()
        for name, task in tasks.items():
            sample = problem_of(task, min(SAMPLE_ROWS, int(task.n_rows)))
            flops = pass_speed(sample, self.options.seconds)
            read = 1e9 * self.floor.read(task.x_bytes)
            machines = Machines(flops, read, first, each, link, flops, np.inf, native.N_THREADS)
            for n, measured in self.measured[name].items():
                sums = cluster_model.sums_of(PARTITIONS, n)
                parts = cluster_model.evaluation(task, n, sums, machines)
                parts = replace(parts, client=0.0)  # the solver did not run
                row = {
                    "workload": f"{name}, {n} workers",
                    "task": name,
                    "workers": n,
                    "sums": sums,
                    "model, MB": rounded(task.model_bytes / 1e6),
                    "pass, GFLOP/s": rounded(flops / 1e9),
                    "computing, s": rounded(parts.computing),
                    "messages, s": rounded(parts.messages),
                    "traffic, s": rounded(parts.traffic),
                    "predicted, s": rounded(parts.total),
                    "measured, s": rounded(measured),
                }
                self.rows.append(row)
                print(shown(row), flush=True)

    def predict(self, scale: float) -> None:
        """Predict evaluations of large tasks on machines that are not there."""
        first, each, _ = self.network()
        more = CORES * EFFICIENCY ** np.log2(CORES)
        for name, task in LARGE.items():
            flops = more * pass_speed(_sample(name, task, scale), self.options.seconds)
            machines = Machines(flops, MEMORY, first, each, LINK, flops, MEMORY)
            best = cluster_model.best_workers(task, machines)
            parts = [cluster_model.evaluation(task, n, n, machines) for n in COUNTS]
            others = [cluster_model.all_reduced(task, n, machines) for n in COUNTS]
            at_best = cluster_model.evaluation(task, best, best, machines)
            row = {
                "workload": name,
                "task": name,
                "X, GB": rounded(task.x_bytes / 1e9),
                "pass, TFLOP": rounded(task.pass_flops / 1e12),
                "worker, GFLOP/s": rounded(flops / 1e9),
                "model, MB": rounded(task.model_bytes / 1e6),
                "client, GB": rounded(task.client_bytes / 1e9),
                "best workers": best,
                "best, s": rounded(at_best.total),
                "best parts, s": {key: rounded(value) for key, value in vars(at_best).items()},
                "workers": list(COUNTS),
                "seconds": [rounded(part.total) for part in parts],
                "all-reduced, s": [rounded(part.total) for part in others],
                "first worker, ms": rounded(1e3 * first),
                "each worker, ms": rounded(1e3 * each),
                "assumed": ASSUMED,
            }
            self.rows.append(row)
            print(shown(row), flush=True)


def _sample(name: str, task: Task, scale: float) -> problems.Problem:
    n_features, n_classes = SAMPLES[name]
    n_rows = problems.scaled_rows(SAMPLE_ROWS, scale)
    if task.numbers_per_row is None:
        problem = problems.probe(n_rows, n_features, n_classes)
        return problem.stored_as("float16") if task.number_bytes == 2 else problem
    return problems.text(n_rows, n_features, n_classes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, predict, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", nargs="*", type=int, default=WORKERS, help="local ones")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    described, report = record.describe(), Report(options)
    tasks = {
        name: replace(task, n_rows=problems.scaled_rows(int(task.n_rows), options.scale))
        for name, task in CHECKED.items()
    }
    report.measure(tasks)
    report.check(tasks)
    report.predict(options.scale)
    if options.json:
        floor = report.floor.as_dict()
        record.Record(CLUSTER, options.scale, described, floor, report.rows).write(options.json)
    return 0
