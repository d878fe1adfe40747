"""L-BFGS and its line search on functions whose minimum is known, and on some that misbehave."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from fastsoftmax.solvers import descent, sgd
from fastsoftmax.solvers.lbfgs import LbfgsModel
from fastsoftmax.solvers.line_search import Trial, _Descent, backtrack, level_step, search
from fastsoftmax.solvers.lower_bound import LowerBound, relative_gap
from fastsoftmax.solvers.orthant_wise import _Orthant, _orthant
from fastsoftmax.solvers.pairs import Pairs, pair_of, scale_from, two_loops
from fastsoftmax.solvers.protocols import Limits, Refinement
from fastsoftmax.solvers.vectors import Vectors


def minimise(objective, start, *, memory=30, **options):
    return descent.minimise(objective, start, LbfgsModel(objective, memory), Limits(**options))


@dataclass(frozen=True)
class At:
    value: float
    gradient: np.ndarray


class Identity:
    def apply(self, gradient):
        return gradient.copy()


class Diagonal:
    def __init__(self, inverse):
        self.inverse = inverse

    def apply(self, gradient):
        return self.inverse * gradient


class Function:
    """A function with a known minimum, which counts its evaluations."""

    epsilon = float(np.finfo(np.float64).eps)

    vectors = Vectors()

    def noise(self, at):
        return 0.0

    def __init__(self, value, gradient, minimum=0.0, preconditioner=None, refined=None, cost=None):
        self.value, self.gradient, self.minimum = value, gradient, minimum
        self._preconditioner, self._refined, self._cost = preconditioner, refined, cost
        self.n_evaluations = self.n_refinements = 0

    def evaluate(self, point):
        self.n_evaluations += 1
        return At(float(self.value(point)), np.asarray(self.gradient(point), dtype=float))

    def gap_bound(self, at):
        return at.value - self.minimum

    def preconditioner(self):
        return self._preconditioner or Identity()

    caution = 1.0

    def sharper_bound(self, at, bound, wanted):
        return bound

    def tightening(self, at, wanted):
        return None

    def curvature_along(self, at, direction):
        """That of a step from 0: right for a quadratic function, an estimate for others."""
        with np.errstate(invalid="ignore"):
            change = np.asarray(self.gradient(direction)) - self.gradient(0.0 * direction)
            return float(direction @ change)

    def refinement(self, most_cost):
        return None if self._cost is None else Refinement(self._cost, self._refine, most_cost)

    def _refine(self, at):
        self.n_refinements += 1
        return self._refined


def quadratic(curvatures, center=None, offset=1.0, **more):
    """offset + 1/2 sum curvatures (x - center)^2."""
    center = np.ones(len(curvatures)) if center is None else center
    return Function(
        lambda x: offset + 0.5 * curvatures @ (x - center) ** 2,
        lambda x: curvatures * (x - center),
        minimum=offset,
        **more,
    )


def log_cosh(scales, **more):
    """1 + sum log cosh(scales x): convex, quadratic near 0 and straight far away."""
    return Function(
        lambda x: 1.0 + np.sum(np.logaddexp(scales * x, -scales * x) - np.log(2.0)),
        lambda x: scales * np.tanh(scales * x),
        minimum=1.0,
        **more,
    )


class TestLbfgs:
    @pytest.mark.parametrize("n", [1, 2, 17])
    def test_quadratic(self, rng, n):
        center = rng.normal(size=n)
        function = quadratic(rng.uniform(0.5, 2.0, n), center)
        result = minimise(function, np.zeros(n), tol=1e-12, max_iter=100)
        assert result.reason == "converged"
        assert result.gap <= 1e-12
        np.testing.assert_allclose(result.point, center, atol=1e-5)
        np.testing.assert_array_equal(result.evaluation.gradient, function.gradient(result.point))

    @pytest.mark.parametrize("function", [quadratic, log_cosh])
    @pytest.mark.parametrize("span", [1e2, 1e4, 1e6])
    def test_ill_conditioned(self, function, span):
        curvatures = np.geomspace(1.0, span, 20)
        scales = curvatures if function is quadratic else np.sqrt(curvatures)
        result = minimise(function(scales), np.full(20, 2.0), tol=1e-10, max_iter=1000)
        assert result.reason == "converged"

    def test_a_perfect_preconditioner_leaves_one_step(self):
        curvatures = np.geomspace(1.0, 1e12, 30)
        function = quadratic(curvatures, preconditioner=Diagonal(1.0 / curvatures))
        result = minimise(function, np.zeros(30), tol=1e-12, max_iter=10)
        assert (result.reason, result.n_iter) == ("converged", 1)

    def test_the_scale_of_the_preconditioner_is_learnt(self):
        curvatures = np.geomspace(1.0, 1e6, 30)
        for scale in (1e-8, 1e8):
            function = quadratic(curvatures, preconditioner=Diagonal(scale / curvatures))
            result = minimise(function, np.zeros(30), tol=1e-12, max_iter=20)
            assert result.reason == "converged"

    def test_a_better_preconditioner_is_asked_for_when_it_pays(self):
        curvatures = np.geomspace(1.0, 1e8, 60)
        perfect = Diagonal(1.0 / curvatures)
        start = np.zeros(60)
        without = minimise(quadratic(curvatures), start, tol=1e-12, max_iter=500)
        function = quadratic(curvatures, refined=perfect, cost=1.0)
        with_it = minimise(function, start, tol=1e-12, max_iter=500)
        assert with_it.reason == "converged"
        assert function.n_refinements >= 1
        assert with_it.n_iter < without.n_iter
        dear = quadratic(curvatures, refined=perfect, cost=1e9)
        minimise(dear, start, tol=1e-12, max_iter=500)
        assert dear.n_refinements == 0

    def test_the_only_pair_goes_before_its_step_is_tried(self):
        # two vectors as long as the coefficients lay idle beside the next pair
        model = LbfgsModel(Function(np.sum, np.ones_like), memory=1)
        model.learn(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
        directions = model.directions(np.ones(2))
        np.testing.assert_allclose(next(directions), [-0.5, -0.5])
        assert not model.pairs
        np.testing.assert_allclose(next(directions), [-0.5, -0.5])  # where no step succeeds
        assert list(directions) == []

    def test_the_first_preconditioner_is_made_again_where_a_refined_one_fails(self):
        function = Function(
            np.sum,
            np.ones_like,
            preconditioner=Diagonal(np.array([2.0, 3.0])),
            refined=Diagonal(np.array([np.inf, 1.0])),
            cost=1.0,
        )
        model = LbfgsModel(function)
        assert model.first is function.preconditioner()
        for n_iter in range(40):
            model.look(n_iter, function.evaluate(np.ones(2)), excess=1e9)
        assert function.n_refinements >= 1
        assert model._first is None
        *_, last = model.directions(np.ones(2))
        np.testing.assert_array_equal(last, [-2.0, -3.0])

    @pytest.mark.parametrize("memory", [1, 3, 30])
    def test_memory(self, memory):
        function = log_cosh(np.geomspace(1.0, 30.0, 40))
        result = minimise(function, np.full(40, 3.0), tol=1e-8, max_iter=500, memory=memory)
        assert result.reason == "converged"

    def test_start_at_the_minimum(self):
        function = quadratic(np.ones(3))
        result = minimise(function, np.ones(3), tol=0.0, max_iter=10)
        assert (result.reason, result.n_iter, result.gap) == ("converged", 0, 0.0)
        assert function.n_evaluations == 1

    @pytest.mark.parametrize("max_iter", [0, 1, 5])
    def test_max_iter(self, max_iter):
        seen = []
        result = minimise(
            quadratic(np.geomspace(1.0, 1e6, 20)),
            np.zeros(20),
            tol=1e-12,
            max_iter=max_iter,
            on_iteration=lambda n_iter, at, gap: bool(seen.append((n_iter, at.value, gap))),
        )
        assert (result.reason, result.n_iter) == ("max_iter", max_iter)
        assert [n_iter for n_iter, _, _ in seen] == list(range(1, max_iter + 1))
        if seen:
            assert seen[-1][1:] == (result.evaluation.value, result.gap)

    def test_stop_by_callback(self):
        seen = []
        result = minimise(
            quadratic(np.geomspace(1.0, 1e6, 20)),
            np.zeros(20),
            tol=1e-12,
            max_iter=100,
            on_iteration=lambda n_iter, at, gap: seen.append(at.value) or n_iter == 3,
        )
        assert (result.reason, result.n_iter) == ("stopped", 3)
        assert seen[-1] == result.evaluation.value

    def test_an_error_in_a_callback_comes_through(self):
        class Stop(Exception):
            pass

        def stop(n_iter, at, gap):
            raise Stop

        with pytest.raises(Stop):
            minimise(
                quadratic(np.arange(1.0, 4.0)),
                np.zeros(3),
                tol=0.0,
                max_iter=9,
                on_iteration=stop,
            )

    def test_the_value_never_rises(self):
        values = []
        minimise(
            log_cosh(np.geomspace(0.1, 100.0, 30)),
            np.linspace(-3.0, 5.0, 30),
            tol=1e-10,
            max_iter=300,
            on_iteration=lambda n_iter, at, gap: bool(values.append(at.value)),
        )
        assert (np.diff(values) <= 1e-15 * values[0]).all()

    def test_precision_runs_out(self):
        function = quadratic(np.geomspace(1.0, 1e3, 10), center=np.full(10, 1 / 3))
        function.minimum = 0.5  # a bound that never closes
        seen = []
        result = minimise(
            function,
            np.zeros(10),
            tol=1e-10,
            max_iter=10_000,
            on_iteration=lambda n_iter, at, gap: bool(seen.append(n_iter)),
        )
        assert result.reason == "precision"
        assert result.n_iter < 1000
        assert result.n_iter == len(seen), "every iteration that counts has been told"
        np.testing.assert_allclose(result.point, 1 / 3, atol=1e-6)

    def test_a_gap_that_no_longer_shrinks(self):
        curvatures = np.geomspace(1.0, 1e10, 80)
        # rounding hides every decrease of the value, not the slopes
        function = Function(lambda x: 1.0, lambda x: curvatures * (x - 1.0), minimum=0.5)
        seen = []
        result = minimise(
            function,
            np.zeros(80),
            tol=1e-10,
            max_iter=10_000,
            on_iteration=lambda n_iter, at, gap: bool(seen.append(n_iter)),
        )
        assert result.reason == "precision"
        assert result.n_iter < 200
        assert result.n_iter == len(seen), "every iteration that counts has been told"

    def test_the_best_bound_is_remembered(self):
        """A later, weaker bound does not undo what an earlier one has certified."""
        function = quadratic(np.geomspace(1.0, 100.0, 20))
        bounds = iter([2.0, *[1e9] * 10_000])
        start_value = function.evaluate(np.zeros(20)).value
        function.gap_bound = lambda at: start_value - function.minimum + next(bounds)
        gaps = []
        minimise(
            function,
            np.zeros(20),
            tol=1e-3,
            max_iter=100,
            on_iteration=lambda n_iter, at, gap: bool(gaps.append(gap * at.value)),
        )
        assert max(gaps) <= start_value + 2.0
        assert gaps[-1] < 2.1

    def test_start_is_not_written_to(self):
        start = np.zeros(3)
        start.setflags(write=False)
        minimise(quadratic(np.arange(1.0, 4.0)), start, tol=1e-12, max_iter=50)

    def test_no_parameters(self):
        result = minimise(
            Function(lambda x: 1.0, lambda x: x, minimum=1.0), np.zeros(0), tol=0.0, max_iter=5
        )
        assert (result.reason, result.n_iter) == ("converged", 0)

    def test_infinite_beyond_a_wall(self):
        def value(x):
            return np.inf if x[0] >= 1.0 else -np.log1p(-x[0]) - 0.1 * x[0] + 1.0

        barrier = Function(value, lambda x: np.array([1.0 / (1.0 - x[0]) - 0.1]))
        barrier.minimum = value(np.array([-9.0]))
        result = minimise(barrier, np.array([0.99]), tol=1e-10, max_iter=100)
        assert result.reason == "converged"
        np.testing.assert_allclose(result.point, -9.0, atol=1e-3)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite_everywhere_but_at_the_start(self, bad):
        start = np.zeros(2)
        function = Function(
            lambda x: 1.0 if not x.any() else bad,
            lambda x: np.ones(2) if not x.any() else np.full(2, bad),
        )
        result = minimise(function, start, tol=1e-6, max_iter=10)
        assert result.reason == "precision"
        assert result.evaluation.value == 1.0
        np.testing.assert_array_equal(result.point, start)

    def test_not_finite_at_the_start(self):
        function = Function(lambda x: np.nan, lambda x: np.full(2, np.nan))
        result = minimise(function, np.zeros(2), tol=1e-6, max_iter=10)
        assert result.reason == "precision"
        assert result.n_iter == 0

    def test_a_minimum_at_infinity(self):
        """Without a penalty separable classes have one: the gradient fades, nothing may break."""
        function = Function(lambda x: np.logaddexp(0.0, -x).sum(), lambda x: -expit(-x))
        function.gap_bound = lambda at: np.inf
        result = minimise(function, np.array([0.0, 1.0]), tol=1e-4, max_iter=2000)
        assert result.reason in ("precision", "max_iter")
        assert np.isfinite(result.point).all()
        assert result.evaluation.value < 1e-6

    def test_a_flat_function(self):
        function = Function(lambda x: 1.0, np.zeros_like)
        result = minimise(function, np.ones(2), tol=1e-6, max_iter=10)
        assert (result.reason, result.n_iter) == ("precision", 0)


class TestRelativeGap:
    def test_is_relative(self):
        function = quadratic(np.ones(1), offset=2.0)
        assert relative_gap(function, At(2.5, np.zeros(1))) == 0.2

    @pytest.mark.parametrize(("value", "gap", "expected"), [(0.0, 0.0, 0.0), (0.0, 1.0, np.inf)])
    def test_of_nothing(self, value, gap, expected):
        function = quadratic(np.ones(1))
        function.gap_bound = lambda at: gap
        assert relative_gap(function, At(value, np.zeros(1))) == expected


class TestLowerBound:
    def test_one_point(self):
        lower = LowerBound(epsilon=0.0)
        assert lower.gap(2.0, 0.5, 0.0) == 0.25
        assert lower.value == 1.5

    def test_an_earlier_point_certifies_a_later_one(self):
        lower = LowerBound(epsilon=0.0)
        lower.gap(2.0, 0.5, 0.0)
        assert lower.gap(1.6, 1.0, 0.0) == pytest.approx(0.1 / 1.6)
        assert lower.value == 1.5

    def test_rounding_is_allowed_for(self):
        lower = LowerBound(epsilon=1e-3)
        lower.gap(2.0, 0.5, 0.01)
        assert lower.value == pytest.approx(1.5 - 4 * (2e-3 + 0.01))
        assert lower.gap(2.0, 1.0, 0.0) == pytest.approx((2.0 - lower.value + 4 * 2e-3) / 2.0)

    @pytest.mark.parametrize("bound", [np.inf, np.nan])
    def test_what_is_not_finite_certifies_nothing(self, bound):
        lower = LowerBound(epsilon=0.0)
        lower.gap(2.0, 0.5, 0.0)
        assert lower.gap(1.6, bound, 0.0) >= 1.0
        assert lower.value == 1.5


class TestPairs:
    @pytest.mark.parametrize(
        ("most", "n_bytes", "least", "kept"),
        [(3, 10_000, 1, 3), (30, 160, 1, 2), (30, 1, 1, 1), (30, 1, 4, 4), (0, 1000, 0, 1)],
    )
    def test_memory(self, most, n_bytes, least, kept):
        pairs = Pairs(most, n_bytes, least)
        for i in range(1, 7):
            pairs.add(pair_of(np.full(5, float(i)), np.ones(5), Vectors()))  # 80 bytes
        assert [pair.moved[0] for pair in pairs] == list(range(7 - kept, 7))
        assert pairs.most_of(80) == len(pairs) == kept

    @pytest.mark.parametrize("change", [[0.0, 1.0], [-1.0, 0.0], [1e-11, 1.0], [np.nan, 0.0]])
    def test_no_pair_without_curvature(self, change):
        assert pair_of(np.array([1.0, 0.0]), np.array(change), Vectors()) is None

    def test_among_some_elements(self):
        pairs = Pairs(9, 1000, 1)
        pairs.add(pair_of(np.array([1.0, 2.0]), np.array([-1.0, 3.0]), Vectors()))
        assert pairs.among(np.array([0]), Vectors()) == []
        ((moved, change, curvature),) = pairs.among(np.array([1]), Vectors())
        assert (moved, change, curvature) == (2.0, 3.0, 6.0)

    def test_the_latest_pair_is_fulfilled(self, rng):
        """The secant condition: the approximate inverse takes the change to the step."""
        pairs = []
        for _ in range(3):
            moved = rng.normal(size=8)
            pairs.append(pair_of(moved, np.arange(1.0, 9.0) * moved, Vectors()))
        preconditioner = Diagonal(rng.random(8) + 0.5)
        gamma = scale_from(pairs[-1], preconditioner, Vectors())
        step = two_loops(pairs[-1].change, pairs, preconditioner, gamma, Vectors())
        np.testing.assert_allclose(step, -pairs[-1].moved, rtol=1e-10)


def test_a_step_that_is_to_tighten_the_bound_may_not_raise_the_value():
    for value, is_taken in ((1.0, True), (1.0 + 1e-6, False)):
        end = SimpleNamespace(value=value)
        objective = SimpleNamespace(vectors=Vectors(), epsilon=1e-16, evaluate=lambda _, e=end: e)
        found = level_step(objective, np.zeros(2), np.ones(2), SimpleNamespace(value=1.0))
        assert (found is not None) == is_taken


def test_what_would_leave_the_orthant_becomes_0():
    """By however little; intercepts, of which no 1-norm is, may change their sign."""
    signs = np.array([1.0, -1.0, 0.0])
    orthant = _Orthant(np.arange(3), np.zeros(3), np.array([1e-4, -1.0, 1.0]), signs)
    end = orthant.end(np.array([-2e-4, 0.5, -2.0]), 1.0)
    np.testing.assert_array_equal(end, [0.0, -0.5, -1.0])
    objective = SimpleNamespace(n_weights=2, l1=0.5)
    at = SimpleNamespace(gradient=np.array([0.1, 0.2, 0.3, -0.4]))
    found = _orthant(objective, np.array([1.0, -1.0, 2.0, -3.0]), at)
    np.testing.assert_array_equal(found.signs, [1.0, -1.0, 0.0, 0.0])


def test_no_state_is_left_where_mini_batch_descent_diverges():
    states = []
    objective = SimpleNamespace(n_rows=3, sgd_steps=lambda *given: (np.inf, 0.0))
    run = sgd.Run(np.zeros(2), np.random.RandomState(0))
    options = {"n_epochs": 5, "batch_size": 1, "learning_rate": 1.0, "momentum": 0.0}
    assert sgd.descend(objective, run, leave=states.append, **options) == 1
    assert not states


def test_where_rounding_hides_the_decrease_the_slope_has_to_be_flatter():
    """Or a step goes up the other side, as steep as it came down."""
    start = _Descent(1.0, 1e-12, -1e-14)
    for slope, is_enough in ((-1e-14, True), (0.9e-14, True), (1.1e-14, False)):
        assert start.is_enough(1.0 + 1e-13, slope) == is_enough
    assert not start.is_enough(1.0 + 1e-11, 0.0)


class TestLineSearch:
    @staticmethod
    def along(value, slope, start=0.0, direction=1.0, epsilon=2.2e-16):
        function = Function(lambda x: value(x[0]), lambda x: [slope(x[0])])
        function.epsilon = epsilon
        point = np.array([start])
        at = function.evaluate(point)
        function.n_evaluations = 0
        return function, search(function, point, np.array([direction]), at)

    def test_a_good_first_step_costs_one_evaluation(self):
        function, found = self.along(lambda x: (x - 1.0) ** 2, lambda x: 2.0 * (x - 1.0))
        step, _, new = found
        assert step == 1.0
        assert new.value == 0.0
        assert function.n_evaluations == 1

    @pytest.mark.parametrize("minimum", [1e-9, 1e-3, 0.3, 3.0, 1e3, 1e9])
    def test_strong_wolfe_conditions(self, minimum):
        function, (step, _, new) = self.along(
            lambda x: np.hypot(1.0, x / minimum - 1.0),
            lambda x: (x / minimum - 1.0) / np.hypot(1.0, x / minimum - 1.0) / minimum,
        )
        start, slope = np.sqrt(2.0), -np.sqrt(0.5) / minimum
        assert new.value <= start + 1e-4 * step * slope
        assert abs(new.gradient[0]) <= 0.9 * abs(slope)
        assert function.n_evaluations <= 30

    def test_no_descent(self):
        for direction in (-1.0, 0.0, np.nan, np.inf):
            function, found = self.along(
                lambda x: (x - 1.0) ** 2, lambda x: 2.0 * (x - 1.0), direction=direction
            )
            assert found is None
            assert function.n_evaluations == 0

    def test_a_wall(self):
        _, (step, _, new) = self.along(
            lambda x: x * x - x if x < 0.6 else np.inf, lambda x: 2.0 * x - 1.0
        )
        assert step < 0.6
        assert new.value < 0.0

    def test_a_slope_that_is_not_finite(self):
        _, (step, _, _) = self.along(
            lambda x: x * x - x, lambda x: 2.0 * x - 1.0 if x < 0.6 else np.nan
        )
        assert step < 0.6

    @pytest.mark.parametrize(
        ("value", "slope"), [(-np.inf, -0.1), (np.nan, -0.1), (None, np.nan), (None, -np.inf)]
    )
    def test_what_descends_but_is_not_finite(self, value, slope):
        """A step does not end there, nor is it a step that was too short."""
        _, (step, _, new) = self.along(
            lambda x: 0.5 * x * x - x if x < 0.6 or value is None else value,
            lambda x: x - 1.0 if x < 0.6 else slope,
        )
        assert step < 0.6
        assert np.isfinite(new.value) and np.isfinite(new.gradient[0])

    def test_never_finite(self):
        function, found = self.along(
            lambda x: np.nan if x else 0.0, lambda x: -1.0 if x == 0.0 else np.nan
        )
        assert found is None
        assert function.n_evaluations <= 100

    def test_rounding_hides_the_decrease(self):
        """Values are equal to the last bit, slopes still tell where the minimum is."""
        _, found = self.along(lambda x: 1.0, lambda x: 1e-10 * (x - 1.2))
        step, _, new = found
        assert abs(new.gradient[0]) < 1e-10
        assert 0.0 < step < 2.0

    def test_unbounded_below_ends(self):
        function, found = self.along(lambda x: -x, lambda x: -1.0)
        assert found is None
        assert function.n_evaluations <= 100


class TestBacktrack:
    @staticmethod
    def along(value, slope, trial_of=None, most_trials=30):
        """From 0 to the right; slopes at the start and the end are of the step."""
        function = Function(lambda x: value(x[0]), lambda x: [slope(x[0])])
        at = function.evaluate(np.zeros(1))
        function.n_evaluations = 0

        def straight(step):
            end = np.array([step])
            return Trial(end, float(at.gradient @ end), lambda gradient: float(gradient @ end))

        return function, backtrack(function, at, trial_of or straight, most_trials)

    def test_a_good_first_step_costs_one_evaluation(self):
        function, (end, new) = self.along(lambda x: (x - 1.0) ** 2, lambda x: 2.0 * (x - 1.0))
        assert (end[0], new.value, function.n_evaluations) == (1.0, 0.0, 1)

    def test_a_parabola_takes_two_evaluations(self):
        function, (end, _) = self.along(lambda x: (x - 0.3) ** 2, lambda x: 2.0 * (x - 0.3))
        assert end[0] == pytest.approx(0.3)
        assert function.n_evaluations == 2

    def test_a_wall(self):
        _, (end, new) = self.along(
            lambda x: x * x - x if x < 0.6 else np.inf, lambda x: 2.0 * x - 1.0
        )
        assert 0.0 < end[0] < 0.6
        assert new.value < 0.0

    @pytest.mark.parametrize(("value", "slope"), [(-np.inf, -0.1), (None, np.nan), (None, -np.inf)])
    def test_what_descends_but_is_not_finite(self, value, slope):
        _, (end, new) = self.along(
            lambda x: 0.5 * x * x - x if x < 0.6 or value is None else value,
            lambda x: x - 1.0 if x < 0.6 else slope,
        )
        assert 0.0 < end[0] < 0.6
        assert np.isfinite(new.value) and np.isfinite(new.gradient[0])

    def test_what_ascends_is_not_evaluated(self):
        def trial_of(step):
            return Trial(np.array([step]), 1.0 if step > 0.2 else -step, lambda gradient: -step)

        function, (end, _) = self.along(lambda x: -x, lambda x: -1.0, trial_of)
        assert (end[0], function.n_evaluations) == (0.125, 1)

    def test_nowhere_to_go(self):
        function, found = self.along(lambda x: -x, lambda x: -1.0, lambda step: None)
        assert found is None
        assert function.n_evaluations == 0

    def test_most_trials(self):
        function, found = self.along(lambda x: 100.0 * x, lambda x: -1.0, most_trials=4)
        assert found is None
        assert function.n_evaluations == 4

    def test_rounding_hides_the_decrease(self):
        _, (end, _) = self.along(lambda x: 1.0, lambda x: 1e-10 * (x - 0.9))
        assert 0.0 < end[0] <= 1.0
