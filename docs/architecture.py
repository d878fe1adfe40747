"""The floors of the package, and the diagram of them in the documentation.

An import goes to a lower row of `FLOORS`, or stays inside a folder: `tests/test_architecture.py`
holds the package to that. `conf.py` draws the same table, with the imports that the modules have.
"""

import ast
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

PACKAGE = "fastsoftmax"


class Floor(NamedTuple):
    """Modules and folders on one level, and what happens there to a row of X during a fit."""

    title: str
    rows: tuple[str, ...]  # from top to bottom; names of the same row do not import each other
    down: str = ""
    up: str = ""


FLOORS = (
    Floor(
        "Entry points",
        ("__main__", "cli __init__", "plot _show_versions functional", "datasets losses"),
    ),
    Floor(
        "Estimators",
        (
            "model_selection dask",
            "_sweep _dask",
            "estimator",
            "_streaming statistics",
            "_interchange",
            "_estimator",
        ),
        "`fit` checks parameters, X and y. `_estimator/` makes rows of them: classes become "
        "numbers, X is not copied.",
        "The result becomes `coef_`, `intercept_` and `gap_`, in the users' units and shapes.",
    ),
    Floor(
        "Optimisation",
        ("optimum monitor",),
        "`optimum/` chooses a solver, which asks for the objective at one point after another.",
        "The solver takes a step, or it ends: the certified gap is small enough.",
    ),
    Floor(
        "The problem",
        ("objective", "problem"),
        "`problem/` turns the solver's vector into weights and bias for the features as they are "
        "stored.",
        "The sums, divided by the number of rows, and the penalty make value, gradient and gap.",
    ),
    Floor(
        "Rows and solvers",
        ("shards solvers",),
        "`shards/` gives its rows to the backend, in calls that are short enough for Ctrl-C.",
        "The sums of the calls are added, in order.",
    ),
    Floor(
        "The backend",
        ("backend", "kernels reference linalg"),
        "`kernels.pyx` checks every array and releases the GIL.",
        "The sums are in numpy arrays. A failure is an exception.",
    ),
    Floor(
        "Shared by all",
        (
            "kernel_arguments threads _arguments archives batches columns data_sources",
            "blas foreign_arrays processors",
            "arrays cached floating_point _version",
        ),
    ),
)
# The C below kernels.pyx, drawn from the table of CONTRIBUTING.md.
KERNELS = Floor(
    "Plain C",
    (),
    "`pass.c` cuts the rows into blocks by size alone, and `parallel.c` gives the blocks to "
    "threads. An operation in `ops/` reads a tile of the block once.",
    "While the tile is in the cache it becomes logits, probabilities, loss and gradient. "
    "The sums of the blocks are added in order, so threads change no bit.",
)


