"""The penalty of an elastic net, l1 ||V||_1 + (l2 / 2) ||V||^2, and its certificate.

The certificate needs the gradient of the smooth part alone; `problem` states l1 and l2.
"""

from typing import NamedTuple

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.blas import inner

# Newton's method for one number, on a convex piecewise linear function: it ends in a few steps.
_MOST_STEPS = 50


class DualPoint(NamedTuple):
    """What `gap_bound` needs of distributions Q_i with mean Q_i = mean y_i (with an intercept).

    excess = F - entropy is a number of its own, because the loss would cancel in the difference.
    """

    excess: float
    entropy: float  # mean of H(Q_i), or less
    target_entropy: float  # mean of H(y_i), or less
    size: Array  # |mean (Q_i - y_i) z_i|, (n_logits, n_features)


def gap_bound(dual: DualPoint, l1: float, l2: float) -> float:
    """Return an upper bound on F - min F.

    CE(o, y) = max over Q of <Q - y, o> + H(Q), so for distributions Q_i with mean Q_i = mean y_i

        min F >= mean H(Q_i) + min over V of (<V, G_Q> + l1 ||V||_1 + l2 / 2 ||V||^2)
               = mean H(Q_i) - sum max(|G_Q| - l1, 0)^2 / (2 l2),   G_Q = mean (Q_i - y_i) z_i^T,

    the sum being infinite where l2 = 0 and some |G_Q| > l1. Then, and where l2 is small, other
    distributions are better: s Q_i + (1 - s) y_i for an s in [0, 1] has s G_Q in the place of G_Q,
    still the right mean, and as entropy is concave at least s H(Q_i) + (1 - s) H(y_i). The best s
    is taken.

    Sources: Fenchel duality as in Shalev-Shwartz & Zhang 2013 (JMLR 14); scaling into the feasible
    set as in Ndiaye, Fercoq, Gramfort & Salmon 2017 (JMLR 18), Section 2.
    """
    chord = dual.entropy - dual.target_entropy
    size = dual.size[dual.size > l1]
    if not np.isfinite(dual.excess) or np.isnan(dual.size).any():
        return np.inf
    s = 0.0 if chord <= 0.0 else 1.0
    if s > 0.0 and size.size:
        s = l1 / float(size.max()) if l2 <= 0.0 else _best(size, chord, l1, l2)
    over = np.maximum(s * size - l1, 0.0)
    beyond = inner(over, over) / (2.0 * l2) if l2 > 0.0 else 0.0
    return max(dual.excess + (1.0 - s) * chord + beyond, 0.0)


def _best(size: Array, chord: float, l1: float, l2: float) -> float:
    """Return the s in [0, 1] with the smallest (1 - s) chord + sum max(s size - l1, 0)^2 / (2 l2).

    Its derivative is convex, so Newton's steps from the right stay on the right.
    """
    s = 1.0
    for _ in range(_MOST_STEPS):
        active = size[s * size > l1]
        slope = inner(active, s * active - l1) / l2 - chord
        curvature = inner(active, active) / l2
        if slope <= 0.0 or not curvature > 0.0:
            break
        nearer = s - slope / curvature
        if not nearer < s:
            break
        s = nearer
    return min(max(s, 0.0), 1.0)
