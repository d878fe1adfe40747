"""The choice of the module that computes: the compiled kernels or their numpy twin."""

import functools
import importlib
import threading
import warnings
from types import ModuleType

_BACKENDS = ("auto", "native", "numpy")
_HOW_TO_BUILD = (
    "To get them, install a C compiler (gcc or clang) and reinstall with "
    "`pip install --force-reinstall --no-binary fastsoftmax fastsoftmax`, or run "
    "`pip install .` in a clone."
)


def resolve_backend(backend: str) -> ModuleType:
    """Return the module that holds the kernels.

    Parameters
    ----------
    backend : {"auto", "native", "numpy"}
        "native" is the compiled `fastsoftmax.kernels`; "numpy" is `fastsoftmax.reference`, with
        the same functions. "auto" is "native" if the kernels were built, otherwise "numpy" with
        one RuntimeWarning per process.

    Returns
    -------
    module
        `fastsoftmax.kernels` or `fastsoftmax.reference`.

    Raises
    ------
    ValueError
        If backend is none of these.
    ImportError
        If backend is "native" and the compiled kernels cannot be imported.

    Examples
    --------
    >>> from fastsoftmax.backend import resolve_backend
    >>> resolve_backend("numpy").__name__
    'fastsoftmax.reference'
    """
    if not isinstance(backend, str) or backend not in _BACKENDS:
        raise ValueError(f"backend must be 'auto', 'native' or 'numpy', got {backend!r}")
    if backend != "numpy":
        native = _import_native()
        if isinstance(native, ModuleType):
            return native
        if backend == "native":
            raise ImportError(
                f"backend='native' needs the compiled kernels of fastsoftmax, which cannot be "
                f"imported ({native}). {_HOW_TO_BUILD} backend='numpy' works without them.",
                name="fastsoftmax.kernels",
            )
        _warn_once(
            f"The compiled kernels of fastsoftmax are missing ({native}), so numpy computes "
            f"instead: the same answers, many times slower. {_HOW_TO_BUILD}"
        )
    return importlib.import_module("fastsoftmax.reference")


@functools.cache
def _import_native() -> ModuleType | ImportError:
    try:
        return importlib.import_module("fastsoftmax.kernels")
    except ImportError as error:
        # The traceback would keep the frames of the first caller, and their arrays, alive.
        return error.with_traceback(None)


_lock = threading.Lock()
_warned = False


def _warn_once(message: str) -> None:
    global _warned
    with _lock:
        first, _warned = not _warned, True
    if first:
        warnings.warn(message, RuntimeWarning, stacklevel=4)
