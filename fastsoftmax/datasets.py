"""Fashion-MNIST from its official files, and a real sample of it inside the package.

Images are ``uint8`` of shape (n, height * width), one row per image, pixels in reading order;
labels are ``int64`` of shape (n,), indices into `FASHION_MNIST_LABELS`. Nothing is downloaded
without ``download=True``. Importing this module takes no longer than importing numpy.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np

from fastsoftmax.batches import Batches, iter_batches, whole_number
from fastsoftmax.floating_point import own_arithmetic

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from numpy.typing import NDArray

    Images: TypeAlias = NDArray[np.uint8]
    Labels: TypeAlias = NDArray[np.int64]
    Subset: TypeAlias = Literal["train", "test"]

__all__ = [
    "FASHION_MNIST_LABELS",
    "Batches",
    "iter_batches",
    "load_fashion_mnist",
    "load_fashion_mnist_sample",
]

FASHION_MNIST_LABELS: tuple[str, ...] = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_BASE_URLS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_OFFICIAL_ROWS = {"train": 60_000, "test": 10_000}
_OTHER_LAYOUT = Path("FashionMNIST", "raw")  # torchvision's
_SIDE = 28
_TIMEOUT_SECONDS = 30.0
_MAX_DOWNLOAD_BYTES = 1 << 26
_CHUNK_BYTES = 1 << 20

_DESCR = """\
Fashion-MNIST: grey images (28 x 28 before any resizing) of ten kinds of articles from Zalando's
catalogue. The official training set holds 60,000 of them and the test set 10,000; fewer rows
here mean that the files read hold the first part of these sets.

data: uint8, 0 (background) to 255, one row per image, pixels in reading order.
target: int64, 0 to 9, an index into target_names.

