"""What is fitted: rows, the objective that everyone is judged by, and the gaps to reach.

A new data set or a grid of tables are new entries of `WORKLOADS`; `GROUPS` names
several of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from measuring import problems
from measuring.problems import FASHION, PROBE_100, PROBE_1000, TEXT, Problem
from scipy.special import logsumexp

CHUNK_NUMBERS = 1 << 22
CLASSICS = ("iris", "wine", "digits", "breast_cancer")
EMBEDDINGS_C = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Workload:
    """Rows to fit, and the objective.

    Parameters
    ----------
    title : str
    make : callable (scale) -> Problem or None
        None where the data is not here.
    C, l1_ratio : float
        As in scikit-learn.
    input_scale : float
        The factor of the rows. Rivals get scaled rows, in float32.
    gaps : sequence of float
        Largest first.
    limit : float
        Seconds of a fit at most, where that is less than what is asked for.
    reference_tol : float
        The gap to which our fit in float64, from which all gaps are measured, is certified.
    """

    title: str
    make: Callable[[float], Problem | None]
    C: float
    l1_ratio: float = 0.0
    input_scale: float = 1.0
    gaps: Sequence[float] = (1e-2, 1e-4, 1e-6)
    limit: float = np.inf
    reference_tol: float = 1e-10

    def problem(self, scale: float) -> Problem | None:
        """The rows. Labels are 0, 1, ... without holes: of few rows some classes are absent."""
        problem = self.make(scale)
        if problem is None:
            return None
        classes, labels = np.unique(problem.labels, return_inverse=True)
        return problem._replace(labels=labels.astype(np.int64), n_classes=len(classes))

    def objective(self, problem: Problem, W: np.ndarray, b: np.ndarray) -> float:
        """F = mean cross-entropy + (l1_ratio ||W||_1 + (1 - l1_ratio) ||W||^2 / 2) / (C n).

        In float64, of rows input_scale * X. W is (K, d) and b (K,); of two classes they have one
        row, the logit of class 1 against 0. The rows are taken in chunks: neither X in float64 nor
        all logits are in memory at once.
        """
        W, b = np.asarray(W, dtype=np.float64), np.asarray(b, dtype=np.float64)
        (n, d), losses = problem.X.shape, []
        W_T = np.ascontiguousarray(W.T) * self.input_scale
        step = max(1, CHUNK_NUMBERS // (max(len(W), 1 if problem.is_sparse else d)))
        for start in range(0, n, step):
            rows = problem.X[start : start + step].astype(np.float64)
            z = rows @ W_T + b
            if len(W) == 1:
                z = np.column_stack([np.zeros(len(z)), z])
            chosen = z[np.arange(len(z)), problem.labels[start : start + step]]
            losses.append(np.sum(logsumexp(z, axis=1) - chosen))
        penalty = 0.5 * (1.0 - self.l1_ratio) * np.sum(W * W)
        if self.l1_ratio:
            penalty += self.l1_ratio * np.sum(np.abs(W))
        return float((np.sum(losses) + penalty / self.C) / n)

    def describe(self, problem: Problem) -> str:
        """The task in a table."""
        elastic = f", l1_ratio = {self.l1_ratio:g}" if self.l1_ratio else ""
        return f"{self.title}, {problem.size}, C = {self.C:g}{elastic}"


def _fashion(scale: float) -> Problem:
    return problems.named(**FASHION, storage="uint8", scale=scale)


def _mnist(scale: float) -> Problem | None:
    problem = problems.mnist_test()
    if problem is None:
        return None
    n_rows = problems.scaled_rows(len(problem.X), scale)
    return problem._replace(X=problem.X[:n_rows], labels=problem.labels[:n_rows])


def _probe_100(scale: float) -> Problem:
    return problems.named(**PROBE_100, scale=scale)


def _probe_1000(scale: float) -> Problem:
    return problems.named(**PROBE_1000, scale=scale)


def _text(scale: float) -> Problem:
    return problems.named(**TEXT, scale=scale)


def _elastic_net() -> dict[str, Workload]:
    """Multinomial L1 and elastic net."""
    images = {"make": _mnist, "input_scale": 1 / 255}
    made = {}
    for name, title, C, given in (
        ("mnist10k", "MNIST, test images", 1.0, images),
        ("mnist10k", "MNIST, test images", 0.1, images),
        ("text", "text", 10.0, {"make": _text}),
    ):
        for l1_ratio in (1.0, 0.5):
            made[f"{name}, C {C:g}, l1_ratio {l1_ratio:g}"] = Workload(
                title, C=C, l1_ratio=l1_ratio, gaps=(1e-4,), reference_tol=1e-6, **given
            )
    return made


ELASTIC_NET = _elastic_net()
EMBEDDINGS = {
    f"banking77, C {C:g}": Workload("banking77 embeddings", problems.banking77, C=C)
    for C in EMBEDDINGS_C
}
WORKLOADS = {
    "fashion": Workload("Fashion-MNIST size", _fashion, C=1.0, input_scale=1 / 255),
    "probe100": Workload("probe", _probe_100, C=10.0),
    "probe1000": Workload("probe", _probe_1000, C=10.0),
    "text": Workload("text", _text, C=10.0),
    "mnist10k": Workload("MNIST, test images", _mnist, C=1.0, input_scale=1 / 255),
    **{
        name: Workload(
            f"{name}, unscaled",
            lambda scale, name=name: problems.classic(name),  # small enough at any scale
            C=1.0,
            gaps=(1e-4, 1e-8),
            limit=10.0,
        )
        for name in CLASSICS
    },
    **ELASTIC_NET,
    **EMBEDDINGS,
}
GROUPS = {
    "classics": CLASSICS,
    "elastic-net": tuple(ELASTIC_NET),
    "embeddings": tuple(EMBEDDINGS),
}


def names_of(asked: Sequence[str]) -> list[str]:
    """Names of workloads, with those of groups; all if none are asked for."""
    names = [n for name in asked for n in GROUPS.get(name, (name,))]
    if unknown := set(names) - set(WORKLOADS):
        raise ValueError(f"no workload {sorted(unknown)}; there are {[*GROUPS, *WORKLOADS]}")
    return names or list(WORKLOADS)
