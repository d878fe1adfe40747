"""
Soft labels from an ensemble
============================

Voters disagree about the labels of rows. A fit to the shares of their votes uses this.

Several models, or several people, label the same rows. The shares of their votes are
probabilities of the classes, and ``y`` may hold probabilities. The label of the majority would
lose the information on which rows the voters disagree.

Here four voters learn from 200 labelled pictures and label 800 more for a small linear model.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from fastsoftmax import FastSoftmax
from fastsoftmax.datasets import load_fashion_mnist_sample

SMALL = "--small" in sys.argv
N_TREES = 20 if SMALL else 200

images, y = load_fashion_mnist_sample("train")
images_test, y_test = load_fashion_mnist_sample("test")
X, X_test = images / np.float32(255), images_test / np.float32(255)
X_known, y_known, X_new = X[:200], y[:200], X[200 : 500 if SMALL else None]

# %%
# Each voter predicts one class for each row without a label.
voters = [
    ExtraTreesClassifier(N_TREES, random_state=0),
    RandomForestClassifier(N_TREES, random_state=1),
    KNeighborsClassifier(5, weights="distance"),
    SVC(C=10),
]
one_hot = np.eye(10)
votes = [one_hot[voter.fit(X_known, y_known).predict(X_new)] for voter in voters]
soft = np.mean(votes, axis=0)
print(f"{len(soft)} rows; the {len(voters)} voters agree on {(soft.max(axis=1) == 1).mean():.0%}")

# %%
# Known labels are used too, as probabilities of 1.
both = np.vstack([X_known, X_new])
targets = {
    "the known labels alone": (X_known, y_known),
    "... and the majority's": (both, np.append(y_known, soft.argmax(axis=1))),
    "... and all votes": (both, np.vstack([one_hot[y_known], soft])),
}
losses = {}
for name, (rows, target) in targets.items():
    result = FastSoftmax(C=0.1).fit(rows, target).evaluate(X_test, y_test)
    losses[name] = result.loss
    print(f"{name:22}: test log-loss {result.loss:.3f}, accuracy {result.accuracy:.3f}")

ax = plt.figure(figsize=(6, 2.2), layout="constrained").subplots()
ax.barh([*losses], [*losses.values()])
ax.set(xlabel="test log-loss", xlim=(0.5 * min(losses.values()), None))
ax.invert_yaxis()
plt.show()
