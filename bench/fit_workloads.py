"""What fit_to_optimum.py fits: rows, C, the gaps to reach, and what is aimed at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import problems
from problems import Problem
from races import n_rows_of

GAPS = (1e-2, 1e-4, 1e-6)
CLASSICS = ("iris", "wine", "digits", "breast_cancer")


@dataclass(frozen=True)
class Workload:
    """Rows to fit.

    Parameters
    ----------
    title : str
    make : callable (scale) -> Problem or None
        None where the data is not here.
    C : float
    input_scale : float
        What the rows are multiplied by; rivals get them so, in float32.
    gaps : sequence of float
        Largest first.
    limit : float
        Seconds of a fit at most, where that is less than what is asked for.
    aims : dict
        By gap, then "reached" or "certified": how many times quicker than the fastest rival and
        than scikit-learn's default solver.
    """

    title: str
    make: Callable[[float], Problem | None]
    C: float
    input_scale: float = 1.0
    gaps: Sequence[float] = GAPS
    limit: float = np.inf
    aims: dict[float, dict[str, tuple[float, float]]] = field(default_factory=dict)


def _mnist(scale: float) -> Problem | None:
    problem = problems.mnist_test()
    if problem is None:
        return None
    n_rows = n_rows_of(len(problem.X), scale)
    return problem._replace(X=problem.X[:n_rows], labels=problem.labels[:n_rows])


WORKLOADS = {
    "fashion": Workload(
        "Fashion-MNIST size",
        lambda scale: problems.fashion(n_rows_of(60_000, scale)),
        C=1.0,
        input_scale=1 / 255,
        aims={
            1e-4: {"reached": (20.0, 100.0), "certified": (10.0, 50.0)},
            1e-6: {"reached": (15.0, 100.0)},
        },
    ),
    "probe100": Workload(
        "probe",
        lambda scale: problems.probe(n_rows_of(50_000, scale), 512, 100),
        C=10.0,
        aims={1e-4: {"reached": (20.0, 80.0)}},
    ),
    "probe1000": Workload(
        "probe",
        lambda scale: problems.probe(n_rows_of(20_000, scale), 768, 1000),
        C=10.0,
        aims={1e-4: {"reached": (15.0, 60.0)}},
    ),
    "text": Workload(
        "text",
        lambda scale: problems.text(n_rows_of(90_000, scale), 200_000, 20),
        C=10.0,
        aims={1e-4: {"reached": (8.0, 40.0)}},
    ),
    "mnist10k": Workload("MNIST, test images", _mnist, C=1.0, input_scale=1 / 255),
    **{
        name: Workload(
            f"{name}, unscaled",
            lambda scale, name=name: problems.classic(name),  # small enough as it is
            C=1.0,
            gaps=(1e-4, 1e-8),
            limit=10.0,
            aims={1e-8: {"reached": (2.0, 10.0)}},
        )
        for name in CLASSICS
    },
}


def names_of(asked: Sequence[str]) -> list[str]:
    """Workloads by name; "classics" is four of them, and none is all."""
    names = [n for name in asked for n in (CLASSICS if name == "classics" else [name])]
    if unknown := set(names) - set(WORKLOADS):
        raise ValueError(f"no workload {sorted(unknown)}; there are {['classics', *WORKLOADS]}")
    return names or list(WORKLOADS)


def made(workload: Workload, scale: float) -> Problem | None:
    """The rows, labels from 0 on without holes: of few rows some classes are absent."""
    problem = workload.make(scale)
    if problem is None:
        return None
    classes, labels = np.unique(problem.labels, return_inverse=True)
    return problem._replace(labels=labels.astype(np.int64), n_classes=len(classes))
