"""
Decisions where errors differ
=============================

Some of 569 tumours are malignant. To send a malignant one home is far worse than to examine a
benign one once more, so the most likely class is not the decision to take: that is the one with
the least expected cost under the model's probabilities. A third decision, to ask for another test,
is worth its price where the model is in doubt.
"""

import sys

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from fastsoftmax import FastSoftmax

SMALL = "--small" in sys.argv

data = load_breast_cancer()
y = data.target_names[data.target]  # "benign" or "malignant"
X, X_test, y, y_test = train_test_split(data.data, y, test_size=0.5, random_state=0)
if SMALL:
    X, y = X[:150], y[:150]

model = FastSoftmax(C=0.1, standardize=True).fit(X, y)
print(f"test accuracy of the most likely class: {model.score(X_test, y_test):.3f}\n")

# %%
# What decision j costs where the truth is class i; classes as in model.classes_.
decisions = np.array(["send home", "operate", "test again"])
cost = np.array(
    [
        [0.0, 20.0, 2.0],  # benign
        [200.0, 0.0, 2.0],  # malignant
    ]
)
truth = np.searchsorted(model.classes_, y_test)
probabilities = model.predict_proba(X_test)
ways = {
    "the most likely class": probabilities.argmax(axis=1),
    "least expected cost of two": (probabilities @ cost[:, :2]).argmin(axis=1),
    "least expected cost of three": (probabilities @ cost).argmin(axis=1),
}

# %%
# What each way of deciding would have cost on tumours that the model has not seen.
for name, decided in ways.items():
    missed = np.sum((truth == 1) & (decided == 0))
    print(f"{name}: {cost[truth, decided].mean():.2f} a patient, {missed} malignant sent home")
    for j, count in enumerate(np.bincount(decided, minlength=3)):
        print(f"    {decisions[j]}: {count}")
