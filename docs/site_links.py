"""Links to other projects' references, without a network when the site is built.

Sphinx reads the addresses of other projects' names from their inventories, which it would download.
Here are the few names that this site links to, and rules for their addresses; `write_inventories`
makes inventories of them. A name that a page mentions and that has no link is added here.
"""

import zlib
from pathlib import Path
from typing import Any, NamedTuple


class Project(NamedTuple):
    """A project's reference: its address, the rule for a name's page, names and their kinds."""

    address: str
    page: str  # of {name}, and the place {anchor} on it
    names: dict[str, str]
    others: str = ""  # lines of an inventory for what the rule does not fit


def _names(kind: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


_GENERATED = "reference/generated/{name}.html#{anchor}"

PROJECTS = {
    "numpy": Project(
        "https://numpy.org/doc/stable/",
        _GENERATED,
        _names("class", "numpy.ndarray numpy.dtype numpy.memmap numpy.random.Generator")
        | _names("class", "numpy.random.RandomState")
        | _names("function", "numpy.load numpy.save numpy.savez numpy.seterr numpy.errstate")
        | _names("function", "numpy.result_type numpy.logspace numpy.nanmax"),
        """
array_like std:term -1 glossary.html#term-array_like array_like
arrays.scalars std:label -1 reference/arrays.scalars.html#arrays-scalars Scalars
numpy py:module 0 reference/index.html#module-numpy -
numpy.inf py:data 1 reference/constants.html#numpy.inf -
numpy.nan py:data 1 reference/constants.html#numpy.nan -
""",
    ),
    "scipy": Project(
        "https://docs.scipy.org/doc/scipy/",
        _GENERATED,
        _names("class", "scipy.sparse.csr_array scipy.sparse.csr_matrix scipy.sparse.spmatrix")
        | _names("class", "scipy.sparse.sparray scipy.optimize.OptimizeResult")
        | _names("function", "scipy.special.softmax scipy.special.log_softmax")
        | _names("function", "scipy.special.logsumexp"),
    ),
    "scikit-learn": Project(
        "https://scikit-learn.org/stable/",
        "modules/generated/{name}.html#{anchor}",
        _names(
            "class",
            """sklearn.linear_model.LogisticRegression sklearn.linear_model.LogisticRegressionCV
            sklearn.linear_model.SGDClassifier sklearn.pipeline.Pipeline
            sklearn.model_selection.GridSearchCV sklearn.model_selection.StratifiedKFold
            sklearn.preprocessing.StandardScaler sklearn.calibration.CalibratedClassifierCV
            sklearn.calibration.CalibrationDisplay sklearn.metrics.ConfusionMatrixDisplay
            sklearn.metrics.RocCurveDisplay sklearn.metrics.PrecisionRecallDisplay
            sklearn.frozen.FrozenEstimator sklearn.multiclass.OneVsRestClassifier
            sklearn.feature_extraction.text.HashingVectorizer
            sklearn.feature_extraction.text.TfidfVectorizer
            sklearn.exceptions.ConvergenceWarning sklearn.exceptions.NotFittedError""",
        )
        | _names("function", "sklearn.model_selection.cross_val_score sklearn.set_config"),
    ),
    "python": Project(
        "https://docs.python.org/3/",
        "library/{library}.html#{anchor}",
        _names("class", "int float str bool tuple dict list range object bytes")
        | _names("exception", "ValueError TypeError KeyboardInterrupt ImportError")
        | _names("exception", "FileNotFoundError RuntimeError UserWarning TimeoutError")
        | _names("class", "os.PathLike")
        | _names("data", "None True False")
        | _names("function", "callable contextlib.contextmanager collections.namedtuple")
        | _names("module", "pickle"),
        """
bltin-boolean-values std:label -1 library/stdtypes.html#bltin-boolean-values Boolean
generator std:term -1 glossary.html#term-generator generator
iterable std:term -1 glossary.html#term-iterable iterable
sequence std:term -1 glossary.html#term-sequence sequence
""",
    ),
}


def _page_in_python(name: str, kind: str) -> str:
    """Return the page of Python's library that describes a name."""
    if kind == "exception":
        return "exceptions"
    if kind == "data":
        return "constants"
    if kind == "module":
        return name
    if "." in name:
        return name.partition(".")[0]
    functions = ("int", "float", "bool", "object", "callable")
    return "functions" if name in functions else "stdtypes"


def _entries(project: Project) -> list[str]:
    """Return the lines of an inventory."""
    lines = [f"{entry}\n" for entry in project.others.strip().splitlines() if entry]
    for name, kind in project.names.items():
        anchor = f"module-{name}" if kind == "module" else name
        page = project.page.format(name=name, anchor=anchor, library=_page_in_python(name, kind))
        lines.append(f"{name} py:{kind} 1 {page} -\n")
    return sorted(lines)


def inventory(title: str, project: Project) -> bytes:
    """Return a project's names as an inventory of Sphinx, version 2."""
    head = f"# Sphinx inventory version 2\n# Project: {title}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(_entries(project)).encode())


def write_inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write an inventory for each project, and return what `intersphinx_mapping` wants."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping: dict[str, Any] = {}
    for title, project in PROJECTS.items():
        path = folder / f"{title}.inv"
        path.write_bytes(inventory(title, project))
        mapping[title] = (project.address, str(path))
    return mapping
