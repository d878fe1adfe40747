"""``python -m fastsoftmax info``: what is installed, and whether the kernels are right."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from typing import Any

from fastsoftmax._show_versions import show_versions
from fastsoftmax.backend import resolve_backend
from fastsoftmax.cli.check import KERNELS, LIMIT_EPS, Result, check_kernels


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "info",
        help="print versions, instruction sets and threads, and check the kernels",
        description="Print versions, instruction sets, threads and OpenMP; then compare every "
        "compiled kernel with its numpy twin, for every instruction set of this CPU, in float32 "
        "and float64. The exit code is 1 if one of them is wrong.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print everything; return 1 if a kernel is wrong."""
    show_versions()
    try:
        kernels = resolve_backend("native")
    except ImportError:
        print("\nself-check: nothing to compare, numpy computes")
        return 0
    # Flushed, so that the description of the machine is printed before a kernel may crash.
    print(
        "\nself-check of the compiled kernels against numpy in float64: largest error / largest "
        f"value,\nto be at most {LIMIT_EPS} times the machine epsilon; 1 and 2 threads to give the "
        "same bits",
        flush=True,
    )
    start = time.perf_counter()
    results = list(_print_table(check_kernels(kernels)))
    seconds = time.perf_counter() - start
    wrong = [result for result in results if not result.ok]
    for result in wrong:
        print(f"{result.kernel} on {result.isa} in {result.real}: {result.problem}")
    print(f"self-check: {'FAILED' if wrong else 'ok'} ({seconds:.1f} s)")
    return 1 if wrong else 0


def _print_table(results: Iterable[Result]) -> Iterator[Result]:
    """Print a line for each instruction set and type as its results arrive; yield the results."""
    print(f"\n{'':<14}" + "".join(f"  {name}" for name in KERNELS))
    row: list[Result] = []
    for result in results:
        row.append(result)
        yield result
        if len(row) == len(KERNELS):
            cells = (f"{r.error:.1e}" if r.ok else "FAILED" for r in row)
            line = "".join(f"  {c:>{len(name)}}" for name, c in zip(KERNELS, cells, strict=True))
            print(f"{f'{result.isa} {result.real}':<14}{line}", flush=True)
            row = []
    print()
