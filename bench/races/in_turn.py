"""Two tables of native contestants timed in turn with others, in one process.

    python bench ratios        native and its quickest rival
    python bench scaling       native with 1, 2, ... threads

    --rows softmax              only rows that hold a word
    --seconds 30                for each row, at least
    --scale 0.01 --seconds 0    a trial run in a minute
    --json FILE                 write the results

A turn waits until the process rests, calls once without timing, then times calls for 20 ms; the
order is reversed in every other round (`harness.take_turns`). Ratios are those of the medians.
Answers are checked before the first round, also with each number of threads.
"""

import argparse
import functools
import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import harness, problems, record
from measuring.floor import Floor
from measuring.harness import NATIVE, ONE_THREAD, Race, rounded
from measuring.problems import FASHION, ONE_ROW, PROBE_100, PROBE_1000, TEXT
from races import native, prediction, rivals, rows, training

Builder = Callable[..., Race]
LOGITS = [{"n_rows": n, "n_classes": K} for n, K in rows.SHAPES]
# Builder, arguments, and the rival that native is compared with.
RATIOS: list[tuple[Builder, dict[str, Any], str]] = [
    (training.loss_grad, FASHION, "numpy"),
    (training.loss_grad, {**FASHION, "storage": "float64"}, "numpy"),
    (training.loss_grad, {**FASHION, "storage": "float16"}, "numpy"),
    (training.loss_grad, {**FASHION, "storage": "uint8"}, "numpy"),
    (training.loss_grad, PROBE_100, "numpy"),
    (training.loss_grad, PROBE_1000, "numpy"),
    (training.loss_grad, PROBE_100, ONE_THREAD),
    (training.loss_grad, TEXT, training.SCIPY),
    (training.sgd_epoch, FASHION, "torch"),
    *((rows.softmax, {"operation": "softmax", **shape}, "torch") for shape in LOGITS),
    *((rows.cross_entropy_rows, shape, "torch") for shape in LOGITS),
    (prediction.predict, {"method": "predict_proba", **FASHION}, "scikit-learn"),
    (prediction.predict, {"method": "predict_proba", **ONE_ROW}, "scikit-learn"),
]
SCALING: list[tuple[Builder, dict[str, Any]]] = [
    (training.loss_grad, FASHION),
    (training.loss_grad, PROBE_100),
    (training.loss_grad, TEXT),
    (rows.softmax, {"operation": "softmax", "n_rows": 10_000, "n_classes": 1_000}),
    (training.sgd_epoch, FASHION),
    (training.sgd_epoch, TEXT),
]


def ratio(race: Race, rival: str, floor: Floor, seconds: float) -> dict[str, Any] | None:
    """Time native and a rival; None where the rival does not take part.

    A rival with several ways to do the task ("numpy", "numpy, ...") is timed in all of them, and
    the one with the lowest median counts. "range" holds nine tenths of the ratios within rounds.
    """
    names = [NATIVE, *(name for name in race.runs if name.startswith(rival))]
    if len(names) < 2:
        return None
    for name in names:
        race.verify(name)
    ours, *others = harness.take_turns([race.runs[name] for name in names], seconds=seconds)
    best = int(np.argmin(np.median(others, axis=1)))
    theirs = others[best]
    within = np.quantile(np.divide(theirs, ours), [0.05, 0.95])
    median = float(np.median(ours))
    return {
        "task": race.name,
        "ours": NATIVE,
        "rival": names[1 + best],
        "median, ms": rounded(1e3 * median),
        "min, ms": rounded(1e3 * min(ours)),
        "rival median, ms": rounded(1e3 * float(np.median(theirs))),
        "rival min, ms": rounded(1e3 * min(theirs)),
        "ratio": rounded(float(np.median(theirs)) / median),
        "ratio of minima": rounded(min(theirs) / min(ours)),
        "range": _all_rounded(within),
        "rounds": len(ours),
        **harness.rates(race.work, median, floor),
    }


def memory(scale: float) -> dict[str, Any]:
    """Memory of one pass with 1000 classes, in MB, without X and the results."""
    problem = problems.named(**PROBE_1000, scale=scale)
    W, b = problems.weights(problem)
    run = native.loss_and_gradient(problem, W, b)
    run(n_threads=native.N_THREADS)
    tracemalloc.start()  # sees numpy's arrays and the kernels' scratch
    run(n_threads=native.N_THREADS)
    taken = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return {
        "task": f"memory of loss + gradient, {problem.size}",
        "MB": rounded(taken),
        "logits, MB": rounded(len(problem.X) * problem.n_classes * 4 / 1e6),
    }


