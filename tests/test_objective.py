"""The penalised problem: value, gradient, coordinates and certificate, against plain formulas."""

import numpy as np
import pytest
from scipy.special import logsumexp

from fastsoftmax.backend import resolve_backend
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard
from fastsoftmax.solvers import descent
from fastsoftmax.solvers.lbfgs import LbfgsModel
from fastsoftmax.solvers.protocols import Limits

# name: (classes, logits, soft targets, label smoothing)
KINDS = {
    "binary": (2, 1, False, 0.0),
    "binary, soft": (2, 1, True, 0.1),
    "labels": (4, 4, False, 0.0),
    "smoothed": (4, 4, False, 0.2),
    "soft": (4, 4, True, 0.0),
}


def minimise(objective, start, *, memory=30, **options):
    return descent.minimise(objective, start, LbfgsModel(objective, memory), Limits(**options))


def data_grad(case, at):
    """Gradient of the mean cross-entropy by W, from that of F for centred features."""
    weights = at.weights
    grad = at.gradient[: weights.size].reshape(weights.shape) - case.objective.problem.l2 * weights
    if not case.objective.problem.fit_intercept:
        return grad
    return grad + np.outer(at.bias_grad, case.objective.problem.coordinates.center)


class Plain:
    """F in float64 by its definition, without any code of the package."""

    def __init__(self, X, targets, weights, penalty, n_logits, smoothing):
        self.X, self.weights = X.astype(np.float64), weights.astype(np.float64)
        self.targets = (1.0 - smoothing) * targets + smoothing / targets.shape[1]
        self.penalty, self.n_logits = penalty, n_logits

    def logits(self, W, b):
        logits = self.X @ W.T + b
        if self.n_logits < self.targets.shape[1]:
            logits = np.column_stack([np.zeros(len(logits)), logits])
        return logits

    def mean(self, values):
        return float(np.average(values, weights=self.weights))

    def loss(self, W, b):
        logits = self.logits(W, b)
        # soft targets of a float32 problem do not add up to 1 exactly
        total = self.targets.sum(axis=1)
        return self.mean(total * logsumexp(logits, axis=1) - (self.targets * logits).sum(axis=1))

    def value(self, W, b):
        return self.loss(W, b) + 0.5 * self.penalty * float((W * W).sum())

    def dual(self, W, b):
        """Value of the dual at the model's own probabilities: a bound where they are feasible."""
        logits = self.logits(W, b)
        log_probs = logits - logsumexp(logits, axis=1, keepdims=True)
        probs = np.exp(log_probs)
        entropy = self.mean(-(probs * log_probs).sum(axis=1))
        share = (self.weights / self.weights.sum())[:, np.newaxis]
        grad = (share * (probs - self.targets)).T @ self.X
        return entropy - float((grad[-self.n_logits :] ** 2).sum()) / (2.0 * self.penalty)

    def dual_of_mixture(self, W, b):
        """Value of the dual at (1 - t) P + t u, with t and u that make it feasible.

        P are the model's probabilities. The entropy is the least that a mixture can have.
        """
        logits = self.logits(W, b)
        log_probs = logits - logsumexp(logits, axis=1, keepdims=True)
        probs = np.exp(log_probs)
        weights = self.weights / self.weights.sum()
        shares, over = weights @ self.targets, weights @ (probs - self.targets)
        t = 1.0 / (1.0 + min(s / g for s, g in zip(shares, over, strict=True) if g > 0.0))
        u = np.maximum(shares - (1.0 - t) / t * over, 0.0)
        entropy = (1.0 - t) * self.mean(-(probs * log_probs).sum(axis=1))
        entropy -= t * sum(p * np.log(p) for p in u if p > 0.0)
        Q = (1.0 - t) * probs + t * u
        grad = (weights[:, np.newaxis] * (Q - self.targets)).T @ self.X
        return entropy - float((grad[-self.n_logits :] ** 2).sum()) / (2.0 * self.penalty)


