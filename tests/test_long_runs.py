"""Nothing grows over many fits and predictions, and no bit changes (see long_runs.py)."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "long_runs.py"


@pytest.mark.parametrize(
    ("n_fits", "n_predictions"),
    [
        (300, 4000),
        pytest.param(10_000, 1_000_000, marks=pytest.mark.long),
    ],
)
def test_nothing_grows(n_fits, n_predictions):
    """In a process of its own, which other tests have not filled."""
    command = [sys.executable, SCRIPT, "--fits", str(n_fits), "--predictions", str(n_predictions)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "growth: " in done.stdout
