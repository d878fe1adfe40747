"""Tables in bench/README.md from the JSON in this folder.

    python bench tables            writes the tables between the marks in bench/README.md
    python bench tables --check    fails if they are not what the JSON says
    python bench tables FILE ...   prints the tables of some files

All rows are there. A ratio below 1, where a rival is quicker, is bold.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from measuring import record
from measuring.harness import NATIVE
from results import busy, cluster, probes, scale, standings
from results.busy import BUSY
from results.cluster import CLUSTER
from results.markdown import digits, head, line, number, percent, ratio
from results.probes import PROBES
from results.scale import SCALE
from results.standings import EVERYDAY

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
FITS, DEFAULT_RIVAL = "fit to optimum", "scikit-learn lbfgs"
COMMITTED = (
    "busy",
    "cluster",
    "everyday",
    "fit_to_optimum",
    "ratios",
    "scaling",
)  # files of results
TITLES = {  # in the order of the page: what most readers look for comes first
    "fit_to_optimum": "Results: fits to the optimum",
    "probes": "Results: probes of embeddings",
    "everyday": "Results: everyday data",
    "ratios": "Results: parts of a fit, predictions and functions",
    "scaling": "Results: number of threads",
    "busy": "Results: fits and epochs on a busy machine",
    "scale": "Results: the cost of a large fit",
    "cluster": "Results: evaluations on a cluster",  # docs/scale.md includes it, as the last one
}
CHARTS = {
    "cluster": "Seconds of an evaluation against the number of workers, both logarithmic",
    "everyday": "Time of the fastest rival divided by ours, logarithmic, a line a shape",
    "fit_to_optimum": (
        "Gap from the optimum against seconds, both logarithmic: fastsoftmax and its rivals"
    ),
}
START, END = "<!-- tables: written by python bench tables -->", "<!-- end of tables -->"


def tables(results: dict[str, Any]) -> str:
    """Markdown for one file of results."""
    intro = [f"Measured on {record.sentence(_with_commits(results))}.", ""]
    if results["scale"] != 1:
        intro += [f"**A trial run: rows multiplied by {results['scale']:g}.**", ""]
    if floor := _floor(results["floor"]):
        intro += [floor, ""]
    return "\n".join([*intro, *BODIES[results["kind"]](results)])


def _with_commits(results: dict[str, Any]) -> dict[str, str]:
    """The description of the machine, with the commits of rows from an earlier run."""
    info = dict(results["machine_info"])
    older: dict[str, list[str]] = {}
    for row in results.get("rows", ()):
        if row.get("commit", info["commit"]) != info["commit"]:
            older.setdefault(row["commit"], []).append(row["workload"])
    for commit, names in older.items():
        info["commit"] += f" ({', '.join(names)}: {commit})"
    return info


def _floor(figures: dict[str, float]) -> str:
    named = ((*name.split(", "), value) for name, value in figures.items() if ", " in name)
    measured = [f"{what} {value:g} {unit}" for what, unit, value in named]
    if not measured:
        return ""
    return f"Floor, {figures['threads']} threads: " + "; ".join(measured) + "."


def _suite(results: dict[str, Any]) -> Iterable[str]:
    for group, members in groupby(results["benchmarks"], key=lambda entry: entry["group"]):
        entries = sorted(members, key=lambda entry: entry["stats"]["median"])
        best = _best_native(entries)
        formula = entries[0]["extra_info"].get("formula")
        yield f"### {group}"
        yield ""
        if formula:
            yield f"{formula[0].upper()}{formula[1:]}."
            yield ""
        share = ("GB/s", "GFLOP/s", "floor / time")
        yield from head(("", "median, ms", "min, ms", f"times {best[0]}", *share))
        for entry in entries:
            info, stats = entry["extra_info"], entry["stats"]
            yield line(
                info["contestant"],
                number(1e3 * stats["median"]),
                number(1e3 * stats["min"]),
                ratio(stats["median"] / best[1]),
                *(number(info.get(unit)) for unit in ("GB/s", "GFLOP/s")),
                percent(info.get("floor / time")),
            )
        yield ""


def _best_native(entries: list[dict[str, Any]]) -> tuple[str, float]:
    """Name and median that the others are divided by: native, or the best instruction set."""
    medians = {e["extra_info"]["contestant"]: e["stats"]["median"] for e in entries}
    rivals = ("numpy", "scipy", "scikit-learn", "torch")
    ours = [name for name in medians if not name.startswith(rivals)]
    name = NATIVE if NATIVE in medians else min(ours or medians, key=medians.__getitem__)
    return name, medians[name]


def _ratios(results: dict[str, Any]) -> Iterable[str]:
    yield from head(("task", "ours, ms", "rival", "rival, ms", "ratio", "range", "floor / time"))
    for row in results["rows"]:
        if "MB" in row:
            taken, other = (f"{number(row[name])} MB" for name in ("MB", "logits, MB"))
            yield line(row["task"], taken, "n x K logits", other, "", "", "")
            continue
        yield line(
            row["task"],
            number(row["median, ms"]),
            row["rival"],
            number(row["rival median, ms"]),
            ratio(row["ratio"]),
            " to ".join(f"{value:.3g}" for value in row["range"]),
            percent(row.get("floor / time")),
        )
    yield ""


def _scaling(results: dict[str, Any]) -> Iterable[str]:
    yield (
        "The time with one thread divided by the time with more threads. In brackets: the same "
        "ratio of the floor."
    )
    yield ""
    rows = results["rows"]
    counts = rows[0]["threads"] if rows else [1]
    more = [f"{n} threads" for n in counts[1:]]
    yield from head(("task", "1 thread, ms", *more, "floor / time"))
    for row in rows:
        gains = [ratio(gain) for gain in row["speed-up"]]
        share = None
        if "floor, ms" in row:
            share = row["floor, ms"][-1] / row["median, ms"][-1]
            least = row["floor speed-up"]
            gains = [f"{gain} ({digits(most)})" for gain, most in zip(gains, least, strict=True)]
        yield line(row["task"], number(row["median, ms"][0]), *gains[1:], percent(share))
    yield ""


def _fits(results: dict[str, Any]) -> Iterable[str]:
    named = ((name, results["machine_info"].get(name)) for name in record.RIVALS)
    yield "Rivals: " + ", ".join(f"{name} {version}" for name, version in named if version) + "."
    yield ""
    yield (
        "`reached`: seconds of our fit with the number of iterations that the gap needs. "
        "`certified`: seconds of our fit that proves the gap. "
        f"`default`: {DEFAULT_RIVAL}. `MB`: the peak of memory, without X. "
        "`>`: no rival reached the gap. The table then has the shortest time after which a rival "
        "was ended, and the rival with the smallest gap, with this gap."
    )
    yield ""
    yield from fit_lines(results["rows"])
    yield ""
    for row in results["rows"]:
        said = []
        if "limit, s" in row:
            said.append(f"a fit was given {row['limit, s']:g} s")
            if (more := row.get("default limit, s", 0.0)) > row["limit, s"]:
                said.append(f"{DEFAULT_RIVAL} {more:g} s")
        if "nonzero" in row:
            said.append(f"{row['nonzero']} of {row['coefficients']} coefficients are not 0")
        notes = [f"{name} {text}" for name, text in row["notes"].items()]
        yield f"- {row['workload']}: {'; '.join([', '.join(said), *notes])}."
    yield ""


def fit_lines(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """The table of fits: a line for each workload and gap."""
    columns = ("to gap", "reached, s", "certified, s", "fastest rival, s", "rival")
    ratios = ("rival / reached", "rival / certified", "default, s", "default / reached")
    yield from head(("task", *columns, *ratios, "MB", "rival, MB"))
    for row in rows:
        for gap in row["gaps"]:
            yield _fit_line(row, gap)


def _fit_line(row: dict[str, Any], gap: str) -> str:
    contestants = dict(row["contestants"])
    ours = _reaching(contestants.pop("fastsoftmax"), gap)
    certified = row["certified"].get(gap)
    proved = certified if certified and certified["certified"] else None
    bound = "" if certified is None else f"(bound {certified['bound']:.0e})" if not proved else ""
    rival = _Time(contestants, gap)
    defaults = {name: c for name, c in contestants.items() if name.startswith(DEFAULT_RIVAL)}
    default = _Time(defaults, gap)
    return line(
        row["task"],
        gap,
        number(ours and ours["seconds"]) or "never",
        number(proved and proved["seconds"]) or bound,
        rival.seconds_in_words,
        rival.name_in_words,
        rival.over(ours),
        rival.over(proved),
        default.seconds_in_words,
        default.over(ours),
        number(ours and ours.get("MB")),
        number(rival.point and rival.point.get("MB")),
    )


class _Time:
    """The time of the quickest of some contestants to a gap, or a lower bound of it.

    A contestant that the time limit ended needs longer than its longest fit. One that came to its
    own end never reaches the gap.
    """

    def __init__(self, contestants: dict[str, Any], gap: str) -> None:
        self._contestants = contestants
        reached = {name: _reaching(entry, gap) for name, entry in contestants.items()}
        there = {name: point for name, point in reached.items() if point}
        self.name = min(there, key=lambda name: there[name]["seconds"], default="")
        self.point = there.get(self.name)
        longest = {
            name: max(point["seconds"] for point in entry["points"])
            for name, entry in contestants.items()
            if entry["ended"] == "time limit" and entry["points"]
        }
        self.bound = None if self.point else min(longest.values(), default=None)

    @property
    def seconds_in_words(self) -> str:
        if self.point:
            return number(self.point["seconds"])
        return f"> {number(self.bound)}" if self.bound else "never" if self._contestants else ""

    @property
    def name_in_words(self) -> str:
        """The name; without one the nearest and its smallest gap."""
        if self.name:
            return self.name
        nearest = {
            name: min(point["gap"] for point in entry["points"])
            for name, entry in self._contestants.items()
            if entry["points"]
        }
        name = min(nearest, key=nearest.__getitem__, default="")
        return f"{name} ({nearest[name]:.1e})" if name else ""

    def over(self, ours: dict[str, Any] | None) -> str:
        """This time as a multiple of ours."""
        if not ours or not (self.point or self.bound):
            return ""
        if self.point:
            return ratio(self.point["seconds"] / ours["seconds"])
        return f"> {self.bound / ours['seconds']:.3g}"


def _reaching(entry: dict[str, Any], gap: str) -> dict[str, Any] | None:
    asked = entry["reached"].get(gap)
    return next((point for point in entry["points"] if point["max_iter"] == asked), None)


BODIES: dict[str, Callable[[dict[str, Any]], Iterable[str]]] = {
    "suite": _suite,
    "ratios": _ratios,
    "scaling": _scaling,
    FITS: _fits,
    EVERYDAY: standings.lines,
    PROBES: probes.lines,
    SCALE: scale.lines,
    CLUSTER: cluster.lines,
    BUSY: busy.lines,
}


def read_all(folder: Path) -> str:
    """The tables and charts of every file in a folder, in the order of `TITLES`."""
    parts = []
    names = {path.stem for path in folder.glob("*.json")}
    order = [*TITLES, *sorted(names - TITLES.keys())]
    for name in (name for name in order if name in names or name in COMMITTED):
        parts += [f"## {TITLES.get(name, name)}", ""]
        if name not in names:
            parts += ["Not measured yet.", ""]
            continue
        if name in CHARTS:
            parts += [f"![{CHARTS[name]}](results/{name}.svg)", ""]
        parts += [tables(record.read(folder / f"{name}.json"))]
    return "\n".join(parts).rstrip()


def replaced(text: str, content: str) -> str:
    """README text with new content between the marks."""
    before, mark, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"README.md must hold the marks {START!r} and {END!r}")
    return f"{before}{START}\n\n{content}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, check or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    for path in options.files:
        print(tables(record.read(path)))
    if options.files:
        return 0
    text = README.read_text(encoding="utf-8")
    wanted = replaced(text, read_all(RESULTS))
    if options.check:
        if wanted != text:
            print("bench/README.md is not made from results/: python bench tables", file=sys.stderr)
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0
