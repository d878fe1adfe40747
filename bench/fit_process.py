"""A fit in a process of its own, so that its peak of memory is its own and a hang can be ended.

The process reads the rows into memory, fits a few small ones (imports, threads), waits until it
rests, and then takes the time of the whole fit.
"""

import json
import os
import subprocess
import sys
import time
import warnings
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
    """A problem's rows in files of a folder, as another process reads them into memory.

    So what they take there is known before a fit, and no conversion adds to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, problem: Any, storage: str, input_scale: float = 1.0) -> None:
        """Write X in a type ("as is" for its own, not scaled), if it is not there yet."""
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
    """Have a job done in a new process; what it answers, or {"failed": why}."""
    (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
    for name in (ANSWER, COEFFICIENTS):
        (folder / name).unlink(missing_ok=True)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(job["n_threads"]))}
    command = [sys.executable, str(Path(__file__)), str(folder)]
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


def main(folder: Path) -> int:
    """The other process: do the job that lies in a folder."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    if hasattr(os, "sched_setaffinity"):  # also those that heed no variable
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus[: job["n_threads"]])
    from fit_contestants import CONTESTANTS, Task
    from harness import settle

    warnings.simplefilter("ignore")  # that it ends before its optimum is what it was asked for
    prepare = CONTESTANTS[job["contestant"]].prepare
    X, labels = Store(folder).read(job["storage"])
    arguments = {name: job[name] for name in ("C", "input_scale", "n_threads")}
    task = Task(X, labels, job["n_classes"], settings=job["settings"], **arguments)
    prepare(_small(task))()
    run = prepare(task)
    settle()
    before = _reset_peak()
    start = time.perf_counter()
    told = run()
    seconds = [time.perf_counter() - start]
    peak = _peak() - before
    fitted = told()
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
    """Bytes of memory now, from which on the peak counts where the system can forget it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return _peak()
    return _status("VmRSS") or _peak()


def _peak() -> int:
    """The most bytes of memory so far.

    From /proc where there is one: Linux hands ru_maxrss on from the process that started this one.
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


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
