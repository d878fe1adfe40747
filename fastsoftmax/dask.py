"""Fits to rows on a Dask cluster: `DaskFastSoftmax`. It needs the extra `dask`.

What its methods do is in `_dask`.
"""

import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

try:
    import distributed
except ImportError as error:
    raise ImportError(
        "fastsoftmax.dask needs Dask and its distributed scheduler: "
        "pip install 'dask[dataframe]' distributed"
    ) from error

from fastsoftmax._dask import fits, predictions
from fastsoftmax._dask.partitions import is_lazy, partitions
from fastsoftmax._dask.predictions import Outcome
from fastsoftmax._dask.remote import client_of
from fastsoftmax._estimator import fitting
from fastsoftmax._estimator.fitted import nothing_set_without_coefficients, stored_coef
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.prediction import Metrics
from fastsoftmax._estimator.sklearn_callbacks import watched
from fastsoftmax.archives import FilePath
from fastsoftmax.estimator import FastSoftmax
from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.monitor import Callback

__all__ = ["DaskFastSoftmax"]


def _with_all_parameters(init: Any) -> Any:
    """Give a constructor the signature of `FastSoftmax`'s, and client."""
    given = inspect.signature(FitParameters.__init__)
    client = inspect.Parameter("client", inspect.Parameter.KEYWORD_ONLY, default=None)
    init.__signature__ = given.replace(parameters=[*given.parameters.values(), client])
    return init


class DaskFastSoftmax(FastSoftmax):
    """`FastSoftmax` for rows on a Dask cluster: the same fit, exact and certified.

    The solver runs in the calling process. The rows stay on the workers. In every pass each worker
    gets the coefficients and returns the sums of its partitions, which are added in an order that
    depends only on their number. So the result has the same bits as that of a `FastSoftmax` fitted
    to a list of the same partitions. It does not depend on the number of workers, or on whether
    some of them die.

    Parameters
    ----------
    C : float, default=1.0
        As for `FastSoftmax`.
    client : dask.distributed.Client, default=None
        The client of the cluster. None means the current client. It is left out of pickles.
    **parameters
        Those of `FastSoftmax`, except that solver="sgd" is not available. `n_jobs` is the largest
        number of threads for each worker. None means the threads that Dask has given it.

    Attributes
    ----------
    classes_, coef_, intercept_, gap_, converged_, history_, ...
        Those of `FastSoftmax`. All of its methods work, with rows in memory as well.

    See Also
    --------
    fastsoftmax.FastSoftmax : The parameters, the formula and the attributes.

    Notes
    -----
    If the cluster has no worker, the fit waits for one. The setting
    ``fastsoftmax.no-workers-timeout`` of `dask.config`, by default "60 s", limits the wait. Then a
    `TimeoutError` ends the fit.

    Only some rows of a large problem, 32 MB at most, are sent to the calling process. All rows of a
    small problem are sent there. A problem is small if ``solver="auto"`` chooses Newton's method
    for it (up to 350 coefficients, and 12 MB of rows), or if it has up to 2048 rows and more
    features than rows.

    Examples
    --------
    >>> import dask.array as da
    >>> from dask.distributed import Client
    >>> from fastsoftmax.dask import DaskFastSoftmax
    >>> from fastsoftmax.datasets import load_fashion_mnist_sample
    >>> X, y = load_fashion_mnist_sample("train")
    >>> client = Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None)
    >>> rows = da.from_array(X, chunks=(250, 784))
    >>> clf = DaskFastSoftmax(C=0.01, input_scale=1 / 255).fit(rows, y)
    >>> clf.converged_, clf.predict_proba(rows).shape, clf.score(rows, y) > 0.8
    (True, (1000, 10), True)
    >>> clf.to_local()
    FastSoftmax(C=0.01, input_scale=0.00392156862745098)
    >>> client.close()
    """

    @_with_all_parameters
    def __init__(
        self, C: float = 1.0, *, client: distributed.Client | None = None, **parameters: Any
    ) -> None:
        super().__init__(C, **parameters)
        self.client = client

    # ---- fits ----

    @own_arithmetic
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        classes: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        X_val: Any = None,
        y_val: Any = None,
        callbacks: Iterable[Callback] | None = None,
        checkpoint: FilePath | None = None,
        resume: FilePath | None = None,
    ) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_rows, n_features), or list
            Rows, whose blocks are dense, of any number type that `FastSoftmax` takes, or sparse
            matrices. Or a list of partitions: delayed objects or futures of (X, y) or
            (X, y, sample_weight), or tuples of such objects. Dask computes them once, and the rows
            stay on the workers until the fit ends.
        y : dask.array.Array, series or frame, or array-like, of shape (n_rows,), or \
