"""Rival models with given coefficients, whose methods are named as those of `FastSoftmax`."""

from typing import Any

import numpy as np
from rivals import Array, numpy_log_softmax, numpy_residuals, numpy_softmax, torch_or_none
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss


class NumpyModel:
    """numpy, and scipy for rows in CSR form; K > 2."""

    def __init__(self, W: Array, b: Array, *, is_sparse: bool) -> None:
        # scipy's product would copy a matrix that does not lie d x K.
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
        return numpy_softmax(logits, logits)

    def predict_log_proba(self, X: Any) -> Array:
        logits = self._logits(X)
        return numpy_log_softmax(logits, logits)

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
        return numpy_residuals(logits, np.arange(len(y)), y) / len(y), float(accuracy)


class SklearnModel(LogisticRegression):
    """scikit-learn: it has no predict_topk, and takes two functions more to evaluate."""

    def evaluate(self, X: Any, y: Array) -> tuple[float, float]:
        probs = self.predict_proba(X)
        best = self.classes_[probs.argmax(axis=1)]
        return log_loss(y, probs, labels=self.classes_), accuracy_score(y, best)


class TorchModel:
    """torch; X and y are tensors, X dense."""

    def __init__(self, W: Array, b: Array) -> None:
        self.torch = torch_or_none()
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


def fitted(model: Any, W: Array, b: Array) -> Any:
    """A scikit-learn estimator, theirs or ours, with given coefficients for classes 0 to K - 1."""
    model.classes_, model.n_features_in_ = np.arange(len(W)), W.shape[1]
    model.coef_, model.intercept_ = W, b
    return model
