"""Configuration of the documentation site; CONTRIBUTING.md tells how to build it.

Nothing comes from elsewhere, neither when it is built (inventories) nor when it is read (fonts,
scripts): the site works offline. Formulas become MathML, which browsers draw themselves.
"""

import re
import sys
from pathlib import Path
from typing import Any

import fastsoftmax

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "docs"))  # for the modules beside this one

import site_links  # noqa: E402
import site_notebooks  # noqa: E402
import site_pictures  # noqa: E402
import site_tables  # noqa: E402

# The address of the repository, "" as long as it has none; setup.py is the one place that has it.
_REPOSITORY = re.search(
    r'^REPOSITORY = "(.*)"$', (_ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE
)[1]

project = "fastsoftmax"
author = "fastsoftmax developers"
copyright = author
version = release = fastsoftmax.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["auto_examples/**/*.ipynb", "auto_examples/**/*.py"]
templates_path = ["_templates"]
root_doc = "index"
default_role = "py:obj"
highlight_language = "text"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autosummary_generate = False
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # numpydoc tells the types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = True  # types of parameters are links
numpydoc_xref_ignore = "all"  # ... where the name is known
intersphinx_mapping = site_links.write_inventories(_ROOT / "docs" / "_build" / "inventories")

if any((_ROOT / "examples").glob("*.py")):
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = {
        "examples_dirs": str(_ROOT / "examples"),
        "gallery_dirs": "auto_examples",
        "filename_pattern": r"\.py$",  # all are run
        "abort_on_example_error": True,
        "download_all_examples": False,
        "show_signature": False,
        "show_memory": False,
        "write_computation_times": False,
        "capture_repr": (),  # what is printed, and pictures
    }

html_theme = "pydata_sphinx_theme"
html_title = "fastsoftmax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
# Pages without pages below them need no navigation at their side.
html_sidebars = {
    page: []
    for page in (
        *("index", "learn", "faq", "migrating", "performance", "internals"),
        *("contributing", "changelog", "citing"),
    )
    if page == "index"
    or "{toctree}" not in Path(__file__).with_name(f"{page}.md").read_text(encoding="utf-8")
}
html_theme_options = {
    "logo": {"text": "fastsoftmax"},
    "header_links_before_dropdown": 8,
    "navbar_start": ["navbar-logo", "version"],
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    **({"github_url": _REPOSITORY} if _REPOSITORY else {}),
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _add_architecture(app: Any) -> None:
    """Add the directive that draws the package's floors, of the modules as they are."""
    from architecture import draw
    from docutils import nodes
    from docutils.parsers.rst import Directive

    class Architecture(Directive):
        def run(self) -> list[nodes.Node]:
            self.state.document.settings.env.note_reread()  # modules change without the page
            package = Path(fastsoftmax.__file__).parent
            contributing = (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
            return [nodes.raw("", draw(package, contributing), format="html")]

    app.add_directive("architecture", Architecture)


def _mathml(writer: Any, node: Any) -> None:
    """Write a formula as MathML, a block in a box that scrolls by itself."""
    from docutils.nodes import SkipNode
    from docutils.utils.math.latex2mathml import tex2mathml
    from sphinx.util import logging

    block = node.tagname == "math_block"
    tex = node.astext()
    try:
        formula = tex2mathml(tex, as_block=block)
    except Exception as error:  # docutils has no public class for what it cannot read
        message = "formula %r cannot be written as MathML: %s"
        logging.getLogger(__name__).warning(message, tex, error, location=node)
        formula = f"<code>{writer.encode(tex)}</code>"
    writer.body.append(f'<div class="formula">{formula}</div>\n' if block else formula)
    raise SkipNode


def _is_skipped(
    app: Any, what: str, name: str, member: object, skip: bool, options: Any
) -> bool | None:
    """Leave out the methods that scikit-learn's metadata routing adds to every class."""
    added = name.startswith("set_") and name.endswith("_request")
    return True if added or name == "get_metadata_routing" else None


def _strip_code(app: Any, doctree: Any) -> None:
    """Drop the empty last line that a doctest needs before the end of its block."""
    from docutils.nodes import Text, literal_block

    for block in doctree.findall(literal_block):
        if len(block) == 1:
            block[0] = Text(block.astext().rstrip())
            block.rawsource = block.rawsource.rstrip()


def setup(app: Any) -> None:
    """Register what is defined here; Sphinx calls it."""
    _add_architecture(app)
    app.connect("builder-inited", site_pictures.on_builder_inited)
    # after sphinx-gallery has run the examples
    app.connect("builder-inited", site_notebooks.on_builder_inited, priority=900)
    app.connect("html-page-context", site_tables.on_page)
    app.connect("doctree-read", _strip_code)
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
    app.connect("autodoc-skip-member", _is_skipped)
