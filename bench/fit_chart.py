"""The chart of fit_to_optimum.py: gap against seconds, both logarithmic, a panel a workload.

    python bench/fit_chart.py                     results/fit_to_optimum.json -> .png and .svg
    python bench/fit_chart.py FILE --out PREFIX   from another file

It shows what the file holds and measures nothing. Needs matplotlib.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "fit_to_optimum.json"
OURS = "fastsoftmax"
LEAST_GAP = 1e-9
COLUMNS = 3
# Of Okabe and Ito, to be told apart by everyone; ours is black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#B8A800")


def draw(record: dict[str, Any]) -> Any:
    """A matplotlib figure of a record."""
    from matplotlib.figure import Figure

    rows = record["rows"]
    # float64 in the colour of its float32
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
    trial = "" if record["scale"] == 1 else f" (a trial run: rows times {record['scale']:g})"
    threads = rows[0]["threads"]
    figure.suptitle(
        f"From zero to the optimum{trial}\n{record['machine_info']['CPU']}, {threads} threads",
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
    """Times and gaps; a gap that is too small to be drawn is at the lower edge."""
    return [seconds for seconds, _ in points], [max(gap, LEAST_GAP) for _, gap in points]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the chart as PNG and SVG, the same file each time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, help="path without ending; as the file's, if not given")
    options = parser.parse_args(arguments)
    record = json.loads(options.file.read_text(encoding="utf-8"))
    out = options.out or options.file.with_suffix("")
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "fastsoftmax"}):
        figure = draw(record)
        figure.savefig(f"{out}.png", dpi=110, metadata={"Software": None})
        figure.savefig(f"{out}.svg", metadata={"Date": None})
    print(f"{out.name}.png, {out.name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
