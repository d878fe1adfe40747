"""The data of the measurements. Builders are seeded: the same arguments give the same bits."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from fastsoftmax.datasets import load_fashion_mnist, load_fashion_mnist_sample

# A folder that holds fashion/, with Fashion-MNIST's files, in full or the first rows of them; and
# mnist/ and embeddings/ for what needs these.
DATA_VARIABLE = "FASTSOFTMAX_TEST_DATA"
SIDE = 28
DOCUMENT_TOKENS = 90  # of these, 77 terms are different

# Arguments of `named` for the problems that several measurements share.
FASHION = {"kind": "fashion", "sizes": (60_000,)}
PROBE_100 = {"kind": "probe", "sizes": (50_000, 512, 100)}
PROBE_1000 = {"kind": "probe", "sizes": (20_000, 768, 1000)}
TEXT = {"kind": "text", "sizes": (90_000, 200_000, 20)}
ONE_ROW = {"kind": "fashion", "sizes": (1,)}


class Problem(NamedTuple):
    """Rows to classify."""

    name: str
    X: np.ndarray | sparse.csr_array  # (n, d)
    labels: np.ndarray  # (n,) int32 in [0, n_classes)
    n_classes: int

    @property
    def size(self) -> str:
        n, d = self.X.shape
        stored = [f"{n} x {d}", f"K = {self.n_classes}", str(self.X.dtype)]
        if self.is_sparse:
            stored.insert(1, f"CSR {self.n_numbers / n:.0f} a row")
            stored += ["int64 indices"] * (self.X.indices.dtype == np.int64)
        elif not self.X.flags.c_contiguous:
            stored.append("F-ordered")
        return ", ".join(stored)

    def stored_as(self, storage: str, scale: float = 1.0) -> "Problem":
        """The same rows in another type.

        Sparse rows keep their values. Dense ones are multiplied by scale. For an integer type that
        they do not have already, the factor is such that the largest value is the largest integer.
        """
        if self.is_sparse:
            return self._replace(X=self.X.astype(storage, copy=False))
        is_integer = np.dtype(storage).kind in "iu"
        if is_integer:
            if self.X.dtype == storage:
                return self
            scale = np.iinfo(storage).max / float(np.abs(self.X).max())
        X = np.multiply(self.X, scale, dtype=np.result_type(storage, np.float32))
        return self._replace(X=(np.rint(X) if is_integer else X).astype(storage, copy=False))

    @property
    def is_sparse(self) -> bool:
        return sparse.issparse(self.X)

    @property
    def real(self) -> np.dtype:
        """The type of the computation: float32 or float64."""
        return np.result_type(self.X.dtype, np.float32)

    @property
    def computed(self) -> np.ndarray | sparse.csr_array:
        """X in the type of the computation."""
        return self.X.astype(self.real, copy=False)

    @property
    def n_logits(self) -> int:
        return 1 if self.n_classes == 2 else self.n_classes

    @property
    def n_numbers(self) -> int:
        """Numbers of X that are stored."""
        return self.X.nnz if self.is_sparse else self.X.size

    @property
    def n_bytes(self) -> int:
        """Memory of X."""
        if self.is_sparse:
            return self.X.data.nbytes + self.X.indices.nbytes + self.X.indptr.nbytes
        return self.X.nbytes


def scaled_rows(n_rows: int, scale: float, multiple: int = 1) -> int:
    """n_rows * scale, at least 16 and a multiple of `multiple`; n_rows if it is 1 or scale is 1."""
    if scale == 1 or n_rows == 1:
        return n_rows
    return max(16, 2 * multiple, int(n_rows * scale) // multiple * multiple)


def named(
    kind: str,
    sizes: tuple[int, ...],
    *,
    storage: str = "float32",
    order: str = "C",
    indices: str = "int32",
    scale: float = 1,
    multiple: int = 1,
) -> Problem:
    """A problem by the name of its builder; sizes are the builder's arguments, rows first."""
    sizes = scaled_rows(sizes[0], scale, multiple), *sizes[1:]
    if kind == "text":
        return text(*sizes, indices=indices).stored_as(storage)
    made = {"fashion": fashion, "probe": probe}[kind](*sizes)
    made = made.stored_as(storage, 1 / 255 if kind == "fashion" else 1.0)
    return made._replace(X=np.asarray(made.X, order=order))


