"""A figure that is updated while a fit runs, in a notebook, a window or a file."""

from __future__ import annotations

import functools
import io
import math
import numbers
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.plot._history import (
    CURVES,
    Curve,
    add_lines,
    checked_curves,
    curves_of,
    decorate,
    record_of,
    top_of,
    unit_of,
)
from fastsoftmax.plot._shared import axes_or_new, require_matplotlib, step_axis, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastsoftmax.monitor import FitState

# Without `seconds`: the least time between two pictures, in seconds and in multiples of the time to
# draw one, so that drawing takes a tenth of the time at most.
_LEAST_SECONDS = 0.2
_TIMES_DRAWING = 10.0
_SIZE = (6.4, 4.0)  # inches
_DOTS_PER_INCH = 80
# Drawn with twice the dots of the display size, for screens of high resolution.
_SHARPNESS = 2
_clock = time.monotonic


class LivePlot:
    """A callback that draws loss and accuracy while a fit runs, in one picture.

    In a notebook the picture is one output of the cell, replaced in place. Elsewhere it is a
    window, if matplotlib has an interactive backend, or a file, ``path="curve.png"``. One object
    can watch several fits, one after another; each fit begins a new picture (in the same file).

    The last state is drawn when the fit ends. With `update`, which is for `partial_fit`, the last
    state is drawn by `on_fit_end` or `close`, or at the end of a ``with`` block or notebook cell.

    Parameters
    ----------
    path : str or path-like, default=None
        A file to write, replaced as a whole with each picture; the suffix is the format (.png,
        .svg, .pdf). In a notebook the file is written in addition to the output.
    every : int, default=1
        Draw after every `every` iterations (epochs, for ``solver="sgd"``).
    seconds : float, default=None
        Least time between two pictures; 0 means no limit. None means 0.2 seconds or ten times the
        drawing time of the last picture, whichever is longer, so that drawing hardly slows a fit.
        The first and the last state are always drawn.
    curves, eval_names
        As for `history`.
    xlim, ylim : (low, high), default=None
        Limits of the axes. None means for x all planned epochs of "sgd", otherwise limits that
        grow; for y 0 to 1 or the largest loss (see `history`).
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        From the first iteration on.

    Raises
    ------
    ValueError
        If a parameter has a value that cannot be used.
    FileNotFoundError
        If the folder of path does not exist.
    ImportError
        If matplotlib is not installed (``pip install matplotlib``).

    Warns
    -----
    UserWarning
        At the first picture, if there is no notebook, window, path or ax to show it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastsoftmax import FastSoftmax
    >>> from fastsoftmax.datasets import load_fashion_mnist_sample
    >>> from fastsoftmax.plot import LivePlot
    >>> X, y = load_fashion_mnist_sample("train")
    >>> test = load_fashion_mnist_sample("test")
    >>> clf = FastSoftmax(solver="sgd", max_iter=5, input_scale=1 / 255, random_state=0)
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "curve.png"
    >>> live = LivePlot(file)
    >>> clf = clf.fit(X, y, eval_set=[test], callbacks=[live])
    >>> file.exists(), [line.get_label() for line in live.ax_.lines]
    (True, ['train loss', 'train accuracy', 'test accuracy'])
    """

    ax_: Axes
    figure_: Any

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        every: int = 1,
        seconds: float | None = None,
        curves: Iterable[str] | None = None,
        eval_names: Sequence[str] | None = None,
        xlim: tuple[float, float] | None = None,
        ylim: tuple[float, float] | None = None,
        ax: Axes | None = None,
    ) -> None:
        require_matplotlib()
        self.path = None if path is None else _checked_path(path)
        self.every = _checked_number(every, numbers.Integral, 1, "every")
        if seconds is not None:
            _checked_number(seconds, numbers.Real, 0, "seconds")
        self.seconds = seconds
        self.curves = checked_curves(curves)
        self.eval_names = eval_names
        self.xlim, self.ylim = _checked_limits(xlim, "xlim"), _checked_limits(ylim, "ylim")
        self.ax = None if ax is None else axes_or_new(ax)
        self._lines: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        """Forget the last fit."""
        self._record: Mapping[str, list[Any]] = {key: [] for key in CURVES}
        self._unit, self._last_iteration, self._n_iter = "iteration", 0, 0
        self._finished, self._drawn_at, self._drawing_took = False, -math.inf, 0.0
        for line in self._lines:
            line.remove()
        self._lines = []
        self._shows: list[Callable[[Any], None]] = []

    @own_arithmetic
    def __call__(self, state: FitState) -> None:
        """Record an iteration, and draw if it is time."""
        if self._last_iteration and state.iteration <= self._last_iteration:
            self.on_fit_end()  # of the fit before
        if self._finished:
            self._begin()
        self._last_iteration = state.iteration
        if state.solver == "sgd":
            self._unit, self._n_iter = "epoch", state.n_iter
        for key, values in self._record.items():
            values.append(getattr(state, key))
        if state.iteration == state.n_iter:
            self.on_fit_end()
        elif state.iteration == 1 or (state.iteration % self.every == 0 and self._is_time()):
            self._draw()

    @own_arithmetic
    def update(self, clf_or_history: Any) -> None:
        """Draw the history so far, if it is time; for use after a call of `partial_fit`.

        Parameters
        ----------
        clf_or_history : FastSoftmax or dict
            The estimator, or its `history_`.

        Raises
        ------
        ValueError, NotFittedError, TypeError
            As `history`.
        """
        record = record_of(clf_or_history)
        if self._finished:
            self._begin()
        self._record = {key: list(record.get(key, ())) for key in CURVES}
        self._unit = unit_of(clf_or_history, record)
        n = len(self._record["loss"])
        if n == 0:
            raise ValueError("the history holds no epoch to draw: fit first")
        if not self._lines or (n % self.every == 0 and self._is_time()):
            self._draw()

    @own_arithmetic
    def on_fit_end(self) -> None:
        """Draw the last state, where the axes end; the next fit begins a new picture."""
        if self._record["loss"] and not self._finished:
            self._finished = True
            self._draw()

    @own_arithmetic
    def close(self) -> None:
        """Draw the last state, and close the window if there is one."""
        self.on_fit_end()
        if self._shows and self.ax is None:
            close_window(self.figure_)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *error: object) -> None:
        """Draw the last state. A window stays open."""
        self.on_fit_end()

    def __getstate__(self) -> dict[str, Any]:
        """Return the parameters: pictures stay in their process."""
        names = ("path", "every", "seconds", "curves", "eval_names", "xlim", "ylim", "ax")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the parameters of an object that has not watched a fit."""
        self.__dict__.update(state)
        self._lines = []
        self._begin()

    def _is_time(self) -> bool:
        seconds = self.seconds
        if seconds is None:
            seconds = max(_LEAST_SECONDS, _TIMES_DRAWING * self._drawing_took)
        return _clock() - self._drawn_at >= seconds

    def _draw(self) -> None:
        began = _clock()
        try:
            self._bring_up_to_date()
            for show in self._shows:
                show(self.figure_)
        except BaseException:
            self._finished = True  # drawing would fail again at the end
            raise
        if self.ax is None and not self._finished:
            # The layout takes half of the time to draw, and would move the axes in every picture.
            self.figure_.set_layout_engine("none")
        self._drawn_at = _clock()
        self._drawing_took = self._drawn_at - began

    def _bring_up_to_date(self) -> None:
        """Make the figure, or update its lines."""
        curves = curves_of(self._record, self.curves, self.eval_names)
        if not self._lines:
            self._open()
        at = np.arange(1.0, 1.0 + max(len(curve.values) for curve in curves))
        if [line.get_label() for line in self._lines] == [curve.label for curve in curves]:
            for line, curve in zip(self._lines, curves, strict=True):
                line.set_data(at[: len(curve.values)], curve.values)
                line.set_marker("o" if np.isfinite(curve.values).sum() == 1 else "None")
        else:
            for line in self._lines:
                line.remove()
            self._lines = add_lines(self.ax_, curves, at)
        decorate(self.ax_, curves)
        self._set_limits(curves, len(at))
        if self.ax is None:  # above the axes: a legend there never covers moving curves
            self.ax_.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
            if self._finished:
                self.figure_.set_layout_engine("constrained")

    def _open(self) -> None:
        """Make the figure and find where to show it."""
        self.ax_, self._shows = open_outputs(self.ax, self.path)
        self.figure_ = self.ax_.figure.canvas.figure  # the whole figure, also for a subfigure
        shell = notebook_shell()
        if shell is not None:  # the end of the cell, as partial_fit does not know its last call

            def finish(*_: Any) -> None:
                shell.events.unregister("post_run_cell", finish)
                self.on_fit_end()

            shell.events.register("post_run_cell", finish)

    def _set_limits(self, curves: Sequence[Curve], n: int) -> None:
        end = n if self._finished else self._n_iter or max(10, 2 ** math.ceil(math.log2(n)))
        step_axis(self.ax_, end, self._unit)
        if self.xlim is not None:
            self.ax_.set_xlim(*self.xlim)
        self.ax_.set_ylim(*(self.ylim or (0.0, top_of(curves))))


def _checked_path(path: str | os.PathLike[str]) -> Path:
    from matplotlib.backend_bases import FigureCanvasBase

    checked = Path(path).absolute()
    suffixes = FigureCanvasBase.get_supported_filetypes()
    if checked.suffix[1:].lower() not in suffixes:
        raise ValueError(
            f"path must end in one of .{', .'.join(sorted(suffixes))}; got {str(path)!r}"
        )
    if not checked.parent.is_dir():
        raise FileNotFoundError(f"the folder of path does not exist: {checked.parent}")
    return checked


def _checked_number(value: Any, kind: Any, least: int, name: str) -> Any:
    if not isinstance(value, kind):
        wanted = "an integer" if kind is numbers.Integral else "a number"
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return value


def _checked_limits(limits: Any, name: str) -> tuple[float, float] | None:
    if limits is None:
        return None
    try:
        low, high = (float(limit) for limit in limits)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be (low, high), got {limits!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low != high):
        raise ValueError(f"{name} must be two different finite numbers, got {limits!r}")
    return low, high


# Where a figure is shown


def write_file(path: Path, figure: Any) -> None:
    """Write a figure to a file, for large screens."""
    write_figure(path, figure, _SHARPNESS * _DOTS_PER_INCH)


class NotebookOutput:
    """One output of a notebook's cell."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, figure: Any) -> None:
        """Display a picture, or replace the displayed one."""
        from IPython.display import Image, display

        close_window(figure)  # pyplot would show it once more at the end of the cell
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_SHARPNESS * _DOTS_PER_INCH)
        width = int(figure.get_figwidth() * _DOTS_PER_INCH)
        image = Image(data=buffer.getvalue(), format="png", width=width)
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)


