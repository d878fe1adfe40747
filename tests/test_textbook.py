"""The textbook page, its notebook and its pictures; the page's doctests run from docs/ itself."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
if not (DOCS / "textbook.md").is_file():
    pytest.skip("docs/ is not here", allow_module_level=True)

PAGE = (DOCS / "textbook.md").read_text(encoding="utf-8")
MOST_BYTES = 60_000  # of a picture


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_notebook", DOCS / "make_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(text, kind):
    return ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == kind]


def test_notebook_is_up_to_date(maker):
    stored = (DOCS / "textbook.ipynb").read_text(encoding="utf-8")
    assert stored == maker.notebook(PAGE), "run: python docs/make_notebook.py"


def test_notebook_is_valid(maker):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.reads(maker.notebook(PAGE), as_version=4))


def test_notebook_holds_all_prose_and_code(maker):
    text = maker.notebook(PAGE)
    headings = re.findall(r"^#+ .*$", PAGE, re.MULTILINE)
    prose = "\n".join(cells(text, "markdown"))
    assert re.findall(r"^#+ .*$", prose, re.MULTILINE) == headings
    code = "\n".join(cells(text, "code"))
    written = re.findall(r"^(?:>>>|\.\.\.) (.*?)(?:  # doctest: \+SKIP)?$", PAGE, re.MULTILINE)
    assert [re.sub("^# ", "", line) for line in code.splitlines()] == [
        re.sub("^# ", "", line) for line in written
    ]


def test_cell_ends_where_something_is_shown(maker):
    page = (
        "# Title\n\n```python\n>>> a = 1\n>>> a\n1\n"
        ">>> def f():\n...     return 2\n>>> f()\n2\n\n```\n"
    )
    text = maker.notebook(page)
    outputs = [c["outputs"] for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    assert [out[0]["data"]["text/plain"] for out in outputs] == [["1"], ["2"]]
    assert cells(text, "code") == ["a = 1\na", "def f():\n    return 2\nf()"]
    assert cells(text, "markdown") == ["# Title"]


def test_what_is_skipped_is_left_to_the_reader(maker):
    page = "```python\n>>> load(1)  # doctest: +SKIP\n>>> b = 2\n\n```\n\nEnd.\n"
    text = maker.notebook(page)
    assert cells(text, "code") == ["# load(1)\nb = 2"]
    assert cells(text, "markdown") == ["End."]


def test_picture_under_a_block_is_drawn_not_shown(maker, tmp_path):
    pytest.importorskip("matplotlib")
    page = (
        "Text ![kept](other.png)\n\n```python\n>>> from matplotlib import pyplot\n"
        ">>> _ = pyplot.subplots()\n\n```\n\n![drawn](pictures/one.png)\n\nEnd.\n"
    )
    assert cells(maker.notebook(page, None), "markdown") == ["Text ![kept](other.png)", "End."]
    paths = maker.draw(page, tmp_path)
    drawn = [c for c in json.loads(maker.notebook(page, tmp_path))["cells"] if c.get("outputs")]
    assert [list(out["data"]) for out in drawn[-1]["outputs"]] == [["image/png"]]
    assert paths == [tmp_path / "pictures" / "one.png"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_notebook_was_executed(maker):
    """It is read on pages that do not run it."""
    stored = json.loads(maker.notebook(PAGE))["cells"]
    outputs = [out for cell in stored for out in cell.get("outputs", ())]
    assert len(outputs) > 60
    kinds = [out["output_type"] for out in outputs]
    assert {"stream", "execute_result", "display_data"} == set(kinds)
    drawn = re.findall(r"^```\n\n!\[[^\]]+\]\((\S+)\)$", PAGE, re.MULTILINE)
    assert kinds.count("display_data") == len(drawn) > 3


def test_pictures_are_there_and_small():
    addresses = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)$", PAGE, re.MULTILINE)
    assert len(addresses) == PAGE.count("![") > 0
    for address in addresses:
        assert 0 < (DOCS / address).stat().st_size < MOST_BYTES, address
    assert {path.name for path in (DOCS / "images").glob("textbook-*")} == {
        Path(address).name for address in addresses
    }


def test_formulas_are_closed():
    prose = re.sub(r"```.*?```|`[^`]*`", "", PAGE, flags=re.DOTALL)
    assert prose.count("$$") % 2 == 0
    for paragraph in prose.replace("$$", "").split("\n\n"):
        assert paragraph.count("$") % 2 == 0, paragraph
