"""Arrays of other libraries, with scikit-learn's dispatch by array namespace on and off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = Path(__file__).parent / "array_api_calls.py"
SKIPPED = 77  # of CALLS, where scikit-learn cannot dispatch


@pytest.mark.parametrize("dispatch", ["0", "1"])
@pytest.mark.parametrize("library", ["numpy", "torch", "array_api_strict"])
def test_arrays_of_other_libraries(library, dispatch, tmp_path):
    """Results are numpy arrays, equal to those of numpy arrays to the last bit.

    scipy decides what it does with arrays when it is imported, hence a process of its own.
    """
    if library != "numpy":
        pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, CALLS, library, dispatch],
        env={**os.environ, "SCIPY_ARRAY_API": dispatch},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
