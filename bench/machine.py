"""What a result has to tell about where it comes from: no names of hosts, users or folders."""

import json
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import problems
from threadpoolctl import threadpool_info

from fastsoftmax._show_versions import describe as describe_package

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "pytest-benchmark")
MISSING = "not installed"
RIVALS = ("cyanure", "scikit-learn-intelex", "snapml")  # of fits only: named where they are
FROM_PACKAGE = ("fastsoftmax", "CPU", "instruction sets", "OpenMP", "threads")


def describe() -> dict[str, str]:
    """CPU, threads, compiler, versions and commit, in the order in which they are read."""
    package = describe_package()
    return {
        "CPU": package["CPU"] + _cpu_family(),
        **{name: package[name] for name in FROM_PACKAGE if name != "CPU"},
        "compiler": _compiler(),
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        **{name: version for name in RIVALS if (version := _version(name)) != MISSING},
        "BLAS": _blas(),
        "images": problems.fashion_source(),
    }


def write_results(
    path: Path,
    kind: str,
    scale: float,
    described: dict[str, str],
    floor: dict[str, float],
    rows: list[dict[str, Any]],
) -> None:
    """JSON as summary.py reads it; `described` is from before the run, as commits may follow."""
    record = {"kind": kind, "scale": scale, "machine_info": described, "floor": floor, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def summary(machine: dict[str, str]) -> str:
    """The same in a sentence or two."""
    parts = (
        "{CPU}; fastsoftmax {fastsoftmax} at commit {commit}, {compiler}, {instruction sets}, "
        "{threads} threads; {system}, Python {python}, numpy {numpy} ({BLAS}), scipy {scipy}, "
        "scikit-learn {scikit-learn}, torch {torch}; images made from {images}"
    )
    return parts.format_map(machine)


def _cpu_family() -> str:
    """Family and model: a virtual machine's CPU may call itself no more than "AMD EPYC"."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    numbers = re.findall(r"^(?:cpu family|model)\s*:\s*(\d+)$", text, re.MULTILINE)[:2]
    return " (family {}, model {})".format(*numbers) if len(numbers) == 2 else ""


def _compiler() -> str:
    """The compiler of the kernels, as it has signed them."""
    from fastsoftmax import kernels  # summary.py has no need of them

    signatures = rb"GCC: \([^)]*\) [\d.]+|(?:Apple )?clang version [\d.]+"
    found = re.findall(signatures, Path(kernels.__file__).read_bytes())
    # Start-up files of the C library may bear another compiler's name; the kernels' is the last.
    return found[-1].decode() if found else "unknown compiler"


def _commit() -> str:
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        options = {"check": True, "capture_output": True, "text": True}
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], **options).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], **options).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    # New results are no change of what is measured.
    code = [line for line in changed.splitlines() if "bench/" not in line]
    return commit.strip() + " with changes" * bool(code)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING


def _blas() -> str:
    """numpy's BLAS, and the CPU that it takes this one for: rivals are as quick as that allows."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    # Others may be loaded too: scipy's wheel brings its own.
    for pool in sorted(pools, key=lambda pool: "numpy" not in pool["filepath"])[:1]:
        cpu = pool.get("architecture", "this CPU")
        return f"{pool['internal_api']} {pool['version']} for {cpu}"
    return "unknown BLAS"
