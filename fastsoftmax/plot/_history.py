"""Loss and accuracy over the epochs or iterations of a fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.plot._pyplot import (
    BLUE,
    GREEN,
    PURPLE,
    VERMILION,
    add_legend,
    axes_or_new,
    count_axis,
    seconds_axis,
)
from fastsoftmax.plot._record import (
    checked_x,
    column,
    eval_columns,
    eval_labels,
    record_of,
    seconds_of,
    unit_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

CURVES = ("loss", "accuracy", "eval_loss", "eval_accuracy")
_DEFAULT_CURVES = ("loss", "accuracy", "eval_accuracy")
_TRAIN_STYLES = {"loss": ("-", BLUE), "accuracy": ("--", VERMILION)}
_EVAL_STYLES = ("-.", ":", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))
_EVAL_COLOURS = {"eval_loss": PURPLE, "eval_accuracy": GREEN}
# A loss above this many times the median loss would leave no room for the accuracies.
_LARGE_LOSS = 5.0
# The time to find the best place of a legend grows with the number of points.
_MANY_POINTS = 2000


class Curve(NamedTuple):
    """A line to draw."""

    values: NDArray[np.float64]  # one for each step, NaN if missing
    label: str
    style: Any
    colour: str
    is_loss: bool


class HistoryDisplay:
    """Curves of a fit, as a display object like scikit-learn's.

    Make one with `from_estimator`, or from a `history_`.

    Parameters
    ----------
    history : dict
        Lists "loss", "accuracy", "seconds", "eval_loss" and "eval_accuracy" as in
        ``FastSoftmax().fit(X, y).history_``; at least those that are drawn.
    unit : str, default="iteration"
        What the horizontal axis counts.
    eval_names : sequence of str, default=None
        A name for each evaluation set. None means "test" for a single set, otherwise "eval 1",
        "eval 2" and so on.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        In the order of the legend.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from sklearn.datasets import load_iris
    >>> from fastsoftmax import FastSoftmax
    >>> from fastsoftmax.plot import HistoryDisplay
    >>> clf = FastSoftmax().fit(*load_iris(return_X_y=True))
    >>> display = HistoryDisplay.from_estimator(clf, ax=Figure().subplots())
    >>> [line.get_label() for line in display.lines_]
    ['train loss', 'train accuracy']
    """

    ax_: Axes
    figure_: Any
    lines_: list[Line2D]

    def __init__(
        self,
        history: Mapping[str, Any],
        *,
        unit: str = "iteration",
        eval_names: Sequence[str] | None = None,
    ) -> None:
        self.history = history
        self.unit = unit
        self.eval_names = eval_names

    @classmethod
    @own_arithmetic
    def from_estimator(
        cls,
        estimator: Any,
        *,
        x: Literal["iteration", "seconds"] = "iteration",
        curves: Iterable[str] | None = None,
        eval_names: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the history of a fitted estimator; parameters and errors are those of `history`.

        Returns
        -------
        display : HistoryDisplay
        """
        record = record_of(estimator)
        display = cls(record, unit=unit_of(estimator, record), eval_names=eval_names)
        return display.plot(ax, x=x, curves=curves)

    @own_arithmetic
    def plot(
        self,
        ax: Axes | None = None,
        *,
        x: Literal["iteration", "seconds"] = "iteration",
        curves: Iterable[str] | None = None,
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        x, curves
            As for `history`.

        Returns
        -------
        self
        """
        checked_x(x)
        drawn = curves_of(self.history, curves, self.eval_names)
        n_steps = max((len(curve.values) for curve in drawn), default=0)
        if n_steps == 0:
            raise ValueError("the history holds no epoch to draw: fit first")
        at = seconds_of(self.history) if x == "seconds" else np.arange(1.0, n_steps + 1.0)
        ax = axes_or_new(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_ = add_lines(ax, drawn, at)
        ax.set_ylim(0.0, top_of(drawn))
        if x == "seconds":
            seconds_axis(ax, at)
        else:
            count_axis(ax, n_steps, self.unit)
        decorate(ax, drawn)
        return self


@own_arithmetic
def history(
    clf_or_history: Any,
    ax: Axes | None = None,
    *,
    x: Literal["iteration", "seconds"] = "iteration",
    curves: Iterable[str] | None = None,
    eval_names: Sequence[str] | None = None,
) -> Axes:
    """Plot training loss, training accuracy and held-out accuracy by epoch or iteration.

    Parameters
    ----------
    clf_or_history : fitted FastSoftmax or dict
        The estimator (or a pipeline that ends in one), or its `history_`.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.
    x : {"iteration", "seconds"}, default="iteration"
        The horizontal axis: iterations (epochs, for ``solver="sgd"``), or their seconds, without
        the time for evaluation sets.
    curves : iterable of str, default=None
        Which of "loss", "accuracy", "eval_loss" and "eval_accuracy" to draw. None means all but
        "eval_loss", and "eval_accuracy" only where the fit had an `eval_set`.
    eval_names : sequence of str, default=None
        A name for each evaluation set. None means "test" for a single set, otherwise "eval 1",
        "eval 2" and so on.

    Returns
    -------
    ax : matplotlib Axes
        Loss (in nats) and accuracy share its vertical axis. It shows 0 to 1 and every loss up to
        five times the median loss (at least 5). Larger losses, for instance of a first epoch, are
        cut off at the top.

    Raises
    ------
    ValueError
        If there is no history (a model that was loaded has none) or no epoch to draw; if curves
        names an unknown curve, or one of an `eval_set` that the fit did not have; if the number of
        eval_names differs from that of the evaluation sets.
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is neither an estimator nor a dict.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> record = {"loss": [1.2, 0.8], "accuracy": [0.6, 0.7], "eval_accuracy": [(0.6,), (0.65,)]}
    >>> ax = plot.history(record, Figure().subplots())
    >>> [line.get_label() for line in ax.lines]
    ['train loss', 'train accuracy', 'test accuracy']
    >>> plot.history(record, Figure().subplots(), curves=["loss"]).get_ylabel()
    'loss (nats)'
    """
    return HistoryDisplay.from_estimator(
        clf_or_history, x=x, curves=curves, eval_names=eval_names, ax=ax
    ).ax_


def checked_curves(curves: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return names of curves as a tuple; None stays None."""
    if curves is None:
        return None
    names = (curves,) if isinstance(curves, str) else tuple(curves)
    unknown = [name for name in names if name not in CURVES]
    if unknown or not names:
        raise ValueError(f"curves must name some of {', '.join(CURVES)}; got {curves!r}")
    return names


def curves_of(
    record: Mapping[str, Any],
    curves: Iterable[str] | None,
    eval_names: Sequence[str] | None,
) -> list[Curve]:
    """Return the lines to draw, in the order of the legend."""
    names = checked_curves(curves)
    found: list[Curve] = []
    for key in names or _DEFAULT_CURVES:
        is_loss = key.endswith("loss")
        if key in _TRAIN_STYLES:
            values = column(record, key)
            if values.size:
                found.append(Curve(values, f"train {key}", *_TRAIN_STYLES[key], is_loss))
            continue
        sets = eval_columns(record, key)
        wanted = names is not None or eval_names
        if wanted and not len(sets) and column(record, "loss").size:
            what = f"curves names {key!r}" if names is not None else f"eval_names is {eval_names}"
            raise ValueError(f"{what}, but the fit had no eval_set: give fit one")
        labels = eval_labels(eval_names, len(sets)) if len(sets) else ()
        for i, (values, label) in enumerate(zip(sets, labels, strict=True)):
            style = _EVAL_STYLES[i % len(_EVAL_STYLES)]
            found.append(Curve(values, f"{label} {key[5:]}", style, _EVAL_COLOURS[key], is_loss))
    return found


def add_lines(ax: Axes, curves: Sequence[Curve], at: NDArray[np.float64]) -> list[Line2D]:
    """Draw lines; a line of a single point gets a marker, as it would be invisible."""
    lines = []
    for values, label, style, colour, _ in curves:
        marker = "o" if np.isfinite(values).sum() == 1 else None
        lines += ax.plot(
            at[: len(values)], values, linestyle=style, color=colour, label=label, marker=marker
        )
    return lines


def top_of(curves: Sequence[Curve]) -> float:
    """Return the upper end of the vertical axis."""
    losses = [curve.values[np.isfinite(curve.values)] for curve in curves if curve.is_loss]
    losses = [values for values in losses if values.size]
    worst = max((float(values.max()) for values in losses), default=1.0)
    if all(curve.is_loss for curve in curves):
        return 1.05 * worst or 1.0
    limit = _LARGE_LOSS * max([1.0, *(float(np.median(values)) for values in losses)])
    return 1.0 if worst <= 1.0 else 1.05 * min(worst, limit)


def decorate(ax: Axes, curves: Sequence[Curve]) -> None:
    """Add the label of the vertical axis, a grid and the legend."""
    kinds = {curve.is_loss for curve in curves}
    names = ["loss (nats)"] * (True in kinds) + ["accuracy"] * (False in kinds)
    ax.set_ylabel(", ".join(names))
    ax.grid(visible=True, alpha=0.4)
    many = max(len(curve.values) for curve in curves) > _MANY_POINTS
    add_legend(ax, loc="center right" if many else "best")