def fashion(n_rows: int, n_classes: int = 10, seed: int = 0) -> Problem:
    """Images like those of Fashion-MNIST, n_rows x 784 uint8, made from real ones.

    Labels are the real ones modulo n_classes. Each image is a real training image (all of them are
    used about equally often), flipped left to right with probability 1/2, moved by up to 2 pixels
    along each axis, multiplied by a gain from 0.8 to 1.2, with normal noise of 4 grey levels. The
    real images are in the folder that the environment variable FASTSOFTMAX_TEST_DATA names, or
    in the package (a sample). Results are comparable only if their source is the same
    (`fashion_source`).
    """
    images, labels = _real_images()
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.arange(n_rows) % len(images))
    shifts = rng.integers(-2, 3, (n_rows, 2))
    flips = rng.random(n_rows) < 0.5
    gains = rng.uniform(0.8, 1.2, n_rows).astype(np.float32)
    made = np.zeros((n_rows, SIDE, SIDE), dtype=np.uint8)
    for down in range(-2, 3):
        for right in range(-2, 3):
            rows = np.flatnonzero((shifts == (down, right)).all(axis=1))
            moved = _moved(images[chosen[rows]], flips[rows], down, right) * gains[rows, None, None]
            moved += rng.normal(0, 4, moved.shape).astype(np.float32)
            made[rows] = np.clip(np.rint(moved), 0, 255)
    labels = labels[chosen] % n_classes
    return Problem("Fashion-MNIST size", made.reshape(n_rows, -1), labels, n_classes)


def packaged() -> Problem:
    """The images of the sample in the package, 1000 x 784 uint8, as they are."""
    X, y = load_fashion_mnist_sample()
    return Problem("packaged images", X, y.astype(np.int32), 10)


def mnist_test() -> Problem | None:
    """MNIST's 10,000 test images, 784 uint8 each; None without their files.

    These are in the folder mnist/ inside the one that FASTSOFTMAX_TEST_DATA names.
    """
    folder = Path(os.environ.get(DATA_VARIABLE) or os.devnull, "mnist")
    try:
        X, y = load_fashion_mnist(folder, "test")  # the same format and names of files
    except OSError:
        return None
    return Problem("MNIST, test images", X, y.astype(np.int32), 10)


def banking77(scale: float = 1.0) -> Problem | None:
    """Real embeddings, 10,003 sentences x 384 float32 of 77 classes; None without their file.

    That is embeddings/banking77_minilm.npz in the folder that FASTSOFTMAX_TEST_DATA names, with
    X_train (float16) and y_train, sorted by class. A part of them is every so many-th row.
    """
    folder = Path(os.environ.get(DATA_VARIABLE) or os.devnull, "embeddings")
    try:
        with np.load(folder / "banking77_minilm.npz") as arrays:
            X, labels = arrays["X_train"], arrays["y_train"]
    except OSError:
        return None
    n_rows = scaled_rows(len(X), scale)
    rows = np.arange(n_rows) * len(X) // n_rows
    labels = labels[rows].astype(np.int32)
    return Problem("banking77", X[rows].astype(np.float32), labels, int(labels.max()) + 1)


def fashion_source() -> str:
    """The source of the images of `fashion`, without the name of the folder."""
    images, _ = _real_images()
    named = "Fashion-MNIST" if os.environ.get(DATA_VARIABLE) else "the packaged sample"
    return f"{len(images)} images of {named}"


def _real_images() -> tuple[np.ndarray, np.ndarray]:
    folder = os.environ.get(DATA_VARIABLE)
    X, y = load_fashion_mnist(Path(folder, "fashion")) if folder else load_fashion_mnist_sample()
    return X.reshape(-1, SIDE, SIDE), y.astype(np.int32)


