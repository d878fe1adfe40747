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
from fastsoftmax._estimator.fitted import all_or_nothing, nothing_set_without_coefficients
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
        F(W, b) = \frac{1}{S} \sum_i s_i \,\mathrm{CE}(W x_i + b,\, y_i) \\
        {} + \frac{1}{C S} \left(\frac{1 - r}{2} \|V\|^2 + r \|V\|_1\right), \\
        \mathrm{CE}(o, y) = \log \sum_k e^{o_k} - o_y, \quad S = \sum_i s_i,

    where r is `l1_ratio`, and V = W unless the features are scaled (`standardize`,
    `input_scale`). The intercept b is not penalised. This is the objective of scikit-learn's
    `LogisticRegression`, divided by C times the sum of the weights. So `C`, `coef_` and
    `intercept_` mean the same there and here.

    Conventions: two classes have one row of coefficients. It gives the log-odds of
    ``classes_[1]``, and has the penalty of scikit-learn's binary model. Losses are in nats
    (natural logarithms). If all weights and 1 / C are multiplied by the same number, the fit does
    not change.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, > 0. `numpy.inf` means no penalty (see Notes).
    l1_ratio : float or None, default=0.0
        In [0, 1]: the share of the 1-norm in the penalty. The 1-norm makes coefficients exactly 0.
        0 (or None) means the squared norm alone, and 1 means the 1-norm alone (lasso). A number
        between them is an elastic net.
    fit_intercept : bool, default=True
        Whether the logits have an intercept.
    class_weight : dict or "balanced", default=None
        Weights of the classes, which are multiplied with `sample_weight`. "balanced" gives every
        class the same sum of weights.
    label_smoothing : float, default=0.0
        In [0, 1): the target of a row is (1 - label_smoothing) y + label_smoothing / n_classes
        instead of y, which has 1 for the label and 0 for other classes.
    standardize : bool, default=False
        Fit to features that are scaled to mean 0 and variance 1, as `StandardScaler` does; means
        and variances are weighted by the row weights. The penalty is on the coefficients V of the
        scaled features. ``coef_`` is V divided by the standard deviations, so it belongs to the
        unscaled X. X is not copied, and a sparse X stays sparse.
    input_scale : float, default=1.0
        Fit to ``input_scale * X``, such as 1 / 255 for bytes. The penalty is on the coefficients V
        of the scaled features. ``coef_`` is V times input_scale, so it belongs to the unscaled X.
        It has no effect if `standardize` is True.
    solver : {"auto", "lbfgs", "newton-cholesky", "owlqn", "sgd"}, default="auto"
        "lbfgs" and "newton-cholesky" use all rows in every iteration and stop at a certified
        optimum. "lbfgs" is preconditioned and is for all but small problems. "newton-cholesky"
        needs a square matrix of all coefficients; if rounding stops it, "lbfgs" continues.
        "owlqn" (orthant-wise quasi-Newton) is certified too. It is the only solver for a 1-norm
        (`l1_ratio` > 0); without a 1-norm it is the same as "lbfgs".
        "auto" chooses "owlqn" with a 1-norm, otherwise one of the first two by the size of the
        problem.
        "sgd" is the mini-batch gradient descent of textbooks: W from N(0, 0.01) (standard
        deviation 0.01), b = 0, rows shuffled in each epoch, a constant learning rate, `max_iter`
        epochs.
    tol : float, default=1e-4
        The full-batch solvers stop when (F - min F) / F is proven to be at most `tol`.
        ("newton-cholesky" stops one step later, because each of its last steps doubles the number
        of correct digits.)
    max_iter : int, default=1000
        The largest number of iterations; for "sgd" the number of epochs.
    max_time : float or None, default=None
        Seconds after which a fit stops, with its last coefficients and a warning. The time is
        checked between iterations (or epochs), so a fit may take one iteration longer. None means
        no limit.
    batch_size : int, default=256
        For "sgd" and `partial_fit`: the number of rows in a mini-batch.
    learning_rate : float, default=0.1
        For "sgd" and `partial_fit`: the factor of the gradient in a step.
    momentum : float, default=0.0
        For "sgd" and `partial_fit`, in [0, 1): the share of the previous step that is added to each
        step.
    early_stopping : bool, default=False
        Stop when the validation loss (mean cross-entropy) has not fallen by more than `min_delta`
        for `n_iter_no_change` iterations (or epochs), and keep the coefficients of the iteration
        with the lowest validation loss. The validation set is the last set of `eval_set`; without
        an `eval_set`, rows are held out. This works with every solver. A full-batch solver may
        reach `tol` first.
    validation_fraction : float, default=0.1
        In (0, 1): the share of rows (of the sum of `sample_weight`) that `early_stopping` holds out
        if there is no `eval_set`, of each class in proportion, and never all rows of a class. The
        values of a row and `random_state` decide, and its position does not. Equal rows of a class
        stay together, so no row is used for both fitting and validation; a row of weight 2 counts
        like two copies. The rows that are held out are copied, and are weighted by `sample_weight`
        and `class_weight`. The fit uses the other rows alone.
    n_iter_no_change : int, default=5
        For `early_stopping`: the number of iterations without a lower validation loss after which
        a fit stops.
    min_delta : float, default=1e-4
        For `early_stopping`, >= 0: a validation loss counts as lower if it is lower by more than
        this, in nats.
    warm_start : bool, default=False
        Start from the coefficients of the previous fit, if their shape fits. The full-batch
        solvers do so only if the objective is lower there than with coefficients of 0.
    random_state : int, RandomState or None, default=None
        Determines the initial weights and the shuffling of "sgd", and the rows that
        `early_stopping` holds out. Nothing else is random.
    n_jobs : int or None, default=None
        The number of threads. None means as many as OMP_NUM_THREADS and threadpoolctl allow, and
        at most the CPUs that affinity and the quota of a container grant. -1 means all these CPUs,
        -2 all but one. The result has the same bits for any number.
    verbose : int, default=0
        With 1 or more, a line is printed for each iteration.
    backend : {"auto", "native", "numpy"}, default="auto"
        "native" means the compiled kernels, "numpy" the same functions in numpy, which are slow.
        "auto" uses the compiled kernels if they are there, otherwise numpy, with a warning.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        W. It is float64 if X is float64 or was converted to it, otherwise float32. If empty columns
        were left out (see Notes), the array is made when it is first read.
    intercept_ : ndarray of shape (n_classes,), or (1,)
        b. With ``fit_intercept=False`` it is 0, or with `standardize` the number that comes from
        centring the features.
    n_iter_ : ndarray of shape (1,), int32
        The number of iterations, or of epochs.
    gap_ : float
        A proven upper bound on (F - min F) / F at the result. It is at most 1; a value of 1 means
        that nothing could be certified. It is infinite if C is infinite.
    converged_ : bool
        Whether ``gap_ <= tol``; if C is infinite, whether a finite optimum was found (see Notes).
        After early stopping it is mostly False, without a warning.
    best_iteration_ : int
        With early_stopping: the number of the iteration with the lowest validation loss, whose
        coefficients `coef_` holds. The first iteration is 1. It is 0 if the model that `warm_start`
        began with was best, or if there was no iteration.
    best_score_ : float
        With early_stopping: the lowest validation loss.
    objective_ : float
        F at the result.
    solver_ : str
        The solver that ran: "lbfgs", "newton-cholesky", "owlqn" or "sgd".
    history_ : dict of lists
        A value for each iteration: "loss" (mean cross-entropy), "accuracy", "objective", "gap",
        "seconds", and with `eval_set` "eval_loss" and "eval_accuracy" (tuples with a value for each
        set). For "sgd", loss and accuracy are running means of the epoch, and objective and gap are
        None. If early stopping holds rows out, these rows are the only set.
    temperature_ : float
        The number that all logits are divided by. It is 1 after a fit; see `calibrate_temperature`.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, if X has any.

    Notes
    -----
    **Dense X** of float64, float32, float16, uint8, int8 or bool is read in place, in any memory
    order, memory maps included. It is never copied as a whole: float16, uint8, int8 and bool are
    converted to float32 a few rows at a time. Contiguous rows (C order) are read fastest. In
    Fortran order a pass takes about twice as long, and the shuffled rows of "sgd" far longer. X is
    copied, in its own type, if it has the other byte order or is not aligned. All other types are
    converted to float64.

    **Frames** keep the type of their columns. Arrays of PyTorch, JAX and others in the memory of
    the CPU are read in place, whether or not scikit-learn dispatches by array namespace. Results
    are numpy arrays.

    **Sparse X** is read as CSR of float64 or float32 (other formats are converted). Indices have
    32 or 64 bits, in any order, and duplicates are added up. Other number types become float32, or
    float64 if float32 would round an integer. Fits also need the matrix by columns, and make this
    copy once. If there are 1024 columns or more, and at least a fifth of them are empty, a fit
    leaves the empty columns out. Their coefficients are 0 (unless `warm_start` has others), with
    "sgd" from the start.

    **Rounding.** float32 data is computed in float32. Two kinds of fits continue with blocks of
    rows that are centred and converted to float64, which is slower but makes no copy of X: fits
    that rounding stops before `tol` (at a gap around 1e-6, or above if features are large), and
    fits to float64 features so far from 0 that their differences are lost (such as seconds around
    1e9). ``coef_`` remains float32. If its rounding keeps the gap above `tol`, a warning says so.

    **Without a penalty** (``C=inf``) no bound on the distance from the optimum is known, and `tol`
    has no effect. A fit has converged when half the squared Newton decrement (for L-BFGS its
    estimate, four times in a row) is at most 1e-12 F, as far as rounding allows. If the classes are
    separable, completely or in part, there is no finite optimum. The fit then stops when the mean
    loss is 1e-6 log(n_classes), or when steps that change logits no longer change F. Its
    coefficients are finite, ``converged_`` is False, and there is one ConvergenceWarning.

    If features depend on each other (all levels of a one-hot code beside an intercept, a constant
    column), many coefficients give the same predictions. The result is the one with the smallest
    norm, for features as `input_scale` and `standardize` scale them. The number type of X decides
    which features count as dependent. With more than 2048 features only constant columns get a
    coefficient of 0, if there is an intercept.

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
            Finite numbers; never written to. Files are the path of a ``.npy`` file or of a folder
            of them, or a list of paths, memory maps or arrays; they are read part by part in every
            pass. Batches, without y, are each (X, y) or (X, y, sample_weight), and can be read
            again in every pass: a list, a source of `fastsoftmax.data_sources` (files, Parquet), a
            `fastsoftmax.datasets.iter_batches`, a data loader, or a callable that returns an
            iterator (see Notes).
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            Labels of any type, none missing; at least two classes. Or probabilities of the classes:
            an array, a frame such as ``pandas.get_dummies(labels)``, or a sparse matrix, which is
            made dense. They are >= 0, each row has the sum 1, and every class has a positive
            probability in some row. A row of probabilities p_k counts like one row of each class k
            with weight p_k, also for `class_weight`. If X is files, y may be a list of paths or
            arrays too. y is None only if X is batches.
        sample_weight : array-like of shape (n_rows,), optional
            Weights >= 0. A row of weight 2 counts like two copies of the row, a row of weight 0 as
            removed. (A class whose rows all have weight 0 is removed too.)
        classes : array-like of shape (n_classes,), optional
            If y holds probabilities: the label of each column. The default is the names of the
            columns of a frame, otherwise 0, 1, ... ``classes_`` is sorted in any case, and the
            columns of all results are in its order. If X is batches: all labels that occur. Then
            no pass is needed to find them.
        eval_set : list of (X, y), optional
            Sets of rows. Loss and accuracy on them are measured after every iteration, for
            `history_`, `verbose` and callbacks; `early_stopping` uses the last set. y holds labels,
            or probabilities of the classes in the order of ``classes_`` (columns of a frame are
            matched by their names).
        X_val, y_val : array-like, optional
            One evaluation set, the same as ``eval_set=[(X_val, y_val)]``. A `Pipeline` with
            ``transform_input=["X_val"]`` transforms it as it does X (see Notes).
        callbacks : iterable of callable, optional
            Each is called with a `fastsoftmax.monitor.FitState` after every iteration. If it
            returns True, the fit ends. If it has a method `on_fit_end`, this is called without
            arguments when the fit has ended, for whatever reason.
        checkpoint : path, optional
            A file for the state of the fit. It is written every second and at the end, for
            whatever reason the fit ends, and is always complete. It remains after the fit.
        resume : path, optional
            A checkpoint to continue from, of the same data and parameters (`tol`, `max_iter`,
            `max_time`, `n_jobs`, `verbose`, `eval_set` and callbacks may differ). `warm_start` then
            has no effect. `max_iter` counts the iterations of all fits together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument or parameter has a value that cannot be used: NaN or infinite X, lengths
            that differ, one class, negative weights, a label of eval_set that y lacks. An error in
            a batch names its number. Also if features are so large that no finite coefficients are
            found, and if a checkpoint is damaged or belongs to another fit; the attributes are then
            unchanged.
        FileNotFoundError
            If `resume` names no file.
        TypeError
            If an argument is of a type that cannot be used, such as a generator of batches, which
            cannot be read twice.

        Warns
        -----
        ConvergenceWarning
            If a full-batch solver stopped before `tol` (the message names the gap that it reached),
            or if "sgd" ended at a loss above that of a model that ignores the features. There is no
            warning if `early_stopping` or a callback ended the fit.
        UserWarning
            If a checkpoint could not be written (a full disk); the fit continues.

        Notes
        -----
        The sum of a row of probabilities may be off by 1e-5, by 1e-4 in float32 and by 1e-2 in
        float16; rows are divided by their sums in float64.

        In a pipeline a validation set needs metadata routing:
        ``sklearn.set_config(enable_metadata_routing=True)``, and
        ``make_pipeline(StandardScaler(), FastSoftmax().set_fit_request(X_val=True, y_val=True),
        transform_input=["X_val"])``. `eval_set` is not transformed there.

        After Ctrl-C the model keeps the coefficients of the last iteration (with `early_stopping`
        the best ones, with batches those of the last step), ``converged_`` is False, and
        KeyboardInterrupt is raised. Any other exception, such as a callback's, is raised in the
        same way. An exception before the first coefficients, and a MemoryError before the end of
        the first iteration, leave the attributes as they were (but "sgd" keeps its steps over
        batches).

        Batches may lack classes, and empty batches are skipped. All batches must have the features
        of the first one, and are converted to its number type. The full-batch solvers read all
        batches in every pass; a thread reads ahead, and only a few batches are in memory. The
        result is certified. Its last bits depend on how the rows are cut into batches.

        "sgd" reads the batches in their order. Each batch is one step, or several steps of
        `batch_size` rows if it has more. A step uses the mean gradient of its rows. A first pass
        over labels and weights finds the classes and the sum of the weights. If `classes` is given
        (and class_weight is not "balanced"), there is no such pass: in the first epoch the penalty
        and the mean weight are then those of the rows so far, as in `partial_fit`. Nothing is
        certified: ``gap_`` is infinite and ``objective_`` NaN. `standardize` needs all rows at once
        and is refused.
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

        For any `solver`, they use `learning_rate`, `momentum` and batches of `batch_size` rows.
        (In a smaller last batch each row moves the coefficients as much as in the others.) The
        first call starts as ``solver="sgd"`` does, or from the coefficients of an earlier `fit`.
        Columns of sparse X that were empty so far start from 0. Every other call continues where
        the last one ended, with its velocity, also after pickling. The penalty is that of a fit to
        all rows seen so far, lambda = 1 / (C times the sum of their weights).

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
            Never written to. Later calls convert X to the number type of the first.
        y : array-like of shape (n_rows,), or (n_rows, n_classes)
            Labels, or probabilities of the classes in their sorted order (columns of a frame are
            matched by their names). A batch may lack classes.
        classes : array-like of shape (n_classes,), optional
            All labels that will occur. The first call needs them, unless y is a frame whose columns
            have the labels as their names.
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
            If an argument cannot be used, as for `fit`; if `classes` is missing, or differs from
            that of the first call; if the steps diverge (the coefficients are then unchanged).
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
        with all_or_nothing(self):
            fits.step_over(self, X, y, classes, sample_weight)
        return self
