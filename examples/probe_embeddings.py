"""
Linear probe of embeddings, with a sweep over C
===============================================

A linear classifier on a frozen network's features measures how good the features are.

The result depends on the regularisation strength. ``FastSoftmaxCV`` chooses it by
cross-validation. No rows are copied for a fold, and no fit stops far from its optimum.

If the folder in the environment variable ``FASTSOFTMAX_TEST_DATA`` holds real embeddings of
sentences (``embeddings/banking77_minilm.npz``), they are used. Otherwise the "network" is a random
convolution with ReLU and pooling, applied to real pictures. Put your own array in its place:
float32 and float16 are read in place.
"""

import os
import sys

import matplotlib.pyplot as plt
import numpy as np

from fastsoftmax import FastSoftmaxCV, plot
from fastsoftmax.datasets import load_fashion_mnist_sample

SMALL = "--small" in sys.argv
N_FILTERS = 8 if SMALL else 32
CS = np.logspace(-1, 2, 3 if SMALL else 7)
FILE = os.environ.get("FASTSOFTMAX_TEST_DATA", "") + "/embeddings/banking77_minilm.npz"


def embed(images):
    """Embeddings, float32 of shape (n, 9 * N_FILTERS)."""
    filters = np.random.default_rng(0).normal(size=(25, N_FILTERS)).astype(np.float32)
    filters -= filters.mean(axis=0)
    filters /= np.linalg.norm(filters, axis=0)
    pictures = images.reshape(-1, 28, 28).astype(np.float32) / 255
    patches = np.lib.stride_tricks.sliding_window_view(pictures, (5, 5), axis=(1, 2))
    maps = np.maximum(patches.reshape(-1, 24, 24, 25) @ filters, 0)
    pooled = maps.reshape(-1, 3, 8, 3, 8, N_FILTERS).mean(axis=(2, 4))
    return np.sqrt(pooled).reshape(len(images), -1)


def sentences(part):
    """Every fourth row of the file; with --small of 8 classes only."""
    with np.load(FILE) as arrays:
        X, y = arrays[f"X_{part}"], arrays[f"y_{part}"]
    rows = np.flatnonzero(y < (8 if SMALL else 77))[::4]
    return X[rows], y[rows]


if os.path.exists(FILE):
    (X, y), (X_test, y_test) = sentences("train"), sentences("test")
else:
    (images, y), (images_test, y_test) = map(load_fashion_mnist_sample, ("train", "test"))
    X, X_test = embed(images), embed(images_test)

# %%
# The sweep: every C on every fold, then a certified fit to all rows with the best C.
probe = FastSoftmaxCV(Cs=CS, cv=3, standardize=not os.path.exists(FILE)).fit(X, y)
for C, scores in zip(probe.Cs_, probe.scores_.T, strict=True):
    chosen = "  <- chosen" if probe.C_ == C else ""
    print(f"C = {C:6.2f}: accuracy {scores.mean():.3f} +- {scores.std():.3f}{chosen}")

# %%
# Accuracy on rows that the sweep has not seen.
print(f"{len(y)} rows; the fit with C = {probe.C_:.2f} is certified: gap {probe.gap_:.0e}")
print(f"test accuracy on {X.shape[1]} embedded features: {probe.score(X_test, y_test):.3f}")
plot.path(probe)
plt.show()
