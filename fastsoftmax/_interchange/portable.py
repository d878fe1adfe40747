"""How fitted estimators travel: to files and back, and to other packages."""

import inspect
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._estimator.decisions import DecidingEstimator
from fastsoftmax._estimator.fitted import set_learnt
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._interchange import export
from fastsoftmax._interchange.coefficients import coefficients_of
from fastsoftmax._interchange.model_file import File, SavedModel, read_model, write_model
from fastsoftmax.floating_point import own_arithmetic

E = TypeVar("E", bound=FitParameters)


class PortableEstimator(DecidingEstimator):
    """The methods of a fitted model that turn it into files and models of other packages."""

    @own_arithmetic
    def save(self, file: File) -> None:
        """Write the fitted model to a file that is safe to read: it holds numbers, no code.

        Parameters
        ----------
        file : path-like or binary file object
            The name is taken as it is; ".npz" is usual. A file that exists is replaced at once,
            when the new one is complete.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError
            If the labels are neither str, int, bool, float nor objects of these types (dates, for
            example), or a parameter holds anything else.
        ValueError
            If coefficients are not finite, or the parts of the model do not fit together.
        OSError
            If the file cannot be written; one that existed then remains as it was.

        Warns
        -----
        UserWarning
            If `random_state` is a generator, which is left out: the loaded model has None.

        See Also
        --------
        FastSoftmax.load : Read it.

        Notes
        -----
        The file has the parameters, ``classes_``, ``coef_``, ``intercept_``, ``n_features_in_``,
        ``feature_names_in_``, ``n_iter_``, ``gap_``, ``converged_``, ``objective_``,
        ``temperature_`` where there is one, and what `partial_fit` needs to go on, but not
        ``history_``. It is a zip archive of uncompressed arrays of numpy's format with a header in
        JSON, and the same model gives the same bytes.

        Of a `FastSoftmaxCV` it has the model that was chosen, as a `FastSoftmax` with ``C=C_``.

        Examples
        --------
        >>> import io
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
        >>> file = io.BytesIO()
        >>> clf.save(file)
        >>> FastSoftmax.load(file).predict([[4.0]]).tolist()
        ['b']
        """
        fitted = coefficients_of(self)
        names = getattr(self, "feature_names_in_", None)
        own: dict[str, Any] = self.__dict__
        chosen = "C_" in own
        n_iter = None if chosen else own.get("n_iter_")
        write_model(
            file,
            SavedModel(
                estimator=type(self).__name__,
                parameters=self._parameters(),
                classes=fitted.classes,
                coef=fitted.coef,
                intercept=fitted.intercept,
                n_features_in=int(own["n_features_in_"]),
                feature_names_in=None if names is None else [str(name) for name in names],
                n_iter=None if n_iter is None else int(np.max(n_iter)),
                gap=_float_or_none(own.get("gap_")),
                converged=None if "converged_" not in own else bool(own["converged_"]),
                objective=_float_or_none(own.get("objective_")),
                temperature=_float_or_none(own.get("temperature_")),
                weight_seen=_float_or_none(own.get("_weight_seen")),
                velocity=own.get("_velocity"),
            ),
        )

    @own_arithmetic
    def to_sklearn(self) -> LogisticRegression:
        """Return the fitted model as a `sklearn.linear_model.LogisticRegression`.

        Returns
        -------
        LogisticRegression
            Fitted: its predictions, probabilities and logits are those of this model, to rounding.
            It has copies of ``coef_``, ``intercept_`` and ``classes_``, the names of the features,
            and the parameters that both have but `n_jobs`, which has no effect there; of solvers
            that are not there it has "lbfgs". Scaling (`standardize`, `input_scale`) is part of
            the coefficients; a new fit of it would lack that, and `label_smoothing`.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ValueError
            If coefficients are not finite, or the parts of the model do not fit together.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax(C=2.0).fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
        >>> other = clf.to_sklearn()
        >>> other, other.predict([[4.0]]).tolist()
        (LogisticRegression(C=2.0, max_iter=1000), ['b'])
        """
        check_is_fitted(self)
        return export.to_sklearn(self, self._parameters()["C"])

    @own_arithmetic
    def to_torch(self) -> Any:
        """Return the fitted model as a `torch.nn.Linear`, whose outputs are the logits.

        Returns
        -------
        torch.nn.Linear
            On the CPU, with copies of the coefficients in their number type and an output for each
            of ``classes_``: ``softmax(layer(X), dim=1)`` is `predict_proba`, and
            ``CrossEntropyLoss`` takes the outputs as they are. For two classes they are
            (0, log-odds of ``classes_[1]``).

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ImportError
            If torch is not installed.
        ValueError
            If coefficients are not finite, or the parts of the model do not fit together.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [2.0]], ["a", "b", "c"])
        >>> clf.to_torch()  # doctest: +SKIP
        Linear(in_features=1, out_features=3, bias=True)
        """
        return export.to_torch(self)

    @own_arithmetic
    def to_onnx(self, *, dtype: DTypeLike = np.float32) -> Any:
        """Return the fitted model as an ONNX model, for onnxruntime and other runtimes.

        Parameters
        ----------
        dtype : {float32, float64}, default=float32
            Number type of the features it takes and of the probabilities it returns. As in
            `predict_proba`, float64 is computed in where it or ``coef_`` is.

        Returns
        -------
        onnx.ModelProto
            Of opset 13, named as skl2onnx does: input "X" (n_rows, n_features); outputs "label"
            (n_rows,), as `predict` returns them (integers as int64), and "probabilities"
            (n_rows, n_classes), a tensor, as `predict_proba`. X is not checked to be finite.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ImportError
            If onnx is not installed (``pip install 'fastsoftmax[onnx]'``).
        ValueError
            If dtype is neither of the two, labels are not all str, bool, integers of 64 bits or
            floats, coefficients are not finite, or the parts of the model do not fit together.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [2.0]], ["a", "b", "c"])
        >>> model = clf.to_onnx()  # doctest: +SKIP
        >>> with open("model.onnx", "wb") as file:  # doctest: +SKIP
        ...     file.write(model.SerializeToString())
        """
        return export.to_onnx(self, dtype)

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of the `FastSoftmax` that this model is, or has chosen."""
        own: dict[str, Any] = self.get_params(deep=False)
        if "C_" not in vars(self):
            return own
        shared = inspect.signature(FitParameters).parameters
        return {k: v for k, v in own.items() if k in shared} | {"C": vars(self)["C_"]}


def loaded(cls: type[E], file: File) -> E:
    """Return an estimator of a class from a file that `save` has written."""
    saved = read_model(file)
    unknown = sorted(saved.parameters.keys() - inspect.signature(cls).parameters.keys())
    if unknown:
        raise ValueError(
            f"the file holds a {saved.estimator[:80]!r} with parameters that {cls.__name__} "
            f"lacks: {', '.join(unknown)[:200]}"
        )
    estimator = cls(**saved.parameters)
    estimator._validate_params()
    names = saved.feature_names_in
    learnt: dict[str, Any] = {
        "classes": saved.classes,
        "coef": saved.coef,
        "intercept": saved.intercept,
        "n_features_in": saved.n_features_in,
        "feature_names_in": None if names is None else np.array(names, dtype=object),
        "n_iter": saved.n_iter,
        "gap": _float_or_none(saved.gap),
        "converged": saved.converged,
        "objective": _float_or_none(saved.objective),
        "temperature": _float_or_none(saved.temperature),
    }
    # what the saved estimator lacked is left out
    set_learnt(estimator, **{name: value for name, value in learnt.items() if value is not None})
    if saved.weight_seen is not None:
        estimator._weight_seen = float(saved.weight_seen)
    if saved.velocity is not None:
        estimator._velocity = saved.velocity
    return estimator


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)
