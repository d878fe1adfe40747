"""Who takes part in fit_to_optimum.py, and how each is asked to fit.

Everyone minimises mean cross-entropy + ||W||^2 / (2 C n) from zero, with as many threads. A rival
is stopped by its number of iterations alone: its own tolerance is set to nothing.
"""

import importlib.util
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

OURS = "fastsoftmax"


class Task(NamedTuple):
    """A fit to be made; what is set up for it takes no time that counts."""

    X: Any
    labels: np.ndarray  # int64 from 0 on
    n_classes: int
    C: float
    input_scale: float
    n_threads: int
    settings: dict[str, Any]  # "max_iter", and for ourselves "tol"


class Fitted(NamedTuple):
    """What came of it."""

    W: np.ndarray  # (K, d), of two classes (1, d): coefficients of the scaled rows
    b: np.ndarray
    n_iter: int
    more: dict[str, Any]


# A function that makes the fit, which is timed, and returns one that tells what came of it.
Run = Callable[[], Callable[[], Fitted]]


@dataclass(frozen=True)
class Contestant:
    """A solver.

    Parameters
    ----------
    name : str
    module : str
        What has to be installed.
    prepare : callable (Task) -> Run
    first : int
        Iterations of the first rung of the ladder.
    most_coefficients : float
        More are not tried; for solvers with a square matrix of them.
    most_classes : float
        More are another problem to it.
    """

    name: str
    module: str
    prepare: Callable[[Task], Run]
    first: int = 8
    most_coefficients: float = np.inf
    most_classes: float = np.inf

    @property
    def is_here(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def sits_out(self, n_coefficients: int, n_classes: int) -> str:
        """Why it does not try; empty where it does."""
        if n_coefficients > self.most_coefficients:
            return f"needs a square matrix of {n_coefficients} coefficients"
        return "fits each class against the rest" if n_classes > self.most_classes else ""


def _ours(task: Task) -> Run:
    from fastsoftmax import FastSoftmax

    settings = dict(task.settings)
    traced = settings.pop("trace", False)

    def run() -> Callable[[], Fitted]:
        trace: list[tuple[float, float]] = []
        start = time.perf_counter()

        def note(state: Any) -> None:
            trace.append((time.perf_counter() - start, state.objective))

        model = FastSoftmax(
            C=task.C, input_scale=task.input_scale, n_jobs=task.n_threads, **settings
        ).fit(task.X, task.labels, callbacks=[note] if traced else None)

        def told() -> Fitted:
            more = {"bound": float(model.gap_), "certified": bool(model.converged_)}
            if traced:
                more["trace"] = trace
            W = np.asarray(model.coef_, np.float64) / task.input_scale
            return Fitted(W, model.intercept_, int(model.n_iter_[0]), more)

        return told

    return run


def _like_sklearn(make: Callable[..., Any], task: Task, **parameters: Any) -> Run:
    def run() -> Callable[[], Fitted]:
        model = make(C=task.C, tol=0.0, **parameters, **task.settings).fit(task.X, task.labels)
        return lambda: Fitted(model.coef_, model.intercept_, int(np.max(model.n_iter_)), {})

    return run


def _sklearn(solver: str) -> Callable[[Task], Run]:
    def prepare(task: Task) -> Run:
        from sklearn.linear_model import LogisticRegression

        seed = {"random_state": 0} if solver == "saga" else {}
        return _like_sklearn(LogisticRegression, task, solver=solver, **seed)

    return prepare


def _sklearnex(task: Task) -> Run:
    from sklearnex.linear_model import LogisticRegression

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sklearnex")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    run = _like_sklearn(LogisticRegression, task, solver="lbfgs", n_jobs=task.n_threads)

    def noted() -> Callable[[], Fitted]:
        told = run()
        logger.setLevel(logging.WARNING)
        if any("fallback" in text for text in said):
            return lambda: told()._replace(more={"failed": "hands it to scikit-learn"})
        return told

    return noted


def _cyanure(task: Task) -> Run:
    from cyanure.estimators import Classifier

    n, d = task.X.shape
    parameters = {
        "loss": "logistic" if task.n_classes == 2 else "multiclass-logistic",
        "penalty": "l2",
        "lambda_1": 1.0 / (task.C * n),
        "fit_intercept": True,
        "tol": 1e-15,
        "n_threads": task.n_threads,
        "verbose": False,
        **task.settings,
    }

    def run() -> Callable[[], Fitted]:
        model = Classifier(**parameters).fit(task.X, task.labels)

        def told() -> Fitted:
            W = np.asarray(model.coef_)
            W = W.reshape(1, d) if task.n_classes == 2 else W.T
            # It counts in steps of its duality gaps.
            max_iter, n_iter = task.settings["max_iter"], int(np.max(model.n_iter_))
            ran_out = n_iter > max_iter - model.duality_gap_interval
            return Fitted(W, np.ravel(model.intercept_), max_iter if ran_out else n_iter, {})

        return told

    return run


def _snapml(task: Task) -> Run:
    from snapml import LogisticRegression

    X = sparse.csr_matrix(task.X) if sparse.issparse(task.X) else task.X
    labels = task.labels.astype(np.float64)
    parameters = {
        "regularizer": 1.0 / task.C,
        "fit_intercept": True,
        "tol": 0.0,
        "n_jobs": task.n_threads,
        "random_state": 0,
        **task.settings,
    }

    def run() -> Callable[[], Fitted]:
        model = LogisticRegression(**parameters).fit(X, labels)

        def told() -> Fitted:
            W = np.asarray(model.coef_).reshape(1, -1)
            return Fitted(W, np.ravel(model.intercept_), task.settings["max_iter"], {})

        return told

    return run


def _torch(task: Task) -> Run:
    import torch
    from torch.nn import functional

    torch.set_num_threads(task.n_threads)
    (n, d), labels = task.X.shape, torch.from_numpy(task.labels)
    real = torch.from_numpy(np.empty(0, task.X.dtype)).dtype
    is_sparse, binary = sparse.issparse(task.X), task.n_classes == 2
    penalty, n_logits = 1.0 / (task.C * n), 1 if binary else task.n_classes

    def tensor(X: Any) -> torch.Tensor:
        parts = (torch.from_numpy(part) for part in (X.indptr, X.indices, X.data))
        return torch.sparse_csr_tensor(*parts, size=X.shape)

    X = tensor(task.X) if is_sparse else torch.from_numpy(task.X)

    def run() -> Callable[[], Fitted]:
        X_T = tensor(task.X.T.tocsr()) if is_sparse else X.T
        W = torch.zeros((d, n_logits), dtype=real, requires_grad=True)
        b = torch.zeros(n_logits, dtype=real, requires_grad=True)
        max_iter = task.settings["max_iter"]
        optimiser = torch.optim.LBFGS(
            [W, b],
            max_iter=max_iter,
            max_eval=10 * max_iter,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            z = (X @ W.detach() + b.detach()).requires_grad_()
            if binary:
                loss = functional.binary_cross_entropy_with_logits(z[:, 0], labels.to(real))
            else:
                loss = functional.cross_entropy(z, labels)
            loss.backward()
            W.grad = X_T @ z.grad + penalty * W.detach()
            b.grad = z.grad.sum(0)
            return loss.detach() + penalty / 2 * (W.detach() ** 2).sum()

        optimiser.step(closure)
        n_iter = optimiser.state[W]["n_iter"]
        return lambda: Fitted(W.detach().numpy().T, b.detach().numpy(), n_iter, {})

    return run


NATIVE = Contestant(OURS, "fastsoftmax", _ours)
RIVALS = (
    Contestant("scikit-learn lbfgs", "sklearn", _sklearn("lbfgs")),
    Contestant("scikit-learn newton-cg", "sklearn", _sklearn("newton-cg"), first=1),
    Contestant(
        "scikit-learn newton-cholesky",
        "sklearn",
        _sklearn("newton-cholesky"),
        first=1,
        most_coefficients=8_000,
    ),
    Contestant("scikit-learn saga", "sklearn", _sklearn("saga"), first=4),
    Contestant("scikit-learn-intelex", "sklearnex", _sklearnex),
    Contestant("cyanure", "cyanure", _cyanure, first=4),
    # Of more classes each against the rest; and its intercept is penalised.
    Contestant("snapml", "snapml", _snapml, first=4, most_classes=2),
    Contestant("torch LBFGS", "torch", _torch),
)
CONTESTANTS = {contestant.name: contestant for contestant in (NATIVE, *RIVALS)}
