"""The built site as strangers see it: pictures, outputs, links, and widths in a browser."""

import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
import zlib
from functools import partial
from pathlib import Path

import pytest
from site_building import DOCS, ROOT, built_site

import fastsoftmax

if not (DOCS / "conf.py").is_file():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)

PHONE = 390  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def module(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


class TestTables:
    def table(self, n_columns):
        head = "".join(f"<th>h{i} <b>x</b></th>" for i in range(n_columns))
        cells = "".join(f"<td>{i}</td>" for i in range(n_columns - 1)) + "<td><p></p></td>"
        rows = f"<thead><tr>{head}</tr></thead><tbody><tr>{cells}</tr></tbody>"
        return f'<p>a</p><table class="table">{rows}</table>'

    def test_cells_know_their_headings(self):
        html = module("site_tables").label_cells(self.table(4))
        assert '<table class="table cards">' in html
        assert re.findall(r'<td data-label="([^"]+)">(\d)', html) == [
            ("h0 x", "0"),
            ("h1 x", "1"),
            ("h2 x", "2"),
        ]
        assert '<td data-empty=""><p></p></td>' in html

    def test_code_may_break(self):
        cell = '<td><span class="pre">f(a=1)</span> (b=2)</td>'
        html = self.table(4).replace("<td>0</td>", cell)
        assert '"pre">f(<wbr>a=<wbr>1)</span> (b=2)' in module("site_tables").label_cells(html)

    def test_figures_scroll_and_two_columns_stay(self):
        label_cells = module("site_tables").label_cells
        assert '<table class="table wide">' in label_cells(self.table(12))
        assert label_cells(self.table(2)) == self.table(2)


class TestNotebooks:
    CELLS = ("a = 1", "print(a)")

    def notebook(self):
        cells = [{"cell_type": "code", "source": [text]} for text in self.CELLS]
        return json.dumps({"cells": [{"cell_type": "markdown", "source": []}, *cells]})

    def test_outputs_go_to_their_cells(self, tmp_path):
        (tmp_path / "one.png").write_bytes(b"png")
        page = (
            ".. code-block:: Python\n\n\n    a = 1\n\n\n\n"
            ".. code-block:: Python\n\n    print(a)\n\n\n\n"
            ".. image-sg:: /one.png\n   :alt: one\n\n"
            ".. rst-class:: sphx-glr-script-out\n\n"
            " .. code-block:: none\n\n    1\n      2\n\n\nEnd\n"
        )
        notebooks = module("site_notebooks")
        filled = json.loads(notebooks.fill(self.notebook(), notebooks.outputs_of(page, tmp_path)))
        _, first, second = filled["cells"]
        assert (first["outputs"], first["execution_count"]) == ([], 1)
        picture, printed = second["outputs"]
        assert picture["data"] == {"image/png": "cG5n"}
        assert printed["text"] == ["1\n", "  2\n"]

    def test_other_blocks_are_an_error(self):
        with pytest.raises(ValueError, match="2 cells of code, but 1 blocks"):
            module("site_notebooks").fill(self.notebook(), [[]])


def test_links_elsewhere_need_no_network(tmp_path):
    mapping = module("site_links").write_inventories(tmp_path)
    address, path = mapping["scikit-learn"]
    assert address == "https://scikit-learn.org/stable/"
    *head, body = Path(path).read_bytes().split(b"\n", 4)
    assert head[0] == b"# Sphinx inventory version 2"
    entries = zlib.decompress(body).decode().splitlines()
    name = "sklearn.linear_model.LogisticRegression"
    assert f"{name} py:class 1 modules/generated/{name}.html#{name} -" in entries


def test_every_picture_has_code_above_it():
    pages = module("site_pictures").pages_with_pictures()
    assert {"index.md", "plots.md", "production.md"} <= {page.name for page in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"^!\[[^\]]*\]\(pictures/", text, re.MULTILINE)
        drawn = re.findall(r"^```\n\n!\[[^\]]+\]\(pictures/", text, re.MULTILINE)
        assert len(drawn) == len(shown), page.name


def test_citation_names_this_version():
    for path in (ROOT / "CITATION.cff", DOCS / "citing.md"):
        versions = re.findall(
            r"version\s*[:=] [\"{]([\w.]+)[\"}]", path.read_text(encoding="utf-8")
        )
        assert versions == [fastsoftmax.__version__], path.name


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built_site(tmp_path_factory)


@pytest.mark.slow
class TestBuilt:
    def images(self, page):
        return re.findall(r'<img[^>]* src="([^"]+)"', page.read_text(encoding="utf-8"))

    def test_pages_about_pictures_show_them(self, site):
        wanted = {"index": 2, "plots": 10, "api/plot": 7, "production": 1, "textbook": 6}
        for name, least in wanted.items():
            page = site / f"{name}.html"
            found = self.images(page)
            assert len(found) >= least, name
            assert all((page.parent / address).is_file() for address in found)

    def test_every_example_has_a_thumbnail_and_a_sentence(self, site):
        text = (site / "auto_examples" / "index.html").read_text(encoding="utf-8")
        cards = re.findall(r'thumbcontainer" tooltip="([^"]+)"><img[^>]* src="([^"]+)"', text)
        assert len(cards) == len(list((ROOT / "examples").glob("*.py")))
        for sentence, address in cards:
            assert sentence.endswith(".") and not sentence.endswith("..."), sentence
            assert (site / "auto_examples" / address).is_file()

    def test_notebooks_were_executed(self, site):
        notebooks = {path.name: path for path in (site / "_downloads").rglob("*.ipynb")}
        assert "textbook.ipynb" in notebooks
        for path in notebooks.values():
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            assert any(cell.get("outputs") for cell in cells), path.name

    def test_links_lead_to_sources_and_elsewhere(self, site):
        text = (site / "api" / "FastSoftmax.html").read_text(encoding="utf-8")
        assert "_modules/fastsoftmax/estimator.html" in text
        assert "https://docs.python.org/3/library/functions.html#float" in text
        assert "https://numpy.org/doc/stable/reference/generated/numpy.ndarray.html" in text

    def test_every_page_shows_the_version_and_the_way_to_contribute(self, site):
        for page in site.glob("*.html"):
            text = page.read_text(encoding="utf-8")
            assert f">{fastsoftmax.__version__}</span>" in text, page.name
            assert 'href="contributing.html"' in text or page.name == "contributing.html"

    def test_no_page_is_wider_than_a_phone(self, site):
        """In a browser, where there is one."""
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            pytest.skip("there is no browser here")
        pages = [
            page.relative_to(site).as_posix()
            for page in site.rglob("*.html")
            if page.parts[-2] != "_static" and "_modules" not in page.parts
        ]
        widths = measured(browser, site, pages)
        assert set(widths) == set(pages)
        assert not {page: width for page, width in widths.items() if width > 0}


MEASURE = """<!doctype html><pre id="found"></pre>
<iframe id="frame" style="border: 0; width: {width}px; height: 800px"></iframe>
<script>
const pages = {pages}, found = {{}}, frame = document.getElementById("frame");
function next() {{
  if (!pages.length) {{
    document.getElementById("found").textContent = "[" + JSON.stringify(found) + "]";
    return;
  }}
  const page = pages.pop();
  frame.onload = () => {{
    const shown = frame.contentDocument;
    const boxes = [shown.documentElement, ...shown.querySelectorAll(".bd-article-container")];
    found[page] = Math.max(...boxes.map((box) => box.scrollWidth - box.clientWidth));
    next();
  }};
  frame.src = page;
}}
next();
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def measured(browser, site, pages):
    """Return by how many pixels each page is wider than a frame of a phone's width.

    Tables, formulas and code have boxes of their own, which may scroll; the text may not.
    """
    text = MEASURE.format(width=PHONE, pages=json.dumps(pages))
    (site / "measure-widths.html").write_text(text, encoding="utf-8")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/measure-widths.html"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=600000"]
    try:
        done = subprocess.run(
            [browser, *options, "--dump-dom", address], capture_output=True, text=True, timeout=300
        )
    finally:
        server.shutdown()
        server.server_close()
        (site / "measure-widths.html").unlink()
    found = re.search(r"\[(\{.*\})\]", done.stdout)
    if not found:
        pytest.skip(f"{Path(browser).name} does not run here: {done.stderr[-300:]}")
    return json.loads(found[1])


if __name__ == "__main__":  # python tests/test_site.py build/docs: widths of a site that is there
    folder = Path(sys.argv[1]).resolve()
    names = [page.relative_to(folder).as_posix() for page in folder.rglob("*.html")]
    names = [name for name in names if name[0] != "_"]
    print(measured(next(filter(None, map(shutil.which, BROWSERS))), folder, names))
