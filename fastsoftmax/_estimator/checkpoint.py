"""Checkpoints: the state of a fit in a file, from which another fit goes on.

A file is an archive of arrays in which nothing can be executed (`archives`). Its members are named
by their places in four trees:

- ``facts``: what tells whether data and parameters are the same;
- ``course``: what is known of the iterations so far: history, coefficients, early stopping;
- ``solver``: what the solver has left (`solvers.record`);
- ``beside``: what was asked of rows that are read in every pass, if they are.

A file is read by the format's version that has written it: it is for a fit that was interrupted,
not for keeping.
"""

import errno
import io
import os
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastsoftmax._estimator.fitted import Refused
from fastsoftmax._version import __version__
from fastsoftmax.archives import (
    array_from,
    members_of,
    naming_damage,
    remove_remains,
    replacing,
    write_arrays,
)
from fastsoftmax.solvers.record import Damaged, Record, State, part_of
from fastsoftmax.solvers.resuming import OtherObjective

FORMAT, FORMAT_VERSION = "fastsoftmax checkpoint", 1
# Most seconds between two writes, and the share of a fit's time that they may take: a model of many
# GB is written less often.
SECONDS, SHARE = 1.0, 0.03
# The share of a fit's time so far that may be lost with a process: a short fit is written more
# often. And seconds until the first write.
_LOST, _FIRST = 0.02, 0.25
# By how much sums over all rows in float32 may differ on another processor, as a share.
_ROUNDING = 1e-5

Snapshot = Callable[[], State]


class Checkpoint:
    """Where a fit writes its state, if anywhere, and what another fit has written, if it goes on.

    Snapshots and states are of arrays that nothing changes later: the latest can be written at any
    time, also when Ctrl-C or an error has ended the fit.
    """

    def __init__(self, path: Path | None, found_in: Path | None) -> None:
        self._path, self._found_in = path, found_in
        self._found = None if found_in is None else read_checkpoint(found_in)
        self._latest: tuple[State, Snapshot] | None = None
        self._is_written = True  # what is the latest
        self._complaint = ""
        self._facts: State = {}
        self._began = self._due = time.monotonic()
        # What the rows of a fit have to be asked again, where each pass reads them: a part of what
        # is written.
        self.beside: Callable[[], State] = dict
        self.n_left = 0  # states that the solver has left
        self._waits = False  # whether passes are announced, before which a state may be written
        self._is_waiting = False  # whether a state that is due waits for the next pass
        if path is not None:
            _check_folder(path)

    @property
    def course(self) -> State | None:
        """What was known of the iterations, in the fit that is to go on."""
        return None if self._found is None else part_of(self._found, "course")

    @property
    def left_beside(self) -> State:
        """What the fit that is to go on had beside."""
        return {} if self._found is None else part_of(self._found, "beside")

    def before_pass(self) -> None:
        """See that a pass reads all rows, and write the latest state if it is due.

        It is written before a pass rather than after one, so that `beside` knows the pass; again
        where there are more passes before the next state.
        """
        self._waits = True
        if time.monotonic() >= self._due:
            self._write()

    @contextmanager
    def recording(self, facts: State, take: Callable[[], Snapshot]) -> Iterator[Record]:
        """Give a solver its record, and write what it has left last, however the fit ends.

        take is called whenever the solver leaves a state, and returns what makes the course of the
        fit up to there. The error of a file that is of another fit, or damaged, is a `Refused`.
        """
        self._facts = facts
        self._due = max(self._next(), self._began + min(SECONDS, _FIRST))

        def leave(state: State) -> None:
            self._latest, self._is_written = (state, take()), False
            self.n_left += 1
            if time.monotonic() < self._due:
                return
            if self._waits and not self._is_waiting:
                self._is_waiting = True
            else:
                self._write()

        found = None
        if self._found is not None:
            self._check(facts, part_of(self._found, "facts"))
            found = part_of(self._found, "solver")
        try:
            with self.refusing():
                yield Record(None if self._path is None else leave, found)
        finally:
            if not self._is_written:
                self._write()
            self._latest, self.beside = None, dict  # (which may refer to this object)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Make a `Refused` of the errors of a state that is of another fit, or damaged."""
        try:
            yield
        except (OtherObjective, Damaged) as error:
            raise Refused(f"resume={str(self._found_in)!r} {_told(error)}") from error

    def _check(self, facts: State, left: State) -> None:
        """Raise a `Refused` where the file is of other data, or of other parameters."""
        name = f"resume={str(self._found_in)!r}"
        for fact in facts.keys() | left.keys():
            if fact not in left or fact not in facts:
                raise Refused(f"{name} is of another kind of fit: {fact} is in one of them only")
        for fact, value in facts.items():
            ours, theirs = np.asarray(value), np.asarray(left[fact])
            if _are_equal(ours, theirs):
                continue
            if ours.ndim:
                differ = f"{fact} of its fit are others than those of this one"
            else:
                differ = f"{fact} was {theirs.item()!r} and is {ours.item()!r}"
            raise Refused(f"{name} is of other data or parameters: {differ}")

    def _next(self) -> float:
        """Return when the next write is due, without regard to what a write costs."""
        now = time.monotonic()
        return now + min(SECONDS, _LOST * (now - self._began))

    def _write(self) -> None:
        """Write the latest state, if there is one; what fails is told and not raised."""
        self._is_waiting = False
        if self._latest is None or self._path is None:
            return
        solver, snapshot = self._latest
        began = time.monotonic()
        tree = {
            "facts": self._facts,
            "course": snapshot(),
            "solver": solver,
            "beside": self.beside(),
        }
        try:
            with replacing(self._path) as opened:
                write_arrays(opened, {**_HEADER, **_flat(tree)})
            self._is_written, self._complaint = True, ""
        except OSError as error:
            complaint = str(error)
            if complaint != self._complaint:
                warnings.warn(
                    f"checkpoint={str(self._path)!r} could not be written. The earlier checkpoint, "
                    f"if there is one, remains, and the fit continues: {complaint}",
                    UserWarning,
                    stacklevel=2,
                )
            self._complaint = complaint
        now = time.monotonic()
        self._due = max(self._next(), now + (now - began) / SHARE)


