"""The Hessian's block of each class from a few rows, factored.

For class k the block is sum_i h_ik z_i z_i^T + l2 I, with h_ik = s_i p_ik (1 - p_ik). Near an
optimum most rows are decided about most classes, so rows are drawn in proportion to h_ik; what
occurs twice counts twice. The drawn rows Z_k alone are an estimate of low rank, without any
curvature in most directions, so a share of the block's diagonal takes the place of as much of them
(`_diagonal_share`). With D_k that share and l2, and Z = Z_k D_k^(-1/2) of m rows and d columns,
the inverse is D_k^(-1/2) (I + Z^T Z)^-1 D_k^(-1/2) with

    (I + Z^T Z)^-1 = I - Z^T (I + Z Z^T)^-1 Z.

So where m < d, a matrix of order m has to be factored, not d (Woodbury). Because of the share, its
condition number is at most about m / _LEAST_ADDED, and float32 is enough. Factors are solved with:
an inverse takes three times as long to make, and is no faster to apply.

Passes to a certified 1e-4, blocks at iterations 6 and 18, from m = 256, 512, 1024, 2048 rows and
from all: images 7500 x 784, K = 10, C = 1: 69, 55, 43, 37, 35; 1000 x 784: 39, 38 and 37 from all;
embeddings 6000 x 512, K = 20: 19 with each. Real embeddings 10003 x 384, K = 77, with 64, 128, 192,
288 and 1540 rows: C = 10: 32, 25, 23, 22, 22 passes; C = 100: 91, 64, 56, 47, 38; C = 1000: 311,
196, 128, 96, 78. Shares of 0.02 and 0.1: the same.

One basis for all classes, in which each class (or the classes' couplings, too) has a diagonal of
its own, is far cheaper and far worse: C = 1, 10, 100 and 1000: 23, 56, 122 and 278 passes. The
principal components of the rows as the basis whose diagonal is added: C = 10, 192 rows: 33 passes
instead of 23.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from fastsoftmax.arrays import Array
from fastsoftmax.blas import single_threaded_blas
from fastsoftmax.problem.evaluation import Located
from fastsoftmax.problem.problem import Problem
from fastsoftmax.shards.curvature import GATHERED, POOL
from fastsoftmax.threads import in_threads

# The least share of the diagonal, and the one from which on it is taken alone.
_LEAST_ADDED, _MOST_SHARE = 0.03, 0.9
# The least curvature of a class, as a share of the mean of all.
_LEAST_SHARE = 1e-3
# Fewest rows that are drawn for a class, and most, for each feature; from one number of rows to the
# next larger one.
_FEWEST, _MOST_PER_FEATURE, _GROWTH = 128, 4, 1.5
# Numbers up to which all rows are taken for a block that all classes share.
_FEW_NUMBERS = 1 << 16
# Most numbers of all blocks (float32, 64 MB).
_MOST_NUMBERS = 1 << 24
# Costs in multiply-adds: of an exponential; of what Python adds for each class; and of the
# arithmetic of products and of a factor, by BLAS and LAPACK.
_EXPONENTIAL, _PER_CLASS, _PER_PRODUCT, _PER_CUBE = 32.0, 4e6, 0.8, 0.4
# Features up to which float64 costs nothing; mean squares, in variances, from which on it is
# needed: the direction that features far from 0 have in common stands out by as much.
_SMALL, _FAR = 128, 100.0
# Rows that tell how large the products of all are.
_SHARE_ROWS = 64
_TINY = float(np.finfo(np.float64).tiny)


class _Block(NamedTuple):
    """B = I + Z^T Z: the Cholesky factor of I + Z Z^T, where rows is Z, or that of B itself.

    A factor of order 0 stands for the identity.
    """

    factor: Array
    rows: Array | None


def _diagonal(number: np.dtype[Any]) -> _Block:
    """Return the block that is the diagonal alone."""
    return _Block(np.zeros((0, 0), number), None)


class SampledBlocks:
    """The inverse of an estimated block for each class."""

    def __init__(
        self, blocks: list[_Block], roots: Array, n_features: int, backend: Any, n_threads: int
    ):
        factors, rows = [block.factor for block in blocks], [block.rows for block in blocks]
        self._blocks = backend.FactoredBlocks(factors, rows, roots, n_features)
        self._n_threads = n_threads
        self.is_diagonal = not any(map(len, factors))

    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        result = np.empty_like(gradient)
        self._blocks.solve(result, gradient, n_threads=self._n_threads)
        return result


class SharedBlock:
    """The inverse of one estimated block for several classes."""

    def __init__(self, block: _Block, roots: Array, n_logits: int, n_features: int) -> None:
        self._rows, self._roots = block.rows, roots  # roots: D^(-1/2)
        self._sizes = n_logits, n_features
        self.is_diagonal = not len(block.factor)
        self._inverse = block.factor  # of one block it costs little, for products of many vectors
        if not self.is_diagonal:
            self._inverse = _inverse_of(block.factor)

    @single_threaded_blas
    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        n_logits, d = self._sizes
        n_weights = n_logits * d
        inside = np.empty((n_logits, len(self._roots)))
        inside[:, :d] = gradient[:n_weights].reshape(n_logits, d)
        inside[:, d:] = gradient[n_weights:].reshape(n_logits, -1)
        inside *= self._roots
        # (float32 holds no gradient of 1e-40)
        size = float(np.abs(inside).max(initial=0.0))
        size = size if 0.0 < size < np.inf else 1.0
        inside[...] = self._product((inside / size).astype(self._inverse.dtype))
        inside *= self._roots * size
        inside -= inside.mean(axis=0)  # what all classes have in common changes no probability
        return np.concatenate([inside[:, :d].ravel(), inside[:, d:].ravel()])

    def _product(self, vectors: Array) -> Array:
        """Return the products of the block's inverse with vectors (n, d), row by row."""
        if self.is_diagonal:
            return vectors
        (symm,) = get_blas_funcs(("symm",), dtype=self._inverse.dtype)
        given = vectors if self._rows is None else vectors @ self._rows.T
        along = symm(1.0, self._inverse, given.T, lower=0).T
        return np.asarray(along if self._rows is None else vectors - along @ self._rows)


