"""FastSoftmax: softmax regression as a scikit-learn estimator.

What its methods do is in `_estimator`, `_streaming`, `_interchange` and `statistics`. The
mathematics is in `objective` and `solvers`, the arithmetic in the kernels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if

from fastsoftmax._estimator import fitting
from fastsoftmax._estimator.batch_source import are_batches, check_alone
from fastsoftmax._estimator.fitted import nothing_set_without_coefficients
from fastsoftmax._estimator.sklearn_callbacks import CallbackSupportMixin, watched
from fastsoftmax._interchange.portable import LoadableEstimator, PortableEstimator
from fastsoftmax._streaming import fits, full_batch
from fastsoftmax.archives import FilePath
from fastsoftmax.data_sources import NpyFiles, are_npy_files
from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.monitor import Callback
from fastsoftmax.statistics import InferringEstimator

# Batches of rows, each (X, y) or (X, y, sample_weight).
Batches = Iterable[tuple[Any, ...]] | Callable[[], Iterable[tuple[Any, ...]]]


class FastSoftmax(CallbackSupportMixin, PortableEstimator, LoadableEstimator, InferringEstimator):
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
        Threads: None for as many as OMP_NUM_THREADS and threadpoolctl allow, and at most the CPUs
        that affinity and the quota of a container grant; -1 for all these CPUs, -2 for all but one.
        The result is the same to the last bit.
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
        W; float64 for X of float64 (or converted to it), otherwise float32. Of columns without an
        entry (see Notes) it is made when it is first read.
    intercept_ : ndarray of shape (n_classes,), or (1,)
        b; without an intercept zeros, or with `standardize` what centring the features adds.
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
    solver_ : str
        The solver that ran: "lbfgs", "newton-cholesky", "owlqn" or "sgd".
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
    Dense X of float64, float32, float16, uint8, int8 or bool is read where it lies, in any memory
    order, memory maps included, and is never copied as a whole: all but the first two are converted
    to float32 where they are used. Rows that are adjacent are read quickest; in Fortran order a
    pass takes about twice as long, and the shuffled rows of "sgd" far longer. X of these types is
    copied, in its type, where it has the other byte order or is not aligned. Everything else is
    converted to float64.

    Frames keep the type of their columns, and arrays of PyTorch, JAX and others in the memory of
    the CPU are read as they are, whether or not scikit-learn dispatches by array namespace; results
    are arrays of numpy.

    Sparse X is read as CSR (other formats are converted), float64 or float32, with indices of
    either size in any order, duplicates added up; other number types become float32, but float64
    where that alone holds an integer. Fits need it by columns too and make that copy once.
    Where at least a fifth of 1024 or more columns has no entry, those take no part in a fit: their
    coefficients are 0, with "sgd" from the start (unless `warm_start` has others).

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
    each other (all levels of a one-hot code beside an intercept, a constant column), the result is
    the shortest of the coefficients that predict the same, for features as `input_scale` and
    `standardize` scale them; what counts as dependent is decided by the number type of X (of more
    than 2048 features only constant ones get 0, beside an intercept).

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

    # ---- fits ----

    @own_arithmetic
    def fit(
        self,
        X: ArrayLike | Batches,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        eval_set: Sequence[tuple[ArrayLike, ArrayLike]] | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        callbacks: Iterable[Callback] | None = None,
        checkpoint: FilePath | None = None,
        resume: FilePath | None = None,
    ) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features), files, or batches
            Finite numbers; never written to. The path of a ``.npy`` file or of a folder of them, or
            a list of paths, memory maps or arrays, is read part by part in every pass. Without y:
            batches of rows, each (X, y) or (X, y, sample_weight), that can be read again in every
            pass - a list, a source of `fastsoftmax.data_sources` (files, Parquet), a
            `fastsoftmax.datasets.iter_batches`, a data loader, or a callable that returns an
            iterator (see Notes).
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            Labels of any type, none missing; at least two classes. Or probabilities of the classes
            (an array, a frame such as ``pandas.get_dummies(labels)``, or a sparse matrix, which
            becomes dense), those of a row >= 0 with the sum 1; every class has some in a row. A row
            of probabilities p_k counts like rows of each class k with weights p_k, for
            `class_weight` too. Of files it may be a list of paths or arrays, as X is. None only
            where X is batches.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0: weight 2 is the row twice, weight 0 the row removed (and with the last
            row of a class that class).
        classes : array-like of shape (n_classes,), optional
            Where y holds probabilities, the label of each of its columns; without it the names of
            the columns of a frame, or 0, 1, ...
            ``classes_``, and with it the columns of everything else, is sorted all the same. For
            batches: all labels that occur, which spares a pass that finds them.
        eval_set : list of (X, y), optional
            Rows on which loss and accuracy are measured after every iteration, for `history_`,
            `verbose`, callbacks and, the last of them, `early_stopping`. y holds labels, or
            probabilities of the classes in the order of ``classes_`` (columns with names are found
            by them).
        X_val, y_val : array-like, optional
            One evaluation set, the same as ``eval_set=[(X_val, y_val)]``. A `Pipeline` with
            ``transform_input=["X_val"]`` transforms it as it does X (see Notes).
        callbacks : iterable of callable, optional
            Each is called with a `fastsoftmax.monitor.FitState` after every iteration; one that
            returns True ends the fit. Where one has a method `on_fit_end`, that is called without
            arguments when the fit has ended, however it did.
        checkpoint : path, optional
            A file for the state of the fit, written every few seconds and at the end, however the
            fit ends; it is replaced at once or not at all. It stays after the fit.
        resume : path, optional
            A checkpoint to go on from, of the same data and parameters (`tol`, `max_iter`,
            `max_time`, `n_jobs`, `verbose`, `eval_set` and callbacks may be others), instead of
            `warm_start`. `max_iter` counts the iterations of all fits together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument or parameter has a value that cannot be used: NaN or infinite X, lengths
            that differ, one class, negative weights, a label of eval_set that y lacks. An error in
            a batch names its number. Also if no finite coefficients are found, as features are too
            large, or a checkpoint is damaged or of another fit: then the attributes are those of
            before.
        FileNotFoundError
            If `resume` names no file.
        TypeError
            If an argument is of a type that cannot be used, such as a generator of batches, which
            cannot be read twice.

        Warns
        -----
        ConvergenceWarning
            If a full-batch solver stopped before `tol`, with the gap that it reached; if "sgd"
            ended at a loss above that of a model that ignores the features. Not if `early_stopping`
            or a callback ended the fit.
        UserWarning
            If a checkpoint could not be written (a full disk); the fit goes on.

        Notes
        -----
        The sum of a row of probabilities may be off by 1e-5, by 1e-4 in float32 and by 1e-2 in
        float16; rows are divided by their sums in float64.

        In a pipeline a validation set needs metadata routing:
        ``sklearn.set_config(enable_metadata_routing=True)``, and
        ``make_pipeline(StandardScaler(), FastSoftmax().set_fit_request(X_val=True, y_val=True),
        transform_input=["X_val"])``. `eval_set` is not transformed there.

        Ctrl-C keeps the coefficients of the last iteration (with `early_stopping` the best ones,
        of batches those of the last step), with ``converged_`` False, and raises KeyboardInterrupt.
        So does an exception in a callback, which is passed on.

        Batches may lack classes, and empty ones are passed over. All have the features of the
        first, and become its number type. The full-batch solvers read all of them in every pass,
        while a thread reads ahead, and hold a few at a time; the result is certified. The last bits
        depend on how the rows are cut into batches.

        "sgd" takes batches in their order, each as one step, or as several of `batch_size` rows
        where it has more; a step is the mean over its rows. A first pass over labels and weights
        finds the classes and the sum of the weights; with `classes` given (and class_weight not
        "balanced") there is none, and in the first epoch the penalty and the mean weight are those
        of the rows so far, as in `partial_fit`. Nothing is certified: ``gap_`` is infinite and
        ``objective_`` NaN. `standardize` needs all rows at once and is refused.
        """
        self._validate_params()
        watch = fitting.watch_of(eval_set, (X_val, y_val), callbacks, self.max_time)
        watch = fitting.with_checkpoint(self, watch, checkpoint, resume)
        check_alone(X, y)
        if y is not None and are_npy_files(X):
            X, y, sample_weight = NpyFiles(X, y, sample_weight), None, None
        from_batches = are_batches(X, y)
        if from_batches and sample_weight is not None:
            raise ValueError("sample_weight of batches is part of them: (X, y, sample_weight)")

        def run(more: list[Callback]) -> str | None:
            by_all = watch._replace(callbacks=[*watch.callbacks, *more])
            with nothing_set_without_coefficients(self):
                if from_batches:
                    by_batches = fits.fit if self.solver == "sgd" else full_batch.fit
                    return by_batches(self, X, classes, by_all)
                return fitting.fit_arrays(self, X, y, sample_weight, classes, by_all)

        data = {} if from_batches else {"X": X, "y": y, "sample_weight": sample_weight}
        complaint = watched(self, run, **data)
        if complaint:
            warnings.warn(complaint, ConvergenceWarning, stacklevel=3)
        return self

    @available_if(fits.has_steps)  # type: ignore[untyped-decorator]
    @own_arithmetic
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Take steps of mini-batch gradient descent over these rows, in their order.

        With `learning_rate`, `momentum` and batches of `batch_size` rows (in a smaller last batch
        each row moves the coefficients as much as in the others), whatever `solver` is. The first
        call starts as ``solver="sgd"`` does, or from the coefficients of an earlier `fit` (columns
        of sparse X that fill in later calls start from 0);
        every other goes on where the last one ended, the velocity included, also after pickling.
        The penalty is that of all rows that have been seen, lambda = 1 / (C times the sum of their
        weights): at the end of a stream it is that of a fit to the whole.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
            Never written to. Later calls convert X to the number type of the first.
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            Labels, or probabilities of the classes in their sorted order; the columns of a frame
            with names are found by them. A batch may lack classes.
        classes : array-like of shape (n_classes,), optional
            All labels that will occur; needed in the first call, unless y is a frame whose columns
            are named by them.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0, by which a row's gradient is multiplied.

        Returns
        -------
        self
            ``coef_`` and ``intercept_`` are new arrays; ``n_iter_`` counts the calls, ``gap_`` is
            infinite and ``converged_`` False, as nothing is certified.

        Raises
        ------
        ValueError
            If an argument cannot be used: as for `fit`, or `classes` is missing or differs from
            that of the first call; if the steps diverge (the coefficients then remain what they
            were).
        AttributeError
            With standardize=True or class_weight="balanced", which need all rows, and with
            l1_ratio > 0.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> from fastsoftmax.datasets import load_fashion_mnist_sample
        >>> X, y = load_fashion_mnist_sample("train")
        >>> model = FastSoftmax(input_scale=1 / 255, random_state=0)
        >>> for start in range(0, 1000, 250):
        ...     rows = slice(start, start + 250)
        ...     model = model.partial_fit(X[rows], y[rows], classes=range(10))
        >>> model.n_iter_.tolist(), model.score(X, y) > 0.5
        ([4], True)
        """
        self._validate_params()
        with nothing_set_without_coefficients(self):
            fits.step_over(self, X, y, classes, sample_weight)
        return self
