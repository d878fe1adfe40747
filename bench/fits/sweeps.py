"""A sweep over C by cross-validation: ours and scikit-learn's, with the same folds and C.

The C are the ten that both take by default, `numpy.logspace(-4, 4, 10)`, scored by accuracy. Ours
is timed twice: as it is called (the path may end where the score has clearly fallen), and with all
C. scikit-learn has its default settings: tolerance 1e-4 and at most 100 iterations. The table says
how many fits ran out of them.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fits import process
from fits.contestants import OURS, Contestant, Fitted, Run, Task
from fits.process import Store
from fits.workloads import Workload
from measuring.harness import rounded

N_CS, N_FOLDS = 10, 5


def _folds(task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same for everyone."""
    from sklearn.model_selection import StratifiedKFold

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer rows than folds
        splitter = StratifiedKFold(task.settings["folds"], shuffle=True, random_state=0)
        return list(splitter.split(np.zeros(len(task.labels)), task.labels))


def _ours(full_path: bool | str) -> Callable[[Task], Run]:
    def prepare(task: Task) -> Run:
        from fastsoftmax import FastSoftmaxCV

        folds, settings = _folds(task), dict(task.settings)
        del settings["folds"]

        def run() -> Callable[[], Fitted]:
            sweep = FastSoftmaxCV(
                cv=folds,
                scoring="accuracy",
                full_path=full_path,
                n_jobs=task.n_threads,
                **settings,
            ).fit(task.X, task.labels)
            tried = ~np.isnan(sweep.scores_)
            more = {
                "C": float(sweep.C_),
                "score": float(sweep.scores_[:, sweep.best_index_].mean()),
                "fits": int(tried.sum()),
                "unfinished": int(np.sum(sweep.n_iter_[tried] >= sweep.max_iter)),
            }
            n_iter = int(sweep.n_iter_.sum())
            return lambda: Fitted(sweep.coef_, sweep.intercept_, n_iter, more)

        return run

    return prepare


def _sklearn(task: Task) -> Run:
    from sklearn.linear_model import LogisticRegressionCV

    folds, settings = _folds(task), dict(task.settings)
    del settings["folds"]

    def run() -> Callable[[], Fitted]:
        sweep = LogisticRegressionCV(cv=folds, scoring="accuracy", **settings)
        sweep.fit(task.X, task.labels)
        scores, n_iter = sweep.scores_, np.asarray(sweep.n_iter_)
        if isinstance(scores, dict):  # an array for each class, all of them the same
            scores = next(iter(scores.values()))
        means = np.reshape(scores, (len(folds), -1)).mean(axis=0)
        more = {
            "C": float(np.ravel(sweep.C_)[0]),
            "score": float(means.max()),
            "fits": int(n_iter.size),
            "unfinished": int(np.sum(n_iter >= sweep.max_iter)),
        }
        return lambda: Fitted(sweep.coef_, sweep.intercept_, int(n_iter.sum()), more)

    return run


SKLEARN_CV = "LogisticRegressionCV"
FASTSOFTMAX_CV, FULL_PATH = f"{OURS} FastSoftmaxCV", f"{OURS} FastSoftmaxCV, full_path=True"
SWEEPS = {
    contestant.name: contestant
    for contestant in (
        Contestant(FASTSOFTMAX_CV, "fastsoftmax", _ours("auto")),
        Contestant(FULL_PATH, "fastsoftmax", _ours(True)),
        Contestant(SKLEARN_CV, "sklearn", _sklearn),
    )
}


def compare(workload: Workload, options: argparse.Namespace) -> dict[str, Any] | None:
    """Time the sweeps in turn, each in a process of its own; None without the data.

    One that takes long (`options.once` seconds) is made once.
    """
    problem = workload.problem(options.scale)
    if problem is None:
        return None
    settings = {"Cs": options.n_cs, "folds": options.folds}
    found: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[float]] = {name: [] for name in SWEEPS}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.write(problem, "as is")
        for i in range(options.repeats):
            for name in list(SWEEPS) if i % 2 == 0 else list(SWEEPS)[::-1]:
                if i and (not runs[name] or runs[name][0] > options.once):
                    continue
                job = {
                    "contestant": name,
                    "storage": "as is",
                    "settings": settings,
                    "limit": options.sweep_limit,
                    "repeat_seconds": 0.0,
                    "C": workload.C,
                    "l1_ratio": 0.0,
                    "input_scale": 1.0,
                    "n_classes": problem.n_classes,
                    "n_threads": options.threads,
                }
                (answer,) = process.fits(store.folder, [job])
                found.setdefault(name, answer)
                if "failed" not in answer:
                    runs[name].append(answer["seconds"])
    return {
        "task": f"{workload.title}, {problem.size}, {options.n_cs} C x {options.folds} folds",
        "threads": options.threads,
        "limit, s": options.sweep_limit,
        "sweeps": {name: _outcome(found[name], runs[name]) for name in SWEEPS},
    }


def _outcome(answer: dict[str, Any], runs: list[float]) -> dict[str, Any]:
    """What is written of a sweep."""
    if "failed" in answer:
        return {"ended": answer["failed"]}
    kept = ("C", "score", "fits", "unfinished", "n_iter", "MB")
    return {
        "ended": "its own end",
        "seconds": rounded(float(np.median(runs))),
        "runs": [rounded(value) for value in runs],
        **{name: rounded(answer[name]) for name in kept},
    }
