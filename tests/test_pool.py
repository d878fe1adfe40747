"""The pool of threads of the kernels, called from C: what no result shows, or only by chance."""

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("fastsoftmax.kernels")
from failing_memory import compiler

KERNELS = Path(__file__).parent.parent / "src" / "kernels"
pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="needs a C compiler, and Linux"),
    pytest.mark.skipif(not KERNELS.is_dir(), reason="needs the sources"),
]


def test_loops(tmp_path):
    """Each part is done once, by threads of different numbers, as many as there should be.

    A thread that nobody wakes, or a caller that is not told of the end, hangs.
    """
    program = tmp_path / "check_pool"
    source = Path(__file__).parent / "c" / "check_pool.c"
    files = [source, KERNELS / "parallel.c", KERNELS / "pool.c"]
    flags = ["-std=c11", "-O1", "-pthread", f"-I{KERNELS}", f"-I{source.parent}"]
    subprocess.run([compiler(), *flags, *files, "-o", program], check=True)
    done = subprocess.run([program], timeout=60, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
