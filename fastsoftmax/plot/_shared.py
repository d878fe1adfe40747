"""What the plots share: their axes, checks of arguments, and estimators in pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastsoftmax.archives import replacing

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# From the palette of Okabe and Ito, which is distinct for any colour vision.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.4"


class Display:
    """What the display objects share."""

    ax_: Axes
    figure_: Any

    def _use(self, ax: Axes | None) -> Axes:
        """Keep and return the given axes, or those of a new figure."""
        self.ax_ = axes_or_new(ax)
        self.figure_ = self.ax_.figure
        return self.ax_


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless the value is one of two choices."""
    if value not in choices:
        raise ValueError(f"{name} must be {choices[0]!r} or {choices[1]!r}, not {value!r}")


def final_estimator(estimator: Any) -> Any:
    """Return the last step of a pipeline, anything else unchanged."""
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if isinstance(steps, list) and steps else estimator


def checked_as_fitted(estimator: Any, wanted: str) -> None:
    """Raise a TypeError unless this is an estimator, and a NotFittedError unless it is fitted."""
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        name = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(f"{wanted} is wanted, not {name}")
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)


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
            "pip install matplotlib"
        ) from error


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the given axes, or those of a new figure that a notebook shows."""
    if ax is None:
        new: Axes = pyplot().subplots(layout="constrained")[1]
        return new
    if not hasattr(ax, "plot"):
        raise TypeError(f"ax must be one matplotlib Axes, got {type(ax).__name__}")
    return ax


def step_axis(ax: Axes, n: int, unit: str, seconds: NDArray[np.float64] | None = None) -> None:
    """Make the horizontal axis count n steps from 1, or show their times from 0 if given."""
    from matplotlib.ticker import MaxNLocator

    if seconds is None:
        ax.set_xlim(*((1, n) if n > 1 else (0.5, 1.5)))
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        ax.set_xlabel(unit)
    else:
        end = float(seconds[-1]) * (2.0 if len(seconds) == 1 else 1.0)  # one time: in the middle
        ax.set_xlim(0.0, end if end > 0.0 else 1.0)
        ax.set_xlabel("seconds")


def label_and_grid(ax: Axes, label: str) -> None:
    """Label the vertical axis, and draw a grid."""
    ax.set_ylabel(label)
    ax.grid(visible=True, alpha=0.4)


def add_legend(ax: Axes, **options: Any) -> Any:
    """Add a legend for which the layout does not shrink the axes."""
    legend = ax.legend(**options)
    legend.set_in_layout(False)
    return legend


def write_figure(path: Path, figure: Any, dpi: float) -> None:
    """Write a figure in the format that the name ends with; an old file is replaced at the end.

    If the disk is full or the process is killed, the old file remains.
    """
    with replacing(path) as opened:
        figure.savefig(opened, format=path.suffix[1:].lower(), dpi=dpi)
