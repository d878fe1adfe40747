"""FastSoftmax: softmax regression as a scikit-learn estimator.

Parameters, labels and validation are here, the methods of a fitted model in `_model.prediction`;
the mathematics is in `objective` and `solvers`, the arithmetic in the kernels.
"""

import math
import numbers
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions

from fastsoftmax._interchange.mixins import InterchangeMixin
from fastsoftmax._model import fitting, inputs, sklearn_callbacks, soft_targets
from fastsoftmax._model.decisions import DecisionMixin
from fastsoftmax._model.solver_names import SolverNames
from fastsoftmax._streaming import batch_fit
from fastsoftmax._streaming.batch_source import are_batches
from fastsoftmax._streaming.partial_fit import StreamingMixin
from fastsoftmax.monitor import Callback, Monitor
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.optimum import full_batch
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.csr_shard import CsrShard
from fastsoftmax.shards.rows import Rows
from fastsoftmax.statistics import StatisticsMixin
from fastsoftmax.threads import single_threaded_blas

# Batches of rows, each (X, y) or (X, y, sample_weight).
Batches = Iterable[tuple[Any, ...]] | Callable[[], Iterable[tuple[Any, ...]]]

_param_names: dict[type, list[str]] = {}


class FastSoftmax(
    StreamingMixin,
    InterchangeMixin,
    DecisionMixin,
    StatisticsMixin,
    sklearn_callbacks.CallbackSupportMixin,
    ClassifierMixin,
    BaseEstimator,
):
    r"""Softmax regression (multinomial logistic regression), exact and certified.

    For rows x_i with labels y_i and weights s_i, the fit minimises

    .. math::
        F(W, b) = \frac{1}{\sum_i s_i} \sum_i s_i \,\mathrm{CE}(W x_i + b,\, y_i)
                  + \frac{1}{C \sum_i s_i}
                    \left(\frac{1 - r}{2} \|V\|^2 + r \|V\|_1\right),
        \qquad \mathrm{CE}(o, y) = \log \sum_k e^{o_k} - o_y,

    r = `l1_ratio`, V = W unless the features are scaled (`standardize`, `input_scale`), the
    intercept b not penalised. That is scikit-learn's `LogisticRegression` divided by
    C times the sum of the weights, so `C`, `coef_` and `intercept_` mean the same there and here.

    Conventions: two classes have one row of coefficients, the log-odds of ``classes_[1]``, whose
    penalty is that of scikit-learn's binary model; losses are in nats; weights are relative, and
    scaling all of them and 1 / C together changes nothing.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, > 0; `numpy.inf` for none (see Notes).
    l1_ratio : float or None, default=0.0
        In [0, 1]: the share of the 1-norm in the penalty, which makes coefficients exactly 0. 0 (or
        None) is the squared norm alone, 1 the 1-norm alone (lasso), between them an elastic net.
    fit_intercept : bool, default=True
        Whether the logits have an intercept.
    class_weight : dict or "balanced", default=None
        Weights of the classes, multiplied with `sample_weight`; "balanced" gives every class the
        same total.
    label_smoothing : float, default=0.0
        In [0, 1): the target of a row is (1 - label_smoothing) y + label_smoothing / n_classes
        instead of y, which has 1 for the label and 0 for other classes.
    standardize : bool, default=False
        Fit to features scaled to mean 0 and variance 1 (as `StandardScaler` does; weighted rows
        count by their weights): the penalty is on the coefficients V of those, and ``coef_`` is V
        divided by the standard deviations, for X as it is. X is neither copied nor, where it is
        sparse, filled.
    input_scale : float, default=1.0
        Fit to ``input_scale * X``, such as 1 / 255 for bytes: the penalty is on the coefficients V
        of that, and ``coef_`` is V times input_scale, for X as it is. Without effect where
        `standardize` is set.
    solver : {"auto", "lbfgs", "newton-cholesky", "owlqn", "sgd"}, default="auto"
        "lbfgs" and "newton-cholesky" use all rows in every iteration and stop at a certified
        optimum: the first is preconditioned and right for all but small problems, the second needs
        a square matrix of all coefficients, and goes on as the first where rounding stops it.
        "auto" chooses between the two by size. With a 1-norm (`l1_ratio` > 0) it takes "owlqn"
        (orthant-wise quasi-Newton), which is certified too and the only one for that; without one,
        "owlqn" is "lbfgs".
        "sgd" is mini-batch gradient descent as textbooks have it: W from N(0, 0.01) (standard
        deviation 0.01), b = 0, rows shuffled each epoch, a constant learning rate; it runs
        `max_iter` epochs.
    tol : float, default=1e-4
        The full-batch solvers stop when (F - min F) / F is certainly at most this
        ("newton-cholesky" one step later, as its last steps double the number of right digits).
    max_iter : int, default=1000
        Most iterations, or for "sgd" the epochs.
    max_time : float or None, default=None
        Seconds after which a fit stops, with what it has got to and a warning; looked at between
        iterations (or epochs), so it may take one longer. None for no limit.
    batch_size : int, default=256
        Rows in a mini-batch, for "sgd".
    learning_rate : float, default=0.1
        For "sgd".
    momentum : float, default=0.0
        In [0, 1), for "sgd".
    early_stopping : bool, default=False
        Stop when the validation loss (mean cross-entropy) has not fallen by more than `min_delta`
        for `n_iter_no_change` iterations (or epochs), and give the coefficients of the iteration
        where it was lowest. It is that of the last set of `eval_set`; without one, rows are held
        out. Works with every solver; a full-batch one may reach `tol` before.
    validation_fraction : float, default=0.1
        In (0, 1): the share of rows (of the sum of `sample_weight`) that `early_stopping` holds out
        where there is no `eval_set`, of each class in proportion and never all. A row's values and
        `random_state` decide, not its place: equal rows of a class stay together, so that none is
        fitted to and validated on, and weight 2 is the row twice here too. They are copied, and
        count by `sample_weight` and `class_weight`; the fit is that to the other rows alone.
    n_iter_no_change : int, default=5
        For `early_stopping`.
    min_delta : float, default=1e-4
        >= 0, in nats, for `early_stopping`.
    warm_start : bool, default=False
        Start from the coefficients of the previous fit, where their shape still fits and (for the
        full-batch solvers) they are better than none.
    random_state : int, RandomState or None, default=None
        Initial weights and shuffling of "sgd", and the rows that `early_stopping` holds out; the
        rest has nothing random.
    n_jobs : int or None, default=None
        Threads: None for as many as OpenMP is allowed (OMP_NUM_THREADS, CPU affinity,
        threadpoolctl), -1 for all CPUs. The result is the same to the last bit.
    verbose : int, default=0
        From 1, a line for each iteration.
    backend : {"auto", "native", "numpy"}, default="auto"
        "native" is the compiled kernels, "numpy" their slow twin; "auto" takes the first that there
        is, with a warning where that is numpy.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        W; float64 for X of float64 (or converted to it), otherwise float32.
    intercept_ : ndarray of shape (n_classes,), or (1,)
        b; zeros without an intercept.
    n_iter_ : ndarray of shape (1,), int32
        Iterations, or epochs.
    gap_ : float
        An upper bound on (F - min F) / F at the result, at most 1; infinite where C is: then
        nothing is certified.
    converged_ : bool
        Whether ``gap_ <= tol``; where C is infinite, whether a finite optimum was found (Notes).
        Early stopping mostly ends with False, which needs no warning.
    best_iteration_ : int
        With early_stopping: the iteration of `coef_`, from 1, the one with the lowest validation
        loss; 0 where that was the model that `warm_start` began with, or there was no iteration.
    best_score_ : float
        That loss.
    objective_ : float
        F at the result.
    history_ : dict of lists
        By iteration: "loss" (mean cross-entropy), "accuracy", "objective", "gap", "seconds", and
        for `eval_set` "eval_loss" and "eval_accuracy" (a tuple each, one value for each set). For
        "sgd" loss and accuracy are running means of the epoch, objective and gap are None. Rows
        held out for early stopping are the one set where `eval_set` is None.
    temperature_ : float
        What logits are divided by: 1 after a fit, see `calibrate_temperature`.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, where X has any.

    Notes
    -----
    Dense X of float64, float32, float16, uint8 or int8 is read where it lies, in any memory order,
    memory maps included, and is never copied as a whole: the last three are converted to float32
    where they are used. Rows that are adjacent are read quickest; in Fortran order a pass takes
    about twice as long, and the shuffled rows of "sgd" far longer. Everything else is converted to
    float64.

    Sparse X is read as CSR (other formats are converted), float64 or float32, with indices of
    either size in any order, duplicates added up; other number types become float32. Fits need it
    by columns too and make that copy once.

    float32 data is computed on in float32. Where that ends before `tol` (at a gap around 1e-6, or
    above it if features are large), and where features of float64 are so far from 0 that their
    spread is lost (1e9 seconds), the fit goes on with blocks of rows that are centred and brought
    to float64: slower, without a copy of X. ``coef_`` remains float32, and where its rounding
    keeps the gap above `tol`, a warning says so.

    Without a penalty (``C=inf``) no bound on the distance to the optimum is known, and `tol` means
    nothing. A fit ends with ``converged_`` where half the squared Newton decrement (L-BFGS: its
    estimate of it, four times in a row) is at most 1e-12 F, as far as the arithmetic goes. If the
    classes are separable, wholly or in part, the optimum is at infinity: the fit stops where the
    mean loss is 1e-6 log(n_classes), or when steps that change logits no longer change F, with
    finite coefficients, ``converged_`` False and one ConvergenceWarning. Where features depend on
    each other, "newton-cholesky" gives the shortest of the coefficients that predict the same.

    Examples
    --------
    >>> from fastsoftmax import FastSoftmax
    >>> from fastsoftmax.datasets import load_fashion_mnist_sample
    >>> X, y = load_fashion_mnist_sample("train")
    >>> clf = FastSoftmax(C=0.01).fit(X / 255.0, y)
    >>> clf.coef_.shape, clf.converged_, clf.gap_ <= 1e-4
    ((10, 784), True, True)
    >>> X_test, y_test = load_fashion_mnist_sample("test")
    >>> clf.score(X_test / 255.0, y_test) > 0.75
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's protocol)
        "C": [Interval(numbers.Real, 0.0, None, closed="right")],
        "l1_ratio": [Interval(numbers.Real, 0.0, 1.0, closed="both"), None],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(numbers.Real, 0.0, 1.0, closed="left")],
        "standardize": ["boolean"],
        "input_scale": [Interval(numbers.Real, 0.0, None, closed="neither")],
        "solver": [SolverNames({"auto", "lbfgs", "newton-cholesky", "owlqn", "sgd"})],
        "tol": [Interval(numbers.Real, 0.0, None, closed="left")],
        "max_iter": [Interval(numbers.Integral, 0, None, closed="left")],
        "max_time": [Interval(numbers.Real, 0.0, None, closed="neither"), None],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "learning_rate": [Interval(numbers.Real, 0.0, None, closed="neither")],
        "momentum": [Interval(numbers.Real, 0.0, 1.0, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0.0, 1.0, closed="neither")],
        "n_iter_no_change": [Interval(numbers.Integral, 1, None, closed="left")],
        "min_delta": [Interval(numbers.Real, 0.0, None, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [
            Interval(numbers.Integral, None, -1, closed="right"),
            Interval(numbers.Integral, 1, None, closed="left"),
            None,
        ],
        "verbose": ["verbose"],
        "backend": [StrOptions({"auto", "native", "numpy"})],
    }

    def __init__(
        self,
        C: float = 1.0,
        *,
        l1_ratio: float | None = 0.0,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        label_smoothing: float = 0.0,
        standardize: bool = False,
        input_scale: float = 1.0,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 1000,
        max_time: float | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.1,
        momentum: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        min_delta: float = 1e-4,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        backend: str = "auto",
    ) -> None:
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.standardize = standardize
        self.input_scale = input_scale
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.min_delta = min_delta
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.backend = backend

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what is accepted."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # scikit-learn inspects the signature in every fit: 6 % of one of 1 ms
        if cls not in _param_names:
            _param_names[cls] = super()._get_param_names()
        return list(_param_names[cls])

    # ---- fitting ----

    def fit(
        self,
        X: ArrayLike | Batches,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        eval_set: Sequence[tuple[ArrayLike, ArrayLike]] | None = None,
        callbacks: Iterable[Callback] | None = None,
    ) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), or batches
            Finite numbers; never written to. Without y, and for ``solver="sgd"``: batches of rows,
            each (X, y) or (X, y, sample_weight), that can be read again in every epoch - a list, a
            `fastsoftmax.datasets.iter_batches`, a data loader, or a callable that returns an
            iterator (see Notes).
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            Labels of any type; at least two classes. Or probabilities of the classes, those of a
            row >= 0 with the sum 1; every class has some in a row. A row of probabilities p_k
            counts like rows of each class k with weights p_k, for `class_weight` too. None only
            where X is batches.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0: weight 2 is the row twice, weight 0 the row removed (and with the last
            row of a class that class).
        classes : array-like of shape (n_classes,), optional
            Where y holds probabilities, the label of each of its columns; 0, 1, ... without it.
            ``classes_``, and with it the columns of everything else, is sorted all the same. For
            batches: all labels that occur, which spares a pass that finds them.
        eval_set : list of (X, y), optional
            Rows on which loss and accuracy are measured after every iteration, for `history_`,
            `verbose`, callbacks and, the last of them, `early_stopping`.
        callbacks : iterable of callable, optional
            Each is called with a `fastsoftmax.monitor.FitState` after every iteration; one that
            returns True ends the fit. Where one has a method `on_fit_end`, that is called without
            arguments when the fit has ended, however it did.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument or parameter has a value that cannot be used: NaN or infinite X, lengths
            that differ, one class, negative weights, a label of eval_set that y lacks. An error in
            a batch names its number.
        TypeError
            If an argument is of a type that cannot be used, such as a generator of batches, which
            cannot be read twice.

        Warns
        -----
        ConvergenceWarning
            If a full-batch solver stopped before `tol`, with the gap that it reached; not if
            `early_stopping` or a callback ended the fit.

        Notes
        -----
        Ctrl-C keeps the coefficients of the last iteration (with `early_stopping` the best ones,
        of batches those of the last step), with ``converged_`` False, and raises KeyboardInterrupt.
        So does an exception in a callback, which is passed on.

        Batches are taken in their order, each as one step, or as several of `batch_size` rows where
        it has more; a step is the mean over its rows. They may lack classes, and empty ones are
        passed over. All have the features of the first, and become its number type. A first pass
        over labels and weights finds the classes and the sum of the weights; with `classes` given
        (and class_weight not "balanced") there is none, and in the first epoch the penalty and the
        mean weight are those of the rows so far, as in `partial_fit`. Nothing is certified:
        ``gap_`` is infinite and ``objective_`` NaN. `standardize` needs all rows at once and is
        refused.
        """
        self._validate_params()
        began = time.perf_counter()
        end = math.inf if self.max_time is None else time.monotonic() + self.max_time
        watchers = inputs.callables(callbacks)
        from_batches = are_batches(X, y)
        if from_batches and sample_weight is not None:
            raise ValueError("sample_weight of batches is part of them: (X, y, sample_weight)")

        def expired() -> bool:
            return time.monotonic() >= end

        def run(more: list[Callback]) -> str | None:
            called = [*watchers, *more]
            with single_threaded_blas():
                if from_batches:
                    return batch_fit.fit(self, X, classes, eval_set, called, expired, began)
                hold_out = self.early_stopping and not fitting.has_sets(eval_set)
                rows = self._training_rows(X, y, sample_weight, classes, hold_out=hold_out)
                return self._fit_rows(rows, eval_set, called, expired, began)

        data = {} if from_batches else {"X": X, "y": y, "sample_weight": sample_weight}
        complaint = sklearn_callbacks.watched(self, run, **data)
        if complaint:
            warnings.warn(complaint, ConvergenceWarning, stacklevel=2)
        return self

    def _fit_rows(
        self,
        rows: inputs.TrainingRows,
        eval_set: Any,
        callbacks: list[Callback],
        expired: Callable[[], bool],
        began: float,
    ) -> str | None:
        """Fit to checked rows; the result says why the fit fell short, where it did."""
        shard = rows.shard
        eval_shards = fitting.eval_shards(self, eval_set, rows.classes, rows.left_out, shard)
        if rows.held_out is not None:
            eval_shards = [inputs.held_out_shard(rows.held_out, shard)]
        start = fitting.previous_coefficients(self, rows.classes) if self.warm_start else None
        shifted = self.standardize and not self.fit_intercept
        if self.solver == "sgd" and shifted and isinstance(shard, CsrShard):
            raise ValueError(
                "solver='sgd' with standardize=True needs fit_intercept=True where X is sparse: "
                "without an intercept every step would move every feature"
            )
        penalty = inputs.penalty_of(self.C, rows.total)
        l1_ratio = float(self.l1_ratio or 0.0)
        problem = build_problem(
            Rows([shard]),
            penalty * (1.0 - l1_ratio),
            l1=penalty * l1_ratio,
            fit_intercept=self.fit_intercept,
            input_scale=self.input_scale,
            standardize=self.standardize,
        )
        solver = full_batch.solver_for(problem, self.solver)
        fitted_to = rows.fitted_to
        n_rows = shard.n_rows if fitted_to is None else len(fitted_to)
        monitor = Monitor(
            solver, n_rows, self.max_iter, eval_shards, callbacks, self.verbose, began=began
        )
        fitting.begin(self, rows.classes, monitor, rows.total)
        with fitting.watching(self, monitor):
            if solver == "sgd":
                return fitting.fit_sgd(self, problem, monitor, start, expired, fitted_to)
            return fitting.fit_full_batch(self, SoftmaxObjective(problem), monitor, start, expired)

    def _training_rows(
        self, X: Any, y: Any, sample_weight: Any, classes: Any, *, hold_out: bool
    ) -> inputs.TrainingRows:
        if soft_targets.are_probabilities(y):
            return soft_targets.training_rows(self, X, y, sample_weight, classes, hold_out=hold_out)
        if classes is not None:
            raise ValueError(
                "classes names the columns of a y of shape (n_rows, n_classes) that holds "
                f"probabilities; y has the shape {np.shape(y)}"
            )
        X, y = inputs.validated(self, X, y)
        return inputs.training_rows(self, X, y, sample_weight, hold_out=hold_out)
