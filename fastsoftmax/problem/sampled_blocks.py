"""The Hessian's block of each class from a few rows, inverted.

For class k the block is sum_i h_ik z_i z_i^T + l2 I, with h_ik = s_i p_ik (1 - p_ik). Near an
optimum most rows are decided about most classes, so rows are drawn in proportion to h_ik; what
occurs twice counts twice. The drawn rows Z_k alone are an estimate of low rank, without any
curvature in most directions, so a share of the block's diagonal takes the place of as much of them
(`_diagonal_share`). With D_k that share and l2, and Z = Z_k D_k^(-1/2) of m rows and d columns,
the inverse is D_k^(-1/2) (I + Z^T Z)^-1 D_k^(-1/2) with

    (I + Z^T Z)^-1 = I - Z^T (I + Z Z^T)^-1 Z.

So where m < d, a matrix of order m has to be inverted, not d (Woodbury). Because of the share, its
condition number is at most about m / _LEAST_ADDED, and float32 is enough.

Passes to a certified 1e-4, blocks at iterations 6 and 18, from m = 256, 512, 1024, 2048 rows and
from all: images 7500 x 784, K = 10, C = 1: 69, 55, 43, 37, 35; 1000 x 784: 39, 38 and 37 from all;
embeddings 6000 x 512, K = 20: 19 with each. Real embeddings 10003 x 384, K = 77, C = 10 with 128
and 384 rows: 38, 37 (one matrix shared by all classes: 51). Shares of 0.02 and 0.1: the same.
"""

from dataclasses import dataclass
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
# arithmetic of an inverse, by LAPACK.
_EXPONENTIAL, _PER_CLASS, _PER_CUBE = 32.0, 4e6, 1.5
# Features up to which float64 costs nothing; mean squares, in variances, from which on it is
# needed: the direction that features far from 0 have in common stands out by as much.
_SMALL, _FAR = 128, 100.0
# Numbers of all blocks from which on threads share a product.
_SHARED_NUMBERS = 1 << 23
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class _Block:
    """(I + Z^T Z)^-1 for the rows Z of a class; rows is Z where it has fewer rows than columns.

    An inverse of order 0 stands for the identity.
    """

    inverse: Array
    rows: Array | None

    def product(self, vectors: Array) -> Array:
        """Return the products with vectors (n, d), row by row."""
        if not len(self.inverse):
            return vectors
        if self.rows is None:
            return _by_symmetric(self.inverse, vectors)
        along = _by_symmetric(self.inverse, vectors @ self.rows.T)
        return np.asarray(vectors - along @ self.rows)


def _diagonal(number: np.dtype[Any]) -> _Block:
    """Return the block that is the diagonal alone."""
    return _Block(np.zeros((0, 0), number), None)


def _by_symmetric(lower: Array, vectors: Array) -> Array:
    """Return vectors @ matrix, of which the lower triangle is given in Fortran order."""
    symv, symm = get_blas_funcs(("symv", "symm"), dtype=lower.dtype)
    if len(vectors) == 1:
        return np.asarray(symv(1.0, lower, vectors[0], lower=1))[np.newaxis]
    return np.asarray(symm(1.0, lower, vectors.T, lower=1)).T


class SampledBlocks:
    """The inverse of an estimated block for each class, or of one that all classes share."""

    def __init__(self, blocks: list[_Block], roots: Array, sizes: tuple[int, int], n_threads: int):
        self._blocks, self._roots = blocks, roots  # roots: D^(-1/2), a row for each block
        self._sizes = sizes  # n_logits, n_features
        self._number = blocks[0].inverse.dtype
        numbers = sum(b.inverse.size + (0 if b.rows is None else b.rows.size) for b in blocks)
        self._n_threads = n_threads if numbers >= _SHARED_NUMBERS else 1

    @property
    def is_diagonal(self) -> bool:
        """Whether the drawn rows told nothing that the diagonal does not."""
        return not any(len(block.inverse) for block in self._blocks)

    @single_threaded_blas
    def apply(self, gradient: Array) -> Array:
        """Return the product with a flat vector, in a new array."""
        n_logits, d = self._sizes
        n_weights = n_logits * d
        inside = np.empty((n_logits, self._roots.shape[1]))
        inside[:, :d] = gradient[:n_weights].reshape(n_logits, d)
        inside[:, d:] = gradient[n_weights:].reshape(n_logits, -1)
        inside *= self._roots
        # (float32 holds no gradient of 1e-40)
        size = float(np.abs(inside).max(initial=0.0))
        size = size if 0.0 < size < np.inf else 1.0
        given = (inside / size).astype(self._number)
        if len(self._blocks) == 1:
            inside[...] = self._blocks[0].product(given)
        else:

            def multiply(k: int) -> Array:
                return self._blocks[k].product(given[k : k + 1])

            for k, product in enumerate(in_threads(multiply, range(n_logits), self._n_threads)):
                inside[k] = product
        inside *= self._roots
        inside *= size
        if n_logits > 1:  # what all classes have in common changes no probability
            inside -= inside.mean(axis=0)
        return np.concatenate([inside[:, :d].ravel(), inside[:, d:].ravel()])


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
    products = 0.5 * order * order * max(n_rows, columns) + _PER_CUBE * order**3
    return products + GATHERED * n_rows * columns