_HEADER = {
    "format": np.array(FORMAT),
    "format_version": np.array(FORMAT_VERSION),
    "fastsoftmax_version": np.array(__version__),
}


def checkpoint_of(checkpoint: Any, resume: Any) -> Checkpoint | None:
    """Return the checkpoint of a fit for the arguments of that name; None where both are None."""
    if checkpoint is None and resume is None:
        return None
    return Checkpoint(_path("checkpoint", checkpoint), _path("resume", resume))


def _path(name: str, value: Any) -> Path | None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}")
    return None if value is None else Path(value)


def _check_folder(path: Path) -> None:
    """Raise a ValueError where no file can be written, before the fit begins."""
    if path.is_dir():
        raise ValueError(f"checkpoint must be the path of a file, got the folder {str(path)!r}")
    try:
        remove_remains(path)
        with tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint={str(path)!r} cannot be written: {error.strerror or error}"
        ) from error


def _are_equal(ours: Any, theirs: Any) -> bool:
    if ours.shape != theirs.shape or (ours.dtype.kind == "U") != (theirs.dtype.kind == "U"):
        return False
    if ours.dtype.kind in "fc":
        return bool(np.allclose(ours, theirs, rtol=_ROUNDING, atol=0.0))
    return bool(np.array_equal(ours, theirs))


def _told(error: ValueError) -> str:
    if isinstance(error, OtherObjective):
        return (
            f"is of other data: {error}; X, y, sample_weight and class_weight must be those of the "
            "fit that has written it"
        )
    return f"is damaged, or of another kind of fit: {error}"


# ---- files ----


def _flat(tree: State, name: str = "") -> dict[str, Any]:
    """Return the arrays of a tree by their places in it."""
    arrays: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            arrays |= _flat(value, f"{name}{key}.")
        else:
            arrays[f"{name}{key}"] = np.asarray(value)
    return arrays


def read_checkpoint(path: Path) -> State:
    """Return the trees of a file; a ValueError for everything but a sound one."""
    try:
        with naming_damage(f"resume={str(path)!r} is no checkpoint"):
            with open(path, "rb") as opened, zipfile.ZipFile(opened) as archive:
                members = members_of(archive, opened.seek(0, io.SEEK_END))
            tree = _tree({name: array_from(name, data) for name, data in members.items()})
            _check_header(tree)
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "resume names a checkpoint that there is not", str(path)
        ) from None
    return tree


def _tree(arrays: dict[str, Any]) -> State:
    tree: State = {}
    for name, array in arrays.items():
        *places, last = name.split(".")
        part = tree
        for place in places:
            part = part.setdefault(place, {})
        part[last] = array
    return tree


def _check_header(tree: State) -> None:
    if "format" not in tree or tree["format"].tolist() != FORMAT:
        raise ValueError("it has another format")
    version = tree["format_version"].tolist()
    if version != FORMAT_VERSION:
        raise ValueError(
            f"it has format {version}, of fastsoftmax {tree['fastsoftmax_version'].tolist()}; "
            f"fastsoftmax {__version__} reads format {FORMAT_VERSION}"
        )
    for part in ("facts", "course", "solver"):
        if not isinstance(tree.get(part), dict):
            raise ValueError(f"it lacks {part}")
