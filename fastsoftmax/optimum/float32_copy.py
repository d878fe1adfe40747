"""Passes over a copy of float64 rows in float32, for the iterations of a fit but the last.

Passes in float32 take half the time, and what rounding hides from them is far less than the gap
that most fits end at. From the point that they lead to, L-BFGS goes on by passes over the rows
themselves, with what it has learnt. These certify the result: mostly one pass does.

CPU of one thread without and with a copy, milliseconds: real embeddings 10003 x 384, K = 77, C = 1
and 100: 440 and 290, 1600 and 1000; images 7500 x 784, K = 10: 550 and 350; normal numbers
5000 x 500, K = 10: 57 and 38, 2000 x 2000, K = 2: 68 and 41. With few logits a pass is so quick
that the copy, whose memory may be new to the process, costs as much as several of them: 100000 x
50, K = 2, 5 iterations: 28 and 36. There it comes where many iterations are left.
"""

from dataclasses import replace

import numpy as np

from fastsoftmax.cached import cached_property
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.problem.problem import Problem
from fastsoftmax.problem.raw_pass import hidden_by_rounding

# Numbers of the rows from which on a copy pays, and most of them: 64 MB in float32.
_LEAST_NUMBERS, _MOST_NUMBERS = 1 << 19, 1 << 24
# Logits from which on it is made at once; with fewer, where more iterations are left than this.
_LEAST_LOGITS = 4
MANY_ITERATIONS = 12.0
# Sizes of features up to which float32 holds their squares, as it does of deviations from the
# reciprocal on; and of means, in deviations, up to which hardly a digit is lost.
_RANGE, _FAR = 1e12, 30.0
# The tolerance to go on to: the one that is asked for, with something to spare, or what float32 can
# do. What rounding hides of the bound has to be this share of that.
_SPARED, _LEAST_TOL, _HIDDEN = 0.98, 1e-5, 0.01


class Float32Copy:
    """The objective of a problem over a copy of its rows; made where it is first asked for."""

    def __init__(self, given: SoftmaxObjective) -> None:
        self._given = given

    @cached_property
    def objective(self) -> SoftmaxObjective:
        """The objective. Its points are those of the problem."""
        problem, base = self._given.problem, self._given.by.known_base()
        copied = SoftmaxObjective(replace(problem, rows=problem.rows.in_float32()))
        if base is not None:  # (a sweep knows it for every C)
            copied.by.note_base(base)
        return copied

    @property
    def pays_at_once(self) -> bool:
        """Whether a few passes save what the copy costs."""
        return self._given.problem.n_logits >= _LEAST_LOGITS


def copy_for(objective: SoftmaxObjective, tol: float) -> Float32Copy | None:
    """Return the copy, where passes over it may save more than it costs, and see enough."""
    return Float32Copy(objective) if _is_worthwhile(objective.problem, tol) else None


def _is_worthwhile(problem: Problem, tol: float) -> bool:
    rows = problem.rows
    if not (rows.is_dense and rows.are_held and rows.real == np.float64 and problem.l2 > 0.0):
        return False
    if not _LEAST_NUMBERS <= rows.stored_numbers <= _MOST_NUMBERS:
        return False
    spread = rows.spread
    if spread is None:
        return False
    squares = spread.squares_about(np.zeros(problem.n_features))
    variances = spread.squares_about(spread.means())
    held = (spread.units > 1.0 / _RANGE) & (spread.units < _RANGE) & (squares < _RANGE**2)
    near = (squares <= (1.0 + _FAR**2) * variances) | (variances == 0.0)
    hidden = hidden_by_rounding(problem, squares, np.dtype(np.float32))
    sees = hidden <= _HIDDEN * tolerance(tol) * problem.null_loss
    return bool(sees and held.all() and near.all())


def tolerance(tol: float) -> float:
    """Return the relative gap that passes over a copy go on to."""
    return max(_SPARED * tol, _LEAST_TOL)
