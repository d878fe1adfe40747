"""A copy of this tree with compiled kernels, for `mutations.py` and `covered.py`."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Copy:
    """A copy of the tree with compiled kernels, in which faults are made one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._objects = folder, folder / "build" / "objects"
        self._clock = 0

    @classmethod
    def made(cls, folder: Path, last_flags: tuple[str, ...] = ("-O1",)) -> "Copy":
        """Copy the tree's files, uncommitted ones too, and compile the kernels with some flags.

        In a folder that has a copy, only what has changed is copied and compiled.
        """
        changed = set()
        for name in files_of_tree():
            source, target = ROOT / name, folder / name
            if not target.is_file() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
                changed.add(name)
        copy = cls(folder)
        copy._objects.mkdir(parents=True, exist_ok=True)
        bridge = folder / "build" / "kernels.c"
        if not bridge.exists() or any(name.startswith("fastsoftmax/kernels") for name in changed):
            words = ["cython", "-3", "fastsoftmax/kernels.pyx", "-o", bridge]
            run([sys.executable, "-m", *words], folder)
            changed.add("build/kernels.c")
        sources = [*sorted((folder / "src" / "kernels").rglob("*.c")), bridge]
        due = [source for source in sources if copy._is_due(source, changed)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda s: copy._compile(s, copy._objects, last_flags), due))
        copy._link(copy.objects(), last_flags)
        return copy

    def objects(self) -> list[Path]:
        """Return what was compiled of the sound tree."""
        return sorted(self._objects.glob("*.o"))

    def twin(self, folder: Path) -> "Copy":
        """Return a copy of this copy."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder, symlinks=True)
        return Copy(folder)

    def change(self, file: str, old: str, new: str, number: int) -> None:
        """Put another text in the place of one, and compile what that concerns.

        What is compiled for each instruction set is compiled for one, which the number decides.
        """
        path = self.folder / file
        self._clock += 2  # (modules are compiled anew where times differ by seconds)
        time_of = path.stat().st_mtime + self._clock
        path.write_text(path.read_text(encoding="utf-8").replace(old, new))
        os.utime(path, (time_of, time_of))
        if is_compiled(file):
            mutants = self.folder / "build" / "mutants"
            shutil.rmtree(mutants, ignore_errors=True)
            mutants.mkdir()
            for source in self._of_one_isa(self._sources_that_read(file), number):
                self._compile(source, mutants, ("-O0",))  # (sooner, though tests take longer)
            sound = [o for o in self.objects() if not (mutants / o.name).exists()]
            self._link(sorted([*sound, *mutants.glob("*.o")]))

    def restore(self, file: str) -> None:
        """Undo a change."""
        shutil.copy2(ROOT / file, self.folder / file)
        if is_compiled(file):
            self._link(self.objects())

    def _files_read_by(self, source: Path) -> set[str] | None:
        """Return the files that an object is made of; None where there is no object."""
        noted = self._objects / f"{source.stem}.d"
        if not noted.exists():
            return None
        return {
            os.path.normpath(name) for name in noted.read_text().replace("\\\n", " ").split()[1:]
        }

    def _is_due(self, source: Path, changed: set[str]) -> bool:
        read = self._files_read_by(source)
        return read is None or not read.isdisjoint(changed)

    def _sources_that_read(self, file: str) -> list[Path]:
        sources = sorted((self.folder / "src" / "kernels").rglob("*.c"))
        found = [s for s in sources if os.path.normpath(file) in (self._files_read_by(s) or ())]
        assert found, f"nothing is compiled of {file}"
        return found

    def _of_one_isa(self, sources: list[Path], number: int) -> list[Path]:
        """Return what is compiled of a change: of instruction sets one that this machine has.

        Compiling takes longer than testing, and the sources are the same.
        """
        own = [path for path in sources if path.parent.name == "isa"]
        here = [isa for isa in self._isas() if any(path.stem.startswith(isa) for path in own)]
        if len(here) < 2:
            return sources
        isa = here[number % len(here)]
        return [path for path in sources if path not in own or path.stem.startswith(isa)]

    def _isas(self) -> list[str]:
        program = "from fastsoftmax import kernels; print(*kernels.available_isas())"
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True
        ).stdout.split()

    def _compile(self, source: Path, into: Path, last_flags: tuple[str, ...]) -> None:
        name = into / f"{source.stem}.o"
        include = [f"-I{sysconfig.get_path('include')}", "-Isrc/kernels"]
        command = [*compiler(), *flags(), *last_flags, *include, "-fPIC", "-MMD", "-c"]
        run([*command, source.relative_to(self.folder), "-o", name], self.folder)

    def _link(self, objects: list[Path], last_flags: tuple[str, ...] = ()) -> None:
        target = self.folder / "fastsoftmax" / f"kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
        target.unlink(missing_ok=True)  # (a process may have it loaded)
        words = ["-shared", "-pthread", "-fopenmp", *last_flags, *objects, "-lm", "-o", target]
        run([*compiler(), *words], ROOT)


def is_compiled(file: str) -> bool:
    """Whether the kernels have to be compiled again when a file changes."""
    return Path(file).suffix in (".c", ".h")


def files_of_tree() -> set[str]:
    """Return the files of the tree but for what builds leave; also where it is no repository."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
        found = {ROOT / name for name in names.decode().split("\0") if name}
    else:
        left_out = re.compile(r"\.(so|pyd|pyc|o)$|^(build|dist|\.?venv|.*\.egg-info|__pycache__)/")
        found = {
            path
            for top in ROOT.iterdir()
            for path in (top.rglob("*") if top.is_dir() else [top])
            if not left_out.search(path.relative_to(ROOT).as_posix())
        }
    return {path.relative_to(ROOT).as_posix() for path in found if path.is_file()}


def compiler() -> list[str]:
    """Return the command of the C compiler."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def flags() -> list[str]:
    """Return the flags of setup.py but for that of optimisation, which changes no arithmetic."""
    import setuptools

    if not hasattr(flags, "found"):
        setup, setuptools.setup = setuptools.setup, lambda **ignored: None
        before = os.getcwd()
        os.chdir(ROOT)
        try:
            names = runpy.run_path(str(ROOT / "setup.py"))
        finally:
            setuptools.setup = setup
            os.chdir(before)
        found = [*names["FLAGS"], *names["THREADS"], "-fopenmp", "-DNDEBUG"]
        flags.found = [flag for flag in found if flag != "-O3"]
    return flags.found


def run(command: list[object], folder: Path) -> None:
    """Run a command in a folder; a RuntimeError where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True)
    if done.returncode:
        text = done.stderr.decode(errors="replace")
        raise RuntimeError(f"{shlex.join(map(str, command))}\n{text[:2000]}")
