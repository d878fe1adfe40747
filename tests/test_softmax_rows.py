"""softmax, log_softmax and logsumexp of rows against the numpy twin in float64."""

import numpy as np
import pytest

from fastsoftmax import reference

INF, NAN = np.inf, np.nan
NAMES = ["softmax_rows", "log_softmax_rows", "logsumexp_rows"]

# 1, 2; a vector of 2, 4, 8 or 16 numbers, less and more by 1, and twice as many and 1; a prime;
# around 8 vectors, after which the sums are carried on with their rounding errors.
WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 37, 63, 64, 65, 127, 128, 129]

# A part of the rows has about 2^14 logits.
ROWS = [(0, 10), (1, 10), (2, 10), (1637, 10), (1638, 10), (1639, 10), (3277, 10), (40, 1000)]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def rows_of(kernels, name, isa):
    """A function of logits: the operation by the kernels, in a new array."""

    def call(logits, **options):
        shape = logits.shape[0] if name == "logsumexp_rows" else logits.shape
        out = np.full(shape, -77, dtype=logits.dtype)
        getattr(kernels, name)(out, logits, isa=isa, **options)
        return out

    return call


@pytest.fixture
def check(name, kernels, isa, guarded, ulps):
    """A function that holds the operation on some logits to its twin, to some ulp.

    float32 is held to 4 ulp, as promised. The twin's own float64 is 4 ulp off at most.
    """

    def of(logits, limit=4):
        wide = logits.astype(np.float64)
        before = logits.tobytes()
        summed = name == "logsumexp_rows"
        expected = np.empty(len(wide) if summed else wide.shape)
        getattr(reference, name)(expected, wide)
        out = guarded(len(wide) if summed else wide.shape)
        getattr(kernels, name)(out.array, logits, isa=isa)
        scale = None
        if summed and len(wide):  # the sum of two numbers that may cancel
            largest = np.where(np.isfinite(wide), np.abs(wide), 0).max(axis=1)
            scale = np.where(np.isfinite(expected), np.maximum(np.abs(expected), largest), 0)
        error = ulps(out.checked(), expected, scale)
        assert error <= limit + 4 * (logits.dtype == np.float64), f"rows of {wide.shape[1]}"
        assert logits.tobytes() == before

    return of


@pytest.mark.parametrize("spread", [0.1, 5, 30])
def test_widths(spread, check, real, rng):
    for n_classes in WIDTHS:
        check(rng.normal(0, spread, (23, n_classes)).astype(real))


def test_numbers_of_rows(check, real, rng):
    for shape in ROWS:
        check(rng.normal(0, 5, shape).astype(real))


def test_many_classes(check, real, rng):
    check(rng.normal(0, 5, (3, 100_003)).astype(real))
    check(np.zeros((1, 100_003), dtype=real))


def test_more_rows_than_parts(rows_of, isa, kernels, rng):
    """Each row is a part of its own until there are 1024 of them."""
    if isa != kernels.available_isas()[0]:
        pytest.skip("the rows are cut alike for every instruction set")
    some = rng.normal(0, 5, (7, 16384)).astype(np.float32)
    expected = rows_of(some)
    n = 1030
    out = rows_of(np.broadcast_to(some, (148, 7, 16384)).reshape(-1, 16384)[:n], n_threads=2)
    for first in range(0, n, 7):
        np.testing.assert_array_equal(out[first : first + 7], expected[: n - first])


def test_wide_gaps(check, real, rng):
    """exp of the logits overflows, and x - max is rounded to a step that exp would magnify."""
    far = 80 if real is np.float32 else 700
    for n_classes in (2, 3, 16, 33, 128):
        logits = rng.uniform(-far, 0, (40, n_classes)).astype(real)
        logits[:, 0] = rng.uniform(0.1, 0.9, 40)
        check(logits)
        check(logits[:, ::-1].copy() * real(100))
        check(rng.uniform(-1e4, 1e4, (40, n_classes)).astype(real))
        check(logits + np.finfo(real).max / 2)


