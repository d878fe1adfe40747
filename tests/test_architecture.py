"""The structure of the package: which way imports go, and how large its functions may be."""

import ast
import importlib.util
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "fastsoftmax"
NEEDED = (SOURCES, ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.py")

MOST_LINES = 60  # of a function, its docstring left out
MOST_PARAMETERS = 8  # `self` and `cls` left out
# Users name what they pass to these, so many parameters with defaults do no harm.
PUBLIC = {"estimator", "dask", "model_selection", "functional", "losses", "datasets", "plot"}
# Those of FastSoftmax are its constructor's.
PARAMETERS = "fastsoftmax._estimator.parameters"

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in NEEDED), reason="the sources are not beside the tests"
)


@pytest.fixture(scope="module")
def architecture():
    """The module that holds the table of floors, and draws it for the documentation."""
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trees(architecture):
    """Syntax trees of all modules, by name."""
    return architecture.modules_of(SOURCES)


@pytest.fixture(scope="module")
def imports(architecture, trees):
    """What each module imports of the package."""
    return architecture.imports_of(trees)


def none(found, advice=""):
    """Fail with all that was found, a line each."""
    if found:
        pytest.fail("\n".join([advice, *sorted(found)]).lstrip())


def functions(trees):
    """(name of the module, function) for every function and method."""
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


# ---- imports


def test_no_circle_of_imports(imports):
    circle = []
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert not circle


def test_every_module_is_on_one_floor(architecture, trees):
    listed = [place for floor in architecture.FLOORS for row in floor.rows for place in row.split()]
    assert len(listed) == len(set(listed))
    assert set(listed) == {architecture.place_of(module) for module in trees}


def test_imports_go_down(architecture, imports):
    level = architecture.levels()
    upwards = []
    for module, names in imports.items():
        here = architecture.place_of(module)
        for imported in names:
            there = architecture.place_of(imported)
            placed = here in level and there in level  # what is not fails the test above
            if placed and here != there and level[here] <= level[there]:
                upwards.append(f"{module} -> {imported}")
    none(upwards, "imports that go up (see FLOORS in docs/architecture.py):")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import fastsoftmax.a", {"fastsoftmax.a"}),
        ("from fastsoftmax import a", {"fastsoftmax.a"}),
        ("from fastsoftmax import name", {"fastsoftmax"}),
        ("from fastsoftmax.a import name", {"fastsoftmax.a"}),
        ("from fastsoftmax.a import b", {"fastsoftmax.a.b"}),
        ("def f():\n    import fastsoftmax.a", {"fastsoftmax.a"}),
        ("if TYPE_CHECKING:\n    import fastsoftmax.a", {"fastsoftmax.a"}),
        ("importlib.import_module('fastsoftmax.a')", {"fastsoftmax.a"}),
        ("import numpy, fastsoftmax.me", set()),
    ],
)
def test_imports_are_found(architecture, code, found):
    names = ("fastsoftmax", "fastsoftmax.a", "fastsoftmax.a.b")
    trees = dict.fromkeys(names, ast.parse("")) | {"fastsoftmax.me": ast.parse(code)}
    assert architecture.imports_of(trees)["fastsoftmax.me"] == found


# ---- classes and functions


def test_objects_keep_their_class_and_attributes(trees):
    """Only `__setstate__` may write to another object's attributes all at once."""
    restoring = {
        id(node)
        for _, function in functions(trees)
        if function.name == "__setstate__"
        for node in ast.walk(function)
    }
    found = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr="__class__" | "__dict__", ctx=ast.Store() | ast.Del()):
                    pass
                case ast.Attribute(
                    value=ast.Attribute(attr="__dict__"), attr="update" | "pop" | "clear"
                ):
                    pass
                case _:
                    continue
            if id(node) not in restoring:
                found.append(f"{module}:{node.lineno} {ast.unparse(node)}")
    none(found)


def test_evaluations_need_no_cast(trees):
    found = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module, tree in trees.items()
        if module.split(".")[1:2] in (["problem"], ["objective"], ["optimum"])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "typing.cast")
    ]
    none(found)


def test_functions_are_short(trees):
    found = []
    for module, function in functions(trees):
        body = function.body
        if ast.get_docstring(function, clean=False) is not None:
            body = body[1:]
        n_lines = function.end_lineno - body[0].lineno + 1 if body else 0
        if n_lines > MOST_LINES:
            found.append(f"{module}.{function.name}: {n_lines} lines")
    none(found)


def test_signatures_are_narrow(architecture, trees):
    found = []
    for module, function in functions(trees):
        if architecture.place_of(module) in PUBLIC or module == PARAMETERS:
            continue
        given = function.args
        names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        n_parameters = len(names) - (names[:1] in (["self"], ["cls"]))
        if n_parameters > MOST_PARAMETERS:
            found.append(f"{module}.{function.name}: {n_parameters} parameters")
    none(found)


# ---- what is written about it


@pytest.fixture(scope="module")
def contributing():
    """The text of CONTRIBUTING.md."""
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_contributing_lists_the_files_of_the_package(architecture, contributing):
    layout = architecture.layout_of(contributing)
    patterns = [path for path in layout if not path.endswith("/")]
    empty = {path for path in layout if not list(SOURCES.glob(path))}
    none(empty, "CONTRIBUTING.md lists what does not exist:")
    # a folder without a list of its files stands for all of them
    whole = [
        path
        for path in layout
        if path.endswith("/") and not any(other.startswith(path) for other in patterns)
    ]
    files = {
        path.relative_to(SOURCES).as_posix()
        for suffix in ("py", "pyx", "pyi", "pxi")
        for path in SOURCES.rglob(f"*.{suffix}")
        if path.name != "__init__.py" or path.parent == SOURCES
    }
    listed = {path.relative_to(SOURCES).as_posix() for p in patterns for path in SOURCES.glob(p)}
    missing = {path for path in files - listed if not path.startswith(tuple(whole))}
    none(missing, "to be listed in CONTRIBUTING.md:")


def test_the_road_of_a_row_leads_through_what_exists(architecture):
    kernels = ROOT / "src" / "kernels"
    for floor in (*architecture.FLOORS, architecture.KERNELS):
        for name in re.findall(r"`([^`]+(?:/|\.\w+))`", floor.down + floor.up):
            assert (SOURCES / name).exists() or (kernels / name).exists(), name


def test_the_diagram_shows_every_place(architecture, contributing, trees):
    drawn = architecture.draw(SOURCES, contributing)
    for place in map(architecture.place_of, trees):
        assert f'id="floor-{place}"' in drawn
    for name in ("pass.c", "ops/", "vec/", "isa/", "dispatch.c"):
        assert name in drawn
