"""Fits of one workload, judged by the same objective; and what the comparisons of fits share."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fits import process
from fits.contestants import FASTSOFTMAX, Contestant
from fits.process import Store
from fits.workloads import Workload
from measuring import record
from measuring.problems import DATA_VARIABLE
from races.native import N_THREADS

MOST_ITERATIONS = 20_000
REFERENCE_LIMIT = 1800.0


class Entry(NamedTuple):
    """A fit to be made."""

    contestant: Contestant
    storage: str  # the type of the rows; or "as is": as the workload has them, not scaled
    settings: dict[str, Any]  # of the estimator
    limit: float  # seconds


class Referee:
    """Has fits made, and computes their objectives and gaps.

    Attributes
    ----------
    problem : Problem or None
        None where its data is not here.
    best : float
        The lowest objective of all fits so far.
    best_by : str
        Whose it is.
    """

    def __init__(self, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
        self.workload, self._options = workload, options
        self.problem = workload.problem(options.scale)
        self.best, self.best_by = np.inf, ""
        self._store = Store(folder)
        self._stored: set[str] = set()

    def fits(
        self,
        entries: Sequence[Entry],
        *,
        repeat_seconds: float | None = None,
        n_threads: int | None = None,
    ) -> list[dict[str, Any]]:
        """Make fits in one process; for each its times, memory, objective and gap, or why not."""
        if repeat_seconds is None:
            repeat_seconds = self._options.repeat_seconds
        more = {
            "C": self.workload.C,
            "l1_ratio": self.workload.l1_ratio,
            "n_classes": self.problem.n_classes,
            "n_threads": n_threads or self._options.threads,
            "repeat_seconds": repeat_seconds,
        }
        jobs = [{**self._job(entry), **more} for entry in entries]
        answers = process.fits(self._store.folder, jobs)
        return [self._judged(*pair) for pair in zip(entries, answers, strict=True)]

    def fit(self, *entry: Any, repeat_seconds: float | None = None) -> dict[str, Any]:
        """Make one fit; the arguments are those of `Entry`."""
        return self.fits([Entry(*entry)], repeat_seconds=repeat_seconds)[0]

    def _job(self, entry: Entry) -> dict[str, Any]:
        storage, scale = entry.storage, self.workload.input_scale
        if storage not in self._stored:
            self._store.write(self.problem, storage, scale)
            self._stored.add(storage)
        return {
            "contestant": entry.contestant.name,
            "storage": storage,
            "settings": entry.settings,
            "limit": entry.limit,
            "input_scale": scale if storage == "as is" else 1.0,
        }

    def _judged(self, entry: Entry, found: dict[str, Any]) -> dict[str, Any]:
        name = entry.contestant.name
        if "failed" not in found:
            W, b = found.pop("W"), found.pop("b")
            value = self.workload.objective(self.problem, W, b)
            found |= {"objective": value} if np.isfinite(value) else {"failed": "not finite"}
            found["nonzero"] = int(np.count_nonzero(W))
        if "failed" in found:
            say(f"  {name} ({entry.storage}) {entry.settings}: {found['failed']}")
            return {"failed": found["failed"]}
        if found["objective"] < self.best:
            self.best, self.best_by = found["objective"], name
        found["gap"] = self.gap(found["objective"])
        say(
            f"  {name} ({entry.storage}) {entry.settings}: {found['seconds']:.4g} s, "
            f"gap {found['gap']:.1e}, {found['MB']:.0f} MB"
        )
        return found

    def gap(self, value: float) -> float:
        """The relative distance of an objective from the best so far."""
        return (value - self.best) / self.best

    def run_reference(self) -> dict[str, Any]:
        """Our own fit in float64: gaps are measured from it, unless another objective is lower."""
        settings = {"tol": self.workload.reference_tol, "max_iter": MOST_ITERATIONS}
        return self.fit(FASTSOFTMAX, "float64", settings, REFERENCE_LIMIT, repeat_seconds=0.0)


def run_each(
    kind: str,
    keys: Sequence[str],
    order: Sequence[str],
    compare: Callable[[str, argparse.Namespace], dict[str, Any] | None],
    show: Callable[[dict[str, Any]], str],
    options: argparse.Namespace,
) -> int:
    """Compare all workloads asked for, show the rows, and write them, in an order, after each.

    A long run may be cut off, and its file may hold rows of an earlier one, which are kept.
    """
    described = record.describe()
    options.commit = described["commit"]
    rows = record.earlier_rows(options.json, kind, options.scale, described)
    for key in keys:
        row = compare(key, options)
        if row is None:
            say(f"{key}: left out, {DATA_VARIABLE} names no folder with its data")
            continue
        rows[key] = {"workload": key, "commit": options.commit, **row}
        print(show(rows[key]), flush=True)
        if options.json:
            ordered = [rows[name] for name in order if name in rows]
            record.Record(kind, options.scale, described, {}, ordered).write(options.json)
    return 0


def say(text: str) -> None:
    """Tell how far a run is."""
    print(text, file=sys.stderr, flush=True)


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """The options that the comparisons of fits have in common; some have another default."""
    parser.add_argument("--rivals", nargs="*", default=[""], help="those whose names hold one")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a fit at most")
    parser.add_argument("--repeats", type=int, default=3, help="of the fits that count")
    parser.add_argument("--repeat-seconds", type=float, default=1.0, help="of fits in a process")
    parser.add_argument("--threads", type=int, default=N_THREADS)
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.set_defaults(**defaults)