def modules_of(folder: Path) -> dict[str, ast.Module]:
    """Return the syntax trees of a package's modules by name; stubs are modules too."""
    trees = {}
    for path in sorted(folder.rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            trees[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return trees


def _named(node: ast.AST) -> Iterator[str]:
    """Names that a statement imports, or a call of `import_module`."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.ImportFrom():
            raise ValueError(f"a relative import: {ast.unparse(node)}")
        case ast.Call(
            func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name))]
        ):
            yield name


def imports_of(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return what each module imports of the package, inside functions and for types too."""
    imports = {}
    for module, tree in trees.items():
        names = {name for node in ast.walk(tree) for name in _named(node)}
        # the name itself is a module, or it comes from one
        found = {name if name in trees else name.rpartition(".")[0] for name in names}
        imports[module] = found & trees.keys() - {module}
    return imports


def place_of(module: str) -> str:
    """Return the module or folder of the package's top level that a module is, or is in."""
    return [*module.split("."), "__init__"][1]


def levels() -> dict[str, int]:
    """Return the row of each place, counted from the bottom."""
    rows = [row.split() for floor in FLOORS for row in floor.rows]
    return {place: level for level, row in enumerate(reversed(rows)) for place in row}


def layout_of(contributing: str) -> dict[str, str]:
    """Return the words of CONTRIBUTING.md for each path of the package; folders end in "/"."""
    listing = contributing.partition(f"```text\n{PACKAGE}/\n")[2].partition("```")[0]
    words, folder = {}, ""
    for line in listing.splitlines():
        indent, name, text = re.fullmatch(r"( +)(.+?) {2,}(.+)", line).groups()
        first, *others = name.split(", ")  # "kernels.pyx, .pyi": two suffixes of one name
        folder = folder if len(indent) > 4 else ""
        for path in (first, *(first.partition(".")[0] + suffix for suffix in others)):
            words[folder + path] = text
        if name.endswith("/"):
            folder = name
    return words


def kernels_of(contributing: str) -> dict[str, str]:
    """Return the words of CONTRIBUTING.md for the files and folders of src/kernels."""
    rows = re.findall(r"^\| `src/kernels/([^|]+)` \| (.+) \|$", contributing, re.MULTILINE)
    return {names.replace("`", ""): text for names, text in rows}


# ---- the diagram ----


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _below(places: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out what a place also reaches through another one that it imports."""
    reached: dict[str, set[str]] = {}
    rank = levels()
    for place in sorted(places, key=lambda name: rank[name]):
        reached[place] = places[place].union(*(reached.get(name, set()) for name in places[place]))
    return {
        place: {
            name for name in names if not any(name in reached.get(other, ()) for other in names)
        }
        for place, names in places.items()
    }


def _box(name: str, words: str, anchor: str = "", below: str = "") -> str:
    focus = f' id="floor-{anchor}" tabindex="0"' if anchor else ""
    return (
        f'<div class="box"{focus}><code>{escape(name)}</code><span>{_code(words)}</span>'
        + (f'<span class="below">{escape(below)}</span>' if below else "")
        + "</div>"
    )


def _floor(floor: Floor, rows: list[list[str]]) -> str:
    boxes = "".join(f'<div class="row">{"".join(row)}</div>' for row in rows)
    road = ""
    if floor.down:
        road = (
            f'<div class="road{" turn" if floor is KERNELS else ""}">'
            f'<p class="down">{_code(floor.down)}</p><p class="up">{_code(floor.up)}</p></div>'
        )
    return (
        f'<div class="floor"><p class="title">{escape(floor.title)}</p>'
        f'<div class="rows">{boxes}</div>{road}</div>'
    )


def _lit(place: str, names: set[str]) -> str:
    """Return the rule that lights up what a place imports, where the pointer is on its box."""
    boxes = ", ".join(f"#floor-{name}" for name in sorted(names))
    pointed = f"#floor-{place}:is(:hover, :focus)"
    return f".architecture:has({pointed}) :is({boxes}) {{ border-color: var(--lit); }}\n"


def draw(folder: Path, contributing: str) -> str:
    """Return the diagram as HTML, of a package's folder and the text of CONTRIBUTING.md."""
    imports = imports_of(modules_of(folder))
    places: dict[str, set[str]] = {place_of(module): set() for module in imports}
    for module, names in imports.items():
        places[place_of(module)] |= {place_of(name) for name in names} - {place_of(module)}
    below, layout = _below(places), layout_of(contributing)
    rank = levels()

    def box(place: str) -> str:
        name = next(n for n in (f"{place}/", f"{place}.py", f"{place}.pyx") if n in layout)
        nearest = sorted(below[place], key=lambda other: (-rank[other], other))
        return _box(name, layout[name], place, ", ".join(nearest))

    floors = [
        _floor(
            floor, [[box(place) for place in row.split() if place in places] for row in floor.rows]
        )
        for floor in FLOORS
    ]
    files = sorted(kernels_of(contributing).items(), key=lambda item: item[0].endswith("/"))
    kernels = [_box(name, words) for name, words in files]
    above = next(i for i, floor in enumerate(FLOORS) if "kernels" in " ".join(floor.rows).split())
    floors.insert(above + 1, _floor(KERNELS, [kernels]))
    lit = "".join(_lit(place, names) for place, names in sorted(places.items()) if names)
    return (
        f'<style>\n{lit}</style>\n<div class="architecture">\n' + "\n".join(floors) + "\n</div>\n"
    )
