"""Allowances for rounding: passes in float32 differ from exact sums by no more than these."""

from fractions import Fraction

import numpy as np
import pytest

from fastsoftmax.backend import resolve_backend
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard


class Both:
    """A problem of float32 rows, and that of the same numbers in float64."""

    def __init__(self, X, labels, n_classes, l2, **options):
        weights = np.ones(len(X))
        self.rounded, self.exact = (
            SoftmaxObjective(
                build_problem(
                    Rows([
                        build_shard(
                            X.astype(np.float32).astype(real),
                            labels.astype(np.int32),
                            None,
                            weights.astype(real),
                            n_classes,
                            backend=resolve_backend("auto"),
                        )
                    ]),
                    l2,
                    **options,
                )
            )
            for real in (np.float32, np.float64)
        )  # fmt: skip

    def at(self, point):
        """Both evaluations of the same coefficients, which are those of float32."""
        at = self.rounded.evaluate(point)
        weights = at.weights.astype(np.float64)
        return at, self.exact.by.evaluate_coefficients(weights, at.bias)


@pytest.fixture(params=[2, 3])
def n_classes(request):
    return request.param


def test_values_of_features_far_from_0(n_classes, rng):
    """W x and b cancel there: of 1e4 + noise F is wrong by 1e-4."""
    X = 1e4 + rng.normal(size=(200, 2))
    labels = rng.integers(n_classes, size=200)
    both = Both(X, labels, n_classes, 1.0, l1=0.1, fit_intercept=True)
    errors, allowed = [], []
    for _ in range(20):
        at, exact = both.at(rng.normal(size=both.rounded.problem.n_params))
        errors.append(abs(at.value - exact.value))
        allowed.append(both.rounded.noise(at))
    assert (np.array(errors) <= allowed).all()
    assert max(errors) > 1e-5  # so that there is something to allow for


def test_bounds_where_gradients_round(n_classes, rng):
    """The bound by a rounded gradient, with its allowance, is not below that by the exact one."""
    below = []
    for n_rows in (30, 300, 3000):
        X = rng.normal(size=(n_rows, 1)) * rng.choice([1e-2, 1.0, 1e2])
        labels = rng.integers(n_classes, size=n_rows)
        both = Both(X, labels, n_classes, 1e-6, fit_intercept=False)
        for _ in range(10):
            at, exact = both.at(rng.normal(0.0, 1e-4, both.rounded.problem.n_params))
            own = both.rounded.gap_bound(at)
            missing = both.exact.gap_bound(exact) - own
            assert missing <= both.rounded.noise(at) + 1e-12 * own
            below.append(missing > 0.0)
    assert any(below)


def test_lower_bounds_are_below_sums_of_fractions(rng):
    """float64, by exact arithmetic: the allowance is at least the error of a gradient."""
    X, labels = rng.normal(size=(40, 1)), rng.integers(2, size=40)
    both = Both(X, labels, 2, 1e-3, fit_intercept=False)
    at = both.exact.evaluate(np.zeros(1))
    exact = sum(
        Fraction(float(x)) * (Fraction(1, 2) - int(label))
        for x, label in zip(X[:, 0].astype(np.float32), labels, strict=True)
    ) / len(X)
    error = abs(float(Fraction(float(at.gradient[0])) - exact))
    assert error <= both.exact.by.gradient_error(at, np.ones(1))
