"""The table of `busy.json`: fits and epochs beside busy processes."""

from collections.abc import Iterable, Sequence
from typing import Any

from results.markdown import digits, head, line, number, ratio

BUSY = "busy"


def lines(results: dict[str, Any]) -> Iterable[str]:
    """What the columns are, and the table."""
    rows = results["rows"]
    yield (
        "`quiet`: on a machine that does nothing else. `1 a core`, `2 a core`: beside that many "
        "busy processes for each core. `ms`: the median. `slower`: the time divided by the quiet "
        "time. `ratio`: the time divided by that of our default in the same turns. A bold number "
        "is below 1."
    )
    yield ""
    yield from table(rows)
    if rows:
        yield ""
        yield f"{rows[0]['cores']} cores. Our default is {rows[0]['threads']} threads."
        yield ""
    notes = [(row["workload"], *note) for row in rows for note in row["notes"].items()]
    for note in notes:
        yield "- {}: {} {}.".format(*note)
    if notes:
        yield ""


def shown(row: dict[str, Any]) -> str:
    """A row in the terminal."""
    return "\n".join(table([row]))


def table(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """A line for each contestant of each work."""
    if not rows:
        return
    loads = rows[0]["neighbours a core"]
    columns = []
    for i, load in enumerate(loads):
        columns += [f"{load:g} a core, ms" if load else "quiet, ms"]
        columns += ["slower"] * (i > 0) + ["ratio"]
    yield from head(("task", "contestant", *columns))
    for row in rows:
        ours = next(iter(row["contestants"].values()))
        for name, points in row["contestants"].items():
            cells = []
            for i, (point, our_point) in enumerate(zip(points, ours, strict=True)):
                cells += [_milliseconds(point["seconds"])]
                cells += [digits(point["to quiet"])] * (i > 0)
                is_ours = points is ours
                cells += ["" if is_ours else ratio(point["seconds"] / our_point["seconds"])]
            yield line(row["task"], name, *cells)


def _milliseconds(seconds: float) -> str:
    return number(1e3 * seconds) if seconds < 10.0 else f"{1e3 * seconds:.0f}"
