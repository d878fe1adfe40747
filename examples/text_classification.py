"""
Text classification with sparse features
========================================

A sparse matrix with a column for each word is read in place. Coefficients belong to words.

The texts are paragraphs of scipy's own documentation, and the task is to guess the subpackage.
Whole functions are held out, so no paragraph of a test function is in the training set.
"""

import importlib
import inspect
import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupShuffleSplit

from fastsoftmax import FastSoftmax

SMALL = "--small" in sys.argv
PACKAGES = ["integrate", "linalg", "signal", "stats", "fft", "interpolate", "ndimage", "optimize"]

texts, labels, functions = [], [], []
for package in PACKAGES[: 3 if SMALL else None]:
    module = importlib.import_module(f"scipy.{package}")
    for name in module.__all__:
        documentation = inspect.getdoc(getattr(module, name)) or ""
        for paragraph in documentation.split("\n\n"):
            if len(paragraph) > 60:
                texts.append(paragraph)
                labels.append(package)
                functions.append(f"{package}.{name}")
texts, labels = np.array(texts, dtype=object), np.array(labels)
split = GroupShuffleSplit(1, test_size=0.25, random_state=0)
train, test = next(split.split(texts, groups=functions))

# %%
# Leave out the names of the packages, which would give the answer away.
vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words=["scipy", *PACKAGES], dtype=np.float32)
X = vectorizer.fit_transform(texts[train])
X_test = vectorizer.transform(texts[test])
print(f"X: {X.shape[0]:,} x {X.shape[1]:,} in CSR, {X.nnz / X.shape[0]:.0f} words in a row")

model = FastSoftmax(C=100).fit(X, labels[train])
print(f"fitted, within {model.gap_:.0e} of the optimum")
print(f"test accuracy {model.score(X_test, labels[test]):.3f}, {len(model.classes_)} classes")

# %%
# The most important words: the largest coefficients of each class.
words = vectorizer.get_feature_names_out()
for package, row in zip(model.classes_, model.coef_, strict=True):
    print(f"{package:>12}: {', '.join(words[row.argsort()[::-1][:7]])}")

largest = model.coef_[0].argsort()[-10:]
ax = plt.figure(figsize=(5, 3), layout="constrained").subplots()
ax.barh(words[largest], model.coef_[0][largest])
ax.set(title=model.classes_[0], xlabel="coefficient")
plt.show()