def update_owners_figure(figure: Any) -> None:
    """Draw in the window of a caller's figure, if there is one."""
    if figure.canvas.manager is not None:
        figure.canvas.draw_idle()
        figure.canvas.flush_events()


def update_window(figure: Any) -> None:
    """Draw in our window, unless the user closed it."""
    from matplotlib import pyplot

    if pyplot.fignum_exists(figure.number):
        figure.canvas.manager.show()
        figure.canvas.draw()
        figure.canvas.flush_events()


def close_window(figure: Any) -> None:
    """Close the window of a figure, if pyplot made one."""
    if figure.canvas.manager is not None and "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)


def open_outputs(ax: Axes | None, path: Path | None) -> tuple[Axes, list[Callable[[Any], None]]]:
    """Return axes, and what shows their figure: a notebook and a file, else a window."""
    from matplotlib.figure import Figure

    shows: list[Callable[[Any], None]] = []
    if notebook_shell() is not None:
        shows.append(NotebookOutput())
    if path is not None:
        shows.append(functools.partial(write_file, path))
    if ax is not None:
        return ax, shows or [update_owners_figure]
    if not shows:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=_SIZE, layout="constrained")
        if getattr(figure.canvas, "required_interactive_framework", None) is not None:
            return figure.subplots(), [update_window]
        pyplot.close(figure)
        warnings.warn(
            "LivePlot has no place to draw: there is neither a notebook nor a window (matplotlib's "
            "backend has none). Give it path='curve.png'.",
            UserWarning,
            stacklevel=2,
        )
    # A figure that pyplot does not know, so that pyplot never shows it.
    return Figure(figsize=_SIZE, layout="constrained").subplots(), shows


def notebook_shell() -> Any:
    """Return IPython's shell if it is that of a notebook, otherwise None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None
