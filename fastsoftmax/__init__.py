"""fastsoftmax: softmax regression (multinomial logistic regression) on the CPU, exact and fast.

The estimators are `FastSoftmax` and, to choose the penalty, `FastSoftmaxCV` (`fastsoftmax_path`
makes the fits alone). `softmax`, `log_softmax`, `logsumexp`, `cross_entropy`,
`linear_cross_entropy` and `accuracy` work on arrays; `datasets` and `plot` are modules. Names are
loaded on first use, so importing the package costs little more than numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastsoftmax._version import __version__

_HOME = {
    "FastSoftmax": "estimator",
    "FastSoftmaxCV": "model_selection",
    "accuracy": "losses",
    "cross_entropy": "losses",
    "fastsoftmax_path": "model_selection",
    "linear_cross_entropy": "losses",
    "log_softmax": "functional",
    "logsumexp": "functional",
    "show_versions": "_show_versions",
    "softmax": "functional",
}
_MODULES = ("datasets", "plot")

__all__ = [
    "FastSoftmax",
    "FastSoftmaxCV",
    "__version__",
    "accuracy",
    "cross_entropy",
    "datasets",
    "fastsoftmax_path",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "plot",
    "show_versions",
    "softmax",
]

if TYPE_CHECKING:
    from fastsoftmax import datasets, plot
    from fastsoftmax._show_versions import show_versions
    from fastsoftmax.estimator import FastSoftmax
    from fastsoftmax.functional import log_softmax, logsumexp, softmax
    from fastsoftmax.losses import accuracy, cross_entropy, linear_cross_entropy
    from fastsoftmax.model_selection import FastSoftmaxCV, fastsoftmax_path


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fastsoftmax.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"fastsoftmax.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fastsoftmax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
