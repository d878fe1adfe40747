"""Fits and epochs beside busy processes: ours with all threads and with one, and rivals.

    python bench busy                                      all, at most 10 minutes
    python bench busy --works digits epoch                 those whose names hold one of these
    python bench busy --neighbours 0.5 1                   other numbers of busy processes a core
    python bench busy --scale 0.01 --seconds 0 --rounds 1  a trial run
    python bench busy --json bench/results/busy.json

Each work is done beside 0, 1 and 2 processes a core that do nothing but spin. In a round, all
contestants take turns at each of these loads; every other round is reversed. A turn is some calls
in a row, a tenth of a second of them on the quiet machine. Figures are medians over the rounds.

Fits have default settings, those of rivals too: theirs may end before the optimum. So the table
compares each with itself on the quiet machine. The accuracies of all must agree within 5 %.
"""

import argparse
import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fits.contestants import OURS
from fits.referee import run_each, say
from fits.workloads import WORKLOADS
from measuring import problems
from measuring.harness import NATIVE, ONE_THREAD, Race, close, rounded, seconds_of, settle
from measuring.neighbours import busy_neighbours
from measuring.problems import FASHION, Problem
from races import rivals, training
from races.native import N_THREADS
from results.busy import BUSY, shown

from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax.datasets import load_fashion_mnist_sample
from fastsoftmax.processors import available_cpus

ALONE = f"{OURS}, 1 thread"
IN_SUCCESSION = ", one after the other"
SKLEARN = "scikit-learn"
TURN_SECONDS = 0.1
WARM_SECONDS = 0.5  # shorter calls are made once more before they are timed
LEAST_ROWS = 200  # of small data at any scale: each class has some
AGREEMENT = 0.05


class Entrants(NamedTuple):
    """A race, and its contestants that are timed; the first is ours, as it is called by default."""

    race: Race
    names: list[str]
    notes: dict[str, str]  # why others are absent


