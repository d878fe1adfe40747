"""How fitted estimators travel: in files, and as models of scikit-learn, PyTorch and ONNX.

Each package but scikit-learn is optional. They are imported where they are needed, and so are
scikit-learn's linear models, which take long to import.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._estimator.decisions import DecidingEstimator
from fastsoftmax._estimator.fitted import (
    FittedEstimator,
    forget_fit,
    set_learnt,
    stored_coef,
)
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._interchange.coefficients import Coefficients
from fastsoftmax._interchange.model_file import (
    NUMBERS,
    File,
    SavedModel,
    check_temperature,
    read_model,
    write_model,
)
from fastsoftmax._version import __version__
from fastsoftmax.arrays import Array, count_logits
from fastsoftmax.columns import InColumns, compacted, whole
from fastsoftmax.floating_point import own_arithmetic

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# Solvers that have the same name and converge to the same optimum here and in scikit-learn.
_COMMON_SOLVERS = ("lbfgs", "newton-cholesky")
# Parameters of one name that the other side has no use for, or that are chosen here.
_NOT_CARRIED = ("solver", "n_jobs", "penalty", "multi_class", "l1_ratio")

_OPSET = 13  # the first whose Softmax is along an axis
_IR_VERSION = 7  # what belongs to it: runtimes refuse newer ones than they know


class PortableEstimator(DecidingEstimator):
    """The methods of a fitted model that turn it into files and models of other packages."""

    @own_arithmetic
    def save(self, file: File) -> None:
        """Write the fitted model to a file that is safe to read: it holds numbers, no code.

        Parameters
        ----------
        file : path-like or binary file object
            No suffix is added to the name; ".npz" is usual. An existing file is replaced when the
            new one is complete.

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
            If the file cannot be written. An existing file is then unchanged.

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
        ``temperature_`` if it was set, and what `partial_fit` needs to continue. It does not hold
        ``history_`` and ``solver_``. Coefficients that are mostly 0 are stored without the zeros,
        and those of `sparsify` in their sparse form. The file is a zip archive of uncompressed
        arrays in numpy's format with a header in JSON. The same model gives the same bytes.

        For a `FastSoftmaxCV` the file holds the chosen model, a `FastSoftmax` with ``C=C_``. `load`
        of either class returns it.

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
        fitted, names = _stored_coefficients_of(self), getattr(self, "feature_names_in_", None)
        if not sparse.issparse(fitted.coef):
            fitted = fitted._replace(coef=compacted(fitted.coef))
        own: dict[str, Any] = self.__dict__
        numbers = {name: own.get(f"{name}_") for name in NUMBERS}
        numbers["weight_seen"] = own.get("_weight_seen")
        if "C_" in own:  # one for each fold and C
            numbers["n_iter"] = None
        write_model(
            file,
            SavedModel(
                type(self).__name__,
                self._parameters(),
                fitted,
                int(own["n_features_in_"]),
                None if names is None else [str(name) for name in names],
                numbers,
                own.get("_velocity"),
                own.get("_velocity_columns"),
            ),
        )

    @own_arithmetic
    def to_sklearn(self) -> LogisticRegression:
        """Return the fitted model as a `sklearn.linear_model.LogisticRegression`.

        Returns
        -------
        LogisticRegression
            A fitted model. Its predictions, probabilities and logits equal those of this model up
            to rounding. It has copies of ``coef_``, ``intercept_`` and ``classes_``, the names of
            the features, and the parameters that both classes have, except `n_jobs`, which has no
            effect there. Its solver is "lbfgs" if scikit-learn does not have this model's solver.
            The coefficients contain the scales of `standardize` and `input_scale`, but a new fit
            would not scale, nor smooth labels.

        Raises
        ------
        NotFittedError, ValueError
            As `save`.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax(C=2.0).fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
        >>> other = clf.to_sklearn()
        >>> other, other.predict([[4.0]]).tolist()
        (LogisticRegression(C=2.0, max_iter=1000), ['b'])
        """
        from sklearn.linear_model import LogisticRegression

        fitted = _tempered_coefficients_of(self)
        ours, names = self.get_params(deep=False), LogisticRegression().get_params()
        parameters = {k: v for k, v in ours.items() if k in names and k not in _NOT_CARRIED}
        solver = ours.get("solver")
        parameters["C"] = self._parameters()["C"]
        parameters["solver"] = solver if solver in _COMMON_SOLVERS else "lbfgs"
        if solver == "sgd":  # its epochs are no iterations
            del parameters["max_iter"]
        l1_ratio = ours.get("l1_ratio")
        if l1_ratio:
            parameters |= {"l1_ratio": l1_ratio, "solver": "saga"}
            if names.get("penalty") == "l2":  # before scikit-learn 1.8 l1_ratio alone had no effect
                parameters["penalty"] = "elasticnet"
        other = LogisticRegression(**parameters)
        other.classes_, other.coef_, other.intercept_ = fitted
        other.n_features_in_ = self.n_features_in_
        if hasattr(self, "n_iter_"):
            other.n_iter_ = np.array([np.max(self.n_iter_)], dtype=np.int32)
        if hasattr(self, "feature_names_in_"):
            other.feature_names_in_ = np.array(self.feature_names_in_)
        return other

    @own_arithmetic
    def to_torch(self) -> Any:
        """Return the fitted model as a `torch.nn.Linear`, whose outputs are the logits.

        Returns
        -------
        torch.nn.Linear
            A layer on the CPU, with copies of the coefficients in their number type and an output
            for each of ``classes_``. ``softmax(layer(X), dim=1)`` equals `predict_proba`, and
            ``CrossEntropyLoss`` takes the outputs directly. For two classes the outputs are 0 and
            the log-odds of ``classes_[1]``.

        Raises
        ------
        ImportError
            If torch is not installed.
        NotFittedError, ValueError
            As `save`.

        Examples
        --------
        >>> from fastsoftmax import FastSoftmax
        >>> clf = FastSoftmax().fit([[0.0], [1.0], [2.0]], ["a", "b", "c"])
        >>> clf.to_torch()  # doctest: +SKIP
        Linear(in_features=1, out_features=3, bias=True)
        """
        fitted = _tempered_coefficients_of(self)
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                "to_torch needs PyTorch, which cannot be imported: pip install torch"
            ) from error
        coef, intercept = map(torch.from_numpy, fitted.of_all_classes)
        # skip_init leaves torch's random numbers alone
        layer = torch.nn.utils.skip_init(
            torch.nn.Linear, coef.shape[1], coef.shape[0], dtype=coef.dtype
        )
        with torch.no_grad():
            layer.weight.copy_(coef)
            layer.bias.copy_(intercept)
        return layer

    @own_arithmetic
    def to_onnx(self, *, dtype: DTypeLike = np.float32) -> Any:
        """Return the fitted model as an ONNX model, for onnxruntime and other runtimes.

        Parameters
        ----------
        dtype : {float32, float64}, default=float32
            Number type of the features and of the probabilities of the ONNX model. As in
            `predict_proba`, it computes in float64 if dtype or ``coef_`` is float64.

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
            If onnx is not installed (``pip install onnx``).
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
        given = np.dtype(dtype)
        if given not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {given}")
        fitted = _tempered_coefficients_of(self)
        labels = _onnx_labels(fitted.classes)
        try:
            from onnx import TensorProto, helper, numpy_helper
        except ImportError as error:
            raise ImportError(
                "to_onnx needs the onnx package, which cannot be imported: pip install onnx"
            ) from error
        coef, intercept = fitted.of_all_classes
        real = np.result_type(given, coef.dtype)
        elements = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}
        if labels.dtype.kind == "U":
            values = [label.encode("utf-8") for label in fitted.classes.tolist()]
            classes = helper.make_tensor("classes", TensorProto.STRING, [len(values)], values)
        else:
            classes = numpy_helper.from_array(labels, "classes")
        nodes = [
            helper.make_node("Cast", ["X"], ["features"], to=elements[real.type]),
            helper.make_node("Gemm", ["features", "coef", "intercept"], ["logits"], transB=1),
            helper.make_node("Softmax", ["logits"], ["softmax"], axis=1),
            helper.make_node("Cast", ["softmax"], ["probabilities"], to=elements[given.type]),
            helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
            helper.make_node("Gather", ["classes", "best"], ["label"], axis=0),
        ]
        declared, stored = helper.make_tensor_value_info, numpy_helper.from_array
        inputs = [declared("X", elements[given.type], ["n_rows", coef.shape[1]])]
        outputs = [
            declared("label", classes.data_type, ["n_rows"]),
            declared("probabilities", elements[given.type], ["n_rows", len(labels)]),
        ]
        learnt = [
            stored(coef.astype(real, copy=False), "coef"),
            stored(intercept.astype(real, copy=False), "intercept"),
            classes,
        ]
        graph = helper.make_graph(nodes, type(self).__name__, inputs, outputs, learnt)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="fastsoftmax",
            producer_version=__version__,
        )

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of the `FastSoftmax` that this model is, or has chosen."""
        own: dict[str, Any] = self.get_params(deep=False)
        if "C_" not in vars(self):
            return own
        shared = inspect.signature(FitParameters).parameters
        return {k: v for k, v in own.items() if k in shared} | {"C": vars(self)["C_"]}


