"""Ratios: two contestants of a race timed in turn in one process, round by round.

    python bench/compare.py                              the whole table
    python bench/compare.py --rows softmax --seconds 30  rows whose name holds a word, for longer
    python bench/compare.py --scale 0.01 --seconds 0     a trial run in a minute
    python bench/compare.py --json bench/results/ratios.json

A turn waits until the process rests (`harness.settle`), calls once without timing, then times calls
for 20 ms; the order is reversed in every other round (`harness.take_turns`). The ratio is that of
the medians; the range beside it holds nine tenths of the ratios within rounds. Answers are checked
before the first round.
"""

import argparse
import gc
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import machine
import numpy as np
import problems
import races
import races_pass
import races_predict
import races_rows
import races_sgd
from floor import Floor
from harness import NATIVE, ONE_THREAD, Race


@dataclass(frozen=True)
class Row:
    """A line of the table: how many times quicker `ours` is to be than `rival`."""

    builder: Callable[..., Race]
    arguments: dict[str, Any]
    rival: str
    aim: float
    ours: str = NATIVE


FASHION = {"kind": "fashion", "sizes": (60_000,)}
PROBE_100 = {"kind": "probe", "sizes": (50_000, 512, 100)}
PROBE_1000 = {"kind": "probe", "sizes": (20_000, 768, 1000)}
TEXT = {"kind": "text", "sizes": (90_000, 200_000, 20)}
ONE_ROW = {"kind": "fashion", "sizes": (1,)}
SHAPES = [(100_000, 10), (10_000, 1_000), (1_000, 100_000)]
ROWS = [
    Row(races_pass.loss_grad, FASHION, "numpy", 5.0),
    Row(races_pass.loss_grad, {**FASHION, "storage": "float64"}, "numpy", 5.0),
    Row(races_pass.loss_grad, {**FASHION, "storage": "float16"}, "numpy", 5.0),
    Row(races_pass.loss_grad, {**FASHION, "storage": "uint8"}, "numpy", 7.0),
    Row(races_pass.loss_grad, PROBE_100, "numpy", 2.0),
    Row(races_pass.loss_grad, PROBE_1000, "numpy", 1.8),
    Row(races_pass.loss_grad, PROBE_100, ONE_THREAD, 1.8),
    Row(races_pass.loss_grad, TEXT, races.SCIPY, 4.0),
    Row(races_sgd.sgd_epoch, FASHION, "torch", 5.0),
    *(
        Row(races_rows.softmax, {"operation": "softmax", "n_rows": n, "n_classes": K}, "torch", aim)
        for (n, K), aim in zip(SHAPES, (5.0, 1.0, 1.0), strict=True)
    ),
    *(
        Row(races_rows.cross_entropy_rows, {"n_rows": n, "n_classes": K}, "torch", 3.0)
        for n, K in SHAPES
    ),
    Row(races_predict.predict, {"method": "predict_proba", **FASHION}, "scikit-learn", 5.0),
    Row(races_predict.predict, {"method": "predict_proba", **ONE_ROW}, "scikit-learn", 3.0),
]
MEMORY_AIM_MB = 20.0


def compare(race: Race, row: Row, floor: Floor, seconds: float) -> dict[str, Any] | None:
    """Time a row; None where a contestant is missing here.

    A rival with several ways to do the task ("numpy", "numpy, ...") is raced in all of them, and
    the one with the lowest median counts.
    """
    names = [row.ours, *(name for name in race.runs if name.startswith(row.rival))]
    if row.ours not in race.runs or len(names) < 2:
        return None
    for name in names:
        race.verify(name)
    runs = [race.runs[name] for name in names]
    ours, *others = harness.take_turns(runs, seconds=seconds)
    best = int(np.argmin(np.median(others, axis=1)))
    theirs = others[best]
    within = np.quantile(np.divide(theirs, ours), [0.05, 0.95])
    median = float(np.median(ours))
    return {
        "task": race.name,
        "ours": row.ours,
        "rival": names[1 + best],
        "median, ms": _round(1e3 * median),
        "min, ms": _round(1e3 * min(ours)),
        "rival median, ms": _round(1e3 * float(np.median(theirs))),
        "rival min, ms": _round(1e3 * min(theirs)),
        "ratio": _round(float(np.median(theirs)) / median),
        "ratio of minima": _round(min(theirs) / min(ours)),
        "range": [_round(value) for value in within],
        "aim": row.aim,
        "rounds": len(ours),
        **harness.rates(race.work, median, floor),
    }


def memory(scale: float) -> dict[str, Any]:
    """Memory that one pass takes beside X and its results, with 1000 classes, in MB."""
    n_rows, n_features, n_classes = PROBE_1000["sizes"]
    problem = problems.probe(races.n_rows_of(n_rows, scale), n_features, n_classes)
    W, b = problems.weights(problem)
    run = races_pass.native_pass(problem, W, b)
    run(n_threads=races.N_THREADS)
    tracemalloc.start()  # sees numpy's arrays and the kernels' scratch
    run(n_threads=races.N_THREADS)
    taken = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return {
        "task": f"memory of loss + gradient, {problem.size}",
        "MB": _round(taken),
        "logits, MB": _round(len(problem.X) * n_classes * 4 / 1e6),
        "aim": MEMORY_AIM_MB,
    }


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def line(result: dict[str, Any]) -> str:
    """A result for people."""
    if "MB" in result:
        return f"{result['task']:<64} {result['MB']:>6} MB, aim below {result['aim']:g} MB"
    low, high = result["range"]
    verdict = "" if result["ratio"] >= result["aim"] else "  MISSED"
    return (
        f"{result['task']:<64} {result['median, ms']:>9} ms  {result['rival']:<19}"
        f" {result['rival median, ms']:>9} ms  ratio {result['ratio']:<6}"
        f" ({low} to {high}), aim {result['aim']:g}{verdict}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows, print them, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default="", help="only tasks and rivals whose names hold this")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row, at least")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    floor, described = Floor(races.N_THREADS), machine.describe()
    results, previous, race = [], None, None
    for row in ROWS:
        if options.rows not in f"{row.builder.__name__} {row.arguments} {row.rival}":
            continue
        key = row.builder, repr(row.arguments)
        if key != previous:
            race = None  # the largest takes 2 GB: let go of one before the next is made
            gc.collect()
            race, previous = row.builder(**row.arguments, scale=options.scale), key
        result = compare(race, row, floor, options.seconds)
        if result is None:
            print(f"{race.name}: {row.rival} is not here", file=sys.stderr)
            continue
        results.append(result)
        print(line(result), flush=True)
    if options.rows in "memory":
        results.append(memory(options.scale))
        print(line(results[-1]))
    if options.json:
        floor_found = floor.as_dict()
        machine.write_results(
            options.json, "ratios", options.scale, described, floor_found, results
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
