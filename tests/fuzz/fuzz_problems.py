"""Strategies of targets, row weights and parameters."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from fuzz_rows import SPARSE_FORMS, VALUES, Rows, choices, rows, seeds
from hypothesis import strategies as st
from scipy import sparse


class Targets(NamedTuple):
    """y as it is passed, what it means, and classes_ of a fit."""

    given: Any
    codes: np.ndarray  # (n,) class numbers, or (n, K) probabilities in float64
    classes: list  # of all classes, in order
    n_classes: int

    def __repr__(self):
        """Show what an example is of, not its numbers."""
        given, classes = type(self.given).__name__, self.classes[:2]
        return f"Targets({given} {self.codes.shape}, {self.n_classes} classes {classes})"


class Problem(NamedTuple):
    """What a fit takes."""

    rows: Rows
    targets: Targets
    weights: Any  # as passed
    parameters: dict

    def __repr__(self):
        """Show what an example is of, not its numbers."""
        found = "" if self.weights is None else f", weights like {np.unique(self.weights)[:3]}"
        return f"Problem({self.rows}, {self.targets}{found}, {self.parameters})"

    @property
    def row_weights(self):
        """Row weights with those of classes, in float64; None for ones."""
        given = None if self.weights is None else np.asarray(self.weights, dtype=float)
        by_class = self.parameters.get("class_weight")
        if by_class is None:
            return given
        codes = self.targets.codes
        if by_class == "balanced":
            totals = np.bincount(codes, given, self.targets.n_classes)
            of_classes = totals.sum() / (self.targets.n_classes * totals)
        else:
            of_classes = np.array([by_class.get(c, 1.0) for c in self.targets.classes])
        return of_classes[codes] * (1.0 if given is None else given)


# ---- targets ----

# Labels of K classes, ascending: lists of Python's own, and how an array of them is passed.
LABELS = {
    "integers": (lambda k: list(range(k)), np.array),
    "int8": (lambda k: list(range(-3, k - 3)), lambda y: np.array(y, dtype=np.int8)),
    "large integers": (lambda k: [2**53 + i for i in range(k)], np.array),
    "large Int64": (lambda k: [2**53 + i for i in range(k)],
                    lambda y: pd.Series(y, dtype="Int64")),
    "Int8": (lambda k: list(range(k)), lambda y: pd.Series(y, dtype="Int8")),
    "floats": (lambda k: [float(i) for i in range(k)], np.array),
    "strings": (lambda k: [f"c{i:03}" for i in range(k)], np.array),
    "objects": (lambda k: [f"c{i:03}" for i in range(k)], lambda y: np.array(y, dtype=object)),
    "list": (lambda k: [f"c{i:03}" for i in range(k)], list),
    "categories": (lambda k: [f"c{i:03}" for i in range(k)],
                   lambda y: pd.Series(y, dtype="category")),
    "bool": (lambda k: [False, True], np.array),
    "boolean": (lambda k: [False, True], lambda y: pd.Series(y, dtype="boolean")),
}  # fmt: skip
PROBABILITIES = ["float64", "float32", "float16", "frame", "sparse"]


@st.composite
def targets(draw, hidden, soft=True, most=12):
    """Draw targets for rows that depend on `hidden`."""
    choose = draw(choices)
    n = len(hidden)
    rng = np.random.default_rng(draw(seeds))
    k = min(choose([2, 2, 3, 4, 5, 12]), n, most)
    strength = choose([0.0, 1.0, 3.0, 100.0])  # the last is separable
    logits = strength * hidden @ rng.standard_normal((hidden.shape[1], k))
    logits /= np.sqrt(hidden.shape[1])
    if soft and choose(range(6)) == 0:
        return _probabilities(choose(PROBABILITIES), rng, n, k)
    kind = choose(list(LABELS))
    made, as_given = LABELS[kind]
    k = min(k, len(made(k)))
    y = (logits[:, :k] + rng.gumbel(size=(n, k))).argmax(axis=1)
    y[:k] = np.arange(k)
    classes = made(k)
    return Targets(as_given([classes[i] for i in y]), y, classes, k)


def _probabilities(kind, rng, n, k):
    probs = rng.dirichlet(np.ones(k), n)
    classes = list(range(k))
    if kind == "frame":
        classes = [f"c{i:03}" for i in range(k)]
        return Targets(pd.DataFrame(probs, columns=classes), probs, classes, k)
    if kind == "sparse":
        codes = np.append(np.arange(k), rng.integers(k, size=n - k))
        probs = np.eye(k)[codes]
        return Targets(sparse.csr_array(probs), probs, classes, k)
    given = probs.astype(kind)
    exact = given.astype(float)
    return Targets(given, exact / exact.sum(axis=1, keepdims=True), classes, k)


@st.composite
def row_weights(draw, codes):
    """Draw row weights, with a row that counts in every class."""
    choose = draw(choices)
    kind = choose([None, None, None, "uniform", "zeros", "spread", "large", "tiny", "integers",
                   "list"])  # fmt: skip
    if kind is None:
        return None
    n, rng = len(codes), np.random.default_rng(draw(seeds))
    weights = {
        "uniform": lambda: rng.uniform(0.1, 3.0, n),
        "zeros": lambda: rng.choice([0.0, 1.0, 2.0], n),
        "spread": lambda: rng.choice([0.0, 1e-6, 1e-3, 1.0, 1e3, 1e6], n),
        "large": lambda: 1e12 * rng.uniform(0.5, 2.0, n),
        "tiny": lambda: 1e-12 * rng.uniform(0.5, 2.0, n),
        "integers": lambda: rng.integers(0, 4, n).astype(float),
        "list": lambda: rng.uniform(0.1, 3.0, n),
    }[kind]()
    first = np.unique(codes, return_index=True)[1] if codes.ndim == 1 else np.arange(n)
    weights[first] = np.where(weights[first] > 0.0, weights[first], 1.0)
    if kind == "integers":
        return weights.astype(np.int64)
    return weights.tolist() if kind == "list" else weights


# ---- parameters ----


@st.composite
def parameters(draw, n_params, n_classes, soft, storage_is_sparse, C=None):
    """Draw parameters of a certified fit."""
    choose = draw(choices)

    def pick(*values):
        return choose(values)

    chosen = {
        "C": C or pick(1.0, 1e-10, 1e-3, 0.1, 10.0, 100.0, 1e4, 1e10),
        "fit_intercept": pick(True, True, False),
        "tol": pick(1e-4, 1e-4, 1e-6, 1e-8, 1e-10),
        "max_iter": pick(1000, 300, 100, 5, 1, 0),
        "n_jobs": pick(1, 2),
    }
    scaling = pick(None, None, "standardize", "input_scale")
    if scaling == "standardize":
        chosen["standardize"] = True
    elif scaling == "input_scale":
        chosen["input_scale"] = pick(0.1, 1 / 255, 3.0)
    if choose(range(5)) == 0:
        chosen["label_smoothing"] = pick(0.01, 0.1, 0.5)
    if not soft and choose(range(5)) == 0:
        chosen["class_weight"] = pick("balanced", "dict")
    if choose(range(10)) == 0 and n_params < 300:
        chosen["backend"] = "numpy"
    if C is None and choose(range(3)) == 0:
        chosen["l1_ratio"] = pick(0.01, 0.5, 1.0)
    else:
        solvers = ["auto", "auto", "lbfgs", "newton-cholesky", "owlqn"]
        chosen["solver"] = choose(solvers[: 5 if n_params < 500 else 3])
    return chosen


@st.composite
def problems(draw, C=None, **options):
    """Draw a problem with a certified optimum."""
    options = {"values": VALUES} | options
    X = draw(rows(**options))
    y = draw(targets(X.hidden))
    weights = draw(row_weights(y.codes))
    soft = y.codes.ndim == 2
    n_params = X.values.shape[1] * y.n_classes
    chosen = draw(parameters(n_params, y.n_classes, soft, sparse.issparse(X.given), C))
    if chosen.get("class_weight") == "dict":
        chosen["class_weight"] = {c: 1.0 + 0.5 * i for i, c in enumerate(y.classes)}
    return Problem(X, y, weights, chosen)


__all__ = ["SPARSE_FORMS", "Problem", "Targets", "parameters", "problems", "row_weights", "targets"]
