"""Files of results: the machine that they are from, and one line of JSON for each point.

They hold no names of hosts, users or folders.
"""

import json
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from measuring import problems
from threadpoolctl import threadpool_info

from fastsoftmax._show_versions import describe as describe_package

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "pytest-benchmark")
MISSING = "not installed"
RIVALS = ("cyanure", "scikit-learn-intelex", "snapml")  # of fits only: named where installed
FROM_PACKAGE = ("fastsoftmax", "CPU", "instruction sets", "OpenMP", "threads")


class Record(NamedTuple):
    """What a file of results holds."""

    kind: str  # of table, see results/tables.py
    scale: float  # what numbers of rows were multiplied by
    machine_info: dict[str, str]  # `describe`, called before the run: commits may follow
    floor: dict[str, float]
    rows: list[dict[str, Any]]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_lines(self._asdict()) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """A file of results."""
    return json.loads(path.read_text(encoding="utf-8"))


def earlier_rows(
    path: Path | None, kind: str, scale: float, described: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """The rows of a file by workload, if they are of the same kind, machine and versions.

    A run of other workloads keeps them. Each row names the commit at which it was measured.
    """
    if path is None or not path.exists():
        return {}
    known = read(path)
    before, now = ({**info, "commit": ""} for info in (known["machine_info"], described))
    if (known["kind"], known["scale"], before) != (kind, scale, now):
        return {}
    commit = known["machine_info"]["commit"]
    return {row["workload"]: {"commit": commit, **row} for row in known["rows"]}


def as_lines(value: Any, indent: str = "") -> str:
    """JSON with each object and list that holds no other object on a line of its own."""
    inner = indent + " "
    if isinstance(value, dict) and any(map(_holds_objects, value.values())):
        parts = [f"{json.dumps(name)}: {as_lines(part, inner)}" for name, part in value.items()]
        brackets = "{}"
    elif isinstance(value, list | tuple) and any(map(_holds_objects, value)):
        parts, brackets = [as_lines(part, inner) for part in value], "[]"
    else:
        return json.dumps(value)
    body = ",\n".join(inner + part for part in parts)
    return f"{brackets[0]}\n{body}\n{indent}{brackets[1]}"


def _holds_objects(value: Any) -> bool:
    """Whether a value is an object or holds one."""
    return isinstance(value, dict) or (
        isinstance(value, list | tuple) and any(map(_holds_objects, value))
    )


def describe() -> dict[str, str]:
    """CPU, threads, compiler, versions and commit, in the order in which they are read."""
    package = describe_package()
    package["threads"] = package["threads"].partition(" ")[0]  # what the number comes from
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


def sentence(machine: dict[str, str]) -> str:
    """The same for people."""
    parts = (
        "{CPU}; fastsoftmax {fastsoftmax} at commit {commit}, {compiler}, {instruction sets}, "
        "{threads} threads; {system}, Python {python}, numpy {numpy} ({BLAS}), scipy {scipy}, "
        "scikit-learn {scikit-learn}, torch {torch}; images made from {images}"
    )
    return parts.format_map(machine)


def _cpu_family() -> str:
    """Family and model: the CPU of a virtual machine may be named "AMD EPYC" and no more."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    numbers = re.findall(r"^(?:cpu family|model)\s*:\s*(\d+)$", text, re.MULTILINE)[:2]
    return " (family {}, model {})".format(*numbers) if len(numbers) == 2 else ""


def _compiler() -> str:
    """The compiler of the kernels, as it has signed them."""
    from fastsoftmax import kernels  # tables can be made without them

    signatures = rb"GCC: \([^)]*\) [\d.]+|(?:Apple )?clang version [\d.]+"
    found = re.findall(signatures, Path(kernels.__file__).read_bytes())
    # The start-up files of the C library may have another signature; that of the kernels is last.
    return found[-1].decode() if found else "unknown compiler"


def _commit() -> str:
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        options = {"check": True, "capture_output": True, "text": True}
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], **options).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], **options).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    # New results do not change what is measured.
    code = [line for line in changed.splitlines() if "bench/" not in line]
    return commit.strip() + " with changes" * bool(code)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING


def _blas() -> str:
    """numpy's BLAS, and the CPU that its code is chosen for: it decides how quick rivals are."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    # Others may be loaded too: scipy's wheel brings its own.
    for pool in sorted(pools, key=lambda pool: "numpy" not in pool["filepath"])[:1]:
        cpu = pool.get("architecture", "this CPU")
        return f"{pool['internal_api']} {pool['version']} for {cpu}"
    return "unknown BLAS"
