"""Stopping where the loss on rows that are not fitted to no longer falls; which rows those are."""

import math
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from fastsoftmax.shards.shard import Array

# What a model is, besides what never changes during a fit.
_ATTRIBUTES = ("coef_", "intercept_", "gap_", "objective_")


class EarlyStopping:
    """The best model so far, by the validation loss, and how long ago that was.

    Parameters
    ----------
    model : FastSoftmax
        Its `n_iter_no_change` and `min_delta` decide; its attributes are those of the iteration
        that is seen. Gets `best_iteration_` and `best_score_`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        model.best_iteration_, model.best_score_ = 0, math.inf
        self._best: dict[str, Any] = {}
        self._best_loss = self._reference = math.inf
        self._last_gain = 0

    def begin(self, loss: float, *, counts: bool) -> None:
        """Note the validation loss of the start; counts: whether it is a model to fall back on."""
        self.model.best_score_ = float(loss)
        if counts:
            self._best_loss = self._reference = loss
            self._keep()

    def see(self, iteration: int, loss: float) -> bool:
        """Note the validation loss after an iteration, from 1; True to stop."""
        model = self.model
        if loss < self._best_loss:
            model.best_iteration_, model.best_score_ = iteration, float(loss)
            self._best_loss = loss
            self._keep()
        if loss < self._reference - model.min_delta:
            self._reference, self._last_gain = loss, iteration
        return bool(iteration - self._last_gain >= model.n_iter_no_change)

    def _keep(self) -> None:
        # every iteration makes new arrays, which nothing writes to
        self._best = {name: getattr(self.model, name) for name in _ATTRIBUTES}

    def restore(self) -> bool:
        """Give the model its best coefficients back, once; False if it has them."""
        best, self._best = self._best, {}
        if not best or best["coef_"] is self.model.coef_:
            return False
        vars(self.model).update(best)
        return True


class HeldOut(NamedTuple):
    """Rows for validation."""

    rows: Array  # their numbers, ascending
    weights: Array  # (n_rows,) sample weights times class weights
    labels: Array | None  # (n_rows,) class numbers, or else
    probs: Array | None  # (n_rows, n_classes)


def held_out_rows(model: Any, labels: Array, weights: Array, probs: Array | None = None) -> Array:
    """Return the numbers of the rows that a fit holds out for early stopping, as the model wants.

    labels are class numbers, of probs the most likely ones. Rows of weight 0 count as absent, and
    the last row of a class stays.
    """
    rows = _stratified(
        labels, weights > 0.0, model.validation_fraction, check_random_state(model.random_state)
    )
    if probs is not None:  # some class may have its only probability in the rows that were drawn
        held = np.zeros(len(labels), dtype=bool)
        held[rows] = True
        for k in np.flatnonzero(weights @ probs > 0.0):
            mass = weights * probs[:, k]
            if not (mass[~held] > 0.0).any():
                held[mass.argmax()] = False
        rows = np.flatnonzero(held)
    if not len(rows):
        raise ValueError(
            "early_stopping=True needs rows to hold out, and no class has more than one with a "
            "weight above 0: give an eval_set"
        )
    return rows


def _stratified(
    labels: Array, present: Array, fraction: float, rng: np.random.RandomState
) -> Array:
    """Draw a share of the rows that are present, of each class in proportion but never all."""
    counts = np.bincount(labels[present])
    wanted = counts * fraction
    most = np.maximum(counts - 1, 0)
    drawn = np.minimum(np.floor(wanted).astype(np.int64), most)
    missing = max(1, math.ceil(wanted.sum() - 1e-9)) - int(drawn.sum())
    by_rest = np.argsort(drawn - wanted, kind="stable")
    extra = by_rest[drawn[by_rest] < most[by_rest]][: max(0, missing)]
    drawn[extra] += 1
    order = rng.permutation(np.flatnonzero(present))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.cumsum(counts) - counts
    place = np.arange(len(order)) - first[labels[order]]
    return np.sort(order[place < drawn[labels[order]]])
