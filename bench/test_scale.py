"""That the model of a fit's cost computes what it says. Nothing about seconds.

python -m pytest bench/test_scale.py
"""

import json
import re
from pathlib import Path

import pytest
from fits import scale
from fits.cost_model import Counts, Rates, Size, memory, seconds, vectors_of
from fits.scale import IMAGENET, MEASURED, Shape
from results import tables
from test_smoke import assert_anonymous

SIZE = Size(1000, 50, 10, 4)


def test_a_pass_is_bound_by_arithmetic_or_by_memory():
    assert SIZE.pass_flops == 2e6
    assert SIZE.x_bytes == 2e5
    by_arithmetic = seconds(SIZE, Counts(10), Rates(1, flops=1e6, read_bytes=1e9))
    assert by_arithmetic.one_pass == pytest.approx(2.0)
    assert by_arithmetic.passes == pytest.approx(12 * 2.0)
    by_memory = seconds(SIZE, Counts(10), Rates(1, flops=1e9, read_bytes=1e5))
    assert by_memory.one_pass == pytest.approx(2.0)


def test_the_parts_are_the_whole():
    rates = Rates(1, flops=1e6, read_bytes=1e9)
    parts = seconds(SIZE, Counts(10, preconditioners=2), rates)
    flops = 2 * (1000 * 50**2 + 20 * 50**3 + 3 * 1000 * 10 * 50)
    assert parts.preconditioners == pytest.approx(2 * flops / 1e6)
    others = parts.passes + parts.iterations + parts.start
    assert parts.total == pytest.approx(others + parts.preconditioners)


def test_memory_and_vectors_are_each_others_inverse():
    assert memory(SIZE, 3.0) == 32 * 50**2 + 12 * 1000 + 3 * 8 * 10 * 51
    assert vectors_of(SIZE, memory(SIZE, 3.0)) == pytest.approx(3.0)
    assert vectors_of(SIZE, 1.0) == 0.0


def test_cores_lose_some_speed_with_each_doubling():
    rates = Rates(2, flops=100.0, read_bytes=7.0, efficiency=0.9)
    assert rates.on(2) == rates
    assert rates.on(16).flops == pytest.approx(100.0 * 8 * 0.9**3)
    assert rates.on(16).read_bytes == 7.0


def test_the_page_has_the_sizes_and_figures_of_the_model():
    page = Path(__file__).parents[1] / "docs" / "scale.md"
    if not page.exists():
        pytest.skip("no documentation beside the benchmarks")
    text = page.read_text(encoding="utf-8")
    for shape in (*MEASURED, IMAGENET):
        size = shape.size
        figures = size.pass_flops / 1e12, size.x_bytes / 1e9, memory(size) / 1e9
        named = f"{shape.n_rows} x {shape.n_features}, K = {shape.n_classes} | {shape.storage} |"
        (found,) = re.findall(re.escape(named) + r" (.*) \|", text)
        assert [float(cell) for cell in found.split("|")] == [float(f"{f:.2g}") for f in figures]


def test_predictions_are_written_beside_measurements(tmp_path, monkeypatch, capsys):
    small = [Shape(200, 8, 5, "float32"), Shape(300, 10, 5, "float16")]
    monkeypatch.setattr(scale, "MEASURED", small)
    monkeypatch.setattr(scale, "IMAGENET", Shape(400, 12, 5, "float16"))
    file = tmp_path / "scale.json"
    arguments = ["--seconds=0", "--threads=1", "--cores", "1", "16", "--json", str(file)]
    scale.main(arguments)
    assert capsys.readouterr().out.count("measured") == 2
    text = file.read_text()
    assert_anonymous(text)
    results = json.loads(text)
    first, second, *predicted = results["rows"]
    assert first["predicted, s"] > 0 < first["measured, s"]
    assert first["certified"] and second["certified"]
    assert [row["cores"] for row in predicted] == [1, 16]
    for row in predicted:
        assert "measured, s" not in row
        assert row["counts of"] == second["task"]
        assert row["iterations"] == second["iterations"]
    made = tables.tables(results)
    assert made.count("\n| 400 x 12, K = 5, float16") == 4
    scale.main(["--no-fits", "--iterations=7", *arguments[:2], "--shapes", "nothing"])
    assert capsys.readouterr().out.count("7 iterations") == 2
