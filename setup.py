"""What pyproject.toml cannot state: the extension module and the flags it is compiled with.

Four environment variables steer the build. Each may be 0 (do without), 1 (an error where it
cannot be had) or unset (use what works).

FASTSOFTMAX_NATIVE
    The compiled kernels. Without them the package installs all the same, on its numpy backend.
FASTSOFTMAX_OPENMP
    The number of threads as OpenMP has it, which threadpoolctl can set. A probe that is compiled,
    linked and run decides. (The threads themselves are the pool's, src/kernels/pool.c. Compilers
    without the atomics of C11, such as Microsoft's before 19.35, have no pool: there the kernels
    are serial, but for OpenMP's threads on Windows.)
FASTSOFTMAX_WERROR
    With 1, warnings in the hand-written C are errors.
FASTSOFTMAX_SANITIZE
    With 1, a build for tests: not optimised, under the sanitizers of addresses and undefined
    behaviour (gcc or clang), whose library has to be loaded before Python (tests/c/python.sh).
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("src", "kernels")
VARIABLES = (
    "FASTSOFTMAX_NATIVE",
    "FASTSOFTMAX_OPENMP",
    "FASTSOFTMAX_WERROR",
    "FASTSOFTMAX_SANITIZE",
)

# No option here names an instruction set: the sources in isa/ choose theirs by pragma, and one of
# them is picked at run time.
# -g0: Python's own flags often ask for debugging information, nine tenths of the module's size.
FLAGS = ["-std=c11", "-O3", "-g0", "-ffp-contract=off", "-fvisibility=hidden"]
# Linux and the BSDs want to be told; macOS does not, and of Pyodide it would ask for another ABI.
THREADS = (
    ["-pthread"] if os.name == "posix" and sys.platform not in ("darwin", "emscripten") else []
)
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# (gcc takes minutes to optimise sanitized code)
FLAGS_SANITIZED = [*SANITIZERS, "-O0", "-g", "-fno-omit-frame-pointer"]
FLAGS_MSVC = ["/std:c11", "/O2", "/fp:precise"]
# Compilers that do not know the option ignore it. Cython's C does without.
ATOMICS_MSVC = ["/experimental:c11atomics"]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
# 4324: structures that are padded since they ask for it.
STRICT_MSVC = ["/W4", "/WX", "/wd4324"]

OPENMP_PROBE = """
#include <omp.h>
#ifndef _OPENMP
#error "the compiler ignores OpenMP"
#endif
int probe(void)
{
    int n_threads = 0;
#pragma omp parallel num_threads(2)
    {
#pragma omp atomic
        n_threads += 1;
    }
    return n_threads > 0 && omp_get_max_threads() > 0;
}
"""


def wanted(variable):
    """Return an environment variable as True, False or, where it is unset or empty, None."""
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"{variable}={value!r}: set it to 0 or 1, or leave it unset")
    return bool(int(value)) if value else None


class BuildKernels(build_ext):
    """build_ext with a probe for OpenMP, parallel compilation, and a way on without a compiler."""

    def finalize_options(self):
        """Set what does not depend on the compiler."""
        super().finalize_options()
        self.force = True  # timestamps know nothing of the variables above
        self.cython_c_in_temp = True  # generated C stays out of the source tree

    def run(self):
        """Build; where that fails and nothing demands it, go on without the extension."""
        for ext in self.extensions:  # what an earlier build left would be installed, or imported
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        try:
            import Cython  # noqa: F401 (setuptools would look for a kernels.c instead)

            super().run()
        except Exception as error:  # whatever the reason: the numpy backend needs none of this
            if any(map(wanted, VARIABLES)):
                raise
            self.extensions = []
            reason = str(error).strip()[:100] or type(error).__name__
            print(
                f"fastsoftmax: no compiled kernels, numpy backend only ({reason}). "
                "To try again: a C compiler, and pip install --no-cache-dir --force-reinstall. "
                "To see the whole error: FASTSOFTMAX_NATIVE=1.",
                file=sys.stderr,
            )

    def build_extension(self, ext):
        """Compile the hand-written C to objects, and link them to the module that Cython makes."""
        msvc = self.compiler.compiler_type == "msvc"
        compile_flags, link_flags = self.openmp_flags(msvc)
        flags = (FLAGS_MSVC if msvc else FLAGS + THREADS) + compile_flags
        own = ATOMICS_MSVC if msvc else []
        if wanted("FASTSOFTMAX_SANITIZE"):
            flags, link_flags = flags + FLAGS_SANITIZED, link_flags + SANITIZERS
        strict = (STRICT_MSVC if msvc else STRICT) if wanted("FASTSOFTMAX_WERROR") else []
        if msvc and not self.compiler.initialized:  # threads would do it twice, which it refuses
            self.compiler.initialize()

        def compile_one(source):
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=flags + own + strict,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # twice as quick on two cores
            parts = pool.map(compile_one, sorted(path.as_posix() for path in KERNELS.rglob("*.c")))
            ext.extra_objects = [obj for part in parts for obj in part]
        ext.extra_compile_args = flags
        ext.extra_link_args = ([] if msvc else THREADS) + link_flags
        super().build_extension(ext)
        if not compile_flags:
            print("fastsoftmax: the kernels are built without OpenMP.")

    def openmp_flags(self, msvc):
        """Return the flags (compiler, linker) under which OpenMP works here, or two empty lists."""
        if wanted("FASTSOFTMAX_OPENMP") is False:
            return [], []
        candidates = [(["/openmp"], [])] if msvc else [(["-fopenmp"], ["-fopenmp"])]
        if sys.platform == "darwin":  # Apple's clang has the pragmas, libomp comes from elsewhere
            candidates.append((["-Xpreprocessor", "-fopenmp"], ["-lomp"]))
        for flags in candidates:
            if self.openmp_works(*flags):
                return flags
        if wanted("FASTSOFTMAX_OPENMP"):
            raise RuntimeError("FASTSOFTMAX_OPENMP=1, but no OpenMP program could be built and run")
        return [], []

    def openmp_works(self, compile_flags, link_flags):
        """Compile, link and (unless for another machine) load and run a parallel region."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(OPENMP_PROBE)
            library = Path(folder, "probe" + sysconfig.get_config_var("EXT_SUFFIX"))
            call = f"import ctypes, sys; sys.exit(not ctypes.CDLL({str(library)!r}).probe())"
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_flags
                )
                self.compiler.link_shared_object(
                    objects, str(library), extra_postargs=link_flags, export_symbols=["probe"]
                )
                if "_PYTHON_HOST_PLATFORM" not in os.environ:  # set where Python is cross-compiled
                    subprocess.run([sys.executable, "-c", call], check=True, timeout=60)
            except Exception:
                return False
        return True


# The address of the repository, once it has a public one, such as "https://forge/owner/name".
REPOSITORY = ""


def readme_for_an_index(text, repository=REPOSITORY):
    """Return the README for a page elsewhere: with absolute links and pictures, or without them."""

    def elsewhere(match):
        picture, label, target = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        if not repository:
            return "" if picture else label
        return f"{picture}[{label}]({repository}/{'raw' if picture else 'blob'}/main/{target})"

    return re.sub(r"(!?)\[([^]]*)\]\(([^)\s]+)\)", elsewhere, text)


# What is in src/kernels is compiled by BuildKernels.
extension = Extension(
    "fastsoftmax.kernels",
    sources=["fastsoftmax/kernels.pyx"],
    include_dirs=[KERNELS.as_posix()],
    libraries=[] if sys.platform == "win32" else ["m"],
)

setup(
    ext_modules=[] if wanted("FASTSOFTMAX_NATIVE") is False else [extension],
    cmdclass={"build_ext": BuildKernels},
    long_description=readme_for_an_index(Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    project_urls={"Source": REPOSITORY} if REPOSITORY else {},
)
