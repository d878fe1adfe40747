"""Every public method and function, with arrays of another library: a script of test_array_api.py.

Arguments: the library, and whether scikit-learn dispatches by array namespace ("1" or "0"); then
SCIPY_ARRAY_API must be set to the same. Prints the calls that fail.
"""

import sys
import warnings

import numpy as np
import sklearn
from scipy import sparse
from sklearn.model_selection import GroupKFold

import fastsoftmax.functional as F
from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path
from fastsoftmax.datasets import iter_batches

SKIPPED = 77  # the exit status where scikit-learn cannot dispatch


def learnt(model):
    """What a fit has learnt."""
    return [model.coef_, model.intercept_, model.classes_]


def check(name, found, expected):
    """Compare type and bits."""
    for a, b in (
        zip(found, expected, strict=True) if isinstance(found, list) else [(found, expected)]
    ):
        assert type(a) is type(b), (name, type(a))
        np.testing.assert_array_equal(a, b, err_msg=name)


def main(library, dispatch):
    """Call everything; returns whether a call failed."""
    try:
        sklearn.set_config(array_api_dispatch=dispatch == "1")
    except ImportError as error:  # scikit-learn 1.6 needs scipy 1.14 and array_api_compat for it
        print(error)
        return SKIPPED
    warnings.simplefilter("ignore")
    xp = None if library == "numpy" else __import__(library)
    wrap = {
        "numpy": lambda a: a,
        "torch": lambda a: xp.from_numpy(a.copy()),
        "array_api_strict": lambda a: xp.asarray(a.copy()),
    }[library]

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, size=90)
    X = (rng.normal(size=(90, 4)) + np.eye(3, 4)[y]).astype(np.float32)
    w = rng.integers(0, 3, size=90).astype(np.float64)
    probs = np.eye(3)[y] * 0.7 + 0.1
    groups = np.arange(90) % 5
    W, b = rng.normal(size=(3, 4)).astype(np.float32), np.zeros(3, np.float32)
    sgd = {"solver": "sgd", "random_state": 0, "max_iter": 3}

    fitted = FastSoftmax().fit(X, y)
    likely = FastSoftmax(C=np.inf, tol=1e-10).fit(X, y)
    sparse_X = sparse.csr_array(X)
    calls = {
        "fit": lambda f: learnt(FastSoftmax().fit(f(X), f(y))),
        "fit, weights": lambda f: learnt(FastSoftmax().fit(f(X), f(y), f(w))),
        "fit, probabilities": lambda f: learnt(
            FastSoftmax().fit(f(X), f(probs), classes=f(np.arange(3)))
        ),
        "fit, X alone": lambda f: learnt(FastSoftmax().fit(f(X), y, w)),
        "fit, labels alone": lambda f: learnt(FastSoftmax().fit(X, f(y))),
        "fit, weights alone": lambda f: learnt(FastSoftmax().fit(X, y, f(w))),
        "fit, lists": lambda f: learnt(FastSoftmax().fit(X.tolist(), f(y), w.tolist())),
        "fit, sparse": lambda f: learnt(FastSoftmax().fit(sparse_X, f(y), f(w))),
        "fit, float64": lambda f: learnt(FastSoftmax().fit(f(X.astype(np.float64)), f(y))),
        "fit, uint8": lambda f: learnt(FastSoftmax().fit(f((X > 0).astype(np.uint8)), f(y))),
        "fit, bool": lambda f: learnt(FastSoftmax().fit(f(X > 0), f(y > 0))),
        "fit, int64": lambda f: learnt(
            FastSoftmax().fit(f(X.astype(np.int64)), f(y.astype(np.int32)))
        ),
        "fit, float labels": lambda f: learnt(FastSoftmax().fit(f(X), f(y.astype(np.float64)))),
        "fit, column": lambda f: learnt(FastSoftmax().fit(f(X), f(y[:, np.newaxis]))),
        "fit, balanced": lambda f: learnt(FastSoftmax(class_weight="balanced").fit(f(X), f(y))),
        "fit, 1-norm": lambda f: learnt(FastSoftmax(l1_ratio=1.0).fit(f(X), f(y), f(w))),
        "fit, standardize": lambda f: learnt(FastSoftmax(standardize=True).fit(f(X), f(y))),
        "fit, eval_set": lambda f: (
            FastSoftmax().fit(f(X), f(y), eval_set=[(f(X), f(y))]).history_["eval_loss"]
        ),
        "fit, early stopping": lambda f: learnt(
            FastSoftmax(early_stopping=True, random_state=0).fit(f(X), f(y), f(w))
        ),
        "fit, sgd": lambda f: learnt(FastSoftmax(**sgd).fit(f(X), f(y), f(w))),
        "fit, batches": lambda f: learnt(
            FastSoftmax(**sgd).fit([(f(X), f(y)), (f(X), f(y), f(w))][::-1])
        ),
        "fit, batches of probabilities": lambda f: learnt(
            FastSoftmax(**sgd).fit([(f(X), f(probs), f(w))])
        ),
        "fit, batches with classes": lambda f: learnt(
            FastSoftmax(**sgd).fit([(f(X), f(y), f(w))], classes=f(np.arange(3)))
        ),
        "iter_batches": lambda f: learnt(
            FastSoftmax(**sgd).fit(iter_batches(f(X), f(y), 32, sample_weight=f(w), random_state=0))
        ),
        "partial_fit": lambda f: learnt(
            FastSoftmax(**sgd)
            .partial_fit(f(X), f(y), classes=f(np.arange(3)), sample_weight=f(w))
            .partial_fit(f(X), f(y))
        ),
        "predict": lambda f: fitted.predict(f(X)),
        "predict_proba": lambda f: fitted.predict_proba(f(X)),
        "predict_proba, float64": lambda f: fitted.predict_proba(f(X.astype(np.float64))),
        "predict_log_proba": lambda f: fitted.predict_log_proba(f(X)),
        "decision_function": lambda f: fitted.decision_function(f(X)),
        "predict_topk": lambda f: list(fitted.predict_topk(f(X), 2)),
        "predict_cost_sensitive": lambda f: fitted.predict_cost_sensitive(f(X), f(1.0 - np.eye(3))),
        "predict_with_reject": lambda f: fitted.predict_with_reject(f(X), 0.5, reject_label=-1),
        "score": lambda f: fitted.score(f(X), f(y)),
        "score, weights": lambda f: fitted.score(f(X), f(y), f(w)),
        "score, labels alone": lambda f: fitted.score(X, f(y), w),
        "evaluate": lambda f: list(fitted.evaluate(f(X), f(y), f(w))),
        "calibrate_temperature": lambda f: (
            FastSoftmax().fit(X, y).calibrate_temperature(f(X), f(y), f(w)).temperature_
        ),
        "statistics": lambda f: likely.statistics(f(X), f(y)).standard_errors,
        "statistics, laplace": lambda f: (
            FastSoftmax(tol=1e-10)
            .fit(X, y, w)
            .statistics(f(X), f(y), f(w), covariance="laplace")
            .standard_errors
        ),
        "summary": lambda f: np.asarray(likely.summary(f(X), f(y))["std_err"]),
        "sweep": lambda f: learnt(FastSoftmaxCV(3, cv=3).fit(f(X), f(y), f(w))),
        "sweep, groups": lambda f: learnt(
            FastSoftmaxCV(3, cv=GroupKFold(5)).fit(f(X), f(y), groups=f(groups))
        ),
        "sweep, scorer": lambda f: (
            FastSoftmaxCV(3, cv=3, scoring="balanced_accuracy")
            .fit(f(X), f(y))
            .score(f(X), f(y), f(w))
        ),
        "sweep, score": lambda f: FastSoftmaxCV(3, cv=3).fit(f(X), f(y)).score(f(X), f(y), f(w)),
        "path": lambda f: fastsoftmax_path(f(X), f(y), Cs=3, sample_weight=f(w))[1],
        "softmax": lambda f: F.softmax(f(X)),
        "log_softmax": lambda f: F.log_softmax(f(X), axis=0),
        "logsumexp": lambda f: F.logsumexp(f(X)),
        "cross_entropy": lambda f: list(
            F.cross_entropy(f(X), f(y), sample_weight=f(w), return_grad=True)
        ),
        "cross_entropy, probabilities": lambda f: F.cross_entropy(f(X[:, :3].copy()), f(probs)),
        "linear_cross_entropy": lambda f: list(
            F.linear_cross_entropy(f(X), f(W), f(b), f(y), sample_weight=f(w))
        ),
        "accuracy": lambda f: F.accuracy(f(y), f(X), sample_weight=f(w)),
        "accuracy, labels": lambda f: F.accuracy(f(y), f(y[::-1].copy()), sample_weight=f(w)),
    }

    failed = []
    for name, call in calls.items():
        with sklearn.config_context(array_api_dispatch=False):
            expected = call(lambda a: a)
        try:
            check(name, call(wrap), expected)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    print(*failed, sep="\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
