"""The choice of the module that computes: the compiled kernels or their numpy twin."""

import functools
import importlib
import sys
import threading
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).parent
_BACKENDS = ("auto", "native", "numpy")
# The advice until there is a release on an index.
_HOW_TO_INSTALL = "run `pip install -e .` in a clone of the repository"


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
                f"imported ({native}). {how_to_get_kernels()} backend='numpy' works without them.",
                name="fastsoftmax.kernels",
            )
        _warn_once(
            f"The compiled kernels of fastsoftmax are missing ({native}), so numpy computes "
            f"instead: the same answers, many times slower. {how_to_get_kernels()}"
        )
    return importlib.import_module("fastsoftmax.reference")


def how_to_get_kernels(package: Path = _PACKAGE) -> str:
    """Return what to do where the compiled kernels are missing from a package's folder."""
    root = package.parent
    if not (root / "src" / "kernels").is_dir():
        return (
            "To get them, install a C compiler (gcc or clang) and then the package again, as "
            "before and with `--force-reinstall --no-cache-dir`. From its source: "
            f"{_HOW_TO_INSTALL}."
        )
    if _has_kernels_elsewhere(package):
        return (
            f"Python was started inside the clone {root}, whose fastsoftmax folder, without "
            "compiled kernels, hides the installed package. Run `pip install -e .` in the clone, "
            "or start Python in another folder."
        )
    return (
        f"The package comes from the clone {root}: to compile them there, install a C compiler "
        "(gcc or clang) and run `pip install -e .` in it."
    )


def _has_kernels_elsewhere(package: Path) -> bool:
    """Whether a folder of sys.path has the package with compiled kernels."""
    folders = (Path(entry, package.name) for entry in sys.path)
    return any(
        (folder / f"kernels{suffix}").is_file() and folder.resolve() != package.resolve()
        for folder in folders
        for suffix in EXTENSION_SUFFIXES
    )


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
        warnings.warn(message, RuntimeWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """Return the stack level, for a warning by the caller, of the nearest code of somebody else."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "fastsoftmax."
    ):
        level, frame = level + 1, frame.f_back
    return level
