"""The one place that imports matplotlib's global state, for callers who bring no axes."""

from __future__ import annotations

from typing import Any


def pyplot() -> Any:
    """Return `matplotlib.pyplot`, or raise an ImportError that tells how to get it."""
    try:
        from matplotlib import pyplot as module
    except ImportError as error:
        raise ImportError(
            f"fastsoftmax.plot needs matplotlib, which cannot be imported ({error}): "
            "pip install 'fastsoftmax[plot]'"
        ) from error
    return module
