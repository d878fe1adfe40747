"""How models travel: pickles that name their version, model files, and models of other packages."""

import inspect
import re
import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._interchange import export
from fastsoftmax._interchange.fitted import fitted_of
from fastsoftmax._interchange.model_file import File, SavedModel, read_model, write_model
from fastsoftmax._version import __version__


class ExportMixin:
    """What every fitted model can become."""

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle, joblib, skops and copies, with the version."""
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        return {**state, "_fastsoftmax_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, with a warning if its version may mean something else by it."""
        name = type(self).__name__
        if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
            raise ValueError(
                f"the state of a {name} must be a dict of its attributes, "
                f"got {type(state).__name__}: what it was read from is damaged"
            )
        state = dict(state)
        version = state.pop("_fastsoftmax_version", None)
        if version != __version__:
            if not _is_compatible(version):
                saved_by = "an unnamed version" if version is None else f"version {version}"
                warnings.warn(
                    f"this {name} was saved by {saved_by} of fastsoftmax and is read by "
                    f"{__version__}: its parameters or predictions may differ. Save it again, or "
                    "use save(path) and load(path), whose files every later version reads.",
                    UserWarning,
                    stacklevel=2,
                )
            parameters = inspect.signature(type(self).__init__).parameters
            for parameter in parameters.values():  # those that the other version lacked
                if parameter.default is not inspect.Parameter.empty:
                    state.setdefault(parameter.name, parameter.default)
        super().__setstate__(state)  # type: ignore[misc]

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
        fitted = fitted_of(self)
        names = getattr(self, "feature_names_in_", None)
        own: dict[str, Any] = vars(self)
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
        own: dict[str, Any] = self.get_params(deep=False)  # type: ignore[attr-defined]
        if "C_" not in vars(self):
            return own
        from fastsoftmax.estimator import FastSoftmax

        shared = inspect.signature(FastSoftmax).parameters
        return {k: v for k, v in own.items() if k in shared} | {"C": vars(self)["C_"]}


class InterchangeMixin(ExportMixin):
    """What a model can become, and what can become one."""

    @classmethod
    def load(cls, file: File) -> Self:
        """Read a model that `save` has written. Nothing in the file is executed or unpickled.

        Parameters
        ----------
        file : path-like or seekable binary file object

        Returns
        -------
        FastSoftmax
            Fitted, of the class that this is called on: the same predictions to the last bit.

        Raises
        ------
        ValueError
            If the file is not a model, or is damaged in any way: what it declares is checked
            before memory is taken for it, and all of it before it is used. Also if a later version
            has written it in a format that this one does not know.
        OSError
            If there is no such file, or it cannot be read.
        TypeError
            If file is neither a path nor a seekable binary file.

        See Also
        --------
        FastSoftmax.save : Write it, with an example.
        """
        saved = read_model(file)
        known = inspect.signature(cls).parameters
        unknown = sorted(saved.parameters.keys() - known.keys())
        if unknown:
            raise ValueError(
                f"the file holds a {saved.estimator[:80]!r} with parameters that {cls.__name__} "
                f"lacks: {', '.join(unknown)[:200]}"
            )
        model = cls(**saved.parameters)
        model._validate_params()  # type: ignore[attr-defined]
        vars(model).update(_attributes_of(saved))
        return model

    @classmethod
    def from_sklearn(cls, clf: LogisticRegression) -> Self:
        """Return a fitted model with the coefficients of scikit-learn's.

        Parameters
        ----------
        clf : LogisticRegression or LogisticRegressionCV
            Fitted, and not one-vs-rest with more than two classes.

        Returns
        -------
        FastSoftmax
            Its predictions, probabilities and logits are those of clf, to rounding, and so are the
            parameters that both have; C is the chosen one of `LogisticRegressionCV`, and infinite
            for ``penalty=None``; `solver` is "auto" for a solver that is not here. Nothing is
            certified: ``gap_`` is infinite, ``objective_`` NaN and ``converged_`` False. (With
            multi_class="multinomial", which scikit-learn had until 1.7, a model of two classes has
            half the log-odds as its logits: here they are twice as large, the probabilities
            equal.)

        Raises
        ------
        TypeError
            If clf is another model.
        NotFittedError
            If it is not fitted.
        ValueError
            If it is one-vs-rest, or its coefficients are not finite.

        Examples
        --------
        >>> from sklearn.linear_model import LogisticRegression
        >>> from fastsoftmax import FastSoftmax
        >>> other = LogisticRegression(C=2.0).fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
        >>> clf = FastSoftmax.from_sklearn(other)
        >>> clf.C, clf.predict([[4.0]]).tolist()
        (2.0, ['b'])
        """
        model: Self = export.from_sklearn(cls, clf)
        return model


def _attributes_of(saved: SavedModel) -> dict[str, Any]:
    """Return the learned attributes of a model that was read; what it lacked is left out."""
    names = saved.feature_names_in
    attributes = {
        "classes_": saved.classes,
        "coef_": saved.coef,
        "intercept_": saved.intercept,
        "n_features_in_": saved.n_features_in,
        "feature_names_in_": None if names is None else np.array(names, dtype=object),
        "n_iter_": None if saved.n_iter is None else np.array([saved.n_iter], dtype=np.int32),
        "gap_": _float_or_none(saved.gap),
        "converged_": saved.converged,
        "objective_": _float_or_none(saved.objective),
        "temperature_": _float_or_none(saved.temperature),
        "_weight_seen": _float_or_none(saved.weight_seen),
        "_velocity": saved.velocity,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _is_compatible(version: Any) -> bool:
    """Whether what a version has pickled means the same here, by semantic versioning."""
    saved, here = (
        re.match(r"(\d+)\.(\d+)", text) if isinstance(text, str) else None
        for text in (version, __version__)
    )
    if saved is None or here is None:
        return False
    (major, minor), (our_major, our_minor) = (tuple(map(int, m.groups())) for m in (saved, here))
    if major != our_major:
        return False
    return minor == our_minor or (major > 0 and minor < our_minor)
