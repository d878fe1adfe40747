"""Curves over the epochs or iterations of a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastsoftmax.plot._pyplot import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EVAL_STYLES = ("-.", ":", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))


def history(
    clf_or_history: Any,
    ax: Axes | None = None,
    *,
    eval_names: Sequence[str] | None = None,
) -> Axes:
    """Plot training loss, training accuracy and held-out accuracy by epoch or iteration.

    Parameters
    ----------
    clf_or_history : fitted FastSoftmax or dict
        The estimator, or its `history_`: lists "loss", "accuracy" and, where the fit had an
        `eval_set`, "eval_accuracy" (tuples of one number for each set), with one entry per epoch.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.
    eval_names : sequence of str, default=None
        A name for each evaluation set. None means "test" where there is one of them, otherwise
        "eval 1", "eval 2" and so on.

    Returns
    -------
    ax : matplotlib Axes
        Loss (in nats) and accuracy share its vertical axis, which holds 0 to 1 and every loss.

    Raises
    ------
    ValueError
        If there is no epoch to draw, or not one name for each evaluation set.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> record = {"loss": [1.2, 0.8], "accuracy": [0.6, 0.7], "eval_accuracy": [(0.6,), (0.65,)]}
    >>> ax = plot.history(record, Figure().subplots())
    >>> [line.get_label() for line in ax.lines]
    ['train loss', 'train accuracy', 'test accuracy']
    """
    record = _record(clf_or_history)
    loss = _column(record, "loss")
    n_epochs = len(loss)
    if n_epochs == 0:
        raise ValueError("the history holds no epoch to draw: fit first")
    curves: list[tuple[NDArray[np.float64], str, Any, str]] = [
        (loss, "train loss", "-", "tab:blue"),
        (_column(record, "accuracy"), "train accuracy", "--", "m"),
    ]
    evals = [row for row in record.get("eval_accuracy", ()) if row]
    if evals:
        by_set = np.asarray(evals, dtype=np.float64).T
        names = _eval_names(eval_names, len(by_set))
        curves += [
            (accuracy, f"{name} accuracy", _EVAL_STYLES[i % len(_EVAL_STYLES)], "g")
            for i, (accuracy, name) in enumerate(zip(by_set, names, strict=True))
        ]
    ax = _axes(ax)
    for values, label, style, colour in curves:
        if values.size:
            epochs = np.arange(1, len(values) + 1)
            marker = "o" if len(values) == 1 else None
            ax.plot(epochs, values, linestyle=style, color=colour, label=label, marker=marker)
    worst = loss[np.isfinite(loss)].max(initial=1.0)
    ax.set_ylim(0.0, 1.0 if worst <= 1.0 else 1.05 * worst)
    ax.set_ylabel("loss (nats), accuracy")
    _count_axis(ax, n_epochs, _unit(clf_or_history))
    ax.grid(visible=True, alpha=0.4)
    ax.legend()
    return ax


def gap(
    clf_or_history: Any,
    ax: Axes | None = None,
    *,
    x: Literal["iteration", "seconds"] = "iteration",
) -> Axes:
    """Plot the certified gap, how far the objective is at most from its optimum, on a log scale.

    Parameters
    ----------
    clf_or_history : fitted FastSoftmax or dict
        The estimator, or its `history_`. With the estimator its `tol` is drawn as well.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.
    x : {"iteration", "seconds"}, default="iteration"
        The horizontal axis; seconds are those since the first iteration began.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If x is neither of the two, or no gap was recorded (``solver="sgd"`` records none).

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> ax = plot.gap({"gap": [0.5, 1e-2, 1e-4]}, Figure().subplots())
    >>> ax.get_yscale()
    'log'
    """
    if x not in ("iteration", "seconds"):
        raise ValueError(f"x must be 'iteration' or 'seconds', not {x!r}")
    record = _record(clf_or_history)
    gaps = _column(record, "gap")
    drawn = np.isfinite(gaps) & (gaps > 0.0)
    if not drawn.any():
        raise ValueError("the history holds no gap to draw: solver='sgd' records none")
    ax = _axes(ax)
    at = np.arange(1.0, len(gaps) + 1)
    if x == "seconds":
        at = np.cumsum(_column(record, "seconds"))
    marker = "o" if drawn.sum() == 1 else None
    ax.semilogy(at[drawn], gaps[drawn], color="tab:blue", marker=marker, label="certified gap")
    tol = getattr(clf_or_history, "tol", None)
    if tol:
        ax.axhline(tol, color="0.4", linestyle="--", label=f"tol = {tol:g}")
    if x == "iteration":
        _count_axis(ax, len(gaps), "iteration")
    else:
        ax.set_xlim(left=0.0)
        ax.set_xlabel("seconds")
    ax.set_ylabel("relative gap")
    ax.grid(visible=True, alpha=0.4)
    ax.legend()
    return ax


def _record(clf_or_history: Any) -> Mapping[str, Any]:
    record = getattr(clf_or_history, "history_", clf_or_history)
    if not isinstance(record, Mapping):
        raise TypeError(
            f"a fitted FastSoftmax or its history_ is wanted, not {type(clf_or_history).__name__}"
        )
    return record


def _column(record: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    return np.array([math.nan if v is None else v for v in record.get(key, ())], dtype=np.float64)


def _eval_names(names: Sequence[str] | None, n_sets: int) -> Sequence[str]:
    if names is None:
        return ["test"] if n_sets == 1 else [f"eval {i}" for i in range(1, n_sets + 1)]
    if len(names) != n_sets:
        raise ValueError(f"eval_names holds {len(names)} names for {n_sets} evaluation sets")
    return names


def _unit(clf_or_history: Any) -> str:
    """Name of what the horizontal axis counts; a bare history does not tell."""
    solver = getattr(clf_or_history, "solver", "sgd")
    return "epoch" if solver == "sgd" else "iteration"


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    new: Axes = pyplot().subplots()[1]
    return new


def _count_axis(ax: Axes, n: int, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(*((1, n) if n > 1 else (0.5, 1.5)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(label)
