"""A stage for problems so small that a fit is one call: Newton's method in the kernels.

The kernel takes the rows as they are stored and copies them in float64, centred and scaled: they
are few. The objective itself judges the result. The general solvers go on where its gap is too
large, and in unusual cases (no penalty, a Hessian without Cholesky factors, features that
overflow).

Milliseconds of a fit to 1e-8, by Python and numpy and so: iris 2.7 and 0.6, wine 3.4 and 0.8,
breast cancer 4.0 and 0.9 (scikit-learn's newton-cholesky: 1.9, 2.5, 1.9). By L-BFGS to a certified
1e-4 and so, on one core (rows x features, classes): 5000 x 50, 2, correlated: 5.4 and 1.7;
20000 x 25, 2: 4.6 and 4.0, separable: 11.7 and 5.0; 10000 x 100, 2: 6.7 and 5.8, correlated: 10.0
and 5.7; 10000 x 30, 3, separable: 13.8 and 6.9. Larger ones: 30000 x 30, 2: 6.5 and 7.1;
10000 x 40, 3: 5.0 and 5.5.
"""

import math

import numpy as np

from fastsoftmax.arrays import Array
from fastsoftmax.cached import cached_property
from fastsoftmax.kernel_arguments import NewtonSettings, Scaling
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum.stage import Limits, Result, Solution, judged
from fastsoftmax.problem.evaluation import Seen, SeenElsewhere
from fastsoftmax.problem.problem import Problem
from fastsoftmax.solvers.lower_bound import share_of
from fastsoftmax.solvers.record import State, array_in, count_in
from fastsoftmax.solvers.resuming import is_same, seen_at

# Where L-BFGS by passes becomes the quicker one, by measurement: coefficients, multiply-adds of a
# Hessian (of which half are left out), and products of a row with each logit, whose exponential
# costs as much as so many. Rows of few bytes are quickest read as they are. A call takes up to 15
# MB, and up to 15 ms.
_MOST_PARAMS = 350
_MOST_WORK = 1.1e8
_MOST_PRODUCTS = {8: 1.5e6, 4: 1e6}  # by the bytes of a number that is computed with
_MOST_SPARSE_PRODUCTS = 3e5
_EXPONENTIAL = 16
# Steps of a call: all that are needed, nearly always.
_STEPS = 24
# Relative gap to go on to, and products of a step up to which the last digits cost so little. (The
# last steps are of L-BFGS, so none leads far beyond, as a step of Newton's method does. At 1e-14
# coefficients of equal problems differed by 1e-8.)
_TARGET, _FEW_PRODUCTS = 1e-18, 1e5
# What others aim at, as a share of `tol`: the objective sees the coefficients rounded.
_ROUNDED = 0.9


def suits(problem: Problem) -> bool:
    """Whether a problem is that small, and has a penalty."""
    n, n_params, rows = problem.n_rows, problem.n_params, problem.rows
    most = _MOST_SPARSE_PRODUCTS if rows.is_sparse else _MOST_PRODUCTS[rows.real.itemsize]
    return (
        0.0 < problem.l2 < np.inf
        and 0 < n_params <= _MOST_PARAMS
        and n * n_params**2 <= _MOST_WORK
        and _products(problem) <= most
    )


def _products(problem: Problem) -> float:
    """Multiply-adds of all logits, with their exponentials."""
    columns = problem.n_features + problem.fit_intercept
    return float(problem.n_rows) * problem.n_logits * (columns + _EXPONENTIAL)


