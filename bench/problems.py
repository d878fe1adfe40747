"""The data that is measured on. Every builder is seeded: the same arguments give the same bits."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastsoftmax.datasets import load_fashion_mnist, load_fashion_mnist_sample

# A folder that holds fashion/, with Fashion-MNIST's files, in full or the first rows of them.
DATA_VARIABLE = "FASTSOFTMAX_TEST_DATA"
SIDE = 28


class Problem(NamedTuple):
    """Rows to classify."""

    name: str
    X: np.ndarray  # (n, d)
    labels: np.ndarray  # (n,) int32 in [0, n_classes)
    n_classes: int

    @property
    def size(self) -> str:
        n, d = self.X.shape
        return f"{n} x {d}, K = {self.n_classes}, {self.X.dtype}"

    def stored_as(self, storage: str, scale: float = 1.0) -> "Problem":
        """The same rows in another type, multiplied by scale unless that is an integer type."""
        if np.dtype(storage).kind in "iu":
            return self._replace(X=self.X.astype(storage, copy=False))
        real = np.result_type(storage, np.float32)
        return self._replace(X=np.multiply(self.X, scale, dtype=real).astype(storage, copy=False))

    @property
    def real(self) -> np.dtype:
        """The type that is computed in."""
        return np.result_type(self.X.dtype, np.float32)


def fashion(n_rows: int, seed: int = 0) -> Problem:
    """Images of Fashion-MNIST's kind, n_rows x 784 uint8, made from real ones.

    Each is a real training image (all come about equally often) that is flipped left to right or
    not, moved by up to 2 pixels along each axis, multiplied by a gain from 0.8 to 1.2, and given
    normal noise of 4 grey levels. The real images come from the folder that the environment
    variable FASTSOFTMAX_TEST_DATA names, otherwise from the sample inside the package; so a result
    is comparable only with one of the same source (`fashion_source`).
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
    return Problem("Fashion-MNIST size", made.reshape(n_rows, -1), labels[chosen], 10)


def fashion_source() -> str:
    """Where `fashion` takes its images from, without the folder's name."""
    images, _ = _real_images()
    named = "Fashion-MNIST" if os.environ.get(DATA_VARIABLE) else "the packaged sample"
    return f"{len(images)} images of {named}"


def _real_images() -> tuple[np.ndarray, np.ndarray]:
    folder = os.environ.get(DATA_VARIABLE)
    X, y = load_fashion_mnist(Path(folder, "fashion")) if folder else load_fashion_mnist_sample()
    return X.reshape(-1, SIDE, SIDE), y.astype(np.int32)


def _moved(images: np.ndarray, flips: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images flipped where flips says so and moved, zeros coming in from the edge, as float32."""
    images = np.where(flips[:, None, None], images[:, :, ::-1], images)
    moved = np.zeros(images.shape, dtype=np.float32)

    def there(step: int) -> slice:
        return slice(max(step, 0), SIDE + min(step, 0))

    moved[:, there(down), there(right)] = images[:, there(-down), there(-right)]
    return moved


def probe(n_rows: int, n_features: int, n_classes: int, seed: int = 0) -> Problem:
    """Embeddings as a linear probe sees them: unit-norm float32 rows around class centres.

    The spread falls off along the features as a power law, as the spectra of learned embeddings
    do, and classes overlap.
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
    """W (K, d) and b (K,), in the type that is computed in, for logits of about normal(0, 1)."""
    rng = np.random.default_rng(seed)
    n, d = problem.X.shape
    some = problem.X[:: max(1, n // 1000)].astype(np.float64)
    spread = 1.0 / np.sqrt(np.mean(np.sum(some * some, axis=1)))
    W = rng.normal(0.0, spread, (problem.n_classes, d))
    b = rng.normal(0.0, 0.1, problem.n_classes)
    return W.astype(problem.real), b.astype(problem.real)
