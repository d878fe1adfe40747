"""Fits in a process of their own: so the peak of memory is that of a fit, and it can be ended.

The process reads the rows into memory, makes a small fit (imports, threads), waits until it uses
almost no CPU time, and then times the whole fit. Fits that are to be compared with each other may
share a process, which saves its start: they are made one after another, each after a small one.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

X_PARTS = ("data", "indices", "indptr")
START_SECONDS = 60.0  # imports, reading the rows, the first small fit
MOST_FITS = 1000
OUT_OF_TIME = "time limit"
ALARM = -getattr(signal, "SIGALRM", 14)  # the status of a process that `_ending_at` has ended
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
JOBS, ANSWER, COEFFICIENTS = "jobs.json", "answer {}.json", "coefficients {}.npz"


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


def fits(folder: Path, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do jobs one after another; for each its answer, or {"failed": why}.

    One process does them all, unless a job ends it: then a new one goes on with the next job. All
    have the same number of threads. A fit that takes longer than the job's "limit" has failed.
    """
    answers: list[dict[str, Any]] = []
    while len(answers) < len(jobs):
        answers += _answers(folder, jobs[len(answers) :])
    return answers


def _answers(folder: Path, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of one process; the last of fewer than the jobs says why it ended."""
    (folder / JOBS).write_text(json.dumps(jobs), encoding="utf-8")
    for i in range(len(jobs)):
        (folder / ANSWER.format(i)).unlink(missing_ok=True)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(jobs[0]["n_threads"]))}
    command = [sys.executable, str(Path(__file__).parents[1]), "jobs", str(folder)]
    # The process ends itself where it can (`_ending_at`); if not, it is ended here.
    patience = sum(START_SECONDS + job["limit"] + job["repeat_seconds"] for job in jobs)
    try:
        status = subprocess.run(
            command, timeout=patience, stdout=subprocess.DEVNULL, env=environment, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        status = ALARM
    failed = OUT_OF_TIME if status == ALARM else f"exit status {status}"
    answers = []
    for i in range(len(jobs)):
        path = folder / ANSWER.format(i)
        if not path.exists():
            return [*answers, {"failed": failed}]
        answer = json.loads(path.read_text(encoding="utf-8"))
        if "failed" not in answer:
            with np.load(folder / COEFFICIENTS.format(i)) as arrays:
                answer |= {"W": arrays["W"], "b": arrays["b"]}
        answers.append(answer)
    return answers


def main(arguments: Sequence[str]) -> int:
    """The new process: do the jobs in a folder."""
    folder = Path(arguments[0])
    jobs = json.loads((folder / JOBS).read_text(encoding="utf-8"))
    if hasattr(os, "sched_setaffinity"):  # for contestants that ignore the variables
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus[: jobs[0]["n_threads"]])
    warnings.simplefilter("ignore")  # that a fit has not converged is intended
    store, rows = Store(folder), {}
    for i, job in enumerate(jobs):
        storage = job["storage"]
        if storage not in rows:
            rows[storage] = store.read(storage)
        try:
            answer = _timed(job, *rows[storage], folder / COEFFICIENTS.format(i))
        except Exception as error:  # the jobs after it are still to be done
            traceback.print_exc()
            answer = {"failed": type(error).__name__}
        (folder / ANSWER.format(i)).write_text(json.dumps(answer), encoding="utf-8")
    return 0


def _timed(job: dict[str, Any], X: Any, labels: np.ndarray, coefficients: Path) -> dict[str, Any]:
    """The answer to a job; the coefficients of the fit go into a file."""
    from fits.contestants import CONTESTANTS, Task
    from fits.sweeps import SWEEPS
    from measuring.harness import settle

    prepare = {**CONTESTANTS, **SWEEPS}[job["contestant"]].prepare
    given = {name: job[name] for name in ("C", "l1_ratio", "input_scale", "n_threads")}
    task = Task(X, labels, job["n_classes"], settings=job["settings"], **given)
    prepare(_small(task))()
    run = prepare(task)
    settle()
    before = _reset_peak()
    with _ending_at(job["limit"]):
        result, *first = _clocked(run)
    peak = _peak() - before
    times = [first]
    while sum(seconds for seconds, _ in times) < job["repeat_seconds"] and len(times) < MOST_FITS:
        _, *more = _clocked(run)
        times.append(more)
    fitted = result()
    np.savez(coefficients, W=fitted.W, b=fitted.b)
    seconds, cpu_seconds = np.median(times, axis=0)
    return {
        "seconds": float(seconds),
        "CPU seconds": float(cpu_seconds),
        "fits": len(times),
        "MB": peak / 1e6,
        "n_iter": fitted.n_iter,
        **fitted.more,
    }


def _clocked(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its seconds, and its seconds of CPU time."""
    start, cpu_start = time.perf_counter(), time.process_time()
    result = run()
    cpu_seconds = time.process_time() - cpu_start
    return result, time.perf_counter() - start, cpu_seconds


@contextlib.contextmanager
def _ending_at(limit: float) -> Iterator[None]:
    """End this process after some seconds, also in the midst of compiled code.

    Seconds of wall time: while a timer of CPU time runs, Linux updates the clock of CPU time at its
    ticks only, and a fit of a millisecond may take none.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


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
