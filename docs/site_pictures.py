"""Pictures of pages, drawn by the pages' own code when the site is built.

A picture directly under a block of doctests shows what that block draws, as in `make_notebook.py`.
Those in the folder `pictures/` are not in the repository; `draw_pages` makes them.
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
FOLDER = "pictures"


def pages_with_pictures(docs: Path = DOCS) -> dict[Path, list[Path]]:
    """Return the pictures in `FOLDER` that each page shows, as paths."""
    found = {}
    for page in sorted(docs.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        names = re.findall(rf"^!\[[^\]]*\]\(({FOLDER}/[^)\s]+)\)$", text, re.MULTILINE)
        if names:
            found[page] = [docs / name for name in names]
    return found


def draw_pages(docs: Path = DOCS) -> list[Path]:
    """Draw the pictures of each page that has changed since they were drawn; return them."""
    sys.path.insert(0, str(DOCS))
    from make_notebook import draw
    from threadpoolctl import threadpool_limits

    drawn: list[Path] = []
    for page, pictures in pages_with_pictures(docs).items():
        written = page.stat().st_mtime
        if all(path.exists() and path.stat().st_mtime > written for path in pictures):
            continue
        with threadpool_limits(1), contextlib.redirect_stdout(io.StringIO()):
            drawn += draw(page.read_text(encoding="utf-8"), docs)
        missing = [path.name for path in pictures if path not in drawn]
        if missing:
            raise ValueError(f"{page.name}: no block of code stands above {', '.join(missing)}")
    return drawn


def on_builder_inited(app: Any) -> None:
    """Draw what the pages show, before they are read."""
    draw_pages(Path(app.srcdir))
