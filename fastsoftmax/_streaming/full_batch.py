"""Full-batch fits to rows that come in batches: all are read once in every pass."""

from typing import Any

import numpy as np

from fastsoftmax._estimator import fitting
from fastsoftmax._estimator.batch_source import BatchSource
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import problem_of, regularisation
from fastsoftmax._streaming.evaluations import Evaluations
from fastsoftmax._streaming.streamed import streamed
from fastsoftmax._streaming.survey import Found, surveyed
from fastsoftmax.columns import in_columns, whole
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.shards.protocol import Shards
from fastsoftmax.shards.rows import Rows


def fit(estimator: FitParameters, batches: Any, classes: Any, watch: fitting.Watch) -> str | None:
    """Fit to batches; the result says why the fit fell short, where it did."""
    check_parameters(estimator, watch)
    source = BatchSource(batches)
    evaluations = Evaluations(estimator, watch.checkpoint, classes)
    before = coefficients_before(estimator)
    found = surveyed(estimator, source, classes, before, evaluations.see)
    check_classes(found)
    evaluations.surveyed(found)
    shards = streamed(estimator, source, classes, found, evaluations.answer)
    return fit_shards(estimator, found, shards, watch)


def fit_shards(
    estimator: FitParameters, found: Found, shards: Shards, watch: fitting.Watch
) -> str | None:
    """Fit to shards, wherever they are; the result is as of `fit`."""
    totals = found.totals
    sets = fitting.eval_shards(estimator, watch, totals.classes, totals.classes, shards.like)
    previous, start = fitting.previous_coefficients(estimator, totals.classes), None
    if previous is not None:
        coef = in_columns(previous[0], found.columns)
        start = np.asarray(coef, np.float64), np.asarray(previous[1], np.float64)
    l2, l1 = regularisation(estimator.C, totals.weight, estimator.l1_ratio)
    problem = problem_of(Rows(shards), estimator, l2=l2, l1=l1)
    solver = full_batch.solver_for(problem, estimator.solver)
    counts = totals.n_rows, totals.weight
    with (
        fitting.begun(estimator, totals.classes, solver, counts, sets, watch) as monitor,
        fitting.a_start_is_no_result(estimator),
    ):
        monitor.n_bytes = found.n_bytes
        return fitting.fit_full_batch(estimator, SoftmaxObjective(problem), monitor, start, watch)


def coefficients_before(estimator: FitParameters) -> Any:
    """Return the coefficients that a fit may start from, or None."""
    old = getattr(estimator, "coef_", None) if estimator.warm_start else None
    return None if old is None else whole(old)


def check_classes(found: Found) -> None:
    """Raise a ValueError where a class has no row."""
    totals = found.totals
    assert totals.masses is not None
    if not totals.masses.all():
        missing = totals.classes[totals.masses == 0.0].tolist()[0]
        raise ValueError(f"no row with a weight above 0 has the class {missing!r}")


def check_parameters(estimator: FitParameters, watch: fitting.Watch) -> None:
    """Raise a ValueError where parameters need all rows at once."""
    if estimator.early_stopping and not watch.eval_set:
        raise ValueError(
            "early_stopping=True needs an eval_set where fit gets batches: none of their rows are "
            "held out"
        )
