"""The functions of arrays: accuracy, special values, layouts, gradients and errors."""

import itertools
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

from fastsoftmax import backend as backend_module
from fastsoftmax.backend import resolve_backend
from fastsoftmax.functional import (
    accuracy,
    cross_entropy,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    softmax,
)

INF, NAN = np.inf, np.nan
LONG_IS_LONGER = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps / 100
ROW_FUNCTIONS = [softmax, log_softmax, logsumexp]


@pytest.fixture(params=["numpy", "native"])
def backend(request):
    if request.param == "native":
        try:
            resolve_backend("native")
        except ImportError:
            pytest.skip("the compiled kernels were not built")
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def real(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def exact_softmax(logits):
    """Softmax, its logarithm and the log-sum-exp of finite rows, in extended precision."""
    z = np.asarray(logits, dtype=np.longdouble)
    top = z.argmax(axis=1)[:, np.newaxis]
    largest = np.take_along_axis(z, top, axis=1)
    exps = np.exp(z - largest)
    total = exps.sum(axis=1, keepdims=True)
    others = exps.copy()
    np.put_along_axis(others, top, 0, axis=1)
    log_total = np.log1p(others.sum(axis=1, keepdims=True))
    return exps / total, (z - largest) - log_total, (largest + log_total)[:, 0]


def exact_cross_entropy(logits, target):
    """sum_k t_k (lse - z_k), exact also near zero, in extended precision."""
    z = np.asarray(logits, dtype=np.longdouble)
    losses = []
    for row, t in zip(z, target, strict=True):
        top = row.argmax()
        others = np.exp(np.delete(row, top) - row[top]).sum()
        losses.append((t * (row[top] - row)).sum() + np.log1p(others))
    return np.array(losses)


def ulps(actual, exact):
    unit = np.spacing(np.abs(exact).astype(actual.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(actual - exact) / unit))


def five_point(function, at, step=1e-3):
    """Numeric gradient of a scalar function of a float64 array; error O(step^4)."""
    grad = np.empty_like(at)
    for i in np.ndindex(at.shape):
        values = []
        for k in (-2, -1, 1, 2):
            moved = at.copy()
            moved[i] += k * step
            values.append(function(moved))
        grad[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return grad


def layouts(x):
    """Arrays equal to x (2-d) that lie differently in memory."""
    wide = np.zeros((2 * x.shape[0], 3 * x.shape[1]), dtype=x.dtype)
    wide[::2, ::3] = x
    padded = np.zeros((x.shape[0], x.shape[1] + 5), dtype=x.dtype)
    padded[:, :-5] = x
    unaligned = np.zeros(x.nbytes + 1, dtype=np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "fortran": np.asfortranarray(x),
        "strided": wide[::2, ::3],
        "padded rows": padded[:, :-5],
        "rows upside down": x[::-1].copy()[::-1],
        "columns reversed": x[:, ::-1].copy()[:, ::-1],
        "other byte order": x.astype(x.dtype.newbyteorder()),
        "unaligned": unaligned,
        "read-only": read_only,
    }


# ---- softmax, log_softmax, logsumexp


@pytest.mark.parametrize(("n", "n_classes"), [(500, 17), (3, 100_000), (20, 2), (5, 1)])
def test_ulps(n, n_classes, real, backend, rng):
    if real is np.float64 and not LONG_IS_LONGER:
        pytest.skip("long double is no more precise than double here")
    logits = rng.normal(0, 5, (n, n_classes)).astype(real)
    probs, logs, lse = exact_softmax(logits)
    # numpy adds 1e5 numbers pairwise, to 2 ulp in some versions; the kernels are held to 4 there.
    limit = 8 if backend == "numpy" and n_classes == 100_000 else 4
    assert ulps(softmax(logits, backend=backend), probs) <= limit
    lse_error = np.abs(logsumexp(logits, backend=backend) - lse)
    assert np.all(lse_error <= 4 * np.finfo(real).eps * np.abs(logits).max(axis=1))
    if n_classes > 1:
        assert ulps(log_softmax(logits, backend=backend), logs) <= 4


def test_wide_gaps_keep_their_ulps(real, backend, rng):
    """x - max rounds to ulp(x - max) / 2, which alone would cost exp tens of ulp here."""
    if real is np.float64 and not LONG_IS_LONGER:
        pytest.skip("long double is no more precise than double here")
    lowest = -80 if real is np.float32 else -700
    logits = rng.uniform(lowest, 0, (50, 40)).astype(real)
    logits[:, 0] = rng.uniform(0.1, 0.9, 50)
    assert ulps(softmax(logits, backend=backend), exact_softmax(logits)[0]) <= 4


SPECIAL = [
    # row, softmax, log_softmax, logsumexp
    ([1.0, NAN, 2.0], [NAN] * 3, [NAN] * 3, NAN),
    ([NAN, INF, -INF], [NAN] * 3, [NAN] * 3, NAN),
    ([-INF] * 3, [NAN] * 3, [NAN] * 3, -INF),
    ([1.0, INF, 2.0], [NAN] * 3, [NAN] * 3, INF),
    ([INF, INF, 2.0], [NAN] * 3, [NAN] * 3, INF),
    ([INF, -INF, -INF], [NAN] * 3, [NAN] * 3, INF),
    ([-INF, 3.0, 3.0], [0.0, 0.5, 0.5], [-INF, -np.log(2), -np.log(2)], 3.0 + np.log(2)),
    ([-INF, 3.0, -INF], [0.0, 1.0, 0.0], [-INF, 0.0, -INF], 3.0),
    ([3e38, -3e38, 0.0], [1.0, 0.0, 0.0], None, 3e38),
    ([0.0, 0.0, 0.0], [1 / 3] * 3, [-np.log(3)] * 3, np.log(3)),
    ([-3e38] * 3, [1 / 3] * 3, [-np.log(3)] * 3, -3e38),
    ([NAN], [NAN], [NAN], NAN),
    ([INF], [NAN], [NAN], INF),
    ([-INF], [NAN], [NAN], -INF),
    ([7.0], [1.0], [0.0], 7.0),
]


@pytest.mark.parametrize(("row", "probs", "logs", "lse"), SPECIAL)
def test_special_rows(row, probs, logs, lse, real, backend):
    # Twice among ordinary rows: a special row leaves the others alone.
    ordinary = np.linspace(-1, 1, len(row))
    logits = np.array([ordinary, row, ordinary, row], dtype=real)
    tolerance = {"rtol": 4 * np.finfo(real).eps, "atol": 0}
    for function, expected in ((softmax, probs), (log_softmax, logs), (logsumexp, lse)):
        if expected is None:
            continue
        actual = function(logits, backend=backend)
        alone = function(ordinary.astype(real), backend=backend)
        for i in (0, 2):
            np.testing.assert_array_equal(actual[i], alone)
        for i in (1, 3):
            np.testing.assert_allclose(actual[i], np.asarray(expected, real), **tolerance)
            np.testing.assert_array_equal(np.asarray(actual[i]) == 0, np.equal(expected, 0))


@pytest.mark.parametrize("function", ROW_FUNCTIONS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7,), 0),
        ((7,), None),
        ((5, 7), -1),
        ((5, 7), 0),
        ((5, 7), -2),
        ((5, 7), None),
        ((3, 4, 5), 1),
        ((3, 4, 5), (0, -1)),
        ((3, 4, 5), (2, 1)),
        ((3, 4, 5), ()),
        ((3, 1, 5), 1),
        ((2, 3, 4, 5), (1, 2)),
    ],
)
def test_axes(function, shape, axis, backend, rng):
    x = rng.normal(0, 3, shape)
    before = x.copy()
    axes = tuple(range(x.ndim)) if axis is None else axis
    with np.errstate(all="ignore"):
        exps = np.exp(x)
        total = exps.sum(axis=axes, keepdims=True)
    expected = {softmax: exps / total, log_softmax: np.log(exps / total), logsumexp: np.log(total)}
    actual = function(x, axis, backend=backend)
    if function is logsumexp:
        kept = logsumexp(x, axis, keepdims=True, backend=backend)
        np.testing.assert_allclose(kept, expected[function], rtol=1e-13, atol=1e-14)
        assert kept.shape == expected[function].shape
        np.testing.assert_array_equal(np.squeeze(kept, axis=axes), actual)
        out = np.empty(np.shape(actual))
        assert logsumexp(x, axis, out=out, backend=backend) is out
        np.testing.assert_array_equal(out, actual)
    else:
        assert actual.shape == x.shape
        assert actual.flags.writeable
        np.testing.assert_allclose(actual, expected[function], rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("function", ROW_FUNCTIONS)
def test_layouts_do_not_matter(function, real, backend, rng):
    x = rng.normal(0, 3, (6, 11)).astype(real)
    expected = function(x, backend=backend)
    for name, same in layouts(x).items():
        before = same.tobytes()
        actual = function(same, backend=backend)
        np.testing.assert_array_equal(actual, expected, err_msg=name)
        assert actual.dtype == real and actual.dtype.isnative
        assert same.tobytes() == before
    row = np.broadcast_to(x[0], (4, 11))
    np.testing.assert_array_equal(function(row, backend=backend)[3], expected[0])
    column = np.broadcast_to(x[:, :1], (6, 11))
    np.testing.assert_allclose(np.exp(logsumexp(column, backend=backend) - x[:, 0]), 11, rtol=1e-5)


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_out(function, axis, real, backend, rng):
    x = rng.normal(0, 3, (6, 11)).astype(real)
    expected = function(x, axis, backend=backend)
    for name, like in layouts(x).items():
        if name == "read-only":
            continue
        out = like
        for source in (x, out):  # elsewhere, then in place
            out[...] = NAN if source is x else x
            assert function(source, axis, out=out, backend=backend) is out
            np.testing.assert_array_equal(out, expected, err_msg=name)


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("axis", [0, 1])
def test_out_overlapping_the_input(function, axis, real, backend, rng):
    values = rng.normal(0, 3, (8, 9)).astype(real)
    for source, target in [
        (np.s_[:-1], np.s_[1:]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:], np.s_[::-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:, :], np.s_[:, ::-1]),
        (np.s_[::2], np.s_[1::2]),
    ]:
        expected = function(values[source], axis, backend=backend)
        memory = values.copy()
        function(memory[source], axis, out=memory[target], backend=backend)
        np.testing.assert_array_equal(memory[target], expected)
    square = values[:8, :8].copy()
    expected = function(square, axis, backend=backend)
    function(square, axis, out=square.T, backend=backend)
    np.testing.assert_array_equal(square.T, expected)


