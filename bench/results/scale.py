"""The table of `scale.json`: what the model of a fit's cost predicts, and what was measured."""

from collections.abc import Iterable
from typing import Any

from results.markdown import digits, head, line, number, percent

SCALE = "scale"
PARTS = ("passes", "preconditioners", "iterations", "start")


def lines(results: dict[str, Any]) -> Iterable[str]:
    """Predictions and measurements, and the parts of each prediction."""
    rows = results["rows"]
    yield (
        "Fits to a certified gap of 1e-4 at C = 10. The speeds of a pass and the columns "
        "`measured` are measured. The columns `predicted` are computed from the speeds and the "
        "number of iterations. This number is that of the measured fit of the row, or that of the "
        "fit named below. `MB`: the peak of memory, without X. A row with more cores than the "
        "machine has is an extrapolation."
    )
    yield ""
    figures = ("pass, GFLOP/s", "predicted, s", "measured, s", "predicted / measured")
    yield from head(
        ("rows", "cores", "X, GB", "iterations", *figures, "predicted, MB", "measured, MB")
    )
    for row in rows:
        measured = row.get("measured, s")
        yield line(
            row["task"],
            str(row["cores"]),
            number(row["X, GB"]),
            str(row["iterations"]),
            number(row["pass, GFLOP/s"]),
            number(row["predicted, s"]),
            number(measured),
            digits(row["predicted, s"] / measured) if measured else "",
            number(row["predicted, MB"]),
            number(row.get("measured, MB")),
        )
    yield ""
    yield "The parts of the predicted time."
    yield ""
    yield from head(("rows", "cores", "one pass, s", *PARTS))
    for row in rows:
        parts = row["parts, s"]
        total = row["predicted, s"]
        shares = (percent(parts[name] / total) for name in PARTS)
        yield line(row["task"], str(row["cores"]), number(parts["one_pass"]), *shares)
    yield ""
    for row in rows:
        if "measured, s" not in row:
            source = "given" if row["counts of"] == "given" else f"those of {row['counts of']}"
            cores = f"{row['cores']} cores, each doubling keeps {percent(row['efficiency'])}"
            yield f"- {row['task']}: iterations are {source}; {cores} of the speed."
    yield ""


def shown(row: dict[str, Any]) -> str:
    """A row in the terminal."""
    measured = row.get("measured, s")
    found = f"; measured {measured:g} s, {row['measured, MB']:g} MB" if measured else ""
    counts = f"{row['iterations']} iterations"
    predicted = f"predicted {row['predicted, s']:g} s, {row['predicted, MB']:g} MB"
    return f"{row['workload']}: {counts}, {row['pass, GFLOP/s']:g} GFLOP/s: {predicted}{found}"
