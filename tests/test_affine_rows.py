"""The product of rows and class weights against the numpy twin in float64."""

import numpy as np
import pytest

from fastsoftmax import reference

INF, NAN = np.inf, np.nan

# Nothing; a vector of 2, 4, 8 or 16 numbers, less and more by 1, twice as many and 1; a prime.
WIDTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 61]
# Around the register tiles of 4 rows and of 3 or 6 classes.
TILES = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 6), (8, 7), (9, 12), (19, 13), (0, 3)]


@pytest.fixture
def check(kernels, isa, guarded, ulps):
    """A function that holds the logits of a problem to the twin.

    The error in units of the last place of sum_j |x_ij w_kj| + |b_k| is at most that of numpy's
    product in the same number type, and a few.
    """

    def of(problem):
        X, weights, bias = exact = problem.exact.X, problem.exact.weights, problem.exact.bias
        expected, scale = np.empty((2, len(X), len(weights)))
        reference.affine_rows(expected, *exact)
        reference.affine_rows(scale, *map(np.abs, exact))
        plain = problem.X.astype(problem.bias.dtype) @ problem.weights.T + problem.bias
        out = guarded(expected.shape)
        before = problem.X.tobytes()
        kernels.affine_rows(out.array, problem.X, problem.weights, problem.bias, isa=isa)
        limit = ulps(plain, expected, scale) + 4
        assert ulps(out.checked(), expected, scale) <= limit, (problem.X.shape, len(bias))
        assert problem.X.tobytes() == before
        return out.array

    return of


def test_sizes(check, make_problem, storage):
    for d in WIDTHS:
        for n, n_classes in TILES:
            check(make_problem(n, d, n_classes, storage=storage))


def test_larger_sizes(check, make_problem, storage):
    """A part of the rows has about 2^20 products."""
    for n in (132, 133, 134, 267):
        check(make_problem(n, 784, 10, storage=storage))
    check(make_problem(5, 1009, 101, storage=storage))
    check(make_problem(2000, 3, 2, storage=storage))
    check(make_problem(3, 1, 1000, storage=storage))


def test_large_and_small_numbers(check, make_problem, storage):
    for spread in (1e-20, 1e4, 1e20):
        check(make_problem(9, 37, 5, storage=storage, spread=spread))


def test_a_row_does_not_depend_on_the_others(kernels, isa, make_problem, storage, real, rng):
    for n_classes in (1, 5, 13):
        problem = make_problem(203, 37, n_classes, storage=storage)

        def run(X, problem=problem):
            out = np.empty((len(X), len(problem.bias)), dtype=real)
            kernels.affine_rows(out, X, problem.weights, problem.bias, isa=isa)
            return out

        expected = run(problem.X)
        order = rng.permutation(203)
        np.testing.assert_array_equal(run(problem.X[order]), expected[order])
        for i in (0, 1, 2, 3, 101, 202):
            np.testing.assert_array_equal(run(problem.X[i : i + 1]), expected[i : i + 1])
            np.testing.assert_array_equal(run(problem.X[i:]), expected[i:])


def test_layouts(kernels, isa, make_problem, storage, guarded):
    """Rows apart, upside down, the same one again and again; to rows upside down."""
    problem = make_problem(23, 19, 7, storage=storage)
    expected = np.empty((23, 7), dtype=problem.bias.dtype)
    model = problem.weights, problem.bias
    kernels.affine_rows(expected, problem.X.copy(), *model, isa=isa)
    for X, rows in [
        (problem.X, np.s_[:]),
        (problem.X[::-1], np.s_[::-1]),
        (problem.X[::3], np.s_[::3]),
        (problem.X[::-2], np.s_[::-2]),
        (np.broadcast_to(problem.X[5], (9, 19)), [5] * 9),
    ]:
        out = guarded((len(X), 7))
        kernels.affine_rows(out.array, X, *model, isa=isa)
        np.testing.assert_array_equal(out.checked(), expected[rows])
        kernels.affine_rows(out.array[::-1], X, *model, isa=isa)
        np.testing.assert_array_equal(out.checked()[::-1], expected[rows])


def test_every_value_of_small_storages(kernels, isa, real):
    """uint8, int8 and float16 are converted exactly: subnormal halves, infinities and NaN too."""
    for storage, n in ((np.uint8, 1 << 8), (np.int8, 1 << 8), (np.float16, 1 << 16)):
        values = np.arange(n, dtype=f"u{np.dtype(storage).itemsize}").view(storage)
        with np.errstate(invalid="ignore"):
            expected = values.astype(real)
        for d, j in ((1, 0), (40, 0), (40, 21), (37, 36)):  # in a whole vector and in a tail
            X = np.zeros((n, d), dtype=storage)
            X[:, j] = values
            weights, bias = np.ones((1, d), dtype=real), np.zeros(1, dtype=real)
            out = np.empty((n, 1), dtype=real)
            kernels.affine_rows(out, X, weights, bias, isa=isa)
            np.testing.assert_array_equal(out[:, 0], expected)


def test_special_values_stay_in_their_row(kernels, isa, make_problem, real):
    problem = make_problem(11, 21, 5)
    expected = np.empty((11, 5), dtype=real)
    model = problem.weights, problem.bias
    kernels.affine_rows(expected, problem.X, *model, isa=isa)
    for value in (NAN, INF, -INF):
        for i, j in ((0, 0), (3, 20), (6, 17), (10, 4)):
            X = problem.X.copy()
            X[i, j] = value
            out = np.empty_like(expected)
            kernels.affine_rows(out, X, *model, isa=isa)
            np.testing.assert_array_equal(np.delete(out, i, 0), np.delete(expected, i, 0))
            with np.errstate(invalid="ignore"):
                np.testing.assert_array_equal(out[i], value * np.sign(problem.weights[:, j]))