def test_out_leaves_its_surroundings_alone(backend, rng):
    x = rng.normal(0, 3, (6, 11))
    guarded = np.full((8, 15), 7.0)
    softmax(x, out=guarded[1:-1, 2:-2], backend=backend)
    guarded[1:-1, 2:-2] = 7.0
    assert (guarded == 7.0).all()


def test_out_is_checked(backend):
    x = np.zeros((3, 4), dtype=np.float32)
    fixed = np.zeros((3, 4), dtype=np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match=r"out must be of shape \(3, 4\), got \(4, 3\)"):
        softmax(x, out=np.zeros((4, 3), dtype=np.float32), backend=backend)
    with pytest.raises(TypeError, match="out must be of dtype float32, got float64"):
        log_softmax(x, out=np.zeros((3, 4)), backend=backend)
    with pytest.raises(ValueError, match="read-only"):
        softmax(x, out=fixed, backend=backend)
    with pytest.raises(TypeError, match="out must be a numpy array, got list"):
        softmax(x, out=[[0.0]], backend=backend)
    with pytest.raises(ValueError, match=r"out must be of shape \(3,\)"):
        logsumexp(x, out=np.zeros((3, 1), dtype=np.float32), backend=backend)


@pytest.mark.parametrize("function", ROW_FUNCTIONS)
def test_dtypes(function, backend):
    x = np.array([[1, 0, 1], [0, 0, 1]])
    expected = function(x.astype(np.float64), backend=backend)
    for dtype in (bool, np.int8, np.uint8, np.int64, np.uint64):
        actual = function(x.astype(dtype), backend=backend)
        assert actual.dtype == np.float64
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(function(x.tolist(), backend=backend), expected)
    half = function(x.astype(np.float16), backend=backend)
    assert half.dtype == np.float16
    single = function(x.astype(np.float32), backend=backend)
    np.testing.assert_array_equal(half, single.astype(np.float16))
    out = np.empty_like(half)
    assert function(x.astype(np.float16), out=out, backend=backend) is out
    np.testing.assert_array_equal(out, half)
    for bad in (x * 1j, x.astype(object), x.astype(str), x.astype("M8[s]")):
        with pytest.raises(TypeError, match="x must hold real numbers"):
            function(bad, backend=backend)
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match="64 bits"):
            function(x.astype(np.longdouble), backend=backend)


