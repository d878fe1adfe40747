"""Whether the tests see deliberate faults: makes them one by one in a copy of this tree.

    python .ci/mutations.py                 all faults of .ci/mutations/*.toml
    python .ci/mutations.py --sample 8      eight of them, others each week
    python .ci/mutations.py --only NAME...  these, or all of these lists
    python .ci/mutations.py --list          their names, and what they break
    python .ci/mutations.py --keep FOLDER   without compiling everything again next time

A fault is a text that stands exactly once in a file, what takes its place, and the tests that
have to fail then. The same tests have to pass without it. A fault that no test sees, tests that
fail without a fault, and a text that is not there any more (the code has changed: change the list)
are errors, and the exit status is 1. Run it by the Python that runs the tests, from any folder;
needs a C compiler.
"""

import argparse
import hashlib
import itertools
import os
import queue
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from sandbox import ROOT, Copy

LISTS = ROOT / ".ci" / "mutations"
# Beyond this the tests of a fault hang, which they must not: the fault is then counted as survived
# unless it says that it hangs.
SECONDS = 300
WEEK = 7 * 24 * 3600


class Fault(NamedTuple):
    """A deliberate fault, as an entry of a list has it."""

    name: str
    file: str
    old: str
    new: str
    breaks: str  # in words
    tests: tuple[str, ...]  # arguments of pytest
    hangs: bool = False  # whether tests may also fail to end
    crashes: bool = False  # whether they may also end the process
    group: str = ""  # the list that it is of


class Verdict(NamedTuple):
    """What came of a fault."""

    fault: Fault
    is_caught: bool
    told: str
    seconds: float


# ---- the lists ----


def listed() -> list[Fault]:
    """Return all faults; SystemExit where a list does not fit the tree."""
    faults, problems = [], []
    for path in sorted(LISTS.glob("*.toml")):
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
        for entry in entries:
            tests = entry.pop("tests")
            try:
                fault = Fault(tests=tuple(shlex.split(tests)), group=path.stem, **entry)
            except TypeError as error:
                raise SystemExit(f"{path.name}: {entry.get('name')}: {error}") from None
            problems += [f"{path.name}: {fault.name}: {text}" for text in wrong_in(fault)]
            faults.append(fault)
    names = [fault.name for fault in faults]
    problems += [f"{name} is there twice" for name in {n for n in names if names.count(n) > 1}]
    if problems:
        raise SystemExit("\n".join(problems))
    return faults


def wrong_in(fault: Fault) -> list[str]:
    """Return what is wrong with an entry."""
    path = ROOT / fault.file
    if not path.is_file():
        return [f"there is no file {fault.file}"]
    n = path.read_text(encoding="utf-8").count(fault.old)
    wrong = [] if n == 1 else [f"the old text stands {n} times in {fault.file}, not once"]
    if fault.old == fault.new:
        wrong.append("the new text is the old one")
    files = [word for word in fault.tests if word.startswith("tests/")]
    missing = [name for name in files if not (ROOT / name.partition("::")[0]).is_file()]
    if missing or not files:
        wrong.append(f"tests must name files that there are, missing: {missing}")
    return wrong


def sampled(faults: list[Fault], n: int, seed: int) -> list[Fault]:
    """Return n faults in an order that the seed decides; successive seeds take successive parts."""
    shuffled = sorted(faults, key=lambda fault: digest(fault.name))
    first = seed * n % len(faults)
    return list(itertools.islice(itertools.cycle(shuffled), first, first + min(n, len(faults))))


def digest(name: str) -> bytes:
    """Return numbers that depend on a name alone."""
    return hashlib.sha256(name.encode()).digest()


# ---- tests ----


class Outcome(NamedTuple):
    """How a run of tests has ended."""

    has_passed: bool
    has_failed: bool  # an assertion or an error in a test, as opposed to tests that cannot run
    told: str


