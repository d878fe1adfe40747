"""Newton's method in one call: the kernel against its numpy twin and against the objective."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax, reference
from fastsoftmax.backend import resolve_backend
from fastsoftmax.kernel_arguments import NewtonSettings, Scaling
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch, small
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers.protocols import Limits


def arguments_of(rng, n=60, d=3, k=3, *, soft=False, smoothing=0.0, intercept=True, l2=0.02):
    """Start, rows, targets and settings up to fit_intercept, in the order of `passed`."""
    Z = rng.normal(size=(n, d)) * [1.0, 0.1, 3.0, *[1.0] * (d - 3)][:d]
    Z = np.ascontiguousarray(np.concatenate([Z, np.ones((n, int(intercept)))], axis=1))
    labels = rng.integers(k, size=n).astype(np.int32)
    probs = rng.dirichlet(np.ones(k), size=n)
    row_weights = rng.uniform(0.0, 2.0, size=n)
    row_weights *= n / row_weights.sum()
    targets = probs if soft else np.eye(k)[labels]
    share = row_weights @ ((1.0 - smoothing) * targets + smoothing / k) / n
    start = np.zeros((1 if k == 2 else k, Z.shape[1]))
    return (
        start,
        Z,
        None if soft else labels,
        probs if soft else None,
        row_weights,
        smoothing,
        share,
        l2,
        intercept,
    )


def passed(module, arguments, tol=1e-4, target=1e-13):
    """What `newton_steps` takes after its outputs."""
    start, Z, labels, probs, row_weights, smoothing, share, l2, intercept = arguments
    targets = module.Targets(labels, probs, row_weights, smoothing, len(share))
    d = Z.shape[1] - intercept
    scaling = Scaling(np.zeros(d), None, intercept)
    return start, Z[:, :d], targets, NewtonSettings(scaling, share, l2, tol, target)


def run(module, arguments, n_steps=40, tol=1e-8, target=1e-13, **options):
    points, records = np.full((n_steps, arguments[0].size), np.nan), np.full((n_steps, 4), np.nan)
    base = np.full(arguments[0].shape, np.nan)
    given = passed(module, arguments, tol, target)
    end = module.newton_steps(points, records, base, *given, **options)
    start, Z, labels, probs, row_weights, smoothing, share = arguments[:7]
    if not np.isfinite(Z).all():
        return points, records, end
    targets = np.eye(len(share))[labels] if probs is None else probs
    errors = share - (1.0 - smoothing) * targets - smoothing / len(share)
    expected = ((row_weights[:, np.newaxis] * errors).T @ Z / len(Z))[-len(start) :]
    np.testing.assert_allclose(base, expected, rtol=1e-12, atol=1e-13)
    return points, records, end


class TestKernel:
    @pytest.mark.parametrize(
        ("n", "d"), [(1, 1), (7, 2), (8, 3), (60, 3), (203, 8), (50, 17), (128, 23), (300, 26)]
    )
    @pytest.mark.parametrize("k", [2, 3, 5])
    @pytest.mark.parametrize("intercept", [True, False])
    def test_is_its_twin(self, kernels, isa, rng, n, d, k, intercept):
        arguments = arguments_of(rng, n, d, k, intercept=intercept)
        points, records, end = run(kernels, arguments, 4, isa=isa)
        expected = run(reference, arguments, 4)
        assert end[0] == expected[2][0]
        np.testing.assert_allclose(points, expected[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(records, expected[1], rtol=1e-9, atol=1e-13)

    @pytest.mark.parametrize(
        ("n", "d", "k"),
        [(900, 40, 2), (700, 30, 3), (500, 20, 5), (6500, 101, 2)],
        ids=["two classes", "three", "five", "the first Hessian of some rows"],
    )
    @pytest.mark.parametrize("intercept", [True, False])
    def test_a_hessian_serves_several_steps(self, kernels, isa, rng, n, d, k, intercept):
        arguments = arguments_of(rng, n, d, k, intercept=intercept, l2=1e-3)
        points, records, end = run(kernels, arguments, 20, target=1e-11, isa=isa)
        twin = run(reference, arguments, 20, target=1e-11)
        assert end[1:] == twin[2][1:] == (True, False)
        n_steps = min(end[0], twin[2][0])  # (at the target, rounding decides)
        assert max(end[0], twin[2][0]) <= n_steps + 1
        np.testing.assert_allclose(points[:n_steps], twin[0][:n_steps], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(records[:n_steps, :3], twin[1][:n_steps, :3], rtol=1e-9)
        assert (np.diff(records[:n_steps, 2]) <= 1e-14).all()

    def test_a_hessian_that_is_of_no_use_is_computed_again(self, kernels, isa, rng):
        """The rows of its blocks, every second one, say nothing of the others."""
        arguments = list(arguments_of(rng, 6500, 101, 2, l2=1e-4))
        is_first = np.arange(6500) // 128 % 2 == 0
        arguments[1][is_first, :50] *= 1e-3
        arguments[1][~is_first, 50:100] *= 1e-3
        _, records, end = run(kernels, arguments, 40, target=1e-14, isa=isa)
        assert end[1]
        twin = run(reference, arguments, 40, target=1e-14)
        assert records[end[0] - 1, 2] == pytest.approx(twin[1][twin[2][0] - 1, 2], rel=1e-12)

    @pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "u1", "i1"])
    @pytest.mark.parametrize("order", ["C", "F", "strided"])
    @pytest.mark.parametrize("scaled", [True, False])
    def test_rows_as_they_are_stored(self, kernels, isa, rng, dtype, order, scaled):
        arguments = arguments_of(rng, 203, 11)
        start, _, targets, settings = passed(kernels, arguments)
        X = rng.integers(-100 if dtype != "u1" else 0, 100, size=(203, 11)).astype(dtype)
        X = np.repeat(X, 2, axis=1)[:, ::2] if order == "strided" else np.array(X, order=order)
        center = X.mean(axis=0, dtype=np.float64)
        scale = rng.uniform(0.005, 0.02, size=11) if scaled else None
        settings = settings._replace(scaling=Scaling(center, scale, with_bias=True))
        points, records = np.empty((5, start.size)), np.empty((5, 4))
        base = np.empty(start.shape)
        got = kernels.newton_steps(points, records, base, start, X, targets, settings, isa=isa)
        Z = (X.astype(np.float64) - center) * (scale if scaled else 1.0)
        twins = reference.Targets(targets.labels, None, targets.row_weights, 0.0, 3)
        plain = settings._replace(scaling=Scaling(np.zeros(11), None, with_bias=True))
        expected = np.empty_like(points), np.empty_like(records), np.empty_like(base)
        end = reference.newton_steps(*expected, start, Z, twins, plain)
        assert got == end
        np.testing.assert_allclose(records[: end[0]], expected[1][: end[0]], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(base, expected[2], rtol=1e-9, atol=1e-11)

    def test_sparse_rows_are_refused(self, kernels, rng):
        start, X, targets, settings = passed(kernels, arguments_of(rng))
        x = sparse.csr_array(X)
        rows = kernels.CsrRows(x.data, x.indices, x.indptr, 3)
        outputs = np.zeros((3, 12)), np.zeros((3, 4)), np.zeros((3, 4))
        with pytest.raises(ValueError, match="X must be dense"):
            kernels.newton_steps(*outputs, start, rows, targets, settings)

    @pytest.mark.parametrize("soft", [True, False])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_targets(self, kernels, isa, rng, soft, smoothing):
        arguments = arguments_of(rng, soft=soft, smoothing=smoothing)
        points, records, end = run(kernels, arguments, isa=isa)
        assert end[1:] == (True, False)
        expected = run(reference, arguments)
        last = end[0] - 1
        np.testing.assert_allclose(points[last], expected[0][expected[2][0] - 1], atol=1e-9)
        assert records[last, 2] == pytest.approx(expected[1][expected[2][0] - 1, 2], rel=1e-13)

    @pytest.mark.parametrize("seed", [4, 9, 22, 31, 56])
    def test_where_rounding_hides_what_a_step_gains(self, kernels, isa, seed):
        """Far features: steps are halved, to nothing in the end, and the value never rises."""
        rng = np.random.default_rng(seed)
        start, Z, *others = arguments_of(rng, l2=10.0 ** rng.uniform(-12, 0))
        Z[:, :3] = Z[:, :3] * 10.0 ** rng.integers(0, 8) + 10.0 ** rng.integers(0, 8)
        start = rng.normal(size=start.shape) * 10.0 ** rng.integers(-6, 3)
        points, records, base = np.full((40, 12), np.nan), np.full((40, 4), np.nan), start.copy()
        given = passed(kernels, (start, Z, *others), 0.0, 0.0)
        n, reached, stuck = kernels.newton_steps(points, records, base, *given, isa=isa)
        values = records[:n, 2]
        assert reached or stuck or n == 40
        assert np.isfinite(points[:n]).all() and np.isfinite(values).all()
        assert (np.diff(values) <= 1e-12 * np.abs(values[:-1])).all()

    def test_steps_are_as_long_as_they_should_be(self, kernels, rng):
        # classes that lie apart: each full step brings the logits nearer by no more than 1 or so
        _, Z, _, _, row_weights, *_ = arguments_of(rng)
        apart = np.array([[1.0, 0.0, 0.2, 0.1], [-1.0, 1.0, -0.2, 0.0], [0.0, -1.0, 0.3, -0.1]])
        labels = (Z @ apart.T).argmax(axis=1).astype(np.int32)
        share = np.bincount(labels, row_weights, minlength=3) / len(Z)
        assert (share > 0.0).all()
        for l2, most in ((1e-3, 9), (1e-5, 12), (1e-7, 15)):  # full steps: 11, 15, 19
            arguments = np.zeros((3, 4)), Z, labels, None, row_weights, 0.0, share, l2, True
            _, records, (n, reached, _) = run(kernels, arguments)
            assert reached
            assert n <= most
            assert (np.diff(records[:n, 2]) <= 1e-14 * records[: n - 1, 2]).all()

    def test_limit(self, kernels, rng):
        arguments = arguments_of(rng, l2=1e-6)
        assert run(kernels, arguments, 2)[2] == (2, False, False)
        assert run(kernels, arguments, 0)[2] == (0, False, False)

    def test_at_the_minimum(self, kernels, rng):
        arguments = arguments_of(rng)
        points, _, end = run(kernels, arguments)
        again = (points[end[0] - 1].reshape(arguments[0].shape), *arguments[1:])
        assert run(kernels, again, target=1e-10)[2] == (0, True, False)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite_ends(self, kernels, isa, rng, bad):
        arguments = arguments_of(rng)
        arguments[1][5, 1] = bad
        n_steps, reached, _ = run(kernels, arguments, isa=isa)[2]
        assert (n_steps, reached) == (0, False)

    def test_bounds_are_bounds(self, kernels, rng):
        for intercept in (True, False):
            arguments = arguments_of(rng, k=4, intercept=intercept, l2=1e-4)
            _, records, (n, reached, _) = run(kernels, arguments)
            assert reached
            minimum = records[n - 1, 2] - records[n - 1, 3]
            assert (records[:n, 2] - records[:n, 3] <= minimum + 1e-14).all()

    @pytest.mark.parametrize(
        ("i", "value", "message"),
        [
            (0, np.zeros((3, 7)), "start must be contiguous"),
            (0, np.zeros((2, 4)), "weights must have 3 rows"),
            (1, np.zeros((59, 4)), "targets must have 59 rows"),
            (1, np.zeros((60, 4), np.int16), "X must hold"),
            (2, np.full(60, 3, np.int32), "labels must lie in"),
            (7, 0.0, "l2 must be > 0"),
        ],
    )
    def test_arguments_are_checked(self, kernels, rng, i, value, message):
        arguments = list(arguments_of(rng))
        arguments[i] = value
        with pytest.raises((ValueError, TypeError), match=message):
            kernels.newton_steps(
                np.zeros((3, 12)), np.zeros((3, 4)), np.zeros((3, 4)), *passed(kernels, arguments)
            )

    @pytest.mark.parametrize(
        ("i", "value", "message"),
        [
            (0, np.zeros((3, 11)), "points must have 12 columns"),
            (1, np.zeros((2, 4)), "records must have the shape"),
            (2, np.zeros((4, 3)), "base must have the shape of start"),
        ],
    )
    def test_outputs_are_checked(self, kernels, rng, i, value, message):
        outputs = [np.zeros((3, 12)), np.zeros((3, 4)), np.zeros((3, 4))]
        outputs[i] = value
        with pytest.raises(ValueError, match=message):
            kernels.newton_steps(*outputs, *passed(kernels, arguments_of(rng)))


def objective_of(rng, storage="dense", real=np.float64, k=3, shift=0.0, **options):
    X = (rng.normal(size=(90, 4)) * [0.5, 1.0, 4.0, 2.0] + shift).astype(real)
    labels = rng.integers(k, size=90).astype(np.int32)
    labels[:k] = labels[40 : 40 + k] = range(k)
    X = sparse.csr_array(X) if storage == "CSR" else X
    weights = np.ones(90, dtype=real)
    parts = slice(0, 30), slice(30, 90)
    backend = resolve_backend("auto")
    shards = [build_shard(X[p], labels[p], None, weights[p], k, backend=backend) for p in parts]
    options = {"fit_intercept": True, **options}
    return SoftmaxObjective(build_problem(Rows(shards), 0.02, **options))


class TestSolve:
    @pytest.mark.parametrize("storage", ["dense", "CSR"])
    @pytest.mark.parametrize("k", [2, 4])
    @pytest.mark.parametrize(
        "options",
        [{}, {"fit_intercept": False}, {"standardize": True}, {"input_scale": 0.25},
         {"standardize": True, "fit_intercept": False}],
        ids=str,
    )  # fmt: skip
    def test_is_the_general_solvers(self, rng, monkeypatch, storage, k, options):
        objective = objective_of(rng, storage, k=k, **options)
        assert small.suits(objective.problem)
        seen = []

        def note(n_iter, at, gap):
            seen.append((n_iter, at.value, gap))
            again = objective.evaluate_coefficients(at.weights, at.bias)
            assert at.value == pytest.approx(again.value, rel=1e-12)
            assert at.loss == pytest.approx(again.loss, rel=1e-12)
            assert at.accuracy == pytest.approx(again.accuracy)
            return False

        start = objective.problem.null_point
        quick = full_batch.solve(objective, start, Limits(1e-9, 100, note), newton=True).result
        assert quick.reason == "converged"
        assert quick.n_iter == len(seen) == seen[-1][0]
        monkeypatch.setattr(small, "suits", lambda problem: False)
        # (which end at 1e-13 else, where coefficients are wrong by some 1e-8)
        general = full_batch.solve(objective, start, Limits(1e-15, 100), newton=True).result
        np.testing.assert_allclose(quick.point, general.point, atol=1e-8)
        assert quick.evaluation.value == pytest.approx(general.evaluation.value, rel=1e-13)
        for (_, value, gap), (_, later, _) in itertools.pairwise(seen):
            assert later <= value * (1 + 1e-14)
            assert value * (1.0 - gap) <= general.evaluation.value * (1 + 1e-12)

    def test_stops_where_it_is_told(self, rng):
        objective = objective_of(rng)
        result = full_batch.solve(
            objective,
            objective.problem.null_point,
            Limits(1e-12, 50, lambda n_iter, at, gap: n_iter == 2),
            newton=True,
        ).result
        assert (result.reason, result.n_iter) == ("stopped", 2)
        bounded = full_batch.solve(
            objective, objective.problem.null_point, Limits(1e-12, 2), newton=True
        ).result
        np.testing.assert_array_equal(result.point, bounded.point)

    def test_max_iter(self, rng):
        objective = objective_of(rng)
        for most in (0, 1, 3):
            result = full_batch.solve(
                objective, objective.problem.null_point, Limits(1e-12, most), newton=True
            ).result
            assert (result.reason, result.n_iter) == ("max_iter", most)

    def test_time_is_up(self, rng):
        objective = objective_of(rng)
        result = full_batch.solve(
            objective,
            objective.problem.null_point,
            Limits(1e-12, 9, expired=lambda: True),
            newton=True,
        ).result
        assert (result.reason, result.n_iter) == ("max_time", 0)

    @pytest.mark.parametrize("shift", [1e6, 1e9])
    def test_others_go_on_where_features_are_far_from_zero(self, rng, shift):
        objective = objective_of(rng, shift=shift)
        result = full_batch.solve(
            objective, objective.problem.null_point, Limits(1e-6, 200), newton=True
        ).result
        assert result.gap <= 1e-6

    def test_features_that_overflow(self, rng):
        objective = objective_of(rng, input_scale=1e308)
        with np.errstate(over="ignore", invalid="ignore"):
            stage = small.SmallStage(objective)
            assert stage.run(objective.problem.null_point, Limits(1e-4, 9)) is None


@pytest.mark.parametrize(
    ("n", "d", "k", "real", "is_small"),
    [
        (10_000, 100, 2, np.float64, True),
        (12_000, 100, 2, np.float64, False),
        (20_000, 25, 2, np.float64, True),
        (20_000, 40, 2, np.float32, False),
        (10_000, 30, 3, np.float64, True),
        (10_000, 60, 3, np.float64, False),
        (300, 340, 2, np.float64, True),
        (300, 360, 2, np.float64, False),
    ],
)
def test_which_problems_are_small(rng, n, d, k, real, is_small):
    X, labels = np.zeros((n, d), real), (np.arange(n) % k).astype(np.int32)
    backend = resolve_backend("auto")
    shard = build_shard(X, labels, None, np.ones(n, real), k, backend=backend)
    assert small.suits(build_problem(Rows([shard]), 0.02, fit_intercept=True)) == is_small


def test_the_last_digits_come_where_they_cost_little(rng):
    """Larger problems end at tol, those of many steps a second at the last digits."""
    for n, least, most in ((500, 0.0, 1e-16), (10_000, 1e-12, 1e-4)):
        X = rng.normal(size=(n, 40))
        y = X @ rng.normal(size=40) / 6.0 + rng.normal(size=n) > 0.0
        model = FastSoftmax().fit(X, y)
        assert model.solver_ == "newton-cholesky"
        assert least <= model.gap_ <= most
        best = FastSoftmax(tol=1e-13).fit(X, y).objective_
        assert model.objective_ * (1.0 - model.gap_) <= best <= model.objective_ * (1.0 + 1e-15)


def test_the_same_with_and_without_an_observer(rng):
    X = rng.normal(size=(80, 4))
    y = rng.integers(3, size=80)
    plain = FastSoftmax().fit(X, y)
    watched = FastSoftmax().fit(X, y, eval_set=[(X, y)], callbacks=[lambda state: None])
    np.testing.assert_array_equal(plain.coef_, watched.coef_)
    assert plain.n_iter_ == watched.n_iter_


def test_iterations_go_on_counting_where_a_later_call_makes_no_step(rng, monkeypatch):
    # the steps of the calls before were forgotten: the fit began anew, and counted from 1 again
    steps, calls = small.SmallStage._steps, []

    def stuck_second(stage, params, limits, n_iter):
        one = replace(limits, max_iter=min(limits.max_iter, n_iter + 1))
        points, records, reached, stuck = steps(stage, params, one, n_iter)
        calls.append(len(points))
        if len(calls) == 1:
            return points, records, reached, stuck
        return points[:0], records[:0], False, True

    monkeypatch.setattr(small.SmallStage, "_steps", stuck_second)
    seen = []
    X, y = rng.normal(size=(60, 3)), rng.integers(3, size=60)
    model = FastSoftmax(tol=1e-10).fit(X, y, callbacks=[lambda s: seen.append(s.iteration)])
    assert calls == [1, 1]
    assert seen == list(range(1, int(model.n_iter_[0]) + 1))
    assert model.converged_


@pytest.mark.parametrize(("C", "weight"), [(1e-320, 1.0), (1e-300, 1e-30)])
def test_a_penalty_that_overflows_is_refused(rng, C, weight):
    # the first gave NaN as objective_, the second a ZeroDivisionError
    X, y = rng.normal(size=(60, 3)), rng.integers(3, size=60)
    with pytest.raises(ValueError, match="is too small for weights"):
        FastSoftmax(C=C).fit(X, y, sample_weight=np.full(60, weight))