def test_half_overflows_to_infinity_without_a_warning(backend):
    x = np.array([[60000.0, -60000.0]], dtype=np.float16)
    np.testing.assert_array_equal(log_softmax(x, backend=backend), [[0.0, -INF]])


@pytest.mark.parametrize("function", ROW_FUNCTIONS)
def test_empty_and_scalar(function, real, backend):
    assert function(np.empty((0, 3), real), backend=backend).shape == (
        (0,) if function is logsumexp else (0, 3)
    )
    assert function(np.empty((0, 3), real), backend=backend).dtype == real
    with pytest.raises(ValueError, match="0-d"):
        function(real(1), backend=backend)
    with pytest.raises(np.exceptions.AxisError):
        function(np.zeros((2, 3), real), 2, backend=backend)
    with pytest.raises(ValueError, match="twice"):
        function(np.zeros((2, 3), real), (1, -1), backend=backend)
    if function is logsumexp:
        np.testing.assert_array_equal(function(np.empty((2, 0), real), backend=backend), [-INF] * 2)
        assert isinstance(function(np.zeros(3, real), backend=backend), real)
    else:
        for shape, axis in [((2, 0), -1), ((0, 3), 0), ((0,), None)]:
            with pytest.raises(ValueError, match="at least one class"):
                function(np.empty(shape, real), axis, backend=backend)


@pytest.mark.parametrize("function", ROW_FUNCTIONS)
def test_threads_do_not_change_a_bit(function, real, backend, rng):
    x = rng.normal(0, 5, (3001, 17)).astype(real)
    expected = function(x, n_jobs=1, backend=backend)
    for n_jobs in (2, 3, 7, -1, None):
        actual = function(x, n_jobs=n_jobs, backend=backend)
        np.testing.assert_array_equal(actual, expected)
    with pytest.raises(ValueError, match="n_jobs"):
        function(x, n_jobs=0, backend=backend)
    with pytest.raises(TypeError):
        function(x, n_jobs=1.5, backend=backend)


# ---- cross_entropy


