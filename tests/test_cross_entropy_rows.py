"""Cross-entropy of given logits and its gradient against the numpy twin in float64."""

import numpy as np
import pytest

from fastsoftmax import reference

INF, NAN = np.inf, np.nan

# A vector of 2, 4, 8 or 16 numbers, less and more by 1, twice as many and 1; a prime; 8 vectors.
WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 37, 63, 64, 65, 127, 128, 129]

# A part of the rows has about 2^14 logits.
ROWS = [0, 1, 2, 2339, 2340, 2341, 4681]

TARGETS = [
    # soft targets, label smoothing
    (False, 0.0),
    (False, 0.1),
    (False, 1.0),
    (True, 0.0),
    (True, 0.3),
]


@pytest.fixture(params=TARGETS, ids=lambda p: f"{'soft' if p[0] else 'labels'}-{p[1]}")
def make_targets(request, rng, real):
    """A function of (n, n_classes): labels, target_probs, row_weights and label_smoothing."""
    soft, smoothing = request.param

    def make(n, n_classes):
        labels = rng.integers(n_classes, size=n).astype(np.int32)
        probs = rng.dirichlet(np.ones(n_classes), n).astype(real)
        if n_classes > 2:
            probs[::3, :2] = [1, 0]  # certain ones, and classes that are out of the question
            probs[::3, 2:] = 0
        weights = rng.choice([0.0, 0.5, 1.0, 3.0], n).astype(real)
        return (None, probs, weights, smoothing) if soft else (labels, None, weights, smoothing)

    return make


def wide(targets):
    labels, probs, weights, smoothing = targets
    probs = None if probs is None else probs.astype(np.float64)
    return labels, probs, weights.astype(np.float64), smoothing


def as_targets(module, targets, logits):
    """The targets of rows of logits as a backend takes them."""
    return module.Targets(*targets, logits.shape[1])


@pytest.fixture
def check(kernels, isa, guarded, ulps):
    """A function that holds loss and gradient of some logits to the twin.

    A loss is a sum of terms that are >= 0, so its error is relative to the loss. That of the
    gradient is relative to the gradient where a target is 1, and else to softmax and target, of
    which it is the difference.
    """

    def of(logits, targets):
        limit = 6 if logits.dtype == np.float32 else 10  # the twin's own float64 is off by 4
        labels, _, weights, smoothing = exact = wide(targets)
        expected, slope = np.empty(len(logits)), np.empty(logits.shape)
        reference.cross_entropy_rows(
            expected, slope, logits.astype(np.float64), as_targets(reference, exact, logits)
        )
        given = as_targets(kernels, targets, logits)
        loss, grad = guarded(len(logits)), guarded(logits.shape)
        before = logits.tobytes()
        kernels.cross_entropy_rows(loss.array, grad.array, logits, given, isa=isa)
        assert ulps(loss.checked(), expected) <= limit
        scale = np.abs(slope)
        if labels is None or smoothing:
            scale = scale + weights[:, np.newaxis] * 2 * target(exact, logits.shape[1])
        scale = np.where(np.isfinite(slope), scale, 0)
        assert ulps(grad.checked(), slope, scale) <= limit
        alone = guarded(len(logits))
        kernels.cross_entropy_rows(alone.array, None, logits, given, isa=isa)
        np.testing.assert_array_equal(alone.checked(), loss.array)
        assert logits.tobytes() == before
        inplace = guarded(logits.shape)
        inplace.array[...] = logits
        kernels.cross_entropy_rows(alone.array, inplace.array, inplace.array, given, isa=isa)
        np.testing.assert_array_equal(alone.checked(), loss.array)
        np.testing.assert_array_equal(inplace.checked(), grad.array)

    return of


def target(targets, n_classes):
    """The smoothed distributions that the rows are compared with."""
    labels, probs, _, smoothing = targets
    if probs is None:
        probs = np.zeros((len(labels), n_classes))
        np.put_along_axis(probs, labels[:, np.newaxis], 1, axis=1)
    return (1 - smoothing) * probs + smoothing / n_classes


@pytest.mark.parametrize("spread", [0.1, 5, 30])
def test_widths(spread, check, make_targets, real, rng):
    for n_classes in WIDTHS:
        check(rng.normal(0, spread, (23, n_classes)).astype(real), make_targets(23, n_classes))


def test_numbers_of_rows(check, make_targets, real, rng):
    for n in ROWS:
        check(rng.normal(0, 5, (n, 7)).astype(real), make_targets(n, 7))


def test_many_classes(check, make_targets, real, rng):
    n_classes = 100_003
    check(rng.normal(0, 5, (3, n_classes)).astype(real), make_targets(3, n_classes))


def test_wide_gaps(check, make_targets, real, rng):
    """exp of the logits overflows; ties; logits as large as they may be."""
    for n_classes in (2, 3, 16, 33, 129):
        targets = make_targets(40, n_classes)
        check(rng.uniform(-1e4, 1e4, (40, n_classes)).astype(real), targets)
        check(rng.integers(0, 2, (40, n_classes)).astype(real) * real(90), targets)
        check(np.full((40, n_classes), np.finfo(real).max / 2, dtype=real), targets)