class OneArray:
    """A view of a problem: all rows X in one array, in coordinates of the problem.

    Its unknowns are params (n_logits, columns): V, and the intercepts in the last column.
    """

    def __init__(self, objective: SoftmaxObjective) -> None:
        self._by = objective.by
        self._full = full = objective.problem
        coordinates = full.coordinates
        self.X, self.targets = full.rows.in_one_array(), full.rows.targets()
        self.scaling = Scaling(
            coordinates.center, coordinates.scale_or_none, with_bias=full.fit_intercept
        )

    def inside(self, point: Array) -> Array:
        """Return the view's params for a point of the problem."""
        weights = self._full.coordinates.matrix_of(point)
        bias = point[self._full.n_weights :].reshape(-1, len(weights)).T
        return np.ascontiguousarray(np.concatenate([weights, bias], axis=1))

    def outside(self, point: Array) -> Array:
        """Return the problem's point for params of the view."""
        d = self._full.n_features
        return np.concatenate([point[:, :d].ravel(), point[:, d:].ravel()])

    def coefficients(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Return W and b of the problem for V and the intercepts."""
        return self._by.coefficients(np.concatenate([weights.ravel(), bias.ravel()]))


def _leave(limits: Limits, params: Array, n_iter: int, seen: State) -> None:
    if limits.record.leave is not None:
        limits.record.leave({**seen, "params": params, "n_iter": n_iter})


class SmallStage:
    """Newton's method in one call, or a few.

    The kernel makes several steps in a call, and on_iteration is told of them one by one: with the
    kernel's own figures, except for the last step, which the objective evaluates.
    """

    def __init__(self, objective: SoftmaxObjective) -> None:
        self._objective = objective

    @cached_property
    def _view(self) -> OneArray:
        return OneArray(self._objective)

    def run(self, start: Array, limits: Limits) -> Result | None:
        """Minimise from a point; the reason is "precision" where other stages should go on."""
        params, n_iter = self._begun(start, limits)
        while n_iter < limits.max_iter:
            points, records, reached, stuck = self._steps(params, limits, n_iter)
            if not len(points):
                if not reached and not n_iter:
                    return None
                reason = "converged" if reached else "precision"
                return self._judged(params, n_iter, reason, limits.tol)
            for i, (point, record) in enumerate(zip(points, records, strict=True)):
                if limits.expired():
                    return self._judged(params, n_iter, "max_time", limits.tol)
                params, n_iter = point.reshape(params.shape), n_iter + 1
                if i + 1 == len(points) and (reached or stuck or n_iter == limits.max_iter):
                    reason = "precision" if stuck else "converged" if reached else "max_iter"
                    result = self._judged(params, n_iter, reason, limits.tol)
                    stop = limits.on_iteration(n_iter, result.evaluation, result.gap)
                    _leave(limits, params, n_iter, seen_at(result.evaluation))
                    return result._replace(reason="stopped") if stop else result
                stop = limits.on_iteration(n_iter, *self._recorded(params, record))
                _leave(limits, params, n_iter, {"value": float(record[2]), "slope": math.nan})
                if stop:
                    return self._judged(params, n_iter, "stopped", limits.tol)
        return self._judged(params, n_iter, "max_iter", limits.tol)

    def hands_over(self, result: Result, tol: float) -> bool:
        """Whether other stages should go on."""
        return result.gap > tol and result.reason == "precision"

    def conclude(self, result: Result, tol: float) -> Solution:
        """Return the result as it is."""
        return Solution(result)

    def _begun(self, start: Array, limits: Limits) -> tuple[Array, int]:
        """Return the view's params to begin with, and the iterations before."""
        left, inside = limits.record.found, self._view.inside(start)
        if left is None:
            return inside, 0
        params = array_in(left, "params", inside.shape)
        is_same(self._objective, self._objective.evaluate(self._view.outside(params)), left)
        return params, count_in(left, "n_iter")

    def _steps(self, params: Array, limits: Limits, n_iter: int) -> tuple[Array, Array, bool, bool]:
        """Return coefficients and records of the next steps, and the reasons why they ended."""
        problem, view = self._objective.problem, self._view
        n_steps = min(_STEPS, limits.max_iter - n_iter)
        points, records = np.empty((n_steps, params.size)), np.empty((n_steps, 4))
        base = np.empty(params.shape)
        few = _products(problem) + problem.n_params**2 <= _FEW_PRODUCTS
        target = min(limits.tol, _TARGET) if few else _ROUNDED * limits.tol
        settings = NewtonSettings(view.scaling, problem.class_share, problem.l2, limits.tol, target)
        done, reached, stuck = problem.rows.backend.newton_steps(
            points, records, base, params, view.X, view.targets, settings
        )
        if problem.fit_intercept:
            self._objective.by.note_base(np.ascontiguousarray(base[:, : problem.n_features]))
        return points[:done], records[:done], reached, stuck

    def _judged(self, params: Array, n_iter: int, reason: str, tol: float) -> Result:
        """Return the result as the objective itself sees it."""
        result = judged(self._objective, self._view.outside(params), n_iter, reason)
        if result.gap <= tol and reason in ("max_iter", "precision"):
            return result._replace(reason="converged")
        if result.gap > tol and reason == "converged":
            return result._replace(reason="precision")
        return result

    def _recorded(self, params: Array, record: Array) -> tuple[Seen, float]:
        """Return what is known of a step, as `on_iteration` takes it."""
        loss, accuracy, value, bound = record.tolist()
        d, view = self._objective.problem.n_features, self._view
        at = SeenElsewhere(
            loss, accuracy, value, lambda: view.coefficients(params[:, :d], params[:, d:])
        )
        return at, share_of(bound, value)
