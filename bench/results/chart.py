"""The chart of fits: gap against seconds, both logarithmic, a panel a workload.

    python bench chart                          results/fit_to_optimum.json -> .svg
    python bench chart FILE --out FILE.svg      from another file

It draws what the file holds and measures nothing. Workloads without a trace of our fit have no
panel. Needs matplotlib.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import record

RESULTS = Path(__file__).with_name("fit_to_optimum.json")
OURS = "fastsoftmax"
LEAST_GAP = 1e-9
COLUMNS = 3
# Of Okabe and Ito, for people with any colour vision; ours is black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#B8A800")


def draw(results: dict[str, Any]) -> Any:
    """A matplotlib figure of a file of results."""
    from matplotlib.figure import Figure

    rows = [row for row in results["rows"] if row["trace"]]
    # float32 and float64 of a rival have the same colour
    names = sorted({_family(name) for row in rows for name in row["contestants"]} - {OURS})
    colours = dict(zip(names, COLOURS * len(names), strict=False)) | {OURS: "black"}
    n_columns = min(COLUMNS, len(rows))
    n_lines = -(-len(rows) // n_columns)
    figure = Figure(figsize=(4.6 * n_columns, 3.6 * n_lines + 0.9), layout="constrained")
    panels = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    for panel, row in zip(panels, rows, strict=False):
        _panel(panel, row, colours)
    for panel in panels[len(rows) :]:
        panel.remove()
    handles: dict[str, Any] = {}
    for panel in panels[: len(rows)]:
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, line)
    order = sorted(handles, key=lambda label: (not label.startswith(OURS), label))
    figure.legend(
        [handles[label] for label in order],
        order,
        loc="outside lower center",
        ncols=2 * n_columns,
        fontsize=7,
    )
    trial = "" if results["scale"] == 1 else f" (a trial run: rows times {results['scale']:g})"
    threads = rows[0]["threads"]
    figure.suptitle(
        f"From zero to the optimum{trial}\n{results['machine_info']['CPU']}, {threads} threads",
        fontsize=10,
    )
    return figure


def _family(name: str) -> str:
    return name.partition(",")[0]


def _panel(panel: Any, row: dict[str, Any], colours: dict[str, str]) -> None:
    for name, entry in row["contestants"].items():
        if name == OURS:
            continue
        points = [(point["seconds"], point["gap"]) for point in entry["points"]]
        style = {"label": _family(name), "color": colours[_family(name)], "linewidth": 1.2}
        line = "-" if name == _family(name) else ":"
        panel.plot(*_shown(points), line, marker="o", markersize=2.5, **style)
    panel.plot(*_shown(row["trace"]), color="black", linewidth=2, label=OURS)
    proved = [(p["seconds"], p["gap"]) for p in row["certified"].values() if p["certified"]]
    if proved:
        label = f"{OURS}, certified"
        panel.plot(*_shown(proved), "k*", markersize=8, linestyle="none", label=label)
    panel.set(xscale="log", yscale="log", xlabel="seconds", ylabel="(F - F best) / F best")
    panel.set_ylim(bottom=LEAST_GAP / 2)
    panel.set_title(row["task"], fontsize=8)
    panel.grid(alpha=0.3)


def _shown(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Times and gaps; gaps below the lower edge are drawn there."""
    return [seconds for seconds, _ in points], [max(gap, LEAST_GAP) for _, gap in points]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the chart as SVG; the same results give the same file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, help="beside the file, if not given")
    options = parser.parse_args(arguments)
    out = options.out or options.file.with_suffix(".svg")
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "fastsoftmax"}):
        draw(record.read(options.file)).savefig(out, format="svg", metadata={"Date": None})
    print(out.name)
    return 0
