"""Make `textbook.ipynb`, and with ``--figures`` the pictures too, from `textbook.md`.

    python docs/make_notebook.py [--figures]

Prose becomes Markdown cells and each doctest block code cells, one for each output, as a cell shows
only its last value. Outputs are not stored. A picture directly under a block shows what that block
draws: ``--figures`` runs the page and draws it anew, and the notebook, which draws, leaves it out.
"""

import argparse
import doctest
import io
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("textbook.md")
_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n!\[[^\]]*\]\((?P<picture>[^)\s]+)\)\n)?",
    re.MULTILINE | re.DOTALL,
)
_SKIPPED = re.compile(r"\s*# doctest: \+SKIP$", re.MULTILINE)


def parts(page: str) -> Iterator[tuple[str, list[str], str | None]]:
    """Cut a page up.

    Parameters
    ----------
    page : str
        Markdown with doctests in blocks of ```python.

    Yields
    ------
    prose : str
        What stands above a block; "" where nothing does.
    cells : list of str
        Sources of the block's statements, cut after each that has an output; none at the end.
    picture : str or None
        Address of the picture directly under the block.
    """
    end = 0
    for block in _BLOCK.finditer(page):
        yield page[end : block.start()].strip(), _cells(block["code"]), block["picture"]
        end = block.end()
    yield page[end:].strip(), [], None


def _cells(code: str) -> list[str]:
    cells, cell = [], ""
    for example in doctest.DocTestParser().get_examples(code):
        source = example.source
        if doctest.SKIP in example.options:
            # what takes long, or a network, is for the reader to switch on
            source = textwrap.indent(_SKIPPED.sub("", source), "# ")
        cell += source
        if example.want:
            cells.append(cell)
            cell = ""
    return [*cells, cell] if cell else cells


def notebook(page: str) -> str:
    """Return the notebook of a page, as the text of an .ipynb file (nbformat 4.5)."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, source: str, **more: Any) -> None:
        lines = source.strip("\n").splitlines(keepends=True)
        if lines:
            cell = {"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, **more}
            cells.append({**cell, "source": lines})

    for prose, sources, _ in parts(page):
        add("markdown", prose)
        for source in sources:
            add("code", source, execution_count=None, outputs=[])
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def draw(page: str, folder: Path) -> list[Path]:
    """Run a page's code and save its pictures in a folder; return their paths."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names: dict[str, Any] = {"__name__": "__main__"}
    paths = []
    for _, sources, picture in parts(page):
        for source in sources:
            exec(compile(source, PAGE.name, "exec"), names)
        if picture is not None:
            paths.append(folder / picture)
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            _save(pyplot.gcf(), paths[-1])
        pyplot.close("all")
    return paths


def _save(figure: Any, path: Path) -> None:
    """Write a PNG of few colours: under half the bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    image = Image.open(buffer).convert("RGB")
    # other methods turn rare colours, such as the ends of a colour bar, into wrong ones
    few = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main() -> None:
    """Write what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", action="store_true", help="draw the page's pictures too")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    PAGE.with_suffix(".ipynb").write_text(notebook(page), encoding="utf-8")
    if arguments.figures:
        draw(page, PAGE.parent)


if __name__ == "__main__":
    main()