@single_threaded_blas
def _inverse_of(factor: Array) -> Array:
    """Return the upper triangle, in Fortran order, of the inverse from a Cholesky factor."""
    (potri,) = get_lapack_funcs(("potri",), dtype=factor.dtype)
    return np.asarray(potri(factor.T, lower=0)[0])


class Plan(NamedTuple):
    """How many rows to draw for each class, and the multiply-adds that the blocks then take."""

    n_drawn: int
    work: float


def plan(problem: Problem, most_work: float) -> Plan | None:
    """Return the largest number of rows for so much work, or the smallest; None if too large."""
    rows = problem.rows
    columns = problem.n_features + problem.fit_intercept
    most = min(rows.sample.n_rows, max(_FEWEST, _MOST_PER_FEATURE * columns))
    found, n_drawn = None, min(_FEWEST, most)
    while n_drawn <= most:
        order = min(n_drawn, columns)
        numbers = rows.n_logits * order * (columns if n_drawn < columns else order)
        next_plan = Plan(n_drawn, _work(problem, n_drawn, columns))
        if numbers > _MOST_NUMBERS or (found is not None and next_plan.work > most_work):
            break
        found = next_plan
        if n_drawn == most:
            break
        n_drawn = min(most, int(_GROWTH * n_drawn))
    return found


