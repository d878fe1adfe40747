"""Make `textbook.ipynb`, and with ``--figures`` the pictures too, from `textbook.md`.

    python docs/make_notebook.py [--figures]

Prose becomes Markdown cells and each doctest block code cells, one for each output, as a cell shows
only its last value. The outputs are those that the page states, which its doctests check; what the
page leaves open ("...") has none. A picture directly under a block shows what that block draws:
``--figures`` runs the page and draws it anew, and in the notebook it is the output of a cell.
"""

import argparse
import ast
import base64
import doctest
import io
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).with_name("textbook.md")
_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n!\[[^\]]*\]\((?P<picture>[^)\s]+)\)\n)?",
    re.MULTILINE | re.DOTALL,
)
_SKIPPED = re.compile(r"\s*# doctest: \+SKIP$", re.MULTILINE)


class Cell(NamedTuple):
    """Code, and the output that the page states; "" where there is none."""

    source: str
    output: str = ""


def parts(page: str) -> Iterator[tuple[str, list[Cell], str | None]]:
    """Cut a page up.

    Parameters
    ----------
    page : str
        Markdown with doctests in blocks of ```python.

    Yields
    ------
    prose : str
        What stands above a block; "" where nothing does.
    cells : list of Cell
        The block's statements, cut after each that has an output; none at the end.
    picture : str or None
        Address of the picture directly under the block.
    """
    end = 0
    for block in _BLOCK.finditer(page):
        yield page[end : block.start()].strip(), _cells(block["code"]), block["picture"]
        end = block.end()
    yield page[end:].strip(), [], None


def _cells(code: str) -> list[Cell]:
    cells, cell = [], ""
    for example in doctest.DocTestParser().get_examples(code):
        source = example.source
        if doctest.SKIP in example.options:
            # what takes long, or a network, is for the reader to switch on
            source = textwrap.indent(_SKIPPED.sub("", source), "# ")
        cell += source
        if example.want:
            cells.append(Cell(cell, example.want))
            cell = ""
    return [*cells, Cell(cell)] if cell else cells


def _outputs(cell: Cell, number: int) -> list[dict[str, Any]]:
    """Return what a notebook stores for a cell's output: of an expression, or what it prints."""
    if not cell.output or "..." in cell.output or cell.source.rstrip().startswith("# "):
        return []
    lines = cell.output.splitlines(keepends=True)
    last = ast.parse(cell.source).body[-1]
    printed = not isinstance(last, ast.Expr) or ast.unparse(last).startswith("print(")
    # fits that call a callback which prints are assigned to `_`
    if printed:
        return [{"output_type": "stream", "name": "stdout", "text": lines}]
    data = {"text/plain": [*lines[:-1], lines[-1].rstrip("\n")]}
    result = {"output_type": "execute_result", "execution_count": number}
    return [{**result, "metadata": {}, "data": data}]


def _picture(path: Path) -> dict[str, Any]:
    """Return what a notebook stores for a picture that a cell has drawn."""
    data = base64.b64encode(path.read_bytes()).decode()
    return {"output_type": "display_data", "metadata": {}, "data": {"image/png": data}}


def _with_attachments(prose: str, folder: Path | None) -> tuple[str, dict[str, Any]]:
    """Return prose whose pictures are attached to its cell, and the attachments."""
    attached: dict[str, Any] = {}

    def attach(match: re.Match[str]) -> str:
        path = Path(folder or "", match[2])
        data = base64.b64encode(path.read_bytes()).decode()
        attached[path.name] = {"image/svg+xml": data}
        return f"{match[1]}(attachment:{path.name})"

    if folder is None:
        return prose, {}
    text = re.sub(r"(!\[[^\]]*\])\(([^)\s]+\.svg)\)", attach, prose)
    return text, {"attachments": attached} if attached else {}


def notebook(page: str, folder: Path | None = PAGE.parent) -> str:
    """Return the notebook of a page, as the text of an .ipynb file (nbformat 4.5).

    The pictures that cells draw are read from `folder`; None leaves them out.
    """
    cells: list[dict[str, Any]] = []
    count = 0

    def add(kind: str, source: str, **more: Any) -> None:
        lines = source.strip("\n").splitlines(keepends=True)
        if lines:
            cell = {"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, **more}
            cells.append({**cell, "source": lines})

    for prose, blocks, picture in parts(page):
        text, attached = _with_attachments(prose, folder)
        add("markdown", text, **attached)
        for i, cell in enumerate(blocks):
            count += 1
            outputs = _outputs(cell, count)
            if picture is not None and i == len(blocks) - 1 and folder is not None:
                outputs.append(_picture(folder / picture))
            add("code", cell.source, execution_count=count, outputs=outputs)
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
    for _, cells, picture in parts(page):
        for cell in cells:
            exec(compile(cell.source, PAGE.name, "exec"), names)
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
    if arguments.figures:
        draw(page, PAGE.parent)
    PAGE.with_suffix(".ipynb").write_text(notebook(page), encoding="utf-8")


if __name__ == "__main__":
    main()