@pytest.mark.parametrize("gap", [0, 1, 20, 50, 80])
def test_cross_entropy_near_zero(gap, real, backend):
    """-log(p) through p would round to 0 from a gap of 17 (float32) or 37 (float64) on."""
    logits = np.array([[gap, 0, -1], [0.5, 0.5 + gap, 0.25], [0, 0, gap]], dtype=real)
    labels = np.array([0, 1, 2])
    exact = exact_cross_entropy(logits, np.eye(3))
    tolerance = {"rtol": 4 * np.finfo(real).eps, "atol": 0}
    for y in (labels, np.eye(3)):
        actual = cross_entropy(logits, y, reduction="none", backend=backend)
        assert actual.dtype == real
        np.testing.assert_allclose(actual, exact.astype(np.float64), **tolerance)
        mean = cross_entropy(logits, y, backend=backend)
        np.testing.assert_allclose(mean, float(exact.mean()), **tolerance)
    total, _, _ = linear_cross_entropy(
        np.eye(3, dtype=real), logits.T, None, labels, reduction="sum", backend=backend
    )
    np.testing.assert_allclose(total, float(exact.sum()), **tolerance)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 17, 1000])
def test_cross_entropy_values(n_classes, soft, smoothing, real, backend, rng):
    n = 40
    logits = rng.normal(0, 5, (n, n_classes)).astype(real)
    y = (
        rng.dirichlet(np.ones(n_classes), n).astype(real)
        if soft
        else rng.integers(n_classes, size=n)
    )
    weights = rng.integers(0, 4, n)
    target = y.astype(float) if soft else np.eye(n_classes)[y]
    target = (1 - smoothing) * target + smoothing / n_classes
    exact = weights * exact_cross_entropy(logits, target).astype(np.float64)
    grad = weights[:, np.newaxis] * (exact_softmax(logits)[0] - target).astype(np.float64)
    given = {"sample_weight": weights, "label_smoothing": smoothing, "backend": backend}
    tolerance = {"rtol": 16 * np.finfo(real).eps, "atol": 16 * np.finfo(real).eps}
    for reduction, loss, scale in [
        ("none", exact, 1.0),
        ("sum", exact.sum(), 1.0),
        ("mean", exact.sum() / weights.sum(), weights.sum()),
    ]:
        actual, actual_grad = cross_entropy(
            logits, y, reduction=reduction, return_grad=True, **given
        )
        np.testing.assert_allclose(actual, loss, **tolerance)
        np.testing.assert_allclose(actual_grad, grad / scale, **tolerance)
        assert actual_grad.dtype == real
        np.testing.assert_array_equal(
            cross_entropy(logits, y, reduction=reduction, **given), actual
        )
        if reduction != "none":
            assert type(actual) is float


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_gradient_is_that_of_its_loss(soft, reduction, backend, rng):
    logits = rng.normal(0, 2, (4, 5))
    y = rng.dirichlet(np.ones(5), 4) if soft else [0, 4, 2, 2]
    given = {"sample_weight": [1.0, 0.5, 0.0, 3.0], "label_smoothing": 0.1, "backend": backend}
    _, grad = cross_entropy(logits, y, reduction=reduction, return_grad=True, **given)
    numeric = five_point(
        lambda z: np.sum(cross_entropy(z, y, reduction=reduction, **given)), logits
    )
    np.testing.assert_allclose(grad, numeric, rtol=0, atol=2e-11)


def test_cross_entropy_special_rows(real, backend):
    logits = np.array(
        [[0, NAN, 0], [-INF] * 3, [0, INF, 0], [-INF, 0, 0], [-INF, 0, -INF]], dtype=real
    )

    def losses(y, **given):
        return cross_entropy(
            logits, y, reduction="none", return_grad=True, backend=backend, **given
        )

    loss, grad = losses([0, 0, 1, 1, 1])
    np.testing.assert_allclose(loss, [NAN, NAN, NAN, np.log(2), 0.0], rtol=1e-6)
    assert np.isnan(grad[:3]).all()
    np.testing.assert_allclose(grad[3:], [[0, -0.5, 0.5], [0, 0, 0]], rtol=1e-6)
    loss, grad = losses([0, 0, 0, 0, 0])
    np.testing.assert_array_equal(loss, [NAN, NAN, NAN, INF, INF])
    np.testing.assert_allclose(grad[3], [-1, 0.5, 0.5])
    half = np.tile([0.0, 0.5, 0.5], (5, 1))
    np.testing.assert_allclose(losses(half)[0], [NAN, NAN, NAN, np.log(2), INF], rtol=1e-6)
    smooth = losses([1] * 5, label_smoothing=0.1)[0]
    np.testing.assert_array_equal(smooth, [NAN, NAN, NAN, INF, INF])
    # A row of weight 0 is absent, whatever it holds.
    loss, grad = losses([0] * 5, sample_weight=[0, 0, 0, 0, 0])
    assert (loss == 0).all() and (grad == 0).all()


def test_cross_entropy_layouts(real, backend, rng):
    logits = rng.normal(0, 3, (6, 11)).astype(real)
    probs = rng.dirichlet(np.ones(11), 6).astype(real)
    labels = rng.integers(11, size=6)
    for y in (labels, probs):
        loss, grad = cross_entropy(logits, y, return_grad=True, backend=backend)
        for name, same in layouts(logits).items():
            targets = layouts(probs)[name] if y is probs else labels[::-1].copy()[::-1]
            other, other_grad = cross_entropy(same, targets, return_grad=True, backend=backend)
            assert loss == other
            np.testing.assert_array_equal(grad, other_grad, err_msg=name)
    for dtype in (np.int8, np.uint8, np.uint64, ">i4", object):
        y = labels.astype(dtype)
        if dtype is object:
            with pytest.raises(TypeError, match="integer class indices"):
                cross_entropy(logits, y, backend=backend)
        else:
            assert cross_entropy(logits, y, backend=backend) == cross_entropy(
                logits, labels, backend=backend
            )
    assert cross_entropy(logits[:, :2], labels > 5, backend=backend) == cross_entropy(
        logits[:, :2], (labels > 5).astype(int), backend=backend
    )


