"""Time and memory to a relative gap from the optimum: ourselves and every rival that is installed.

    python bench/fit_to_optimum.py                             everything, hours
    python bench/fit_to_optimum.py --workloads classics fashion --limit 300
    python bench/fit_to_optimum.py --scale 0.02 --limit 5      a trial run
    python bench/fit_to_optimum.py --json bench/results/fit_to_optimum.json
    python bench/fit_chart.py                                  the chart, from that file

Workloads may be measured one after another into the same file, with the limits that suit each.

The gap is (F - F_best) / F_best, both computed here in float64 from the coefficients; F_best is the
lowest F of all fits, of which one is our own in float64 to a certified 1e-10. Rivals have no
callback that costs nothing, so each makes fits of 1, 2, 4, ... times as many iterations, every one
from zero in a process of its own, until the smallest gap or the time limit; then more in between,
for those that may be the fastest and for scikit-learn's default solver. The time to a gap is that
of the quickest fit that reaches it. One that comes to its own end in float32 tries float64 too.

Ourselves are timed the same way (`reached`: as many iterations as a traced fit shows to be needed,
and the whole fit timed and judged), and as users call it (`certified`: tol is the gap, and the fit
has proved it).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fit_process
import machine
import numpy as np
import races
from fit_contestants import NATIVE, OURS, RIVALS, Contestant
from fit_ladder import Ladder, Point, fastest, refine_fastest
from fit_process import Store
from fit_workloads import WORKLOADS, Workload, made, names_of
from objectives import objective
from summary import DEFAULT_RIVAL, FITS, fit_lines

REFERENCE = {"tol": 1e-10, "max_iter": 20_000}
REFERENCE_LIMIT = 1800.0
OUR_MOST_ITERATIONS = 20_000
TRACE_SHARE = 0.01  # the trace goes on to a certificate of this share of the smallest gap


class Comparison:
    """One workload: the fits that are made of it, and what is known from them.

    Points hold "objective", and "gap" to the best objective so far; `as_row` makes the last ones.
    """

    def __init__(self, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
        self.workload, self.options = workload, options
        self.problem = made(workload, options.scale)
        self.limit = min(options.limit, workload.limit)
        self.best, self.best_by = np.inf, ""
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
            "input_scale": scale if storage == "as is" else 1.0,
            "n_classes": self.problem.n_classes,
            "n_threads": self.options.threads,
            "repeat_seconds": repeat_seconds,
        }
        found = fit_process.fit(self._store.folder, job, limit)
        if "failed" not in found:
            W, b = found.pop("W"), found.pop("b")
            value = objective(self.problem, self.workload.C, W, b, input_scale=scale)
            found |= {"objective": value} if np.isfinite(value) else {"failed": "not finite"}
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
        """Our own fit in float64: what gaps are measured from, unless someone gets lower."""
        self.fit(NATIVE, "float64", REFERENCE, REFERENCE_LIMIT, repeat_seconds=0.0)

    def run_rivals(self) -> None:
        """Everyone's ladder, then more rungs for those that may be the fastest."""
        smallest = self.workload.gaps[-1]
        n_params = self.problem.n_logits * (self.problem.X.shape[1] + 1)
        for rival in RIVALS:
            wanted = any(part in rival.name for part in self.options.rivals)
            if not (rival.is_here and wanted):
                continue
            if why := rival.sits_out(n_params, self.problem.n_classes):
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
        """Fits that decide are made several times, if that takes no longer than the limit."""
        point = ladder.reaching(gap)
        more = self.options.repeats - len(point["runs"]) if point else 0
        if point and more > 0 and more * point["seconds"] <= self.limit:
            for _ in range(more):
                ladder.run(point["max_iter"])

    def run_ours(self) -> dict[str, Any]:
        """Our trace, the fits that reach each gap, and those that certify it."""
        limit = self.limit
        tol = TRACE_SHARE * self.workload.gaps[-1]
        settings = {"tol": tol, "max_iter": OUR_MOST_ITERATIONS, "trace": True}
        traced = self.fit(NATIVE, "as is", settings, limit, repeat_seconds=0.0)
        trace = traced.get("trace", [])
        ladder = Ladder(
            lambda max_iter: self.fit(NATIVE, "as is", {"tol": tol, "max_iter": max_iter}, limit)
        )
        certified = {}
        for gap in self.workload.gaps:
            below = [i for i, (_, value) in enumerate(trace, 1) if self._gap(value) <= gap]
            # A pass in float32 may be wrong in the last digits that count.
            for n_iter in below[:3]:
                point = ladder.run(n_iter)
                if point is not None and point["gap"] <= gap:
                    break
            self._repeat(ladder, gap)
            found = [
                self.fit(NATIVE, "as is", {"tol": gap}, limit) for _ in range(self.options.repeats)
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
        trace = [(_round(t), _round(self._gap(value))) for t, value in ours["trace"]]
        return {
            "workload": key,
            "commit": self.options.commit,
            "task": f"{self.workload.title}, {self.problem.size}, C = {self.workload.C:g}",
            "best": self.best,
            "best by": self.best_by,
            "limit, s": self.limit,
            "default limit, s": max(
                self.limit, min(self.options.default_limit, self.workload.limit)
            ),
            "threads": self.options.threads,
            "gaps": [f"{gap:.0e}" for gap in self.workload.gaps],
            "aims": {f"{gap:.0e}": aims for gap, aims in self.workload.aims.items()},
            "contestants": contestants,
            "certified": certified,
            "trace": trace,
            "notes": self.notes,
        }

    def _final(self, point: Point) -> Point:
        """A point with the gap to the best of all, and no more digits than mean something."""
        point["gap"] = self._gap(point["objective"])
        kept = {name: value for name, value in point.items() if name not in ("objective", "fits")}
        for name, value in kept.items():
            if isinstance(value, float):
                kept[name] = _round(value)
        if "runs" in kept:
            kept["runs"] = [_round(value) for value in kept["runs"]]
        return kept


def compare(key: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """All fits of a workload; None where its data is not here."""
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(WORKLOADS[key], Path(folder), options)
        if comparison.problem is None:
            return None
        _say(f"{key}: {comparison.problem.size}")
        comparison.run_reference()
        comparison.run_rivals()
        # Last, when the best objective is known from which the gaps of the trace are measured.
        return comparison.as_row(key, comparison.run_ours())


def earlier_rows(
    path: Path | None, scale: float, described: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Rows of a file by workload, which a run of other workloads keeps.

    Of the same machine and versions only; each row names the commit that it was measured at.
    """
    if path is None or not path.exists():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    before, now = ({**info, "commit": ""} for info in (record["machine_info"], described))
    if (record["kind"], record["scale"], before) != (FITS, scale, now):
        return {}
    commit = record["machine_info"]["commit"]
    return {row["workload"]: {"commit": commit, **row} for row in record["rows"]}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workloads, print their tables, write JSON after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", nargs="*", default=[], help="names; none for all")
    parser.add_argument("--rivals", nargs="*", default=[""], help="those whose names hold one")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a fit at most")
    parser.add_argument(
        "--default-limit",
        type=float,
        default=0.0,
        help="the same for scikit-learn's default solver",
    )
    parser.add_argument("--repeats", type=int, default=3, help="of the fits that decide")
    parser.add_argument("--repeat-seconds", type=float, default=1.0, help="of fits in a process")
    parser.add_argument("--refine", type=int, default=2, help="rounds of rungs in between")
    parser.add_argument("--threads", type=int, default=races.N_THREADS)
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    described = machine.describe()
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
            machine.write_results(options.json, FITS, options.scale, described, {}, ordered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
