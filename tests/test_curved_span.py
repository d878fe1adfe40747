"""Fits without a penalty where features depend on each other: steps along the rows alone."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sparse_rows import random_array

from fastsoftmax import FastSoftmax, reference
from fastsoftmax.problem.problem import build_problem
from fastsoftmax.shards.rows import Rows, build_shard

REPEATS = [3, 0, 2, 1, 4, 0, 1, 2, 1, 3, 0, 2]


@pytest.fixture(params=["native", "numpy"])
def backend(request):
    return request.param


@pytest.fixture
def wide(rng):
    """Few rows of many features, whose classes any line separates."""
    return rng.random((12, 30)), np.arange(12) % 3


@pytest.fixture
def overlapping(rng):
    """Rows that no line separates, the sum of the first three features of which is 1."""
    X = np.hstack([np.eye(3)[rng.integers(0, 3, 300)], rng.normal(size=(300, 2))])
    y = (X @ rng.normal(size=(5, 3)) + rng.gumbel(size=(300, 3))).argmax(axis=1)
    return X, y


def fit(X, y, sample_weight=None, **parameters):
    model = FastSoftmax(C=np.inf, solver="newton-cholesky", n_jobs=1, **parameters)
    return model.fit(X, y, sample_weight)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize(
    "parameters", [{}, {"fit_intercept": False}, {"standardize": True}], ids=str
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_repeats(wide, form, parameters, n_classes, backend, rng):
    """The inverse of a singular Hessian made steps of its rounding: predictions differed by 1%."""
    X, y = wide[0], wide[1] % n_classes
    again = rng.permutation(np.repeat(np.arange(12), REPEATS))
    weighted = fit(form(X), y, REPEATS, backend=backend, **parameters)
    repeated = fit(form(X[again]), y[again], backend=backend, **parameters)
    assert weighted.n_iter_ == repeated.n_iter_
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-7)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_in_the_span_of_the_rows(wide, n_classes, backend):
    X, y = wide[0], wide[1] % n_classes
    model = fit(X, y, REPEATS, backend=backend)
    rows = X[np.array(REPEATS) > 0]
    centered = rows - np.average(X, axis=0, weights=REPEATS)
    outside = model.coef_ - model.coef_ @ np.linalg.pinv(centered) @ centered
    assert np.abs(outside).max() < 1e-10 * np.abs(model.coef_).max()
    if n_classes > 2:
        assert np.abs(model.coef_.sum(axis=0)).max() < 1e-10 * np.abs(model.coef_).max()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_optimum_is_that_of_other_solvers_from_0(overlapping, n_classes, backend):
    """Of all optima the shortest, as gradients are in the span of the rows."""
    X, y = overlapping[0], overlapping[1] % n_classes
    model = fit(X, y, backend=backend)
    assert model.converged_
    centered = X - X.mean(axis=0)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(centered, y)
    np.testing.assert_allclose(model.coef_, theirs.coef_, rtol=1e-4, atol=1e-5)


def test_scales_of_features_do_not_matter(overlapping):
    X, y = overlapping
    plain = fit(X, y)
    for scales in ([1e3, 1e3, 1e3, 1e-2, 1.0], [1e7, 1e7, 1e7, 1e-3, 1.0]):
        scaled = fit(X * scales, y)
        assert scaled.converged_
        assert scaled.objective_ == pytest.approx(plain.objective_, rel=1e-10)


@pytest.mark.parametrize("columns", [[0, 1, 2, 3, 0], [0, 1, 2, 3, 3, 3]])
def test_features_that_are_there_twice(columns):
    X, y = load_iris(return_X_y=True)
    y = y > 1
    once, twice = fit(X, y), fit(X[:, columns], y)
    assert twice.objective_ == pytest.approx(once.objective_, rel=1e-9)
    for j in range(4):
        same = np.flatnonzero(np.array(columns) == j)
        np.testing.assert_allclose(
            twice.coef_[0, same], once.coef_[0, j] / len(same), rtol=1e-5, atol=1e-8
        )


def test_constant_features(overlapping):
    X, y = overlapping
    more = np.column_stack([X, np.full(300, 0.1), np.zeros(300)])
    plain, padded = fit(X, y), fit(more, y)
    np.testing.assert_allclose(padded.coef_[:, :5], plain.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(padded.coef_[:, 5:], 0.0, atol=1e-9)


# ---- every solver, storage and configuration


def shortest(X, targets, row_weights, fit_intercept):
    """W and probabilities of the shortest optimum: Newton's method along singular vectors."""
    share = row_weights / row_weights.sum()
    Z = X - share @ X if fit_intercept else X
    _, sizes, vectors = np.linalg.svd(Z[share > 0], full_matrices=False)
    vectors = vectors[sizes > 1e-6 * sizes[0]].T
    R = Z @ vectors
    units = np.sqrt(share @ R**2)
    R = np.hstack([R / units, np.ones((len(R), int(fit_intercept)))])
    k, m = targets.shape[1], R.shape[1]
    # the logit of class 0 is 0; what all classes have in common is taken away at the end
    B = np.zeros((k, m))
    for _ in range(60):
        P = softmax(R @ B.T, axis=1)
        gradient = (share[:, np.newaxis] * (P - targets)).T @ R
        curvature = np.einsum("ia,ab->iab", P, np.eye(k)) - np.einsum("ia,ib->iab", P, P)
        hessian = np.einsum("iab,iu,iv,i->aubv", curvature, R, R, share, optimize=True)
        hessian = hessian[1:, :, 1:].reshape((k - 1) * m, -1)
        step = np.linalg.solve(hessian, gradient[1:].ravel()).reshape(k - 1, m)
        B[1:] -= step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-12:
            break
    W = (B[:, : len(units)] / units) @ vectors.T
    W = W[1:] - W[:1] if k == 2 else W - W.mean(axis=0)
    return W, softmax(R @ B.T, axis=1)