def _moved(images: np.ndarray, flips: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images flipped where `flips` is true and moved, float32. Pixels from outside are 0."""
    images = np.where(flips[:, None, None], images[:, :, ::-1], images)
    moved = np.zeros(images.shape, dtype=np.float32)

    def there(step: int) -> slice:
        return slice(max(step, 0), SIDE + min(step, 0))

    moved[:, there(down), there(right)] = images[:, there(-down), there(-right)]
    return moved


def probe(n_rows: int, n_features: int, n_classes: int, seed: int = 0) -> Problem:
    """Embeddings for a linear probe: unit-norm float32 rows around class centres.

    The spread decreases along the features as a power law, like the spectra of learned embeddings.
    Classes overlap.
    """
    rng = np.random.default_rng(seed)
    spread = np.arange(1, n_features + 1, dtype=np.float32) ** -0.5
    centers = rng.standard_normal((n_classes, n_features), dtype=np.float32) * spread
    labels = rng.integers(n_classes, size=n_rows, dtype=np.int32)
    X = rng.standard_normal((n_rows, n_features), dtype=np.float32)
    X *= 1.5 * spread
    X += centers[labels]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return Problem("probe", X, labels, n_classes)


def text(
    n_rows: int, n_features: int, n_classes: int, *, indices: str = "int32", seed: int = 0
) -> Problem:
    """Documents as values of terms, float32 in CSR form; 77 a row on average where d = 200000.

    The frequency of the r-th most frequent term is about proportional to 1 / r (Zipf). A third of
    the tokens are drawn from the terms of the document's class: every n_classes-th by frequency.
    The columns are in random order. The values 1 + ln(count) of a row are scaled to unit length.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_rows, dtype=np.int32)
    spread = 0.6
    mean = np.log(DOCUMENT_TOKENS) - spread**2 / 2
    lengths = rng.lognormal(mean, spread, n_rows).astype(np.int64) + 1
    starts = np.append(0, np.cumsum(lengths))
    ranks = _zipf(rng, n_features, starts[-1])
    own = rng.random(starts[-1]) < 1 / 3
    own_ranks = _zipf(rng, n_features // n_classes, np.count_nonzero(own))
    ranks[own] = own_ranks * n_classes + np.repeat(labels, lengths)[own]
    terms = rng.permutation(n_features).astype(np.int32)[ranks]
    counts = np.ones(len(terms), dtype=np.float32)
    X = sparse.csr_array((counts, terms, starts), shape=(n_rows, n_features))
    X.sum_duplicates()
    X.data = 1 + np.log(X.data)
    norms = np.sqrt(np.add.reduceat(X.data * X.data, X.indptr[:-1]))
    X.data /= np.repeat(norms, np.diff(X.indptr))
    X.indices, X.indptr = X.indices.astype(indices), X.indptr.astype(indices)
    return Problem("text", X, labels, n_classes)


def _zipf(rng: np.random.Generator, n_ranks: int, size: int) -> np.ndarray:
    """Ranks r from 0 on, of frequency ln((r + 2) / (r + 1)), about 1 / (r + 1)."""
    ranks = (np.power(n_ranks + 1.0, rng.random(size)) - 1.0).astype(np.int64)
    return np.minimum(ranks, n_ranks - 1)


def classic(name: str) -> Problem:
    """One of scikit-learn's small data sets, float64, features as they are."""
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return Problem(name, np.ascontiguousarray(X, dtype=np.float64), y.astype(np.int32), len(set(y)))


def logits(n_rows: int, n_classes: int, seed: int = 0) -> Problem:
    """Rows of logits from normal(0, 3), float32, with a label each."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, n_classes), dtype=np.float32)
    X *= 3
    labels = rng.integers(n_classes, size=n_rows, dtype=np.int32)
    return Problem("logits", X, labels, n_classes)


def weights(problem: Problem, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """W (K, d) and b (K,), for two classes (1, d) and (1,): logits are about normal(0, 1).

    In the type of the computation.
    """
    rng = np.random.default_rng(seed)
    n, d = problem.X.shape
    some = problem.X[:: max(1, n // 1000)].astype(np.float64)
    spread = 1.0 / np.sqrt((some * some).sum(axis=1).mean())
    W = rng.normal(0.0, spread, (problem.n_logits, d))
    b = rng.normal(0.0, 0.1, problem.n_logits)
    return W.astype(problem.real), b.astype(problem.real)
