"""The solvers' vectors: the kernels against their numpy twin, and what uses them."""

import numpy as np
import pytest
from scipy import sparse
from sparse_rows import random_array

from fastsoftmax import reference
from fastsoftmax.kernel_arguments import GradientTerms
from fastsoftmax.shards.csr_shard import columns_of
from fastsoftmax.solvers.vectors import Vectors

# Around a vector, a chunk of 256 columns and a range of 32768 numbers.
SIZES = [0, 1, 7, 8, 9, 31, 32, 33, 255, 257, 32768, 65537, 200001]
SHAPES = [(1, 1), (1, 300), (2, 5), (3, 257), (20, 4099), (130, 700), (1, 70001)]


def close(got, expected, scale=1.0):
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12 * max(1.0, scale))


class TestLines:
    @pytest.mark.parametrize("n", SIZES)
    def test_dot(self, kernels, isa, rng, n):
        a, b = rng.normal(size=(2, n))
        assert kernels.dot(a, b, isa=isa) == pytest.approx(reference.dot(a, b), abs=1e-12 * (n + 1))

    @pytest.mark.parametrize("n", SIZES)
    @pytest.mark.parametrize("place", ["new", "y", "x"])
    @pytest.mark.parametrize("with_product", [True, False])
    def test_add_scaled(self, kernels, isa, rng, n, place, with_product):
        y, x, other = rng.normal(size=(3, n))
        expected = y - 1.7 * x
        out = {"new": np.full(n, np.nan), "y": y, "x": x}[place]
        other = other if with_product else None
        product = kernels.add_scaled(out, y, -1.7, x, other, isa=isa)
        close(out, expected)
        assert product == pytest.approx(
            float(expected @ other) if with_product else 0.0, abs=1e-12 * (n + 1)
        )

    def test_what_is_not_finite_stays_so(self, kernels, isa):
        y = np.array([1.0, np.inf, np.nan])
        kernels.add_scaled(y, y, 1.0, np.array([np.nan, 1.0, 1.0]), None, isa=isa)
        np.testing.assert_array_equal(y, [np.nan, np.inf, np.nan])


def matrices(rng, shape, n=1):
    return [rng.normal(size=shape) for _ in range(n)]


class TestColumns:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("real", [np.float32, np.float64])
    @pytest.mark.parametrize("scaled", [True, False])
    def test_round_weights(self, kernels, isa, rng, shape, real, scaled):
        (V,) = matrices(rng, shape)
        scale = rng.uniform(0.1, 5.0, size=shape[1]) if scaled else None
        center = rng.normal(size=shape[1])
        got, expected = np.empty((2, *shape), dtype=real)
        along, expected_along = np.empty((2, shape[0]))
        kernels.round_weights(got, along, V, scale, center, isa=isa)
        reference.round_weights(expected, expected_along, V, scale, center)
        np.testing.assert_array_equal(got, expected)
        close(along, expected_along, shape[1])

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("real", [np.float32, np.float64])
    @pytest.mark.parametrize("scaled", [True, False])
    @pytest.mark.parametrize("with_base", [True, False])
    def test_assemble_gradient(self, kernels, isa, rng, shape, real, scaled, with_base):
        W, gradient, base = matrices(rng, shape, 3)
        W, base = W.astype(real), base if with_base else None
        scale = rng.uniform(0.1, 5.0, size=shape[1]) if scaled else None
        center, bias = rng.normal(size=shape[1]), rng.normal(size=shape[0])
        results = []
        for module, options in ((kernels, {"isa": isa}), (reference, {})):
            out, along = gradient.copy(), np.empty(shape[0])
            sums = module.assemble_gradient(
                out, along, W, bias, GradientTerms(center, scale, base, 0.03, 0.7), **options
            )
            results.append((out, along, np.array(sums)))
        for got, expected in zip(*results, strict=True):
            close(got, expected, W.size)

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("with_means", [True, False])
    @pytest.mark.parametrize("alike", [True, False])
    def test_within_product(self, kernels, isa, rng, shape, with_means, alike):
        gradient, means = matrices(rng, shape, 2)
        inverse = rng.uniform(0.1, 5.0, size=(1, shape[1]) if alike else shape)
        means = means if with_means else None
        bias = rng.normal(size=shape[0])
        got, expected = np.empty((2, *shape))
        along, expected_along = np.empty((2, shape[0]))
        kernels.within_product(got, along, gradient, inverse, means, bias, isa=isa)
        reference.within_product(expected, expected_along, gradient, inverse, means, bias)
        close(got, expected)
        close(along, expected_along, shape[1])
        if shape[0] > 1:
            close(got.sum(axis=0), 0.0, 100.0)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("n_logits", [1, 3, 20, 65])