def test_cross_entropy_half(backend):
    logits = np.array([[1, 2], [3, -4]], dtype=np.float16)
    loss, grad = cross_entropy(logits, [0, 1], reduction="none", return_grad=True, backend=backend)
    assert loss.dtype == grad.dtype == np.float16
    np.testing.assert_allclose(loss, [1.3132617, 7.0009114], rtol=1e-3)


def test_no_rows(backend):
    logits = np.empty((0, 3))
    assert cross_entropy(logits, [], reduction="sum", backend=backend) == 0.0
    assert cross_entropy(logits, [], reduction="none", backend=backend).shape == (0,)
    with pytest.raises(ValueError, match="finite sum > 0, got 0 rows"):
        cross_entropy(logits, [], backend=backend)
    loss, grad_W, grad_b = linear_cross_entropy(
        np.empty((0, 2)), np.ones((3, 2)), np.ones(3), [], reduction="sum", backend=backend
    )
    assert loss == 0.0 and not grad_W.any() and not grad_b.any()
    with pytest.raises(ValueError, match="finite sum > 0"):
        linear_cross_entropy(np.empty((0, 2)), np.ones((3, 2)), None, [], backend=backend)
    with pytest.raises(ValueError, match="finite sum > 0"):
        accuracy([], [])


BAD_TARGETS = [
    ([0, 3], ValueError, r"y must hold class indices in \[0, 3\), got 3 in row 1"),
    ([-1, 0], ValueError, "got -1 in row 0"),
    ([0], ValueError, r"y must be of shape \(2,\), got \(1,\)"),
    ([0.0, 1.0], TypeError, "integer class indices"),
    (["0", "1"], TypeError, "integer class indices"),
    ([[0], [1]], ValueError, r"\(2,\) or \(2, 3\), got \(2, 1\)"),
    (0, ValueError, "shape"),
    ([[1, 0, 0], [1, 1, 0]], ValueError, "sum of 2.0 in row 1"),
    ([[1, 0, 0], [1.5, -0.5, 0]], ValueError, "probabilities, got -0.5"),
    ([[1, 0, 0], [NAN, 0, 1]], ValueError, "probabilities, got nan"),
    ([[1, 0, 0], [INF, 0, 1]], ValueError, "sum of inf"),
    ([[1, 0, 0], [1j, 0, 1]], TypeError, "real"),
]


@pytest.mark.parametrize(("y", "error", "match"), BAD_TARGETS)
def test_bad_targets(y, error, match, backend):
    with pytest.raises(error, match=match):
        cross_entropy(np.zeros((2, 3)), y, backend=backend)
    with pytest.raises(error, match=match):
        linear_cross_entropy(np.zeros((2, 4)), np.zeros((3, 4)), None, y, backend=backend)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"sample_weight": [1, -1]}, ValueError, "finite and >= 0, got -1 in row 1"),
        ({"sample_weight": [NAN, 1]}, ValueError, "got nan in row 0"),
        ({"sample_weight": [INF, 1]}, ValueError, "got inf in row 0"),
        ({"sample_weight": [1]}, ValueError, r"shape \(2,\), got \(1,\)"),
        ({"sample_weight": ["1", "2"]}, TypeError, "sample_weight must hold real"),
        ({"sample_weight": [0, 0]}, ValueError, "2 rows with a sum of 0.0"),
        ({"sample_weight": [1e308, 1e308]}, ValueError, "sum of inf"),
        ({"label_smoothing": -0.1}, ValueError, r"\[0, 1\], got -0.1"),
        ({"label_smoothing": NAN}, ValueError, r"\[0, 1\], got nan"),
        ({"label_smoothing": "0.1"}, TypeError, "must be a number, got '0.1'"),
        ({"reduction": "max"}, ValueError, "got 'max'"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
    ],
)
def test_bad_arguments(given, error, match, backend):
    with pytest.raises(error, match=match):
        cross_entropy(np.zeros((2, 3)), [0, 1], **given, backend=backend)
    with pytest.raises(error, match=match):
        linear_cross_entropy(
            np.zeros((2, 4)), np.zeros((3, 4)), None, [0, 1], **given, backend=backend
        )


def test_bad_logits(backend):
    for logits in (np.zeros(3), np.zeros((2, 0)), np.zeros((2, 3, 1)), 1.0):
        with pytest.raises(ValueError, match="logits must be of shape"):
            cross_entropy(logits, [0, 1], backend=backend)
    with pytest.raises(TypeError, match="logits must hold real"):
        cross_entropy([["a", "b"]], [0], backend=backend)


