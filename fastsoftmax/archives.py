"""Arrays in a zip archive (`.npz`) that holds no pickles, and is written wholly or not at all.

All members are stored without compression, so that none is larger than the file. Nothing that is
read is trusted before it is checked, sizes first.
"""

import errno
import io
import math
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from fastsoftmax.arrays import Array

FilePath = str | os.PathLike[str]

# ---- writing ----


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of another one when it is on the disk, or not at all.

    A link is followed, and a pipe or a device is written to.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a pipe or a device is not to be replaced
        with open(path, "wb") as opened:
            yield opened
        return
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(beside, "xb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):  # (Windows removes no file that may only be read)
            beside.chmod(0o600)
        beside.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # (Windows opens no folder)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_remains(path: Path) -> None:
    """Remove what processes that were killed have left beside a file that they wrote."""
    path = Path(os.path.realpath(path))
    remains = re.compile(rf"\.{re.escape(path.name[:200])}\.[0-9a-f]{{16}}\.tmp")
    for found in path.parent.iterdir():
        if remains.fullmatch(found.name):
            found.unlink(missing_ok=True)


def write_arrays(opened: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write arrays without objects by name; the same arrays are the same bytes."""
    with zipfile.ZipFile(opened, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(
                    member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False
                )


# ---- reading ----


@contextmanager
def naming_damage(what: str) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into a ValueError that begins with `what`.

    Errors of the disk, and a MemoryError, say nothing about the file: they stay as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # a disk's error; EINVAL is a seek to where nothing is
            raise
        reason: Exception = error
    except MemoryError:
        raise
    except Exception as error:  # what zipfile and json raise has no common class
        reason = error
    else:
        return
    raise ValueError(
        f"{what}, or it is damaged: {str(reason) or type(reason).__name__}"
    ) from reason


def members_of(archive: zipfile.ZipFile, size: int) -> dict[str, bytes]:
    """Return the bytes of each member of a file of a size, by its name without ".npy"."""
    entries = archive.infolist()
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
        if not (stored and entry.file_size == entry.compress_size):
            raise ValueError(f"{entry.filename} is compressed or encrypted")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its members are said to be larger than the file")
    return {entry.filename.removesuffix(".npy"): archive.read(entry) for entry in entries}


def array_from(name: str, data: bytes) -> Array:
    """Return the array of a member, a new one in the byte order of this machine."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} is not in version 1.0 of numpy's format")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    plain = dtype.kind in "biufU" and dtype.itemsize > 0 and dtype.subdtype is None
    if not plain or fortran_order:
        raise ValueError(f"{name} has a dtype or an order that none here has: {dtype}")
    start = stream.tell()
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"{name} holds {len(data) - start} bytes, not an array of shape {shape}")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))