def test_special_rows(check, make_targets, kernels, isa, real, rng):
    """NaN, inf and -inf in rows between ordinary ones, which they leave alone."""
    for n_classes in (1, 2, 3, 8, 17):
        places = [*range(min(n_classes, 17)), n_classes - 1]
        specials = [(k, value) for k in places for value in (NAN, INF, -INF)]
        n = 2 * len(specials) + 5
        plain = rng.normal(0, 5, (n, n_classes)).astype(real)
        logits = plain.copy()
        for i, (k, value) in enumerate(specials):
            logits[2 * i + 1, k] = value
        logits[-4], logits[-2] = -INF, INF
        labels, probs, weights, smoothing = make_targets(n, n_classes)
        weights[weights == 0] = 2  # 0 times NaN is another matter
        targets = labels, probs, weights, smoothing
        check(logits, targets)
        grads = []
        for rows in (plain, logits):
            loss, grad = np.empty(n, dtype=real), np.empty_like(rows)
            kernels.cross_entropy_rows(
                loss, grad, rows, as_targets(kernels, targets, rows), isa=isa
            )
            grads.append(np.column_stack([loss, grad])[::2])
        np.testing.assert_array_equal(*grads)


def test_near_zero(kernels, isa, real):
    """A loss of 1e-12 is not rounded to 0, and neither is its gradient at the likeliest class."""
    gaps = np.arange(1, 80, dtype=real)
    for n_classes in (2, 3, 16, 33):
        logits = np.zeros((len(gaps), n_classes), dtype=real)
        logits[:, -1] = gaps
        labels = np.full(len(gaps), n_classes - 1, dtype=np.int32)
        loss, grad = np.empty_like(gaps), np.empty_like(logits)
        ones = np.ones_like(gaps)
        targets = kernels.Targets(labels, None, ones, 0.0, n_classes)
        kernels.cross_entropy_rows(loss, grad, logits, targets, isa=isa)
        others = (n_classes - 1) * np.exp(-gaps.astype(np.float64))
        rtol = 6 * np.finfo(real).eps
        np.testing.assert_allclose(loss, np.log1p(others), rtol=rtol)
        np.testing.assert_allclose(grad[:, -1], -others / (1 + others), rtol=rtol)


@pytest.mark.parametrize("real", [np.float64], ids=["float64"])
def test_gradient_is_that_of_the_loss(kernels, isa, make_targets, real, rng):
    """Five-point differences of the loss itself."""
    for n_classes in (1, 2, 7, 17):
        logits = rng.normal(0, 3, (6, n_classes))
        targets = make_targets(6, n_classes)
        loss, grad = np.empty(6), np.empty_like(logits)
        kernels.cross_entropy_rows(
            loss, grad, logits, as_targets(kernels, targets, logits), isa=isa
        )
        step = 1e-3
        for k in range(n_classes):
            values = []
            for steps in (-2, -1, 1, 2):
                moved = logits.copy()
                moved[:, k] += steps * step
                given = as_targets(kernels, targets, moved)
                kernels.cross_entropy_rows(loss, None, moved, given, isa=isa)
                values.append(loss.copy())
            slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
            np.testing.assert_allclose(grad[:, k], slope, rtol=0, atol=1e-10)


def test_a_row_does_not_depend_on_the_others(kernels, isa, make_targets, real, rng):
    for n_classes in (1, 3, 16, 37):
        n = 1000
        logits = rng.normal(0, 20, (n, n_classes)).astype(real)
        targets = make_targets(n, n_classes)

        def run(rows, logits=logits, targets=targets):
            loss, grad = (
                np.empty(len(rows), dtype=real),
                np.empty((len(rows), logits.shape[1]), real),
            )
            some = [None if t is None else t[rows] for t in targets[:3]]
            some = kernels.Targets(*some, targets[3], logits.shape[1])
            kernels.cross_entropy_rows(loss, grad, logits[rows], some, isa=isa)
            return np.column_stack([loss, grad])

        expected = run(np.arange(n))
        order = rng.permutation(n)
        np.testing.assert_array_equal(run(order), expected[order])
        for i in (0, 1, 997):
            np.testing.assert_array_equal(run(np.array([i])), expected[i : i + 1])


def test_layouts(kernels, isa, make_targets, real, guarded, rng):
    for n_classes in (1, 2, 16, 33):
        logits = rng.normal(0, 5, (19, n_classes)).astype(real)
        targets = make_targets(19, n_classes)
        loss, grad = np.empty(19, dtype=real), np.empty_like(logits)
        kernels.cross_entropy_rows(
            loss, grad, logits, as_targets(kernels, targets, logits), isa=isa
        )
        memory = np.full((40, n_classes + 7), NAN, dtype=real)
        apart = memory[-2:1:-2, 3:-4]
        apart[...] = logits
        given = as_targets(kernels, targets, logits)
        again, out = guarded(19), guarded(logits.shape)
        kernels.cross_entropy_rows(again.array, out.array[::-1], apart, given, isa=isa)
        np.testing.assert_array_equal(again.checked(), loss)
        np.testing.assert_array_equal(out.checked()[::-1], grad)
        kernels.cross_entropy_rows(again.array, apart, apart, given, isa=isa)
        np.testing.assert_array_equal(apart, grad)
        apart[...] = NAN
        assert np.isnan(memory).all()