class LoadableEstimator(FitParameters):
    """The methods of `FastSoftmax` that make fitted ones of models from elsewhere."""

    @classmethod
    @own_arithmetic
    def load(cls, file: File) -> Self:
        """Read a model that `save` has written. Nothing in the file is executed or unpickled.

        Parameters
        ----------
        file : path-like or seekable binary file object

        Returns
        -------
        FastSoftmax
            A fitted model of the class that `load` is called on. Its predictions are the same to
            the last bit.

        Raises
        ------
        ValueError
            If the file is not a model, or is damaged. Sizes are checked before memory is allocated,
            and all contents before they are used. Also if a later version has written it in a
            format that this version does not know.
        OSError
            If there is no such file, or it cannot be read.
        TypeError
            If file is neither a path nor a seekable binary file.

        See Also
        --------
        FastSoftmax.save : Write it, with an example.
        """
        saved = read_model(file)
        unknown = sorted(saved.parameters.keys() - inspect.signature(cls).parameters.keys())
        if unknown:
            raise ValueError(
                f"the file holds a {saved.estimator[:80]!r} with parameters that {cls.__name__} "
                f"lacks: {', '.join(unknown)[:200]}"
            )
        estimator = cls(**saved.parameters)
        estimator._validate_params()
        names, numbers = saved.feature_names_in, saved.numbers
        seen = numbers.pop("weight_seen")
        learnt: dict[str, Any] = {
            **saved.coefficients._asdict(),
            **numbers,
            "n_features_in": saved.n_features_in,
            "feature_names_in": None if names is None else np.array(names, dtype=object),
        }
        # what the saved estimator lacked is left out
        set_learnt(estimator, **{k: value for k, value in learnt.items() if value is not None})
        if seen is not None:
            estimator._weight_seen = seen
        if saved.velocity is not None:
            estimator._velocity = saved.velocity
            estimator._velocity_columns = saved.velocity_columns
        return estimator

    @classmethod
    @own_arithmetic
    def from_sklearn(cls, clf: LogisticRegression) -> Self:
        """Return a fitted model with the coefficients of scikit-learn's.

        Parameters
        ----------
        clf : LogisticRegression or LogisticRegressionCV
            Fitted, and not one-vs-rest with more than two classes.

        Returns
        -------
        FastSoftmax
            Its predictions, probabilities and logits equal those of clf up to rounding. It has the
            parameters that both classes have. C is the chosen one of a `LogisticRegressionCV`, and
            infinite for ``penalty=None``. `solver` is "auto" if this class does not have clf's
            solver. Nothing is certified: ``gap_`` is infinite, ``objective_`` NaN and
            ``converged_`` False. (With multi_class="multinomial", which scikit-learn had until 1.7,
            a model of two classes has half the log-odds as its logits: here the logits are twice as
            large, and the probabilities are equal.)

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
        from sklearn.linear_model import LogisticRegression

        if not isinstance(clf, LogisticRegression):
            raise TypeError(
                "clf must be a fitted LogisticRegression or LogisticRegressionCV of scikit-learn, "
                f"got {type(clf).__name__}"
            )
        check_is_fitted(clf)
        classes = np.array(clf.classes_)
        n_logits = count_logits(len(classes))
        strategy = getattr(clf, "multi_class", None)  # before scikit-learn 1.8
        if n_logits > 1 and (strategy == "ovr" or clf.solver == "liblinear"):
            raise ValueError(
                "clf is one-vs-rest: a binary model for each class, whose probabilities are no "
                "softmax of its logits. Fit it with another solver than 'liblinear' and without "
                "multi_class='ovr'."
            )
        coef = np.asarray(whole(clf.coef_))
        real = np.float32 if coef.dtype == np.float32 else np.float64
        # With two classes that strategy takes a softmax of [-o, o]: the log-odds are 2 o.
        factor = 2.0 if n_logits == 1 and strategy == "multinomial" else 1.0
        estimator = cls(**_parameters_for(cls, clf))
        set_learnt(
            estimator,
            classes=classes,
            n_features_in=int(coef.shape[1]),
            coef=np.array(factor * coef, dtype=real, order="C"),
            intercept=np.full(n_logits, factor * np.asarray(clf.intercept_), dtype=real),
            n_iter=np.max(clf.n_iter_),
        )
        forget_fit(estimator)
        _coefficients_of(estimator)  # checks them
        if hasattr(clf, "feature_names_in_"):
            set_learnt(estimator, feature_names_in=np.array(clf.feature_names_in_))
        return estimator


def _parameters_for(cls: type[FitParameters], other: LogisticRegression) -> dict[str, Any]:
    names = inspect.signature(cls).parameters
    theirs = other.get_params(deep=False)
    parameters = {k: v for k, v in theirs.items() if k in names and k not in _NOT_CARRIED}
    if hasattr(other, "C_"):  # LogisticRegressionCV: one for each class, equal but for one-vs-rest
        parameters["C"] = float(np.max(other.C_))
    penalty = theirs.get("penalty", "deprecated")
    if penalty is None:
        parameters["C"] = np.inf
    if other.solver in _COMMON_SOLVERS:
        parameters["solver"] = other.solver
    if "l1_ratio" in names:
        l1_ratio = getattr(other, "l1_ratio_", theirs.get("l1_ratio"))
        if penalty in ("l1", "l2"):
            l1_ratio = float(penalty == "l1")
        # LogisticRegressionCV has None, or an array of it, where it chose none
        ratio = np.max(np.nan_to_num(np.asarray(l1_ratio, dtype=np.float64)))
        parameters["l1_ratio"] = float(ratio)
        if ratio > 0.0:
            parameters.pop("solver", None)
    return parameters


def _coefficients_of(estimator: FittedEstimator) -> Coefficients:
    """Return copies of what an estimator has learnt; a ValueError if that is damaged."""
    found = _stored_coefficients_of(estimator)
    return found._replace(coef=whole(found.coef))


def _stored_coefficients_of(estimator: FittedEstimator) -> Coefficients:
    """Return the same, the coefficients in the form in which they are stored."""
    coef = stored_coef(estimator)
    if coef is None:
        check_is_fitted(estimator, ["coef_"])
    check_is_fitted(estimator, ["classes_", "intercept_", "n_features_in_"])
    if sparse.issparse(coef):
        coef = sparse.csr_array(coef, copy=True)
        coef.sum_duplicates()
    elif not isinstance(coef, InColumns):
        coef = np.array(coef, order="C")
    found = Coefficients(np.array(estimator.classes_), coef, np.array(estimator.intercept_))
    found.check(estimator.n_features_in_)
    return found


def _tempered_coefficients_of(estimator: FittedEstimator) -> Coefficients:
    """Return copies of what an estimator has learnt, with its temperature in the coefficients."""
    found = _coefficients_of(estimator)
    temperature = float(getattr(estimator, "temperature_", 1.0))
    check_temperature(temperature)
    divisor = found.coef.dtype.type(temperature)
    return found._replace(coef=found.coef / divisor, intercept=found.intercept / divisor)


def _onnx_labels(classes: Array) -> Array:
    """Return labels as ONNX has them: str, int64, bool, float32 or float64."""
    values = classes
    if classes.dtype.kind == "O":
        types = {type(label) for label in classes.tolist()}
        values = np.array(classes.tolist()) if len(types) == 1 else classes
    if values.dtype == np.float16:
        return values.astype(np.float32)
    if values.dtype.kind in "Ub" or values.dtype in (np.float32, np.float64):
        return values
    if values.dtype.kind in "iu" and values.max() < 2**63:
        return values.astype(np.int64)
    raise ValueError(
        "ONNX has labels that are all str, all bool, all integers of 64 bits or all floats, "
        f"got classes_ of dtype {classes.dtype}: {classes[:3].tolist()}"
    )
