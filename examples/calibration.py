"""
Calibrated probabilities
========================

A model with little regularisation is too confident. One number, fitted later, corrects this.

Decisions under costs need probabilities that are right: of all rows with a probability of 0.8, 80 %
should have that class. ``calibrate_temperature`` divides all logits by a number, the temperature,
at which the probabilities fit held-out rows best. The predicted classes do not change.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from fastsoftmax import FastSoftmax
from fastsoftmax.datasets import load_fashion_mnist_sample

SMALL = "--small" in sys.argv
images, labels = load_fashion_mnist_sample("train")
X_test, y_test = load_fashion_mnist_sample("test")
n_train = 400 if SMALL else 700
X, y = images[:n_train], labels[:n_train]
X_held_out, y_held_out = images[n_train:], labels[n_train:]


def reliability(model):
    """Mean confidence, and share of correct predictions, of rows in groups by confidence."""
    labels, probabilities = model.predict_topk(X_test, 1)
    groups = np.array_split(np.argsort(probabilities[:, 0]), 8)
    correct = labels[:, 0] == y_test
    return [(probabilities[rows, 0].mean(), correct[rows].mean()) for rows in groups]


# %%
# A large C: the model separates its training rows nearly perfectly.
model = FastSoftmax(C=10, input_scale=1 / 255, tol=1e-3).fit(X, y)
before, curve_before = model.evaluate(X_test, y_test), reliability(model)
model.calibrate_temperature(X_held_out, y_held_out)
after, curve_after = model.evaluate(X_test, y_test), reliability(model)
print(f"temperature {model.temperature_:.2f}")
print(f"log-loss before {before.loss:.3f}, after {after.loss:.3f}")
print(f"accuracy before {before.accuracy:.3f}, after {after.accuracy:.3f}")

# %%
# A model on the diagonal is right as often as its probabilities say.
ax = plt.figure(figsize=(4.5, 4), layout="constrained").subplots()
ax.plot([0, 1], [0, 1], color="0.6", label="as often right as it says")
ax.plot(*zip(*curve_before, strict=True), "o--", label="before")
ax.plot(*zip(*curve_after, strict=True), "s-", label="after")
ax.set(xlabel="mean probability of the predicted class", ylabel="share of correct predictions")
ax.legend()
plt.show()
