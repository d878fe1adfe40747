"""What this machine can do at most, measured in the run that it is compared with.

Three figures, on as many cores as the kernels may use:

- multiply-adds: GFLOP/s of independent fused multiply-adds in registers, float32 or float64;
- read: GB/s of reading memory of a given size again and again, so that it comes from the level of
  the cache, or the memory, that data of this size comes from in the benchmarks too;
- copy: GB/s of copying, the bytes read and the bytes written both counted.

The floor of a task that does `flops` operations, reads `n_read` and writes `n_written` bytes is

    max(flops / multiply-adds, (n_read + n_written) / bandwidth)    seconds,

with the bandwidth of reading where nothing much is written, and of copying otherwise.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("floor.c")
REALS = {"float32": ("float", ctypes.c_float), "float64": ("double", ctypes.c_double)}
TRIALS = 12
# A trial's length: long beside the start of a thread, short beside what else the machine does.
SECONDS = 0.01
LEAST_BYTES, MOST_BYTES = 1 << 20, 1 << 29
GRAIN = 4096  # bytes; a multiple of what floor.c reads in one step


@dataclass(frozen=True)
class Work:
    """What a run has to do at least, by the formula that its race states."""

    flops: float
    n_read: float  # bytes
    n_written: float = 0.0
    real: str = "float32"

    @property
    def n_bytes(self) -> float:
        return self.n_read + self.n_written


class Floor:
    """The figures for a number of threads; each is measured when it is first asked for."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._measured: dict[str, float] = {}

    @property
    def available(self) -> bool:
        """Whether there is a compiler to measure with."""
        return _library("float32") is not None

    def seconds(self, work: Work) -> float:
        """The least time that a task can take."""
        mostly_read = work.n_written < 0.01 * work.n_read
        bandwidth = self.read(work.n_bytes) if mostly_read else self.copy(work.n_bytes)
        return max(work.flops / self.multiply_adds(work.real), work.n_bytes / bandwidth) / 1e9

    def multiply_adds(self, real: str) -> float:
        """GFLOP/s."""
        return self._once(f"multiply-adds {real} GFLOP/s", lambda: self._multiply_adds(real))

    def read(self, n_bytes: float) -> float:
        """GB/s of reading n_bytes."""
        size = _even_size(n_bytes)
        return self._once(f"read {size / 1e6:.4g} MB GB/s", lambda: self._read(size))

    def copy(self, n_bytes: float) -> float:
        """GB/s of copying where source and target are n_bytes together."""
        size = _even_size(n_bytes)
        return self._once(f"copy {size / 1e6:.4g} MB GB/s", lambda: self._copy(size))

    def as_dict(self) -> dict[str, float]:
        """What has been measured, by name with unit."""
        figures = {name: round(value, 2) for name, value in self._measured.items()}
        return {"threads": self.n_threads, **figures}

    def _once(self, name, measure):
        if name not in self._measured:
            self._measured[name] = measure()
        return self._measured[name]

    def _multiply_adds(self, real):
        library, number = _library(real), REALS[real][1]
        sinks = (number * self.n_threads)()
        n_rounds = 1 << 18  # about a millisecond

        def trial(thread, n_times):
            at = ctypes.byref(sinks, thread * ctypes.sizeof(number))
            return library.multiply_adds(n_rounds * n_times, number(0.999), number(1e-3), at)

        return self._best(trial)

    def _read(self, size):
        library, memory = _library("float32"), _memory(size)
        part = size // self.n_threads // GRAIN * GRAIN

        def trial(thread, n_times):
            library.read_memory(memory + thread * part, part, n_times)
            return float(part) * n_times

        with memory:
            return self._best(trial)

    def _copy(self, size):
        library, memory = _library("float32"), _memory(size)
        part = size // 2 // self.n_threads // GRAIN * GRAIN
        target = size // 2 // GRAIN * GRAIN

        def trial(thread, n_times):
            at = memory + thread * part
            library.copy_memory(at + target, at, part, n_times)
            return 2.0 * part * n_times

        with memory:
            return self._best(trial)

    def _best(self, trial):
        """The best rate in 1e9 a second; trial(thread, n_times) tells how much it has done."""
        n_times = 1
        while (seconds := self._together(trial, n_times)[1]) < SECONDS:
            n_times *= max(2, min(16, int(SECONDS / max(seconds, 1e-6))))
        return max(done / s for done, s in (self._together(trial, n_times) for _ in range(TRIALS))) / 1e9

    def _together(self, trial, n_times):
        """(what all threads have done, seconds from the first one's start to the last one's end)"""
        gate = threading.Barrier(self.n_threads)
        notes = []

        def work(thread):
            gate.wait()
            start = time.perf_counter()
            done = trial(thread, n_times)
            notes.append((done, start, time.perf_counter()))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(self.n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done, starts, ends = zip(*notes, strict=True)
        return sum(done), max(ends) - min(starts)
