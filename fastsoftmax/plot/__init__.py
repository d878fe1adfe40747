"""Pictures of a fit and its data: curves, the certificate, the choice of C, images, templates.

`history`, `gap`, `path`, `images`, `predictions` and `weights` draw into the axes that they are
given and return them; with ``ax=None`` they draw into a new figure of pyplot's, so that a notebook
shows it. `HistoryDisplay`, `GapDisplay` and `PathDisplay` are the first three as scikit-learn's
display objects; `LivePlot` is a callback that draws while a fit runs. Nothing here changes
matplotlib's settings. matplotlib is imported when something is drawn, not before: it is an optional
dependency, ``pip install "fastsoftmax[plot]"``. Confusion matrices, ROC and calibration curves are
drawn by scikit-learn's displays, such as `sklearn.metrics.ConfusionMatrixDisplay`.
"""

from fastsoftmax.plot._gap import GapDisplay, gap
from fastsoftmax.plot._history import HistoryDisplay, history
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
