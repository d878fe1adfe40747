"""Steps of stochastic gradient descent against the numpy twin in float64."""

import numpy as np
import pytest

from fastsoftmax import reference
from fastsoftmax.kernel_arguments import Descent

# (n, d, n_classes, batch_size): one row; around vectors; a short last batch, and none; around
# blocks of rows; more than there are rows.
SIZES = [
    (1, 1, 2, 1),
    (3, 0, 3, 2),
    (7, 3, 1, 3),
    (40, 5, 3, 1),
    (50, 7, 4, 15),
    (50, 8, 5, 16),
    (50, 9, 6, 17),
    (60, 33, 13, 20),
    (47, 16, 7, 1000),
    (400, 6, 3, 127),
    (400, 6, 3, 128),
    (400, 6, 3, 129),
]
# Batches cut in parts, each with a gradient of its own; many features; many classes.
LARGE_SIZES = [(300, 784, 10, 256), (40, 5003, 2, 33), (60, 200, 101, 40)]


def plain_steps(problem, order, batch_size, learning_rate, momentum, weight_decay, fit_bias):
    """Parameters, velocity, loss and hits by the formulas as they stand, in one number type."""
    real = problem.weights.dtype.type
    X, n_classes = problem.X.astype(real), problem.n_classes
    batch_size = min(batch_size, len(X))
    weights, bias = problem.weights.copy(), problem.bias.copy()
    speeds = [np.zeros_like(weights), np.zeros_like(bias)]
    loss = hits = 0.0
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        logits = X[batch] @ weights.T + bias
        if len(weights) < n_classes:
            logits = np.column_stack([np.zeros_like(logits), logits])
        z = logits - logits.max(axis=1, keepdims=True)
        totals = np.exp(z).sum(axis=1, keepdims=True)
        if problem.target_probs is None:
            target = np.zeros_like(z)
            target[np.arange(len(batch)), problem.labels[batch]] = 1
        else:
            target = problem.target_probs[batch]
        row_weights = problem.row_weights[batch, np.newaxis]
        hits += row_weights[z.argmax(axis=1) == target.argmax(axis=1)].sum()
        target = target * real(1 - problem.label_smoothing)
        target += real(problem.label_smoothing / n_classes)
        loss += (row_weights * target * (np.log(totals) - z)).sum()
        residual = row_weights * (np.exp(z) / totals - target)
        residual = residual[:, n_classes - len(weights) :]
        decay = real(weight_decay * len(batch) / batch_size)
        grads = residual.T @ X[batch] / real(batch_size) + decay * weights, residual.sum(axis=0)
        for values, speed, grad in zip(
            (weights, bias), speeds, (grads[0], grads[1] / real(batch_size)), strict=True
        ):
            if values is weights or fit_bias:
                speed[...] = real(momentum) * speed + grad
                values -= real(learning_rate) * speed
    return np.append(weights, bias), np.append(*speeds), loss, hits


