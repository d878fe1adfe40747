"""Sums over dense rows by feature against the numpy twin in float64."""

import itertools

import numpy as np
import pytest
from sparse_rows import random_array

from fastsoftmax import reference

# Around vectors of 2 to 16 numbers.
WIDTHS = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 61]
# Around tiles of 4 rows and blocks of 128.
ROWS = [0, 1, 3, 4, 5, 127, 128, 129, 300]


@pytest.fixture
def make(make_problem, storage):
    """A function that makes a problem of so many rows and features."""
    return lambda n, d: make_problem(n, d, 2, storage=storage)


def given(problem, rng, real):
    """A shift within the features, and units."""
    size = max(1.0, float(np.abs(problem.X.astype(np.float64)).max(initial=0.0)))
    d = problem.X.shape[1]
    shift = rng.uniform(-size / 2, size / 2, d).astype(real)
    return shift, (rng.uniform(0.5, 2.0, d) / size).astype(real)


def moments_of(module, X, row_weights, shift, units, **options):
    """Sums and squares, in memory that held NaN, and the largest square."""
    sums, squares = np.full((2, X.shape[1]), np.nan)
    largest = module.feature_moments(sums, squares, X, row_weights, shift, units, **options)
    return sums, squares, largest


@pytest.mark.parametrize("at", [0, 9_999, 19_999])
def test_the_largest_row_of_any_part(kernels, isa, at):
    """So many numbers are cut into parts."""
    X = np.zeros((20_000, 128), dtype=np.float32)
    X[at] = 1.0
    ones = np.ones(len(X), dtype=np.float32)
    found = moments_of(
        kernels, X, ones, np.zeros(128, np.float32), np.ones(128, np.float32), isa=isa
    )
    assert found[2] == 128.0


def test_sizes(kernels, isa, make, rng, real):
    for i in range(max(len(WIDTHS), len(ROWS))):
        problem = make(ROWS[i % len(ROWS)], WIDTHS[i % len(WIDTHS)])
        shift, units = given(problem, rng, real)
        before = problem.X.tobytes()
        found = moments_of(kernels, problem.X, problem.row_weights, shift, units, isa=isa)
        assert problem.X.tobytes() == before
        exact = [part.astype(np.float64) for part in (shift, units)]
        expected = moments_of(reference, problem.exact.X, problem.exact.row_weights, *exact)
        # rounding errors of y are in proportion to what it is the difference of
        sizes = (np.abs(problem.exact.X) + np.abs(exact[0])) * exact[1]
        unit = 16.0 * np.finfo(real).eps
        weights = problem.exact.row_weights[:, np.newaxis]
        limits = [(weights * sizes**power).sum(axis=0) for power in (1, 2)]
        for actual, wanted, limit in zip(found, expected, limits, strict=False):
            assert (np.abs(actual - wanted) <= unit * limit).all(), problem.X.shape
        longest = (sizes**2).sum(axis=1).max(initial=0.0)
        assert abs(found[2] - expected[2]) <= unit * longest


def test_is_the_plain_formula(kernels, make, rng, real):
    problem = make(50, 7)
    shift, units = given(problem, rng, real)
    y = (problem.exact.X - shift) * units
    weighted = problem.exact.row_weights[:, np.newaxis] * y
    tolerance = {"rtol": 1e-4 if real == np.float32 else 1e-11, "atol": 1e-4}
    for module in (kernels, reference):
        sums, squares, largest = moments_of(module, problem.X, problem.row_weights, shift, units)
        np.testing.assert_allclose(sums, weighted.sum(axis=0), **tolerance)
        np.testing.assert_allclose(squares, (weighted * y).sum(axis=0), **tolerance)
        assert largest == pytest.approx((y * y).sum(axis=1).max(), rel=1e-4)


def test_threads_and_layouts_do_not_change_a_bit(kernels, isa, make, rng, real):
    """Sixteen parts, and rows that lie anyhow."""
    for n, d in ((5000, 300), (4100, 17), (1, 5)):
        problem = make(n, d)
        shift, units = given(problem, rng, real)
        model = problem.row_weights, shift, units
        sums, squares, largest = moments_of(kernels, problem.X, *model, isa=isa)
        for X in (problem.X, np.asfortranarray(problem.X), problem.X[::-1].copy()[::-1]):
            for n_threads in (1, 2, 3, 7):
                again = moments_of(kernels, X, *model, isa=isa, n_threads=n_threads)
                np.testing.assert_array_equal(again[0], sums)
                np.testing.assert_array_equal(again[1], squares)
                assert again[2] == largest


def test_what_is_not_finite_shows(kernels, isa, make, rng, real):
    if make(1, 1).X.dtype.kind != "f":
        pytest.skip("integers are finite")
    for value in (np.nan, np.inf):
        problem = make(20, 4)
        problem.X[7, 2] = value
        model = np.ones_like(problem.row_weights), *given(make(1, 4), rng, real)
        sums, squares, largest = moments_of(kernels, problem.X, *model, isa=isa)
        assert not np.isfinite(sums[2]) and not np.isfinite(squares[2])
        assert not np.isfinite(largest)
        assert np.isfinite(np.delete(sums, 2)).all()


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_sparse_columns(kernels, isa, make_problem, rng, real, index):
    for n, d in ((0, 3), (1, 1), (5, 61), (300, 17)):
        X = random_array((n, d), density=0.3, format="csr", rng=rng).astype(real)
        data = np.concatenate([X.data, X.data])  # each entry twice, in any order
        indptr = (2 * X.indptr).astype(index)
        order = np.concatenate(
            [[*range(a, b)] * 2 for a, b in itertools.pairwise(X.indptr)] or [[]]
        ).astype(int)
        arrays = data[order], X.indices[order].astype(index), indptr
        row_weights = rng.uniform(0.0, 2.0, n).astype(real)
        found, expected = np.full((2, 2, d), np.nan)
        kernels.csr_moments(*found, kernels.CsrRows(*arrays, d), row_weights, isa=isa)
        reference.csr_moments(*expected, reference.CsrRows(*arrays, d), row_weights)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        weights, dense = row_weights.astype(np.float64), X.toarray().astype(np.float64)
        np.testing.assert_allclose(found[0], 2.0 * weights @ dense, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[1], 2.0 * weights @ dense**2, rtol=1e-12, atol=1e-12)


def test_sparse_arguments_are_checked(kernels, rng):
    rows = kernels.CsrRows(np.ones(2), np.array([0, 1], np.int32), np.array([0, 1, 2], np.int32), 3)
    outputs = np.empty((2, 3))
    with pytest.raises(ValueError, match="row_weights must have 2 elements"):
        kernels.csr_moments(*outputs, rows, np.ones(3))
    with pytest.raises(ValueError, match="X must be CsrRows"):
        kernels.csr_moments(*outputs, np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="squares must have 3"):
        kernels.csr_moments(outputs[0], np.empty(2), rows, np.ones(2))
