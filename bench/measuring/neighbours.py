"""Processes that keep the CPUs busy beside what is measured."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

# A neighbour ends by itself when the process that started it is gone. Ctrl-C reaches it too, and is
# left to that process.
SPIN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.write(1, b".")
while os.getppid() == int(sys.argv[1]):
    for _ in range(300_000):
        pass
"""


@contextlib.contextmanager
def busy_neighbours(count: int) -> Iterator[list[int]]:
    """Keep `count` processes busy, one thread each, while a block runs; yields their ids.

    They are of the same session and priority as this process. Linux may divide the CPUs among
    sessions first, and a neighbour that is alone in its session would get more than its share.
    """
    command = [sys.executable, "-I", "-S", "-c", SPIN, str(os.getpid())]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        for process in processes:
            assert process.stdout is not None
            process.stdout.read(1)  # written when it begins to spin
        yield [process.pid for process in processes]
        if any(process.poll() is not None for process in processes):
            raise RuntimeError("a busy neighbour ended before its time")
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()
