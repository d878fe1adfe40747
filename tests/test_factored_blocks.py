"""Block-diagonal matrices, factored: the kernels against their numpy twins and against numpy."""

import numpy as np
import pytest

from fastsoftmax import reference

# (n_logits, n_features, rows of a block; 0: factors of the blocks themselves)
SIZES = [(1, 1, 0), (1, 9, 3), (2, 5, 7), (3, 33, 4), (5, 40, 0), (7, 300, 21), (20, 65, 0)]


def factor_of(matrix):
    """Its Cholesky factor, with NaN where nothing may be read."""
    factor = np.linalg.cholesky(matrix)
    factor[np.triu_indices(len(matrix), 1)] = np.nan
    return factor


class Blocks:
    """Random blocks of a number type, and the matrices that they stand for."""

    def __init__(self, rng, size, real, with_bias):
        n_logits, d, n_rows = size
        n = d + with_bias
        self.roots = rng.uniform(0.5, 2.0, size=(n_logits, n))
        self.factors, self.rows, self.matrices = [], [], []
        self.shape, self.n_features = (n_logits, n), d
        for k in range(n_logits):
            m = n_rows + k % 2 if n_rows else n
            Z = rng.normal(size=(m, n)) / np.sqrt(n)
            if k % 4 == 3:
                Z = Z[:0]
            elif n_rows:
                self.factors.append(factor_of(np.eye(m) + Z @ Z.T).astype(real))
                self.rows.append(Z.astype(real))
            else:
                self.factors.append(factor_of(np.eye(n) + Z.T @ Z).astype(real))
                self.rows.append(None)
            if k % 4 == 3:
                self.factors.append(np.empty((0, 0), real))
                self.rows.append(None)
            D = np.diag(1.0 / self.roots[k])
            self.matrices.append(D @ (np.eye(n) + Z.T @ Z) @ D)

    def of(self, module):
        return module.FactoredBlocks(self.factors, self.rows, self.roots, self.n_features)

    def flat(self, vectors):
        """Vectors (n_logits, n) as solvers have them: all weights, then the intercepts."""
        d = self.n_features
        return np.concatenate([vectors[:, :d].ravel(), vectors[:, d:].ravel()])

    def solved(self, vectors):
        found = np.array(
            [np.linalg.solve(*pair) for pair in zip(self.matrices, vectors, strict=True)]
        )
        return self.flat(found - found.mean(axis=0) if len(found) > 1 else found)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("with_bias", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 1e-60, 1e60])