@pytest.fixture
def check(kernels, isa, guarded, real, rng):
    """A function that holds the steps over a problem's rows in some order to the twin.

    The errors of parameters and velocity, in units of the last place of the largest of them, are at
    most those of the formulas in the same number type, a few, and one for each step.
    """

    def of(problem, batch_size, momentum=0.0, weight_decay=0.0, fit_bias=True, *, order=None):
        if order is None:
            order = rng.permutation(len(problem.X))
        size = float(np.square(problem.X.astype(np.float64)).sum(axis=1).mean()) + 1
        how = batch_size, 1 / size, momentum, weight_decay, fit_bias
        exact = problem.exact.params
        exact_speed = np.zeros_like(exact) if momentum else None
        sums = reference.sgd_steps(
            exact, exact_speed, *problem.exact.rows(reference), order, Descent(*how)
        )
        params, velocity = guarded(exact.size), guarded(exact.size) if momentum else None
        params.array[...] = problem.params
        if velocity:
            velocity.array[...] = 0
        given = [a for a in (*problem, order) if isinstance(a, np.ndarray)]
        before = [a.tobytes() for a in given]
        given_rows = problem.rows(kernels)
        actual = kernels.sgd_steps(
            params.array, velocity and velocity.array, *given_rows, order, Descent(*how), isa=isa
        )
        assert [a.tobytes() for a in given] == before
        plain = plain_steps(problem, order, *how)
        pairs = [(params.checked(), plain[0], exact)]
        if velocity:
            pairs.append((velocity.checked(), plain[1], exact_speed))
        eps = float(np.finfo(real).eps)
        for ours, theirs, expected in pairs:
            unit = eps * max(np.max(np.abs(expected), initial=0), np.abs(problem.params).max())
            mine, naive = (np.max(np.abs(a - expected)) / unit for a in (ours, theirs))
            # numpy adds long products in pairs of pairs, the kernels in lanes: sqrt(d), not log(d)
            limit = naive + 4 + len(order) / batch_size + np.sqrt(problem.X.shape[1]) / 16
            assert mine <= limit, (problem.X.shape, batch_size)
        assert actual[0] == pytest.approx(sums[0], rel=100 * eps, abs=100 * eps)
        assert actual[1] == pytest.approx(sums[1], rel=1e-12)

    return of


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_sizes(momentum, weight_decay, check, make_problem, storage):
    for n, d, n_classes, batch_size in SIZES:
        problem = make_problem(n, d, n_classes, storage=storage)
        check(problem, batch_size, momentum, weight_decay)


def test_large_sizes(check, make_problem, storage):
    for n, d, n_classes, batch_size in LARGE_SIZES:
        check(make_problem(n, d, n_classes, storage=storage), batch_size, 0.9, 0.01)


def test_kinds_of_targets(check, make_problem, storage, case):
    problem = make_problem(61, 9, **case, storage=storage)
    for momentum, weight_decay, fit_bias in (
        (0.0, 0.0, True),
        (0.9, 0.0, True),
        (0.0, 0.1, False),
        (0.5, 0.1, False),
    ):
        check(problem, 16, momentum, weight_decay, fit_bias)


def test_orders(check, make_problem, rng):
    """Some of the rows, the same rows again and again, more than one epoch, one row, none."""
    problem = make_problem(40, 9, 5)
    for order in (
        np.arange(39, -1, -3),
        np.full(70, 17),
        rng.integers(40, size=130),
        np.array([0]),
        np.array([39]),
    ):
        check(problem, 16, 0.5, 0.1, order=order.astype(np.int64))


def run(kernels, problem, params, order, how, velocity=None, **options):
    order = np.asarray(order, dtype=np.int64)
    return kernels.sgd_steps(
        params, velocity, *problem.rows(kernels), order, Descent(*how), **options
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_scaled_features(kernels, isa, make_problem, case, real, rng, momentum, centered):
    """Steps of the coefficients that scaled and shifted features have."""
    problem = make_problem(70, 19, **case)
    squared_scale = rng.uniform(0.5, 2.0, 19)
    center = rng.normal(size=19) if centered else None
    order = rng.permutation(70).astype(np.int64)
    found = []
    for module, rows, kind in ((reference, problem.exact, np.float64), (kernels, problem, real)):
        params = rows.params.astype(kind)
        velocity = np.zeros_like(params) if momentum else None
        parts = [None if part is None else part.astype(kind) for part in (squared_scale, center)]
        how = Descent(16, 0.05, momentum, 0.01, True, *parts)
        options = {"isa": isa} if module is kernels else {}
        module.sgd_steps(params, velocity, *rows.rows(module), order, how, **options)
        found.append(params if velocity is None else np.concatenate([params, velocity]))
    expected, ours = found
    limit = 300 * float(np.finfo(real).eps) * max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=limit)


def test_nothing_happens_without_rows(kernels, isa, make_problem):
    for problem in (make_problem(5, 3, 4), make_problem(0, 3, 4)):
        params = problem.params
        assert run(kernels, problem, params, [], (8, 0.1, 0.0, 0.1, True), isa=isa) == (0.0, 0.0)
        np.testing.assert_array_equal(params, problem.params)