# ---- linear_cross_entropy


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 20])
@pytest.mark.parametrize("n_features", [0, 1, 7])
def test_linear_is_cross_entropy_of_the_product(n_features, n_classes, soft, real, backend, rng):
    n = 150
    X = rng.normal(size=(n, n_features)).astype(real)
    W = rng.normal(size=(n_classes, n_features)).astype(real)
    b = rng.normal(size=n_classes).astype(real)
    y = rng.dirichlet(np.ones(n_classes), n) if soft else rng.integers(n_classes, size=n)
    weights = rng.integers(0, 3, n)
    tolerance = {"rtol": 100 * np.finfo(real).eps, "atol": 100 * np.finfo(real).eps}
    x64, w64 = X.astype(float), W.astype(float)
    for reduction, bias in itertools.product(["mean", "sum"], [b, None]):
        given = {
            "sample_weight": weights,
            "label_smoothing": 0.05,
            "reduction": reduction,
            "backend": backend,
        }
        logits = x64 @ w64.T + (0 if bias is None else bias.astype(float))
        expected, residual = cross_entropy(logits, y, return_grad=True, **given)
        before = [a.copy() for a in (X, W, b)]
        loss, grad_W, grad_b = linear_cross_entropy(X, W, bias, y, **given)
        scale = weights.sum() if reduction == "sum" else 1.0
        np.testing.assert_allclose(loss / scale, expected / scale, **tolerance)
        np.testing.assert_allclose(grad_W / scale, residual.T @ x64 / scale, **tolerance)
        assert type(loss) is float and grad_W.dtype == real
        if bias is None:
            assert grad_b is None
        else:
            np.testing.assert_allclose(grad_b / scale, residual.sum(axis=0) / scale, **tolerance)
        np.testing.assert_allclose(
            linear_cross_entropy(X, W, bias, y, return_grad=False, **given), loss, rtol=1e-6
        )
        for array, old in zip((X, W, b), before, strict=True):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("soft", [False, True])
def test_linear_gradient_is_that_of_its_loss(soft, n_classes, reduction, backend, rng):
    X = rng.normal(size=(6, 3))
    W, b = rng.normal(size=(n_classes, 3)), rng.normal(size=n_classes)
    y = rng.dirichlet(np.ones(n_classes), 6) if soft else rng.integers(n_classes, size=6)
    given = {
        "sample_weight": rng.uniform(0, 2, 6),
        "label_smoothing": 0.1,
        "reduction": reduction,
        "backend": backend,
    }
    _, grad_W, grad_b = linear_cross_entropy(X, W, b, y, **given)

    def loss(W, b):
        return linear_cross_entropy(X, W, b, y, return_grad=False, **given)

    np.testing.assert_allclose(grad_W, five_point(lambda w: loss(w, b), W), rtol=0, atol=1e-10)
    np.testing.assert_allclose(grad_b, five_point(lambda v: loss(W, v), b), rtol=0, atol=1e-10)


def test_linear_layouts_and_dtypes(real, backend, rng):
    X, W = rng.normal(size=(8, 5)).astype(real), rng.normal(size=(3, 5)).astype(real)
    y = rng.integers(3, size=8)
    loss, grad_W, _ = linear_cross_entropy(X, W, None, y, backend=backend)
    for name, same in layouts(X).items():
        other, other_grad, _ = linear_cross_entropy(
            same, layouts(W)[name], None, y, backend=backend
        )
        np.testing.assert_allclose(other, loss, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(other_grad, grad_W, rtol=1e-5, atol=1e-6, err_msg=name)
    for x_dtype, w_dtype, expected in [
        (np.float32, np.float64, np.float64),
        (np.float64, np.float32, np.float64),
        (np.uint8, np.float32, np.float32),
        (np.int64, np.float32, np.float64),
        (np.int64, np.int64, np.float64),
        (np.float16, np.float16, np.float16),
        (np.float16, np.float32, np.float32),
    ]:
        x, w = np.ones((2, 4), x_dtype), np.ones((3, 4), w_dtype)
        loss, grad_W, _ = linear_cross_entropy(x, w, None, [0, 1], backend=backend)
        assert grad_W.dtype == expected
        np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)


def test_linear_leaves_out_rows_of_weight_zero(real, backend):
    X = np.array([[1, 2], [NAN, 1], [3, 4], [INF, -INF]], dtype=real)
    for n_classes in (1, 2, 3):
        W = np.ones((n_classes, 2), dtype=real)
        given = {"reduction": "sum", "backend": backend}
        loss, grad_W, _ = linear_cross_entropy(
            X, W, None, [0] * 4, sample_weight=[1, 0, 2, 0], **given
        )
        np.testing.assert_allclose(loss, 3 * np.log(n_classes), rtol=1e-6)
        assert np.isfinite(grad_W).all()
        assert np.isnan(linear_cross_entropy(X, W, None, [0] * 4, **given)[0])


def test_linear_needs_no_array_of_logits(backend, rng):
    n, n_classes = 20_000, 400
    X = rng.normal(size=(n, 4)).astype(np.float32)
    W = rng.normal(size=(n_classes, 4)).astype(np.float32)
    y = rng.integers(n_classes, size=n)
    tracemalloc.start()
    try:
        linear_cross_entropy(X, W, None, y, backend=backend)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * n_classes * 4 * 0.75


