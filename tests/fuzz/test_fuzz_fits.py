"""Fits of anything: objective, certificate, limits, predictions, copies, threads."""

import numpy as np
from extended_precision import descended
from fuzz_checks import (
    check_attributes,
    check_certificate,
    check_copies,
    check_evaluation,
    check_predictions,
    fitted,
    objective_of,
    same_bits,
    seconds_pass,
)
from fuzz_problems import problems
from fuzz_rows import VALUES
from fuzz_settings import examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from fastsoftmax import FastSoftmax


@examples(200)
@given(problem=problems(), traps=st.booleans())
def test_a_fit(problem, traps):
    model = FastSoftmax(**problem.parameters)
    fitted(model, problem, traps)
    check_attributes(model, problem)
    check_certificate(model, problem)
    check_predictions(model, problem.rows.given, problem.rows.values)


# What float32 and coefficients as they are stored cannot tell.
_ROUNDED = {k: VALUES[k] for k in ("plain", "offsets", "lognormal", "scales", "huge")}


@examples(100)
@given(
    problem=problems(
        values=_ROUNDED,
        reals=["float32", "float32", "float64", "uint8"],
        forms=["array", "array", "CSR"],
        n_rows=150,
    ),
    C=st.sampled_from([0.1, 1.0, 100.0, 1e4]),
    tol=st.sampled_from([1e-6, 1e-8, 1e-10]),
    scaling=st.sampled_from([{}, {"standardize": True, "fit_intercept": False}]),
)
def test_certificates_where_rounding_counts(problem, C, tol, scaling):
    more = {"C": C, "tol": tol, "max_iter": 300} | scaling
    problem.parameters.update(more)
    model = FastSoftmax(**problem.parameters)
    fitted(model, problem)
    check_attributes(model, problem)
    check_certificate(model, problem)


@examples(20)
@given(problem=problems(), more=st.sampled_from([2, 3, 7]))
def test_copies_and_threads(problem, more):
    model = FastSoftmax(**problem.parameters)
    fitted(model, problem)
    check_evaluation(model, problem)
    check_copies(model, problem.rows.given)
    other = clone(model).set_params(n_jobs=more)
    fitted(other, problem)
    assert same_bits(model, other)


@examples(10)
@given(problem=problems(n_rows=3000, widths=(1, 3, 40)), more=st.sampled_from([2, 3, 7]))
def test_threads_of_many_rows(problem, more):
    model = FastSoftmax(**problem.parameters | {"n_jobs": 1, "max_iter": 10})
    fitted(model, problem)
    other = clone(model).set_params(n_jobs=more)
    fitted(other, problem)
    assert same_bits(model, other)
    check_predictions(model, problem.rows.given, problem.rows.values)


@examples(15)
@given(problem=problems(), solver=st.sampled_from([None, "sgd"]), limit=st.sampled_from([1, 3, 9]))
def test_max_time(problem, solver, limit):
    """A second passes whenever a fit looks at the clock, which it does in every iteration."""
    more = {"tol": 0.0, "max_time": limit}
    if solver == "sgd":
        more |= {"solver": "sgd", "l1_ratio": 0.0, "learning_rate": 1e-30, "random_state": 0}
        if problem.parameters.get("standardize"):  # (without it sparse rows are refused)
            more["fit_intercept"] = True
    model = FastSoftmax(**problem.parameters | more)
    with seconds_pass():
        fitted(model, problem)
    check_attributes(model, problem)
    assert int(model.n_iter_[0]) <= limit


# Features whose dependence is exact in every number type.
_EXACT = {k: VALUES[k] for k in ("plain", "levels", "constant columns", "dependent", "zeros")}


@examples(100)
@given(problem=problems(C=np.inf, values=_EXACT))
def test_no_penalty(problem):
    """Of all optima it is the shortest; where there is none, the fit says so."""
    model = FastSoftmax(**problem.parameters | {"max_iter": 1000, "tol": 1e-4})
    caught = fitted(model, problem)
    check_attributes(model, problem)
    check_predictions(model, problem.rows.given, problem.rows.values)
    assert model.gap_ == np.inf
    assert model.converged_ or len(caught) == 1
    if not model.converged_:
        return
    F, V, c = objective_of(model, problem)
    constant = np.ptp(problem.rows.values, axis=0) == 0.0
    if F.fit_intercept or model.standardize:  # (centring has left rounding of long doubles there)
        F = F._replace(z=np.where(constant, 0, F.z))
    value, real = F.value(V, c), problem.rows.real
    eps = float(np.finfo(real).eps)
    assert float(value - descended(F, V, c)) <= 1e-4 * float(value) + 1e-12
    z = F.z.astype(float)
    z = z[problem.row_weights > 0.0] if problem.row_weights is not None else z
    _, sizes, directions = np.linalg.svd(z, full_matrices=True)
    rank = int((sizes > 1e-9 * max(sizes.max(initial=0.0), 1e-300)).sum())
    across = np.abs(V.astype(float) @ directions[rank:].T).max(initial=0.0)
    assert across <= np.sqrt(eps) * max(1.0, np.abs(V).max())


# What L-BFGS alone took a thousand iterations for, with a 1-norm: features that differ.
_DIFFERENT = {k: VALUES[k] for k in ("lognormal", "-9999 for missing", "scales")}


@examples(15)
@given(
    problem=problems(
        values=_DIFFERENT,
        n_rows=600,
        widths=(20, 60),
        reals=["float64"],
        forms=["array", "Fortran order"],
    ),
    C=st.sampled_from([1.0, 10.0, 100.0]),
    l1_ratio=st.sampled_from([0.5, 0.5, 1.0, 0.0]),
)
def test_is_certified(problem, C, l1_ratio):
    settings = {"C": C, "l1_ratio": l1_ratio, "fit_intercept": True, "max_iter": 1000, "tol": 1e-4}
    model = FastSoftmax(**settings)
    fitted(model, problem._replace(weights=None))
    assert model.converged_


@examples(10)
@given(
    problem=problems(
        n_rows=60, widths=(2100,), reals=["float32", "float64"], forms=["CSR", "array"],
        values={k: VALUES[k] for k in ("plain", "scales")},
    ),
    l1_ratio=st.sampled_from([0.0, 0.5, 1.0]),
    tol=st.sampled_from([1e-4, 1e-8]),
    C=st.sampled_from([1.0, 10.0, 100.0]),
)  # fmt: skip
def test_wide_rows(problem, l1_ratio, tol, C):
    more = {"solver": "auto", "l1_ratio": l1_ratio, "tol": tol, "max_iter": 300, "C": C}
    model = FastSoftmax(**problem.parameters | more)
    fitted(model, problem)
    check_attributes(model, problem)
    check_certificate(model, problem)
