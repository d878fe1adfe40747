"""Where a live figure is seen: in a notebook, in a window, in a file."""

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
# Drawn with twice the dots that it is shown with, for screens that have them.
_SHARPNESS = 2


class Output:
    """A place where a figure is seen."""

    def axes(self) -> Axes:
        """Return axes of a figure that pyplot does not know, and so shows nowhere itself."""
        from matplotlib.figure import Figure

        return Figure(figsize=_SIZE, layout="constrained").subplots()

    def show(self, figure: Any) -> None:
        """Show the figure as it is now, in place of what was shown."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the window, if it is one."""


class OwnersFigure(Output):
    """No place of ours: whoever brought the axes shows them, in a window perhaps."""

    def show(self, figure: Any) -> None:
        """Draw in the window, if there is one."""
        if figure.canvas.manager is not None:
            figure.canvas.draw_idle()
            figure.canvas.flush_events()


class Nowhere(Output):
    """The figure is kept up to date, and that is all."""

    def show(self, figure: Any) -> None:
        """Do nothing."""


class FileOutput(Output):
    """A file, which is at any time a whole picture."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def show(self, figure: Any) -> None:
        """Write the file beside its place, then move it there."""
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
        """Display a picture, or put it in the place of the one displayed."""
        from IPython.display import Image, display

        if figure.canvas.manager is not None and "matplotlib.pyplot" in sys.modules:
            # pyplot would show it once more at the end of the cell
            sys.modules["matplotlib.pyplot"].close(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_SHARPNESS * _DOTS_PER_INCH)
        image = Image(data=buffer.getvalue(), format="png", width=_width(figure))
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)


class WindowOutput(Output):
    """A window of pyplot's."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure

    def axes(self) -> Axes:
        """Return axes in the window."""
        axes: Axes = self.figure.subplots()
        return axes

    def show(self, figure: Any) -> None:
        """Draw in the window, unless somebody closed it."""
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
    """Return the place for a figure: the notebook, then the file, then a window."""
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
    return Nowhere()


def notebook_shell() -> Any:
    """Return IPython's shell, where it is that of a notebook; otherwise None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def _width(figure: Any) -> int:
    return int(figure.get_figwidth() * _DOTS_PER_INCH)