def dependent(kind, rng, n=300, n_classes=3):
    """Rows of features that depend on each other, and classes that overlap."""
    levels = np.hstack([np.eye(4)[rng.integers(0, 4, n)], np.eye(3)[rng.integers(0, 3, n)]])
    numbers = rng.normal(size=(n, 2))
    X = {
        "one-hot": levels,
        "constant": np.hstack([numbers, np.full((n, 1), 0.3), np.ones((n, 1))]),
        "all": np.hstack([levels, numbers, numbers[:, :1], np.full((n, 1), 0.3)]),
        "sum": np.column_stack([numbers, numbers.sum(axis=1, dtype=np.float32), levels]),
    }[kind]
    logits = (X - X.mean(axis=0)) @ rng.normal(size=(X.shape[1], n_classes))
    return X, (logits + 2.0 * rng.gumbel(size=logits.shape)).argmax(axis=1)


def stored(X, form):
    if form.startswith("csr "):
        return sparse.csr_array(X.astype(form[4:]))
    return X.astype(form)


def values_of(X):
    return (X.toarray() if sparse.issparse(X) else X).astype(np.float64)


def assert_shortest(model, X, y, row_weights=None, soft=False):
    """Fit without a warning, and compare with `shortest`."""
    row_weights = np.ones(len(y)) if row_weights is None else row_weights
    targets = np.eye(y.max() + 1)[y]
    if soft:
        targets = 0.8 * targets + 0.2 / targets.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, targets if soft else y, row_weights)
    assert model.converged_
    values = values_of(X)
    if model.standardize:
        mean = np.average(values, axis=0, weights=row_weights)
        variance = np.average((values - mean) ** 2, axis=0, weights=row_weights)
        scale = 1.0 / np.sqrt(np.where(variance > 1e-12, variance, 1.0))
        values = (values - mean) * scale
    else:
        scale = 1.0
    W, probs = shortest(values, targets, row_weights, model.fit_intercept)
    single = model.coef_.dtype == np.float32
    counts = row_weights > 0
    ours = model.predict_proba(X)[counts]
    np.testing.assert_allclose(ours, probs[counts], rtol=0, atol=1e-6 if single else 1e-9)
    tolerance = 1e-4 if single else 1e-6
    size = np.abs(W).max()
    np.testing.assert_allclose(model.coef_ / scale, W, rtol=0, atol=tolerance * size)


SOLVERS = ["newton-cholesky", "lbfgs", "auto"]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("form", ["float32", "float64", "float16", "csr float32", "csr float64"])
@pytest.mark.parametrize("kind", ["one-hot", "constant", "all"])
def test_every_solver_finds_the_shortest(kind, form, solver, rng):
    """Steps followed the rounding of a singular matrix's inverse: coefficients of 1e17."""
    X, y = dependent(kind, rng)
    assert_shortest(FastSoftmax(C=np.inf, solver=solver, n_jobs=1), stored(X, form), y)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("form", ["uint8", "int8", "csr float32"])
