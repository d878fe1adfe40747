"""The history of a fit: loss, accuracy and the certificate over its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.plot._shared import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILION,
    Display,
    add_legend,
    check_choice,
    checked_as_fitted,
    final_estimator,
    label_and_grid,
    step_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

XAxis: TypeAlias = Literal["iteration", "seconds"]

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


@dataclass(eq=False, repr=False)
class HistoryDisplay(Display):
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
        As for `history`.

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

    history: Mapping[str, Any]
    _: KW_ONLY
    unit: str = "iteration"
    eval_names: Sequence[str] | None = None
    lines_: list[Line2D] = field(init=False)

    @classmethod
    @own_arithmetic
    def from_estimator(
        cls,
        estimator: Any,
        *,
        x: XAxis = "iteration",
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
        self, ax: Axes | None = None, *, x: XAxis = "iteration", curves: Iterable[str] | None = None
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
        check_choice("x", x, get_args(XAxis))
        drawn = curves_of(self.history, curves, self.eval_names)
        n_steps = max((len(curve.values) for curve in drawn), default=0)
        if n_steps == 0:
            raise ValueError("the history holds no epoch to draw: fit first")
        seconds = seconds_of(self.history) if x == "seconds" else None
        ax = self._use(ax)
        at = np.arange(1.0, n_steps + 1.0) if seconds is None else seconds
        self.lines_ = add_lines(ax, drawn, at)
        ax.set_ylim(0.0, top_of(drawn))
        step_axis(ax, n_steps, self.unit, seconds)
        decorate(ax, drawn)
        return self


@own_arithmetic
def history(
    clf_or_history: Any,
    ax: Axes | None = None,
    *,
    x: XAxis = "iteration",
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


@dataclass(eq=False, repr=False)
class GapDisplay(Display):
    """The certified gap over a fit, as a display object like scikit-learn's.

    Parameters
    ----------
    gap : array-like of shape (n_iterations,)
        Bounds on (F - min F) / F; only finite ones above 0 are drawn.
    seconds : array-like of shape (n_iterations,), default=None
        Time at the end of each iteration.
    tol : float, default=None
        Where to draw a horizontal line.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        The gap.
    tol_line_ : matplotlib Line2D or None

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax.plot import GapDisplay
    >>> display = GapDisplay([0.5, 1e-2, 1e-4], tol=1e-3).plot(Figure().subplots())
    >>> display.tol_line_.get_label()
    'tol = 0.001'
    """

    gap: ArrayLike
    _: KW_ONLY
    seconds: ArrayLike | None = None
    tol: float | None = None
    line_: Line2D = field(init=False)
    tol_line_: Line2D | None = field(init=False)

    @classmethod
    @own_arithmetic
    def from_estimator(
        cls, estimator: Any, *, x: XAxis = "iteration", ax: Axes | None = None
    ) -> Self:
        """Draw the gaps of a fitted estimator; parameters and errors are those of `gap`.

        Returns
        -------
        display : GapDisplay
        """
        check_choice("x", x, get_args(XAxis))
        record = record_of(estimator)
        gaps = column(record, "gap")
        if not gaps.size or np.isnan(gaps).all():
            raise ValueError(
                "the history holds no gap to draw: solver='sgd' records none, nor does partial_fit"
            )
        seconds = seconds_of(record) if x == "seconds" else None
        tol = getattr(final_estimator(estimator), "tol", None)
        return cls(gaps, seconds=seconds, tol=tol).plot(ax, x=x)

    @own_arithmetic
    def plot(self, ax: Axes | None = None, *, x: XAxis = "iteration") -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        x : {"iteration", "seconds"}, default="iteration"
            The horizontal axis.

        Returns
        -------
        self
        """
        check_choice("x", x, get_args(XAxis))
        gaps = np.asarray(self.gap, dtype=np.float64)
        seconds = None
        if x == "seconds":
            if self.seconds is None:
                raise ValueError("x='seconds' needs the seconds of the iterations")
            seconds = np.asarray(self.seconds, dtype=np.float64)
        drawn = np.isfinite(gaps) & (gaps > 0.0)
        if not drawn.any():
            raise ValueError(
                "no gap is above 0 and finite, so that a logarithmic axis could show it; without a "
                "penalty (C=inf) none is certified"
            )
        at = np.arange(1.0, len(gaps) + 1) if seconds is None else seconds
        ax = self._use(ax)
        marker = "o" if drawn.sum() == 1 else None
        (self.line_,) = ax.semilogy(
            at[drawn], gaps[drawn], color=BLUE, marker=marker, label="certified gap"
        )
        self.tol_line_ = None
        if self.tol:
            self.tol_line_ = ax.axhline(
                self.tol, color=GREY, linestyle="--", label=f"tol = {self.tol:g}"
            )
        step_axis(ax, len(gaps), "iteration", seconds)
        label_and_grid(ax, "relative gap")
        add_legend(ax)
        return self


