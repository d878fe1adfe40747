"""
Linear probe of embeddings, with a sweep over C
===============================================

How good are the features of a frozen network? A linear classifier on top of them tells, if its
regularisation strength is chosen well. ``FastSoftmaxCV`` tries a range of ``C`` by
cross-validation. The folds share one X, and each fit is certified, so the curve shows the effect
of ``C`` and not of unconverged fits.

The "network" here is a random convolution with ReLU and pooling, applied to real pictures. Put your
own array of embeddings in its place; float32 and float16 are read as they are.
"""

import sys

import numpy as np

from fastsoftmax import FastSoftmax, FastSoftmaxCV
from fastsoftmax.datasets import load_fashion_mnist_sample

SMALL = "--small" in sys.argv
N_FILTERS = 8 if SMALL else 32
CS = np.logspace(-2, 1, 3 if SMALL else 7)


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


images, y = load_fashion_mnist_sample("train")
images_test, y_test = load_fashion_mnist_sample("test")
X, X_test = embed(images), embed(images_test)

# %%
# The sweep: every C on every fold, then a fit to all rows with the best C.
probe = FastSoftmaxCV(Cs=CS, cv=5, standardize=True).fit(X, y)
for C, scores in zip(probe.Cs_, probe.scores_.T, strict=True):
    chosen = "  <- chosen" if probe.C_ == C else ""
    print(f"C = {C:6.2f}: accuracy {scores.mean():.3f} +- {scores.std():.3f}{chosen}")
print(f"{probe.scores_.size} fits, each within {probe.gaps_.max():.0e} of its optimum")

# %%
# Accuracy with these features, on pictures that the sweep has not seen.
pixels = FastSoftmax(C=0.1, input_scale=1 / 255).fit(images, y)
print(f"test accuracy on {X.shape[1]} embedded features: {probe.score(X_test, y_test):.3f}")
print(f"test accuracy on the {images.shape[1]} pixels: {pixels.score(images_test, y_test):.3f}")
