"""The numpy twin against plain code in extended precision: it is what the kernels are held to."""

import inspect
import warnings

import numpy as np
import pytest

from fastsoftmax import reference
from fastsoftmax.kernel_arguments import Descent
from fastsoftmax.reference import _rows

INF, NAN = np.inf, np.nan
LONG_IS_LONGER = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps / 100


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def real(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(params=[1, 50, None], ids=["blocks of 1", "blocks of 50", "one block"])
def block_numbers(request, monkeypatch):
    """Cut the same small arrays into more or fewer blocks of rows."""
    if request.param:
        monkeypatch.setattr(_rows, "_BLOCK_NUMBERS", request.param)
        monkeypatch.setattr(reference, "MIN_GRAD_ROWS", 1)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def problem(rng, real, n=53, n_features=6, n_classes=4, *, soft=False, binary=False):
    """(X, labels, target_probs, row_weights, weights, bias) as the bridge takes them."""
    n_logits = 1 if binary else n_classes
    return (
        rng.normal(size=(n, n_features)).astype(real),
        None if soft else rng.integers(n_classes, size=n).astype(np.int32),
        rng.dirichlet(np.ones(n_classes), n).astype(real) if soft else None,
        rng.integers(0, 3, n).astype(real),
        rng.normal(size=(n_logits, n_features)).astype(real),
        rng.normal(size=n_logits).astype(real),
    )


def plain_sums(X, labels, probs, row_weights, smoothing, weights, bias, n_classes):
    """Loss, hits and gradients, straight from the formulas, in extended precision."""
    X, row_weights, weights, bias = (
        np.asarray(a, dtype=np.longdouble) for a in (X, row_weights, weights, bias)
    )
    logits = X @ weights.T + bias
    if len(weights) < n_classes:
        logits = np.hstack([np.zeros_like(logits), logits])
    exps = np.exp(logits)
    p = exps / exps.sum(axis=1, keepdims=True)
    target = np.eye(n_classes)[labels] if probs is None else probs.astype(np.longdouble)
    hits = p.argmax(axis=1) == target.argmax(axis=1)
    target = (1 - smoothing) * target + smoothing / n_classes
    loss = -(row_weights[:, np.newaxis] * target * np.log(p)).sum()
    residual = (row_weights[:, np.newaxis] * (p - target))[:, n_classes - len(weights) :]
    return loss, row_weights[hits].sum(), residual.T @ X, residual.sum(axis=0)


def close(actual, expected, real, factor=50.0):
    expected = np.asarray(expected, dtype=np.float64)
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=factor * scale * np.finfo(real).eps)


CASES = [
    # n_classes, soft targets, one logit for two classes, label smoothing
    (1, False, False, 0.0),
    (2, False, False, 0.0),
    (2, False, True, 0.0),
    (2, True, True, 0.2),
    (4, False, False, 0.0),
    (4, False, False, 0.1),
    (4, True, False, 0.0),
    (31, True, False, 1.0),
]


# ---- values and rows


def test_exp_and_log_values_round_once(real, rng):
    x = np.concatenate([rng.uniform(-700, 700, 2000), [-INF, INF, NAN, 0.0, -0.0, 800, -800]])
    out = np.empty(len(x), dtype=real)
    reference.exp_values(out, x.astype(real))
    exact = np.exp(x.astype(real).astype(np.longdouble))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(out, exact.astype(real), rtol=1.01 * np.finfo(real).eps)
        y = np.abs(exact).astype(real)
        y[:3] = -1.0, -0.0, INF
        expected = np.log(y.astype(np.longdouble)).astype(real)
    reference.log_values(y, y)
    np.testing.assert_allclose(y, expected, rtol=1.01 * np.finfo(real).eps)


