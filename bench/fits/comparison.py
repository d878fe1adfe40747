"""Whole fits of all packages to the same relative gap from the optimum: time and peak memory.

    python bench fits                                        everything, hours
    python bench fits --workloads classics fashion --limit 300
    python bench fits --scale 0.02 --limit 5                 a trial run
    python bench fits --json bench/results/fit_to_optimum.json

Workloads may be measured one after another into the same file, with the limits that suit each.

The gap is (F - F_best) / F_best. F is computed here in float64 from everyone's coefficients, F_best
is the lowest F of all fits. One of these is our own in float64, certified to 1e-10 (elastic net:
1e-6).

Rivals have no callback that costs nothing. So each makes fits of 1, 2, 4, ... times as many
iterations, every one from zero in a process of its own, until the smallest gap or the time limit.
Then it makes more fits in between, if it may be the fastest or is scikit-learn's default solver.
The time to a gap is that of its quickest fit that reaches the gap. A rival that ends in float32
before the smallest gap tries again in float64.

Our fits are timed in two ways. `reached`: like a rival, with the number of iterations that a traced
fit has shown to be enough. `certified`: as users call it, tol is the gap and the fit has proved it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fits import process
from fits.contestants import FASTSOFTMAX, OURS, RIVALS, Contestant
from fits.ladder import Ladder, Point, fastest, refine_fastest
from fits.process import Store
from fits.workloads import GROUPS, WORKLOADS, Workload, names_of
from measuring import record
from measuring.harness import rounded
from races.native import N_THREADS
from results.tables import DEFAULT_RIVAL, FITS, fit_lines

MOST_ITERATIONS = 20_000
REFERENCE_LIMIT = 1800.0
TRACE_SHARE = 0.01  # the trace goes on to a certificate of this share of the smallest gap
NOT_WRITTEN = ("objective", "fits", "nonzero")  # of points


class Comparison:
    """One workload and its fits.

    Points hold "objective", and "gap" to the best objective so far. `as_row` computes the gaps to
    the best of all.
    """

    def __init__(self, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
        self.workload, self.options = workload, options
        self.problem = workload.problem(options.scale)
        self.limit = min(options.limit, workload.limit)
        self.best, self.best_by = np.inf, ""
        self.nonzero = 0
        self.ladders: dict[str, Ladder] = {}
        self.notes: dict[str, str] = {}
        self._store = Store(folder)
        self._stored: set[str] = set()

    def fit(
        self,
        contestant: Contestant,
        storage: str,
        settings: dict[str, Any],
        limit: float,
        repeat_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Make a fit; its time, memory, objective and gap."""
        scale = self.workload.input_scale
        if storage not in self._stored:
            self._store.write(self.problem, storage, scale)
            self._stored.add(storage)
        if repeat_seconds is None:
            repeat_seconds = self.options.repeat_seconds
        job = {
            "contestant": contestant.name,
            "storage": storage,
            "settings": settings,
            "C": self.workload.C,
            "l1_ratio": self.workload.l1_ratio,
            "input_scale": scale if storage == "as is" else 1.0,
            "n_classes": self.problem.n_classes,
            "n_threads": self.options.threads,
            "repeat_seconds": repeat_seconds,
        }
        found = process.fit(self._store.folder, job, limit)
        if "failed" not in found:
            W, b = found.pop("W"), found.pop("b")
            value = self.workload.objective(self.problem, W, b)
            found |= {"objective": value} if np.isfinite(value) else {"failed": "not finite"}
            found["nonzero"] = int(np.count_nonzero(W))
        if "failed" in found:
            _say(f"  {contestant.name} ({storage}) {settings}: {found['failed']}")
            return {"failed": found["failed"]}
        if found["objective"] < self.best:
            self.best, self.best_by = found["objective"], contestant.name
        found["gap"] = self._gap(found["objective"])
        _say(
            f"  {contestant.name} ({storage}) {settings}: {found['seconds']:.4g} s, "
            f"gap {found['gap']:.1e}, {found['MB']:.0f} MB"
        )
        return found

    def _gap(self, value: float) -> float:
        return (value - self.best) / self.best

    def run_reference(self) -> None:
        """Our own fit in float64: gaps are measured from it, unless another objective is lower."""
        settings = {"tol": self.workload.reference_tol, "max_iter": MOST_ITERATIONS}
        found = self.fit(FASTSOFTMAX, "float64", settings, REFERENCE_LIMIT, repeat_seconds=0.0)
        self.nonzero = found.get("nonzero", 0)

    def run_rivals(self) -> None:
        """The ladders of all rivals, then more fits of those that may be the fastest."""
        smallest = self.workload.gaps[-1]
        task = self.problem.n_logits * (self.problem.X.shape[1] + 1), self.problem.n_classes
        for rival in RIVALS:
            if not any(part in rival.name for part in self.options.rivals):
                continue
            if why := rival.absent(*task, self.workload.l1_ratio):
                self.notes[rival.name] = why
                continue
            storages = list(dict.fromkeys([str(self.problem.real), "float64"]))
            for i, storage in enumerate(storages):
                name = rival.name if i == 0 else f"{rival.name}, {storage}"
                ladder = self.ladders[name] = self._ladder(rival, storage)
                ladder.climb(rival.first, smallest, self.limit_of(rival))
                if not ladder.points:
                    self.notes[name] = ladder.ended
                    del self.ladders[name]
                if ladder.ended not in ("its own end", "no progress"):
                    break
        defaults = [name for name in self.ladders if name.startswith(DEFAULT_RIVAL)]
        for gap in self.workload.gaps:
            refine_fastest(self.ladders, gap, defaults, rounds=self.options.refine)
            for name in {fastest(self.ladders, gap), *defaults} - {None}:
                self._repeat(self.ladders[name], gap)

    def limit_of(self, contestant: Contestant) -> float:
        """Seconds of a fit at most; scikit-learn's default solver may have more."""
        default = contestant.name.startswith(DEFAULT_RIVAL)
        more = self.options.default_limit if default else self.options.limit
        return float(min(max(self.options.limit, more), self.workload.limit))

    def _ladder(self, contestant: Contestant, storage: str) -> Ladder:
        limit = self.limit_of(contestant)
        return Ladder(lambda max_iter: self.fit(contestant, storage, {"max_iter": max_iter}, limit))

    def _repeat(self, ladder: Ladder, gap: float) -> None:
        """Repeat a fit that counts, if that takes no longer than the limit."""
        point = ladder.reaching(gap)
        more = self.options.repeats - len(point["runs"]) if point else 0
        if point and more > 0 and more * point["seconds"] <= self.limit:
            for _ in range(more):
                ladder.run(point["max_iter"])

    def run_ours(self) -> dict[str, Any]:
        """Our trace, the fits that reach each gap, and those that certify it."""
        limit = self.limit
        tol = TRACE_SHARE * self.workload.gaps[-1]
        settings = {"tol": tol, "max_iter": MOST_ITERATIONS, "trace": True}
        traced = self.fit(FASTSOFTMAX, "as is", settings, limit, repeat_seconds=0.0)
        trace = traced.get("trace", [])

        def fit_for(max_iter: int) -> dict[str, Any]:
            return self.fit(FASTSOFTMAX, "as is", {"tol": tol, "max_iter": max_iter}, limit)

        ladder = Ladder(fit_for)
        certified = {}
        for gap in self.workload.gaps:
            below = [i for i, (_, value) in enumerate(trace, 1) if self._gap(value) <= gap]
            # The objective of the trace is in float32: its last digits may be wrong.
            for n_iter in below[:3]:
                point = ladder.run(n_iter)
                if point is not None and point["gap"] <= gap:
                    break
            self._repeat(ladder, gap)
            found = [
                self.fit(FASTSOFTMAX, "as is", {"tol": gap}, limit)
                for _ in range(self.options.repeats)
            ]
            found = [point for point in found if "failed" not in point]
            if found:
                seconds = [point["seconds"] for point in found]
                certified[f"{gap:.0e}"] = {**found[0], "seconds": float(np.median(seconds))}
        self.ladders = {OURS: ladder, **self.ladders}
        return {"trace": trace, "certified": certified}

    def as_row(self, key: str, ours: dict[str, Any]) -> dict[str, Any]:
        """What is written."""
        contestants = {}
        for name, ladder in self.ladders.items():
            points = [self._final(point) for point in ladder.points]
            reached = {f"{gap:.0e}": ladder.reaching(gap) for gap in self.workload.gaps}
            contestants[name] = {
                "ended": ladder.ended,
                "points": points,
                "reached": {gap: point["max_iter"] for gap, point in reached.items() if point},
            }
        certified = {gap: self._final(point) for gap, point in ours["certified"].items()}
        trace = [(rounded(t), rounded(self._gap(value))) for t, value in ours["trace"]]
        n_coefficients = self.problem.n_logits * self.problem.X.shape[1]
        sparsity = {"nonzero": self.nonzero, "coefficients": n_coefficients}
        return {
            "workload": key,
            "commit": self.options.commit,
            "task": self.workload.describe(self.problem),
            "best": self.best,
            "best by": self.best_by,
            **(sparsity if self.workload.l1_ratio else {}),
            "limit, s": self.limit,
            "default limit, s": max(
                self.limit, min(self.options.default_limit, self.workload.limit)
            ),
            "threads": self.options.threads,
            "gaps": [f"{gap:.0e}" for gap in self.workload.gaps],
            "contestants": contestants,
            "certified": certified,
            "trace": trace,
            "notes": self.notes,
        }

    def _final(self, point: Point) -> Point:
        """A point with the gap to the best of all fits, with four digits."""
        point["gap"] = self._gap(point["objective"])
        kept = {name: value for name, value in point.items() if name not in NOT_WRITTEN}
        for name, value in kept.items():
            if isinstance(value, float):
                kept[name] = rounded(value)
        if "runs" in kept:
            kept["runs"] = [rounded(value) for value in kept["runs"]]
        return kept


