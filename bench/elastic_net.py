"""Multinomial L1 and elastic net to a relative gap from the optimum: ourselves and saga.

    python bench/elastic_net.py                                     half an hour
    python bench/elastic_net.py --scale 0.02 --limit 5              a trial run
    python bench/elastic_net.py --json bench/results/elastic_net.json

Images are MNIST's 10,000 (where FASTSOFTMAX_TEST_DATA names a folder that holds them), rows in CSR
form those of `problems.text`. The gap is (F - F_best) / F_best, F in float64 from the coefficients,
F_best our own to a certified 1e-6. scikit-learn's saga gets float32 and makes fits of 1, 2, 4, ...
epochs, each from zero, until the gap or the limit; the first that reaches it counts, so it has the
time of a user who knew the right number to a factor of 2. `reached` is our fit with as many
iterations as the gap needs, `certified` one with tol = the gap, which has proved it.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import machine
import numpy as np
from fit_workloads import WORKLOADS, made
from problems import Problem
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from summary import ELASTIC_NET

from fastsoftmax import FastSoftmax

GAP = 1e-4
CASES = [
    (name, C, l1_ratio)
    for name, Cs in {"mnist10k": (1.0, 0.1), "text": (10.0,)}.items()
    for C in Cs
    for l1_ratio in (1.0, 0.5)
]
ROWS = 4096


def objective(
    problem: Problem, W: np.ndarray, b: np.ndarray, scale: float, C: float, l1_ratio: float
) -> float:
    """F in float64, of coefficients for features times scale."""
    total, (n_rows, _) = 0.0, problem.X.shape
    columns = np.ascontiguousarray(W.T, dtype=np.float64) * scale
    for start in range(0, n_rows, ROWS):
        logits = problem.X[start : start + ROWS] @ columns + b
        labels = problem.labels[start : start + ROWS]
        total += float(np.logaddexp.reduce(logits, axis=1).sum())
        total -= float(logits[np.arange(len(labels)), labels].sum())
    V = W.astype(np.float64)
    penalty = l1_ratio * np.abs(V).sum() + 0.5 * (1.0 - l1_ratio) * (V * V).sum()
    return float((total + penalty / C) / n_rows)


def timed(model: Any, X: Any, y: np.ndarray) -> float:
    """Fit, and return the seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings():  # that it ends early is what it was asked for
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    return time.perf_counter() - start


def measure(name: str, C: float, l1_ratio: float, options: argparse.Namespace) -> dict[str, Any]:
    """One problem: seconds to the gap, ours and saga's."""
    workload = WORKLOADS[name]
    problem = made(workload, options.scale)
    if problem is None:
        return {"problem": name, "skipped": "its files are not here"}
    scale, y = workload.input_scale, problem.labels
    ours = {"C": C, "l1_ratio": l1_ratio, "input_scale": scale, "n_jobs": options.threads}

    def gap(model: Any, times: float) -> float:
        value = objective(problem, model.coef_ / times, model.intercept_, scale, C, l1_ratio)
        return value / best - 1.0

    reference = FastSoftmax(**ours, tol=1e-6, max_iter=20_000)
    timed(reference, problem.X, y)
    best = reference.objective_
    limit = best * (1.0 + GAP)
    n_iter = next(i for i, F in enumerate(reference.history_["objective"], 1) if limit >= F)
    row: dict[str, Any] = {
        "problem": problem.name, "size": problem.size, "C": C, "l1_ratio": l1_ratio,
        "nonzero": int(np.count_nonzero(reference.coef_)), "coefficients": reference.coef_.size,
        "certificate of F_best": reference.gap_,
    }  # fmt: skip
    for said, settings in {
        "certified": {"tol": GAP, "max_iter": 20_000},
        "reached": {"tol": 1e-12, "max_iter": n_iter},
    }.items():
        model = FastSoftmax(**ours, **settings)
        seconds = float(np.median([timed(model, problem.X, y) for _ in range(options.repeats)]))
        row[said] = {"seconds": seconds, "gap": gap(model, scale), "n_iter": int(model.n_iter_[0])}
    row["saga"] = _saga(problem, scale, C, l1_ratio, gap, options)
    row["ratio"] = row["saga"][-1]["seconds"] / row["reached"]["seconds"]
    row["ratio is a bound"] = row["saga"][-1]["gap"] > GAP
    return row


def _saga(
    problem: Problem, scale: float, C: float, l1_ratio: float, gap: Any, options: Any
) -> list[dict[str, Any]]:
    X = problem.X.astype(np.float32)
    if scale != 1.0:
        X *= np.float32(scale)
    fits: list[dict[str, Any]] = []
    epochs = 1
    while not fits or (fits[-1]["gap"] > GAP and fits[-1]["seconds"] < 0.5 * options.limit):
        rival = LogisticRegression(
            C=C, l1_ratio=l1_ratio, solver="saga", tol=1e-12, max_iter=epochs, random_state=0
        )
        seconds = timed(rival, X, problem.labels)
        fits.append({"epochs": epochs, "seconds": seconds, "gap": gap(rival, 1.0)})
        print(f"  saga {fits[-1]}", flush=True)
        epochs *= 2
    return fits


def main() -> int:
    """Measure all cases, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of saga's last fit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--problems", nargs="*", default=None)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, described = [], machine.describe()
    for case in CASES:
        if options.problems and case[0] not in options.problems:
            continue
        rows.append(measure(*case, options))
        print(json.dumps(rows[-1]), flush=True)
        if options.json:
            machine.write_results(options.json, ELASTIC_NET, options.scale, described, {}, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