def test_linear_threads_do_not_change_a_bit(real, backend, rng):
    X = rng.normal(size=(5003, 9)).astype(real)
    W, b = rng.normal(size=(4, 9)).astype(real), rng.normal(size=4).astype(real)
    y = rng.integers(4, size=len(X))
    expected = linear_cross_entropy(X, W, b, y, n_jobs=1, backend=backend)
    for n_jobs in (2, 3, 7):
        actual = linear_cross_entropy(X, W, b, y, n_jobs=n_jobs, backend=backend)
        for one, other in zip(expected, actual, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (((2, 3), (4, 5), (4,)), "X must be of shape"),
        (((2,), (4, 2), (4,)), "X must be of shape"),
        (((2, 3), (3,), (3,)), "X must be of shape"),
        (((2, 3), (0, 3), (0,)), "K >= 1"),
        (((2, 3), (4, 3), (3,)), r"b must be of shape \(4,\), got \(3,\)"),
        (((2, 3), (4, 3), (4, 1)), "b must be of shape"),
        (((2, 3), (4, 3), ()), "b must be of shape"),
    ],
)
def test_linear_bad_shapes(shapes, match, backend):
    X, W, b = map(np.zeros, shapes)
    with pytest.raises(ValueError, match=match):
        linear_cross_entropy(X, W, b, [0, 0], backend=backend)


def test_linear_bad_dtypes(backend):
    good = np.zeros((2, 3)), np.zeros((4, 3)), np.zeros(4)
    for i, name in enumerate(["X", "W", "b"]):
        for dtype in (complex, object, "U1", "M8[s]"):
            bad = [a.astype(dtype) if i == k else a for k, a in enumerate(good)]
            with pytest.raises(TypeError, match=f"{name} must hold real"):
                linear_cross_entropy(*bad, [0, 0], backend=backend)


# ---- ignored rows


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("dtype", "ignored"), [("i8", -100), ("i1", -100), ("u1", 255), ("i8", 0)])
def test_ignored_labels(dtype, ignored, smoothing, reduction, real, backend, rng):
    """As `torch.nn.functional.cross_entropy`: they cost nothing, and the mean leaves them out."""
    logits, y = rng.normal(size=(9, 4)).astype(real), np.arange(9) % 4
    kept = y != (0 if ignored == 0 else 2)
    given = np.where(kept, y, ignored).astype(dtype)
    options = {"label_smoothing": smoothing, "reduction": reduction, "backend": backend}
    options["return_grad"] = True
    for weights in (None, rng.uniform(0.5, 2.0, 9)):
        part = None if weights is None else weights[kept]
        loss, grad = cross_entropy(
            logits, given, sample_weight=weights, ignore_index=ignored, **options
        )
        expected, expected_grad = cross_entropy(
            logits[kept], y[kept], sample_weight=part, **options
        )
        if reduction == "none":
            assert not loss[~kept].any()
            loss = loss[kept]
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        np.testing.assert_allclose(grad[kept], expected_grad, rtol=1e-6)
        assert not grad[~kept].any()
        if reduction != "none":
            W, b = rng.normal(size=(4, 4)).astype(real), rng.normal(size=4).astype(real)
            results = (
                linear_cross_entropy(
                    logits, W, b, given, sample_weight=weights, ignore_index=ignored, **options
                ),
                linear_cross_entropy(logits[kept], W, b, y[kept], sample_weight=part, **options),
            )
            for whole, only in zip(*results, strict=True):
                np.testing.assert_allclose(whole, only, rtol=1e-4, atol=1e-6)
        assert accuracy(
            given, logits, sample_weight=weights, ignore_index=ignored
        ) == pytest.approx(accuracy(y[kept], logits[kept], sample_weight=part))
    predicted = logits.argmax(axis=1)
    assert accuracy(given, predicted, ignore_index=ignored) == accuracy(y[kept], predicted[kept])


def test_rows_of_weight_0_may_have_any_target(real, backend, rng):
    logits, y = rng.normal(size=(6, 3)).astype(real), np.arange(6) % 3
    weights = (y != 1).astype(float)
    labels, probs = np.where(y == 1, -100, y), np.eye(3)[y]
    kept = y != 1
    expected = cross_entropy(logits[kept], y[kept], backend=backend)
    for wrong in (0.0, NAN, INF, -1.0):
        spoilt = np.where(kept[:, np.newaxis], probs, wrong)
        for targets in (labels, spoilt):
            loss, grad = cross_entropy(
                logits, targets, sample_weight=weights, return_grad=True, backend=backend
            )
            assert loss == pytest.approx(expected, rel=1e-6)
            assert np.isfinite(grad).all() and not grad[~kept].any()
            assert linear_cross_entropy(
                logits, np.eye(3, dtype=real), None, targets, sample_weight=weights, backend=backend
            )[0] == pytest.approx(expected, rel=1e-6)
    assert accuracy(labels, logits, sample_weight=weights) == accuracy(y[kept], logits[kept])


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"ignore_index": 1.5}, TypeError, "ignore_index must be None or an integer, got 1.5"),
        ({"ignore_index": "a"}, TypeError, "ignore_index must be None or an integer, got 'a'"),
        ({"ignore_index": -100, "y": [[1, 0], [0, 1]]}, ValueError, "ignore_index is for labels"),
        ({"ignore_index": 1, "y": [1, 1]}, ValueError, "2 rows with a sum of 0.0"),
        ({"ignore_index": 1, "y": [1, -100]}, ValueError, "got -100 in row 1"),
        ({"ignore_index": 1, "y": [1, 1, 0]}, ValueError, r"must be of shape \(2,\), got \(3,\)"),
        ({"y": [1, -100]}, ValueError, r"class indices in \[0, 2\), got -100 in row 1"),
    ],
)
def test_errors_about_ignored_labels(given, error, match):
    given = {"y": [0, 1], **given}
    with pytest.raises(error, match=match):
        cross_entropy(np.zeros((2, 2)), **given)
    with pytest.raises(error, match=match):
        linear_cross_entropy(np.zeros((2, 1)), np.zeros((2, 1)), None, **given)


