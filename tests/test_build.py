"""setup.py as compilers that are not on this machine would see it."""

import runpy
import threading
import time
from pathlib import Path

import pytest

setuptools = pytest.importorskip("setuptools")
ROOT = Path(__file__).resolve().parents[1]


class Microsoft:
    """Records what it is asked; it has to be initialised once, as setuptools' own."""

    compiler_type = "msvc"

    def __init__(self):
        self.initialized = False
        self.calls, self.lock = [], threading.Lock()

    def initialize(self):
        assert not self.initialized, "don't init multiple times"
        time.sleep(0.01)
        self.initialized = True

    def compile(self, sources, output_dir=None, include_dirs=None, extra_postargs=None):
        if not self.initialized:
            self.initialize()
        with self.lock:
            self.calls.append((sources, extra_postargs))
        return [f"{Path(source).stem}.obj" for source in sources]


@pytest.fixture
def handed(monkeypatch):
    """What setup.py hands to setuptools."""
    given = {}
    for name in ("FASTSOFTMAX_NATIVE", "FASTSOFTMAX_OPENMP", "FASTSOFTMAX_WERROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", given.update)
    runpy.run_path("setup.py")
    return given


@pytest.mark.parametrize("openmp", ["0", "1"])
@pytest.mark.parametrize("strict", ["0", "1"])
def test_microsofts_compiler(handed, monkeypatch, openmp, strict):
    """It gets its own flags, is initialised once, and OpenMP only where it is wanted."""
    built = []
    monkeypatch.setenv("FASTSOFTMAX_OPENMP", openmp)
    monkeypatch.setenv("FASTSOFTMAX_WERROR", strict)
    monkeypatch.setattr(
        "setuptools.command.build_ext.build_ext.build_extension",
        lambda self, ext: built.append(ext),
    )
    command = handed["cmdclass"]["build_ext"](setuptools.Distribution())
    command.compiler, command.build_temp = Microsoft(), "build"
    command.openmp_works = lambda compile_flags, link_flags: True
    (extension,) = handed["ext_modules"]
    command.build_extension(extension)

    assert built == [extension]
    sources = {source for (source,), _ in command.compiler.calls}
    assert sources == {p.as_posix() for p in Path("src", "kernels").rglob("*.c")}
    assert len(extension.extra_objects) == len(sources)
    for _, flags in command.compiler.calls:
        assert all(flag.startswith("/") for flag in flags), flags
        assert "/std:c11" in flags and "/experimental:c11atomics" in flags
        assert ("/openmp" in flags) == (openmp == "1")
        assert ("/WX" in flags) == (strict == "1")
    # Cython's C is not held to our warnings, and asks for no atomics
    assert set(extension.extra_compile_args) <= {"/std:c11", "/O2", "/fp:precise", "/openmp"}
    assert all(flag.startswith("/") for flag in extension.extra_link_args)
