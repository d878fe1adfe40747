"""
Grid search in a pipeline
=========================

The parameters of all steps of a pipeline are searched together.

``FastSoftmax`` is a scikit-learn classifier: it works in pipelines and can be cloned. To search
``C`` alone, ``FastSoftmaxCV`` is faster: see the example of the linear probe.
"""

import sys

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import Nystroem
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from fastsoftmax import FastSoftmax

SMALL = "--small" in sys.argv

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
if SMALL:
    X, y = X[:300], y[:300]

# %%
# Pixels, then similarities to some of the digits, then the classifier.
pipeline = make_pipeline(
    MinMaxScaler(), Nystroem(random_state=0), FastSoftmax(standardize=True, max_iter=500)
)
grid = {
    "nystroem__gamma": [0.02, 0.1] if SMALL else [0.01, 0.03, 0.1],
    "nystroem__n_components": [30] if SMALL else [50, 200],
    "fastsoftmax__C": [0.01, 1.0] if SMALL else [0.01, 0.1, 1.0],
}
search = GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=3).fit(X, y)

# %%
# The five best results, and the test accuracy of the chosen pipeline.
results = search.cv_results_
print("log-loss  gamma  components      C")
for i in results["rank_test_score"].argsort()[:5]:
    chosen = results["params"][i]
    print(
        f"{-results['mean_test_score'][i]:8.3f}  {chosen['nystroem__gamma']:5.2f}"
        f"  {chosen['nystroem__n_components']:10}  {chosen['fastsoftmax__C']:5.2f}"
    )
best = search.best_estimator_
print(f"test accuracy {best.score(X_test, y_test):.3f}, gap {best[-1].gap_:.0e}")

ax = plt.figure(figsize=(5, 3), layout="constrained").subplots()
for n_components in grid["nystroem__n_components"]:
    rows = results["param_nystroem__n_components"] == n_components
    points = ax.scatter(
        results["param_nystroem__gamma"][rows].astype(float),
        -results["mean_test_score"][rows],
        s=2 * n_components,
        c=results["param_fastsoftmax__C"][rows].astype(float),
        norm="log",
    )
ax.set(xscale="log", xlabel="gamma (larger points: more components)", ylabel="log-loss")
plt.colorbar(points, label="C")
plt.show()
