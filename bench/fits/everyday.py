"""Everyday data of many shapes: our fit at default settings, and scikit-learn's to the same gap.

    python bench everyday                                    the grid, about half an hour
    python bench everyday --shapes one-hot images            shapes whose names hold one of these
    python bench everyday --scale 0.02 --limit 1 --repeats 1 a trial run
    python bench everyday --json bench/results/everyday.json

A rival has reached our gap if its own is at most 1e-4, or at most twice ours where that is larger.
It begins with its default settings. If these end too early, it gets more iterations and smaller
tolerances, until it is there or out of time. Of float32 rows, it gets float64 after that.

Then our default takes turns with those of our solvers and of the rivals that may be the fastest:
with one thread, and with all of them.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fits.contestants import (
    FASTSOFTMAX,
    OUR_SOLVERS,
    OURS,
    SAG,
    SAGA,
    SKLEARN,
    SKLEARNEX,
    Contestant,
)
from fits.process import OUT_OF_TIME
from fits.referee import (
    MOST_ITERATIONS,
    REFERENCE_LIMIT,
    Entry,
    Referee,
    add_options,
    run_each,
    say,
)
from fits.shapes import SHAPES, Shape
from measuring.harness import rounded
from results.standings import CPU, EVERYDAY, WALL, line

GAP, TIMES_OURS = 1e-4, 2.0  # a rival's gap is at most the larger of GAP and this multiple of ours
CLOSE = 2.0  # times slower than the fastest: those below take turns
SLOWER = 3.0  # times slower than the fastest so far: there a fit is ended
MOST_SLOWER = 20.0  # the same, of our time, as long as no rival is there
LEAST_LIMIT = 1.0  # seconds

DEFAULTS = {"tol": 1e-4, "max_iter": 100}  # of scikit-learn
SETTINGS = (DEFAULTS, *({"tol": tol, "max_iter": MOST_ITERATIONS} for tol in (1e-4, 1e-6, 1e-8)))
# Each group has a time to be compared with from the groups before it. The last two are seldom fast.
GROUPS = (
    (FASTSOFTMAX,),
    (*OUR_SOLVERS, *(rival for rival in SKLEARN if rival is not SAGA), SKLEARNEX),
    (SAG, SAGA),
)
CLOCKS = {CPU: "CPU seconds", WALL: "seconds"}  # of points
SHAPES_BY_NAME = {shape.name: shape for shape in SHAPES}


class Search:
    """The first settings with which a contestant reaches a gap.

    Attributes
    ----------
    tries : list of (str, dict)
        Storages and settings that are left; none at the end.
    point : dict
        The last fit that was made to its end, and its settings.
    ended : str
        Why there are no more.
    """

    def __init__(self, contestant: Contestant, tries: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self.contestant, self.tries = contestant, list(tries)
        self.point: dict[str, Any] = {}
        self.ended, self.limit = "", 0.0

    def next(self, limit: float) -> Entry:
        """The fit to be made."""
        self.limit = limit
        return Entry(self.contestant, *self.tries[0], limit)

    def again(self) -> Entry:
        """The fit that counts."""
        settings = (self.point[name] for name in ("storage", "settings"))
        return Entry(self.contestant, *settings, REFERENCE_LIMIT)

    def note(self, found: dict[str, Any], gap: float) -> None:
        """Take its result: the tries that cannot do better are struck off."""
        storage, settings = self.tries.pop(0)
        if "failed" in found:  # out of time: a smaller tolerance takes longer
            self.ended, self.tries = found["failed"], []
            return
        self.point = {**found, "storage": storage, "settings": settings}
        self.ended = "its own end"
        if found["gap"] <= gap:
            self.ended, self.tries = "reached", []
        elif found["n_iter"] < settings.get("max_iter", 0):  # more iterations would change nothing
            same = storage, settings["tol"]
            self.tries = [left for left in self.tries if (left[0], left[1]["tol"]) != same]

    @property
    def is_ours(self) -> bool:
        return self.contestant.name.startswith(OURS)

    @property
    def seconds(self) -> float:
        """Of one thread, of the fit that reached the gap."""
        return self.point["CPU seconds"] if self.ended == "reached" else np.inf


class Contest:
    """One shape and its contestants.

    Attributes
    ----------
    searches : dict of str to Search
        By contestant.
    notes : dict of str to str
        Why contestants do not take part.
    runs : dict of dicts of lists of float
        By clock and contestant: seconds of its turns.
    """

    def __init__(self, shape: Shape, folder: Path, options: argparse.Namespace) -> None:
        self.shape, self.options = shape, options
        self.referee = Referee(shape.workload, folder, options)
        self.searches: dict[str, Search] = {}
        self.notes: dict[str, str] = {}
        self.runs: dict[str, dict[str, list[float]]] = {CPU: {}, WALL: {}}

    @property
    def gap(self) -> float:
        """What rivals have to reach."""
        return max(GAP, TIMES_OURS * self.searches[OURS].point.get("gap", 0.0))

    def search(self) -> None:
        """Find the settings and a time of each contestant."""
        self.referee.run_reference()
        for group in GROUPS:
            self._enter(group)
            while left := [search for search in self.searches.values() if search.tries]:
                entries = [search.next(self._limit(search)) for search in left]
                found = self.referee.fits(entries, n_threads=1)
                for search, result in zip(left, found, strict=True):
                    ours = search.contestant is FASTSOFTMAX
                    search.note(result, np.inf if ours else self.gap)

    def _enter(self, contestants: Sequence[Contestant]) -> None:
        """Those that take part."""
        problem = self.referee.problem
        storages = dict.fromkeys((str(problem.X.dtype), "float64"))
        size = problem.n_logits * (problem.X.shape[1] + 1), problem.n_classes
        for contestant in contestants:
            is_ours = contestant.name.startswith(OURS)
            if not is_ours and not any(part in contestant.name for part in self.options.rivals):
                continue
            if why := contestant.absent(*size, l1_ratio=0.0):
                self.notes[contestant.name] = why
                continue
            tries = [(storage, settings) for storage in storages for settings in SETTINGS]
            self.searches[contestant.name] = Search(
                contestant, [("as is", {})] if is_ours else tries
            )

    def _limit(self, search: Search) -> float:
        """Seconds of a fit at most: one that is much slower than the fastest need not end."""
        if search.contestant is FASTSOFTMAX:
            return REFERENCE_LIMIT
        limit = SLOWER * self._fastest(search.is_ours)
        if not search.is_ours:
            limit = min(limit, MOST_SLOWER * self._fastest(is_ours=True))
        return float(min(self.options.limit, max(LEAST_LIMIT, limit)))

    def _fastest(self, is_ours: bool) -> float:
        """Seconds of the fastest of one side so far."""
        side = (search for search in self.searches.values() if search.is_ours == is_ours)
        return min((search.seconds for search in side), default=np.inf)

    def take_turns(self, clock: str, n_threads: int) -> None:
        """Time our default and those that may be the fastest; every other round is reversed."""
        names = [
            name
            for name, search in self.searches.items()
            if search.seconds < np.inf
            and (search.seconds <= CLOSE * self._fastest(search.is_ours) or name == OURS)
        ]
        rounds = [names if i % 2 == 0 else names[::-1] for i in range(self.options.repeats)]
        turns = [self.searches[name] for order in rounds for name in order]
        found = self.referee.fits([turn.again() for turn in turns], n_threads=n_threads)
        for turn, point in zip(turns, found, strict=True):
            if "failed" not in point:
                times = self.runs[clock].setdefault(turn.contestant.name, [])
                times.append(point[CLOCKS[clock]])

    def as_row(self) -> dict[str, Any]:
        """What is written."""
        return {
            "task": self.shape.workload.describe(self.referee.problem),
            "best": self.referee.best,
            "best by": self.referee.best_by,
            "gap": rounded(self.gap),
            "threads": self.options.threads,
            "contestants": {name: self._outcome(name) for name in self.searches},
            "notes": self.notes,
        }

    def _outcome(self, name: str) -> dict[str, Any]:
        """How a contestant did, on one line of the file."""
        search = self.searches[name]
        outcome: dict[str, Any] = {"ended": search.ended}
        if search.ended == OUT_OF_TIME:
            outcome["limit, ms"] = rounded(1e3 * search.limit)
        if search.point:
            gap = self.referee.gap(search.point["objective"])
            outcome |= {"gap": rounded(gap), "n_iter": search.point["n_iter"]}
            outcome |= {"storage": search.point["storage"], **search.point["settings"]}
        if search.ended != "reached":
            return outcome
        for clock, runs in self.runs.items():
            # Those that took no turns have the one run of their search.
            times = runs.get(name, [search.point[CLOCKS[CPU]]] if clock == CPU else [])
            if times:
                outcome[f"{clock}, ms"] = rounded(1e3 * float(np.median(times)))
                outcome[f"{clock}, runs"] = [rounded(1e3 * value) for value in times]
        return outcome


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All fits of a shape."""
    say(name)
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(SHAPES_BY_NAME[name], Path(folder), options)
        contest.search()
        contest.take_turns(CPU, 1)
        if options.threads > 1:
            contest.take_turns(WALL, options.threads)
        return contest.as_row()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the grid, print its table, write JSON after each shape."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", nargs="*", default=[""], help="those whose names hold one")
    add_options(parser, limit=20.0, repeat_seconds=0.1)
    options = parser.parse_args(arguments)
    names = [name for name in SHAPES_BY_NAME if any(part in name for part in options.shapes)]
    return run_each(EVERYDAY, names, list(SHAPES_BY_NAME), compare, line, options)
