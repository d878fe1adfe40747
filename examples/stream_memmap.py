"""
Data on disk: in place, and as a stream
=======================================

A fit reads a large file in place, and ``partial_fit`` learns from rows that come once.

``np.memmap`` makes an array of a file without reading it. ``fit`` reads it a few rows at a time,
to the certified optimum. ``partial_fit`` takes a stream in chunks and sees each chunk once. Neither
makes a float64 copy, which would be eight times as large as the file.
"""

import sys
import tempfile
import tracemalloc
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from fastsoftmax import FastSoftmax
from fastsoftmax.datasets import iter_batches, load_fashion_mnist_sample

SMALL = "--small" in sys.argv
N_COPIES = 2 if SMALL else 60

# %%
# A file to begin with: the pictures of the package, each several times with noise.
images, y = load_fashion_mnist_sample("train")
images_test, y_test = load_fashion_mnist_sample("test")
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "pictures.u8"
rng = np.random.default_rng(0)
with path.open("wb") as file:
    for _ in range(N_COPIES):
        noise = rng.integers(-20, 21, size=images.shape)
        file.write(np.clip(images + noise, 0, 255).astype(np.uint8).tobytes())
labels = np.tile(y, N_COPIES)
X = np.memmap(path, dtype=np.uint8, mode="r", shape=(len(labels), images.shape[1]))
print(f"on disk: {X.shape[0]:,} x {X.shape[1]} bytes, {X.nbytes / 1e6:.0f} MB")

# %%
# In place: every pass of the solver reads the file through the system's cache. The solver needs
# memory for the curvature only, about the same for any number of rows.
tracemalloc.start()
model = FastSoftmax(C=0.1, input_scale=1 / 255).fit(X, labels)
most = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
print(f"fit: test accuracy {model.score(images_test, y_test):.3f}, gap {model.gap_:.0e}")
print(f"fit: {most / 1e6:.0f} MB of memory, where a float64 copy has {X.nbytes / 125e3:.0f} MB")

# %%
# As a stream: chunks as they come, here shuffled, the next two read ahead by a thread.
stream = FastSoftmax(input_scale=1 / 255, learning_rate=0.05, momentum=0.5, random_state=0)
scores = []
for chunk, its_labels in iter_batches(X, labels, 512, random_state=0, prefetch=2):
    stream.partial_fit(chunk, its_labels, classes=range(10))
    scores.append(stream.score(images_test, y_test))
print(f"partial_fit: test accuracy {scores[-1]:.3f} after {len(scores)} chunks, each seen once")

ax = plt.figure(figsize=(5, 3), layout="constrained").subplots()
ax.plot(range(1, len(scores) + 1), scores, label="partial_fit")
ax.axhline(model.score(images_test, y_test), linestyle="--", label="fit, certified")
ax.set(xlabel="chunks of 512 rows", ylabel="test accuracy")
ax.legend()
plt.show()

del X  # Windows deletes no file that is open
folder.cleanup()