def test_columns_product(kernels, isa, rng, real, n_logits):
    X = random_array((1500, 90), density=0.05, rng=rng, format="csr", dtype=real)
    X.data[:] = rng.normal(size=X.nnz)
    factors = rng.normal(size=(1500, n_logits)).astype(real)
    for module, options in ((kernels, {"isa": isa}), (reference, {})):
        rows = module.CsrRows(X.data, X.indices, X.indptr, 90)
        rows.set_columns(*columns_of(X, slice(0, 1500), 640))
        sums, totals = np.ones((n_logits, 90)), np.ones(n_logits)
        for panel, start in enumerate(range(0, 1500, 640)):
            module.columns_product(
                sums, totals, rows, factors[start : start + 640], panel, **options
            )
        exact = factors.astype(np.float64)
        atol = 1e-4 if real == np.float32 else 1e-12
        np.testing.assert_allclose(sums, 1.0 + (X.T @ exact).T, rtol=1e-6, atol=atol)
        np.testing.assert_allclose(totals, 1.0 + exact.sum(axis=0), rtol=1e-6, atol=atol)


def test_bits_do_not_depend_on_threads(kernels, rng):
    shape = 20, 60001
    V, W, base = matrices(rng, shape, 3)
    line, other = rng.normal(size=(2, 1200001))
    center, bias = rng.normal(size=shape[1]), rng.normal(size=shape[0])

    def everything(n):
        weights, gradient, product = np.empty((3, *shape))
        along, dots, sums = np.empty((3, shape[0]))
        out = np.empty_like(line)
        terms = GradientTerms(center, center**2, base, 0.1, 0.2)
        gradient[...] = V
        kernels.round_weights(weights, along, V, center**2, center, n_threads=n)
        kernels.within_product(product, dots, V, W**2, base, bias, n_threads=n)
        scalars = [
            kernels.dot(line, other, n_threads=n),
            kernels.add_scaled(out, line, 0.3, other, line, n_threads=n),
            *kernels.assemble_gradient(gradient, sums, W, bias, terms, n_threads=n),
        ]
        return weights, along, product, dots, out, gradient, sums, np.array(scalars)

    first = everything(1)
    for n in (2, 3, 7):
        for a, b in zip(first, everything(n), strict=True):
            np.testing.assert_array_equal(a, b)


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "arguments", "message"),
        [
            ("dot", (np.ones(3), np.ones(4)), "b must have 3 elements"),
            ("dot", (np.ones(3, np.float32), np.ones(3)), "a must hold float64"),
            ("add_scaled", (np.ones(3), np.ones(3), 1.0, np.ones(2), None), "x must have 3"),
            ("add_scaled", (np.ones(3), np.ones(3), "a", np.ones(3), None), "real number|float"),
            (
                "round_weights",
                (np.ones((2, 3)), np.ones(2), np.ones((2, 4)), None, np.ones(4)),
                "weights must be contiguous",
            ),
            (
                "within_product",
                (np.ones((2, 3)), np.ones(2), np.ones((2, 3)), np.ones((3, 3)), None, np.ones(2)),
                "inverse must be contiguous",
            ),
            (
                "assemble_gradient",
                (np.ones((2, 3)), np.ones(2), np.ones((2, 3)), np.ones(3),
                 GradientTerms(np.ones(3), None, None, 1.0, 1.0)),
                "grad_bias must have 2 elements",
            ),
            ("columns_product", (np.ones((2, 3)), np.ones(2), None, np.ones((4, 2)), 0), "CsrRows"),
        ],
    )  # fmt: skip
    def test_are_checked(self, kernels, name, arguments, message):
        with pytest.raises((ValueError, TypeError), match=message):
            getattr(kernels, name)(*arguments)

    @pytest.mark.parametrize("panel", [-1, 2])
    def test_panels_are_checked(self, kernels, panel):
        X = sparse.csr_array(np.eye(6))
        rows = kernels.CsrRows(X.data, X.indices, X.indptr, 6)
        with pytest.raises(ValueError, match="set_columns"):
            kernels.columns_product(np.ones((1, 6)), np.ones(1), rows, np.ones((3, 1)), 0)
        rows.set_columns(*columns_of(X, slice(0, 6), 3))
        with pytest.raises(ValueError, match="panel must lie in"):
            kernels.columns_product(np.ones((1, 6)), np.ones(1), rows, np.ones((3, 1)), panel)
        with pytest.raises(ValueError, match="factors must be contiguous"):
            kernels.columns_product(np.ones((1, 6)), np.ones(1), rows, np.ones((4, 1)), 1)


@pytest.mark.parametrize("n", [10, 100_000])
@pytest.mark.parametrize("twin", [True, False])
def test_vectors(kernels, rng, n, twin):
    a, b, c = rng.normal(size=(3, n))
    vectors = Vectors(reference if twin else kernels, 2)
    assert vectors.dot(a, b) == pytest.approx(float(a @ b), abs=1e-9)
    close(vectors.sum(a, 2.0, b), a + 2.0 * b)
    y = a.copy()
    assert vectors.add(y, -0.5, b, c, out=y) == pytest.approx(float((a - 0.5 * b) @ c), abs=1e-9)
    close(y, a - 0.5 * b)
    out = np.full(n, np.nan)
    assert vectors.add(y, 0.5, b, out=out) == 0.0
    close(out, a)
    vectors.multiply(out, -3.0)
    close(out, -3.0 * a)