class Case:
    """A random problem in both forms."""

    def __init__(
        self, rng, kind, *, fit_intercept=True, real=np.float64, C=0.5, n_shards=1, backend="auto"
    ):
        n, d = 60, 3
        self.n_classes, self.n_logits, soft, smoothing = KINDS[kind]
        X = (rng.normal(size=(n, d)) * [0.5, 1.0, 4.0] + [2.0, 0.0, -1.0]).astype(real)
        labels = rng.integers(self.n_classes, size=n).astype(np.int32)
        labels[: self.n_classes] = np.arange(self.n_classes)
        targets = np.eye(self.n_classes)[labels]
        if soft:
            targets = rng.dirichlet(np.ones(self.n_classes), n)
        targets = targets.astype(real)
        weights = rng.choice([0.0, 0.5, 1.0, 3.0], n)
        weights[: self.n_classes] = 1.0
        weights = (weights / weights.mean()).astype(real)
        penalty = 1.0 / (C * n)
        shards = [
            build_shard(
                X[rows],
                None if soft else labels[rows],
                targets[rows] if soft else None,
                weights[rows],
                self.n_classes,
                label_smoothing=smoothing,
                backend=resolve_backend(backend),
            )
            for rows in np.split(np.arange(n), np.linspace(0, n, n_shards + 1).astype(int)[1:-1])
        ]
        self.shards = shards
        self.objective = SoftmaxObjective(
            build_problem(Rows(shards), penalty, fit_intercept=fit_intercept)
        )
        self.plain = Plain(X, targets, weights, penalty, self.n_logits, smoothing)
        self.fit_intercept = fit_intercept

    def random_point(self, rng, scale=1.0):
        return rng.normal(0.0, scale, self.objective.problem.n_params)

    def minimum(self):
        result = minimise(self.objective, self.objective.problem.null_point, tol=0.0, max_iter=300)
        return result.point, result.evaluation.value


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["intercept", "no intercept"])
def fit_intercept(request):
    return request.param


