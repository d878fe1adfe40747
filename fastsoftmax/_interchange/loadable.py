"""How fitted estimators come from files, and from models of scikit-learn."""

import inspect
from typing import Any, Self

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._estimator.fitted import dense_coef, set_learnt, set_uncertified
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._interchange.coefficients import coefficients_of
from fastsoftmax._interchange.model_file import File, read_model
from fastsoftmax._interchange.portable import COMMON_SOLVERS, NOT_CARRIED
from fastsoftmax.arrays import count_logits
from fastsoftmax.floating_point import own_arithmetic


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
        coef = np.asarray(dense_coef(clf.coef_))
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
        set_uncertified(estimator)
        coefficients_of(estimator)  # checks them
        if hasattr(clf, "feature_names_in_"):
            set_learnt(estimator, feature_names_in=np.array(clf.feature_names_in_))
        return estimator


def _parameters_for(cls: type[FitParameters], other: LogisticRegression) -> dict[str, Any]:
    names = inspect.signature(cls).parameters
    theirs = other.get_params(deep=False)
    parameters = {k: v for k, v in theirs.items() if k in names and k not in NOT_CARRIED}
    if hasattr(other, "C_"):  # LogisticRegressionCV: one for each class, equal but for one-vs-rest
        parameters["C"] = float(np.max(other.C_))
    penalty = theirs.get("penalty", "deprecated")
    if penalty is None:
        parameters["C"] = np.inf
    if other.solver in COMMON_SOLVERS:
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