def test_solve(kernels, isa, rng, size, real, with_bias, scale):
    blocks = Blocks(rng, size, real, with_bias)
    vectors = rng.normal(size=blocks.shape)
    expected = blocks.solved(vectors)
    rtol = 1e-4 if real == np.float32 else 1e-12
    for module, options in ((kernels, {"isa": isa}), (reference, {})):
        out = np.full(vectors.size, np.nan)
        blocks.of(module).solve(out, scale * blocks.flat(vectors), **options)
        np.testing.assert_allclose(out / scale, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("twin", [True, False])
def test_what_is_not_finite_stays_so(kernels, rng, twin):
    blocks = Blocks(rng, (2, 6, 3), np.float32, 1)
    module = reference if twin else kernels
    for value in (np.nan, np.inf):
        vectors = np.zeros(blocks.shape)
        vectors[1, 2] = value
        out = np.zeros(vectors.size)
        blocks.of(module).solve(out, blocks.flat(vectors))
        assert not np.isfinite(out).all()
    blocks.of(module).solve(out, np.zeros(vectors.size))
    np.testing.assert_array_equal(out, 0.0)


@pytest.mark.parametrize("size", [(7, 300, 21), (30, 90, 0)])
def test_bits_do_not_depend_on_threads(kernels, rng, size):
    blocks = Blocks(rng, size, np.float32, 1)
    gradient = rng.normal(size=blocks.roots.size)
    first, other = np.empty((2, gradient.size))
    blocks.of(kernels).solve(first, gradient)
    for n in (2, 3, 7):
        blocks.of(kernels).solve(other, gradient, n_threads=n)
        np.testing.assert_array_equal(other, first)


def test_the_arrays_are_kept(kernels, rng):
    blocks = Blocks(rng, (3, 50, 5), np.float64, 0)
    vectors = rng.normal(size=blocks.shape)
    expected, out = blocks.solved(vectors), np.empty(vectors.size)
    made = blocks.of(kernels)
    blocks.factors, blocks.rows, blocks.roots = [], [], None
    _ = [np.full((50, 50), np.nan) for _ in range(20)]
    made.solve(out, blocks.flat(vectors))
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


class TestFactor:
    """The Cholesky factor of I + Z Z^T."""

    @pytest.mark.parametrize("real", [np.float32, np.float64])
    def test_sizes(self, kernels, isa, rng, real):
        unit = 16.0 * np.finfo(real).eps
        for order in (*range(10), 15, 16, 17, 33, 64, 70):
            for n in (0, 1, 3, 4, 8, 15, 16, 17, 40, 100):
                Z = rng.normal(size=(order, n)).astype(real)
                given = Z.copy()
                for module, options in ((kernels, {"isa": isa}), (reference, {})):
                    out = np.full((order, order), np.nan, real)
                    assert module.factor_block(out, Z, **options)
                    np.testing.assert_array_equal(Z, given)
                    L = np.tril(out).astype(np.float64)
                    wanted = np.eye(order) + Z.astype(np.float64) @ Z.T.astype(np.float64)
                    size = 1.0 + np.abs(Z) @ np.abs(Z.T) + np.abs(L) @ np.abs(L.T)
                    assert (np.abs(L @ L.T - wanted) <= unit * size).all(), (order, n)
                    assert (L.diagonal() > 0.0).all()

    def test_what_lies_above_stays(self, kernels, isa):
        out = np.full((7, 7), np.nan)
        assert kernels.factor_block(out, np.ones((7, 3)), isa=isa)
        assert np.isnan(out[np.triu_indices(7, 1)]).all()
        assert np.isfinite(out[np.tril_indices(7)]).all()

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
    @pytest.mark.parametrize("row", [0, 5])
    def test_products_that_are_not_finite(self, kernels, isa, value, row):
        Z = np.ones((6, 9), dtype=np.float32)
        Z[row, 4] = value
        for module, options in ((kernels, {"isa": isa}), (reference, {})):
            assert not module.factor_block(np.zeros((6, 6), np.float32), Z, **options)

    @pytest.mark.parametrize(
        ("out", "rows", "message"),
        [
            (np.eye(3), np.ones((3, 2), np.float32), "out must hold float32"),
            (np.eye(3), np.ones((2, 2)), r"of shape \(2, 2\)"),
            (np.eye(6)[::2, ::2], np.ones((3, 2)), "adjacent in memory"),
            (np.ones((2, 3))[:, :2], np.ones((2, 2)), r"of shape \(2, 2\)"),
            (np.eye(2), np.ones((2, 3))[:, :2], "rows must be contiguous"),
            (np.eye(2), np.ones((2, 3), int), "rows must hold"),
            (np.eye(2), np.ones(3), "rows must have 2 dimension"),
        ],
    )
    def test_arguments(self, kernels, out, rows, message):
        with pytest.raises((ValueError, TypeError), match=message):
            kernels.factor_block(out, rows)

    def test_what_is_read_only(self, kernels):
        out = np.eye(2)
        out.flags.writeable = False
        with pytest.raises(ValueError, match="out"):
            kernels.factor_block(out, np.ones((2, 3)))


EYE, ROOTS = np.eye(3), np.ones((1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([EYE], [None], np.ones(3), 3), "roots must have 2 dimension"),
        (([EYE], [None], ROOTS.astype(np.float32), 3), "roots must hold float64"),
        (([EYE], [None], np.empty((0, 3)), 3), "a row for each logit"),
        (([EYE], [None], ROOTS, 1), "n_features must be 3 or 2, got 1"),
        (([EYE], [None], ROOTS, -1), "n_features must lie in"),
        (([EYE], [], ROOTS, 3), "there must be 1 factors and rows"),
        (([EYE, EYE], [None, None], ROOTS, 3), "there must be 1 factors and rows"),
        (([EYE, EYE.astype(np.float32)], [None] * 2, np.ones((2, 3)), 3), "of one number type"),
        (([np.ones((3, 2))], [None], ROOTS, 3), "square and contiguous"),
        (([np.eye(6)[::2, ::2]], [None], ROOTS, 3), "adjacent in memory"),
        (([np.eye(2)], [None], ROOTS, 3), "order 0 or 3"),
        (([np.eye(2)], [np.ones((3, 3))], ROOTS, 3), r"of shape \(2, 3\)"),
        (([np.eye(2)], [np.ones((2, 4))[:, :3]], ROOTS, 3), r"of shape \(2, 3\)"),
        (([np.eye(2)], [np.ones((2, 3), np.float32)], ROOTS, 3), "rows must hold float64"),
        (([EYE.astype(int)], [None], ROOTS, 3), "factors must hold"),
    ],
)
def test_arguments_are_checked(kernels, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        kernels.FactoredBlocks(*arguments)


def test_vectors_are_checked(kernels):
    blocks = kernels.FactoredBlocks([EYE], [None], ROOTS, 2)
    for out, gradient in ((np.ones(2), np.ones(3)), (np.ones(3), np.ones(4))):
        with pytest.raises(ValueError, match="must have 3 elements"):
            blocks.solve(out, gradient)
    with pytest.raises(ValueError, match="made once"):
        blocks.__init__([EYE], [None], ROOTS, 2)
    with pytest.raises(ValueError, match="made first"):
        kernels.FactoredBlocks.__new__(kernels.FactoredBlocks).solve(np.ones(3), np.ones(3))
