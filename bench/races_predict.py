"""Races of fitted models with the same coefficients, by the name of the method."""

from collections.abc import Callable
from typing import Any

import numpy as np
import rivals
from floor import Work
from harness import Check, Race, close
from problems import Problem, weights
from races import N_THREADS, SCIPY, problem_of, threads
from rivals_predict import NumpyModel, SklearnModel, TorchModel, fitted

from fastsoftmax import FastSoftmax

TOP = 5
WITH_LABELS = ("evaluate", "score")


def predict(
    method: str,
    kind: str,
    sizes: tuple[int, ...],
    *,
    storage: str = "float32",
    order: str = "C",
    scale: float = 1,
) -> Race:
    """A method of a fitted model. Rivals get X in the type that is computed in, in C order.

    scikit-learn takes part where it has the method, or functions that do the same.
    """
    problem = problem_of(kind, sizes, storage=storage, order=order, scale=scale)
    n, K = len(problem.labels), problem.n_classes
    W, b = weights(problem)
    more = (problem.labels,) if method in WITH_LABELS else (TOP,) * (method == "predict_topk")
    models = {n_jobs: fitted(FastSoftmax(n_jobs=n_jobs), W, b) for n_jobs in {1, N_THREADS}}
    runs = threads(lambda n_jobs: getattr(models[n_jobs], method)(problem.X, *more))
    X = problem.computed if problem.is_sparse else np.ascontiguousarray(problem.computed)
    twin = NumpyModel(W, b, is_sparse=problem.is_sparse)
    referee = SCIPY if problem.is_sparse else "numpy"
    rival_runs = {referee: _call(twin, method, X, *more)}
    sklearn = fitted(SklearnModel(), W, b)
    if hasattr(sklearn, method):
        rival_runs["scikit-learn"] = _call(sklearn, method, X, *more)
    if not problem.is_sparse and (torch := rivals.torch_or_none()):
        x, y = (torch.from_numpy(part) for part in (X, problem.labels.astype(np.int64)))
        with_labels = (y,) if method in WITH_LABELS else more
        rival_runs["torch"] = _call(TorchModel(W, b), method, x, *with_labels)
    n_results, result = _results(method, K)
    name = f"{method}({TOP})" if method == "predict_topk" else method
    return Race(
        f"{name}, {problem.size}",
        runs | rival_runs,
        _check(method, twin, problem, X),
        Work(2.0 * problem.n_numbers * K, problem.n_bytes, n_results * n) if n > 1 else None,
        f"2 flops for each stored number of X and class; reads X once{result}",
        referee=referee,
    )


def _call(model: Any, method: str, *arguments: Any) -> Callable[[], Any]:
    function = getattr(model, method)
    return lambda: function(*arguments)


def _results(method: str, n_classes: int) -> tuple[float, str]:
    """Bytes that are written for a row, and in words."""
    if method in WITH_LABELS:
        return 0.0, ""
    if method == "predict":
        return 8.0, ", writes n labels"
    if method == "predict_topk":
        return 12.0 * TOP, f", writes {TOP} n labels and probabilities"
    return 4.0 * n_classes, ", writes n K numbers"


def _check(method: str, twin: NumpyModel, problem: Problem, X: Any) -> Check:
    """Of two logits that are equal but for rounding each may come first."""
    if method in WITH_LABELS:
        return close(1e-3)
    if method not in ("predict", "predict_topk"):
        return close(1e-4)
    probs = twin.predict_proba(X)

    def check(answer: Any, expected: Any) -> None:
        if method == "predict":
            labels, best = np.asarray(answer)[:, np.newaxis], probs.max(axis=1, keepdims=True)
            numbers: tuple[Any, ...] = ()
        else:
            (labels, *numbers), (_, best) = answer, expected
        ranked = np.sort(labels, axis=1)
        assert (ranked[:, 1:] > ranked[:, :-1]).all(), "a row names a class twice"
        close(1e-4)(
            (np.take_along_axis(probs, labels, axis=1), *numbers), (best,) * (1 + len(numbers))
        )

    return check
