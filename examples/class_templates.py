"""
Images, and the templates of their classes
==========================================

The coefficients of a class are an image. It shows which pixels speak for the class.

Pictures of clothes are classified by their pixels. With one coefficient for each pixel, red pixels
raise the logit of a class and blue ones lower it. Stronger regularisation makes smoother templates.
"""

import sys

import matplotlib.pyplot as plt

from fastsoftmax import FastSoftmax, plot
from fastsoftmax.datasets import FASHION_MNIST_LABELS, load_fashion_mnist_sample

SMALL = "--small" in sys.argv
X, y = load_fashion_mnist_sample("train")
X_test, y_test = load_fashion_mnist_sample("test")

# %%
# Bytes are read in place. ``input_scale`` converts them to numbers from 0 to 1.
models = {}
for C in (0.001, 0.1) if SMALL else (0.001, 0.1, 10.0):
    models[C] = FastSoftmax(C=C, input_scale=1 / 255, tol=1e-3).fit(X, y)
    accuracy = models[C].score(X_test, y_test)
    print(f"C = {C:6}: test accuracy {accuracy:.3f}, gap {models[C].gap_:.0e}")

# %%
# The templates with C = 0.1.
model = models[0.1]
plot.weights(model, names=FASHION_MNIST_LABELS)
plt.show()

# %%
# Test images. The first line of a title is the true label, the second line the predicted one.
predicted = model.predict(X_test)
plot.predictions(X_test[:16], y_test[:16], predicted[:16], names=FASHION_MNIST_LABELS)
plt.show()

# %%
# The pairs of classes that are confused most often.
pairs = {}
for true, guess in zip(y_test, predicted, strict=True):
    if true != guess:
        names = FASHION_MNIST_LABELS[true], FASHION_MNIST_LABELS[guess]
        pairs[names] = pairs.get(names, 0) + 1
for (true, guess), count in sorted(pairs.items(), key=lambda item: -item[1])[:5]:
    print(f"{count:3} times: {true} taken for {guess}")