def test_levels_in_small_integers(form, solver, rng):
    X, y = dependent("one-hot", rng)
    assert_shortest(FastSoftmax(C=np.inf, solver=solver, n_jobs=1), stored(X, form), y)


@pytest.mark.parametrize("solver", SOLVERS[:2])
@pytest.mark.parametrize("form", ["float32", "float64", "csr float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"n_classes": 2},
        {"fit_intercept": False},
        {"standardize": True},
        {"soft": True},
        {"weighted": True},
        {"backend": "numpy"},
        {"n_jobs": 2},
    ],
    ids=str,
)
def test_the_shortest_in_every_configuration(options, form, solver, rng):
    options = dict(options)
    X, y = dependent("all", rng, n_classes=options.pop("n_classes", 3))
    row_weights = rng.integers(0, 3, len(y)) if options.pop("weighted", False) else None
    soft = options.pop("soft", False)
    model = FastSoftmax(C=np.inf, solver=solver, **{"n_jobs": 1, **options})
    assert_shortest(model, stored(X, form), y, row_weights, soft)


@pytest.mark.parametrize("solver", SOLVERS[:2])
def test_a_sum_that_float32_has_rounded_depends_on_its_terms(solver, rng):
    """In float64 the rank is full, by 1e-8: coefficients of 1e6."""
    X, y = dependent("sum", rng)
    assert_shortest(FastSoftmax(C=np.inf, solver=solver, n_jobs=1), stored(X, "float32"), y)


@pytest.mark.parametrize("solver", SOLVERS[:2])
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_a_warm_start_outside_the_span_is_projected(real, solver, rng):
    X, y = dependent("all", rng)
    X = X.astype(real)
    model = FastSoftmax(C=np.inf, solver=solver, n_jobs=1, warm_start=True).fit(X, y)
    model.coef_ = (model.coef_ + rng.normal(size=model.coef_.shape)).astype(real)
    assert_shortest(model, X, y)


@pytest.mark.parametrize("solver", SOLVERS[:2])
def test_a_memory_map_of_more_rows_than_the_first_look_takes(solver, rng, tmp_path):
    """A level so rare that every fourth row has none of it is not a constant."""
    n = 17_000
    X, y = dependent("constant", rng, n=n)
    rare = np.zeros(n)
    rare[rng.choice(np.flatnonzero(np.arange(n) % 4), 30, replace=False)] = 1.0
    y[rare > 0] = np.arange(30) % 3
    X = np.column_stack([X, rare, 1.0 - rare])
    mapped = np.memmap(tmp_path / "X", np.float32, "w+", shape=X.shape)
    mapped[:] = X
    assert_shortest(FastSoftmax(C=np.inf, solver=solver, n_jobs=1), mapped, y)


@pytest.mark.parametrize("solver", SOLVERS[:2])
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_classes_that_are_separable_in_part(real, solver, rng):
    """L-BFGS believed to be at the optimum (float64), or came to coefficients of 2e6 (float32)."""
    X, y = dependent("all", rng)
    y[X[:, 0] == 1] = 0
    model = FastSoftmax(C=np.inf, solver=solver, n_jobs=1)
    with pytest.warns(UserWarning, match="separable"):
        model.fit(X.astype(real), y)
    assert not model.converged_
    assert np.abs(model.coef_).max() < 50.0


@pytest.mark.parametrize("form", ["float32", "csr float32", "csr float64"])
def test_many_features(form, rng):
    """Of so many only diagonals are known; constant ones still get 0."""
    n, d = 900, 2100
    X = np.zeros((n, d))
    X[:, :4] = np.eye(4)[rng.integers(0, 4, n)]
    X[:, 4] = 0.3
    X[np.arange(n), 5 + np.arange(n) % 3] = 1.0
    y = (X[:, :4] @ rng.normal(size=(4, 3)) + rng.gumbel(size=(n, 3))).argmax(axis=1)
    model = FastSoftmax(C=np.inf, n_jobs=1).fit(stored(X, form), y)
    assert model.converged_
    assert np.abs(model.coef_).max() < 10.0
    np.testing.assert_array_equal(model.coef_[:, [4, *range(8, d)]], 0.0)


@pytest.mark.parametrize("solver", SOLVERS[:2])
@pytest.mark.parametrize("form", ["float32", "float64", "csr float32"])
def test_features_none_of_which_varies(form, solver):
    X = np.tile([0.3, 0.0, 7.0], (40, 1))
    y = np.arange(40) % 8 // 3
    model = FastSoftmax(C=np.inf, solver=solver, n_jobs=1).fit(stored(X, form), y)
    assert model.converged_
    np.testing.assert_array_equal(model.coef_, 0.0)
    np.testing.assert_allclose(model.predict_proba(X)[0], np.bincount(y) / 40, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS[:2])