@pytest.mark.usefixtures("block_numbers")
def test_rows(real, rng):
    wide = rng.normal(0, 5, (40, 20)).astype(real)
    for logits in (wide[:, :17], wide[::-2, 3:], wide[:0], wide[:, :1]):
        z = logits.astype(np.longdouble)
        lse = np.log(np.exp(z).sum(axis=1, keepdims=True))
        before = wide.copy()
        out = np.full((len(logits), z.shape[1] + 2), 7, dtype=real)
        reference.softmax_rows(out[:, 1:-1], logits)
        close(out[:, 1:-1], np.exp(z - lse), real, 4)
        reference.log_softmax_rows(out[:, 1:-1], logits)
        close(out[:, 1:-1], z - lse, real, 4)
        sums = np.empty(len(logits), dtype=real)
        reference.logsumexp_rows(sums, logits)
        close(sums, lse[:, 0], real, 4)
        assert (out[:, [0, -1]] == 7).all()
        np.testing.assert_array_equal(wide, before)


@pytest.mark.usefixtures("block_numbers")
@pytest.mark.parametrize("operation", [reference.softmax_rows, reference.log_softmax_rows])
def test_rows_in_place(operation, real, rng):
    logits = rng.normal(0, 5, (40, 17)).astype(real)
    expected = np.empty_like(logits)
    operation(expected, logits)
    operation(logits, logits)
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.skipif(not LONG_IS_LONGER, reason="long double is no more precise than double here")
def test_remainder_of_the_shift_is_carried(rng):
    """Without it, exp of the rounded difference is off by up to |x - max| / 2 ulp."""
    logits = rng.uniform(-700, 0, (100, 30))
    logits[:, 0] = rng.uniform(0.1, 0.9, 100)
    z = logits.astype(np.longdouble)
    exps = np.exp(z - z.max(axis=1, keepdims=True))
    exact = exps / exps.sum(axis=1, keepdims=True)
    probs = np.empty_like(logits)
    reference.softmax_rows(probs, logits)
    assert np.max(np.abs(probs - exact) / np.spacing(exact.astype(float))) <= 4


@pytest.mark.usefixtures("block_numbers")
@pytest.mark.parametrize(("n_classes", "soft", "binary", "smoothing"), CASES)
def test_cross_entropy_rows(n_classes, soft, binary, smoothing, real, rng):
    logits = rng.normal(0, 3, (33, n_classes)).astype(real)
    _, labels, probs, row_weights, _, _ = problem(rng, real, 33, 2, n_classes, soft=soft)
    z = logits.astype(np.longdouble)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    target = np.eye(n_classes)[labels] if probs is None else probs.astype(float)
    target = (1 - smoothing) * target + smoothing / n_classes
    loss, grad = np.empty(33, dtype=real), np.empty_like(logits)
    targets = reference.Targets(labels, probs, row_weights, smoothing, n_classes)
    reference.cross_entropy_rows(loss, grad, logits, targets)
    close(loss, -row_weights * (target * log_p).sum(axis=1), real)
    close(grad, row_weights[:, np.newaxis] * (np.exp(log_p) - target), real)
    alone = np.empty_like(loss)
    reference.cross_entropy_rows(alone, None, logits, targets)
    np.testing.assert_array_equal(alone, loss)
    expected = grad.copy()
    reference.cross_entropy_rows(loss, logits, logits, targets)
    np.testing.assert_array_equal(logits, expected)  # grad may be logits


def test_gradient_near_zero_keeps_its_relative_accuracy(real):
    """p - 1 of the likeliest class would round to 0."""
    logits = np.array([[50.0, 0.0]], dtype=real)
    loss, grad = np.empty(1, dtype=real), np.empty_like(logits)
    label = np.zeros(1, dtype=np.int32)
    targets = reference.Targets(label, None, np.ones(1, real), 0.0, 2)
    reference.cross_entropy_rows(loss, grad, logits, targets)
    tiny = np.exp(-50.0)
    rtol = 2 * np.finfo(real).eps
    np.testing.assert_allclose(grad, [[-tiny, tiny]], rtol=rtol)
    np.testing.assert_allclose(loss, [tiny], rtol=rtol)


def test_targets_are_checked(real):
    ones = np.ones(2, real)
    probs = np.full((2, 4), 0.25, real)
    for labels, target_probs, match in [
        ([0, 4], None, r"\[0, 4\), got values from 0 to 4"),
        ([-1, 0], None, "from -1 to 0"),
        ([0, 1], probs, "exactly one"),
        (None, None, "exactly one"),
    ]:
        y = None if labels is None else np.array(labels, dtype=np.int32)
        with pytest.raises(ValueError, match=match):
            reference.Targets(y, target_probs, ones, 0.0, 4)