def shared_rows(problem: Problem, most_work: float) -> int:
    """Return how many rows to take for one block of all classes and so much work."""
    columns, n_rows = problem.n_features + 1, _FEWEST
    most = problem.rows.sample.n_rows
    if most * columns > _FEW_NUMBERS:
        most = min(most, max(_FEWEST, _MOST_PER_FEATURE * columns))
    while n_rows < most and _block_work(int(_GROWTH * n_rows), columns) <= most_work:
        n_rows = int(_GROWTH * n_rows)
    return min(n_rows, most)


def _work(problem: Problem, n_drawn: int, columns: int) -> float:
    n_logits, pool = problem.n_logits, min(problem.rows.sample.n_rows, POOL * n_drawn)
    each = float(pool) * (columns + _EXPONENTIAL) + _PER_CLASS
    return n_logits * (each + _block_work(n_drawn, columns))


def _block_work(n_rows: int, columns: int) -> float:
    order = float(min(n_rows, columns))
    products = _PER_PRODUCT * order * order * max(n_rows, columns) + _PER_CUBE * order**3
    return products + GATHERED * n_rows * columns


def build_sampled_blocks(problem: Problem, at: Located, n_drawn: int) -> SampledBlocks:
    """Draw the rows at a point, and factor the blocks."""
    rows, coordinates = problem.rows, problem.coordinates
    with_bias = bool(coordinates.fit_intercept)
    drawn = rows.drawn(at.weights, at.bias, coordinates.center, n_drawn, with_bias=with_bias)
    weight = max(drawn.weight, _TINY)
    curvature = drawn.curvature / weight
    curvature = np.maximum(curvature, _LEAST_SHARE * float(curvature.mean()))
    blocks = _Blocks(problem, curvature)

    def finish(k: int) -> Array:
        z, drawn.rows[k] = drawn.rows[k], np.empty((0, 0))  # (the factors need as much memory)
        return blocks.factor(k, z, weight, is_exact=n_drawn >= rows.n_rows)

    work = rows.n_logits * _block_work(n_drawn, problem.n_features + with_bias)
    for _ in in_threads(finish, range(rows.n_logits), rows.n_threads, work):
        pass
    return blocks.of_classes()


def build_shared_block(problem: Problem, n_rows: int) -> SampledBlocks | SharedBlock:
    """Factor the block that all classes share at the model without weights, from some rows.

    There h_ik is s_i times a number for each class; its mean over the classes is taken.
    """
    share = problem.class_share
    curvature = max(float(np.mean(share * (1.0 - share))), _LEAST_SHARE)
    z, weight = problem.rows.taken_evenly(
        problem.coordinates.center, n_rows, with_bias=bool(problem.fit_intercept)
    )
    blocks = _Blocks(problem, np.array([curvature]))
    z *= np.sqrt(curvature)
    blocks.factor(0, z, max(weight, _TINY), is_exact=n_rows >= problem.n_rows)
    return blocks.of_classes() if problem.n_logits == 1 else blocks.shared()


