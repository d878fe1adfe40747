"""The choice of C: fits along a path of values, and by cross-validation.

No fold copies rows: its problem is that of all rows with weight 0 for those left out.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import check_cv
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._estimator.features import checked_rows
from fastsoftmax._estimator.fitted import all_or_nothing, coef_of, set_learnt, stored_coef
from fastsoftmax._estimator.targets import check_kind, given_targets, new_targets
from fastsoftmax._interchange.model_file import File
from fastsoftmax._interchange.portable import PortableEstimator
from fastsoftmax._sweep.folds import SweepRows, fold_of, sweep_rows
from fastsoftmax._sweep.paths import (
    Ends,
    Fit,
    Paths,
    Plan,
    best_index,
    ends_of,
    path_of,
    paths_of,
    score_function,
    shortfall,
    solve,
)
from fastsoftmax._sweep.progress import Progress
from fastsoftmax.arrays import Array
from fastsoftmax.columns import Whole, in_columns, store_all, whole
from fastsoftmax.estimator import FastSoftmax
from fastsoftmax.floating_point import own_arithmetic, users_code, users_items
from fastsoftmax.foreign_arrays import as_numpy
from fastsoftmax.optimum import full_batch
from fastsoftmax.solvers.protocols import Limits


class SoftmaxPath(NamedTuple):
    """Fits along a path of C, as `fastsoftmax_path` returns them."""

    Cs: Array  # (n_Cs,) ascending
    coefs: Array  # (n_Cs, n_logits, n_features) of the number type computed in
    intercepts: Array  # (n_Cs, n_logits) of it
    gaps: Array  # (n_Cs,) certified bounds on (F - min F) / F
    n_iter: Array  # (n_Cs,) int32
    classes: Array  # (n_classes,) labels, sorted


@own_arithmetic
def fastsoftmax_path(
    X: ArrayLike,
    y: ArrayLike,
    Cs: int | ArrayLike = 10,
    *,
    l1_ratio: float | None = 0.0,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = True,
    class_weight: dict[Any, float] | str | None = None,
    standardize: bool = False,
    input_scale: float = 1.0,
    tol: float = 1e-4,
    max_iter: int = 1000,
    n_jobs: int | None = None,
    backend: str = "auto",
) -> SoftmaxPath:
    """Fit `FastSoftmax` at each of several C, from the strongest penalty to the weakest.

    Each fit starts from the result of the one before. All of them read X in place, and its means
    and variances are computed once.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_rows, n_features)
        As for `FastSoftmax.fit`.
    y : array-like of shape (n_rows,), or (n_rows, n_classes)
        Labels of any type, at least two classes; or probabilities, as for `FastSoftmax.fit`.
    Cs : int or array-like of shape (n_Cs,), default=10
        Inverse strengths of the penalty, finite and > 0, in any order. An integer is the number of
        values in ``numpy.logspace(-4, 4, Cs)``.
    sample_weight : array-like of shape (n_rows,), optional
        Weights >= 0.
    l1_ratio, fit_intercept, class_weight, standardize, input_scale, tol, max_iter, n_jobs, backend
        As for `FastSoftmax`; `tol` and `max_iter` hold for each fit.

    Returns
    -------
    SoftmaxPath
        A named tuple: ``Cs`` (n_Cs,), ascending; ``coefs`` (n_Cs, n_logits, n_features) and
        ``intercepts`` (n_Cs, n_logits), where n_logits is 1 for two classes; ``gaps`` (n_Cs,), the
        certified bounds on (F - min F) / F; ``n_iter`` (n_Cs,); ``classes``, the labels.

    Raises
    ------
    ValueError, TypeError
        If an argument has a value or a type that cannot be used.

    Warns
    -----
    ConvergenceWarning
        Once, if any fit stopped before `tol`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastsoftmax import fastsoftmax_path
    >>> path = fastsoftmax_path(*load_iris(return_X_y=True), Cs=[10.0, 0.1, 1.0])
    >>> path.Cs.tolist(), path.coefs.shape, bool(path.gaps.max() <= 1e-4)
    ([0.1, 1.0, 10.0], (3, 3, 4), True)
    """
    estimator = FastSoftmax(
        l1_ratio=l1_ratio,
        fit_intercept=fit_intercept,
        class_weight=class_weight,
        standardize=standardize,
        input_scale=input_scale,
        tol=tol,
        max_iter=max_iter,
        n_jobs=n_jobs,
        backend=backend,
    )
    estimator._validate_params()
    values, limits = path_of(Cs), Limits[Any](tol, max_iter)
    X, given = checked_rows(estimator, X, y, reset=True)
    fits: list[Fit] = []
    with all_or_nothing(estimator):
        rows = sweep_rows(estimator, X, new_targets(given, None, sample_weight), sample_weight)
        point = rows.family.problem.null_point
        for C in values:
            fit = solve(rows.family.at(C), point, limits)
            point = fit.point
            fits.append(fit._replace(curvature=None))
    real = rows.shard.real
    coefs = np.array([fit.weights for fit in fits], dtype=real)
    path = SoftmaxPath(
        values,
        whole(coef_of(estimator, rows.shard.columns, coefs)),
        np.array([fit.bias for fit in fits], dtype=real),
        np.array([fit.gap for fit in fits]),
        np.array([fit.n_iter for fit in fits], dtype=np.int32),
        rows.classes,
    )
    ends = Ends(values, path.gaps, path.n_iter, np.array([fit.is_near for fit in fits]))
    message = shortfall(ends, limits, real)
    if message:
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return path


class FastSoftmaxCV(PortableEstimator):
    """Softmax regression with the penalty chosen by cross-validation, exact and certified.

    For each C of a path, `FastSoftmax` is fitted to the training rows of each fold and scored on
    the rows that are left out. Then it is fitted to all rows with the C of the best mean score.
    This last fit is certified to `tol`. The fits to folds stop when their gap is estimated to be
    at most `tol`. The names are those of scikit-learn's `LogisticRegressionCV`, and the shapes are
    simpler: `C_` is one number and `scores_` one array.

    Parameters
    ----------
    Cs : int or array-like of shape (n_Cs,), default=10
        Inverse strengths of the penalty, finite and > 0, in any order. An integer is the number of
        values in ``numpy.logspace(-4, 4, Cs)``.
    cv : int, splitter or iterable of (train, test), default=5
        The number of folds of `StratifiedKFold`, a splitter of scikit-learn, or pairs of arrays
        that hold row numbers or masks. A row that occurs twice counts twice.
    scoring : str, callable or None, default=None
        None means "accuracy". Otherwise the name of a scorer of scikit-learn, or a scorer.
        "accuracy" and "neg_log_loss" take one pass over X. For other scorers, the rows that are
        left out of a fold are copied. If y holds probabilities, `scoring` is one of these two, or a
        callable, which gets rows of y.
    refit : bool, default=True
        If True, `coef_` is fitted to all rows with the C `C_`. If False, `coef_` is the mean of the
        coefficients of the folds with this C.
    full_path : bool or "auto", default="auto"
        Whether all of `Cs` are tried. With False the path ends when the mean score has clearly
        fallen: the latest two means are below the best so far by more than one standard error of
        the difference (over the folds), and the latest is not higher than the one before. This
        needs at least 2 folds. "auto" means False if `Cs` is a number, and True if it is an array.
    certify_folds : bool, default=False
        Whether the fits to folds continue until their gaps are certified to be at most `tol`, which
        takes 1.1 to 1.6 times the iterations. Without `refit`, and with a 1-norm, they always do.
    one_standard_error : bool, default=False
        Choose the smallest C whose mean score is below the best mean by at most one standard error
        (over the folds) of the best mean (Hastie, Tibshirani & Friedman 2009, "The Elements of
        Statistical Learning", Section 7.10).
    l1_ratio, fit_intercept, class_weight, standardize, input_scale
        As for `FastSoftmax`. "balanced" class weights are computed from all rows, and used in every
        fold. Means and deviations for `standardize` are those of each fold's training rows alone.
    tol, max_iter
        For each fit, as for `FastSoftmax`; see also `certify_folds`.
    random_state : int, RandomState or None, default=None
        It has no effect, because nothing is random. For shuffled folds pass a splitter as `cv`.
    n_jobs, backend
        As for `FastSoftmax`: `n_jobs` is a number of threads. The fits run one after another.
    verbose : int, default=0
        With 1 or more, a line is printed for each fit, with the time so far and an estimate of the
        time until all of `Cs` have been tried.

    Attributes
    ----------
    C_ : float
        The chosen C, ``Cs_[best_index_]``.
    Cs_ : ndarray of shape (n_Cs,)
        All C, ascending.
    best_index_ : int
        The index of `C_` in `Cs_`.
    scores_ : ndarray of shape (n_folds, n_Cs)
        Scores of the rows that were left out, weighted by `sample_weight` if it was given. For C
        that were not tried (see `full_path`), `scores_`, `coefs_paths_`, `intercepts_paths_` and
        `gaps_` are NaN.
    coefs_paths_ : ndarray of shape (n_folds, n_Cs, n_logits, n_features)
        n_logits is 1 for two classes, otherwise n_classes. If the training rows of a fold lack a
        class, its coefficients are 0 and its intercept is minus infinity.
    intercepts_paths_ : ndarray of shape (n_folds, n_Cs, n_logits)
    n_iter_ : ndarray of shape (n_folds, n_Cs), int32
        Iterations; 0 for C that were not tried.
    gaps_ : ndarray of shape (n_folds, n_Cs)
        Certified bounds on (F - min F) / F of the folds' fits. If a fit stopped because its
        estimated gap was at most `tol`, its bound is mostly larger.
    gap_ : float
        The certified bound of the fit to all rows; without `refit` the largest of `gaps_` at `C_`.
    converged_ : bool
        Whether every certified fit has a gap of at most `tol`, and every other fit an estimated gap
        of at most `tol`.
    objective_, solver_, history_
        Those of the fit to all rows with `C_`, as in `FastSoftmax`; absent without `refit`. This
        fit may start from the one at the next smaller C, and so may have few iterations.
    classes_, coef_, intercept_, temperature_, n_features_in_, feature_names_in_
        As in `FastSoftmax`.

    Notes
    -----
    No training rows are copied for a fold: the rows that are left out get weight 0. In memory there
    are X, `coefs_paths_` and some numbers for each row and fold.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastsoftmax import FastSoftmaxCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = FastSoftmaxCV(Cs=[0.01, 1.0, 100.0], scoring="neg_log_loss").fit(X, y)
    >>> clf.C_, clf.scores_.shape, clf.coefs_paths_.shape
    (100.0, (5, 3), (5, 3, 3, 4))
    >>> clf.predict(X[:2]).tolist()
    [0, 0]
    """

    coefs_paths_ = Whole()

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's protocol)
        **{
            name: FastSoftmax._parameter_constraints[name]
            for name in (
                "l1_ratio", "fit_intercept", "class_weight", "standardize", "input_scale", "tol",
                "max_iter", "random_state", "n_jobs", "verbose", "backend",
            )
        },
        "Cs": [Interval(numbers.Integral, 1, None, closed="left"), "array-like"],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "refit": ["boolean"],
        "full_path": ["boolean", StrOptions({"auto"})],
        "certify_folds": ["boolean"],
        "one_standard_error": ["boolean"],
    }  # fmt: skip

    def __init__(
        self,
        Cs: int | ArrayLike = 10,
        *,
        cv: Any = 5,
        scoring: str | Callable[..., float] | None = None,
        refit: bool = True,
        full_path: bool | str = "auto",
        certify_folds: bool = False,
        one_standard_error: bool = False,
        l1_ratio: float | None = 0.0,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        standardize: bool = False,
        input_scale: float = 1.0,
        tol: float = 1e-4,
        max_iter: int = 1000,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        backend: str = "auto",
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.full_path = full_path
        self.certify_folds = certify_folds
        self.one_standard_error = one_standard_error
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.standardize = standardize
        self.input_scale = input_scale
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.backend = backend

    @own_arithmetic
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose C and fit the coefficients.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
            As for `FastSoftmax.fit`: read in place, never written to.
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            Labels of any type, at least two classes. Or probabilities, as for `FastSoftmax.fit`:
            the labels are then the names of a frame's columns, otherwise 0, 1, ..., folds are
            stratified by the class of the largest probability, and scores are computed as in
            `evaluate`.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0 of the rows, in fits and in scores.
        groups : array-like of shape (n_rows,), optional
            For a `cv` such as `GroupKFold`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument or parameter has a value that cannot be used, a fold has training rows of
            one class only, or no score of any C is a number.
        TypeError
            If an argument is of a type that cannot be used.

        Warns
        -----
        ConvergenceWarning
            Once, if any fit stopped before `tol`. It says how many did, and names the largest gap.
        """
        self._validate_params()
        with all_or_nothing(self):
            message = self._fit(X, y, sample_weight, groups)
        if message:
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> str | None:
        """Set the attributes; the result says which fits fell short, if any did."""
        X, given = checked_rows(self, X, y, reset=True)
        targets = new_targets(given, None, sample_weight)
        y = given.values if targets.probs is None else targets.probs
        groups = as_numpy(groups, "groups")
        self.Cs_ = path_of(self.Cs)
        limits = Limits[Any](self.tol, self.max_iter)
        rows = sweep_rows(self, X, targets, sample_weight)
        labels = y if targets.probs is None else targets.classes[targets.most_likely]
        splits = check_cv(self.cv, labels, classifier=True).split(X, labels, groups)
        pairs = enumerate(users_items(splits))
        folds = [fold_of(rows, i, train, test) for i, (train, test) in pairs]
        if not folds:
            raise ValueError("cv must yield at least one pair (training rows, test rows), got none")
        if self.one_standard_error and len(folds) < 2:
            raise ValueError("one_standard_error=True needs at least 2 folds, got 1")
        weighted = sample_weight is not None
        score = score_function(self.scoring, rows, y, weighted=weighted)
        progress = Progress(len(folds), len(self.Cs_), self.verbose)
        paths = paths_of(rows, folds, self._plan(), score, progress)
        self._keep(rows, paths)
        ends = ends_of(self.Cs_, paths)
        if self.refit:
            fit = self._refit(rows, paths, limits)
            progress.tell_refit(self.C_, fit.n_iter, fit.gap)
            ends = ends.and_of(self.C_, fit)
        set_learnt(self, converged=bool(ends.is_near.all()))
        return shortfall(ends, limits, rows.shard.real)

    def _plan(self) -> Plan:
        """Return what to fit: coefficients that are kept are certified."""
        certified = self.certify_folds or not self.refit
        by_number = isinstance(self.Cs, numbers.Integral)
        stops = by_number if self.full_path == "auto" else not self.full_path
        limits = Limits[Any](self.tol, self.max_iter, certified=certified)
        return Plan(self.Cs_, limits, bool(stops))

    def _keep(self, rows: SweepRows, paths: Paths) -> None:
        """Set the attributes, with the mean coefficients of the folds; a refit replaces those."""
        for name in ("objective_", "solver_", "history_"):  # of the refit of an earlier call
            if hasattr(self, name):
                delattr(self, name)
        coef_in = partial(coef_of, self, rows.shard.columns)
        store_all(self, {"coefs_paths_": coef_in(paths.coefs)})
        self.intercepts_paths_ = paths.intercepts
        self.scores_, self.gaps_ = paths.scores, paths.gaps
        best = best_index(self.scores_, one_standard_error=self.one_standard_error)
        self.best_index_, self.C_ = best, float(self.Cs_[best])
        set_learnt(
            self,
            classes=rows.classes,
            temperature=1.0,
            n_iter=paths.n_iter,
            coef=coef_in(paths.coefs[:, best].mean(axis=0)),
            intercept=paths.intercepts[:, best].mean(axis=0),
            gap=float(paths.gaps[:, best].max()),
        )

    def _refit(self, rows: SweepRows, paths: Paths, limits: Limits[Any]) -> Fit:
        """Go on with the fit to all rows at the chosen C, or begin at the mean of the folds."""
        shard, objective = rows.shard, rows.family.at(self.C_)
        if not paths.whole:
            known = bool(np.isfinite(self.intercept_).all())
            coef = in_columns(stored_coef(self), shard.columns)
            start = objective.start_from((coef, self.intercept_) if known else None)
            fit = solve(objective, start, limits)
        else:
            fit = paths.whole[self.best_index_]
            if fit.is_near and fit.gap > limits.tol:  # estimated
                more = solve(objective, fit.point, limits)
                history = {k: fit.history[k] + values for k, values in more.history.items()}
                fit = more._replace(history=history)
        coef, intercept = fit.weights.astype(shard.real), fit.bias.astype(shard.real)
        coef = coef_of(self, shard.columns, coef)
        set_learnt(
            self,
            coef=coef,
            intercept=intercept,
            gap=fit.gap,
            objective=fit.value,
            solver=full_batch.solver_for(objective.problem, "auto"),
            history=fit.history,
        )
        return fit

    @staticmethod
    def load(file: File) -> FastSoftmax:
        """Read the chosen model that `save` has written: a `FastSoftmax` with ``C=C_``.

        Parameters
        ----------
        file : path-like or seekable binary file object

        Returns
        -------
        FastSoftmax
            A fitted model with the same predictions to the last bit. The results of the other C are
            not in the file; pickle and joblib keep everything.

        Raises
        ------
        ValueError, OSError, TypeError
            As `FastSoftmax.load`.

        Examples
        --------
        >>> import io
        >>> from sklearn.datasets import load_iris
        >>> from fastsoftmax import FastSoftmaxCV
        >>> X, y = load_iris(return_X_y=True)
        >>> file = io.BytesIO()
        >>> FastSoftmaxCV(Cs=[0.1, 1.0], scoring="neg_log_loss").fit(X, y).save(file)
        >>> FastSoftmaxCV.load(file).C
        1.0
        """
        return FastSoftmax.load(file)

    @own_arithmetic
    def score(
        self, X: ArrayLike, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the score of the `scoring` option; accuracy for None.

        Parameters
        ----------
        X, y, sample_weight
            As for `FastSoftmax.score`. Parts that contain the labels work for accuracy only.

        Returns
        -------
        float

        Raises
        ------
        NotFittedError, ValueError
            As `FastSoftmax.score`.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastsoftmax import FastSoftmaxCV
        >>> X, y = load_iris(return_X_y=True)
        >>> FastSoftmaxCV(Cs=[1.0], scoring="neg_log_loss").fit(X, y).score(X, y) > -0.2
        True
        """
        if self.scoring in (None, "accuracy"):
            return super().score(X, y, sample_weight)
        if y is None:
            raise TypeError(f"y is missing: with scoring={self.scoring!r}, X and y are arrays")
        X = as_numpy(X, "X")
        options = {}
        if sample_weight is not None:
            options["sample_weight"] = as_numpy(sample_weight, "sample_weight")
        check_is_fitted(self)
        given = given_targets(as_numpy(y, "y"))
        if given.labels is not None:
            check_kind(given.labels, self.classes_)
        elif self.scoring == "neg_log_loss":
            return -self.evaluate(X, y, sample_weight).loss
        truth = given.values
        with users_code():
            return float(get_scorer(self.scoring)(self, X, truth, **options))
