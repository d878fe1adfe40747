"""The outputs of a live figure: a notebook, a window, a file."""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (6.4, 4.0)  # inches
_DOTS_PER_INCH = 80
# Drawn with twice the dots of the display size, for screens of high resolution.
_SHARPNESS = 2


class Output:
    """A place where a figure is shown; this one is nowhere."""

    def axes(self) -> Axes:
        """Return axes of a figure that pyplot does not know, so that pyplot never shows it."""
        from matplotlib.figure import Figure

        return Figure(figsize=_SIZE, layout="constrained").subplots()

    def show(self, figure: Any) -> None:
        """Show the present figure instead of the previous one."""

    def close(self) -> None:
        """Close the window, if it is one."""


class OwnersFigure(Output):
    """A figure of the caller, who shows it, perhaps in a window."""

    def show(self, figure: Any) -> None:
        """Draw in the window, if there is one."""
        if figure.canvas.manager is not None:
            figure.canvas.draw_idle()
            figure.canvas.flush_events()


class FileOutput(Output):
    """A file that is a complete picture at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def show(self, figure: Any) -> None:
        """Write a temporary file in the same folder, then rename it."""
        written = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            figure.savefig(
                written, format=self.path.suffix[1:].lower(), dpi=_SHARPNESS * _DOTS_PER_INCH
            )
            written.replace(self.path)
        finally:
            written.unlink(missing_ok=True)


class NotebookOutput(Output):
    """One output of a notebook's cell."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, figure: Any) -> None:
        """Display a picture, or replace the displayed one."""
        from IPython.display import Image, display

        if figure.canvas.manager is not None and "matplotlib.pyplot" in sys.modules:
            # Otherwise pyplot would show it once more at the end of the cell.
            sys.modules["matplotlib.pyplot"].close(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_SHARPNESS * _DOTS_PER_INCH)
        width = int(figure.get_figwidth() * _DOTS_PER_INCH)
        image = Image(data=buffer.getvalue(), format="png", width=width)
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)


class WindowOutput(Output):
    """A pyplot window."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure

    def axes(self) -> Axes:
        """Return axes in the window."""
        axes: Axes = self.figure.subplots()
        return axes

    def show(self, figure: Any) -> None:
        """Draw in the window, unless the user closed it."""
        from matplotlib import pyplot

        if not pyplot.fignum_exists(figure.number):
            return
        figure.canvas.manager.show()
        figure.canvas.draw()
        figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window."""
        from matplotlib import pyplot

        pyplot.close(self.figure)


def output_for(ax: Axes | None, path: Path | None) -> Output:
    """Return where to show a figure: in a notebook, else a file, else a window."""
    if notebook_shell() is not None:
        return NotebookOutput()
    if path is not None:
        return FileOutput(path)
    if ax is not None:
        return OwnersFigure()
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=_SIZE, layout="constrained")
    if getattr(figure.canvas, "required_interactive_framework", None) is not None:
        return WindowOutput(figure)
    pyplot.close(figure)
    warnings.warn(
        "LivePlot has no place to draw: there is neither a notebook nor a window (matplotlib's "
        "backend has none). Give it path='curve.png'.",
        UserWarning,
        stacklevel=2,
    )
    return Output()


def notebook_shell() -> Any:
    """Return IPython's shell if it is that of a notebook, otherwise None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None
