"""Tables of costs of decisions, as users pass them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastsoftmax._arguments import as_real, plain
from fastsoftmax.arrays import Array

_COST_FORMS = (
    "cost must be an array of shape (n_classes, n_decisions), a pandas frame with the classes as "
    "its index, or a dict {class: {decision: cost}}"
)


def costs_of(cost: Any, decisions: Any, classes: Array) -> tuple[Array, Array]:
    """(costs of shape (n_classes, n_decisions), float64; labels of the decisions), checked."""
    named = isinstance(cost, Mapping) or (hasattr(cost, "index") and hasattr(cost, "columns"))
    if named:
        if decisions is not None:
            raise ValueError("decisions must be None where cost names them itself")
        truths, decisions, cost = _named_costs(cost)
        known = classes.tolist()
        if len(truths) != len(set(truths)) or set(truths) != set(known):
            raise ValueError(
                f"cost must have one row for each of the classes {known}, got rows for {truths}; "
                "an array needs no names"
            )
        cost = np.asarray(cost)[[truths.index(label) for label in known]]
    table = np.asarray(as_real("cost", cost)[0], dtype=np.float64)
    if table.ndim != 2 or len(table) != len(classes) or table.shape[1] == 0:
        raise ValueError(
            f"{_COST_FORMS}; there are {len(classes)} classes, and its shape is {table.shape}"
        )
    if not np.isfinite(table).all():
        raise ValueError(f"cost must be finite, got {table[~np.isfinite(table)][0]}")
    n_decisions = table.shape[1]
    if decisions is None:
        if n_decisions != len(classes):
            raise ValueError(
                f"cost has {n_decisions} columns for {len(classes)} classes: name what they stand "
                "for by decisions="
            )
        return table, classes
    if np.shape(decisions)[:1] != (n_decisions,) or isinstance(decisions, str):
        raise ValueError(
            f"decisions must hold a label for each of the {n_decisions} columns of cost, "
            f"got {decisions!r}"
        )
    if isinstance(decisions, np.ndarray) or hasattr(decisions, "to_numpy"):
        labels = np.asarray(decisions)
    else:
        labels = labels_of(list(decisions))
    if labels.ndim != 1:
        raise ValueError(f"decisions must be of one dimension, got {decisions!r}")
    return table, labels


def _named_costs(cost: Any) -> tuple[list[Any], list[Any], Any]:
    """(truths, decisions, costs by both) of a dict of dicts or a frame."""
    if not isinstance(cost, Mapping):
        return cost.index.tolist(), cost.columns.tolist(), cost.to_numpy()
    truths = list(cost)
    if not truths or not all(isinstance(row, Mapping) for row in cost.values()):
        raise ValueError(f"{_COST_FORMS}, got {cost!r}")
    names = list(cost[truths[0]])
    for truth, row in cost.items():
        if set(row) != set(names):
            raise ValueError(
                f"cost must name the same decisions for each class, got {names} for "
                f"{truths[0]!r} and {list(row)} for {truth!r}"
            )
    return truths, names, [[row[name] for name in names] for row in cost.values()]


def labels_of(values: Sequence[Any]) -> Array:
    """Return labels in an array, of objects where another type would change one (0 by "ask")."""
    if any(np.ndim(value) for value in values):
        raise ValueError(f"labels of decisions must be scalars, got {values!r}")
    kinds = {np.asarray(value).dtype.kind for value in values}
    exact = [plain(value) for value in values]
    if len(kinds) == 1 or kinds <= set("iuf"):
        labels = np.asarray(values)
        if all(plain(a) == b or a != a for a, b in zip(labels, exact, strict=True)):
            return labels
    objects = np.empty(len(values), dtype=object)
    objects[:] = exact
    return objects
