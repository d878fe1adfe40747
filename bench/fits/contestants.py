"""The packages whose fits are compared, and how each of them is called.

All of them minimise the objective of a `workloads.Workload` from zero, with as many threads.
Unless its settings have a tolerance, a rival is stopped by its number of iterations alone: the
tolerance is 0, or almost 0.
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
    """A fit to be made."""

    X: Any
    labels: np.ndarray  # int64 from 0 on
    n_classes: int
    C: float
    l1_ratio: float
    input_scale: float
    n_threads: int
    settings: dict[str, Any]  # "max_iter" and "tol"


class Fitted(NamedTuple):
    """The result."""

    W: np.ndarray  # (K, d), of two classes (1, d): coefficients of the scaled rows
    b: np.ndarray
    n_iter: int
    more: dict[str, Any]


# Makes the fit, and is timed; it returns a function that returns the result.
Run = Callable[[], Callable[[], Fitted]]


@dataclass(frozen=True)
class Contestant:
    """A solver.

    Parameters
    ----------
    name : str
    module : str
        The module that has to be installed.
    prepare : callable (Task) -> Run
        What it does takes no time that counts.
    first : int
        Iterations of the first fit.
    most_coefficients : float
        For solvers with a square matrix of them: more are not tried.
    most_classes : float
        With more classes, the solver minimises another objective.
    elastic : bool
        Whether it is asked for L1 and elastic net.
    """

    name: str
    module: str
    prepare: Callable[[Task], Run]
    first: int = 8
    most_coefficients: float = np.inf
    most_classes: float = np.inf
    elastic: bool = False

    def absent(self, n_coefficients: int, n_classes: int, l1_ratio: float) -> str:
        """The reason why it does not take part; empty if it does."""
        if importlib.util.find_spec(self.module) is None:
            return "is not installed"
        if l1_ratio and not self.elastic:
            return "is asked for L2 only"
        if n_coefficients > self.most_coefficients:
            return f"needs a square matrix of {n_coefficients} coefficients"
        return "fits each class against the rest" if n_classes > self.most_classes else ""


def _our(solver: str) -> Callable[[Task], Run]:
    def prepare(task: Task) -> Run:
        return _ours(task._replace(settings={"solver": solver, **task.settings}))

    return prepare


def _ours(task: Task) -> Run:
    from fastsoftmax import FastSoftmax

    settings = dict(task.settings)
    traced = settings.pop("trace", False)

    def run() -> Callable[[], Fitted]:
        trace: list[tuple[float, float]] = []
        start = time.perf_counter()

        def note(state: Any) -> None:
            trace.append((time.perf_counter() - start, state.objective))

        estimator = FastSoftmax(
            C=task.C,
            l1_ratio=task.l1_ratio,
            input_scale=task.input_scale,
            n_jobs=task.n_threads,
            **settings,
        ).fit(task.X, task.labels, callbacks=[note] if traced else None)

        def result() -> Fitted:
            more = {"bound": float(estimator.gap_), "certified": bool(estimator.converged_)}
            if traced:
                more["trace"] = trace
            W = np.asarray(estimator.coef_, np.float64) / task.input_scale
            return Fitted(W, estimator.intercept_, int(estimator.n_iter_[0]), more)

        return result

    return run


def _pass(task: Task) -> Run:
    from measuring.problems import Problem, weights
    from races.native import loss_and_gradient

    rows = Problem("rows", task.X, task.labels.astype(np.int32), task.n_classes)
    W, b = weights(rows)
    evaluate = loss_and_gradient(rows, W, b)

    def run() -> Callable[[], Fitted]:
        evaluate(n_threads=task.n_threads)
        return lambda: Fitted(W, b, 1, {})

    return run


def _like_sklearn(make: Callable[..., Any], task: Task, **parameters: Any) -> Run:
    def run() -> Callable[[], Fitted]:
        given = {"C": task.C, "tol": 0.0, **parameters, **task.settings}
        estimator = make(**given).fit(task.X, task.labels)
        n_iter = int(np.max(estimator.n_iter_))
        return lambda: Fitted(estimator.coef_, estimator.intercept_, n_iter, {})

    return run


def _sklearn(solver: str) -> Callable[[Task], Run]:
    def prepare(task: Task) -> Run:
        from sklearn.linear_model import LogisticRegression

        more: dict[str, Any] = {"random_state": 0} if solver in ("sag", "saga") else {}
        if task.l1_ratio:
            more["l1_ratio"] = task.l1_ratio
        return _like_sklearn(LogisticRegression, task, solver=solver, **more)

    return prepare


def _sklearnex(task: Task) -> Run:
    from sklearnex.linear_model import LogisticRegression

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sklearnex")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    run = _like_sklearn(LogisticRegression, task, solver="lbfgs", n_jobs=task.n_threads)

    def checked() -> Callable[[], Fitted]:
        result = run()
        logger.setLevel(logging.WARNING)
        if any("fallback" in text for text in messages):
            return lambda: result()._replace(more={"failed": "passes it to scikit-learn"})
        return result

    return checked


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
        estimator = Classifier(**parameters).fit(task.X, task.labels)

        def result() -> Fitted:
            W = np.asarray(estimator.coef_)
            W = W.reshape(1, d) if task.n_classes == 2 else W.T
            # It counts iterations in steps of duality_gap_interval.
            max_iter, n_iter = task.settings["max_iter"], int(np.max(estimator.n_iter_))
            ran_out = n_iter > max_iter - estimator.duality_gap_interval
            return Fitted(W, np.ravel(estimator.intercept_), max_iter if ran_out else n_iter, {})

        return result

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
        estimator = LogisticRegression(**parameters).fit(X, labels)

        def result() -> Fitted:
            W = np.asarray(estimator.coef_).reshape(1, -1)
            return Fitted(W, np.ravel(estimator.intercept_), task.settings["max_iter"], {})

        return result

    return run


def _torch(task: Task) -> Run:
    import torch
    from torch.nn import functional

    torch.set_num_threads(task.n_threads)
    (n, d), labels = task.X.shape, torch.from_numpy(task.labels)
    real = torch.from_numpy(np.empty(0, task.X.dtype)).dtype
    is_sparse, binary = sparse.issparse(task.X), task.n_classes == 2
    l2, n_logits = 1.0 / (task.C * n), 1 if binary else task.n_classes

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
            W.grad = X_T @ z.grad + l2 * W.detach()
            b.grad = z.grad.sum(0)
            return loss.detach() + l2 / 2 * (W.detach() ** 2).sum()

        optimiser.step(closure)
        n_iter = optimiser.state[W]["n_iter"]
        return lambda: Fitted(W.detach().numpy().T, b.detach().numpy(), n_iter, {})

    return run


MOST_SQUARED = 8_000  # coefficients, for a square matrix of them
FASTSOFTMAX = Contestant(OURS, "fastsoftmax", _ours, elastic=True)
# No fit, but what fits are made of: loss and gradient of all rows, once.
PASS = Contestant("one pass", "fastsoftmax", _pass)
OUR_SOLVERS = (
    Contestant(f"{OURS} lbfgs", "fastsoftmax", _our("lbfgs")),
    Contestant(
        f"{OURS} newton-cholesky",
        "fastsoftmax",
        _our("newton-cholesky"),
        most_coefficients=MOST_SQUARED,
    ),
)
SAG = Contestant("scikit-learn sag", "sklearn", _sklearn("sag"), first=4)
SAGA = Contestant("scikit-learn saga", "sklearn", _sklearn("saga"), first=4, elastic=True)
SKLEARN = (
    Contestant("scikit-learn lbfgs", "sklearn", _sklearn("lbfgs")),
    Contestant("scikit-learn newton-cg", "sklearn", _sklearn("newton-cg"), first=1),
    Contestant(
        "scikit-learn newton-cholesky",
        "sklearn",
        _sklearn("newton-cholesky"),
        first=1,
        most_coefficients=MOST_SQUARED,
    ),
    SAGA,
)
SKLEARNEX = Contestant("scikit-learn-intelex", "sklearnex", _sklearnex)
RIVALS = (
    *SKLEARN,
    SKLEARNEX,
    Contestant("cyanure", "cyanure", _cyanure, first=4),
    # More than two classes: each against the rest. Its intercept is in the penalty.
    Contestant("snapml", "snapml", _snapml, first=4, most_classes=2),
    Contestant("torch LBFGS", "torch", _torch),
)
CONTESTANTS = {
    contestant.name: contestant for contestant in (FASTSOFTMAX, PASS, *OUR_SOLVERS, SAG, *RIVALS)
}