@pytest.mark.parametrize(("dtype", "error"), [("f2", 2e-3), ("f4", 5e-5), ("f8", 5e-6)])
def test_rows_of_probabilities_are_divided_by_their_sums(dtype, error, backend, rng):
    """Otherwise the loss would depend on what is added to all logits of a row."""
    logits = rng.normal(size=(8, 5))
    probs = (rng.dirichlet(np.ones(5), 8) * (1.0 - error)).astype(dtype)
    normed = probs / probs.sum(axis=1, keepdims=True, dtype=np.float64)
    for shift in (0.0, 1000.0):
        loss = cross_entropy(logits + shift, probs, backend=backend)
        assert loss == pytest.approx(cross_entropy(logits, normed, backend=backend), rel=1e-11)
    with pytest.raises(ValueError, match="must sum to 1 within"):
        cross_entropy(logits, probs * (1.0 - 6.0 * error), backend=backend)


# ---- accuracy


def test_accuracy_of_labels():
    assert accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75
    assert accuracy([0, 1], [0.0, 1.0]) == 1.0
    assert accuracy(["a", "b"], np.array(["a", "a"], dtype=object)) == 0.5
    assert accuracy([True, False], [1, 1]) == 0.5
    assert accuracy([0, 1, 1], [0, 0, 1], sample_weight=[2, 1, 1]) == 0.75


def test_accuracy_of_scores(real):
    scores = np.array([[1, 1, 0], [0, 1, 1], [0, NAN, 9], [-INF, 3, INF]], dtype=real)
    assert accuracy([0, 1, 2, 2], scores) == 0.75  # the first of equal ones; NaN is a miss
    assert accuracy([0, 1, 1, 2], scores, sample_weight=[0, 0, 1, 0]) == 0.0
    assert accuracy([0, 0], np.zeros((2, 1))) == 1.0


@pytest.mark.parametrize(
    ("y_true", "y_pred", "error", "match"),
    [
        ([0, 1], [0.2, 0.7], ValueError, "scores > 0"),
        ([0, 1], [NAN, 1.0], ValueError, "fractions or NaN"),
        ([0, 1], [0], ValueError, r"got shapes \(2,\) and \(1,\)"),
        ([[0, 1]], [0, 1], ValueError, "got shapes"),
        (["a", "b"], [0, 1], TypeError, "labels of one type"),
        ([0, 2], [[1.0, 2.0], [1.0, 2.0]], ValueError, "got 2 in row 1"),
        (["a", "b"], [[1.0, 2.0], [1.0, 2.0]], TypeError, "y_true must hold integer"),
        ([0, 1], [[1j, 2.0], [1.0, 2.0]], TypeError, "y_pred must hold real"),
        ([0, 1], np.zeros((2, 0)), ValueError, "at least one class"),
    ],
)
def test_accuracy_errors(y_true, y_pred, error, match):
    with pytest.raises(error, match=match):
        accuracy(y_true, y_pred)


# ---- backends


def test_unknown_backend():
    for bad in ("cuda", None, ["numpy"]):
        with pytest.raises(ValueError, match="backend must be 'auto', 'native' or 'numpy'"):
            resolve_backend(bad)
        with pytest.raises(ValueError, match="backend must be"):
            softmax([0.0], backend=bad)


def test_missing_kernels_are_reported_once(monkeypatch):
    backend_module._import_native.cache_clear()
    monkeypatch.setitem(sys.modules, "fastsoftmax.kernels", None)  # import raises ImportError
    monkeypatch.setattr(backend_module, "_warned", False)
    try:
        with pytest.raises(ImportError, match="backend='native' needs the compiled kernels"):
            resolve_backend("native")
        with pytest.warns(RuntimeWarning, match="compiled kernels of fastsoftmax are missing"):
            assert resolve_backend("auto").__name__ == "fastsoftmax.reference"
        assert resolve_backend("auto").__name__ == "fastsoftmax.reference"  # warnings are errors
    finally:
        backend_module._import_native.cache_clear()


def test_import_costs_numpy_only():
    code = (
        "import sys, fastsoftmax.functional\n"
        "heavy = {'scipy', 'sklearn', 'joblib', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
