"""The tables of `probes.json`: fits of linear probes, and sweeps over C."""

from collections.abc import Iterable, Sequence
from typing import Any

from results.markdown import head, line, number, ratio

PROBES = "probes"
OURS = "fastsoftmax"
# Names of turns, beside those of rivals.
REACHED, CERTIFIED, ONE_PASS = f"{OURS}, reached", f"{OURS}, certified", "one pass"
GAP = "1e-04"


def lines(results: dict[str, Any]) -> Iterable[str]:
    """All tables."""
    fits = [row for row in results["rows"] if "turns" in row]
    yield (
        "`reached`: seconds of our fit with the number of iterations that a gap of 1e-4 needs. "
        "`certified`: seconds of our fit that proves the gap. `passes`: these seconds divided by "
        "those of one pass over the rows. `iterations`: those of the fit that proves the gap."
    )
    yield ""
    yield from fit_lines(fits)
    yield ""
    yield (
        "Seconds of each rival to the gap, with a tolerance of 0 and the number of iterations that "
        "the gap needs. `>`: the rival did not reach the gap. The seconds are then those of its "
        "longest fit, and its smallest gap is in brackets."
    )
    yield ""
    yield from _rival_lines(fits)
    yield ""
    yield from _left_out(fits)
    yield from sweep_lines([row for row in results["rows"] if "sweeps" in row])


def shown(row: dict[str, Any]) -> str:
    """A row in the terminal."""
    if "sweeps" in row:
        return "\n".join(sweep_lines([row]))
    return "\n".join([*fit_lines([row]), *_rival_lines([row])])


def fit_lines(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Ours, and the fastest rival."""
    if not rows:
        return
    ours = ("reached, s", "passes", "certified, s", "passes", "iterations", "one pass, s")
    yield from head(
        ("task", *ours, "fastest rival, s", "rival", "rival / reached", "rival / certified")
    )
    for row in rows:
        turns = dict(row["turns"])
        reached, proved, one = (turns.pop(name, {}) for name in (REACHED, CERTIFIED, ONE_PASS))
        certified = row["certified"].get(GAP, {})
        figures = []
        for ours_there in (reached, proved):
            figures += [number(ours_there.get("seconds")), number(ours_there.get("passes"))]
        figures[0] = figures[0] or f"> {row['limit, s']:g}"
        if not certified:
            figures[2] = f"> {row['limit, s']:g}"
        elif not certified["certified"]:
            figures[2] = f"({figures[2]}, not certified)"
        best = min(turns, key=lambda name: turns[name]["seconds"], default="")
        seconds = turns[best]["seconds"] if best else None
        yield line(
            row["task"],
            *figures,
            number(certified.get("n_iter")),
            number(one.get("seconds")),
            number(seconds) or "none finished",
            best,
            *(
                ratio(seconds / mine["seconds"]) if seconds and mine else ""
                for mine in (reached, proved)
            ),
        )


def _rival_lines(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["contestants"]))
    names = [name for name in names if name != OURS]
    if not names:
        return
    yield from head(("task", *names))
    for row in rows:
        yield line(row["task"], *(_rival(row, name) for name in names))


def _rival(row: dict[str, Any], name: str) -> str:
    """Its seconds, or how far it came."""
    if name in row["turns"]:
        return number(row["turns"][name]["seconds"])
    entry = row["contestants"].get(name)
    if entry is None:
        return ""
    longest = max((point["seconds"] for point in entry["points"]), default=None)
    nearest = min((point["gap"] for point in entry["points"]), default=None)
    mark = "> " if entry["ended"] == "time limit" else f"{entry['ended']}: "
    return f"{mark}{number(longest)} ({nearest:.0e})" if longest else entry["ended"]


def _left_out(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Those without a fit, and why."""
    for row in rows:
        notes = "; ".join(f"{name}: {text}" for name, text in row["notes"].items())
        more = f"; {notes}" if notes else ""
        yield f"- {row['workload']}: a fit was given at most {row['limit, s']:g} s{more}."
    if rows:
        yield ""


def sweep_lines(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """The sweeps."""
    for row in rows:
        yield (
            f"A sweep: {row['task']}; at most {row['limit, s']:g} s. `ran out`: the number of fits "
            "that ended at their largest number of iterations. `accuracy`: that of the rows that "
            "were left out, at the chosen C."
        )
        yield ""
        columns = ("s", "ratio", "chosen C", "accuracy", "fits", "ran out", "iterations", "MB")
        yield from head(("", *columns))
        found = row["sweeps"]
        first = next(iter(found.values())).get("seconds")
        for name, entry in found.items():
            if "seconds" not in entry:
                limit = f"> {row['limit, s']:g}" if entry["ended"] == "time limit" else ""
                yield line(name, limit or entry["ended"], *[""] * (len(columns) - 1))
                continue
            kept = ("C", "score", "fits", "unfinished", "n_iter", "MB")
            share = ratio(entry["seconds"] / first) if first else ""
            figures = (number(entry[figure]) for figure in kept)
            yield line(name, number(entry["seconds"]), share, *figures)
        yield ""
