"""The tests on the Pythons of this machine, and with the oldest releases that are supported.

    python3 .ci/matrix.py                       the default tests: ten minutes for each row
    python3 .ci/matrix.py --sample              a sample: four minutes for each row
    python3 .ci/matrix.py --only 3.12           a row of the table, by its start
    python3 .ci/matrix.py --only "3.11 oldest"

Other arguments go to pytest. Each row gets an environment of its own, where the package is
installed from a clean copy of this tree, with kernels as wheels have them (without OpenMP). The
tests run in another copy, which has no package. Needs git, pip with an index, a C compiler and
Python 3.11 or newer. Interpreters are looked for on PATH and where pyenv keeps them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = [("3.11", "oldest")] + [(v, "newest") for v in ("3.11", "3.12", "3.13", "3.14", "3.14t")]
# scikit-learn brings scipy; this is the first release that goes with numpy 2.
OLDEST_SCIPY = "scipy==1.13.*"
SHOWN = ("numpy", "scipy", "scikit-learn", "Cython")
VARIABLES = {
    "FASTSOFTMAX_NATIVE": "1",
    "FASTSOFTMAX_OPENMP": "0",
    "MPLBACKEND": "Agg",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def main():
    """Run the rows and print their table; return 1 where tests failed."""
    parser = argparse.ArgumentParser(usage="matrix.py [--only ROW] [arguments of pytest]")
    parser.add_argument("--only", default="", help="the start of a row: 3.12, '3.11 oldest'")
    options, pytest_arguments = parser.parse_known_args()
    rows = [row for row in ROWS if " ".join(row).startswith(options.only)]
    if not rows:
        parser.error(f"no row starts with {options.only!r}: {ROWS}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        copy_tree(work / "source")
        shutil.copytree(work / "source", work / "tests")
        shutil.rmtree(work / "tests" / "fastsoftmax")
        results = [run(work, *row, pytest_arguments) for row in rows]
    print("\n| Python | releases |", " | ".join(SHOWN), "| result |")
    print("|---" * (len(SHOWN) + 3) + "|")
    for _, cells in results:
        print("|", " | ".join(cells), "|")
    return int(any(failed for failed, _ in results))


def copy_tree(target):
    """Copy the files of this tree that git has or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run(work, version, releases, pytest_arguments):
    """Return whether a row failed, and its cells."""
    print(f"\n== Python {version}, {releases} releases", flush=True)
    interpreter = find(version)
    if interpreter is None:
        print("skipped: there is no such interpreter")
        return False, (version, releases, *["-"] * len(SHOWN), "skipped, no such interpreter")
    environment = work / f"{version}-{releases}"
    subprocess.run([interpreter, "-m", "venv", environment], check=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | VARIABLES
    try:
        install(work, python, releases, variables)
    except subprocess.CalledProcessError:
        return True, (version, releases, *["-"] * len(SHOWN), "NOT INSTALLED")
    asks = "from importlib.metadata import version; import platform, sys; "
    asks += "print(platform.python_version(), *map(version, sys.argv[1:]))"
    shown = subprocess.run([python, "-c", asks, *SHOWN], check=True, capture_output=True, text=True)
    exact, *versions = shown.stdout.split()
    begin = time.monotonic()
    code, last = run_tests(python, work / "tests", variables, pytest_arguments)
    result = last if code == 0 else f"FAILED ({last or f'exit status {code}'})"
    seconds = time.monotonic() - begin
    return code != 0, (exact, releases, *versions, f"{result} in {seconds:.0f} s")


def install(work, python, releases, variables):
    """Install the package from its copy, with what the tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = project["build-system"]["requires"]
    constraints = work / "constraints.txt"
    constraints.write_text("")
    if releases == "oldest":
        extras = project["project"]["optional-dependencies"]
        listed = [*needed, *project["project"]["dependencies"], *extras["test"]]
        listed += [*extras["plot"], *extras["progress"]]
        oldest = [oldest_release(line) for line in listed if ">=" in line]
        constraints.write_text("\n".join([*oldest, OLDEST_SCIPY]))
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints]
    subprocess.run([*pip, *needed], check=True, env=variables)
    package = [f"{work / 'source'}[test]", "--no-build-isolation"]
    subprocess.run([*pip, *package], check=True, env=variables)


def oldest_release(requirement):
    """Return "name==1.2.*" for "name>=1.2", and "name==3.0.*" for "name>=3"."""
    name, number = requirement.split(">=")
    return f"{name}=={number}{'' if '.' in number else '.0'}.*"


def run_tests(python, folder, variables, pytest_arguments):
    """Run pytest; return its exit status and the last line of what it printed, without the time."""
    asks = "import fastsoftmax.kernels as k, os; print(os.path.dirname(k.__file__))"
    package = subprocess.check_output([python, "-c", asks], cwd=folder, env=variables, text=True)
    places = ["tests", "README.md", "docs", package.strip()]
    command = [python, "-m", "pytest", "-n", "2", *places, *pytest_arguments]
    last = ""
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, re.sub(r" in [\d.]+s.*|^=+ | =+$", "", last)


def find(version):
    """Return an interpreter of a version such as "3.12" or "3.14t", or None."""
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    number, t = version.removesuffix("t"), "t" if version.endswith("t") else ""
    kept = sorted(folder.glob(f"{number}.*/bin/python{version}"))
    candidates = [shutil.which(f"python{version}"), *reversed(kept)]
    asks = "import sys; print('%d.%d' % sys.version_info[:2] + 't' * ('t' in sys.abiflags))"
    for candidate in filter(None, candidates):
        # pyenv has a command for each version that any of its interpreters has
        answer = subprocess.run([candidate, "-c", asks], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.strip() == number + t:
            return str(candidate)
    return None


if __name__ == "__main__":
    sys.exit(main())
