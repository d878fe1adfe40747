"""Runs that end at an estimate of the gap, not at a bound on it."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fastsoftmax import reference
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.estimated_gap import EstimatedGap
from fastsoftmax.solvers.protocols import Limits

TOL = 1e-4


def iterations(values, gains):
    """After how many iterations of a run the gap is small; None where it never is."""
    estimate = EstimatedGap(TOL)
    for n, (value, gain) in enumerate(zip(values, [np.inf, *gains], strict=True)):
        if estimate.is_small(value, gain):
            return n
    return None


class TestRuns:
    def test_ends_after_two_small_gains(self):
        values = [2.0, 1.1, 1.0, 1.0, 1.0, 1.0, 1.0]
        assert iterations(values, [0.5, 1e-5, 0.5, 1e-5, 1e-5, 1e-5]) == 5
        assert iterations(values, [0.5, 1e-5, 5e-5, 1e-5, 5e-5, 1e-5]) is None

    def test_goes_on_where_the_value_still_falls(self):
        falling = 1.0 + 1e-3 * np.arange(10)[::-1]
        assert iterations(falling, [0.0] * 9) is None

    def test_says_nothing_of_a_start(self):
        assert iterations([1.0], []) is None
        assert iterations([1.0, 1.0], [0.0]) is None

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.98, 0.998])
    @pytest.mark.parametrize("believed", [1.0, 1e-3])
    def test_a_model_that_expects_too_little(self, rate, believed):
        """Linear convergence to 1, of which the model expects a share of the next decrease."""
        values = 1.0 + rate ** np.arange(6000.0)
        gains = [believed * (a - b) for a, b in pairwise(values)]
        n = iterations(values, gains)
        assert values[n] - 1.0 <= TOL
        least = int(np.flatnonzero(values - 1.0 <= TOL)[0])
        assert n <= 1.5 * least + 3

    def test_a_value_of_0(self):
        assert iterations([1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0]) == 3


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:500] / 16.0, y[:500]


def objective_of(X, y, l2):
    weights = np.ones(len(y), dtype=X.dtype)
    shard = build_shard(X, y, None, weights, int(y.max()) + 1, backend=reference, n_threads=1)
    return SoftmaxObjective(build_problem(Rows([shard]), l2, fit_intercept=True))


def solved(objective, tol, *, newton=False, **more):
    start, limits = objective.problem.null_point, Limits(tol, 2000, **more)
    return full_batch.solve(objective, start, limits, newton=newton).result


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
class TestFits:
    def test_are_near_the_minimum(self, digits, real, C):
        X, y = digits
        objective = objective_of(X.astype(real), y, 1.0 / (C * len(y)))
        estimated = solved(objective, TOL, certified=False)
        certified, best = solved(objective, TOL), solved(objective, 1e-9)
        assert estimated.reason in ("estimated", "converged")
        assert estimated.n_iter <= certified.n_iter
        lower = best.evaluation.value * (1.0 - best.gap)
        assert estimated.evaluation.value - lower <= TOL * estimated.evaluation.value
        assert estimated.gap >= 1.0 - lower / estimated.evaluation.value - 1e-6  # still a bound

    def test_by_newtons_method(self, digits, real, C):
        X, y = digits
        objective = objective_of(X[:, 20:30].astype(real), y, 1.0 / (C * len(y)))
        estimated = solved(objective, TOL, newton=True, certified=False)
        best = solved(objective, 1e-9, newton=True)
        value, least = estimated.evaluation.value, best.evaluation.value
        assert value - least <= TOL * value


def test_what_rounding_hides_is_computed_with_more_digits(digits):
    """Features far from 0 in float32: their F is wrong by more than the tolerance."""
    X, y = digits
    far = (1e5 + 10.0 * X[:, :30]).astype(np.float32)
    objective = objective_of(far, y, 1.0 / len(y))
    estimated = solved(objective, TOL, certified=False)
    best = solved(objective, TOL)
    exact = objective_of(far.astype(np.float64), y, 1.0 / len(y))
    value, least = (
        exact.evaluate_coefficients(one.evaluation.weights, one.evaluation.bias).value
        for one in (estimated, best)
    )
    assert value - least <= 2.0 * TOL * least