def test_one_step_is_that_of_loss_grad(kernels, isa, make_problem, case, real):
    """A batch's gradient is a sum over its rows, divided by batch_size or the rows of X."""
    problem = make_problem(30, 7, **case)
    rtol = 1e-13 if real is np.float64 else 2e-5
    for batch_size, order, divisor in (
        (10, np.arange(10), 10),
        (10, np.arange(4), 10),  # a short batch takes a shorter step
        (1000, np.arange(30), 30),
        (1000, np.arange(12, 18), 30),
        (30, np.arange(29), 30),
    ):
        out = np.empty(problem.weights.shape), np.empty(problem.bias.shape)
        sums = kernels.loss_grad(*out, *problem.at(order).whole(kernels), isa=isa)
        decay = np.append(0.2 * problem.weights, 0 * problem.bias) * len(order) / divisor
        step = np.append(*out) / divisor + decay
        params = problem.params
        actual = run(kernels, problem, params, order, (batch_size, 0.5, 0.0, 0.2, True), isa=isa)
        assert actual == pytest.approx(sums, rel=rtol)
        expected = problem.params - 0.5 * step
        np.testing.assert_allclose(params, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def test_a_short_last_batch_moves_as_much_for_each_row(kernels, isa, make_problem, real):
    """Where the gradient hardly changes, one batch and parts of it lead to the same place."""
    problem = make_problem(25, 7, 4)
    problem.row_weights[:] = 1
    out = np.empty(problem.weights.shape), np.empty(problem.bias.shape)
    kernels.loss_grad(*out, *problem.whole(kernels), isa=isa)
    rate = 1e-4 if real is np.float64 else 1e-2
    params = problem.params
    run(kernels, problem, params, np.arange(25), (10, rate, 0.0, 0.0, True), isa=isa)
    moved = (problem.params.astype(np.float64) - params) / rate
    np.testing.assert_allclose(moved, np.append(*out) / 10, atol=200 * rate * np.abs(moved).max())


def test_sums_are_those_before_each_step(kernels, isa, make_problem, real):
    problem = make_problem(33, 5, 3)
    params, losses, hits = problem.params, 0.0, 0.0
    for start in (0, 10, 20, 30):
        rows = problem.at(np.s_[start : start + 10])
        weights, bias = params[:15].reshape(3, 5), params[15:]
        now = rows._replace(weights=weights, bias=bias)
        loss, correct = kernels.loss_grad(None, None, *now.whole(kernels), isa=isa)
        losses, hits = losses + loss, hits + correct
        order = np.arange(start, min(33, start + 10))
        run(kernels, problem, params, order, (10, 0.1, 0.0, 0.0, True), isa=isa)
    again = problem.params
    sums = run(kernels, problem, again, np.arange(33), (10, 0.1, 0.0, 0.0, True), isa=isa)
    np.testing.assert_array_equal(params, again)  # bit by bit: a call ends where the next begins
    assert sums == pytest.approx((losses, hits), rel=1e-6 if real is np.float32 else 1e-14)


def test_bias_is_left_alone(kernels, isa, make_problem, case):
    problem = make_problem(20, 7, **case)
    params, velocity = problem.params, np.zeros_like(problem.params)
    how = 8, 0.1, 0.9, 0.1, False
    run(kernels, problem, params, np.arange(20), how, velocity, isa=isa)
    n_bias = len(problem.bias)
    np.testing.assert_array_equal(params[-n_bias:], problem.bias)
    assert not velocity[-n_bias:].any()
    if problem.n_classes > 1:
        assert (params[:-n_bias] != problem.weights.ravel()).all()


def test_velocity_without_momentum_is_the_last_gradient(kernels, isa, make_problem):
    problem = make_problem(20, 7, 3)
    velocity = np.full_like(problem.params, 5)
    params, plain = problem.params, problem.params
    run(kernels, problem, params, np.arange(20), (8, 0.1, 0.0, 0.1, True), velocity, isa=isa)
    run(kernels, problem, plain, np.arange(20), (8, 0.1, 0.0, 0.1, True), isa=isa)
    np.testing.assert_array_equal(params, plain)
    assert (velocity != 5).all()
