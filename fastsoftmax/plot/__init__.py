"""Pictures of a fit and its data: curves, the certificate, the choice of C, images, templates.

`history`, `gap`, `path`, `images`, `predictions` and `weights` draw into the given axes and return
them; with ``ax=None`` they draw into a new pyplot figure, so that a notebook shows it.
`HistoryDisplay`, `GapDisplay` and `PathDisplay` draw the same as the first three. They are display
objects like those of scikit-learn. `LivePlot` is a callback that draws while a fit runs. Nothing
here changes matplotlib's settings. matplotlib is an optional dependency (``pip install
matplotlib``) and is imported only when something is drawn. For confusion matrices, ROC and
calibration curves use scikit-learn's displays, such as `sklearn.metrics.ConfusionMatrixDisplay`.
"""

from fastsoftmax.plot._history import GapDisplay, HistoryDisplay, gap, history
from fastsoftmax.plot._images import images, predictions, weights
from fastsoftmax.plot._live import LivePlot
from fastsoftmax.plot._path import PathDisplay, path

__all__ = [
    "GapDisplay",
    "HistoryDisplay",
    "LivePlot",
    "PathDisplay",
    "gap",
    "history",
    "images",
    "path",
    "predictions",
    "weights",
]