class TestValueAndGradient:
    @pytest.mark.parametrize("n_shards", [1, 3])
    @pytest.mark.parametrize("backend", ["auto", "numpy"])
    def test_formula(self, rng, real, kind, fit_intercept, n_shards, backend):
        case = Case(
            rng, kind, fit_intercept=fit_intercept, real=real, n_shards=n_shards, backend=backend
        )
        at = case.objective.evaluate(case.random_point(rng))
        eps = float(np.finfo(real).eps)
        assert at.loss == pytest.approx(case.plain.loss(at.weights, at.bias), rel=100 * eps)
        assert at.value == pytest.approx(case.plain.value(at.weights, at.bias), rel=100 * eps)
        hits = case.plain.logits(at.weights, at.bias).argmax(1) == case.plain.targets.argmax(1)
        assert at.accuracy == pytest.approx(case.plain.mean(hits), rel=100 * eps)
        if not fit_intercept:
            assert not at.bias.any()

    def test_gradient_by_five_points(self, rng, kind, fit_intercept):
        case = Case(rng, kind, fit_intercept=fit_intercept)
        point = case.random_point(rng)
        h = 1e-3
        numeric = np.empty_like(point)
        for i, unit in enumerate(np.eye(len(point))):
            low2, low1, high1, high2 = (
                case.objective.evaluate(point + step * h * unit).value for step in (-2, -1, 1, 2)
            )
            numeric[i] = (low2 - 8.0 * low1 + 8.0 * high1 - high2) / (12.0 * h)
        gradient = case.objective.evaluate(point).gradient
        np.testing.assert_allclose(gradient, numeric, rtol=1e-8, atol=1e-10)

    def test_gradient_in_the_users_coordinates(self, rng, kind):
        case = Case(rng, kind)
        at = case.objective.evaluate(case.random_point(rng))
        h = 1e-3
        for grad, name in ((data_grad(case, at), "W"), (at.bias_grad, "b")):
            flat = np.empty(grad.size)
            for i, unit in enumerate(np.eye(grad.size)):
                move = h * unit.reshape(grad.shape)
                values = [
                    case.plain.loss(at.weights + step * move, at.bias)
                    if name == "W"
                    else case.plain.loss(at.weights, at.bias + step * move)
                    for step in (-2, -1, 1, 2)
                ]
                flat[i] = np.dot([1.0, -8.0, 8.0, -1.0], values) / (12.0 * h)
            np.testing.assert_allclose(grad.ravel(), flat, rtol=1e-8, atol=1e-10)

    def test_what_all_classes_have_in_common_has_no_gradient(self, rng, real):
        """A step of all classes changes no probability; rounding must not tell otherwise."""
        case = Case(rng, "soft", real=real)
        at = case.objective.evaluate(case.random_point(rng))
        V = case.objective.problem.coordinates.matrix_of(at.gradient) - (
            case.objective.problem.l2 * at.weights.astype(np.float64)
        )
        rounding = 4.0 * np.finfo(np.float64).eps
        assert abs(at.bias_grad.sum()) <= rounding * np.abs(at.bias_grad).sum()
        assert (np.abs(V.sum(axis=0)) <= 4.0 * rounding * np.abs(V).sum(axis=0)).all()

    def test_float32_is_evaluated_at_rounded_coefficients(self, rng):
        case = Case(rng, "labels", real=np.float32)
        at = case.objective.evaluate(case.random_point(rng))
        assert (at.weights.dtype, at.bias.dtype) == (np.float32, np.float64)
        for coefficients in (at.weights, at.bias):
            np.testing.assert_array_equal(coefficients, coefficients.astype(np.float32))

    def test_shards_add_up(self, rng, kind):
        seed = rng.integers(1 << 30)
        whole, parts = (Case(np.random.default_rng(seed), kind, n_shards=n) for n in (1, 4))
        point = whole.random_point(rng)
        a, b = whole.objective.evaluate(point), parts.objective.evaluate(point)
        assert a.value == pytest.approx(b.value, rel=1e-14)
        np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(
            whole.objective.problem.coordinates.center,
            parts.objective.problem.coordinates.center,
            atol=1e-14,
        )


class TestHessian:
    @staticmethod
    def numeric(objective, point, h=1e-3):
        columns = []
        for unit in np.eye(len(point)):
            low2, low1, high1, high2 = (
                objective.evaluate(point + step * h * unit).gradient for step in (-2, -1, 1, 2)
            )
            columns.append((low2 - 8.0 * low1 + 8.0 * high1 - high2) / (12.0 * h))
        return np.array(columns)

    @pytest.mark.parametrize("n_shards", [1, 3])
    def test_by_five_points(self, rng, kind, fit_intercept, n_shards):
        """But for the curvature that is lent to the intercepts' common direction."""
        case = Case(rng, kind, fit_intercept=fit_intercept, n_shards=n_shards)
        point = case.random_point(rng)
        expected = self.numeric(case.objective, point)
        if case.n_logits > 1 and fit_intercept:
            expected[-case.n_logits :, -case.n_logits :] += 1.0 / case.n_logits
        hessian = case.objective.hessian(case.objective.evaluate(point))
        np.testing.assert_allclose(hessian, expected, rtol=1e-7, atol=1e-9)
        assert np.linalg.eigvalsh(hessian).min() > 0.0

    def test_without_a_penalty_it_is_regular_too(self, rng, kind):
        case = Case(rng, kind)
        objective = SoftmaxObjective(build_problem(Rows(case.shards), 0.0, fit_intercept=True))
        point = case.random_point(rng)
        at = objective.evaluate(point)
        hessian = objective.hessian(at)
        assert np.linalg.eigvalsh(hessian).min() > 0.0
        if case.n_logits == 1:
            np.testing.assert_allclose(hessian, self.numeric(objective, point), atol=1e-9)
        else:  # directions of which softmax does not see anything get no step
            step = np.linalg.solve(hessian, at.gradient)
            weights, bias = step[:-4].reshape(4, -1), step[-4:]
            np.testing.assert_allclose(weights.sum(axis=0), 0.0, atol=1e-10)
            np.testing.assert_allclose(bias.sum(), 0.0, atol=1e-10)