# ---- affine models


def test_affine_rows(real, rng):
    X, _, _, _, weights, bias = problem(rng, real)
    padded = np.full((len(X), 6), 7, dtype=real)
    reference.affine_rows(padded[:, 1:5], X, weights, bias)
    close(padded[:, 1:5], X.astype(float) @ weights.T.astype(float) + bias, real)
    assert (padded[:, [0, 5]] == 7).all()
    empty = np.empty((len(X), 4), dtype=real)
    reference.affine_rows(empty, X[:, :0], weights[:, :0], bias)
    np.testing.assert_array_equal(empty, np.tile(bias, (len(X), 1)))


@pytest.mark.usefixtures("block_numbers")
@pytest.mark.parametrize(("n_classes", "soft", "binary", "smoothing"), CASES)
def test_loss_grad(n_classes, soft, binary, smoothing, real, rng):
    X, labels, probs, row_weights, weights, bias = problem(
        rng, real, n_classes=n_classes, soft=soft, binary=binary
    )
    loss, correct, grad_weights, grad_bias = plain_sums(
        X, labels, probs, row_weights, smoothing, weights, bias, n_classes
    )
    targets = reference.Targets(labels, probs, row_weights, smoothing, n_classes)
    given = X, targets, weights, bias
    out = np.full(weights.shape, NAN), np.full(bias.shape, NAN)
    actual = reference.loss_grad(*out, *given)
    close(actual[0], loss, real)
    assert actual[1] == correct
    assert type(actual[0]) is type(actual[1]) is float
    close(out[0], grad_weights, real)
    close(out[1], grad_bias, real)
    assert reference.loss_grad(None, None, *given) == actual


def test_loss_grad_of_no_rows_or_features(real, rng):
    X, labels, probs, row_weights, weights, bias = problem(rng, real)
    out = np.full(weights.shape, NAN), np.full(bias.shape, NAN)
    targets = reference.Targets(labels, probs, row_weights, 0.0, 4)
    given = (X[:0], targets[:0], weights, bias)
    assert reference.loss_grad(*out, *given) == (0.0, 0.0)
    assert not out[0].any() and not out[1].any()
    loss, _ = reference.loss_grad(out[0][:, :0], out[1], X[:, :0], targets, weights[:, :0], bias)
    expected = plain_sums(X[:, :0], labels, probs, row_weights, 0.0, weights[:, :0], bias, 4)
    close(loss, expected[0], real)
    close(out[1], expected[3], real)


def test_two_classes_with_one_logit_or_two(real, rng):
    X, labels, _, row_weights, weights, bias = problem(rng, real, n_classes=2, binary=True)
    one = np.empty(weights.shape), np.empty(bias.shape)
    targets = reference.Targets(labels, None, row_weights, 0.0, 2)
    sums = reference.loss_grad(*one, X, targets, weights, bias)
    both = np.vstack([np.zeros_like(weights), weights]), np.append(np.zeros_like(bias), bias)
    two = np.empty(both[0].shape), np.empty(2)
    close(sums, reference.loss_grad(*two, X, targets, *both), real)
    close(two[0][1:], one[0], real)
    close(two[0][:1], -one[0], real)
    close(two[1], [-one[1][0], one[1][0]], real)


def test_first_of_equal_logits_counts(real):
    X, bias = np.zeros((3, 1), real), np.zeros(3, real)
    labels, ones = np.array([0, 1, 2], dtype=np.int32), np.array([1, 2, 4], dtype=real)
    model = np.zeros((3, 1), real), bias
    targets = reference.Targets(labels, None, ones, 0.0, 3)
    assert reference.loss_grad(None, None, X, targets, *model)[1] == 1.0
    ties = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [1, 0, 0]], dtype=real)
    targets = reference.Targets(None, ties, ones, 0.0, 3)
    assert reference.loss_grad(None, None, X, targets, *model)[1] == 5.0
    targets = reference.Targets(labels[:2], None, ones[:2], 0.0, 2)
    binary = np.zeros((1, 1), real), bias[:1]
    assert reference.loss_grad(None, None, X[:2], targets, *binary)[1] == 1.0