(n_rows, n_classes)
            Labels of any type, or probabilities, as for `FastSoftmax`. If the lengths of the blocks
            of X are not known, y must be cut into the same blocks. None if X is a list.
        sample_weight : the same, of shape (n_rows,), optional
            Weights >= 0.
        classes, eval_set, X_val, y_val, callbacks, checkpoint, resume : optional
            As for `FastSoftmax.fit`. Pairs of `eval_set` are on the cluster, as X and y are, or in
            this process; for a list of partitions without row weights, y is None. Checkpoints are
            files that this process writes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As for `FastSoftmax.fit`. An error in a partition names its number, counted from 0.
        TypeError
            If X is not on a cluster (`FastSoftmax` is for arrays and files).
        TimeoutError
            If there is no worker for the time that the Notes of the class describe.
        RuntimeError
            If the scheduler is gone, or all workers that tried to compute a partition have died.

        Warns
        -----
        ConvergenceWarning
            As for `FastSoftmax.fit`.
        """
        self._validate_params()
        if self.solver == "sgd":
            raise ValueError(
                "solver='sgd' is not available for rows on many workers: use 'auto' or 'lbfgs'"
            )
        watch = fitting.watch_of(eval_set, (X_val, y_val), callbacks, self.max_time)
        watch = fitting.with_checkpoint(self, watch, checkpoint, resume)
        given = fits.Given(client_of(self.client), X, y, sample_weight, classes)

        def run(more: list[Callback]) -> str | None:
            by_all = watch._replace(callbacks=[*watch.callbacks, *more])
            with nothing_set_without_coefficients(self):
                return fits.fit(self, given, by_all)

        complaint = watched(self, run)
        if complaint:
            warnings.warn(complaint, ConvergenceWarning, stacklevel=3)
        return self

    def to_local(self) -> FastSoftmax:
        """Return the fitted model as a `FastSoftmax`, which needs no cluster.

        Returns
        -------
        FastSoftmax
            With the same parameters and attributes.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self)
        state = self.__getstate__()
        del state["client"]
        local = FastSoftmax()
        local.__setstate__(state)
        return local

    # ---- predictions ----

    def decision_function(self, X: Any) -> Any:
        """Logits of rows, as for `FastSoftmax`, computed lazily.

        Parameters
        ----------
        X : dask.array.Array, dask.dataframe.DataFrame, list of delayed rows, or array-like
            A list may hold partitions with labels, as for `fit`; the labels are ignored.

        Returns
        -------
        dask.array.Array, DataFrame or Series, or list of delayed arrays
            Of the kind of X. For a frame it is a frame with its index, whose columns are
            ``classes_``. For rows in this process it is an ndarray, computed at once.

        Raises
        ------
        NotFittedError, ValueError
            As for `FastSoftmax`. A ValueError is raised when the result is computed.
        """
        return self._lazily("decision_function", X)

    def predict(self, X: Any) -> Any:
        """Return the most likely class of each row, as `FastSoftmax` does, computed lazily.

        Parameters and results are as for `decision_function`; for a frame the result is a series.
        """
        return self._lazily("predict", X)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes, computed lazily; see `decision_function`."""
        return self._lazily("predict_proba", X)

    def predict_log_proba(self, X: Any) -> Any:
        """Return logarithms of the probabilities, computed lazily; see `decision_function`."""
        return self._lazily("predict_log_proba", X)

    def _lazily(self, method: str, X: Any) -> Any:
        local = self.to_local()
        if not is_lazy(X):
            return getattr(local, method)(X)
        stored = getattr(X, "dtype", np.dtype(np.float64))
        double = np.float64 in (stored, stored_coef(self).dtype)
        real, columns = np.float64 if double else np.float32, self.classes_.tolist()
        if method == "decision_function" and len(columns) == 2:
            columns = None
        outcome = Outcome(method, real, columns)
        if method == "predict":
            outcome = Outcome(method, self.classes_.dtype, None)
        return predictions.predicted(local, X, outcome)

    def evaluate(self, X: Any, y: Any = None, sample_weight: Any = None) -> Metrics:
        """Mean log-loss and accuracy, computed at once on the workers.

        Parameters are as for `fit`. Rows that are not on a cluster are evaluated in this process.
        """
        return Metrics(*self._means("evaluate", X, y, sample_weight).tolist())

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy, computed at once on the workers; see `evaluate`."""
        return float(self._means("score", X, y, sample_weight))

    def _means(self, method: str, X: Any, y: Any, sample_weight: Any) -> Any:
        local = self.to_local()
        if not is_lazy(X):
            return np.asarray(getattr(local, method)(X, y, sample_weight))
        batches = partitions(client_of(self.client), X, y, sample_weight)
        return predictions.mean_of(local, batches, method)

    # ---- parameters, copies and pickles ----

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters that files keep."""
        parameters = super()._parameters()
        return {name: value for name, value in parameters.items() if name != "client"}

    def __sklearn_clone__(self) -> Self:
        """Return an estimator of the same parameters and client, which cannot be copied."""
        others = {
            name: clone(value, safe=False)
            for name, value in self.get_params(deep=False).items()
            if name != "client"
        }
        copied: Self = type(self)(**others, client=self.client)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle and copies, without the client."""
        return {**super().__getstate__(), "client": None}