def test_a_constant_of_float32_is_not_standardized(solver, rng):
    """Its mean has rounding errors, and it became a feature of 1: an unwanted intercept."""
    X, y = dependent("constant", rng)
    X = X[:, :3].astype(np.float32)
    options = {"standardize": True, "fit_intercept": False, "solver": solver, "n_jobs": 1}
    model, without = FastSoftmax(**options).fit(X, y), FastSoftmax(**options).fit(X[:, :2], y)
    np.testing.assert_allclose(model.objective_, without.objective_, rtol=1e-5)
    assert np.abs(model.coef_[:, 2]).max() < 0.1


class TestSpan:
    def span(self, X, **options):
        n = X.shape[0]
        labels = (np.arange(n) % 3).astype(np.int32)
        real = np.dtype(X.dtype)
        shard = build_shard(X, labels, None, np.ones(n, real), 3, backend=reference)
        return build_problem(Rows([shard]), 0.0, **{"fit_intercept": True, **options}).row_span

    def test_is_none_where_all_directions_count(self, rng):
        assert self.span(rng.normal(size=(50, 4))) is None
        assert self.span(rng.normal(size=(50, 4)), fit_intercept=False) is None

    def test_is_none_where_nothing_is_known(self, rng):
        assert self.span(1e200 * rng.normal(size=(50, 4))) is None

    @pytest.mark.parametrize("scales", [1.0, np.logspace(-2, 2, 7), np.logspace(-6, 6, 7)])
    def test_basis_and_projection(self, scales, rng):
        X = rng.normal(size=(4, 7)) * scales
        Z = X - X.mean(axis=0)
        span = self.span(X)
        assert span.basis.shape == (7, 3)
        np.testing.assert_allclose((Z @ span.basis).T @ Z @ span.basis / 4, np.eye(3), atol=1e-8)
        weights = rng.normal(size=(2, 7))
        projected = span.project(weights)
        size = np.abs(weights @ Z.T).max()
        np.testing.assert_allclose(projected @ Z.T, weights @ Z.T, rtol=0, atol=1e-8 * size)
        assert np.linalg.norm(projected) < np.linalg.norm(weights)
        if np.max(scales) < 1e6 * np.min(scales):
            np.testing.assert_allclose(projected, weights @ np.linalg.pinv(Z) @ Z, atol=1e-8)

    def test_a_constant_takes_no_part(self, rng):
        X = np.column_stack([rng.normal(size=(50, 2)), np.full(50, 0.3)]).astype(np.float32)
        span = self.span(X)
        assert span.basis.shape == (3, 2)
        np.testing.assert_array_equal(span.basis[2], 0.0)
        assert self.span(X, fit_intercept=False) is None

    def test_the_number_type_decides(self, rng):
        X = rng.normal(size=(300, 2))
        X = np.column_stack([X, X.sum(axis=1) + 1e-5 * rng.normal(size=300)])
        assert self.span(X) is None
        X[:, 2] = X[:, :2].astype(np.float32).sum(axis=1)
        assert self.span(X.astype(np.float32)).basis.shape == (3, 2)

    def test_passes_in_float32_leave_faint_directions_to_later_stages(self, rng):
        X = rng.normal(size=(300, 2))
        X = np.column_stack([X, X.sum(axis=1) + 1e-6 * rng.normal(size=300)]).astype(np.float32)
        span = self.span(X)
        assert span.basis.shape == (3, 3)
        assert span.resolved(float(np.finfo(np.float32).eps)).basis.shape == (3, 2)

    @pytest.mark.parametrize("density", [0.02, 0.5])
    def test_sparse_rows_are_as_dense_ones(self, density, rng):
        X = random_array((400, 30), density=density, rng=rng, format="csr")
        X = sparse.csr_array(sparse.hstack([X, X[:, :3], np.full((400, 1), 0.3)]))
        of_sparse, of_dense = self.span(X), self.span(X.toarray())
        assert of_sparse.basis.shape == of_dense.basis.shape == (34, 30)
        weights = rng.normal(size=(1, 34))
        np.testing.assert_allclose(
            of_sparse.project(weights), of_dense.project(weights), atol=1e-10
        )