@pytest.mark.usefixtures("block_numbers")
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
@pytest.mark.parametrize("fit_bias", [True, False])
@pytest.mark.parametrize(("n_classes", "soft", "binary", "smoothing"), CASES)
def test_sgd_steps(n_classes, soft, binary, smoothing, fit_bias, momentum, weight_decay, real, rng):
    X, labels, probs, row_weights, weights, bias = problem(
        rng, real, n_classes=n_classes, soft=soft, binary=binary
    )
    n_weights, batch_size, learning_rate = weights.size, 8, 0.1
    order = rng.permutation(len(X))[:45].astype(np.int64)  # the last batch has 5 rows
    params = np.append(weights.ravel(), bias)
    velocity = np.zeros_like(params) if momentum else None
    expected, speed = params.astype(np.longdouble), np.zeros(params.size, dtype=np.longdouble)
    loss = correct = 0.0
    for start in range(0, len(order), batch_size):
        b = order[start : start + batch_size]
        w = expected[:n_weights].reshape(weights.shape)
        batch_loss, batch_correct, grad_weights, grad_bias = plain_sums(
            X[b],
            None if soft else labels[b],
            probs[b] if soft else None,
            row_weights[b],
            smoothing,
            w,
            expected[n_weights:],
            n_classes,
        )
        loss, correct = loss + batch_loss, correct + batch_correct
        decay = weight_decay * len(b) / batch_size  # a short last batch takes a shorter step
        step = np.append(grad_weights / batch_size + decay * w, fit_bias * grad_bias / batch_size)
        speed = momentum * speed + step
        expected = expected - learning_rate * speed
    targets = reference.Targets(labels, probs, row_weights, smoothing, n_classes)
    descent = Descent(batch_size, learning_rate, momentum, weight_decay, fit_bias)
    actual = reference.sgd_steps(params, velocity, X, targets, order, descent)
    close(params, expected, real)
    close(actual[0], loss, real)
    assert actual[1] == correct
    if velocity is not None:
        close(velocity, speed, real)
    if not fit_bias:
        np.testing.assert_array_equal(params[n_weights:], bias)


def test_sgd_carries_velocity_from_call_to_call(real, rng):
    X, labels, _, row_weights, weights, bias = problem(rng, real)
    order = np.arange(len(X))
    once = np.append(weights.ravel(), bias)
    twice, speeds = once.copy(), [np.zeros_like(once) for _ in range(2)]
    rest = X, reference.Targets(labels, None, row_weights, 0.0, 4)
    how = Descent(10, 0.1, 0.9, 0.0, True)
    reference.sgd_steps(once, speeds[0], *rest, order, how)
    for part in (order[:30], order[30:]):
        reference.sgd_steps(twice, speeds[1], *rest, part, how)
    np.testing.assert_array_equal(once, twice)
    assert reference.sgd_steps(once, speeds[0], *rest, order[:0], how) == (0.0, 0.0)
    np.testing.assert_array_equal(once, twice)


# ---- the bridge


def test_description():
    assert reference.available_isas() == ("numpy",)
    assert reference.openmp() is False
    assert reference.max_threads() == 1


def test_kernels_and_twin_have_the_same_arguments():
    kernels = pytest.importorskip("fastsoftmax.kernels")
    for name, function in inspect.getmembers(reference, inspect.isfunction):
        if name.startswith("_") or function.__module__ != reference.__name__:
            continue
        assert hasattr(kernels, name), name
        try:
            signature = inspect.signature(getattr(kernels, name))
        except ValueError:  # compiled without a signature
            continue
        assert list(signature.parameters) == list(inspect.signature(function).parameters), name


def test_a_target_of_0_costs_nothing_at_a_logit_of_minus_infinity():
    targets = reference.Targets(None, np.array([[0.0, 1.0, 0.0]]), np.ones(1), 0.0, 3)
    loss = np.empty(1)
    reference.cross_entropy_rows(loss, None, np.array([[-np.inf, 0.0, 0.0]]), targets)
    assert loss[0] == pytest.approx(np.log(2.0))