class _Blocks:
    """The blocks of some classes, one by one."""

    def __init__(self, problem: Problem, curvature: Array) -> None:
        self._problem = problem
        ones = np.ones(int(problem.fit_intercept))
        # (what features far from 0 have in common is in the rows, and in no other direction)
        self._whole = curvature[:, np.newaxis] * np.append(problem.variances, ones)
        self._added = np.append(np.full(problem.n_features, problem.l2), 0.0 * ones)
        self._scale = np.append(problem.coordinates.scale, ones)
        self._roots = np.empty_like(self._whole)
        is_small = problem.n_features <= _SMALL and problem.rows.real == np.float64
        is_far = bool((problem.mean_squares > _FAR * problem.variances).any())
        self._number = np.dtype(np.float64 if is_small or is_far else np.float32)
        self._blocks = [_diagonal(self._number)] * len(curvature)

    @single_threaded_blas
    def factor(self, k: int, z: Array, weight: float, *, is_exact: bool) -> Array:
        """Take a block from rows, each times the root of its curvature, of rows of a weight.

        is_exact is whether these are all rows.
        """
        whole = self._whole[k]
        z *= (_inverse_roots(whole) * self._scale / np.sqrt(weight)).astype(z.dtype)
        z = z.astype(self._number, copy=False)
        # (of fewer rows the products wait for their scale)
        columns = z.T @ z if len(z) >= z.shape[1] else None
        share = _LEAST_ADDED if is_exact and z.size else _diagonal_share(z, columns)
        share = 1.0 if share > _MOST_SHARE else share
        self._roots[k] = own = _inverse_roots(share * whole + self._added)
        if share <= _MOST_SHARE:
            factors = (np.sqrt(1.0 - share) * own * np.sqrt(whole)).astype(self._number)
            found = self._of_rows(z, factors) if columns is None else _factored(columns, factors)
            self._blocks[k] = _diagonal(self._number) if found is None else found
        return own

    def _of_rows(self, z: Array, factors: Array) -> _Block | None:
        """Return the block of the rows z times factors; z is overwritten. None where it overflows.

        (The BLAS and LAPACK functions of scipy hold Python's lock: threads would wait.)
        """
        z *= factors
        factor = np.empty((len(z), len(z)), self._number)
        found = self._problem.rows.backend.factor_block(factor, z)
        return _Block(factor, z) if found else None

    def of_classes(self) -> SampledBlocks:
        """Return the inverse of all of them."""
        problem = self._problem
        rows = problem.rows
        return SampledBlocks(
            self._blocks, self._roots, problem.n_features, rows.backend, rows.n_threads
        )

    def shared(self) -> SharedBlock:
        """Return the inverse of the one that all classes share."""
        problem = self._problem
        return SharedBlock(self._blocks[0], self._roots[0], problem.n_logits, problem.n_features)


def _inverse_roots(diagonal: Array) -> Array:
    """Return the roots of the reciprocals; 0 for features that do not vary."""
    inverse = np.divide(1.0, diagonal, where=diagonal > 0.0, out=np.zeros_like(diagonal))
    return np.asarray(np.sqrt(inverse))


def _diagonal_share(z: Array, columns: Array | None) -> float:
    """Return the best share of the diagonal in an estimate from rows, for features of size 1.

    Ledoit & Wolf (2004, J. Multivariate Analysis 88), Section 3, with the diagonal as the target:
    the mean error of the products over what is off the diagonal. columns are the products z^T z,
    where known; otherwise some of the rows tell the size of all their products.
    """
    m = len(z)
    if not z.size:
        return 1.0
    squared = np.square(z)
    lengths = (squared @ np.ones(z.shape[1], z.dtype)).astype(np.float64)
    if columns is None:
        some = slice(0, m, max(1, m // _SHARE_ROWS))
        rows = z[some] @ z[some].T
        own = np.square(lengths[some])
        n_pairs = len(own) * (len(own) - 1.0)
        pairs = float(np.vdot(rows, rows)) - float(own.sum())
        square = float(lengths @ lengths) + pairs * (m * (m - 1.0) / max(1.0, n_pairs))
    else:
        square = float(np.vdot(columns, columns))
    squares = (np.ones(m, z.dtype) @ squared).astype(np.float64)
    error = float(lengths @ lengths) - square / m
    beside = square - float(squares @ squares)
    return min(1.0, max(_LEAST_ADDED, error / beside)) if beside > 0.0 else 1.0


def _factored(columns: Array, factors: Array) -> _Block | None:
    """Return the block of the products of columns, overwritten, times factors of these.

    None where it overflows.
    """
    columns *= factors
    columns *= factors[:, np.newaxis]
    columns[np.diag_indices(len(columns))] += columns.dtype.type(1.0)
    try:
        factor = np.linalg.cholesky(columns)
    except np.linalg.LinAlgError:
        return None
    return _Block(factor, None) if np.isfinite(factor.diagonal()).all() else None
