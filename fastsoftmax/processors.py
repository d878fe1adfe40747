"""How many threads a process may use, and which of the limits on them is the lowest."""

import functools
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import NamedTuple

# Limits may change while a process runs, so they are read again after so many seconds. The quota
# takes 300 us, as long as a small fit; the others 5 us, a third of the prediction of a row.
_SECONDS_KEPT, _SECONDS_QUOTA_KEPT = 1, 10


class Limit(NamedTuple):
    """A number of threads, and what it comes from."""

    n_threads: int
    source: str


def default_threads(kernels: ModuleType) -> Limit:
    """Return the number of threads for n_jobs=None.

    That is what OpenMP allows: OMP_NUM_THREADS, and limits that were set by threadpoolctl. Without
    OMP_NUM_THREADS it is at most the number of CPUs that this process may use. So it is in
    scikit-learn, for code of its own with OpenMP. A positive OMP_NUM_THREADS may exceed the number
    of CPUs. Kernels without OpenMP ask the OpenMP of scikit-learn, and obey OMP_NUM_THREADS before
    that is loaded.

    Parameters
    ----------
    kernels : module
        `fastsoftmax.kernels` or `fastsoftmax.reference`.

    Returns
    -------
    Limit
        The lowest of the limits.
    """
    if kernels is sys.modules.get("fastsoftmax.reference"):
        return Limit(1, "numpy computes")
    asked, lowest = _granted_at(int(time.monotonic()) // _SECONDS_KEPT)
    allowed = kernels.max_threads() if kernels.openmp() else _loaded_openmp() or asked
    if allowed is not None and (asked is not None or allowed < lowest.n_threads):
        by_variable = allowed == asked
        source = "OMP_NUM_THREADS" if by_variable else "threadpoolctl or omp_set_num_threads"
        lowest = Limit(max(1, allowed), source)
    in_block = _joblib_jobs()
    if in_block is not None and in_block < lowest.n_threads:
        lowest = Limit(in_block, "joblib.parallel_config")
    return lowest


def available_cpus() -> Limit:
    """Return how many CPUs this process may use: the number from which negative n_jobs count.

    As `joblib.cpu_count`, it obeys CPU affinity, the quota of a cgroup, and LOKY_MAX_CPU_COUNT.
    joblib reads the quota of the outermost cgroup that a container shows. Here the cgroup of the
    process is read, and those around it: services of systemd and jobs of batch systems have their
    quota there.
    """
    n_cpus, quota = _machine_at(int(time.monotonic()) // _SECONDS_QUOTA_KEPT)
    limits = [Limit(n_cpus, "all CPUs")]
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        limits.append(Limit(len(os.sched_getaffinity(0)), "CPU affinity"))
    if quota < math.inf:
        limits.append(Limit(max(1, math.ceil(quota)), "CPU quota of the container"))
    if (most := _number_in("LOKY_MAX_CPU_COUNT")) is not None:
        limits.append(Limit(most, "LOKY_MAX_CPU_COUNT"))
    return min(limits, key=lambda limit: limit.n_threads)  # of equal ones the first


def cpu_quota(process: Path = Path("/proc/self")) -> float:
    """Return how many CPUs the cgroups of a process grant it, as a fraction; inf without a limit.

    Parameters
    ----------
    process : Path
        The folder of the process in /proc. Its files `cgroup` and `mountinfo` name the cgroup and
        the folders that show it.
    """
    try:
        groups = (process / "cgroup").read_text(encoding="utf-8")
        mounts = (process / "mountinfo").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # not on Linux, or no /proc in a sandbox
        return math.inf
    return min(map(_granted, _cpu_folders(groups, mounts)), default=math.inf)


@functools.lru_cache(maxsize=1)
def _granted_at(moment: int) -> tuple[int | None, Limit]:
    """Return OMP_NUM_THREADS and the CPUs, as they are at a moment."""
    return _number_in("OMP_NUM_THREADS"), available_cpus()


@functools.lru_cache(maxsize=1)
def _machine_at(moment: int) -> tuple[int, float]:
    """Return the number of CPUs and the quota, as they are at a moment."""
    return os.cpu_count() or 1, cpu_quota()


def _number_in(variable: str) -> int | None:
    """Return a positive number from the environment; None without one.

    OMP_NUM_THREADS may hold a list, of which the first number counts here.
    """
    found = re.match(r"\s*(\d+)\s*(?:,|$)", os.environ.get(variable, ""))
    return int(found[1]) or None if found else None


def _loaded_openmp() -> int | None:
    """Return what OpenMP allows in this process; None before scikit-learn has loaded its own.

    Where several are loaded, the largest number: threadpoolctl limits them all, and what only one
    library is told (by `torch.set_num_threads`) is not meant for others.
    """
    if "sklearn.utils._openmp_helpers" not in sys.modules:
        return None
    return max((get_max_threads() for get_max_threads in _openmp_numbers()), default=None)


@functools.cache
def _openmp_numbers() -> list[Callable[[], int]]:
    """Return omp_get_max_threads of the libraries that are loaded."""
    from threadpoolctl import ThreadpoolController  # functions of arrays do without it

    found = ThreadpoolController().select(user_api="openmp").lib_controllers
    return [library.get_num_threads for library in found]


def _joblib_jobs() -> int | None:
    """Return what `joblib.parallel_config(n_jobs=...)` allows inside such a block; None elsewhere.

    Workers of joblib are limited by OMP_NUM_THREADS, which joblib sets for them.
    """
    joblib = sys.modules.get("joblib.parallel")  # where it is not loaded, there is no block
    if joblib is None or _has_no_number(joblib) or not hasattr(joblib, "parallel_config"):
        return None
    # Where the block prefers threads, joblib would give its own number, 1, without these arguments.
    n_jobs = joblib.get_active_backend(prefer=None, require=None)[1]
    if n_jobs is None:
        return None
    n_threads = int(n_jobs)
    return max(1, n_threads + available_cpus().n_threads + 1 if n_threads < 0 else n_threads)


def _has_no_number(joblib: ModuleType) -> bool:
    """Return True where this thread is known to be outside of blocks with a number.

    In 0.2 us, where `get_active_backend` takes 2 us. False where joblib keeps its settings in
    another way than it does now.
    """
    try:
        default = joblib.default_parallel_config
        return getattr(joblib._backend, "config", default)["n_jobs"] is default["n_jobs"]
    except (AttributeError, KeyError, TypeError):
        return False


def _cpu_folders(groups: str, mounts: str) -> Iterator[Path]:
    """Yield the folders of the cgroups that may limit a process, from the innermost outwards.

    A line of `groups` is "number:controllers:path"; version 2 of cgroups has no controllers there.
    A line of `mounts` shows in which folder ("mount point") which part of a hierarchy ("root") is
    seen: see proc(5). Both versions may be in use side by side.
    """
    paths = {}
    for line in groups.splitlines():
        controllers, _, name = line.partition(":")[2].partition(":")
        for controller in controllers.split(","):
            paths[controller] = PurePosixPath(name)
    for line in mounts.splitlines():
        mount, _, kind = line.partition(" - ")
        version, *_, options = kind.split(" ")
        if version != "cgroup2" and not (version == "cgroup" and "cpu" in options.split(",")):
            continue
        path = paths.get("cpu" if version == "cgroup" else "")
        root, point = (_unescaped(name) for name in mount.split(" ")[3:5])
        top = folder = Path(point)
        # A container may see the path of the host, or one above its own root.
        if path is not None and path.is_relative_to(root) and ".." not in path.parts:
            folder = top / path.relative_to(root)
        yield folder
        while folder != top:
            folder = folder.parent
            yield folder


def _unescaped(name: str) -> str:
    """Return a path of mountinfo, where spaces and other special characters are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)


def _granted(folder: Path) -> float:
    """Return the CPUs that one cgroup grants, in version 2 or 1."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = [word for name in names for word in (folder / name).read_text().split()]
            quota, period = map(int, words)
        except (OSError, ValueError):  # no such file; or "max" for no limit
            continue
        if quota > 0 and period > 0:  # -1 for no limit
            return quota / period
    return math.inf
