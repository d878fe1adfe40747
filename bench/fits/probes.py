"""Linear probes of embeddings: fits to a gap of 1e-4, and a sweep over C.

    python bench probes                                      all, 15 to 20 minutes
    python bench probes --workloads "C 100" sweep            those whose names hold one of these
    python bench probes --scale 0.05 --limit 3 --repeats 1   a trial run
    python bench probes --json bench/results/probes.json

The rows are real embeddings (banking77, where the folder that FASTSOFTMAX_TEST_DATA names holds
them) and made-up ones. The gap is (F - F_best) / F_best, as in `comparison`. F_best is the lowest F
of all fits; one of them is ours in float64, certified to 1e-8.

1. Each rival makes fits of 1, 2, 4, ... times as many iterations, with a tolerance of 0, until one
   reaches the gap. A fit is ended after the time limit, or after twice the time of the fastest
   rival so far: it cannot be the fastest then.
2. Ours: the number of iterations that reaches the gap, from a traced fit.
3. All that reached the gap take turns in one process: our fit that reaches the gap (as rivals, it
   knows the number of iterations), our fit that proves it (tol = 1e-4), one pass over the rows, and
   the rivals. Figures are medians. Those that take long (`--once`) take one turn.

Equivalents of a pass: seconds of a fit divided by those of one pass (loss and gradient of all rows,
by our kernel), both from these turns.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fits import sweeps
from fits.comparison import TRACE_SHARE, Comparison
from fits.contestants import CONTESTANTS, FASTSOFTMAX, OURS, PASS, Contestant
from fits.ladder import fastest
from fits.referee import Entry, add_options, run_each, say
from fits.workloads import EMBEDDINGS, WORKLOADS, Workload
from measuring.harness import rounded
from results.probes import CERTIFIED, ONE_PASS, PROBES, REACHED, shown

GAP, REFERENCE_TOL = 1e-4, 1e-8
SLOWER, LEAST_LIMIT = 2.0, 2.0  # times the fastest rival, and seconds: there a fit is ended
SWEEP, SWEPT = "sweep of banking77", "banking77, C 10"
KEYS = (*EMBEDDINGS, "probe100", "probe1000", SWEEP)


class Probe(Comparison):
    """One workload: every fit once, then turns of those that count."""

    def __init__(self, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
        once = argparse.Namespace(**{**vars(options), "repeats": 1})
        tight = replace(workload, gaps=(GAP,), reference_tol=REFERENCE_TOL)
        super().__init__(tight, folder, once)
        self.n_turns, self.once = options.repeats, options.once

    def limit_of(self, contestant: Contestant) -> float:
        """Seconds of a fit at most."""
        limit = super().limit_of(contestant)
        best = fastest(self.ladders, GAP)
        if best is None:
            return limit
        return min(limit, max(LEAST_LIMIT, SLOWER * self.ladders[best].reaching(GAP)["seconds"]))

    def take_turns(self) -> dict[str, list[float]]:
        """Seconds of the turns of those that reached the gap; every other round is reversed."""
        limit, entries, long = self.limit, {}, set()
        for name, ladder in self.ladders.items():
            point = ladder.reaching(GAP)
            if point is None:
                continue
            if point["seconds"] > self.once:
                long.add(name)
            settings = {"max_iter": point["max_iter"]}
            if name == OURS:
                settings["tol"] = TRACE_SHARE * GAP
                entries[REACHED] = Entry(FASTSOFTMAX, "as is", settings, limit)
                continue
            family, _, real = name.partition(", ")
            storage = real or str(self.problem.real)
            entries[name] = Entry(CONTESTANTS[family], storage, settings, 2.0 * limit)
        entries[CERTIFIED] = Entry(FASTSOFTMAX, "as is", {"tol": GAP}, limit)
        entries[ONE_PASS] = Entry(PASS, "as is", {}, limit)
        turns = []
        for i in range(self.n_turns):
            order = list(entries) if i % 2 == 0 else list(entries)[::-1]
            turns += [name for name in order if i == 0 or name not in long]
        found = self.referee.fits([entries[name] for name in turns])
        runs: dict[str, list[float]] = {}
        for name, point in zip(turns, found, strict=True):
            if "failed" not in point:
                runs.setdefault(name, []).append(point["seconds"])
        return runs


def _turns_of(runs: dict[str, list[float]]) -> dict[str, Any]:
    """What is written of the turns."""
    medians = {name: float(np.median(values)) for name, values in runs.items()}
    turns: dict[str, Any] = {}
    for name, values in runs.items():
        turns[name] = {
            "seconds": rounded(medians[name]),
            "runs": [rounded(value) for value in values],
        }
        if name in (REACHED, CERTIFIED) and ONE_PASS in medians:
            turns[name]["passes"] = rounded(medians[name] / medians[ONE_PASS])
    return turns


def compare(key: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """All fits of a workload, or the sweep; None without its data."""
    if key == SWEEP:
        return sweeps.compare(WORKLOADS[SWEPT], options)
    with tempfile.TemporaryDirectory() as folder:
        probe = Probe(WORKLOADS[key], Path(folder), options)
        if probe.problem is None:
            return None
        say(f"{key}: {probe.problem.size}")
        probe.run_reference()
        probe.run_rivals()
        ours = probe.run_ours()
        runs = probe.take_turns()
        return {**probe.as_row(ours), "turns": _turns_of(runs)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workloads, print their tables, write JSON after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", nargs="*", default=[""], help="those whose names hold one")
    add_options(parser, limit=30.0, repeat_seconds=0.3)
    parser.add_argument("--once", type=float, default=8.0, help="seconds of a fit: one turn then")
    parser.add_argument("--refine", type=int, default=1, help="rounds of fits in between")
    parser.add_argument("--sweep-limit", type=float, default=240.0, help="seconds of a sweep")
    parser.add_argument("--n-cs", type=int, default=sweeps.N_CS, help="of the sweep")
    parser.add_argument("--folds", type=int, default=sweeps.N_FOLDS, help="of the sweep")
    parser.set_defaults(default_limit=0.0)
    options = parser.parse_args(arguments)
    keys = [key for key in KEYS if any(part in key for part in options.workloads)]
    return run_each(PROBES, keys, KEYS, compare, shown, options)
