"""Early stopping by the loss on rows that are not fitted to, and the choice of those rows."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from fastsoftmax._estimator.fitted import Learnt, set_learnt, stored_coef
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.row_hash import row_hashes
from fastsoftmax._estimator.targets import Targets
from fastsoftmax.arrays import Array
from fastsoftmax.solvers.record import Damaged, State, array_in, finite_in, number_in

# Shares of weights that differ by less count as equal: the difference is rounding.
_ROUNDING = 2.0**-32


class EarlyStopping:
    """The best coefficients so far, by the validation loss, and how long ago they were found."""

    def __init__(self, estimator: FitParameters) -> None:
        self.estimator = estimator
        set_learnt(estimator, best_iteration=0, best_score=math.inf)
        self._best: Learnt | None = None
        self._best_loss = self._reference = math.inf
        self._last_gain = 0

    def begin(self, loss: float, *, counts: bool) -> None:
        """Note the validation loss of the start; counts: whether the start may be the result."""
        set_learnt(self.estimator, best_score=float(loss))
        if counts:
            self._best_loss = self._reference = loss
            self._keep()

    def see(self, iteration: int, loss: float) -> bool:
        """Note the validation loss of the iteration that the estimator is at; True to stop."""
        if loss < self._best_loss:
            set_learnt(self.estimator, best_iteration=iteration, best_score=float(loss))
            self._best_loss = loss
            self._keep()
        if loss < self._reference - self.estimator.min_delta:
            self._reference, self._last_gain = loss, iteration
        return bool(iteration - self._last_gain >= self.estimator.n_iter_no_change)

    def _keep(self) -> None:
        # (no copies: every iteration makes new arrays, and nothing writes to them)
        now = self.estimator
        self._best = Learnt(
            coef=stored_coef(now),
            intercept=now.intercept_,
            gap=now.gap_,
            objective=now.objective_,
        )

    def state(self) -> State:
        """Return what is needed to go on; nothing writes to its arrays."""
        numbers = [self._best_loss, self._reference, self._last_gain]
        now = self.estimator
        known = [now.best_iteration_, now.best_score_]
        return {"numbers": np.array(numbers + known, dtype=np.float64), **(self._best or {})}

    def go_on(self, state: State, coef_in: Callable[[Array], Any]) -> None:
        """Go on from a state; coef_in makes coefficients of those of the columns in use."""
        best_loss, reference, last_gain, n_iter, score = array_in(state, "numbers", (5,)).tolist()
        if not (last_gain.is_integer() and n_iter.is_integer()):
            raise Damaged("numbers holds no counts of iterations")
        self._best_loss, self._reference, self._last_gain = best_loss, reference, int(last_gain)
        set_learnt(self.estimator, best_iteration=int(n_iter), best_score=score)
        if "coef" in state:
            self._best = Learnt(
                coef=coef_in(finite_in(state, "coef", (None, None))),
                intercept=finite_in(state, "intercept", (None,)),
                gap=number_in(state, "gap"),
                objective=number_in(state, "objective"),
            )

    def restore(self) -> bool:
        """Give the estimator its best coefficients back, once; False if it has them."""
        best, self._best = self._best, None
        now = getattr(self.estimator, "intercept_", None)  # none where it was given up
        if best is None or best["intercept"] is now:
            return False
        set_learnt(self.estimator, **best)
        return True


def held_out_rows(estimator: FitParameters, X: Any, targets: Targets, row_weights: Array) -> Array:
    """Return the numbers of the rows that a fit holds out for early stopping.

    A row with probabilities counts as of its most likely class, one of weight 0 as absent, and one
    of weight 2 as two. What is held out depends on the contents of the rows, not on their order: of
    equal rows all are held out or none. At least one of the different rows of a class is fitted to.
    """
    labels = targets.most_likely
    present = np.flatnonzero(row_weights > 0.0)
    hashes = row_hashes(X, check_random_state(estimator.random_state))[present]
    order = np.lexsort((hashes, labels[present]))
    present, hashes = present[order], hashes[order]
    number = labels[present]
    differs = (hashes[1:] != hashes[:-1]) | (number[1:] != number[:-1])
    first = np.concatenate([np.ones(1, dtype=bool), differs])
    group = np.cumsum(first) - 1
    masses = _significant(np.bincount(group, row_weights[present]))
    held = _held_groups(number[first], masses, estimator.validation_fraction)
    if targets.probs is not None:
        _give_back(held, group, row_weights[present, np.newaxis] * targets.probs[present])
    if not held.any():
        raise ValueError(
            "early_stopping=True needs rows to hold out, and no class has two different ones with "
            "a weight above 0: give an eval_set"
        )
    return np.sort(present[held[group]])


def _held_groups(classes: Array, masses: Array, fraction: float) -> Array:
    """Choose groups of equal rows with a share of the mass of each class, never all of a class.

    classes, ascending, and masses are those of the groups. Earlier groups are chosen first.
    Returns whether each is held out.
    """
    wanted = fraction * np.bincount(classes, masses)
    held = np.zeros(len(classes), dtype=bool)
    by_mass = np.lexsort((masses, classes))
    may_go = np.ones(len(classes), dtype=bool)
    may_go[by_mass[np.append(np.flatnonzero(np.diff(classes)), len(classes) - 1)]] = False
    # 1. of each class the first groups whose masses fit into its share
    left = wanted * (1.0 + _ROUNDING)
    groups = np.flatnonzero(may_go)
    while len(groups := groups[masses[groups] <= left[classes[groups]]]):
        number, mass = classes[groups], masses[groups]
        begins = np.concatenate([np.ones(1, dtype=bool), number[1:] != number[:-1]])
        before = np.cumsum(mass) - mass
        before -= before[begins][np.cumsum(begins) - 1]
        fits = before + mass <= left[number]
        fits |= begins
        held[groups[fits]] = True
        left -= np.bincount(number[fits], mass[fits], minlength=len(left))
        groups = groups[~fits]
    # 2. where the sum is too small, one more group of the classes that lack the most
    lightest = by_mass[(may_go & ~held)[by_mass]]
    lightest = lightest[np.unique(classes[lightest], return_index=True)[1]]
    lacking = np.round(left[classes[lightest]] / masses[lightest], 8)
    lightest = lightest[np.argsort(-lacking, kind="stable")]
    sums = masses[held].sum() + np.cumsum(masses[lightest])
    enough = wanted.sum() * (1.0 - _ROUNDING)
    if not held.any() or masses[held].sum() < enough:
        held[lightest[: np.searchsorted(sums, enough) + 1]] = True
    return held


def _give_back(held: Array, group: Array, shares: Array) -> None:
    """Hold out fewer groups, until no class has all its probability in rows that are held out.

    shares (n_rows, n_classes) are the rows' probabilities times their weights.
    """
    for k in np.flatnonzero(shares.sum(axis=0) > 0.0):
        by_group = _significant(np.bincount(group, shares[:, k]))
        if not (by_group[~held] > 0.0).any():
            held[by_group.argmax()] = False


def _significant(sums: Array) -> Array:
    """Return sums without the last digits, which depend on the order of the terms."""
    mantissas, exponents = np.frexp(sums)
    return np.asarray(np.ldexp(np.round(mantissas / _ROUNDING) * _ROUNDING, exponents))