def build_sampled_blocks(problem: Problem, at: Located, n_drawn: int) -> SampledBlocks:
    """Draw the rows at a point, and invert."""
    rows, coordinates = problem.rows, problem.coordinates
    with_bias = bool(coordinates.fit_intercept)
    drawn = rows.drawn(at.weights, at.bias, coordinates.center, n_drawn, with_bias=with_bias)
    weight = max(drawn.weight, _TINY)
    curvature = drawn.curvature / weight
    curvature = np.maximum(curvature, _LEAST_SHARE * float(curvature.mean()))
    inverses = _Inverses(problem, curvature)

    def finish(k: int) -> Array:
        z, drawn.rows[k] = drawn.rows[k], np.empty((0, 0))  # (the inverses need as much memory)
        return inverses.invert(k, z, weight, is_exact=n_drawn >= rows.n_rows)

    work = rows.n_logits * _block_work(n_drawn, problem.n_features + with_bias)
    for _ in in_threads(finish, range(rows.n_logits), rows.n_threads, work):
        pass
    return inverses.preconditioner()


def build_shared_block(problem: Problem, n_rows: int) -> SampledBlocks:
    """Invert the block that all classes share at the model without weights, from some rows.

    There h_ik is s_i times a number for each class; its mean over the classes is taken.
    """
    share = problem.class_share
    curvature = max(float(np.mean(share * (1.0 - share))), _LEAST_SHARE)
    z, weight = problem.rows.taken_evenly(
        problem.coordinates.center, n_rows, with_bias=bool(problem.fit_intercept)
    )
    inverses = _Inverses(problem, np.array([curvature]))
    z *= np.sqrt(curvature)
    inverses.invert(0, z, max(weight, _TINY), is_exact=n_rows >= problem.n_rows)
    return inverses.preconditioner()


class _Inverses:
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
        self._blocks: dict[int, _Block] = {}

    def invert(self, k: int, z: Array, weight: float, *, is_exact: bool) -> Array:
        """Take a block from rows, each times the root of its curvature, of rows of a weight.

        is_exact is whether these are all rows.
        """
        whole = self._whole[k]
        roots = _inverse_roots(whole)
        z *= (roots * self._scale / np.sqrt(weight)).astype(z.dtype)
        z = z.astype(self._number, copy=False)
        share = _LEAST_ADDED if is_exact else _diagonal_share(z)
        share = 1.0 if share > _MOST_SHARE or not z.size else share  # (BLAS takes no 0 rows)
        self._roots[k] = own = _inverse_roots(share * whole + self._added)
        if share > _MOST_SHARE:
            self._blocks[k] = _diagonal(self._number)
            return own
        z *= (np.sqrt(1.0 - share) * own * np.sqrt(whole)).astype(self._number)
        self._blocks[k] = _inverted(z)
        return own

    def preconditioner(self) -> SampledBlocks:
        """Return all of them."""
        problem = self._problem
        blocks = [self._blocks[k] for k in range(len(self._roots))]
        sizes = problem.n_logits, problem.n_features
        return SampledBlocks(blocks, self._roots, sizes, problem.rows.n_threads)


def _inverse_roots(diagonal: Array) -> Array:
    """Return the roots of the reciprocals; 0 for features that do not vary."""
    inverse = np.divide(1.0, diagonal, where=diagonal > 0.0, out=np.zeros_like(diagonal))
    return np.asarray(np.sqrt(inverse))


@single_threaded_blas
def _diagonal_share(z: Array) -> float:
    """Return the best share of the diagonal in an estimate from rows, for features of size 1.

    Ledoit & Wolf (2004, J. Multivariate Analysis 88), Section 3, with the diagonal as the target:
    the mean error of the products over what is off the diagonal.
    """
    m = len(z)
    if not m:
        return 1.0
    gram = z @ z.T if m < z.shape[1] else z.T @ z
    square = float(np.vdot(gram, gram))
    lengths = np.einsum("ij,ij->i", z, z, dtype=np.float64)
    columns = np.einsum("ij,ij->j", z, z, dtype=np.float64)
    error = float(lengths @ lengths) - square / m
    beside = square - float(columns @ columns)
    return min(1.0, max(_LEAST_ADDED, error / beside)) if beside > 0.0 else 1.0


@single_threaded_blas
def _inverted(z: Array) -> _Block:
    (syrk,) = get_blas_funcs(("syrk",), dtype=z.dtype)
    potrf, potri = get_lapack_funcs(("potrf", "potri"), dtype=z.dtype)
    is_wide = len(z) < z.shape[1]
    matrix = syrk(1.0, z.T, trans=1 if is_wide else 0, lower=1)
    np.fill_diagonal(matrix, np.diagonal(matrix) + z.dtype.type(1.0))
    factor, info = potrf(matrix, lower=1, overwrite_a=1)
    if info == 0:
        factor, info = potri(factor, lower=1, overwrite_c=1)
    if info != 0 or not np.isfinite(factor).all():  # rounding, or an overflow
        return _diagonal(z.dtype)
    return _Block(factor, z if is_wide else None)
