"""
Decisions where errors differ
=============================

If errors differ in cost, the best decision may differ from the most likely class.

Some of 569 tumours are malignant. To send a malignant one home is far worse than to examine a
benign one again. The best decision is the one with the lowest expected cost under the model's
probabilities. A third decision is another test. It is worth its price if the model is unsure.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from fastsoftmax import FastSoftmax

SMALL = "--small" in sys.argv

data = load_breast_cancer()
y = data.target_names[data.target]  # "benign" or "malignant"
X, X_test, y, y_test = train_test_split(data.data, y, test_size=0.5, random_state=0)
X, y = (X[:150], y[:150]) if SMALL else (X, y)
model = FastSoftmax(C=0.1, standardize=True).fit(X, y)
print(f"test accuracy of the most likely class: {model.score(X_test, y_test):.3f}\n")

# %%
# The cost of each decision, by the true class. The third decision is to ask for a test.
costs = {
    "benign": {"send home": 0, "operate": 20, "test again": 2},
    "malignant": {"send home": 200, "operate": 0, "test again": 2},
}
two = ("send home", "operate")
of_two = {truth: {decision: of[decision] for decision in two} for truth, of in costs.items()}
likely = model.predict(X_test)
ways = {
    "the most likely class": np.where(likely == "malignant", "operate", "send home"),
    "least expected cost of two": model.predict_cost_sensitive(X_test, of_two),
    "least expected cost of three": model.predict_cost_sensitive(X_test, costs),
}

# %%
# The costs of three ways to decide, for tumours that the model has not seen.
average = {}
for name, decided in ways.items():
    paid = [costs[truth][decision] for truth, decision in zip(y_test, decided, strict=True)]
    average[name] = np.mean(paid)
    missed = np.sum((y_test == "malignant") & (decided == "send home"))
    print(f"{name}: {average[name]:.2f} a patient, {missed} malignant sent home")
    for decision in costs["benign"]:
        print(f"    {decision}: {np.sum(decided == decision)}")

ax = plt.figure(figsize=(6, 2.2), layout="constrained").subplots()
ax.barh([*average], [*average.values()])
ax.set_xlabel("average cost of a patient")
ax.invert_yaxis()
plt.show()
