"""Notebooks of the examples, with what the examples printed and drew when the site was built.

sphinx-gallery runs each script and writes a page with its outputs, and a notebook without them.
Both have the same blocks of code in the same order, so the outputs of the page fit the notebook.
"""

import base64
import json
import re
import textwrap
from pathlib import Path
from typing import Any

# A block of code on a page of sphinx-gallery, or what follows it.
_PIECE = re.compile(
    r"^\.\. code-block:: Python\n\n(?P<code>(?: .*\n|\s*\n)+)"
    r"|^ *\.\. image-sg:: /(?P<picture>\S+)"
    r"|^ *\.\. code-block:: none\n\n(?P<printed>(?: .*\n|\s*\n)+)",
    re.MULTILINE,
)


def outputs_of(page: str, source: Path) -> list[list[dict[str, Any]]]:
    """Return the outputs of each block of code on a page, as a notebook stores them.

    Parameters
    ----------
    page : str
        reStructuredText that sphinx-gallery has written.
    source : Path
        The folder that the addresses of its pictures begin in.
    """
    blocks: list[list[dict[str, Any]]] = [[]]
    n_blocks = 0  # a script of one block has its outputs above the code
    for piece in _PIECE.finditer(page):
        if piece["code"] is not None:
            n_blocks += 1
            blocks += [[] for _ in range(n_blocks > 1)]
        elif piece["picture"] is not None:
            data = base64.b64encode((source / piece["picture"]).read_bytes()).decode()
            blocks[-1].append(
                {"output_type": "display_data", "metadata": {}, "data": {"image/png": data}}
            )
        else:
            text = textwrap.dedent(piece["printed"]).strip("\n") + "\n"
            lines = text.splitlines(keepends=True)
            blocks[-1].append({"output_type": "stream", "name": "stdout", "text": lines})
    return blocks[:n_blocks]


def fill(notebook: str, outputs: list[list[dict[str, Any]]]) -> str:
    """Return a notebook, the text of an .ipynb file, with the outputs of its code cells."""
    content = json.loads(notebook)
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    cells = [cell for cell in cells if "%matplotlib" not in "".join(cell["source"])]
    if len(cells) != len(outputs):
        raise ValueError(f"{len(cells)} cells of code, but {len(outputs)} blocks on the page")
    for number, (cell, found) in enumerate(zip(cells, outputs, strict=True), start=1):
        cell["outputs"], cell["execution_count"] = found, number
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def on_builder_inited(app: Any) -> None:
    """Fill the notebooks that sphinx-gallery has just written."""
    source = Path(app.srcdir)
    for path in sorted((source / "auto_examples").glob("*.ipynb")):
        page = path.with_suffix(".rst").read_text(encoding="utf-8")
        text = path.read_text(encoding="utf-8")
        path.write_text(fill(text, outputs_of(page, source)), encoding="utf-8")
