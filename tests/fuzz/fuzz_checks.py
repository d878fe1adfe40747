"""What holds of every fit, prediction and file, whatever was passed."""

import contextlib
import itertools
import pickle
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
from extended_precision import LONG, descended, penalised, unknowns
from fuzz_rows import memory_of, unchanged
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

# What float64 alone adds to a relative gap, and what it adds to objectives that are almost 0.
ROUNDING, ABSOLUTE = 1e-11, 1e-17
# Seconds of CPU that a fit of these sizes never takes (generous: machines are busy).
LONGEST = 30.0
_OF_OBJECTIVE = (
    "C", "l1_ratio", "fit_intercept", "standardize", "input_scale", "label_smoothing",
)  # fmt: skip
_pools = ThreadpoolController()


# ---- the process ----


@contextlib.contextmanager
def left_alone(*inputs, traps=False):
    """Check that a call leaves its inputs and the state of the process as they were.

    With traps, numpy raises where users' own arithmetic overflows, and ours must not notice.
    Returns the warnings; one that is none of ours is an error.
    """
    before = [memory_of(i) for i in inputs]
    random = np.random.get_state()[1].copy()  # noqa: NPY002 (that we leave it alone)
    began = time.process_time()
    # (2 threads of BLAS, also where workers of pytest have 1)
    with (
        np.errstate(**({"all": "raise"} if traps else {})),
        _pools.limit(limits=2, user_api="blas"),
    ):
        state, threads = np.geterr(), _blas_threads()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            filters = list(warnings.filters)
            yield caught
            assert list(warnings.filters) == filters
        assert np.geterr() == state
        assert _blas_threads() == threads
    assert time.process_time() - began < LONGEST
    assert np.array_equal(np.random.get_state()[1], random)  # noqa: NPY002
    for given, was in zip(inputs, before, strict=True):
        assert unchanged(given, was), f"{type(given).__name__} was written to"
    ours = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    # (scikit-learn warns of as many classes as rows)
    others = [w for w in caught if w not in ours and "unique classes" not in str(w.message)]
    assert not others, [str(w.message) for w in others]
    assert len(ours) <= 1, [str(w.message) for w in ours]


def _blas_threads():
    return [pool.num_threads for pool in _pools.lib_controllers if pool.user_api == "blas"]


@contextlib.contextmanager
def seconds_pass():
    """Let a second pass whenever somebody looks at the clock."""
    ticks = itertools.count()
    with mock.patch.object(time, "monotonic", lambda: float(next(ticks))):
        yield


def fitted(model, problem, traps=False):
    """Fit a problem, and return the warnings."""
    weights = problem.weights
    with left_alone(problem.rows.given, problem.targets.given, weights, traps=traps) as caught:
        model.fit(problem.rows.given, problem.targets.given, weights)
    return caught


# ---- the objective ----


def objective_of(model, problem):
    """Return F in long doubles, and the point of the coefficients as they are stored."""
    params = {k: v for k, v in model.get_params().items() if k in _OF_OBJECTIVE}
    params["l1_ratio"] = params["l1_ratio"] or 0.0
    weights, y = problem.row_weights, problem.targets.codes
    real = problem.rows.real
    if weights is not None:  # rows have them in the number type of X, of mean 1
        weights = (weights / weights.mean()).astype(real) * weights.mean()
    if y.ndim == 2:
        y = y.astype(real)
    F, center, scale = penalised(problem.rows.values, y, sample_weight=weights, **params)
    return F, *unknowns(model.coef_, model.intercept_, center, scale)


def logit_terms(model, X):
    """Return the sums of the absolute terms of logits, (n, n_logits)."""
    coef = np.abs(np.asarray(model.coef_)).astype(LONG)
    return np.abs(X).astype(LONG) @ coef.T + np.abs(model.intercept_).astype(LONG)


def check_objective(model, problem, value):
    """Check that objective_ is F at the coefficients."""
    eps = float(np.finfo(problem.rows.real).eps)
    terms = float(logit_terms(model, problem.rows.values).max(axis=1).mean())
    error = 8 * eps * terms + (1e-9 if eps < 1e-10 else 1e-5) * float(value)
    assert abs(model.objective_ - float(value)) <= error


def check_certificate(model, problem):
    """Check the attributes of a fit against what can be found of its objective."""
    F, V, c = objective_of(model, problem)
    value = F.value(V, c)
    check_objective(model, problem, value)
    assert 0.0 <= model.gap_ <= 1.0
    assert model.converged_ == (model.gap_ <= model.tol)
    gap = float((value - descended(F, V, c)) / value)
    rounding = ROUNDING + ABSOLUTE / model.objective_
    if problem.targets.codes.ndim == 2:  # in float32 probabilities sum to 1 within an ulp
        rounding += float(np.finfo(problem.rows.real).eps) / 4
    assert gap <= (1 + 1e-6) * model.gap_ + rounding, gap