def compare(key: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """All fits of a workload; None without its data."""
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(WORKLOADS[key], Path(folder), options)
        if comparison.problem is None:
            return None
        _say(f"{key}: {comparison.problem.size}")
        comparison.run_reference()
        comparison.run_rivals()
        # Last: the gaps of the trace are measured from the best objective of all.
        return comparison.as_row(key, comparison.run_ours())


def earlier_rows(
    path: Path | None, scale: float, described: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """The rows of a file by workload, if they are of the same machine and versions.

    A run of other workloads keeps them. Each row names the commit at which it was measured.
    """
    if path is None or not path.exists():
        return {}
    known = record.read(path)
    before, now = ({**info, "commit": ""} for info in (known["machine_info"], described))
    if (known["kind"], known["scale"], before) != (FITS, scale, now):
        return {}
    commit = known["machine_info"]["commit"]
    return {row["workload"]: {"commit": commit, **row} for row in known["rows"]}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workloads, print their tables, write JSON after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--workloads", nargs="*", default=[], help=f"{', '.join(GROUPS)} or names; none for all"
    )
    parser.add_argument("--rivals", nargs="*", default=[""], help="those whose names hold one")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a fit at most")
    parser.add_argument(
        "--default-limit",
        type=float,
        default=0.0,
        help="the same for scikit-learn's default solver",
    )
    parser.add_argument("--repeats", type=int, default=3, help="of the fits that count")
    parser.add_argument("--repeat-seconds", type=float, default=1.0, help="of fits in a process")
    parser.add_argument("--refine", type=int, default=2, help="rounds of fits in between")
    parser.add_argument("--threads", type=int, default=N_THREADS)
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    described = record.describe()
    options.commit = described["commit"]
    rows = earlier_rows(options.json, options.scale, described)
    for key in names_of(options.workloads):
        row = compare(key, options)
        if row is None:
            _say(f"{key}: its data is not here")
            continue
        rows[key] = row
        print("\n".join(fit_lines([row])), flush=True)
        if options.json:  # after each: a long run may be cut off
            ordered = [rows[name] for name in WORKLOADS if name in rows]
            record.Record(FITS, options.scale, described, {}, ordered).write(options.json)
    return 0
