"""Finite numbers of any size: nothing becomes NaN, nothing is said without reason."""

import numpy as np
from fuzz_checks import (
    check_attributes,
    check_evaluation,
    check_predictions,
    fitted,
    left_alone,
    same_bits,
)
from fuzz_problems import problems, row_weights, targets
from fuzz_rows import FAR, SPARSE_FORMS, VALUES, rows, seeds
from fuzz_settings import examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from fastsoftmax import FastSoftmax

REALS = ["float64", "float32"]
_FORMS = ["array", "Fortran order", *SPARSE_FORMS]


@examples(40)
@given(
    problem=problems(reals=REALS, forms=["array"]),
    data=st.data(),
    scale=st.sampled_from([1.0, 1e-3, 1e10, 1e30]),
)
def test_predictions_of_far_rows(problem, data, scale):
    """Coefficients of any size times features of any size."""
    problem.parameters["max_iter"] = min(20, problem.parameters["max_iter"])
    model = FastSoftmax(**problem.parameters)
    fitted(model, problem)
    with np.errstate(over="ignore"):
        coef = scale * model.coef_
    if np.isfinite(coef).all():
        model.coef_ = coef
    d = problem.rows.values.shape[1]
    far = data.draw(rows(values=FAR, reals=REALS, widths=(d,), forms=_FORMS))
    check_predictions(model, far.given, far.values)
    check_evaluation(model, problem)


@examples(40)
@given(problem=problems(values=FAR, reals=REALS, forms=_FORMS), traps=st.booleans(),
       solver=st.sampled_from([None, "sgd"]))  # fmt: skip
def test_fits_of_far_rows(problem, traps, solver):
    """A fit has finite coefficients, or it is an error that leaves the estimator as it was."""
    more = {"max_iter": min(30, problem.parameters["max_iter"])}
    if solver:
        more |= {"solver": solver, "l1_ratio": 0.0, "random_state": 0}
    model = FastSoftmax(**problem.parameters | more)
    before = dict(vars(model))
    try:
        fitted(model, problem, traps)
    except ValueError as error:
        assert "feature" in str(error) or "X" in str(error), error
        assert vars(model) == before
        return
    check_attributes(model, problem)
    check_predictions(model, problem.rows.given, problem.rows.values)


@examples(40)
@given(data=st.data(), values=st.sampled_from([VALUES, FAR]),
       learning_rate=st.sampled_from([1e-6, 0.1, 1e3, 1e30]), momentum=st.sampled_from([0.0, 0.9]),
       traps=st.booleans())  # fmt: skip
def test_partial_fit(data, values, learning_rate, momentum, traps):
    """Steps leave finite coefficients, or are an error that leaves them as they were."""
    plain = {"values": values, "reals": REALS, "forms": _FORMS}
    first = data.draw(rows(**plain))
    d, K = first.values.shape[1], data.draw(st.sampled_from([2, 3, 12]))
    model = FastSoftmax(
        learning_rate=learning_rate, momentum=momentum, random_state=0, n_jobs=1,
        batch_size=data.draw(st.sampled_from([1, 7, 256])),
    )  # fmt: skip
    batch = first
    for step in range(3):
        rng = np.random.default_rng(data.draw(seeds))
        y = rng.integers(K, size=len(batch.values))
        weights = data.draw(row_weights(y))
        before = {k: np.copy(v) for k, v in vars(model).items() if k in ("coef_", "intercept_")}
        try:
            with left_alone(batch.given, y, weights, traps=traps):
                model.partial_fit(batch.given, y, classes=range(K), sample_weight=weights)
        except ValueError:
            for name, was in before.items():
                assert np.array_equal(getattr(model, name), was)
            assert before or not hasattr(model, "coef_")
            return
        assert np.isfinite(model.coef_).all() and np.isfinite(model.intercept_).all()
        assert int(model.n_iter_[0]) == step + 1
        check_predictions(model, batch.given, batch.values)
        batch = data.draw(rows(**plain, widths=(d,)))


@examples(15)
@given(problem=problems(), seed=st.integers(0, 3), early=st.booleans())
def test_sgd(problem, seed, early):
    """Mini-batch descent ends finite, by the same steps for any number of threads."""
    more = {"solver": "sgd", "l1_ratio": 0.0, "random_state": seed, "early_stopping": early,
            "max_iter": min(5, problem.parameters["max_iter"]), "learning_rate": 0.01}  # fmt: skip
    model = FastSoftmax(**problem.parameters | more)
    try:
        fitted(model, problem)
    except ValueError as error:
        assert early or "feature" in str(error) or "learning_rate" in str(error), error
        return
    assert np.isfinite(model.coef_).all()
    other = clone(model).set_params(n_jobs=3)
    fitted(other, problem)
    assert same_bits(model, other)
    check_predictions(model, problem.rows.given, problem.rows.values)


@examples(20)
@given(data=st.data())
def test_labels_that_are_none_of_the_classes(data):
    """Scores say so where labels are of another kind."""
    X = data.draw(rows(reals=REALS, forms=["array"]))
    y = data.draw(targets(X.hidden, soft=False))
    model = FastSoftmax(max_iter=5, tol=1.0).fit(X.given, y.given)
    foreign = [f"x{i}" for i in range(len(X.values))]
    if isinstance(y.classes[0], str):
        foreign = list(range(len(X.values)))
    for method in (model.score, model.evaluate):
        try:
            method(X.given, foreign)
        except ValueError as error:
            assert "y" in str(error)
        else:
            raise AssertionError(f"{method.__name__} takes {foreign[:2]} for {y.classes[:2]}")