def thread_counts(most: int) -> list[int]:
    """1 to 8, then 12, 16, 24, 32, 48, ... below `most`, and `most`."""
    steps = [*range(1, 9), *(k << i for i in range(2, 9) for k in (3, 4))]
    return [*(n for n in steps if n < most), most]


def speed_up(race: Race, floors: dict[int, Floor], seconds: float) -> dict[str, Any]:
    """Time the native contestant of a race with each number of threads.

    The floor is measured with each of them too: a task that is bound by memory can gain only as
    much as the memory does.
    """
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
        "median, ms": _all_rounded(1e3 * median for median in medians),
        "min, ms": _all_rounded(1e3 * min(values) for values in times),
        "speed-up": _all_rounded(medians[0] / median for median in medians),
        "rounds": len(times[0]),
    }
    least = [race.work and floor.seconds(race.work) for floor in floors.values()]
    if all(least):
        row["floor, ms"] = _all_rounded(1e3 * value for value in least)
        row["floor speed-up"] = _all_rounded(least[0] / value for value in least)
    return row


def _all_rounded(values: Iterable[float]) -> list[float]:
    return [rounded(value) for value in values]


def _ratio_line(row: dict[str, Any]) -> str:
    """A result for people."""
    if "MB" in row:
        return f"{row['task']:<64} {row['MB']:>6} MB, n x K logits {row['logits, MB']:g} MB"
    low, high = row["range"]
    return (
        f"{row['task']:<64} {row['median, ms']:>9} ms  {row['rival']:<19}"
        f" {row['rival median, ms']:>9} ms  ratio {row['ratio']:<6} ({low} to {high})"
    )


def _scaling_line(row: dict[str, Any]) -> str:
    gains = ", ".join(
        f"{n}: {gain:.3g}" for n, gain in zip(row["threads"], row["speed-up"], strict=True)
    )
    most = f" (floor {row['floor speed-up'][-1]:.3g})" if "floor speed-up" in row else ""
    return f"{row['task']:<64} {row['median, ms'][0]:>9} ms  times quicker by threads {gains}{most}"


def _ratio_rows(options: argparse.Namespace, floor: Floor) -> Iterator[dict[str, Any]]:
    previous, race = None, None
    for builder, given, rival in RATIOS:
        if options.rows not in f"{builder.__name__} {given} {rival}":
            continue
        if (builder, given) != previous:
            race = None  # the largest takes 2 GB: free one before the next is made
            gc.collect()
            race, previous = builder(**given, scale=options.scale), (builder, given)
        row = ratio(race, rival, floor, options.seconds)
        if row is None:
            print(f"{race.name}: {rivals.why_absent(rival)}", file=sys.stderr)
        else:
            yield row
    if options.rows in "memory":
        yield memory(options.scale)


def _options(what: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument(
        "--rows", default="", help="only rows whose builder, arguments or rival hold this"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row, at least")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    return parser.parse_args(arguments)


def _report(
    rows: Iterable[dict[str, Any]], line: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any]]:
    """Print each row as soon as it is there; all of them."""
    kept = []
    for row in rows:
        kept.append(row)
        print(line(row), flush=True)
    return kept


def ratios(arguments: Sequence[str] | None = None) -> int:
    """The table of ratios to rivals."""
    options = _options("Native and its rivals, timed in turn", arguments)
    described, floor = record.describe(), Floor(native.N_THREADS)
    kept = _report(_ratio_rows(options, floor), _ratio_line)
    if options.json:
        written = record.Record("ratios", options.scale, described, floor.as_dict(), kept)
        written.write(options.json)
    return 0


def scaling(arguments: Sequence[str] | None = None) -> int:
    """The table of gains by threads."""
    options = _options("Native with 1, 2, ... threads, timed in turn", arguments)
    described = record.describe()
    floors = {n: Floor(n) for n in thread_counts(native.N_THREADS)}
    found = (
        speed_up(builder(**given, scale=options.scale), floors, options.seconds)
        for builder, given in SCALING
        if options.rows in f"{builder.__name__} {given}"
    )
    kept = _report(found, _scaling_line)
    if options.json:
        floor = floors[native.N_THREADS].as_dict()
        record.Record("scaling", options.scale, described, floor, kept).write(options.json)
    return 0