def check_attributes(model, problem):
    """Check shapes, types and limits."""
    K, real = problem.targets.n_classes, problem.rows.real
    n_logits = 1 if K == 2 else K
    assert model.coef_.dtype == model.intercept_.dtype == real
    assert model.coef_.shape == (n_logits, problem.rows.values.shape[1])
    assert model.intercept_.shape == (n_logits,)
    assert np.isfinite(np.asarray(model.coef_)).all() and np.isfinite(model.intercept_).all()
    assert model.fit_intercept or model.standardize or not np.any(model.intercept_)
    assert 0 <= int(model.n_iter_[0]) <= model.max_iter
    assert model.classes_.tolist() == problem.targets.classes
    kinds = [type(c) for c in model.classes_.tolist()]
    assert kinds == [type(c) for c in problem.targets.classes]
    lengths = {len(values) for values in model.history_.values()}
    assert lengths == {int(model.n_iter_[0])}


# ---- predictions ----


def exact_logits(model, X):
    """Return logits of the coefficients as stored in long doubles, one for each class."""
    W, b = np.asarray(model.coef_).astype(LONG), np.asarray(model.intercept_).astype(LONG)
    logits = X.astype(LONG) @ W.T + b
    if len(b) == 1:
        logits = np.column_stack([np.zeros(len(X), LONG), logits])
    return logits


def check_predictions(model, given, values):
    """Check every method that predicts against the softmax in long doubles."""
    with left_alone(given, traps=True):
        probs, logs = model.predict_proba(given), model.predict_log_proba(given)
        labels, decisions = model.predict(given), model.decision_function(given)
        best, best_probs = model.predict_topk(given, 1)
    K = len(model.classes_)
    assert probs.shape == logs.shape == (len(values), K)
    for found in (probs, decisions, best_probs):
        assert np.isfinite(found).all()
    assert not np.isnan(logs).any() and (logs <= 0.0).all()
    eps = float(np.finfo(probs.dtype).eps)
    assert np.abs(probs.sum(axis=1, dtype=float) - 1.0).max() <= 4 * K * eps
    assert (probs >= 0.0).all()
    exact = exact_logits(model, values)
    terms = logit_terms(model, values).max(axis=1)
    noise = 4 * (values.shape[1] + 8) * LONG(eps) * (terms + 1)
    of_labels = np.searchsorted(model.classes_, labels)
    rows = np.arange(len(values))
    assert (exact[rows, of_labels] >= exact.max(axis=1) - 2 * noise).all()
    assert np.array_equal(best[:, 0], labels)
    if K > 2:
        assert np.array_equal(model.classes_[decisions.argmax(axis=1)], labels)
    else:
        assert np.array_equal(model.classes_[(decisions > 0).astype(int)], labels)
    with np.errstate(all="ignore"):
        terms_of_sum = np.exp(exact - exact.max(axis=1, keepdims=True))
        softmax = terms_of_sum / terms_of_sum.sum(axis=1, keepdims=True)
    errors = np.abs(probs - softmax).max(axis=1)
    assert (errors <= np.minimum(1.0, 4 * noise)).all(), float(errors.max())


def check_evaluation(model, problem):
    """Check loss and accuracy against those of the probabilities."""
    given, y = problem.rows.given, problem.targets
    with left_alone(given, y.given, problem.weights):
        found = model.evaluate(given, y.given, problem.weights)
        score = model.score(given, y.given, problem.weights)
    assert np.isfinite(found.loss) and found.loss >= 0.0
    assert 0.0 <= found.accuracy <= 1.0
    assert abs(score - found.accuracy) <= 1e-6


# ---- copies ----


def check_copies(model, given):
    """Check that a pickle and a file give the same model, to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        model.save(path)
        loaded = type(model).load(path)
    expected = model.predict_proba(given)
    for copy in (pickle.loads(pickle.dumps(model)), loaded):
        for name in ("coef_", "intercept_", "classes_"):
            ours, theirs = np.asarray(getattr(model, name)), np.asarray(getattr(copy, name))
            assert ours.dtype == theirs.dtype
            assert ours.tolist() == theirs.tolist()
        assert np.array_equal(copy.predict_proba(given), expected)
        assert copy.gap_ == model.gap_ and copy.objective_ == model.objective_
        assert {k: v for k, v in copy.get_params().items() if k != "class_weight"} == {
            k: v for k, v in model.get_params().items() if k != "class_weight"
        }


def same_bits(one, other):
    """Whether two fits have the same coefficients to the last bit."""
    return all(
        np.asarray(getattr(one, name)).tobytes() == np.asarray(getattr(other, name)).tobytes()
        for name in ("coef_", "intercept_", "n_iter_")
    )
