"""A model of a fit's cost, compared with measured fits, and what it says about ImageNet.

    python bench scale                                 measures fits too, minutes
    python bench scale --no-fits --iterations 40       speeds and predictions only, a minute
    python bench scale --shapes 20000                  measured fits whose names hold this
    python bench scale --scale 0.01 --seconds 0        a trial run
    python bench scale --json bench/results/scale.json

`cost_model` holds the formulas. The speeds in them are measured here: reading memory, and a pass
over some rows of each shape, with one thread and with all. Iterations are `n_iter_` of the
measured fit; ImageNet's are those of the last measured fit. So the
comparison tests what an iteration costs, not how many there are.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fits import process
from fits.contestants import FASTSOFTMAX
from fits.cost_model import (
    EFFICIENCY,
    VECTORS,
    Counts,
    Rates,
    Size,
    memory,
    seconds,
    vectors_of,
)
from fits.process import Store
from fits.referee import say
from measuring import harness, problems, record
from measuring.floor import Floor
from measuring.harness import rounded
from races import native
from results.scale import SCALE, shown

SAMPLE_ROWS = 4096  # of a pass that is timed
C, GAP = 10.0, 1e-4
CORES = (2, 16)


class Shape(NamedTuple):
    """Rows of made-up embeddings."""

    n_rows: int
    n_features: int
    n_classes: int
    storage: str

    @property
    def name(self) -> str:
        return f"{self.n_rows} x {self.n_features}, K = {self.n_classes}, {self.storage}"

    @property
    def size(self) -> Size:
        return Size(*self[:3], np.dtype(self.storage).itemsize)

    def problem(self, n_rows: int) -> problems.Problem:
        return problems.probe(n_rows, *self[1:3]).stored_as(self.storage)


MEASURED = [Shape(20_000, 768, 1000, "float32"), Shape(100_000, 1024, 1000, "float16")]
IMAGENET = Shape(1_281_167, 2048, 1000, "float16")


def rates_of(shape: Shape, n_threads: int, least_seconds: float, floor: Floor) -> Rates:
    """The speeds of a shape, from a pass over some of its rows."""
    n_rows = min(shape.n_rows, SAMPLE_ROWS)
    problem = shape.problem(n_rows)
    run = native.loss_and_gradient(problem, *problems.weights(problem))
    threads = sorted({1, n_threads})
    runs = [lambda n=n: run(n_threads=n) for n in threads]
    times = harness.take_turns(runs, seconds=least_seconds, least_rounds=3)
    medians = [float(np.median(values)) for values in times]
    flops = shape._replace(n_rows=n_rows).size.pass_flops / medians[-1]
    doublings = np.log2(n_threads)
    gain = medians[0] / medians[-1] / n_threads
    efficiency = min(1.0, float(gain ** (1.0 / doublings))) if n_threads > 1 else EFFICIENCY
    return Rates(n_threads, flops, 1e9 * floor.read(shape.size.x_bytes), efficiency)


def fitted(shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """A fit to a certified gap in a process of its own, with its time, memory and counts."""
    problem = shape.problem(shape.n_rows)
    present, labels = np.unique(problem.labels, return_inverse=True)  # few rows lack classes
    job = {
        "contestant": FASTSOFTMAX.name,
        "storage": "as is",
        "settings": {"tol": GAP},
        "limit": options.limit,
        "repeat_seconds": 0.0,
        "C": C,
        "l1_ratio": 0.0,
        "input_scale": 1.0,
        "n_classes": len(present),
        "n_threads": options.threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.write(problem._replace(labels=labels.astype(np.int64)), "as is")
        del problem  # its memory: the process has rows of its own
        (answer,) = process.fits(store.folder, [job])
    return answer


class Report:
    """Rows of the table, and what later ones take from earlier ones."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.floor = Floor(options.threads)
        self.rows: list[dict[str, Any]] = []
        self.counts = Counts(options.iterations, options.preconditioners)
        self.source = "given"  # of the counts
        self.vectors: float | None = None

    def add_measured(self, shape: Shape) -> None:
        """Predict a fit, and measure it if that is wanted."""
        options = self.options
        say(shape.name)
        rates = rates_of(shape, options.threads, options.seconds, self.floor)
        found = fitted(shape, options) if options.fits else {}
        if "failed" in found:
            say(f"  the fit: {found['failed']}")
            found = {}
        if found:
            self.counts = Counts(int(found["n_iter"]), options.preconditioners)
            self.source = shape.name
        self._add(shape, rates, found)
        if found and self.vectors is None:  # the first one: the others test it
            self.vectors = vectors_of(shape.size, 1e6 * found["MB"])

    def add_predicted(self, shape: Shape, cores: Sequence[int]) -> None:
        """Predict a fit on machines with more cores."""
        say(shape.name)
        rates = rates_of(shape, self.options.threads, self.options.seconds, self.floor)
        for n_cores in cores:
            self._add(shape, rates.on(n_cores), {})

    def _add(self, shape: Shape, rates: Rates, found: dict[str, Any]) -> None:
        size, counts = shape.size, self.counts
        parts = seconds(size, counts, rates)
        n_bytes = memory(size, VECTORS if self.vectors is None else self.vectors)
        row = {
            "workload": f"{shape.name}, {rates.n_threads} cores",
            "task": shape.name,
            "cores": rates.n_threads,
            "X, GB": rounded(size.x_bytes / 1e9),
            "pass, TFLOP": rounded(size.pass_flops / 1e12),
            "pass, GFLOP/s": rounded(rates.flops / 1e9),
            "efficiency": rounded(rates.efficiency),
            "counts of": self.source,
            **asdict(counts),
            "predicted, s": rounded(parts.total),
            "predicted, MB": rounded(n_bytes / 1e6),
            "parts, s": {name: rounded(value) for name, value in asdict(parts).items()},
        }
        if found:
            row |= {
                "measured, s": rounded(found["seconds"]),
                "measured, MB": rounded(found["MB"]),
                "certified": found["certified"],
            }
        self.rows.append(row)
        print(shown(row), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, predict, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", nargs="*", default=[""], help="measured ones that hold one")
    parser.add_argument("--no-fits", dest="fits", action="store_false", help="speeds only")
    parser.add_argument("--cores", nargs="*", type=int, default=CORES, help="of predictions")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--seconds", type=float, default=3.0, help="of the passes of a shape")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of a fit at most")
    parser.add_argument("--threads", type=int, default=native.N_THREADS)
    parser.add_argument("--iterations", type=int, default=40, help="where no fit is measured")
    parser.add_argument("--preconditioners", type=int, default=1, help="after the first one")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    described, report = record.describe(), Report(options)

    def scaled(shape: Shape) -> Shape:
        return shape._replace(n_rows=problems.scaled_rows(shape.n_rows, options.scale))

    for shape in MEASURED:
        if any(part in shape.name for part in options.shapes):
            report.add_measured(scaled(shape))
    report.add_predicted(scaled(IMAGENET), options.cores)
    if options.json:
        floor = report.floor.as_dict()
        record.Record(SCALE, options.scale, described, floor, report.rows).write(options.json)
    return 0
