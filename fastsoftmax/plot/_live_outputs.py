"""The outputs of a live figure: a notebook, a window, a file."""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (6.4, 4.0)  # inches
_DOTS_PER_INCH = 80
# Drawn with twice the dots of the display size, for screens of high resolution.
_SHARPNESS = 2


def write_file(path: Path, figure: Any) -> None:
    """Write a temporary file in the same folder, then rename it: the picture is always complete."""
    written = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(written, format=path.suffix[1:].lower(), dpi=_SHARPNESS * _DOTS_PER_INCH)
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


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
