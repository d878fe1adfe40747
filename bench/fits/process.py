"""A fit in a process of its own: so the peak of memory is that of the fit, and it can be ended.

The process reads the rows into memory, makes a small fit (imports, threads), waits until it uses
almost no CPU time, and then times the whole fit.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

X_PARTS = ("data", "indices", "indptr")
START_SECONDS = 60.0  # imports, reading the rows, the first small fit
MOST_FITS = 1000
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
JOB, ANSWER, COEFFICIENTS = "job.json", "answer.json", "coefficients.npz"


class Store:
    """A problem's rows in files, in the type that a contestant takes.

    So their memory is taken before a fit, and no conversion adds to its peak.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, problem: Any, storage: str, input_scale: float = 1.0) -> None:
        """Write X in a type, scaled; or "as is": in its own type, not scaled."""
        np.save(self.folder / "labels.npy", problem.labels)
        X = problem.X
        if storage != "as is":
            X = X.astype(storage)
            if input_scale != 1.0:
                X *= np.dtype(storage).type(input_scale)
        if not problem.is_sparse:
            np.save(self.folder / f"{storage}.npy", X)
            return
        for part in X_PARTS:
            np.save(self.folder / f"{storage} {part}.npy", getattr(X, part))
        np.save(self.folder / "shape.npy", np.array(X.shape))

    def read(self, storage: str) -> tuple[np.ndarray | sparse.csr_array, np.ndarray]:
        """X and labels, in memory."""
        labels = np.load(self.folder / "labels.npy")
        dense = self.folder / f"{storage}.npy"
        if dense.exists():
            return np.load(dense), labels
        parts = tuple(np.load(self.folder / f"{storage} {part}.npy") for part in X_PARTS)
        shape = tuple(int(size) for size in np.load(self.folder / "shape.npy"))
        return sparse.csr_array(parts, shape=shape), labels


def fit(folder: Path, job: dict[str, Any], limit: float) -> dict[str, Any]:
    """Do a job in a new process; its answer, or {"failed": why}."""
    (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
    for name in (ANSWER, COEFFICIENTS):
        (folder / name).unlink(missing_ok=True)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(job["n_threads"]))}
    command = [sys.executable, str(Path(__file__).parents[1]), "job", str(folder)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "env": environment}
    try:
        done = subprocess.run(command, timeout=START_SECONDS + limit, **options)
    except subprocess.TimeoutExpired:
        return {"failed": "time limit"}
    if done.returncode or not (folder / ANSWER).exists():
        lines = done.stderr.strip().splitlines()
        print(done.stderr[-2000:], file=sys.stderr)
        # An error's name: its text may hold names of folders.
        return {"failed": lines[-1].partition(":")[0][:80] if lines else f"{done.returncode}"}
    answer = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    with np.load(folder / COEFFICIENTS) as arrays:
        return {**answer, "W": arrays["W"], "b": arrays["b"]}


def main(arguments: Sequence[str]) -> int:
    """The new process: do the job in a folder."""
    folder = Path(arguments[0])
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    if hasattr(os, "sched_setaffinity"):  # for contestants that ignore the variables
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus[: job["n_threads"]])
    from fits.contestants import CONTESTANTS, Task
    from measuring.harness import settle

    warnings.simplefilter("ignore")  # that a fit has not converged is intended
    prepare = CONTESTANTS[job["contestant"]].prepare
    X, labels = Store(folder).read(job["storage"])
    arguments = {name: job[name] for name in ("C", "l1_ratio", "input_scale", "n_threads")}
    task = Task(X, labels, job["n_classes"], settings=job["settings"], **arguments)
    prepare(_small(task))()
    run = prepare(task)
    settle()
    before = _reset_peak()
    start = time.perf_counter()
    result = run()
    seconds = [time.perf_counter() - start]
    peak = _peak() - before
    fitted = result()
    while sum(seconds) < job["repeat_seconds"] and len(seconds) < MOST_FITS:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    np.savez(folder / COEFFICIENTS, W=fitted.W, b=fitted.b)
    answer = {
        "seconds": float(np.median(seconds)),
        "fits": len(seconds),
        "MB": peak / 1e6,
        "n_iter": fitted.n_iter,
        **fitted.more,
    }
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")
    return 0


def _small(task: Any) -> Any:
    """A few rows of the same type and form."""
    rng = np.random.default_rng(0)
    n_classes = min(task.n_classes, 3)
    X: Any = rng.integers(0, 100, (64, 8)).astype(task.X.dtype)
    if sparse.issparse(task.X):
        X = sparse.csr_array(X)
        for part in ("indices", "indptr"):
            setattr(X, part, getattr(X, part).astype(getattr(task.X, part).dtype))
    settings = {**task.settings, "max_iter": min(4, task.settings.get("max_iter", 4))}
    return task._replace(
        X=X, labels=np.arange(64) % n_classes, n_classes=n_classes, settings=settings
    )


def _reset_peak() -> int:
    """Bytes of memory now. Linux can set the peak back to them; elsewhere, the peak so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return _peak()
    return _status("VmRSS") or _peak()


def _peak() -> int:
    """The peak of memory so far, in bytes.

    From /proc where there is one: on Linux, ru_maxrss includes the peak of the parent process.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None
