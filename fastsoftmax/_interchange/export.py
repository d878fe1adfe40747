"""A fitted model as a model of scikit-learn, PyTorch or ONNX, and back from scikit-learn.

Each package but scikit-learn is optional, and imported where it is needed.
"""

import inspect
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._estimator.fitted import FittedEstimator, dense_coef, set_learnt
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._interchange.coefficients import coefficients_of, tempered_coefficients_of
from fastsoftmax._version import __version__
from fastsoftmax.arrays import Array, count_logits

E = TypeVar("E", bound=FitParameters)

# Solvers that have the same name and converge to the same optimum here and in scikit-learn.
_COMMON_SOLVERS = ("lbfgs", "newton-cholesky")
# Parameters of one name that the other side has no use for, or that are chosen here.
_NOT_CARRIED = ("solver", "n_jobs", "penalty", "multi_class", "l1_ratio")

_OPSET = 13  # the first whose Softmax is along an axis
_IR_VERSION = 7  # what belongs to it: runtimes refuse newer ones than they know


# ---- scikit-learn ----


def to_sklearn(estimator: FittedEstimator, C: float) -> LogisticRegression:
    """Return the `LogisticRegression` of an estimator that was fitted with C."""
    fitted = tempered_coefficients_of(estimator)
    ours, names = estimator.get_params(deep=False), LogisticRegression().get_params()
    parameters = {k: v for k, v in ours.items() if k in names and k not in _NOT_CARRIED}
    solver = ours.get("solver")
    parameters |= {"C": C, "solver": solver if solver in _COMMON_SOLVERS else "lbfgs"}
    if solver == "sgd":  # its epochs are no iterations
        del parameters["max_iter"]
    l1_ratio = ours.get("l1_ratio")
    if l1_ratio:
        parameters |= {"l1_ratio": l1_ratio, "solver": "saga"}
        if names.get("penalty") == "l2":  # before scikit-learn 1.8 l1_ratio alone had no effect
            parameters["penalty"] = "elasticnet"
    other = LogisticRegression(**parameters)
    other.classes_, other.coef_, other.intercept_ = fitted
    other.n_features_in_ = estimator.n_features_in_
    if hasattr(estimator, "n_iter_"):
        other.n_iter_ = np.array([np.max(estimator.n_iter_)], dtype=np.int32)
    if hasattr(estimator, "feature_names_in_"):
        other.feature_names_in_ = np.array(estimator.feature_names_in_)
    return other


def from_sklearn(cls: type[E], other: LogisticRegression) -> E:
    """Return an estimator of a class with the coefficients of a fitted `LogisticRegression`."""
    if not isinstance(other, LogisticRegression):
        raise TypeError(
            "clf must be a fitted LogisticRegression or LogisticRegressionCV of scikit-learn, "
            f"got {type(other).__name__}"
        )
    check_is_fitted(other)
    classes = np.array(other.classes_)
    n_logits = count_logits(len(classes))
    strategy = getattr(other, "multi_class", None)  # before scikit-learn 1.8
    if n_logits > 1 and (strategy == "ovr" or other.solver == "liblinear"):
        raise ValueError(
            "clf is one-vs-rest: a binary model for each class, whose probabilities are no softmax "
            "of its logits. Fit it with another solver than 'liblinear' and without "
            "multi_class='ovr'."
        )
    coef = np.asarray(dense_coef(other.coef_))
    real = np.float32 if coef.dtype == np.float32 else np.float64
    # With two classes that strategy takes a softmax of [-o, o]: the log-odds are 2 o.
    factor = 2.0 if n_logits == 1 and strategy == "multinomial" else 1.0
    estimator = cls(**_parameters_for(cls, other))
    set_learnt(
        estimator,
        classes=classes,
        n_features_in=int(coef.shape[1]),
        coef=np.array(factor * coef, dtype=real, order="C"),
        intercept=np.full(n_logits, factor * np.asarray(other.intercept_), dtype=real),
        n_iter=np.max(other.n_iter_),
        gap=np.inf,
        objective=np.nan,
        converged=False,
    )
    coefficients_of(estimator)  # checks them
    if hasattr(other, "feature_names_in_"):
        set_learnt(estimator, feature_names_in=np.array(other.feature_names_in_))
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


# ---- PyTorch ----


def to_torch(estimator: FittedEstimator) -> Any:
    """Return the `torch.nn.Linear` of an estimator."""
    fitted = tempered_coefficients_of(estimator)
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


# ---- ONNX ----


def to_onnx(estimator: FittedEstimator, dtype: DTypeLike) -> Any:
    """Return the `onnx.ModelProto` of an estimator, for features of a dtype."""
    given = np.dtype(dtype)
    if given not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {given}")
    fitted = tempered_coefficients_of(estimator)
    labels = _onnx_labels(fitted.classes)
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise ImportError(
            "to_onnx needs the onnx package, which cannot be imported: "
            "pip install 'fastsoftmax[onnx]'"
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
    graph = helper.make_graph(
        nodes,
        type(estimator).__name__,
        [helper.make_tensor_value_info("X", elements[given.type], ["n_rows", coef.shape[1]])],
        [
            helper.make_tensor_value_info("label", classes.data_type, ["n_rows"]),
            helper.make_tensor_value_info(
                "probabilities", elements[given.type], ["n_rows", len(labels)]
            ),
        ],
        [
            numpy_helper.from_array(coef.astype(real, copy=False), "coef"),
            numpy_helper.from_array(intercept.astype(real, copy=False), "intercept"),
            classes,
        ],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="fastsoftmax",
        producer_version=__version__,
    )


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
