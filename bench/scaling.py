"""How much quicker more threads are: the native kernels with 1, 2, ... threads, in turn.

    python bench/scaling.py                                      all tasks, for people
    python bench/scaling.py --rows text --seconds 30             tasks whose arguments hold a word
    python bench/scaling.py --scale 0.01 --seconds 0             a trial run in a minute
    python bench/scaling.py --json bench/results/scaling.json

Turns as in compare.py, answers checked first with each number of threads. The floor is measured
with each number of threads too: what is bound by memory can gain no more than memory does.
"""

import argparse
import functools
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import machine
import numpy as np
import races
import races_pass
import races_rows
import races_sgd
from floor import Floor
from harness import Race

FASHION = {"kind": "fashion", "sizes": (60_000,)}
TEXT = {"kind": "text", "sizes": (90_000, 200_000, 20)}
TASKS: list[tuple[Callable[..., Race], dict[str, Any]]] = [
    (races_pass.loss_grad, FASHION),
    (races_pass.loss_grad, {"kind": "probe", "sizes": (50_000, 512, 100)}),
    (races_pass.loss_grad, TEXT),
    (races_rows.softmax, {"operation": "softmax", "n_rows": 10_000, "n_classes": 1_000}),
    (races_sgd.sgd_epoch, FASHION),
    (races_sgd.sgd_epoch, TEXT),
]


def thread_counts(most: int) -> list[int]:
    """1 to 8, then 12, 16, 24, 32, 48, ... below `most`, and that."""
    steps = [*range(1, 9), *(k << i for i in range(2, 9) for k in (3, 4))]
    return [*(n for n in steps if n < most), most]


def scaling(race: Race, floors: dict[int, Floor], seconds: float) -> dict[str, Any]:
    """Time a race's native contestant with each number of threads."""
    assert race.by_threads is not None
    runs = {f"native, threads: {n}": functools.partial(race.by_threads, n) for n in floors}
    race.runs |= runs
    for name in runs:
        race.verify(name)
    times = harness.take_turns(list(runs.values()), seconds=seconds)
    medians = [float(np.median(values)) for values in times]
    row = {
        "task": race.name,
        "threads": list(floors),
        "median, ms": _rounded(1e3 * median for median in medians),
        "min, ms": _rounded(1e3 * min(values) for values in times),
        "speed-up": _rounded(medians[0] / median for median in medians),
        "rounds": len(times[0]),
    }
    least = [race.work and floor.seconds(race.work) for floor in floors.values()]
    if all(least):
        row["floor, ms"] = _rounded(1e3 * value for value in least)
        row["floor speed-up"] = _rounded(least[0] / value for value in least)
    return row


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def line(row: dict[str, Any]) -> str:
    """A result for people."""
    gains = ", ".join(
        f"{n}: {gain:.3g}" for n, gain in zip(row["threads"], row["speed-up"], strict=True)
    )
    most = f" (floor {row['floor speed-up'][-1]:.3g})" if "floor speed-up" in row else ""
    return f"{row['task']:<64} {row['median, ms'][0]:>9} ms  times quicker by threads {gains}{most}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tasks, print them, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rows", default="", help="only tasks whose builder or arguments hold this"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each task, at least")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    described = machine.describe()
    floors = {n: Floor(n) for n in thread_counts(races.N_THREADS)}
    results = []
    for builder, given in TASKS:
        if options.rows not in f"{builder.__name__} {given}":
            continue
        results.append(scaling(builder(**given, scale=options.scale), floors, options.seconds))
        gc.collect()
        print(line(results[-1]), flush=True)
    if options.json:
        floor = floors[races.N_THREADS].as_dict()
        machine.write_results(options.json, "scaling", options.scale, described, floor, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
