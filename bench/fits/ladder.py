"""The time to a gap of a solver without a callback: fits of more and more iterations, from zero."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# A fit: iterations -> {"n_iter", "seconds", "gap", "MB"}, or {"failed": why}.
Fit = Callable[[int], dict[str, Any]]
Point = dict[str, Any]

LEAST_GROWTH = 1.2  # ratio of iterations below which another fit is not worth its time
STALL_SHARE = 0.98  # of the gap of the previous fit: a gap above this is no progress
STALLS = 3  # fits without progress that end a ladder
CLOSE = 1.15  # ratio of iterations below which no fit is made in between


class Ladder:
    """The fits of one contestant.

    Attributes
    ----------
    points : list of dict
        The fits, by the number of iterations asked for ("max_iter").
    ended : str
        The reason why there are no more.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self.points: list[Point] = []
        self.ended = ""

    def climb(self, first: int, smallest_gap: float, limit: float) -> None:
        """Double the iterations until the gap, the time limit, or the solver's own end."""
        max_iter, stalls = first, 0
        while True:
            previous = self.points[-1]["gap"] if self.points else np.inf
            point = self.run(max_iter)
            if point is None:
                return
            if point["gap"] <= smallest_gap:
                self.ended = "reached"
            elif point["n_iter"] < max_iter:
                self.ended = "its own end"
            stalls = stalls + 1 if not point["gap"] < STALL_SHARE * previous else 0
            if not self.ended and stalls >= STALLS:
                self.ended = "no progress"
            # the most iterations within 90 % of the limit
            most = int(max_iter * 0.9 * limit / point["seconds"])
            following = min(2 * max_iter, most)
            if not self.ended and following < LEAST_GROWTH * max_iter:
                self.ended = "time limit"
            if self.ended:
                return
            max_iter = following

    def run(self, max_iter: int) -> Point | None:
        """Make a fit, maybe once more; its seconds are the median of all its runs."""
        found = self._fit(max_iter)
        if "failed" in found:
            self.ended = found["failed"]
            return None
        known = [point for point in self.points if point["max_iter"] == max_iter]
        point = known[0] if known else {"max_iter": max_iter, **found, "runs": []}
        point["runs"].append(found["seconds"])
        point["seconds"] = float(np.median(point["runs"]))
        if not known:
            self.points = sorted([*self.points, point], key=lambda point: point["max_iter"])
        return point

    def reaching(self, gap: float) -> Point | None:
        """The quickest fit that reaches a gap."""
        return _quickest([point for point in self.points if point["gap"] <= gap])

    def missing(self, gap: float) -> Point | None:
        """The fit of most iterations below those of `reaching` that misses the gap."""
        reached = self.reaching(gap)
        most = reached["max_iter"] if reached else math.inf
        return max(
            (p for p in self.points if p["gap"] > gap and p["max_iter"] < most),
            key=lambda point: point["max_iter"],
            default=None,
        )

    def refine(self, gap: float) -> bool:
        """Make a fit between `missing` and `reaching`, unless they are close; whether it did."""
        high, low = self.reaching(gap), self.missing(gap)
        if high is None:
            return False
        least = low["max_iter"] if low else 0
        between = round(math.sqrt(max(least, high["max_iter"] / 4) * high["max_iter"]))
        if high["max_iter"] <= CLOSE * least or not least < between < high["max_iter"]:
            return False
        return self.run(between) is not None


def refine_fastest(
    ladders: dict[str, Ladder], gap: float, also: Sequence[str], *, rounds: int
) -> None:
    """Find the fastest to a gap and its time, and the times of those named in `also`.

    A contestant cannot be the fastest if a fit that misses the gap took longer than the fastest.
    """
    for _ in range(rounds):
        best = fastest(ladders, gap)
        if best is None:
            return
        seconds = ladders[best].reaching(gap)["seconds"]
        more = False
        for name, ladder in ladders.items():
            low = ladder.missing(gap)
            if name in also or low is None or low["seconds"] < seconds:
                more |= ladder.refine(gap)
        if not more:
            return


def fastest(ladders: dict[str, Ladder], gap: float) -> str | None:
    """The name of the fastest to a gap."""
    reached = {name: ladder.reaching(gap) for name, ladder in ladders.items()}
    there = {name: point["seconds"] for name, point in reached.items() if point}
    return min(there, key=there.__getitem__, default=None)


def _quickest(points: list[Point]) -> Point | None:
    return min(points, key=lambda point: point["seconds"], default=None)
