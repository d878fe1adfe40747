"""Tables in README.md from the JSON in results/.

    python bench/summary.py            writes the tables between the marks in bench/README.md
    python bench/summary.py --check    fails if they are not what the JSON says
    python bench/summary.py FILE ...   prints the tables of some files

Nothing is left out: rows that the native kernels lose are there, with their ratios in bold.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import machine
from harness import NATIVE

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
FITS, DEFAULT_RIVAL = "fit to optimum", "scikit-learn lbfgs"
ELASTIC_NET = "elastic net"
START, END = "<!-- tables: written by summary.py -->", "<!-- end of tables -->"


def tables(record: dict[str, Any]) -> str:
    """Markdown for one file of results."""
    head = [f"Measured on {machine.summary(_with_commits(record))}.", ""]
    if record["scale"] != 1:
        head += [f"**A trial run: rows multiplied by {record['scale']:g}.**", ""]
    if floor := _floor(record["floor"]):
        head += [floor, ""]
    bodies = {
        "suite": _suite,
        "ratios": _ratios,
        "scaling": _scaling,
        FITS: _fits,
        ELASTIC_NET: _elastic_net,
    }
    body = bodies[record["kind"]]
    return "\n".join([*head, *body(record)])


def _with_commits(record: dict[str, Any]) -> dict[str, str]:
    """What is known of the machine, with the commits of all rows, and which are of an older one."""
    info = dict(record["machine_info"])
    older: dict[str, list[str]] = {}
    for row in record.get("rows", ()):
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


def _suite(record: dict[str, Any]) -> Iterable[str]:
    for group, members in groupby(record["benchmarks"], key=lambda entry: entry["group"]):
        entries = sorted(members, key=lambda entry: entry["stats"]["median"])
        best = _best_native(entries)
        formula = entries[0]["extra_info"].get("formula")
        yield f"### {group}"
        yield ""
        if formula:
            yield f"{formula[0].upper()}{formula[1:]}."
            yield ""
        share = ("GB/s", "GFLOP/s", "floor / time")
        yield from _head(("", "median, ms", "min, ms", f"times {best[0]}", *share))
        for entry in entries:
            info, stats = entry["extra_info"], entry["stats"]
            name = info["contestant"] + (f" ({info['note']})" if "note" in info else "")
            yield _line(
                name,
                _number(1e3 * stats["median"]),
                _number(1e3 * stats["min"]),
                _ratio(stats["median"] / best[1], 1.0),
                *(_number(info.get(unit)) for unit in ("GB/s", "GFLOP/s")),
                _percent(info.get("floor / time")),
            )
        yield ""


def _best_native(entries: list[dict[str, Any]]) -> tuple[str, float]:
    """Name and median of what the others are divided by: native, or the best instruction set."""
    medians = {e["extra_info"]["contestant"]: e["stats"]["median"] for e in entries}
    rivals = ("numpy", "scipy", "scikit-learn", "torch")
    ours = [name for name in medians if not name.startswith(rivals)]
    name = NATIVE if NATIVE in medians else min(ours or medians, key=medians.__getitem__)
    return name, medians[name]


def _ratios(record: dict[str, Any]) -> Iterable[str]:
    yield from _head(
        ("task", "ours, ms", "rival", "rival, ms", "ratio", "range", "aim", "floor / time")
    )
    for row in record["rows"]:
        if "MB" in row:
            taken, other = (f"{_number(row[name])} MB" for name in ("MB", "logits, MB"))
            aim = f"< {row['aim']:g} MB"
            yield _line(row["task"], taken, "n x K logits", other, "", "", aim, "")
            continue
        yield _line(
            row["task"],
            _number(row["median, ms"]),
            row["rival"] + (f" ({row['note']})" if row.get("note") else ""),
            _number(row["rival median, ms"]),
            _ratio(row["ratio"], row["aim"]),
            " to ".join(f"{value:.3g}" for value in row["range"]),
            f"{row['aim']:g}",
            _percent(row.get("floor / time")),
        )
    yield ""


def _scaling(record: dict[str, Any]) -> Iterable[str]:
    yield "Times quicker than with one thread; in brackets, what the floor gains at most."
    yield ""
    rows = record["rows"]
    counts = rows[0]["threads"] if rows else [1]
    more = [f"{n} threads" for n in counts[1:]]
    yield from _head(("task", "1 thread, ms", *more, "floor / time"))
    for row in rows:
        gains = [_ratio(gain, 1.0) for gain in row["speed-up"]]
        share = None
        if "floor, ms" in row:
            share = row["floor, ms"][-1] / row["median, ms"][-1]
            least = row["floor speed-up"]
            gains = [
                f"{gain} ({_ratio(most, 0.0)})" for gain, most in zip(gains, least, strict=True)
            ]
        yield _line(row["task"], _number(row["median, ms"][0]), *gains[1:], _percent(share))
    yield ""


def _fits(record: dict[str, Any]) -> Iterable[str]:
    named = ((name, record["machine_info"].get(name)) for name in machine.RIVALS)
    yield "Rivals: " + ", ".join(f"{name} {version}" for name, version in named if version) + "."
    yield ""
    yield (
        f"`reached`: seconds to that gap; `certified`: of the fit that proves it. `default` is "
        f"{DEFAULT_RIVAL}. Memory is the peak beside X."
    )
    yield ""
    yield from fit_lines(record["rows"])
    yield ""
    for row in record["rows"]:
        limit = f"{row['workload']}: a fit was given {row['limit, s']:g} s"
        if (more := row.get("default limit, s", 0.0)) > row["limit, s"]:
            limit += f", {DEFAULT_RIVAL} {more:g} s"
        others = [f"{name} {text}" for name, text in row["notes"].items()]
        yield "; ".join([limit, *others]) + "."
    yield ""


def _elastic_net(record: dict[str, Any]) -> Iterable[str]:
    """What elastic_net.py measured: a line for each problem."""
    yield "### Elastic net, to a gap of 1e-4"
    yield ""
    columns = ("C, l1_ratio", "not 0", "certified, s", "reached, s", "saga, s", "its gap")
    yield from _head(("task", *columns, "saga / reached"))
    for row in record["rows"]:
        if "skipped" in row:
            continue
        saga, bound = row["saga"][-1], "> " * row["ratio is a bound"]
        cells = (
            f"{row['problem']}, {row['size']}",
            f"{row['C']:g}, {row['l1_ratio']:g}",
            f"{row['nonzero']} of {row['coefficients']}",
            f"{row['certified']['seconds']:.2f}",
            f"{row['reached']['seconds']:.2f}",
            f"{saga['seconds']:.1f}",
            f"{saga['gap']:.1e}",
            f"{bound}{row['ratio']:.3g}",
        )
        yield "| " + " | ".join(cells) + " |"
    yield ""


def fit_lines(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """The table of fit_to_optimum.py: a line for each workload and gap."""
    columns = ("to gap", "reached, s", "certified, s", "fastest rival, s", "rival")
    ratios = ("rival / reached", "rival / certified", "default, s", "default / reached")
    yield from _head(("task", *columns, *ratios, "MB", "rival, MB"))
    for row in rows:
        for gap in row["gaps"]:
            yield _fit_line(row, gap)


def _fit_line(row: dict[str, Any], gap: str) -> str:
    contestants, limit = dict(row["contestants"]), row["limit, s"]
    ours = _reaching(contestants.pop("fastsoftmax"), gap)
    certified = row["certified"].get(gap)
    proved = certified if certified and certified["certified"] else None
    there = {name: _reaching(entry, gap) for name, entry in contestants.items()}
    there = {name: point for name, point in there.items() if point}
    first = min(there, key=lambda name: there[name]["seconds"], default=None)
    rival = there.get(first)
    default = there.get(_quicker_default(there))
    tried = [entry for name, entry in contestants.items() if name.startswith(DEFAULT_RIVAL)]
    # One that the time limit ended took longer than its longest fit; others never get there.
    cut = [entry for entry in tried if entry["ended"] == "time limit"] if not default else []
    longest = max((p["seconds"] for entry in cut for p in entry["points"]), default=None)
    least_default = f"> {_number(longest)}" if longest else "never" if tried else ""
    # The same of whoever would have been the first.
    waited = min(
        (max(p["seconds"] for p in entry["points"]) for entry in contestants.values()
         if entry["ended"] == "time limit" and entry["points"]),
        default=None,
    ) if not rival else None  # fmt: skip
    aims = row["aims"].get(gap, {})
    aim, aim_certified = aims.get("reached", (0, 0)), aims.get("certified", (0, 0))
    bound = "" if certified is None else f"(bound {certified['bound']:.0e})"
    return _line(
        row["task"],
        gap,
        _number(ours and ours["seconds"]) or "never",
        _number(proved and proved["seconds"]) or bound,
        _number(rival and rival["seconds"])
        or (f"> {_number(waited)}" if waited else f"none in {limit:g}"),
        first or "",
        _times(rival, ours, aim[0]) or _at_least(waited, ours),
        _times(rival, proved, aim_certified[0]) or _at_least(waited, proved),
        _number(default and default["seconds"]) or least_default,
        _times(default, ours, aim[1]) or _at_least(longest, ours),
        _number(ours and ours["MB"]),
        _number(rival and rival["MB"]),
    )  # fmt: skip


def _reaching(entry: dict[str, Any], gap: str) -> dict[str, Any] | None:
    asked = entry["reached"].get(gap)
    return next((point for point in entry["points"] if point["max_iter"] == asked), None)


def _quicker_default(there: dict[str, dict[str, Any]]) -> str | None:
    names = [name for name in there if name.startswith(DEFAULT_RIVAL)]
    return min(names, key=lambda name: there[name]["seconds"], default=None)


def _times(theirs: dict[str, Any] | None, ours: dict[str, Any] | None, aim: float) -> str:
    return _ratio(theirs["seconds"] / ours["seconds"], aim) if theirs and ours else ""


def _at_least(seconds: float | None, ours: dict[str, Any] | None) -> str:
    return f"> {seconds / ours['seconds']:.3g}" if seconds and ours else ""


def _head(columns: Sequence[str]) -> Iterable[str]:
    yield _line(*columns)
    yield "|---" + "|---:" * (len(columns) - 1) + "|"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratio(value: float, least: float) -> str:
    text = f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
    return f"**{text}**" if value < least else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def read_all(folder: Path) -> str:
    """The tables of every file in a folder, in the order of their names."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        parts += [f"## {path.stem}", "", tables(record)]
    return "\n".join(parts).rstrip() if parts else "No results have been committed yet."


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
        print(tables(json.loads(path.read_text(encoding="utf-8"))))
    if options.files:
        return 0
    text = README.read_text(encoding="utf-8")
    wanted = replaced(text, read_all(RESULTS))
    if options.check:
        if wanted != text:
            print("README.md does not show what results/ holds: run summary.py", file=sys.stderr)
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
