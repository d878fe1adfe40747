"""What importing the package costs, and that it works where nothing was compiled."""

import json
import re
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from fastsoftmax.backend import how_to_get_kernels

# Modules that take long to import, or that not every installation has.
HEAVY = {"PIL", "joblib", "matplotlib", "pandas", "scipy", "sklearn", "threadpoolctl"}
DASK = {"dask", "distributed"}

FUNCTIONS = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "cross_entropy",
    "linear_cross_entropy",
    "accuracy",
)

# A finder in front of all others that knows nothing of a compiled module.
WITHOUT_KERNELS = """
import sys

class NotBuilt:
    def find_spec(self, name, path=None, target=None):
        if name == "fastsoftmax.kernels":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotBuilt())
"""

FITS = """
import json
import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    counts = []

    def count():
        counts.append([w.category.__name__ for w in caught if "kernels" in str(w.message)])
        caught.clear()

    import fastsoftmax
    import fastsoftmax.estimator
    import fastsoftmax.functional
    import numpy as np
    count()
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    y = X[:, :3].argmax(axis=1)
    scores = [fastsoftmax.FastSoftmax(backend="numpy").fit(X, y).score(X, y)]
    fastsoftmax.softmax(X, backend="numpy")
    count()
    scores.append(fastsoftmax.FastSoftmax().fit(X, y).score(X, y))
    count()
    scores.append(fastsoftmax.FastSoftmax(solver="sgd", max_iter=20).fit(X, y).score(X, y))
    fastsoftmax.softmax(X)
    count()
    try:
        fastsoftmax.FastSoftmax(backend="native").fit(X, y)
    except ImportError as error:
        refusal = str(error)
print(json.dumps([counts, scores, refusal, "fastsoftmax.kernels" in sys.modules]))
"""


@pytest.fixture
def imported_by(run_python):
    """A function that returns the modules loaded after some code, the first part of their names."""

    def imported(code):
        report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
        return set(run_python(f"{code}\n{report}").split())

    return imported


def test_the_package_alone_loads_nothing_else(imported_by):
    loaded = imported_by("import fastsoftmax; dir(fastsoftmax)")
    assert "fastsoftmax" in loaded
    assert not loaded & (HEAVY | {"numpy"})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_need_numpy_alone(imported_by, name):
    loaded = imported_by(f"from fastsoftmax import {name}")
    assert "numpy" in loaded
    assert not loaded & HEAVY


def test_functions_need_numpy_alone_when_called(imported_by):
    calls = """
from fastsoftmax import functional as f
f.softmax([[0.0, 1.0]])
f.log_softmax([[0.0, 1.0]])
f.logsumexp([[0.0, 1.0]])
f.cross_entropy([[0.0, 1.0]], [1], return_grad=True)
f.linear_cross_entropy([[1.0]], [[0.0], [1.0]], None, [1])
f.accuracy([1], [[0.0, 1.0]])
"""
    assert not imported_by(calls) & HEAVY
    assert (
        not imported_by(
            WITHOUT_KERNELS + "import warnings\nwarnings.simplefilter('ignore')" + calls
        )
        & HEAVY
    )


def test_the_estimator_does_not_load_what_draws(imported_by):
    loaded = imported_by("from fastsoftmax import FastSoftmax, datasets, show_versions")
    assert "sklearn" in loaded
    assert not loaded & (DASK | {"matplotlib"})


def test_without_dask(run_python):
    said = run_python(
        "import sys; sys.modules['distributed'] = None\n"
        "from fastsoftmax import FastSoftmax\n"
        "try:\n    import fastsoftmax.dask\nexcept ImportError as error:\n    print(error)"
    )
    assert "pip install 'dask[dataframe]' distributed" in said


def test_every_public_name_loads(run_python):
    run_python(
        "from fastsoftmax import *; import fastsoftmax as f; [getattr(f, n) for n in dir(f)]"
    )


def test_help_is_without_what_types_are_made_of():
    """`ArrayLike` is a union of 300 characters of numpy's own names."""
    import pydoc

    import fastsoftmax
    from fastsoftmax import FastSoftmax

    public = [getattr(fastsoftmax, name) for name in fastsoftmax.__all__]
    for thing in [*public, fastsoftmax.backend, fastsoftmax.monitor]:
        if not isinstance(thing, str):
            assert "numpy._typing" not in pydoc.render_doc(thing)
    shown = pydoc.plain(pydoc.render_doc(FastSoftmax.fit)).split("\n\n")[1]
    signature = " ".join(shown.partition("->")[0].split())
    signature = signature.replace("( ", "(")  # from Python 3.13 on a line for each parameter
    assert len(signature) < 400
    assert "y: 'ArrayLike | None' = None" in signature


def test_the_warning_shows_the_line_of_the_user(run_python):
    code = """
import warnings
from fastsoftmax import FastSoftmax
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    FastSoftmax().fit([[0.0], [1.0]], [0, 1])
print(caught[0].filename, caught[0].lineno)
"""
    assert run_python(WITHOUT_KERNELS + code) == f"<string> {WITHOUT_KERNELS.count(chr(10)) + 6}\n"


def test_unknown_names_are_attribute_errors():
    import fastsoftmax

    with pytest.raises(AttributeError, match="'fastsoftmax' has no attribute 'nothing'"):
        _ = fastsoftmax.nothing


def test_without_the_compiled_module(run_python):
    counts, scores, refusal, loaded = json.loads(run_python(WITHOUT_KERNELS + FITS))
    at_import, numpy_chosen, first_fit, later = counts
    assert at_import == []
    assert numpy_chosen == []
    assert first_fit == ["RuntimeWarning"]
    assert later == []
    assert min(scores) > 0.8
    assert "backend='native' needs the compiled kernels" in refusal
    assert not loaded


@pytest.mark.parametrize(
    ("in_clone", "hidden", "advice"),
    [
        (
            True,
            True,
            "inside the clone {root}, .* `pip install -e .` in the clone, or .* another f",
        ),
        (True, False, "from the clone {root}: .* a C compiler .* `pip install -e .`"),
        (False, True, "a C compiler .*--force-reinstall --no-cache-dir"),
        (False, False, "a C compiler .* `pip install -e .` in a clone of the repository"),
    ],
)
def test_advice_where_kernels_are_missing(tmp_path, monkeypatch, in_clone, hidden, advice):
    """A clone where Python starts hides the package that `pip install .` put elsewhere."""
    root, elsewhere = tmp_path / "clone", tmp_path / "site-packages"
    for folder in (root, elsewhere):
        (folder / "fastsoftmax").mkdir(parents=True)
        monkeypatch.syspath_prepend(folder)
    if in_clone:
        (root / "src" / "kernels").mkdir(parents=True)
    if hidden:
        (elsewhere / "fastsoftmax" / f"kernels{EXTENSION_SUFFIXES[0]}").touch()
    else:
        monkeypatch.setattr("sys.path", [str(root), str(elsewhere)])
    assert re.search(
        advice.format(root=re.escape(str(root))), how_to_get_kernels(root / "fastsoftmax")
    )
