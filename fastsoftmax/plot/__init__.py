"""Pictures of a fit and its data: curves, grids of images, class templates, the certificate.

Plain matplotlib functions. Each draws into the axes that it is given and returns them; with
``ax=None`` it draws into a new figure of pyplot's, so that a notebook shows it. Nothing here
changes matplotlib's settings. matplotlib is imported when a function is called, not before: it is
an optional dependency, ``pip install "fastsoftmax[plot]"``.
"""

from fastsoftmax.plot._curves import gap, history
from fastsoftmax.plot._images import images, predictions, weights

__all__ = ["gap", "history", "images", "predictions", "weights"]
