"""Axes, given or new: pyplot is imported only if the caller passes none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From the palette of Okabe and Ito, which is distinct for any colour vision.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.4"


def pyplot() -> Any:
    """Return `matplotlib.pyplot`, or raise an ImportError that tells how to install it."""
    require_matplotlib()
    from matplotlib import pyplot as module

    return module


def require_matplotlib() -> None:
    """Raise an ImportError that tells how to install matplotlib, if it cannot be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"fastsoftmax.plot needs matplotlib, which cannot be imported ({error}): "
            "pip install 'fastsoftmax[plot]'"
        ) from error


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the given axes, or those of a new figure that a notebook shows."""
    if ax is None:
        new: Axes = pyplot().subplots(layout="constrained")[1]
        return new
    if not hasattr(ax, "plot"):
        raise TypeError(f"ax must be one matplotlib Axes, got {type(ax).__name__}")
    return ax


def count_axis(ax: Axes, n: int, label: str) -> None:
    """Make the horizontal axis count iterations from 1 to n."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(*((1, n) if n > 1 else (0.5, 1.5)))
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.set_xlabel(label)


def seconds_axis(ax: Axes, seconds: Any) -> None:
    """Make the horizontal axis show times from 0; a single time is in the middle."""
    end = float(seconds[-1]) * (2.0 if len(seconds) == 1 else 1.0)
    ax.set_xlim(0.0, end if end > 0.0 else 1.0)
    ax.set_xlabel("seconds")


def add_legend(ax: Axes, **options: Any) -> Any:
    """Add a legend for which the layout does not shrink the axes."""
    legend = ax.legend(**options)
    legend.set_in_layout(False)
    return legend
