"""The Hessian of the loss over dense rows against the numpy twin in float64."""

import numpy as np
import pytest

from fastsoftmax import reference
from fastsoftmax.kernel_arguments import Scaling

# Around vectors of 2 to 16 numbers, panels of 8 or 16 columns, and tiles of 4 or 8 of them by 3
# vectors.
WIDTHS = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 25, 31, 33, 49, 61]
# Around blocks of 128 rows.
ROWS = [0, 1, 2, 9, 127, 128, 129, 300]
# Two classes with one logit, two with two, pairs in plenty.
LOGITS = [1, 2, 3, 10]


def scaling_of(rng, X, *, scaled, with_bias=True):
    """A center within the features, scales or None, and whether a 1 stands behind them."""
    d = X.shape[1]
    size = max(1.0, float(np.abs(X.astype(np.float64)).max(initial=0.0)))
    scale = rng.uniform(0.5, 2.0, d) / size if scaled else None
    return Scaling(rng.uniform(-size / 2, size / 2, d), scale, with_bias)


@pytest.fixture
def make(make_problem, storage):
    """A function that makes a problem of so many logits."""

    def of(n, d, n_logits, **options):
        given = {"one_logit": n_logits == 1, "storage": storage, **options}
        return make_problem(n, d, max(2, n_logits), **given)

    return of


def sums_of(module, problem, scaling, **options):
    """The matrix, in memory that held NaN."""
    size = len(problem.bias) * (problem.X.shape[1] + scaling.with_bias)
    out = np.full((size, size), np.nan)
    given = problem.X, problem.row_weights, problem.weights, problem.bias
    module.hessian_sums(out, *given, scaling, **options)
    return out


def magnitudes(problem, scaling):
    """The sums of the sizes of what is added up, larger by what a logit's rounding changes.

    A probability is off relatively by as much as its logits are: by a few units in the last place
    of the sums of the sizes of their terms.
    """
    X, weights, bias = problem.exact.X, problem.exact.weights, problem.exact.bias
    center, scale, with_bias = scaling
    spread = (np.abs(X) @ np.abs(weights).T + np.abs(bias)).max(axis=1, initial=0.0)
    z = (np.abs(X) + np.abs(center)) * (1.0 if scale is None else scale)
    z = np.hstack([z, np.ones((len(X), int(with_bias)))])
    logits = X @ weights.T + bias
    if len(bias) == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    h = np.einsum("ik,il->ikl", p, p)
    np.einsum("ikk->ik", h)[...] = p * (1.0 - p)
    h *= (problem.exact.row_weights * (1.0 + spread))[:, np.newaxis, np.newaxis]
    n_logits, m = len(bias), z.shape[1]
    h = h[:, -n_logits:, -n_logits:]
    return np.einsum("ikl,ia,ib->kalb", h, z, z, optimize=True).reshape(n_logits * m, n_logits * m)


@pytest.fixture
def check(kernels, isa, rng, real):
    """A function that holds the matrix of a problem to the twin."""

    def of(problem, *, scaled, with_bias):
        scaling = scaling_of(rng, problem.X, scaled=scaled, with_bias=with_bias)
        before = problem.X.tobytes(), problem.weights.tobytes(), scaling[0].tobytes()
        actual = sums_of(kernels, problem, scaling, isa=isa)
        assert before == (problem.X.tobytes(), problem.weights.tobytes(), scaling[0].tobytes())
        expected = sums_of(reference, problem.exact, scaling)
        limit = 8.0 * np.finfo(real).eps * magnitudes(problem, scaling)
        assert (np.abs(actual - expected) <= limit).all(), (problem.X.shape, len(problem.bias))
        np.testing.assert_array_equal(actual, actual.T)
        return actual

    return of


@pytest.mark.parametrize("n_logits", LOGITS)
def test_sizes(check, make, n_logits):
    for i, d in enumerate(WIDTHS):
        n = ROWS[i % len(ROWS)]
        check(make(n, d, n_logits), scaled=i % 2 == 0, with_bias=i % 3 > 0)
    for i, n in enumerate(ROWS):
        check(make(n, 10, n_logits), scaled=i % 2 > 0, with_bias=i % 3 == 0)


def test_is_the_plain_formula(kernels, make, rng):
    """(The twin is written as the kernel is, pair by pair.)"""
    problem = make(40, 5, 3)
    scaling = scaling_of(rng, problem.X, scaled=True)
    exact = problem.exact
    logits = exact.X @ exact.weights.T + exact.bias
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    z = np.hstack([(exact.X - scaling.center) * scaling.scale, np.ones((40, 1))])
    expected = sum(
        s * np.kron(np.diag(p_i) - np.outer(p_i, p_i), np.outer(z_i, z_i))
        for s, p_i, z_i in zip(exact.row_weights, p, z, strict=True)
    )
    rtol = 1e-3 if problem.bias.dtype == np.float32 else 1e-11
    atol = rtol * np.abs(expected).max()
    for module in (kernels, reference):
        actual = sums_of(module, problem, scaling)
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_threads_and_layouts_do_not_change_a_bit(kernels, isa, make, rng):
    """Sixteen parts, a part of each round, and rows that lie anyhow."""
    for n, d, n_logits in ((5000, 30, 1), (4100, 17, 4), (700, 140, 2)):
        problem = make(n, d, n_logits)
        scaling = scaling_of(rng, problem.X, scaled=True)
        expected = sums_of(kernels, problem, scaling, isa=isa)
        for n_threads in (2, 3, 7):
            again = sums_of(kernels, problem, scaling, isa=isa, n_threads=n_threads)
            np.testing.assert_array_equal(again, expected)
        for X in (np.asfortranarray(problem.X), problem.X[::-1].copy()[::-1]):
            again = sums_of(kernels, problem._replace(X=X), scaling, isa=isa, n_threads=3)
            np.testing.assert_array_equal(again, expected)
        every = problem.at(slice(None, None, 3))
        every = every._replace(row_weights=every.row_weights.copy())
        copy = every._replace(X=every.X.copy())
        np.testing.assert_array_equal(
            sums_of(kernels, every, scaling, isa=isa),
            sums_of(kernels, copy, scaling, isa=isa),
        )


