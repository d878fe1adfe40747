"""Newton's method on functions whose minimum is known, and on some that misbehave."""

from dataclasses import dataclass

import numpy as np
import pytest

from fastsoftmax.linalg import invert
from fastsoftmax.solvers import descent
from fastsoftmax.solvers.newton import NewtonModel
from fastsoftmax.solvers.protocols import Limits
from fastsoftmax.solvers.vectors import Vectors


@dataclass(frozen=True)
class At:
    value: float
    gradient: np.ndarray
    point: np.ndarray


class Function:
    """Of functions of one variable each, added up: value, slope and curvature."""

    epsilon = float(np.finfo(np.float64).eps)

    vectors = Vectors()

    def noise(self, at):
        return 0.0

    def __init__(self, value, slope, curvature, minimum):
        self.value, self.slope, self.curvature, self.minimum = value, slope, curvature, minimum
        self.n_hessians = 0

    def evaluate(self, point):
        return At(float(np.sum(self.value(point))), self.slope(point), point.copy())

    def gap_bound(self, at):
        return at.value - self.minimum

    def sharper_bound(self, at, bound, wanted):
        return bound

    def tightening(self, at, wanted):
        return None

    def hessian(self, at):
        self.n_hessians += 1
        return np.diag(self.curvature(at.point))


def minimise(function, start, tol=1e-10, max_iter=100, **options):
    return descent.minimise(
        function, start, NewtonModel(function), Limits(tol, max_iter, **options)
    )


def quadratic(curvatures):
    n = len(curvatures)
    return Function(
        lambda x: 1.0 / n + 0.5 * curvatures * (x - 1.0) ** 2,
        lambda x: curvatures * (x - 1.0),
        lambda x: curvatures.copy(),
        minimum=1.0,
    )


def log_cosh(scales):
    n = len(scales)
    return Function(
        lambda x: 1.0 / n + np.logaddexp(scales * x, -scales * x) - np.log(2.0),
        lambda x: scales * np.tanh(scales * x),
        lambda x: scales**2 * (1.0 - np.tanh(scales * x) ** 2),
        minimum=1.0,
    )


@pytest.mark.parametrize("span", [1.0, 1e6, 1e11])
def test_one_step_for_a_quadratic(span):
    function = quadratic(np.geomspace(1.0, span, 8))
    result = minimise(function, np.zeros(8))
    assert (result.reason, result.n_iter) == ("converged", 1)
    np.testing.assert_allclose(result.point, 1.0, rtol=1e-6)


@pytest.mark.parametrize("start", [0.1, 3.0, 10.0])
def test_far_away_where_the_curvature_vanishes(start):
    result = minimise(log_cosh(np.geomspace(0.5, 20.0, 6)), np.full(6, start))
    assert result.reason == "converged"
    np.testing.assert_allclose(result.point, 0.0, atol=1e-6)


def test_goes_beyond_the_tolerance_because_that_is_nearly_free():
    """Results that do not depend on the path: weighted and repeated rows, any number of threads."""
    gaps = []
    result = minimise(
        log_cosh(np.array([1.0, 2.0])),
        np.array([0.7, -0.2]),
        tol=1e-2,
        on_iteration=lambda n_iter, at, gap: bool(gaps.append(gap)),
    )
    assert gaps[-2] > NewtonModel.target >= gaps[-1]
    assert result.gap == gaps[-1]


def test_max_iter_and_callback():
    function = log_cosh(np.array([1.0, 2.0]))
    result = minimise(function, np.full(2, 3.0), max_iter=2)
    assert (result.reason, result.n_iter, function.n_hessians) == ("max_iter", 2, 2)
    result = minimise(function, np.full(2, 3.0), on_iteration=lambda n_iter, at, gap: True)
    assert (result.reason, result.n_iter) == ("stopped", 1)


def test_within_the_tolerance_but_no_further_is_converged():
    """The gap that is aimed at may lie beyond the arithmetic; tol is what was promised."""
    function = log_cosh(np.array([1.0, 2.0]))
    function.gap_bound = lambda at: at.value - 1.0 + 1e-9
    result = minimise(function, np.array([0.7, -0.2]), tol=1e-8)
    assert result.gap <= 1e-8


def test_a_hessian_of_zeros():
    function = Function(lambda x: x + 5.0, np.ones_like, np.zeros_like, minimum=0.0)
    result = minimise(function, np.zeros(3), max_iter=5)
    assert result.reason in ("precision", "max_iter")
    assert np.isfinite(result.point).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_hessian_that_is_not_finite(bad):
    function = log_cosh(np.array([1.0, 2.0]))
    function.curvature = lambda x: np.array([1.0, bad])
    result = minimise(function, np.full(2, 1.0))
    assert np.isfinite(result.point).all()
    assert result.evaluation.value <= function.evaluate(np.full(2, 1.0)).value


class TestInvert:
    @pytest.mark.parametrize("n", [1, 2, 33])
    def test_inverse(self, rng, n):
        half = rng.normal(size=(n, n))
        matrix = half @ half.T
        ridge = rng.random(n) + 0.1
        inverse = matrix.copy()
        invert(inverse, ridge)
        np.testing.assert_allclose(inverse @ (matrix + np.diag(ridge)), np.eye(n), atol=1e-6)
        np.testing.assert_array_equal(inverse, inverse.T)

    @pytest.mark.parametrize(
        "matrix",
        [
            np.zeros((3, 3)),
            np.ones((3, 3)),
            np.diag([1.0, 0.0, -1e-12]),
            np.diag([1e300, 1.0, 1e-300]),
            np.full((3, 3), np.nan),
            np.zeros((0, 0)),
        ],
        ids=["zero", "rank 1", "slightly indefinite", "huge", "NaN", "empty"],
    )
    def test_always_gives_something_to_descend_with(self, matrix):
        inverse = matrix.copy()
        invert(inverse, np.zeros(len(matrix)))
        assert np.isfinite(inverse).all()
        if len(matrix):
            scale = 1.0 / np.sqrt(np.diagonal(inverse))  # eigenvalues of 1e300 and 1e-300 at once
            assert np.linalg.eigvalsh(scale * inverse * scale[:, np.newaxis]).min() > 0.0
