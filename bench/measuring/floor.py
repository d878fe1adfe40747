"""The limits of this machine, measured in the same run as the contestants.

Three figures, on as many cores as the kernels may use:

- multiply-adds: GFLOP/s of independent fused multiply-adds in registers, float32 or float64;
- read: GB/s of reading memory of a given size repeatedly, so that it comes from the same level of
  the cache, or from memory, as data of this size in the benchmarks;
- copy: GB/s of copying, the bytes read and the bytes written both counted.

The floor of a task that does `flops` operations, reads `n_read` and writes `n_written` bytes is

    max(flops / multiply-adds, (n_read + n_written) / bandwidth)    seconds,

with the bandwidth of reading where at most 2 % as much is written, and of copying otherwise.
"""

import ctypes
import functools
import os
import shlex
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("floor.c")
C_TYPES = {"float32": ctypes.c_float, "float64": ctypes.c_double}
# A trial is much longer than the start of a thread, and short enough to fall between other load.
N_TRIALS, TRIAL_SECONDS = 15, 0.01
LEAST_BYTES, MOST_BYTES = 1 << 20, 1 << 29
GRAIN = 4096  # bytes; a multiple of what floor.c reads in one step

# (thread, n_times) -> the flops or bytes of that thread.
Trial = Callable[[int, int], float]


@dataclass(frozen=True)
class Work:
    """The least work of a run, by the formula of its race."""

    flops: float
    n_read: float  # bytes
    n_written: float = 0.0
    real: str = "float32"

    @property
    def n_bytes(self) -> float:
        return self.n_read + self.n_written


class Floor:
    """The figures for a number of threads. Each is measured at its first use."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._measured: dict[str, float] = {}

    def seconds(self, work: Work) -> float | None:
        """The least time of a task; None where there is no compiler to measure with."""
        if _library(work.real) is None:
            return None
        mostly_read = work.n_written <= 0.02 * work.n_read
        bandwidth = self.read(work.n_bytes) if mostly_read else self.copy(work.n_bytes)
        return max(work.flops / self.multiply_adds(work.real), work.n_bytes / bandwidth) / 1e9

    def multiply_adds(self, real: str) -> float:
        """GFLOP/s."""

        def prepare() -> Trial:
            library, number = _library(real), C_TYPES[real]
            sinks = [number() for _ in range(self.n_threads)]

            def trial(thread: int, n_times: int) -> float:
                sink = ctypes.byref(sinks[thread])
                return library.multiply_adds(1024 * n_times, number(0.999), number(1e-3), sink)

            return trial

        return self._once(f"multiply-adds {real}, GFLOP/s", prepare)

    def read(self, n_bytes: float) -> float:
        """GB/s of reading n_bytes."""
        part = _part(n_bytes, self.n_threads)

        def prepare() -> Trial:
            library, memory = _library("float32"), _aligned(part * self.n_threads)

            def trial(thread: int, n_times: int) -> float:
                library.read_memory(memory.ctypes.data + thread * part, part, n_times)
                return float(part) * n_times

            return trial

        return self._once(f"read {part * self.n_threads / 1e6:.3g} MB, GB/s", prepare)

    def copy(self, n_bytes: float) -> float:
        """GB/s of copying, where source and target have n_bytes together."""
        part = _part(n_bytes / 2, self.n_threads)

        def prepare() -> Trial:
            library = _library("float32")
            source, target = (_aligned(part * self.n_threads) for _ in range(2))

            def trial(thread: int, n_times: int) -> float:
                at = (memory.ctypes.data + thread * part for memory in (target, source))
                library.copy_memory(*at, part, n_times)
                return 2.0 * part * n_times

            return trial

        return self._once(f"copy {2 * part * self.n_threads / 1e6:.3g} MB, GB/s", prepare)

    def as_dict(self) -> dict[str, float]:
        """The figures that have been measured, by name and unit."""
        return {"threads": self.n_threads, **self._measured}

    def _once(self, name: str, prepare: Callable[[], Trial]) -> float:
        if name not in self._measured:
            trial = prepare()
            n_times = 1
            while (seconds := self._together(trial, n_times)[1]) < TRIAL_SECONDS:
                n_times *= max(2, min(16, int(TRIAL_SECONDS / max(seconds, 1e-6))))
            rates = []
            for _ in range(N_TRIALS):
                done, seconds = self._together(trial, n_times)
                rates.append(done / seconds / 1e9)
            self._measured[name] = round(max(rates), 2)
        return self._measured[name]

    def _together(self, trial: Trial, n_times: int) -> tuple[float, float]:
        """(Flops or bytes of all threads, seconds from the first start to the last end)."""
        gate = threading.Barrier(self.n_threads)
        notes: list[tuple[float, float, float]] = []

        def run(thread: int) -> None:
            gate.wait()
            start = time.perf_counter()
            done = trial(thread, n_times)
            notes.append((done, start, time.perf_counter()))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(self.n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done, starts, ends = zip(*notes, strict=True)
        return sum(done), max(ends) - min(starts)


def _part(n_bytes: float, n_threads: int) -> int:
    """Bytes for each thread."""
    size = min(max(int(n_bytes), LEAST_BYTES), MOST_BYTES)
    return size // n_threads // GRAIN * GRAIN


def _aligned(n_bytes: int) -> np.ndarray:
    memory = np.ones(n_bytes + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n_bytes]


@functools.cache
def _library(real: str) -> ctypes.CDLL | None:
    """floor.c, compiled for this CPU; None without a compiler."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[:1]
    flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    c_name = {"float32": "float", "float64": "double"}[real]
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, f"floor_{real}.so")
        command = [*compiler, *flags, f"-DREAL={c_name}", "-o", str(built), str(SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True)
            library = ctypes.CDLL(str(built))
        except (OSError, subprocess.CalledProcessError):
            return None
    pointer, size = ctypes.c_void_p, ctypes.c_ssize_t
    library.multiply_adds.restype = ctypes.c_double
    library.multiply_adds.argtypes = [size, C_TYPES[real], C_TYPES[real], pointer]
    library.read_memory.restype = ctypes.c_longlong
    library.read_memory.argtypes = [pointer, size, size]
    library.copy_memory.restype = None
    library.copy_memory.argtypes = [pointer, pointer, size, size]
    return library
