"""The documentation: every page is reached, every link leads somewhere, the site builds."""

import re
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import pytest
from site_building import DOCS, MADE, NEEDED, ROOT, built_site

import fastsoftmax

pytestmark = pytest.mark.skipif(
    not all((ROOT / name).exists() for name in NEEDED), reason="no documentation beside the tests"
)


def sources(suffixes):
    return {
        path.relative_to(DOCS).with_suffix("").as_posix(): path
        for path in sorted(DOCS.rglob("*"))
        if path.suffix in suffixes and not set(MADE) & set(path.parts)
    }


PAGES = sources({".md", ".rst"}) if DOCS.is_dir() else {}
MARKDOWN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")),
    *(path for path in PAGES.values() if path.suffix == ".md"),
]


def without_code(text):
    """Markdown without its blocks and spans of code."""
    text = re.sub(r"^( *)(`{3,}).*?^\1\2`*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*(?:\n[^`\n]+)?`", "", text)


def entries(page):
    """Names of the pages that a page's toctrees list."""
    text = PAGES[page].read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^\.\. toctree::\n((?: .*\n|\n)+)", text, re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    names = [re.sub(r".*<(.+)>", r"\1", line) for line in lines if line and line[0] != ":"]
    folder = PAGES[page].relative_to(DOCS).parent
    return [(folder / name).as_posix() for name in names]


def test_every_page_is_in_a_toctree():
    reached, waiting = set(), ["index"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.startswith(MADE):
            continue
        assert page in PAGES, f"a toctree lists {page}, and there is no such page"
        reached.add(page)
        waiting += entries(page)
    lost = sorted(set(PAGES) - reached)
    assert not lost, f"{lost} are in no toctree: list them in guide, learn, migrating or api/index"


@cache
def anchors(path):
    """Anchors of the headings of a Markdown file, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    text = without_code(path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(\s*<?([^)>\s]+)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        if set(MADE) & set(linked.parts):
            continue
        assert linked.exists(), f"{path.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{linked.name} has no heading for {target}"


def test_what_is_advised_to_install_exists():
    """There is no release, and a package beside the clone's own folder is hidden by that."""
    package = Path(fastsoftmax.__file__).parent
    found = []
    for path in (*MARKDOWN, *sorted(package.rglob("*.py")), ROOT / "setup.py"):
        text = path.read_text(encoding="utf-8")
        for command in re.findall(r"pip install ([^`\n&;]*)", text):
            words = [word.strip("'\"") for word in command.split()]
            hidden = any(word[:2] in (".", ".[") for word in words) and "-e" not in words
            if hidden or any(re.match(r"fastsoftmax\b", word) for word in words):
                found.append(f"{path.name}: pip install {command}")
    assert not found


def test_readme_reads_elsewhere():
    """An index shows the README, where its relative links would lead nowhere."""
    pytest.importorskip("setuptools", "77")
    code = """
import setuptools, sys
setuptools.setup = lambda **options: print(options["long_description"])
import setup
print("=" * 9)
print(setup.readme_for_an_index("![a](b.png) [c](d.md) [e](https://f)", "https://here"))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text, _, absolute = run.stdout.partition("=" * 9)
    assert "pip install" in text and "certificate" in text
    assert not [t for t in re.findall(r"\]\(([^)]*)\)", without_code(text)) if "://" not in t]
    assert absolute.split() == [
        "![a](https://here/raw/main/b.png)",
        "[c](https://here/blob/main/d.md)",
        "[e](https://f)",
    ]


def public_names():
    from fastsoftmax import datasets, plot

    modules = {"datasets": datasets, "plot": plot}
    names = [name for name in fastsoftmax.__all__ if name not in (*modules, "__version__")]
    for module in modules:
        names += [f"{module}.{name}" for name in modules[module].__all__]
    return [f"fastsoftmax.{name}" for name in names]


def test_api_reference_has_every_public_name():
    found = set()
    for path in sorted((DOCS / "api").glob("*.rst")):
        text = path.read_text(encoding="utf-8")
        current = re.search(r"currentmodule:: (\S+)", text)
        for kind, name in re.findall(r"^\.\. auto(\w+):: (\S+)", text, re.MULTILINE):
            found.add(f"{current[1]}.{name}" if current and kind != "module" else name)
    wanted = {f"fastsoftmax.{name}" for name in fastsoftmax.__all__ if name != "__version__"}
    assert not sorted(wanted - found), "list them in docs/api"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_fractions_have_braces(path):
    """The site read 12 / log of a half times a logarithm: digits together are one number."""
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"\\[td]?frac\s*\w+", text)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built_site(tmp_path_factory)


@pytest.mark.slow
def test_site_builds_without_warnings(site):
    assert (site / "index.html").is_file()
    assert "<math" in (site / "certificate.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_site_reads_offline(site):
    """Nothing that a page is made of comes from elsewhere; links for people may lead there."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            elsewhere = re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag)
            assert not elsewhere, f"{page.name}: {tag}"
    for sheet in site.rglob("*.css"):
        assert not re.search(
            r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")
        ), sheet.name


@pytest.mark.slow
def test_inventory_has_every_public_name_and_no_private_one(site):
    header, _, rest = (site / "objects.inv").read_bytes().partition(b"compressed using zlib.\n")
    assert header.startswith(b"# Sphinx inventory version 2")
    entries = [line.split() for line in zlib.decompress(rest).decode().splitlines()]
    # priority -1: the module that a class is defined in, under which no page shows it
    names = {name for name, kind, priority, *_ in entries if kind[:3] == "py:" and priority != "-1"}
    assert not set(public_names()) - names
    methods = {"fit", "partial_fit", "predict_proba", "save", "load", "to_onnx"}
    assert {f"fastsoftmax.FastSoftmax.{name}" for name in methods} <= names
    private = [name for name in names if any(part[0] == "_" for part in name.split("."))]
    assert not private