def tested(copy: Copy, tests: tuple[str, ...]) -> Outcome:
    """Run tests in a copy, up to the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line"]
    command += ["-m", "not long", "-rf", *tests]
    names = ("FASTSOFTMAX_NATIVE", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
    names += ("PYTHONDONTWRITEBYTECODE",)  # (so that imports are quick)
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PYTHONPATH": str(copy.folder), "MPLBACKEND": "Agg"}
    try:
        done = subprocess.run(
            command,
            cwd=copy.folder,
            env=environment,
            timeout=SECONDS,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, False, "hangs")
    output = done.stdout
    if done.returncode < 0 or "Fatal Python error" in output:
        return Outcome(False, False, "crashes")
    failed = re.search(r"^FAILED (.*)$", output, re.MULTILINE)
    last = output.strip().splitlines()[-1] if output.strip() else "no output"
    told = failed[1][:150] if failed else last
    if done.returncode == 0 and not re.search(r"\b\d+ passed", last):
        return Outcome(False, False, f"nothing was tested: {last}")
    return Outcome(done.returncode == 0, done.returncode == 1 and bool(failed), told)


def judged(copy: Copy, fault: Fault) -> Verdict:
    """Make a fault, run its tests, and undo it."""
    began = time.monotonic()
    try:
        copy.change(fault.file, fault.old, fault.new, digest(fault.name)[0])
        outcome = tested(copy, fault.tests)
    except RuntimeError as error:
        outcome = Outcome(False, False, f"does not compile: {error}")
    finally:
        copy.restore(fault.file)
    caught = outcome.has_failed
    caught |= (fault.hangs and outcome.told == "hangs") or (
        fault.crashes and outcome.told == "crashes"
    )
    return Verdict(fault, caught, outcome.told, time.monotonic() - began)


def main() -> int:
    """Try faults, and tell what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, metavar="N", help="N faults, others each week")
    parser.add_argument("--seed", type=int, help="which ones (otherwise the number of the week)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults, or lists of them")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time (default: 2)")
    parser.add_argument("--no-baseline", action="store_true", help="trust that tests pass")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there, also next time")
    parser.add_argument("--list", action="store_true", help="show the faults")
    asked = parser.parse_args()
    faults = listed()
    if asked.only:
        faults = [f for f in faults if f.name in asked.only or f.group in asked.only]
    elif asked.sample:
        seed = int(time.time() // WEEK) if asked.seed is None else asked.seed
        faults = sampled(faults, asked.sample, seed)
    if asked.list:
        for fault in faults:
            print(f"{fault.name}: {fault.file}: {fault.breaks}")
        print(f"{len(faults)} faults")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as temporary:
        folder = asked.keep.resolve() if asked.keep else Path(temporary)
        return tried(faults, folder, asked.jobs, with_baseline=not asked.no_baseline)


def tried(faults: list[Fault], folder: Path, n_jobs: int, *, with_baseline: bool) -> int:
    """Try faults in copies of the tree; returns the exit status."""
    first = Copy.made(folder / "0")
    copies: queue.Queue[Copy] = queue.Queue()
    copies.put(first)
    for i in range(1, n_jobs):
        copies.put(first.twin(folder / str(i)))

    def in_a_copy(function, what):
        copy = copies.get()
        try:
            return what, function(copy, what)
        finally:
            copies.put(copy)

    n_sound, survived = 0, []
    with ThreadPoolExecutor(n_jobs) as pool:
        groups = list(dict.fromkeys(fault.tests for fault in faults)) if with_baseline else []
        for tests, outcome in pool.map(lambda tests: in_a_copy(tested, tests), groups):
            n_sound += outcome.has_passed
            if not outcome.has_passed:
                print(f"WITHOUT A FAULT: {shlex.join(tests)}: {outcome.told}", flush=True)
        for fault, verdict in pool.map(lambda fault: in_a_copy(judged, fault), faults):
            word = "caught  " if verdict.is_caught else "SURVIVED"
            print(f"{word} {fault.name} ({verdict.seconds:.0f} s): {verdict.told}", flush=True)
            if not verdict.is_caught:
                survived.append(fault)
    print(
        f"{len(faults) - len(survived)} of {len(faults)} faults caught; "
        f"{n_sound} of {len(groups)} groups of tests pass without them"
    )
    for fault in survived:
        print(f"survived: {fault.name}: {fault.file}: {fault.breaks}")
    return int(bool(survived) or n_sound < len(groups))


if __name__ == "__main__":
    sys.exit(main())