def test_ties_and_equal_rows(check, real, rng):
    for n_classes in (2, 3, 15, 16, 17, 33, 129):
        for value in (0.0, -3.25, 1e4, np.finfo(real).max, -np.finfo(real).max):
            check(np.full((3, n_classes), value, dtype=real))
        check(rng.integers(0, 2, (40, n_classes)).astype(real) * real(90))
        check(rng.choice([0.5, 0.5, -INF], (40, n_classes)).astype(real))


@pytest.mark.parametrize("n_classes", [1, 2, 3, 8, 17, 129])
def test_special_rows(n_classes, check, rows_of, real, rng):
    """NaN, inf and -inf at each place, in rows between ordinary ones that they leave alone."""
    ordinary = rng.normal(0, 5, (1, n_classes)).astype(real)
    kinds = [NAN, INF, -INF, np.finfo(real).max, -np.finfo(real).max]
    places = [*range(min(n_classes, 35)), n_classes - 1]
    logits = np.repeat(ordinary, 2 * len(kinds) * len(places) + 1, axis=0)
    for i, (k, value) in enumerate((k, value) for k in places for value in kinds):
        logits[2 * i + 1, k] = value
    check(logits)
    alone = rows_of(ordinary)[0]
    for row in rows_of(logits)[::2]:
        np.testing.assert_array_equal(row, alone)
    for value in (NAN, INF, -INF):  # a whole row of them, and with one number among them
        rows = np.full((2, n_classes), value, dtype=real)
        rows[1, n_classes // 2] = 3
        check(rows)
    for values in ([INF, -INF, NAN], [INF, -INF, 1]):
        check(np.resize(np.array(values, dtype=real), (5, n_classes)))


def test_a_row_does_not_depend_on_the_others(rows_of, real, rng):
    for n_classes in (1, 3, 16, 37):
        logits = rng.normal(0, 20, (2000, n_classes)).astype(real)
        expected = rows_of(logits)
        order = rng.permutation(len(logits))
        np.testing.assert_array_equal(rows_of(logits[order]), expected[order])
        for i in (0, 1, 999, 1999):
            np.testing.assert_array_equal(rows_of(logits[i : i + 1])[0], expected[i])
            np.testing.assert_array_equal(rows_of(logits[i:])[0], expected[i])


@pytest.mark.parametrize("n_classes", [1, 2, 15, 16, 33])
def test_layouts(n_classes, kernels, name, rows_of, isa, real, guarded, rng):
    """Rows apart, upside down, the same one again and again; in place; to rows upside down."""
    logits = rng.normal(0, 5, (19, n_classes)).astype(real)
    expected = rows_of(logits)
    wide = np.full((40, n_classes + 7), NAN, dtype=real)
    apart = wide[1:-1:2, 3:-4]
    apart[...] = logits
    np.testing.assert_array_equal(rows_of(apart), expected)
    np.testing.assert_array_equal(rows_of(apart[::-1]), expected[::-1])
    for row in rows_of(np.broadcast_to(logits[4], logits.shape)):
        np.testing.assert_array_equal(row, expected[4])
    if name == "logsumexp_rows":
        return
    operation = getattr(kernels, name)
    operation(apart, apart, isa=isa)
    np.testing.assert_array_equal(apart, expected)
    apart[...] = NAN
    assert np.isnan(wide).all()
    out = guarded(logits.shape)
    operation(out.array[::-1], logits, isa=isa)
    np.testing.assert_array_equal(out.checked()[::-1], expected)


def test_two_classes_sum_to_one(kernels, isa, real, rng):
    logits = rng.normal(0, 3, (20_000, 2)).astype(real)
    logits[:4] = [[0, 0], [NAN, 1], [INF, 0], [-INF, 0]]
    probs, twin = np.empty_like(logits), np.empty_like(logits)
    kernels.softmax_rows(probs, logits, isa=isa)
    reference.softmax_rows(twin, logits)
    for found in (probs, twin):
        assert np.isnan(found[1:3]).all()
        assert np.array_equal(np.delete(found, [1, 2], axis=0).sum(axis=1), np.ones(19_998))
