"""When the loop of the solvers ends where nothing is gained any more."""

from types import SimpleNamespace

import numpy as np
import pytest

from fastsoftmax.solvers import iteration
from fastsoftmax.solvers.iteration import iterate
from fastsoftmax.solvers.protocols import Limits

PATIENCE = 4


class Listed:
    """A solver whose points are numbers from 0 on, with values and bounds of a list."""

    epsilon = float(np.finfo(np.float64).eps)
    target = 0.0

    def __init__(self, values, bounds, patience=PATIENCE, noise=0.0):
        self._values, self._bounds, self.patience, self._noise = values, bounds, patience, noise

    def evaluate(self, point):
        n = int(point[0])
        return SimpleNamespace(value=self._values[n], bound=self._bounds[n])

    def noise(self, at):
        return self._noise

    def gap_bound(self, at):
        return at.bound

    def sharper_bound(self, at, bound, wanted):
        return bound

    def is_done(self, at):
        return None

    def step(self, n_iter, point, at, excess):
        return point + 1.0, self.evaluate(point + 1.0)

    def learn(self, before, at):
        pass


def end_of(values, bounds, **options):
    listed = Listed(values, bounds, **options)
    limits = Limits(tol=1e-9, max_iter=len(values) - 1)
    result = iterate(listed, np.zeros(1), listed, limits)
    return result.reason, result.n_iter


N = 60
LEVEL, FALLING = np.ones(N), 2.0 - np.arange(N) / N
SAME, CLOSING = np.full(N, 1.5), 0.5 * 0.9 ** np.arange(N)


@pytest.mark.parametrize("last", [0, 1, 9])
def test_neither_value_nor_bound_falls(last):
    """The bound falls up to an iteration: patience begins anew each time."""
    bounds = np.where(np.arange(N) <= last, CLOSING, CLOSING[last])
    assert end_of(LEVEL, bounds) == ("precision", max(last, 1) + PATIENCE)


def test_a_bound_that_was_lower_before_has_not_fallen():
    bounds = CLOSING.copy()
    bounds[10:] = 0.4 * 0.999 ** np.arange(N - 10)
    assert end_of(LEVEL, bounds) == ("precision", 9 + PATIENCE)


@pytest.mark.parametrize(("values", "bounds"), [(LEVEL, CLOSING), (FALLING, SAME)])
def test_as_long_as_one_of_them_falls(values, bounds):
    assert end_of(values, bounds) == ("max_iter", N - 1)


def test_a_value_that_falls_at_times():
    """Where the bound does not fall, the first step that gains nothing ends it, not an earlier."""
    values = np.concatenate([FALLING[:20], np.full(N - 20, FALLING[19])])
    assert end_of(values, SAME) == ("precision", 20)


def test_less_patience_where_rounding_forbids_the_certificate():
    given = {"patience": 40, "noise": 1e-3}
    assert end_of(LEVEL, SAME, **given) == ("precision", 1 + iteration._HOPELESS)
