"""Fits raced to the same distance from the optimum, measured here in float64 for everyone."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import problems
from harness import NATIVE, Race
from objectives import objective
from sklearn.linear_model import LogisticRegression

from fastsoftmax import FastSoftmax
from fastsoftmax.datasets import load_fashion_mnist_sample

CERTIFIED = "native, certified"
SKLEARN_SOLVERS = ("lbfgs", "newton-cg", "newton-cholesky")
CONTESTANTS = (NATIVE, CERTIFIED, *(f"scikit-learn {solver}" for solver in SKLEARN_SOLVERS))
MOST_ITERATIONS = 10_000
MOST_HESSIAN_ROWS = 2_000
TOLERANCES = 10.0 ** -np.arange(1, 13)
Fit = Callable[[], Any]


def fit_to_optimum(name: str, gap: float, *, C: float = 1.0, scale: float = 1) -> Race:
    """Fits until (F - min F) / min F <= gap.

    Each contestant runs with the loosest of its tolerances 1e-1, 1e-2, ... that gets there, found
    beforehand; one that does not within 10,000 iterations is left out. "native, certified" is
    asked for the gap itself and proves it. min F is the lower of what the native solver and
    a scikit-learn solver reach at tight tolerances.
    """
    problem = _problem(name, scale)
    X, y = problem.X, problem.labels

    def native(tol: float) -> Fit:
        return lambda: FastSoftmax(C=C, tol=tol, max_iter=MOST_ITERATIONS).fit(X, y)

    def sklearn(solver: str) -> Callable[[float], Fit]:
        model = {"C": C, "solver": solver, "max_iter": MOST_ITERATIONS}
        return lambda tol: lambda: LogisticRegression(tol=tol, **model).fit(X, y)

    # newton-cholesky solves with a dense matrix of K d rows and columns.
    small = problem.n_classes * X.shape[1] <= MOST_HESSIAN_ROWS
    solvers = SKLEARN_SOLVERS if small else SKLEARN_SOLVERS[:-1]
    makers = {NATIVE: native} | {f"scikit-learn {s}": sklearn(s) for s in solvers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what does not arrive is left out
        tightest = [native(1e-14), sklearn(solvers[-1])(1e-10)]
        best = min(_value(problem, C, fit()) for fit in tightest)

        def gap_of(model: Any) -> float:
            return (_value(problem, C, model) - best) / best

        found = {name: _loosest(maker, gap_of, gap) for name, maker in makers.items()}
    runs = {name: fit for name, (_, fit) in found.items() if fit is not None}
    runs[CERTIFIED] = native(gap)

    def check(reached: float, expected: None) -> None:
        assert reached <= gap, f"gap {reached:.1e}, at most {gap:.0e} is allowed"

    return Race(
        f"fit to a gap of {gap:.0e}, {name}, {problem.size}",
        runs,
        check,
        answer=gap_of,
        notes={name: f"tol={tol:.0e}" for name, (tol, _) in found.items()},
    )


def _value(problem: problems.Problem, C: float, model: Any) -> float:
    return objective(problem, C, model.coef_, model.intercept_)


def _loosest(
    maker: Callable[[float], Fit], gap_of: Callable[[Any], float], gap: float
) -> tuple[float, Fit | None]:
    for tol in TOLERANCES:
        fit = maker(float(tol))
        model = fit()
        if gap_of(model) <= gap:
            return float(tol), fit
        if np.max(model.n_iter_) >= MOST_ITERATIONS:
            break
    return 0.0, None


def _problem(name: str, scale: float) -> problems.Problem:
    """The rows; of scaled ones evenly spaced ones, but at least 150."""
    if name == "fashion sample":
        X, y = load_fashion_mnist_sample()
        problem = problems.Problem(name, (X / 255).astype(np.float32), y.astype(np.int32), 10)
    else:
        problem = problems.classic(name)
    n_rows = len(problem.X)
    step = max(1, int(n_rows / max(150, n_rows * scale)))
    return problem._replace(
        X=np.ascontiguousarray(problem.X[::step]), labels=problem.labels[::step].copy()
    )