def test_rows_without_weight_do_not_count(kernels, isa, make, rng):
    problem = make(150, 9, 3)
    scaling = scaling_of(rng, problem.X, scaled=False)
    none = problem._replace(row_weights=np.zeros_like(problem.row_weights))
    assert not sums_of(kernels, none, scaling, isa=isa).any()
    counted = problem.row_weights > 0.0
    some = problem.at(counted)
    np.testing.assert_allclose(
        sums_of(kernels, problem, scaling, isa=isa),
        sums_of(kernels, some, scaling, isa=isa),
        rtol=1e-3 if problem.bias.dtype == np.float32 else 1e-10,
        atol=1e-3 if problem.bias.dtype == np.float32 else 1e-9,
    )


@pytest.mark.parametrize("module", ["kernels", "reference"])
@pytest.mark.parametrize("n_logits", [1, 2, 5])
def test_decided_rows_keep_their_digits(request, kernels, isa, real, n_logits, module):
    """1 - p of the likeliest class would be 0."""
    of = kernels if module == "kernels" else reference
    bias = np.zeros(n_logits, dtype=real)
    for gap in (30.0, -30.0, 80.0):
        bias[0] = gap
        out, scaling = np.empty((n_logits, n_logits)), Scaling(np.empty(0), None, True)
        X, weights = np.empty((3, 0), dtype=real), np.empty((n_logits, 0), dtype=real)
        of.hessian_sums(out, X, np.ones(3, real), weights, bias, scaling, isa=isa)
        logits = np.append(bias, 0.0) if n_logits == 1 else bias
        p = np.exp(logits.astype(np.float64) - logits.max())
        p /= p.sum()
        rest = [np.delete(p, k).sum() for k in range(n_logits)]
        np.testing.assert_allclose(out.diagonal(), 3.0 * p[:n_logits] * rest, rtol=1e-6)


def test_what_is_not_finite_shows(kernels, isa, make, rng):
    if make(1, 1, 1).X.dtype.kind != "f":
        pytest.skip("integers are finite")
    problem = make(20, 4, 3)
    problem.X[7, 2] = np.nan
    problem = problem._replace(row_weights=np.ones_like(problem.row_weights))
    scaling = scaling_of(rng, problem.X[:1], scaled=False)
    assert np.isnan(sums_of(kernels, problem, scaling, isa=isa)).all()


def test_bad_arguments_are_refused(kernels, real):
    n, d, n_logits = 12, 5, 3
    good = {
        "out": np.empty((18, 18)),
        "X": np.zeros((n, d), real),
        "row_weights": np.ones(n, real),
        "weights": np.zeros((n_logits, d), real),
        "bias": np.zeros(n_logits, real),
        "scaling": Scaling(np.zeros(d), None, True),
    }
    kernels.hessian_sums(**good)
    other = np.float64 if real is np.float32 else np.float32
    sparse = kernels.CsrRows(np.zeros(0, real), np.zeros(0, np.int32), np.zeros(n + 1, np.int32), d)
    for name, bad, error, match in (
        ("out", np.empty((18, 18), np.float32), TypeError, "out must hold float64"),
        ("out", np.empty((15, 15)), ValueError, r"out must be .* shape \(18, 18\)"),
        ("out", np.empty((18, 20))[:, :18], ValueError, "out must be contiguous"),
        ("X", sparse, ValueError, "X must be dense"),
        ("X", np.zeros((n, d + 1), real), ValueError, "weights must be contiguous"),
        ("row_weights", np.ones(n - 1, real), ValueError, "row_weights must have 12 elements"),
        ("row_weights", np.ones(n, other), TypeError, "row_weights must hold"),
        ("weights", np.zeros((n_logits, d), other), TypeError, "must hold|X must"),
        ("bias", np.zeros(2, real), ValueError, "bias must have 3 elements"),
        ("scaling", (np.zeros(4), None, True), ValueError, "center must have 5 elements"),
        ("scaling", (np.zeros(d, np.float32), None, True), TypeError, "center must hold float64"),
        ("scaling", (np.zeros(d), np.ones(4), True), ValueError, "scale must have 5 elements"),
        ("isa", "sse9", ValueError, "isa"),
        ("n_threads", 0, ValueError, "n_threads"),
    ):
        with pytest.raises(error, match=match):
            kernels.hessian_sums(**{**good, name: bad})
