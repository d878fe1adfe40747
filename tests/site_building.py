"""Building the site, once for all tests of a process."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = ("auto_examples", "pictures", "_build")  # by builds
# What the pages include, show or link to.
NEEDED = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "setup.py"),
    *("bench", "docs"),
)

_built = []  # the site, once it is there


def built_site(tmp_path_factory):
    """Return the folder of the built site."""
    if not _built:
        _built.append(_build(tmp_path_factory))
    return _built[0]


def _build(tmp_path_factory):
    for module in ("myst_parser", "numpydoc", "pydata_sphinx_theme", "sphinx_copybutton"):
        pytest.importorskip(module)
    if any((ROOT / "examples").glob("*.py")):
        pytest.importorskip("sphinx_gallery")
    tree = tmp_path_factory.mktemp("tree")  # the gallery writes beside the pages
    for name in (*NEEDED, "examples"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns(*MADE))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    out = tree / "site"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, tree / "docs", out], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out
