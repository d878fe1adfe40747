"""How much of the package the tests run: lines and branches of Python, and lines of C.

    python .ci/covered.py           both
    python .ci/covered.py python    the default and the slow tests, with the processes they start
    python .ci/covered.py c         tests/c and the tests of the kernels

Works on a copy of this tree. Python needs coverage and pytest-cov; C needs gcc with gcov. The
exit status is 1 where less is run than `fail_under` of `pyproject.toml`, or C_LINES below, asks
for. A line of src/kernels/ops counts once for each instruction set and number type that was
compiled: a line that only one of them runs is not covered.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from sandbox import ROOT, Copy, compiler, run

# Least share of the lines of C, in percent.
C_LINES = 95.0
KERNEL_TESTS = (
    "affine_rows", "arguments", "blas", "bridge", "cross_entropy_rows", "csr", "exp",
    "factored_blocks", "feature_moments", "functional", "hessian_sums", "interruption",
    "loss_grad", "pack", "predict_rows", "sgd_steps", "small", "softmax_rows", "threads", "vectors",
)  # fmt: skip
GCOV_FLAGS = ("-O0", "--coverage", "-fprofile-update=atomic")


def environment(copy: Copy) -> dict[str, str]:
    """Return what tests of a copy need."""
    return {**os.environ, "PYTHONPATH": str(copy.folder), "MPLBACKEND": "Agg"}


def python(folder: Path) -> int:
    """Run the default and the slow tests, and report; returns the exit status."""
    copy = Copy.made(folder)
    tests = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-m", "not long"]
    tests += ["-p", "no:cacheprovider", "--cov", "--cov-config=pyproject.toml", "--cov-report="]
    done = subprocess.run(tests, cwd=copy.folder, env=environment(copy))
    report = subprocess.run([sys.executable, "-m", "coverage", "report"], cwd=copy.folder)
    return int(done.returncode != 0 or report.returncode != 0)


def c(folder: Path) -> int:
    """Run the harness and the tests of the kernels, and report; returns the exit status."""
    copy = Copy.made(folder, GCOV_FLAGS)
    failed = harness_fails(copy)
    names = [f"tests/test_{name}.py" for name in KERNEL_TESTS]
    tests = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", *names]
    failed |= subprocess.run(tests, cwd=copy.folder, env=environment(copy)).returncode != 0
    counts = lines_run(copy)
    total = missed = 0
    for file in sorted(counts):
        n, gone = len(counts[file]), sorted(at for at, count in counts[file].items() if not count)
        total, missed = total + n, missed + len(gone)
        if gone:
            share = 100.0 * (n - len(gone)) / n
            print(f"{file}: {share:.1f} % of {n} lines, not: {shown(gone)}")
    share = 100.0 * (total - missed) / max(1, total)
    print(f"{share:.2f} % of {total} lines of C; at least {C_LINES} % are asked for")
    return int(failed or share < C_LINES)


def harness_fails(copy: Copy) -> bool:
    """Compile tests/c/check_kernels.c with the kernels of the copy, run it; whether it fails."""
    program = copy.folder / "build" / "check_kernels"
    objects = [path for path in copy.objects() if path.stem != "kernels"]
    source = ["-std=c11", "-Isrc/kernels", "tests/c/check_kernels.c"]
    ways = ["-O0", "-pthread", "-fopenmp", "--coverage", "-DEND_OF_CHILD=exit"]
    run([*compiler(), *ways, *source, *objects, "-lm", "-o", program], copy.folder)
    return subprocess.run([program, "--brief"], cwd=copy.folder).returncode != 0


def lines_run(copy: Copy) -> dict[str, dict[tuple[int, str], int]]:
    """Return how often each line of src/kernels was run, by file, line and what compiled it."""
    counts: dict[str, dict[tuple[int, str], int]] = defaultdict(lambda: defaultdict(int))
    for data in sorted(copy.folder.rglob("*.gcda")):
        if data.stem == "kernels" or "check_kernels" in data.stem:
            continue
        with tempfile.TemporaryDirectory() as found:
            run(["gcov", "--json-format", data.resolve()], Path(found))
            for report in Path(found).glob("*.json.gz"):
                for file in json.loads(gzip.decompress(report.read_bytes()))["files"]:
                    name = os.path.relpath(copy.folder / file["file"], copy.folder)
                    if name.startswith(os.path.join("src", "kernels")):
                        for line in file["lines"]:
                            counts[name][line["line_number"], data.stem] += line["count"]
    return counts


def shown(gone: list[tuple[int, str]]) -> str:
    """Return lines with what did not run them, in few words."""
    by_line = defaultdict(list)
    for line, unit in gone:
        by_line[line].append(unit)
    return "; ".join(f"{line} ({', '.join(units)})" for line, units in sorted(by_line.items()))


def main() -> int:
    """Measure what is asked for; returns the exit status."""
    asked = sys.argv[1:] or ["python", "c"]
    if not set(asked) <= {"python", "c"}:
        raise SystemExit(__doc__)
    status = 0
    for name in asked:
        with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
            status |= {"python": python, "c": c}[name](Path(folder) / "tree")
    return status


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
