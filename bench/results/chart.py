"""The charts of fits, as SVG beside the files of results.

    python bench chart                          of all files in results/ that have one
    python bench chart FILE --out FILE.svg      of another file

To the optimum: gap against seconds, both logarithmic, a panel a workload; those without a trace of
our fit have none. Everyday data: the fastest rival's time as a multiple of ours, a line a shape. A
cluster: predicted seconds of an evaluation, a line a task.

They draw what the file holds and measure nothing. Needs matplotlib.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import record
from results.cluster import CLUSTER
from results.standings import CPU, EVERYDAY, WALL, standing
from results.tables import CHARTS, FITS, RESULTS

OURS = "fastsoftmax"
LEAST_GAP = 1e-9
COLUMNS = 3
# Of Okabe and Ito, for people with any colour vision; ours is black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#B8A800")


def draw_fits(results: dict[str, Any]) -> Any:
    """A matplotlib figure of fits to the optimum."""
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
    figure.suptitle(_title("From zero to the optimum", results), fontsize=10)
    return figure


def _title(what: str, results: dict[str, Any]) -> str:
    trial = "" if results["scale"] == 1 else f" (a trial run: rows times {results['scale']:g})"
    threads = results["rows"][0]["threads"]
    return f"{what}{trial}\n{results['machine_info']['CPU']}, {threads} threads"


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


def draw_everyday(results: dict[str, Any]) -> Any:
    """A matplotlib figure of ratios on everyday data, the smallest first."""
    from matplotlib.figure import Figure

    rows = {row["workload"]: row for row in results["rows"]}
    found = {name: standing(row, CPU) for name, row in rows.items()}
    shown = {name: value for name, value in found.items() if value and value.ratio}
    names = sorted(shown, key=lambda name: shown[name].ratio)
    rivals = sorted({value.rival for value in shown.values()} - {""})
    colours = dict(zip(rivals, COLOURS, strict=False)) | {"": "black"}
    figure = Figure(figsize=(9.2, 0.21 * len(names) + 1.9), layout="constrained")
    panel = figure.subplots()
    for name in names:
        ratio, rival = shown[name].ratio, shown[name].rival
        panel.plot(ratio, name, "o" if rival else ">", color=colours[rival], markersize=6)
        wall = standing(rows[name], WALL)
        if wall and wall.ratio:
            panel.plot(wall.ratio, name, "|", color="black", markersize=8)
    handles = {name: panel.plot([], [], "o", color=colours[name])[0] for name in rivals}
    handles["no rival: all were ended there"] = panel.plot([], [], ">", color="black")[0]
    handles["wall time, all threads"] = panel.plot([], [], "|", color="black")[0]
    _scale_of_ratios(panel)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.tick_params(labelsize=7)
    figure.legend([*handles.values()], [*handles], loc="outside lower center", ncols=3, fontsize=7)
    title = "Everyday data, to the same gap; on the left of 1 a rival is quicker"
    figure.suptitle(_title(title, results), fontsize=10)
    return figure


def _scale_of_ratios(panel: Any) -> None:
    """A logarithmic axis of ratios, with losses shaded."""
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    low, high = min(low, 0.5), max(high, 2.0)
    ticks = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(low, high)
    panel.axvspan(low, 1.0, color="#D55E00", alpha=0.12, linewidth=0)
    panel.axvline(1.0, color="#D55E00", linewidth=1)
    panel.grid(alpha=0.3, axis="x")
    panel.set_xlabel("CPU time of one thread: fastest rival / fastsoftmax", fontsize=8)


def draw_cluster(results: dict[str, Any]) -> Any:
    """A matplotlib figure of predicted evaluations, for narrow screens: 390 pixels at full size."""
    from matplotlib.figure import Figure

    rows = [row for row in results["rows"] if "all-reduced, s" in row]
    figure = Figure(figsize=(4.0, 4.4), layout="constrained")
    panel = figure.subplots()
    for row, colour in zip(rows, COLOURS, strict=False):
        panel.plot(row["workers"], row["seconds"], color=colour, linewidth=2.2)
        panel.plot(row["workers"], row["all-reduced, s"], ":", color=colour, linewidth=1.8)
        name, _, size = row["task"].partition(", ")
        label = name if "ImageNet" in name else f"{name}, {size.partition(',')[0]}"
        place = 1.0, row["seconds"][0]
        begins = [other["seconds"][0] / row["seconds"][0] for other in rows]
        above = not any(1.0 < begin < 8.0 for begin in begins)
        offset = {"xytext": (2, 7 if above else -20), "textcoords": "offset points"}
        panel.annotate(label, place, color=colour, fontsize=10, weight="bold", **offset)
    panel.plot([], [], color="black", linewidth=2.2, label="as it is")
    panel.plot([], [], ":", color="black", linewidth=1.8, label="all-reduce")
    panel.set(xscale="log", yscale="log")
    panel.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    panel.minorticks_off()
    low, high = panel.get_ylim()
    panel.set_ylim(low, 12 * high)
    panel.tick_params(labelsize=10)
    panel.set_xlabel("workers of 16 cores", fontsize=11)
    panel.set_title("Seconds of an evaluation, predicted", fontsize=11)
    panel.grid(alpha=0.3)
    panel.legend(loc="upper right", ncols=2, fontsize=10)
    return figure


DRAWN: dict[str, Callable[[dict[str, Any]], Any]] = {
    FITS: draw_fits,
    EVERYDAY: draw_everyday,
    CLUSTER: draw_cluster,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write charts as SVG; the same results give the same files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, help="of results")
    parser.add_argument("--out", type=Path, help="beside the file, if not given")
    options = parser.parse_args(arguments)
    import matplotlib

    there = [path for name in CHARTS if (path := RESULTS / f"{name}.json").exists()]
    for file in [options.file] if options.file else there:
        results = record.read(file)
        out = options.out or file.with_suffix(".svg")
        with matplotlib.rc_context({"svg.hashsalt": "fastsoftmax"}):
            figure = DRAWN[results["kind"]](results)
            figure.savefig(out, format="svg", metadata={"Date": None})
        print(out.name)
    return 0
