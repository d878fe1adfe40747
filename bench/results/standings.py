"""Who is how fast on everyday data: what the table and the chart of `everyday.json` show."""

from collections.abc import Iterable, Sequence
from statistics import geometric_mean
from typing import Any, NamedTuple

from results.markdown import digits, head, number, ratio
from results.markdown import line as cells

EVERYDAY = "everyday"
OURS, PREFIX = "fastsoftmax", "fastsoftmax "
CPU, WALL = "CPU", "wall"  # one thread's CPU time, and the wall time of all threads
OWN_SHARE = 1.2  # our default takes at most this multiple of the time of our fastest solver


class Standing(NamedTuple):
    """Our default against the fastest rival.

    Parameters
    ----------
    ours : float
        Milliseconds.
    rival : str
        Empty if none is there.
    theirs : float or None
        Milliseconds; without a rival that is there, a lower bound of them.
    """

    ours: float
    rival: str
    theirs: float | None

    @property
    def ratio(self) -> float | None:
        return None if self.theirs is None else self.theirs / self.ours

    @property
    def in_words(self) -> str:
        """The ratio in a table."""
        if self.ratio is None:
            return ""
        return ratio(self.ratio) if self.rival else f"> {digits(self.ratio)}"


def standing(row: dict[str, Any], clock: str) -> Standing | None:
    """Where a shape stands by a clock; None where we were not timed."""
    times = _times(row, clock)
    ours = times.pop(OURS, None)
    if ours is None:
        return None
    theirs = {name: value for name, value in times.items() if not name.startswith(PREFIX)}
    if theirs:
        rival = min(theirs, key=theirs.__getitem__)
        return Standing(ours, rival, theirs[rival])
    limits = [
        entry["limit, ms"]
        for name, entry in row["contestants"].items()
        if not name.startswith(OURS) and "limit, ms" in entry
    ]
    return Standing(ours, "", min(limits, default=None) if clock == CPU else None)


def own_share(row: dict[str, Any]) -> tuple[str, float | None]:
    """Our fastest solver, and the CPU time of our default as a multiple of its."""
    times = {n: value for n, value in _times(row, CPU).items() if n.startswith(OURS)}
    if OURS not in times:
        return "", None
    best = min(times, key=times.__getitem__)
    return best.removeprefix(PREFIX) if best != OURS else "", times[OURS] / times[best]


def _times(row: dict[str, Any], clock: str) -> dict[str, float]:
    """Milliseconds of those that reached the gap."""
    entries, figure = row["contestants"], f"{clock}, ms"
    return {name: entry[figure] for name, entry in entries.items() if figure in entry}


def line(row: dict[str, Any]) -> str:
    """A shape in the terminal."""
    found = standing(row, CPU)
    if found is None:
        return f"{row['workload']:<36} ours failed"
    best, share = own_share(row)
    own = f"default / {best}: {share:.2f}" if best else ""
    times = f"{found.ours:>9.4g} ms  {found.rival:<29} {number(found.theirs):>9} ms"
    return f"{row['workload']:<36} {times}  ratio {found.in_words:<9} {own}"


def lines(results: dict[str, Any]) -> Iterable[str]:
    """The tables: the fastest rival, and the times of all."""
    rows = results["rows"]
    yield from _summary(rows)
    titles = ("our gap", "ours, ms", "fastest rival, ms", "rival", "ratio", "default / our best")
    threads = max((row["threads"] for row in rows), default=1)
    walls = (f"{threads} threads: ours, ms", "ratio", "rival") if threads > 1 else ()
    yield from head(("shape", *titles, *walls))
    for row in rows:
        yield cells(row["workload"], *_figures(row)[: len(titles) + len(walls)])
    yield ""
    yield (
        "Milliseconds of CPU time of one thread, by solver. `>`: the fit was ended at this time. "
        "In brackets: its smallest gap. Empty: the solver does not take part."
    )
    yield ""
    names = list(dict.fromkeys(name for row in rows for name in row["contestants"]))
    yield from head(("shape", *names))
    for row in rows:
        entries = (row["contestants"].get(name) for name in names)
        yield cells(row["workload"], *map(_outcome, entries))
    yield ""


def _summary(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    found = {row["workload"]: standing(row, CPU) for row in rows}
    ratios = {name: s.ratio for name, s in found.items() if s is not None and s.ratio}
    if not ratios:
        return
    lost = [name for name, value in ratios.items() if value < 1.0]
    shares = [share for _, share in map(own_share, rows) if share is not None]
    kept = sum(share <= OWN_SHARE for share in shares)
    yield (
        f"{len(rows)} shapes. By CPU time of one thread, our default is the fastest on "
        f"{len(ratios) - len(lost)}. The geometric mean of the ratios is "
        f"{digits(geometric_mean(ratios.values()))}. On {kept} of {len(shares)} shapes, our "
        f"default takes at most {OWN_SHARE:g} times the time of our fastest solver."
    )
    yield ""
    if lost:
        yield f"A rival is quicker on: {'; '.join(lost)}."
        yield ""


def _figures(row: dict[str, Any]) -> list[str]:
    """Cells of a row: those of `titles` and `walls` in `lines`."""
    found = standing(row, CPU)
    if found is None:
        return [row["contestants"][OURS]["ended"], *[""] * 8]
    best, share = own_share(row)
    own = f"{digits(share)} ({best})" if best and share else "1"
    there = [number(found.theirs), found.rival] if found.rival else [_bound(found.theirs), ""]
    wall = standing(row, WALL)
    walls = [number(wall.ours), wall.in_words, wall.rival] if wall else [""] * 3
    return [_gap(row["contestants"][OURS]), number(found.ours), *there, found.in_words, own, *walls]


def _bound(milliseconds: float | None) -> str:
    return f"> {number(milliseconds)}" if milliseconds else "never"


def _outcome(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    if "CPU, ms" in entry:
        return number(entry["CPU, ms"])
    if "limit, ms" in entry:
        return _bound(entry["limit, ms"])
    return f"({_gap(entry)})" if "gap" in entry else entry["ended"]


def _gap(entry: dict[str, Any]) -> str:
    return f"{entry['gap']:.0e}" if entry["gap"] else "0"
