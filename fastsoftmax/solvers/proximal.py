"""The minimum of a quadratic model of the smooth part, plus l1 times the 1-norm: proximal Newton.

A step to it changes many coefficients to or from 0 at once. A step within one orthant has to be cut
short as soon as a few of them cross 0. Text of 90000 x 200000, K = 20, C = 10, from a true gap of
2e-6 to a certified 5e-5: 724 orthant-wise iterations, or 5 of them and then 19 such steps.

The model's Hessian is B = B0 + U M^-1 U^T. B0 is block diagonal. The rest makes B agree with the
latest steps and differences of gradients (BFGS in its compact form: Byrd, Nocedal & Schnabel 1994,
Math. Programming 63, Theorem 2.3), which also tell how the blocks are coupled. For the steps see
Lee, Sun & Saunders 2014, "Proximal Newton-type methods for minimizing composite functions", SIAM J.
Optim. 24, Section 2.

The model's minimum is found by the primal-dual active set method of Hintermueller, Ito & Kunisch
2003, SIAM J. Optim. 13, Section 2, a semismooth Newton method: it guesses which coefficients are 0
and the signs of the others, solves the model for these, and changes the guesses that the solution
contradicts, until there are none. Near the optimum that takes two or three guesses.
"""

from collections.abc import Iterable

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner, product
from fastsoftmax.solvers.protocols import Blocks

# The latest pairs of steps and differences that the model agrees with. Passes of the sparse rows of
# `orthant_wise` with 1, 3, 5, 10 and 20: 218, 232, 214, 219, 218.
_MOST_PAIRS = 10
# Where so many do not suffice, guesses go round in a circle. Passes with 2, 3, 5 and 10: 232, 242,
# 219, 219.
_MOST_GUESSES = 20
# A gradient above l1 by no more than this share of it is rounding, not a contradiction (1e-13 and
# 1e-7: the same passes).
_ROUNDING = 1e-10


class _Quadratic:
    """B for the coefficients of the blocks and some more, for which B0 is a diagonal."""

    def __init__(
        self, blocks: Blocks, others: Array, diagonal: Array, pairs: list[tuple[Array, Array]]
    ) -> None:
        self._blocks, self._diagonal = blocks, diagonal
        self._n = len(blocks.index)
        self.index = np.concatenate([blocks.index, others])
        self._U = np.empty((len(self.index), 0))
        self._M = np.empty((0, 0))
        own = [(moved[self.index], change[self.index]) for moved, change in pairs]
        own = [(moved, change) for moved, change in own if inner(moved, change) > 0.0]
        if own:
            S, Y = (np.stack(vectors, axis=1) for vectors in zip(*own, strict=True))
            BS, SY = self._base_product(S), product(S.T, Y)
            L = np.tril(SY, -1)
            self._U = np.hstack([BS, Y])
            self._M = np.block([[-product(S.T, BS), -L], [-L.T, np.diag(SY.diagonal())]])

    def _base_product(self, vectors: Array) -> Array:
        diagonal = self._diagonal if vectors.ndim == 1 else self._diagonal[:, np.newaxis]
        n = self._n
        return np.concatenate([self._blocks.product(vectors[:n]), diagonal * vectors[n:]])

    def product(self, vector: Array) -> Array:
        """Return B times a vector."""
        result = self._base_product(vector)
        if len(self._M):
            result += product(self._U, np.linalg.solve(self._M, product(self._U.T, vector)))
        return result

    def solve_among(self, vector: Array, kept: Array) -> Array:
        """Return the solution for the rows and columns of B that are kept; elsewhere 0."""
        n, sides = self._n, np.column_stack([vector, self._U])
        sides[~kept] = 0.0
        solved = np.concatenate(
            [
                self._blocks.solve_among(sides[:n], kept[:n]),
                sides[n:] / self._diagonal[:, np.newaxis],
            ]
        )
        found = solved[:, 0]
        if len(self._M):  # Sherman, Morrison & Woodbury
            small = self._M + product(sides[:, 1:].T, solved[:, 1:])
            change = np.linalg.solve(small, product(sides[:, 1:].T, found))
            found = found - product(solved[:, 1:], change)
        return np.asarray(found)


def model_minimum(
    point: Array,
    gradient: Array,
    l1: float,
    n_weights: int,
    blocks: Blocks,
    diagonal: Array,
    pairs: Iterable[tuple[Array, Array]],
) -> Array | None:
    """Return the minimum of <gradient, u - point> + (u - point) B (u - point) / 2 + l1 ||u||_1.

    None where the method finds none. The gradient is that of the smooth part, and the first
    n_weights coefficients are in the 1-norm. The diagonal of the Hessian serves coefficients that
    the blocks lack, and which are not or should not be 0. pairs are steps and differences of
    gradients, the latest last.
    """
    free = (point != 0.0) | (np.abs(gradient) > l1)
    free[n_weights:] |= gradient[n_weights:] != 0.0
    free[blocks.index] = False
    others = np.flatnonzero(free & (diagonal > 0.0))
    try:
        model = _Quadratic(blocks, others, diagonal[others], list(pairs)[-_MOST_PAIRS:])
        found = _minimum(model, point[model.index], gradient[model.index], l1, n_weights)
    except np.linalg.LinAlgError:
        return None
    if found is None or not np.isfinite(found).all():
        return None
    end = point.copy()
    end[model.index] = found
    return end


def _minimum(
    model: _Quadratic, start: Array, gradient: Array, l1: float, n_weights: int
) -> Array | None:
    in_norm = model.index < n_weights
    signs = np.where(in_norm, np.sign(start), 0.0)
    entering = in_norm & (start == 0.0) & (np.abs(gradient) > l1)
    signs[entering] = -np.sign(gradient[entering])
    constant = gradient - model.product(start)
    for _ in range(_MOST_GUESSES):
        kept = ~in_norm | (signs != 0.0)
        found = model.solve_among(-constant - l1 * signs, kept)
        slope = constant + model.product(found)
        crossed = found * signs < 0.0
        entering = ~kept & (np.abs(slope) > (1.0 + _ROUNDING) * l1)
        if not (crossed | entering).any():
            return found
        signs[crossed] = 0.0
        signs[entering] = -np.sign(slope[entering])
    return None
