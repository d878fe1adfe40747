"""The table in docs/how-to.md: what it says of fastsoftmax exists."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import FastSoftmax, FastSoftmaxCV

PAGE = Path(__file__).parents[1] / "docs" / "how-to.md"
if not PAGE.exists():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)
LINES = PAGE.read_text(encoding="utf-8").splitlines()
ROWS = [line.strip("| ").split(" | ") for line in LINES if line.startswith("| ")]
OURS = ROWS[0].index("fastsoftmax")
CELLS = {row[0]: row[OURS] for row in ROWS if row != ROWS[0]}  # each group has the headings
CLASSES = {"FastSoftmax": FastSoftmax, "FastSoftmaxCV": FastSoftmaxCV}


@pytest.fixture(scope="module")
def fitted():
    X = np.random.default_rng(0).normal(size=(30, 2))
    return FastSoftmax().fit(X, X.argmax(axis=1))


def test_every_row_has_every_column():
    assert len(ROWS) > 30
    assert {len(row) for row in ROWS} == {len(ROWS[0])}


@pytest.mark.parametrize("row", CELLS)
def test_what_it_names_exists(row, fitted):
    cell = CELLS[row]
    for name in re.findall(r"\bclf\.(\w+)", cell):
        if name != "set_callbacks":  # of scikit-learn 1.9 and newer
            assert hasattr(fitted, name)
    for owner, name in re.findall(r"\b(FastSoftmax|fastsoftmax)\.(\w+)", cell):
        assert hasattr(CLASSES.get(owner, fastsoftmax), name)
    for owner, arguments in re.findall(r"\b(FastSoftmax|FastSoftmaxCV)\(([^)]*)\)", cell):
        names = re.findall(r"(\w+)=", arguments)
        assert names
        assert set(names) <= set(inspect.signature(CLASSES[owner]).parameters)
    for name, value in re.findall(r"(?<![(\w] )`(\w+)=([^`]*)`", cell):
        FastSoftmax(**{name: eval(value, {"np": np})})._validate_params()
    for arguments in re.findall(r"(?:clf\.|`)fit\(([^`]*)\)`", cell):
        names = re.findall(r", (\w+)=", arguments)
        assert set(names) <= set(inspect.signature(FastSoftmax.fit).parameters)
