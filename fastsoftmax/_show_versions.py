"""A description of the machine and the installation, for bug reports."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from fastsoftmax._version import __version__
from fastsoftmax.backend import resolve_backend
from fastsoftmax.processors import available_cpus, default_threads

_PACKAGES = ("numpy", "scikit-learn", "scipy", "joblib", "threadpoolctl", "matplotlib")


def show_versions() -> None:
    """Print versions, and which kernels, instruction sets and threads are in use.

    The line "threads" has the number for ``n_jobs=None``, and the limit that decided it, such as
    ``4 (CPU affinity)`` or ``2 (CPU quota of the container)``.

    ``python -m fastsoftmax info`` prints the same and checks the kernels.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.show_versions()
    fastsoftmax       ...
    backend           ...
    instruction sets  ...
    """
    for name, value in describe().items():
        print(f"{name:<16}  {value}")


def describe() -> dict[str, str]:
    """Return what `show_versions` prints, in order."""
    try:
        kernels = resolve_backend("native")
        backend = "native (compiled)"
    except ImportError as error:
        kernels = resolve_backend("numpy")
        backend = f"numpy, many times slower. {error}"
    first, *others = kernels.available_isas()
    return {
        "fastsoftmax": __version__,
        "backend": backend,
        "instruction sets": f"{first} in use" + f", also {', '.join(others)}" * bool(others),
        "OpenMP": "yes" if kernels.openmp() else "no",
        "threads": "{} ({})".format(*default_threads(kernels)),
        "python": f"{platform.python_version()} ({sys.executable})",
        "OS": platform.platform(),
        "CPU": f"{_cpu_model()}, {available_cpus().n_threads} available",
        **{name: _version(name) for name in _PACKAGES},
        "BLAS": _blas(),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    try:
        if sys.platform == "linux":
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        elif sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.SubprocessError):
        pass  # a missing name is no error
    return platform.processor() or platform.machine()


def _blas() -> str:
    """Describe the BLAS of the numpy backend."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (threadpoolctl is not installed)"
    import numpy as np  # noqa: F401 (loads the BLAS)

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    described = (f"{p['internal_api']} {p['version']}, threads {p['num_threads']}" for p in pools)
    return "; ".join(dict.fromkeys(described)) or "unknown to threadpoolctl"
