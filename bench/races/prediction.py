"""Races of the methods of fitted estimators with the same coefficients, by the method's name."""

from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import problems
from measuring.floor import Work
from measuring.harness import Check, Race, close
from races import native, rivals
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss

from fastsoftmax import FastSoftmax

Array = np.ndarray

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
    """A method of a fitted estimator. Rivals get X in the type of the computation, in C order.

    scikit-learn takes part if it has the method, or functions that do the same.
    """
    problem = problems.named(kind, sizes, storage=storage, order=order, scale=scale)
    n, K = len(problem.labels), problem.n_classes
    W, b = problems.weights(problem)
    more = (problem.labels,) if method in WITH_LABELS else (TOP,) * (method == "predict_topk")
    estimators = {
        n_jobs: _with_coefficients(FastSoftmax(n_jobs=n_jobs), W, b)
        for n_jobs in {1, native.N_THREADS}
    }
    runs = native.by_threads(lambda n_jobs: getattr(estimators[n_jobs], method)(problem.X, *more))
    X = problem.computed if problem.is_sparse else np.ascontiguousarray(problem.computed)
    twin = NumpyEstimator(W, b, is_sparse=problem.is_sparse)
    referee = "scipy" if problem.is_sparse else "numpy"
    rival_runs = {referee: _call(twin, method, X, *more)}
    sklearn = _with_coefficients(SklearnEstimator(), W, b)
    if hasattr(sklearn, method):
        rival_runs["scikit-learn"] = _call(sklearn, method, X, *more)
    if not problem.is_sparse and (torch := rivals.torch_or_none()):
        x, y = (torch.from_numpy(part) for part in (X, problem.labels.astype(np.int64)))
        with_labels = (y,) if method in WITH_LABELS else more
        rival_runs["torch"] = _call(TorchEstimator(W, b), method, x, *with_labels)
    n_results, result = _results(method, K)
    name = f"{method}({TOP})" if method == "predict_topk" else method
    return Race(
        f"{name}, {problem.size}",
        runs | rival_runs,
        _check(method, twin, X),
        referee,
        Work(2.0 * problem.n_numbers * K, problem.n_bytes, n_results * n) if n > 1 else None,
        f"2 flops for each stored number of X and class; reads X once{result}",
    )


def _with_coefficients(estimator: Any, W: Array, b: Array) -> Any:
    """A scikit-learn estimator, theirs or ours, with coefficients for classes 0 to K - 1."""
    estimator.classes_, estimator.n_features_in_ = np.arange(len(W)), W.shape[1]
    estimator.coef_, estimator.intercept_ = W, b
    return estimator


def _call(estimator: Any, method: str, *arguments: Any) -> Callable[[], Any]:
    function = getattr(estimator, method)
    return lambda: function(*arguments)


def _results(method: str, n_classes: int) -> tuple[float, str]:
    """Bytes written for a row, and the words for it."""
    if method in WITH_LABELS:
        return 0.0, ""
    if method == "predict":
        return 8.0, ", writes n labels"
    if method == "predict_topk":
        return 12.0 * TOP, f", writes {TOP} n labels and probabilities"
    return 4.0 * n_classes, ", writes n K numbers"


def _check(method: str, twin: "NumpyEstimator", X: Any) -> Check:
    """Labels are compared by their probabilities: rounding may swap logits that are near."""
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


class NumpyEstimator:
    """numpy, and scipy for rows in CSR form; K > 2."""

    def __init__(self, W: Array, b: Array, *, is_sparse: bool) -> None:
        # scipy's product would copy a matrix that is not stored d x K.
        self.weights = np.ascontiguousarray(W.T) if is_sparse else W.T
        self.bias = b

    def _logits(self, X: Any) -> Array:
        logits = X @ self.weights
        logits += self.bias
        return logits

    def predict(self, X: Any) -> Array:
        return self._logits(X).argmax(axis=1)

    def predict_proba(self, X: Any) -> Array:
        logits = self._logits(X)
        return rivals.numpy_softmax(logits, logits)

    def predict_log_proba(self, X: Any) -> Array:
        logits = self._logits(X)
        return rivals.numpy_log_softmax(logits, logits)

    def predict_topk(self, X: Any, k: int) -> tuple[Array, Array]:
        logits = self._logits(X)
        top = np.argpartition(logits, -k, axis=1)[:, -k:]
        values = np.take_along_axis(logits, top, axis=1)
        ranks = np.argsort(-values, axis=1)
        top, values = (np.take_along_axis(part, ranks, axis=1) for part in (top, values))
        values -= (largest := values[:, :1].copy())
        np.exp(values, out=values)
        logits -= largest
        np.exp(logits, out=logits)
        values /= logits.sum(axis=1, keepdims=True)
        return top, values

    def score(self, X: Any, y: Array) -> float:
        return float(np.mean(self.predict(X) == y))

    def evaluate(self, X: Any, y: Array) -> tuple[float, float]:
        logits = self._logits(X)
        accuracy = np.mean(logits.argmax(axis=1) == y)
        return rivals.numpy_residuals(logits, np.arange(len(y)), y) / len(y), float(accuracy)


class SklearnEstimator(LogisticRegression):
    """scikit-learn: it has no predict_topk, and needs two more functions for evaluate."""

    def evaluate(self, X: Any, y: Array) -> tuple[float, float]:
        probs = self.predict_proba(X)
        best = self.classes_[probs.argmax(axis=1)]
        return log_loss(y, probs, labels=self.classes_), accuracy_score(y, best)


class TorchEstimator:
    """torch; X and y are tensors, X dense."""

    def __init__(self, W: Array, b: Array) -> None:
        self.torch = rivals.torch_or_none()
        self.params = [self.torch.from_numpy(part) for part in (W, b)]

    def _logits(self, X: Any) -> Any:
        return self.torch.nn.functional.linear(X, *self.params)

    def predict(self, X: Any) -> Array:
        with self.torch.inference_mode():
            return self._logits(X).argmax(1).numpy()

    def predict_proba(self, X: Any) -> Array:
        with self.torch.inference_mode():
            return self.torch.softmax(self._logits(X), 1).numpy()

    def predict_log_proba(self, X: Any) -> Array:
        with self.torch.inference_mode():
            return self.torch.log_softmax(self._logits(X), 1).numpy()

    def predict_topk(self, X: Any, k: int) -> tuple[Array, Array]:
        with self.torch.inference_mode():
            logits = self._logits(X)
            values, top = logits.topk(k)
            values -= logits.logsumexp(1, keepdim=True)
            return top.numpy(), values.exp_().numpy()

    def score(self, X: Any, y: Any) -> float:
        with self.torch.inference_mode():
            return float((self._logits(X).argmax(1) == y).sum()) / len(y)

    def evaluate(self, X: Any, y: Any) -> tuple[float, float]:
        with self.torch.inference_mode():
            logits = self._logits(X)
            loss = self.torch.nn.functional.cross_entropy(logits, y)
            return loss.item(), float((logits.argmax(1) == y).sum()) / len(y)