def _fits(
    title: str, problem: Problem, makers: dict[str, Callable[[], Any]], accuracy: str = "score"
) -> Entrants:
    """Fits of a problem by estimators. Their accuracies of these rows are compared."""
    X, labels = problem.X, problem.labels

    def fit(make: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: make().fit(X, labels)

    def answer(estimator: Any) -> float:
        found = getattr(estimator, accuracy)
        return float(found(X, labels) if callable(found) else found)

    runs = {name: fit(make) for name, make in makers.items()}
    name = f"{title}, {problem.size}"
    return Entrants(Race(name, runs, close(AGREEMENT), OURS, answer=answer), list(runs), {})


def _plain_fits(title: str, problem: Problem, **settings: Any) -> Entrants:
    from sklearn.linear_model import LogisticRegression

    makers: dict[str, Callable[[], Any]] = {OURS: lambda: FastSoftmax(**settings)}
    if N_THREADS > 1:
        makers[ALONE] = lambda: FastSoftmax(n_jobs=1, **settings)
    makers[SKLEARN] = lambda: LogisticRegression(**settings)
    return _fits(title, problem, makers)


def _embeddings(scale: float) -> Entrants | None:
    workload = WORKLOADS["banking77, C 100"]
    problem = workload.problem(scale)
    if problem is None:
        return None
    return _plain_fits("fit of embeddings (banking77), C = 100", problem, C=workload.C)


def _epoch(scale: float) -> Entrants:
    """Without scikit-learn: its `SGDClassifier` takes a step for each row, of another loss."""
    race = training.sgd_epoch(**FASHION, scale=scale)
    ours = {OURS: race.runs[NATIVE]}
    if ONE_THREAD in race.runs:
        ours[ALONE] = race.runs[ONE_THREAD]
    names, notes = list(ours), {}
    if rivals.torch_or_none():
        names.append("torch")
    else:
        notes["torch"] = "is not installed"
    return Entrants(dataclasses.replace(race, runs={**ours, **race.runs}), names, notes)


def _some(problem: Problem, scale: float) -> Problem:
    """A part of small data."""
    n_rows = max(LEAST_ROWS, problems.scaled_rows(len(problem.X), scale))
    return problem._replace(X=problem.X[:n_rows], labels=problem.labels[:n_rows])


def _digits(scale: float) -> Problem:
    return _some(problems.classic("digits"), scale)


def _digits_fit(scale: float) -> Entrants:
    return _plain_fits("fit of digits", _digits(scale))


def _sample_fit(scale: float) -> Entrants:
    X, labels = load_fashion_mnist_sample("train")
    problem = _some(Problem("sample", X / 255, labels, 10), scale)
    return _plain_fits("fit of the packaged images, C = 0.1", problem, C=0.1)


def _sweep(scale: float) -> Entrants:
    from sklearn.linear_model import LogisticRegressionCV

    given = {"Cs": 5, "cv": 3, "scoring": "accuracy"}
    makers: dict[str, Callable[[], Any]] = {OURS: lambda: FastSoftmaxCV(**given)}
    if N_THREADS > 1:
        makers[ALONE] = lambda: FastSoftmaxCV(n_jobs=1, **given)
    makers[SKLEARN] = lambda: LogisticRegressionCV(**given)
    return _fits("sweep over 5 C x 3 folds of digits", _digits(scale), makers)


def _grid(scale: float) -> Entrants:
    """The default is here what runs two fits at once, in two processes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    def search(make: Callable[[], Any], n_jobs: int) -> Callable[[], Any]:
        given = {"param_grid": {"C": [0.01, 0.1, 1.0, 10.0]}, "cv": 2, "refit": False}
        return lambda: GridSearchCV(make(), n_jobs=n_jobs, **given)

    makers = {}
    for name, make in ((OURS, FastSoftmax), (SKLEARN, LogisticRegression)):
        makers[name] = search(make, 2)
        makers[name + IN_SUCCESSION] = search(make, 1)
    title = "GridSearchCV(n_jobs=2) of 8 fits of digits"
    return _fits(title, _digits(scale), makers, accuracy="best_score_")


WORKS: dict[str, Callable[[float], Entrants | None]] = {
    "embeddings": _embeddings,
    "epoch": _epoch,
    "digits": _digits_fit,
    "sample": _sample_fit,
    "sweep": _sweep,
    "grid": _grid,
}


class Turns:
    """The times of all contestants of a work at all loads.

    Parameters
    ----------
    entrants : Entrants
    loads : dict of float to int
        Busy processes by their number a core; the first is none.
    once : float
        Seconds of a call that is not made again.

    Attributes
    ----------
    runs : dict of lists of float
        By load and contestant: seconds a call, of each turn.
    """

    def __init__(self, entrants: Entrants, loads: dict[float, int], once: float) -> None:
        self.race, self.names, _ = entrants
        self.loads, self._once = loads, once
        self.runs: dict[tuple[float, str], list[float]] = {
            (load, name): [] for load in loads for name in self.names
        }
        self._quiet = {name: self._checked(name) for name in self.names}

    def _checked(self, name: str) -> float:
        """Check a contestant's answer; about the seconds of a call on the quiet machine."""
        self.race.verify(name)
        settle()
        return max(seconds_of(self.race.runs[name]), 1e-7)

    def take(self, seconds: float, least_rounds: int) -> None:
        """Time rounds, until their number is enough and the time is over."""
        start, n_rounds = time.perf_counter(), 0
        while n_rounds < least_rounds or time.perf_counter() - start < seconds:
            step = 1 if n_rounds % 2 == 0 else -1
            for load in list(self.loads)[::step]:
                names = [name for name in self.names[::step] if self._again(load, name)]
                with busy_neighbours(self.loads[load]):
                    for name in names:
                        self._take_turn(load, name)
            n_rounds += 1

    def _again(self, load: float, name: str) -> bool:
        """Whether a contestant is timed again: what takes long is timed once."""
        return max(self.runs[load, name], default=0.0) <= self._once

    def _take_turn(self, load: float, name: str) -> None:
        run, quiet = self.race.runs[name], self._quiet[name]
        settle()
        if quiet < WARM_SECONDS:
            run()
        n_calls = max(1, round(TURN_SECONDS / quiet))
        self.runs[load, name].append(seconds_of(run, n_calls))

    def of(self, name: str) -> list[dict[str, Any]]:
        """What is written of a contestant: a point for each load."""
        medians = [float(np.median(self.runs[load, name])) for load in self.loads]
        return [
            {
                "processes": self.loads[load],
                "seconds": rounded(median),
                "to quiet": rounded(median / medians[0]),
                "runs": [rounded(value) for value in self.runs[load, name]],
            }
            for load, median in zip(self.loads, medians, strict=True)
        ]


def compare(key: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """All turns of a work; None without its data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that end at their number of iterations
        entrants = WORKS[key](options.scale)
        if entrants is None:
            return None
        say(entrants.race.name)
        n_cores = available_cpus().n_threads
        loads = {load: round(n_cores * load) for load in sorted({0.0, *options.neighbours})}
        turns = Turns(entrants, loads, options.once)
        turns.take(options.seconds, options.rounds)
    return {
        "task": entrants.race.name,
        "cores": n_cores,
        "threads": N_THREADS,
        "neighbours a core": list(loads),
        "contestants": {name: turns.of(name) for name in turns.names},
        "notes": entrants.notes,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the works, print their tables, write JSON after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--works", nargs="*", default=[""], help="those whose names hold one")
    parser.add_argument(
        "--neighbours", nargs="+", type=float, default=[1.0, 2.0], help="a core, besides none"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="for each work, at least")
    parser.add_argument("--rounds", type=int, default=3, help="at least")
    parser.add_argument("--once", type=float, default=5.0, help="seconds of a call: one turn then")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of rows")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    keys = [key for key in WORKS if any(part in key for part in options.works)]
    return run_each(BUSY, keys, list(WORKS), compare, shown, options)
