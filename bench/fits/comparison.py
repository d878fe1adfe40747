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
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fits.contestants import FASTSOFTMAX, OURS, RIVALS, Contestant
from fits.ladder import Ladder, Point, fastest, refine_fastest
from fits.referee import MOST_ITERATIONS, Referee, add_options, run_each, say
from fits.workloads import GROUPS, WORKLOADS, Workload, names_of
from measuring.harness import rounded
from results.tables import DEFAULT_RIVAL, FITS, fit_lines

TRACE_SHARE = 0.01  # the trace goes on to a certificate of this share of the smallest gap
NOT_WRITTEN = ("objective", "fits", "nonzero", "CPU seconds")  # of points


class Comparison:
    """One workload and its fits.

    Points hold "objective", and "gap" to the best objective so far. `as_row` computes the gaps to
    the best of all.
    """

    def __init__(self, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
        self.workload, self.options = workload, options
        self.referee = Referee(workload, folder, options)
        self.problem = self.referee.problem
        self.limit = min(options.limit, workload.limit)
        self.nonzero = 0
        self.ladders: dict[str, Ladder] = {}
        self.notes: dict[str, str] = {}

    def run_reference(self) -> None:
        """Find what gaps are measured from."""
        self.nonzero = self.referee.run_reference().get("nonzero", 0)

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
        return Ladder(
            lambda max_iter: self.referee.fit(contestant, storage, {"max_iter": max_iter}, limit)
        )

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
        traced = self.referee.fit(FASTSOFTMAX, "as is", settings, limit, repeat_seconds=0.0)
        trace = traced.get("trace", [])

        def fit_for(max_iter: int) -> dict[str, Any]:
            return self.referee.fit(FASTSOFTMAX, "as is", {"tol": tol, "max_iter": max_iter}, limit)

        ladder = Ladder(fit_for)
        certified = {}
        for gap in self.workload.gaps:
            below = [i for i, (_, value) in enumerate(trace, 1) if self.referee.gap(value) <= gap]
            # The objective of the trace is in float32: its last digits may be wrong.
            for n_iter in below[:3]:
                point = ladder.run(n_iter)
                if point is not None and point["gap"] <= gap:
                    break
            self._repeat(ladder, gap)
            found = [
                self.referee.fit(FASTSOFTMAX, "as is", {"tol": gap}, limit)
                for _ in range(self.options.repeats)
            ]
            found = [point for point in found if "failed" not in point]
            if found:
                seconds = [point["seconds"] for point in found]
                certified[f"{gap:.0e}"] = {**found[0], "seconds": float(np.median(seconds))}
        self.ladders = {OURS: ladder, **self.ladders}
        return {"trace": trace, "certified": certified}

    def as_row(self, ours: dict[str, Any]) -> dict[str, Any]:
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
        trace = [(rounded(t), rounded(self.referee.gap(value))) for t, value in ours["trace"]]
        n_coefficients = self.problem.n_logits * self.problem.X.shape[1]
        sparsity = {"nonzero": self.nonzero, "coefficients": n_coefficients}
        return {
            "task": self.workload.describe(self.problem),
            "best": self.referee.best,
            "best by": self.referee.best_by,
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
        point["gap"] = self.referee.gap(point["objective"])
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
        say(f"{key}: {comparison.problem.size}")
        comparison.run_reference()
        comparison.run_rivals()
        # Last: the gaps of the trace are measured from the best objective of all.
        return comparison.as_row(comparison.run_ours())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workloads, print their tables, write JSON after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--workloads", nargs="*", default=[], help=f"{', '.join(GROUPS)} or names; none for all"
    )
    add_options(parser)
    parser.add_argument(
        "--default-limit",
        type=float,
        default=0.0,
        help="the same for scikit-learn's default solver",
    )
    parser.add_argument("--refine", type=int, default=2, help="rounds of fits in between")
    options = parser.parse_args(arguments)
    return run_each(
        FITS,
        names_of(options.workloads),
        list(WORKLOADS),
        compare,
        lambda row: "\n".join(fit_lines([row])),
        options,
    )
