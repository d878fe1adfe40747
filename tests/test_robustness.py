"""Fits of data as people have it: unscaled, collinear, separable, sparse with holes, all kinds.

At default settings a fit must not warn, its certificate must hold, and no solver of scikit-learn
may find a lower objective. What is known of each problem comes from its definition alone: F in
extended precision, and a minimum by Newton's method on standardized features (`solved`).
"""

import functools
import warnings
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fastsoftmax import FastSoftmax


class Problem(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None
    C: float = 1.0

    @property
    def row_weights(self):
        return np.ones(len(self.X)) if self.weights is None else self.weights


def overlapping(rng, n=150, d=6, k=3):
    X = rng.normal(size=(n, d))
    y = (X @ rng.normal(size=(d, k)) + 2.0 * rng.gumbel(size=(n, k))).argmax(axis=1)
    y[:k] = np.arange(k)
    return X, y


def scaled(rng, low, high):
    X, y = overlapping(rng)
    return Problem(X * np.geomspace(low, high, X.shape[1]), y)


def separable(rng, C, k=3, n=90):
    y = np.arange(n) % k
    return Problem(6.0 * rng.normal(size=(k, 5))[y] + rng.normal(size=(n, 5)), y, C=C)


def partly_separable(rng, C):
    """One class has a feature of its own."""
    X, y = overlapping(rng)
    own = (y == 1) & (rng.random(len(y)) < 0.5)
    return Problem(np.column_stack([X, own]), y, C=C)


def constant_and_duplicate(rng):
    X, y = overlapping(rng)
    constant = np.ones(len(X))
    return Problem(np.column_stack([X, X[:, :2], constant, 0.0 * constant, 1e4 * constant]), y)


def collinear(rng):
    X, y = overlapping(rng)
    mixed = X @ rng.normal(size=(6, 4))
    return Problem(np.column_stack([X, mixed, 1e3 * X[:, 0] + 1e-3 * X[:, 1]]), y)


def rare(rng):
    X, y = overlapping(rng, n=300)
    y[:2] = 3, 4
    return Problem(X, y)


def of_all_weights(rng):
    X, y = overlapping(rng, k=4)
    return Problem(X, y, rng.choice([0.0, 1e-6, 1e-3, 1.0, 1e3, 1e6], len(X)))


def points_in_time(rng, spread, k=3):
    X, y = overlapping(rng, k=k)
    X[:, 2] = 1.7e9 + spread * X[:, 2]
    X[:, 4] = np.floor(1.6e9 + 1e5 * X[:, 4])
    return Problem(X, y)


def with_holes(rng):
    X, y = overlapping(rng, n=200, d=20)
    X[rng.random(X.shape) < 0.8] = 0.0
    X[::7] = 0.0
    X[:, 3:8] = 0.0
    return Problem(X, y)


PROBLEMS = {
    "features of 1e-8": lambda rng: scaled(rng, 1e-8, 1e-8),
    "features of 1e4": lambda rng: scaled(rng, 1e4, 1e4),
    "features of 1e8": lambda rng: scaled(rng, 1e8, 1e8),
    "features of 1e10": lambda rng: scaled(rng, 1e10, 1e10),
    "features of 1e-3 to 1e3": lambda rng: scaled(rng, 1e-3, 1e3),
    "features of 1e-8 to 1e8": lambda rng: scaled(rng, 1e-8, 1e8),
    "constant and duplicate": constant_and_duplicate,
    "collinear": collinear,
    "n < d": lambda rng: Problem(*overlapping(rng, n=30, d=40)),
    "separable, C = 1e10": lambda rng: separable(rng, 1e10),
    "two separable, C = 1e10": lambda rng: separable(rng, 1e10, k=2),
    "ten separable, C = 1e10": lambda rng: separable(rng, 1e10, k=10, n=200),
    "partly separable, C = 1e10": lambda rng: partly_separable(rng, 1e10),
    "separable, C = 1e-10": lambda rng: separable(rng, 1e-10),
    "overlapping, C = 1e10": lambda rng: Problem(*overlapping(rng), C=1e10),
    "overlapping, C = 1e-10": lambda rng: Problem(*overlapping(rng), C=1e-10),
    "classes of one row": rare,
    "two classes": lambda rng: Problem(*overlapping(rng, k=2)),
    "weights of 0 to 1e6": of_all_weights,
    "equal rows": lambda rng: Problem(np.tile([1.0, -2.0, 1e5], (40, 1)), np.arange(40) % 7 % 3),
    "sparse with holes": with_holes,
    "300 classes": lambda rng: Problem(*overlapping(rng, n=600, d=1, k=300)),
    "more classes than rows to learn": lambda rng: Problem(
        rng.normal(size=(15, 12)), np.arange(15)
    ),
    "points in time": lambda rng: points_in_time(rng, 3e7),
    "points in time, two classes": lambda rng: points_in_time(rng, 3e7, k=2),
    # as float32 these are constants: its neighbours lie 128 seconds apart
    "points in an hour": lambda rng: points_in_time(rng, 1e3),
    "points in a second": lambda rng: points_in_time(rng, 1.0),
}
ONLY_FLOAT64 = ("points in an hour", "points in a second")


@functools.cache
def problem_of(name, real=np.float64):
    problem = PROBLEMS[name](np.random.default_rng(0))
    return problem._replace(X=problem.X.astype(real))


@pytest.fixture(params=PROBLEMS)
def name(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["intercept", "no intercept"])
def fit_intercept(request):
    return request.param


# ---- what is true of a problem ----


def losses(logits, y):
    """Cross-entropy of each row, with full relative accuracy near 0."""
    others = logits - np.take_along_axis(logits, y[:, np.newaxis], axis=1)
    np.put_along_axis(others, y[:, np.newaxis], -np.inf, axis=1)
    largest = np.maximum(others.max(axis=1), 0.0)
    rest = np.exp(others - largest[:, np.newaxis]).sum(axis=1)
    return np.where(largest > 0.0, largest + np.log(np.exp(-largest) + rest), np.log1p(rest))


def for_all_classes(logits, n_classes):
    if n_classes == 2:
        return np.column_stack([np.zeros(len(logits), logits.dtype), logits])
    return logits


def exact_logits(x, coef, intercept):
    """W x + b of one row, rounded once."""
    x = [Fraction(float(value)) for value in x]
    found = []
    for weights, bias in zip(np.asarray(coef), np.asarray(intercept), strict=True):
        terms = (value * Fraction(float(w)) for value, w in zip(x, weights, strict=True))
        logit = sum(terms, Fraction(float(bias)))
        high = float(logit)
        found.append(np.longdouble(high) + np.longdouble(float(logit - Fraction(high))))
    return np.array(found)


def objective(coef, intercept, problem):
    """F by its definition, in extended precision: the terms of points in time cancel."""
    kept = problem.row_weights > 0.0
    classes, y = np.unique(problem.y[kept], return_inverse=True)
    W, X = np.asarray(coef).astype(np.longdouble), problem.X[kept].astype(np.longdouble)
    center = np.median(
        problem.X[kept], axis=0
    )  # (its logits cancel: extended precision lost 4e-13)
    logits = (X - center) @ W.T + exact_logits(center, coef, intercept)
    logits = for_all_classes(logits, len(classes))
    weights = problem.row_weights[kept].astype(np.longdouble)
    penalty = (W * W).sum() / (2.0 * problem.C * weights.sum())
    return float((weights * losses(logits, y)).sum() / weights.sum() + penalty)


class Dense:
    """The problem in coordinates where all features have mean 0 and variance 1."""

    def __init__(self, problem, fit_intercept):
        kept = problem.row_weights > 0.0
        X, weights = problem.X[kept].astype(np.float64), problem.row_weights[kept]
        self.weights = weights / weights.sum()
        classes, self.y = np.unique(problem.y[kept], return_inverse=True)
        self.n_classes, self.n_logits = len(classes), len(classes) if len(classes) > 2 else 1
        self.center = self.weights @ X if fit_intercept else np.zeros(X.shape[1])
        Z = X - self.center
        deviation = np.sqrt(self.weights @ Z**2)
        self.scale = np.where(deviation > 0.0, deviation, 1.0)
        Z /= self.scale
        self.Z = np.column_stack([Z, np.ones(len(Z))]) if fit_intercept else Z
        ridge = 1.0 / (problem.C * weights.sum() * self.scale**2)
        self.ridge = np.append(ridge, 0.0) if fit_intercept else ridge
        self.d = X.shape[1]

    def look(self, V):
        """F, its gradient, and the probabilities of the logits' classes."""
        logits = for_all_classes(self.Z @ V.T, self.n_classes)
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        residual, rows = probs.copy(), np.arange(len(logits))
        residual[rows, self.y] = 0.0
        residual[rows, self.y] = -residual.sum(axis=1)
        gradient = (self.weights[:, np.newaxis] * residual).T[-self.n_logits :] @ self.Z
        value = self.weights @ losses(logits, self.y) + 0.5 * (self.ridge * V * V).sum()
        return value, gradient + self.ridge * V, probs[:, -self.n_logits :]

    def newton_step(self, gradient, probs):
        size = gradient.size
        half = (probs[:, :, np.newaxis] * self.Z[:, np.newaxis]).reshape(-1, size)
        hessian = -(half * self.weights[:, np.newaxis]).T @ half
        blocks = hessian.reshape(gradient.shape * 2)
        for k in range(self.n_logits):
            weights = (self.weights * probs[:, k])[:, np.newaxis]
            blocks[k, :, k] += (self.Z * weights).T @ self.Z + np.diag(self.ridge)
        root = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
        values, vectors = np.linalg.eigh(hessian / root / root[:, np.newaxis])
        vectors, values = vectors[:, values > 1e-14], values[values > 1e-14]
        return -(vectors @ (vectors.T @ (gradient.ravel() / root) / values) / root)

    def minimum(self):
        V = np.zeros((self.n_logits, self.Z.shape[1]))
        value, gradient, probs = self.look(V)
        for _ in range(200):
            step = self.newton_step(gradient, probs).reshape(V.shape)
            decrement = -float(np.vdot(step, gradient))
            for t in 0.5 ** np.arange(40):
                new = self.look(V + t * step)
                if new[0] <= value - 1e-4 * t * decrement:
                    break
            else:
                return value
            fell = value - new[0]
            V, (value, gradient, probs) = V + t * step, new
            if decrement < 1e-17 * value or fell <= 1e-16 * value:
                return value
        raise AssertionError("no minimum found")


@functools.cache
def solved(name, real, fit_intercept):
    return Dense(problem_of(name, real), fit_intercept).minimum()


@functools.cache
def best_of_scikit_learn(name, fit_intercept):
    """The lowest objective that its solvers reach, run to exhaustion."""
    problem = problem_of(name)
    found = []
    # a Hessian of 300 classes takes it seconds
    dense = ["newton-cholesky"] * (len(np.unique(problem.y)) < 100)
    for solver in ("lbfgs", "newton-cg", *dense):
        model = LogisticRegression(
            C=problem.C, fit_intercept=fit_intercept, solver=solver, tol=1e-12, max_iter=500
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept = problem.row_weights > 0.0
            model.fit(problem.X[kept], problem.y[kept], problem.row_weights[kept])
        if np.isfinite(model.coef_).all():
            found.append(objective(model.coef_, model.intercept_, problem))
    return min(found)


def rounding(model, problem):
    """What rounding may do to F: of its sum, and (squared, near a minimum) of the logits."""
    eps = float(np.finfo(model.coef_.dtype).eps)
    terms = np.abs(problem.X).astype(np.float64) @ np.abs(model.coef_.T) + np.abs(model.intercept_)
    of_logits = float(np.finfo(np.float64).eps) * float(terms.max())
    extended = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps
    return 10.0 * eps + (of_logits**2 if extended else of_logits)


class TestCorpus:
    @pytest.mark.parametrize("storage", ["dense", "CSR"])
    def test_at_default_settings(self, name, real, fit_intercept, storage):
        if real is np.float32 and name in ONLY_FLOAT64:
            pytest.skip("float32 does not tell the rows apart")
        problem = problem_of(name, real)
        X = problem.X if storage == "dense" else sparse.csr_array(problem.X)
        model = FastSoftmax(C=problem.C, fit_intercept=fit_intercept, n_jobs=1)
        model.fit(X, problem.y, problem.weights)  # a warning is an error here
        value = objective(model.coef_, model.intercept_, problem)
        noise = rounding(model, problem)
        assert model.converged_
        assert 0.0 <= model.gap_ <= model.tol
        true_gap = (value - solved(name, real, fit_intercept)) / value
        assert model.gap_ >= true_gap - noise
        assert len(model.history_["gap"]) == model.n_iter_[0] < 120
        assert np.isfinite(model.predict_proba(X)).all()

    @pytest.mark.parametrize("solver", ["auto", "lbfgs"])
    def test_scikit_learn_finds_nothing_better(self, name, fit_intercept, solver):
        problem = problem_of(name)
        model = FastSoftmax(
            C=problem.C, fit_intercept=fit_intercept, solver=solver, tol=1e-6, n_jobs=1
        ).fit(problem.X, problem.y, problem.weights)
        value = objective(model.coef_, model.intercept_, problem)
        assert value <= best_of_scikit_learn(name, fit_intercept) * (1.0 + 1e-6)
        true_gap = (value - solved(name, np.float64, fit_intercept)) / value
        assert true_gap - rounding(model, problem) <= model.gap_ <= 1e-6


class TestOneClass:
    @pytest.mark.parametrize("weights", [None, [0.0, 0.0, 1.0, 2.0]], ids=["", "of the others 0"])
    def test_is_an_error(self, weights):
        y = np.ones(4) if weights is None else [0, 0, 1, 1]
        with pytest.raises(ValueError, match="only one class"):
            FastSoftmax().fit(np.eye(4), y, weights)


@pytest.mark.parametrize("solver", ["newton-cholesky", "lbfgs"])
class TestNoPenalty:
    """C=inf: either a finite optimum, and no warning, or one warning that says where it is."""

    @staticmethod
    def fit(problem, **parameters):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = FastSoftmax(C=np.inf, n_jobs=1, **parameters).fit(problem.X, problem.y)
        return model, caught

    @pytest.mark.parametrize("k", [2, 3])
    @pytest.mark.parametrize("make", [
        lambda rng, k: Problem(*overlapping(rng, k=k), C=np.inf),
        lambda rng, k: Problem(1e8 * overlapping(rng, k=k)[0], overlapping(rng, k=k)[1], C=np.inf),
        lambda rng, k: points_in_time(rng, 3e7, k=k)._replace(C=np.inf),
    ], ids=["overlapping", "without any relation", "points in time"])  # fmt: skip
    def test_finite_optimum(self, rng, real, fit_intercept, solver, make, k):
        problem = make(rng, k)
        problem = problem._replace(X=problem.X.astype(real))
        model, caught = self.fit(problem, solver=solver, fit_intercept=fit_intercept)
        assert not caught
        assert model.converged_
        assert model.gap_ == np.inf
        assert model.n_iter_[0] < 60
        minimum = Dense(problem, fit_intercept).minimum()
        value = objective(model.coef_, model.intercept_, problem)
        assert value == pytest.approx(minimum, rel=1e-11 if real is np.float64 else 1e-6)

    @pytest.mark.parametrize("make", [
        lambda rng: separable(rng, np.inf),
        lambda rng: separable(rng, np.inf, k=2),
        lambda rng: separable(rng, np.inf, k=10, n=200),
        lambda rng: partly_separable(rng, np.inf),
        lambda rng: Problem(*overlapping(rng, n=30, d=40), C=np.inf),
    ], ids=["three", "two", "ten", "one in part", "n < d"])  # fmt: skip
    def test_optimum_at_infinity(self, rng, real, fit_intercept, solver, make):
        problem = make(rng)
        problem = problem._replace(X=problem.X.astype(real))
        model, caught = self.fit(problem, solver=solver, fit_intercept=fit_intercept)
        (warning,) = caught
        assert warning.category is ConvergenceWarning
        assert "separable" in str(warning.message)
        assert "finite C" in str(warning.message)
        assert not model.converged_
        assert model.n_iter_[0] < 80
        assert np.abs(problem.X @ model.coef_.T + model.intercept_).max() < 1e3
        reached = FastSoftmax(C=1e8, n_jobs=1, fit_intercept=fit_intercept)
        reached.fit(problem.X.astype(np.float64), problem.y)
        likely = objective(reached.coef_, reached.intercept_, problem)
        assert objective(model.coef_, model.intercept_, problem) < likely * (1.0 + 1e-4) + 1e-5


@pytest.mark.parametrize("solver", ["auto", "lbfgs"])
def test_points_in_time_of_any_spread(solver):
    """From a second to years, weak and strong penalties: 31 of 240 such fits once warned."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, y = overlapping(rng, n=int(rng.integers(30, 400)), d=5, k=int(rng.integers(2, 6)))
        X[:, seed % 5] = 1.7e9 + 10.0 ** rng.uniform(0.0, 8.0) * X[:, seed % 5]
        model = FastSoftmax(C=10.0 ** rng.uniform(-2.0, 4.0), solver=solver, n_jobs=1).fit(X, y)
        assert model.converged_
        assert model.n_iter_[0] < 80