@own_arithmetic
def gap(clf_or_history: Any, ax: Axes | None = None, *, x: XAxis = "iteration") -> Axes:
    """Plot the certified gap, a bound on the relative distance from the minimum, on a log scale.

    Parameters
    ----------
    clf_or_history : fitted FastSoftmax or dict
        The estimator (or a pipeline that ends in one), or its `history_`. For an estimator, `tol`
        is drawn as well.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.
    x : {"iteration", "seconds"}, default="iteration"
        The horizontal axis; seconds count from the start of the first iteration, without the time
        for evaluation sets.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If x is neither of the two; if there is no history (a model that was loaded has none); if no
        gap was recorded (``solver="sgd"`` and partial_fit record none, and without a penalty none
        is certified).
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is neither an estimator nor a dict.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> ax = plot.gap({"gap": [0.5, 1e-2, 1e-4]}, Figure().subplots())
    >>> ax.get_yscale()
    'log'
    """
    return GapDisplay.from_estimator(clf_or_history, x=x, ax=ax).ax_


def record_of(clf_or_history: Any) -> Mapping[str, Any]:
    """Return `history_` of a fitted estimator, or the dict itself."""
    estimator = final_estimator(clf_or_history)
    record = getattr(estimator, "history_", estimator)
    if isinstance(record, Mapping):
        return record
    wanted = "a fitted FastSoftmax or its history_"
    checked_as_fitted(estimator, wanted)
    if hasattr(estimator, "coefs_paths_"):
        raise TypeError(
            f"{wanted} is wanted; of a {type(estimator).__name__} without refit there is plot.path"
        )
    raise ValueError(
        f"this {type(estimator).__name__} has no history_: that comes from fit, and neither load "
        "nor from_sklearn brings it. Fit it, or keep the model with pickle."
    )


def column(record: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    """Return one number for each step, NaN for None; no numbers if the history lacks the key."""
    return np.array([math.nan if v is None else v for v in record.get(key, ())], dtype=np.float64)


def eval_columns(record: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    """Return (n_sets, n_steps), NaN in steps without evaluation; n_sets may be 0."""
    rows = [tuple(row) for row in record.get(key, ())]
    n_sets = max((len(row) for row in rows), default=0)
    padded = [row + (math.nan,) * (n_sets - len(row)) for row in rows]
    return np.array(padded, dtype=np.float64).reshape(len(rows), n_sets).T


def unit_of(clf_or_history: Any, record: Mapping[str, Any]) -> str:
    """Return the name of the steps; a bare history without objectives is of "sgd"."""
    estimator = final_estimator(clf_or_history)
    if math.isnan(getattr(estimator, "objective_", 0.0)):
        return "call of partial_fit"
    without_objective = all(value is None for value in record.get("objective", ()))
    default = "sgd" if without_objective else "lbfgs"
    return "epoch" if getattr(estimator, "solver", default) == "sgd" else "iteration"


def seconds_of(record: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the seconds from the start of the first step to the end of each step."""
    seconds = np.cumsum(column(record, "seconds"))
    if not seconds.size:
        raise ValueError("x='seconds' needs a history that holds seconds; this one holds none")
    return seconds


def checked_curves(curves: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return names of curves as a tuple; None stays None."""
    if curves is None:
        return None
    names = (curves,) if isinstance(curves, str) else tuple(curves)
    unknown = [name for name in names if name not in CURVES]
    if unknown or not names:
        raise ValueError(f"curves must name some of {', '.join(CURVES)}; got {curves!r}")
    return names


def eval_labels(names: Sequence[str] | None, n_sets: int) -> Sequence[str]:
    """Return a name for each evaluation set."""
    if names is None:
        return ["test"] if n_sets == 1 else [f"eval {i}" for i in range(1, n_sets + 1)]
    if isinstance(names, str):
        raise TypeError(f"eval_names must be a sequence of names, got the string {names!r}")
    if len(names) != n_sets:
        raise ValueError(f"eval_names holds {len(names)} names for {n_sets} evaluation sets")
    return names


def curves_of(
    record: Mapping[str, Any], curves: Iterable[str] | None, eval_names: Sequence[str] | None
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
    label_and_grid(ax, ", ".join(names))
    many = max(len(curve.values) for curve in curves) > _MANY_POINTS
    add_legend(ax, loc="center right" if many else "best")
