"""The certificate over the iterations of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.plot._pyplot import BLUE, GREY, add_legend, axes_or_new, count_axis, seconds_axis
from fastsoftmax.plot._record import checked_x, column, final_estimator, record_of, seconds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


class GapDisplay:
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

    ax_: Axes
    figure_: Any
    line_: Line2D
    tol_line_: Line2D | None

    def __init__(
        self, gap: ArrayLike, *, seconds: ArrayLike | None = None, tol: float | None = None
    ) -> None:
        self.gap = gap
        self.seconds = seconds
        self.tol = tol

    @classmethod
    @own_arithmetic
    def from_estimator(
        cls,
        estimator: Any,
        *,
        x: Literal["iteration", "seconds"] = "iteration",
        ax: Axes | None = None,
    ) -> Self:
        """Draw the gaps of a fitted estimator; parameters and errors are those of `gap`.

        Returns
        -------
        display : GapDisplay
        """
        checked_x(x)
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
    def plot(
        self, ax: Axes | None = None, *, x: Literal["iteration", "seconds"] = "iteration"
    ) -> Self:
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
        gaps = np.asarray(self.gap, dtype=np.float64)
        if checked_x(x) == "seconds" and self.seconds is None:
            raise ValueError("x='seconds' needs the seconds of the iterations")
        drawn = np.isfinite(gaps) & (gaps > 0.0)
        if not drawn.any():
            raise ValueError(
                "no gap is above 0 and finite, so that a logarithmic axis could show it; without a "
                "penalty (C=inf) none is certified"
            )
        seconds = np.asarray(self.seconds, dtype=np.float64)
        at = seconds if x == "seconds" else np.arange(1.0, len(gaps) + 1)
        ax = axes_or_new(ax)
        self.ax_, self.figure_ = ax, ax.figure
        marker = "o" if drawn.sum() == 1 else None
        (self.line_,) = ax.semilogy(
            at[drawn], gaps[drawn], color=BLUE, marker=marker, label="certified gap"
        )
        self.tol_line_ = None
        if self.tol:
            self.tol_line_ = ax.axhline(
                self.tol, color=GREY, linestyle="--", label=f"tol = {self.tol:g}"
            )
        if x == "iteration":
            count_axis(ax, len(gaps), "iteration")
        else:
            seconds_axis(ax, at)
        ax.set_ylabel("relative gap")
        ax.grid(visible=True, alpha=0.4)
        add_legend(ax)
        return self


@own_arithmetic
def gap(
    clf_or_history: Any,
    ax: Axes | None = None,
    *,
    x: Literal["iteration", "seconds"] = "iteration",
) -> Axes:
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