class TestPoints:
    def test_coordinates_go_there_and_back(self, rng, kind, fit_intercept):
        case = Case(rng, kind, fit_intercept=fit_intercept)
        point = case.random_point(rng)
        weights, bias = case.objective.problem.coordinates.coefficients_of(point)
        assert weights.shape == (case.n_logits, 3)
        assert bias.shape == (case.n_logits,)
        np.testing.assert_allclose(
            case.objective.problem.coordinates.point_of(weights, bias), point, rtol=1e-12
        )

    def test_the_null_point_is_the_best_intercept(self, rng, kind):
        case = Case(rng, kind)
        at = case.objective.evaluate(case.objective.problem.null_point)
        assert not at.weights.any()
        np.testing.assert_allclose(at.bias_grad, 0.0, atol=1e-14)
        share = case.plain.weights @ case.plain.targets
        share /= share.sum()
        assert at.value == pytest.approx(-float(share @ np.log(share)), rel=1e-13)

    def test_the_null_point_without_intercept(self, rng, kind):
        case = Case(rng, kind, fit_intercept=False)
        at = case.objective.evaluate(case.objective.problem.null_point)
        assert at.value == pytest.approx(np.log(case.n_classes), rel=1e-13)


class TestCertificate:
    # from a stone's throw to rounding distance of the minimum, and far away
    DISTANCES = (1e-7, 1e-5, 1e-3, 0.1, 1.0, 10.0)

    @pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
    def test_never_below_the_true_gap(self, rng, kind, fit_intercept, C):
        case = Case(rng, kind, fit_intercept=fit_intercept, C=C)
        best, minimum = case.minimum()
        noise = 1e-14 * (1.0 + minimum)
        for distance in self.DISTANCES:
            for _ in range(8):
                at = case.objective.evaluate(best + case.random_point(rng, distance))
                assert case.objective.gap_bound(at) >= at.value - minimum - noise

    @pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
    def test_valid_where_only_the_intercept_is_off(self, rng, kind, C):
        case = Case(rng, kind, C=C)
        best, minimum = case.minimum()
        for distance in self.DISTANCES:
            for sign in (-1.0, 1.0):
                point = best.copy()
                point[-case.n_logits] += sign * distance  # of one class
                at = case.objective.evaluate(point)
                assert case.objective.gap_bound(at) >= at.value - minimum - 1e-14 * (1.0 + minimum)

    def test_shrinks_to_nothing_at_the_minimum(self, rng, kind, fit_intercept):
        case = Case(rng, kind, fit_intercept=fit_intercept)
        best, minimum = case.minimum()
        assert case.objective.gap_bound(case.objective.evaluate(best)) <= 1e-13 * minimum
        bounds = [
            case.objective.gap_bound(case.objective.evaluate(best + 10.0**-k)) for k in range(2, 7)
        ]
        assert (np.diff(bounds) < 0.0).all()

    def test_without_intercept_it_is_the_duality_gap(self, rng, kind):
        case = Case(rng, kind, fit_intercept=False)
        at = case.objective.evaluate(case.random_point(rng))
        bound = case.objective.gap_bound(at)
        grad_weights = data_grad(case, at) + case.objective.problem.l2 * at.weights
        by_gradient = float((grad_weights**2).sum()) / (2.0 * case.objective.problem.l2)
        by_duality = at.value - case.plain.dual(at.weights, at.bias)
        assert bound == pytest.approx(by_gradient, rel=1e-12)
        assert bound == pytest.approx(by_duality, rel=1e-11)

    def test_what_is_stored_for_an_intercept_counts_without_one(self, rng, kind):
        """Features are shifted, and b = -W mean is rounded: <b, g> is in the duality gap."""
        case = Case(rng, kind, fit_intercept=False)
        W, _ = case.objective.by.coefficients(case.random_point(rng))
        for size in (0.0, 1e-3, 0.1, 1.0):
            b = rng.normal(0.0, size, case.n_logits)
            at = case.objective.by.evaluate_coefficients(W, b)
            by_duality = at.value - case.plain.dual(at.weights, at.bias)
            assert case.objective.gap_bound(at) == pytest.approx(max(by_duality, 0.0), rel=1e-9)

    @pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
    def test_where_the_intercept_is_off_it_is_that_of_a_mixture(self, rng, kind, C):
        case = Case(rng, kind, C=C)
        best, _ = case.minimum()
        for distance in (1e-3, 0.1, 1.0):
            at = case.objective.evaluate(best + case.random_point(rng, distance))
            by_duality = at.value - case.plain.dual_of_mixture(at.weights, at.bias)
            assert case.objective.gap_bound(at) == pytest.approx(by_duality, rel=1e-7)

    def test_with_the_best_intercept_it_is_the_duality_gap(self, rng, kind):
        case = Case(rng, kind)
        point = case.random_point(rng)
        at = case.objective.evaluate(with_best_intercept(case, point))
        np.testing.assert_allclose(at.bias_grad, 0.0, atol=1e-14)
        grad_weights = data_grad(case, at) + case.objective.problem.l2 * at.weights
        by_gradient = float((grad_weights**2).sum()) / (2.0 * case.objective.problem.l2)
        bound = case.objective.gap_bound(at)
        assert bound == pytest.approx(by_gradient, rel=1e-8)
        assert bound == pytest.approx(at.value - case.plain.dual(at.weights, at.bias), rel=1e-8)

    def test_float32(self, rng, kind, fit_intercept):
        case = Case(rng, kind, fit_intercept=fit_intercept, real=np.float32)
        exact = SoftmaxObjective(
            build_problem(
                Rows([in_float64(shard) for shard in case.shards]),
                case.objective.problem.l2,
                fit_intercept=fit_intercept,
            )
        )
        best = minimise(exact, exact.problem.null_point, tol=0.0, max_iter=300)
        minimum = best.evaluation.value
        noise = 20.0 * float(np.finfo(np.float32).eps) * (1.0 + minimum)
        for distance in (1e-3, 0.1, 1.0):
            at = case.objective.evaluate(best.point + case.random_point(rng, distance))
            assert case.objective.gap_bound(at) >= at.value - minimum - noise

    def test_no_penalty_no_certificate(self, rng, kind):
        case = Case(rng, kind)
        objective = SoftmaxObjective(build_problem(Rows(case.shards), 0.0, fit_intercept=True))
        assert objective.gap_bound(objective.evaluate(case.random_point(rng))) == np.inf


def with_best_intercept(case, point):
    """The point with the intercept that fits its weights best, by Newton's method."""
    n, point = case.n_logits, point.copy()
    for _ in range(60):
        at = case.objective.evaluate(point)
        logits = case.plain.logits(at.weights, at.bias)
        probs = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))[:, -n:]
        weighted = case.plain.weights[:, np.newaxis] * probs / case.plain.weights.sum()
        hessian = np.diag(weighted.sum(0)) - weighted.T @ probs
        step, *_ = np.linalg.lstsq(hessian, at.bias_grad, rcond=1e-12)
        point[-n:] -= step / max(1.0, np.abs(step).max())
    return point


def in_float64(shard):
    targets = shard.targets_as(np.dtype(np.float64))
    return build_shard(
        shard.X.astype(np.float64),
        targets.labels,
        targets.target_probs,
        targets.row_weights,
        targets.n_classes,
        label_smoothing=targets.label_smoothing,
        backend=shard.backend,
    )