Source: https://github.com/zalandoresearch/fashion-mnist, MIT licence, (c) 2017 Zalando SE.
H. Xiao, K. Rasul, R. Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms, arXiv:1708.07747.
"""


@overload
def load_fashion_mnist(
    data_home: str | os.PathLike[str] | None = ...,
    subset: Subset = ...,
    *,
    download: bool = ...,
    resize: int | tuple[int, int] | None = ...,
    return_X_y: Literal[True] = ...,
) -> tuple[Images, Labels]: ...
@overload
def load_fashion_mnist(
    data_home: str | os.PathLike[str] | None = ...,
    subset: Subset = ...,
    *,
    download: bool = ...,
    resize: int | tuple[int, int] | None = ...,
    return_X_y: bool,
) -> Any: ...
@own_arithmetic
def load_fashion_mnist(
    data_home: str | os.PathLike[str] | None = None,
    subset: Subset = "train",
    *,
    download: bool = False,
    resize: int | tuple[int, int] | None = None,
    return_X_y: bool = True,
) -> Any:
    """Load Fashion-MNIST from its official IDX files.

    Parameters
    ----------
    data_home : path, default=None
        Folder with the official files, ``train-images-idx3-ubyte.gz`` and so on, gzipped or not, or
        with torchvision's layout of them, ``FashionMNIST/raw``. None means the folder in the
        environment variable ``FASTSOFTMAX_DATA`` or, if that is not set,
        ``fastsoftmax/fashion-mnist`` in the user's cache: ``$XDG_CACHE_HOME``, or ``~/.cache``.
    subset : {"train", "test"}, default="train"
        Which of the two official sets.
    download : bool, default=False
        Download missing files from the official addresses into `data_home`, which is created if
        necessary. A file is stored only if it is complete and has the official MD5. Files that are
        present are used as they are.
    resize : int or (height, width), default=None
        Size of the images returned. None keeps 28 x 28, and an int means a square. Interpolation is
        linear along each axis, between the centres of pixels. Along an axis that becomes shorter,
        the interpolation kernel is wider by the same factor, so that every pixel has an effect. The
        result agrees with Pillow's ``BILINEAR`` to one grey level.
    return_X_y : bool, default=True
        Return ``(X, y)``; otherwise a `sklearn.utils.Bunch`.

    Returns
    -------
    (X, y) : ndarray of shape (n, height * width), uint8; ndarray of shape (n,), int64
        Pixels from 0 to 255 and labels from 0 to 9, rows in the files' order. n is 60,000 or
        10,000 for the official files; files with fewer rows are read as they are.
    bunch : Bunch
        With ``return_X_y=False``: `data` and `target` (X and y), `images` (X as
        (n, height, width)), `target_names`, `feature_names` ("pixel_row_column") and `DESCR`.

    Raises
    ------
    FileNotFoundError
        A file is missing and `download` is False.
    ValueError
        An argument is invalid, or a file is truncated, corrupt or of another kind.
    OSError
        A download failed at every address, or a file cannot be read or written.

    Examples
    --------
    >>> from fastsoftmax.datasets import load_fashion_mnist
    >>> X, y = load_fashion_mnist(download=True)  # doctest: +SKIP
    >>> X.shape, X.dtype  # doctest: +SKIP
    ((60000, 784), dtype('uint8'))
    """
    names = _file_names(subset)
    height, width = _image_size(resize)
    home = _default_home() if data_home is None else Path(data_home).expanduser()
    paths = _locate(home, names)
    absent = [name for name in names if _find(home, name) is None]
    if paths is None and download:
        home.mkdir(parents=True, exist_ok=True)
        for name in absent:
            _download(home, name)
        paths = _locate(home, names)
    if paths is None:
        raise FileNotFoundError(
            f"There is no {' and no '.join(absent)} in {home}, and {home / _OTHER_LAYOUT} does not "
            "hold both files (gzipped or not). Load with download=True to download them, or put "
            f"the official files from {_BASE_URLS[0]} there. load_fashion_mnist_sample() needs no "
            "files."
        )
    remedy = (
        "Delete it and load with download=True, or get the official file "
        f"{{name}} from {_BASE_URLS[0]}"
    )
    images, y = _read_subset(paths, subset, remedy)
    if (height, width) != (_SIDE, _SIDE):
        images = _resize_images(images, height, width)
    return _result(images, y, return_X_y)


@overload
def load_fashion_mnist_sample(
    subset: Subset = ..., *, return_X_y: Literal[True] = ...
) -> tuple[Images, Labels]: ...
@overload
def load_fashion_mnist_sample(subset: Subset = ..., *, return_X_y: bool) -> Any: ...
@own_arithmetic
def load_fashion_mnist_sample(subset: Subset = "train", *, return_X_y: bool = True) -> Any:
    """Load the part of Fashion-MNIST that ships inside the package.

    These are the first 1,000 training and the first 500 test images of the official files.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        Which of the two sets.
    return_X_y : bool, default=True
        Return ``(X, y)``; otherwise a `sklearn.utils.Bunch`, as `load_fashion_mnist` does.

    Returns
    -------
    (X, y) : ndarray of shape (n, 784), uint8; ndarray of shape (n,), int64
        Pixels from 0 to 255 and labels from 0 to 9; n is 1,000 or 500.

    Raises
    ------
    ValueError
        If `subset` is neither "train" nor "test".

    Examples
    --------
    >>> from fastsoftmax.datasets import FASHION_MNIST_LABELS, load_fashion_mnist_sample
    >>> X, y = load_fashion_mnist_sample("train")
    >>> X.shape, X.dtype, y.shape
    ((1000, 784), dtype('uint8'), (1000,))
    >>> FASHION_MNIST_LABELS[y[0]]
    'Ankle boot'
    """
    from importlib.resources import files

    folder = files("fastsoftmax") / "data" / "fashion_mnist_sample"
    images, labels = (folder / name for name in _file_names(subset))
    sample = _read_subset((images, labels), subset, "Reinstall fastsoftmax")
    return _result(*sample, return_X_y)


def _result(images: Images, y: Labels, return_X_y: bool) -> Any:
    n, height, width = images.shape
    X = images.reshape(n, height * width)
    if return_X_y:
        return X, y
    from sklearn.utils import Bunch

    return Bunch(
        data=X,
        target=y,
        images=images,
        target_names=np.array(FASHION_MNIST_LABELS),
        feature_names=[f"pixel_{row}_{col}" for row in range(height) for col in range(width)],
        DESCR=_DESCR,
    )


def _file_names(subset: str) -> tuple[str, str]:
    if subset not in ("train", "test"):
        raise ValueError(f"subset must be 'train' or 'test', not {subset!r}")
    prefix = "train" if subset == "train" else "t10k"
    return f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"


def _default_home() -> Path:
    if named := os.environ.get("FASTSOFTMAX_DATA"):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "fastsoftmax" / "fashion-mnist"


def _find(folder: Path, name: str) -> Path | None:
    """Return the path of the file in this folder, gzipped or not; None if it is missing."""
    candidates = (folder / name, folder / name.removesuffix(".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _locate(home: Path, names: tuple[str, str]) -> tuple[Path, Path] | None:
    """Return paths of images and labels in one folder: two folders could hold different data."""
    for folder in (home, home / _OTHER_LAYOUT):
        images, labels = (_find(folder, name) for name in names)
        if images is not None and labels is not None:
            return images, labels
    return None


def _read_subset(
    paths: tuple[Traversable, Traversable], subset: str, remedy: str
) -> tuple[Images, Labels]:
    """Return checked images (n, 28, 28) and labels (n,); error messages end with `remedy`."""
    limit = _OFFICIAL_ROWS[subset]
    arrays = []
    for path, row_shape in zip(paths, ((_SIDE, _SIDE), ()), strict=True):
        try:
            arrays.append(_read_idx(path, row_shape, limit))
        except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            advice = remedy.format(name=path.name.removesuffix(".gz") + ".gz")
            raise ValueError(f"{path} is truncated or corrupt: {error}. {advice}.") from error
    images, labels = arrays
    if len(images) != len(labels):
        raise ValueError(
            f"{paths[0]} holds {len(images)} images and {paths[1]} {len(labels)} labels: "
            "they do not belong together."
        )
    wrong = np.flatnonzero(labels >= len(FASHION_MNIST_LABELS))
    if wrong.size:
        raise ValueError(
            f"{paths[1]} is not of this data set: label {labels[wrong[0]]} at row {wrong[0]}, "
            "labels must be 0 to 9."
        )
    return images, labels.astype(np.int64)


def _read_idx(path: Traversable, row_shape: tuple[int, ...], max_rows: int) -> Images:
    """Read an IDX file of bytes, gzipped or not, whose rows have this shape.

    The header is checked before memory is allocated, and at most one byte more than it promises is
    decompressed, so a small malicious file cannot take much memory. Reading this byte also makes
    gzip verify its checksum.
    """
    n_dims = 1 + len(row_shape)
    with path.open("rb") as raw:
        gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: Any = gzip.GzipFile(fileobj=raw) if gzipped else raw
        header = file.read(4 * (1 + n_dims))
        if header[:4] != bytes((0, 0, 8, n_dims)):
            raise ValueError(
                f"it begins with {header[:4]!r}, not with {bytes((0, 0, 8, n_dims))!r} as an IDX "
                f"file of bytes in {n_dims} dimension{'s' * (n_dims > 1)} does"
            )
        if len(header) < 4 * (1 + n_dims):
            raise ValueError(f"it ends inside its header, after {len(header)} bytes")
        n_rows, *sizes = np.frombuffer(header, dtype=">u4", offset=4).tolist()
        if tuple(sizes) != row_shape:
            raise ValueError(
                f"its header promises images of {' x '.join(map(str, sizes))} pixels, "
                f"not {' x '.join(map(str, row_shape))}"
            )
        if n_rows > max_rows:
            raise ValueError(f"its header promises {n_rows} rows, the official file has {max_rows}")
        array = np.empty((n_rows, *row_shape), dtype=np.uint8)
        flat = array.reshape(-1)
        n_read = 0
        while block := file.read(min(_CHUNK_BYTES, flat.size - n_read)):
            flat[n_read : n_read + len(block)] = np.frombuffer(block, dtype=np.uint8)
            n_read += len(block)
        if n_read < flat.size or file.read(1):
            follow = n_read if n_read < flat.size else "more"
            raise ValueError(f"its header promises {flat.size} bytes and {follow} follow")
    return array


def _download(home: Path, name: str) -> None:
    """Put the checked official file into `home`, or raise OSError and leave no file."""
    import secrets
    from http.client import HTTPException

    problems = []
    for base_url in _BASE_URLS:
        part = home / f".{name}.{secrets.token_hex(8)}.part"
        try:
            digest = _fetch(base_url + name, part)
            if digest == _MD5[name]:
                os.replace(part, home / name)
                return
            problems.append(f"{base_url + name}: its MD5 is {digest}, not {_MD5[name]}")
        except (OSError, HTTPException) as error:
            problems.append(f"{base_url + name}: {error or type(error).__name__}")
        finally:
            part.unlink(missing_ok=True)
    raise OSError(
        f"Could not download {name} to {home} ({'; '.join(problems)}). "
        "Put the official file there by hand, or use load_fashion_mnist_sample()."
    )


def _fetch(url: str, part: Path) -> str:
    """Download to `part`, a new file, and return its MD5."""
    import hashlib
    from urllib.request import urlopen

    md5 = hashlib.md5(usedforsecurity=False)
    n_bytes = 0
    with urlopen(url, timeout=_TIMEOUT_SECONDS) as response, part.open("xb") as file:
        while block := response.read(1 << 16):
            n_bytes += len(block)
            if n_bytes > _MAX_DOWNLOAD_BYTES:
                raise OSError(f"the answer is longer than {_MAX_DOWNLOAD_BYTES} bytes")
            md5.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return md5.hexdigest()


def _image_size(resize: int | tuple[int, int] | None) -> tuple[int, int]:
    if resize is None:
        return _SIDE, _SIDE
    pair = resize if isinstance(resize, tuple | list) else (resize, resize)
    if len(pair) != 2:
        raise ValueError(f"resize must be an int or (height, width), not {resize!r}")
    return whole_number("resize", pair[0], 1), whole_number("resize", pair[1], 1)


def _resize_images(images: Images, height: int, width: int) -> Images:
    n, n_rows, n_cols = images.shape
    down, across = _interpolation(n_rows, height), _interpolation(n_cols, width).T
    resized = np.empty((n, height, width), dtype=np.uint8)
    block = max(1, _CHUNK_BYTES // (8 * height * width))
    for start in range(0, n, block):
        grey = down @ (images[start : start + block] @ across)
        resized[start : start + block] = np.floor(grey + 0.5)
    return resized


def _interpolation(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Return (n_out, n_in), rows of sum 1: triangles centred on the new pixels' centres."""
    scale = n_in / n_out
    centres = (np.arange(n_out) + 0.5) * scale
    distances = np.abs(centres[:, None] - (np.arange(n_in) + 0.5)) / max(scale, 1.0)
    triangles = np.maximum(0.0, 1.0 - distances)
    return np.asarray(triangles / triangles.sum(axis=1, keepdims=True))
