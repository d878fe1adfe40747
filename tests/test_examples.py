"""The examples run, on little data, and print what they are about."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("examples/ is not here", allow_module_level=True)

# What each prints, as regular expressions of lines.
PRINTED = {
    "calibration": [r"temperature [1-9]\.\d\d", r"accuracy before (0\.[78]\d+), after \1"],
    "class_templates": [
        r"C = +0\.1: test accuracy 0\.[78]\d+, gap (\de-0[4-9]|1e-03)",
        r" *\d+ times: .*",
    ],
    "cost_sensitive": [
        r"the most likely class: [\d.]+ a patient, \d+ malignant sent home",
        r" +test again: [1-9]\d*",
    ],
    "dask_cluster": [
        r"gap \de-0[4-9] after \d+ iterations, one worker killed",
        r"training accuracy 0\.[5-9]\d+",
        r"the same bits as here: True",
    ],
    "grid_search": [r"log-loss +gamma +components +C", r"test accuracy 0\.[89]\d+, gap \S+"],
    "joblib_shards": [r"gap \de-0[4-9], loss 0\.\d{17}, \d+ iterations"],
    "probe_embeddings": [
        r"C = .*<- chosen",
        r"test accuracy on \d+ embedded features: (0\.[789]\d+|1\.0+)",
    ],
    "soft_labels": [
        r"300 rows; the 4 voters agree on \d\d%",
        r"\.\.\. and all votes +: test log-loss 0\.\d+, accuracy 0\.[78]\d+",
    ],
    "stream_memmap": [
        r"on disk: 2,000 x 784 bytes, 2 MB",
        r"partial_fit: test accuracy 0\.[5-8]\d+ after 4 chunks, each seen once",
    ],
    "text_classification": [r"test accuracy 0\.[89]\d+, 3 classes", r" +signal: .*filter.*"],
}


UNDRAWN = ("joblib_shards",)  # it shows that two lines are equal


def run(name, monkeypatch, capsys):
    """Run an example as a script with --small, and return the lines that it prints.

    In one thread: two that wait for each other are slow where the CPUs are busy.
    """
    path = EXAMPLES / f"{name}.py"
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(sys, "argv", [str(path), "--small"])
    monkeypatch.setattr(pyplot, "show", lambda: None)
    pyplot.switch_backend("agg")
    with threadpool_limits(1):
        runpy.run_path(str(path), run_name="__main__")
    assert pyplot.get_fignums() or name in UNDRAWN
    pyplot.close("all")
    return capsys.readouterr().out.splitlines()


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_example(name, monkeypatch, capsys, tmp_path):
    if name == "dask_cluster":
        pytest.importorskip("distributed", reason="Dask is not installed")
        warnings.simplefilter("ignore")  # those of Dask, whose sockets close when a worker dies
    monkeypatch.chdir(tmp_path)
    lines = run(name, monkeypatch, capsys)
    for pattern in PRINTED[name]:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, lines)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    if name == "joblib_shards":
        elsewhere, here = lines
        assert elsewhere == here  # to the last bit


def costs(lines):
    """Cost a patient of each way of deciding."""
    return [
        float(found[1]) for line in lines if (found := re.search(r": ([\d.]+) a patient", line))
    ]


def test_expected_costs_pay(monkeypatch, capsys):
    most_likely, two, three = costs(run("cost_sensitive", monkeypatch, capsys))
    assert three < two < most_likely


@pytest.mark.parametrize("name", PRINTED)
def test_form(name):
    """Short, and with the title that a gallery of examples takes from the docstring."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert text.count("\n") < 70
    title, line, blank, sentence, end = ast.get_docstring(ast.parse(text)).splitlines()[:5]
    assert set(line) == {"="} and len(line) == len(title) and blank == ""
    # The gallery shows 95 characters of the first paragraph.
    assert len(sentence) <= 95 and sentence[-1] == "." and end == ""
