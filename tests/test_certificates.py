"""Certificates against the objective in long doubles, over random fits of every kind.

`extended_precision` knows nothing of the package. What it finds is an upper bound on the minimum.
"""

import time
import warnings

import numpy as np
import pytest
from extended_precision import descended, penalised, unknowns
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax, fastsoftmax_path

# What float64 alone adds to a relative gap (the features may be 1e11 times their spread from 0).
_ROUNDING = 1e-11
# The same of objectives that are almost 0, because a loss near 0 has no more digits.
_ABSOLUTE = 1e-17
_OF_OBJECTIVE = (
    "C", "l1_ratio", "fit_intercept", "standardize", "input_scale", "label_smoothing",
)  # fmt: skip


def true_gap(model, X, y, row_weights=None):
    """Return the relative gap of the coefficients as they are stored, at least."""
    params = {k: v for k, v in model.get_params().items() if k in _OF_OBJECTIVE}
    params["l1_ratio"] = params["l1_ratio"] or 0.0
    real = model.coef_.dtype
    if row_weights is not None:  # rows have them in the number type of X, of mean 1
        row_weights = (row_weights / row_weights.mean()).astype(real) * row_weights.mean()
    if y.ndim == 2:
        y = y.astype(real)
    F, center, scale = penalised(X, y, sample_weight=row_weights, **params)
    V, c = unknowns(model.coef_, model.intercept_, center, scale)
    value = F.value(V, c)
    if model.converged_:
        assert model.objective_ == pytest.approx(float(value), rel=1e-4)
    return float((value - descended(F, V, c)) / value)


def check(model, X, y, row_weights=None):
    """Fit, and hold the certificate to the truth."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit falls short
        model.fit(X, y, row_weights)
    assert time.process_time() - began < 20.0  # (generous: machines are busy)
    assert np.isfinite(model.coef_).all() and np.isfinite(model.intercept_).all()
    assert model.n_iter_[0] <= model.max_iter
    gap = true_gap(model, X, y, row_weights)
    assert gap <= (1 + 1e-6) * model.gap_ + _ROUNDING + _ABSOLUTE / model.objective_
    assert model.converged_ == (model.gap_ <= model.tol)
    return gap


class RandomFit:
    """Features, targets, row weights and parameters drawn from a seed."""

    def __init__(self, seed):
        rng = self._rng = np.random.RandomState(seed)
        pick = self._pick
        n, k = int(pick(20, 43, 60, 150)), int(pick(2, 2, 3, 4, 5))
        d = int(pick(1, 3, 7, 12, 30, 80))
        storage = pick("float64", "float64", "float32", "uint8", "int8", "float16",
                       "csr64", "csr32", "csr32")  # fmt: skip
        if storage.startswith("csr") and rng.rand() < 0.15:
            d = int(pick(2100, 3189, 4200))
        X = rng.randn(n, d)
        kind = pick("plain", "plain", "scales", "lognormal")
        X = {"plain": X, "scales": X * np.exp(2 * rng.randn(d)), "lognormal": np.exp(X)}[kind]
        logits = X @ rng.randn(d, k) * pick(0, 1, 1, 3) / np.sqrt(d)
        offset = pick(0, 0, 0, 10, 1e3, 1e4, 1e6, 1.7e9)
        offset = offset * rng.rand(d) if rng.rand() < 0.5 else offset
        self.X = self._stored(X * pick(1, 1, 1, 0.01, 30, 1e4) + offset, storage)
        self.y = (logits + rng.gumbel(size=(n, k))).argmax(axis=1)
        self.y[:k] = np.arange(k)
        if rng.rand() < 0.15:
            self.y = rng.dirichlet(np.ones(k), n)
        self.row_weights = 3 * rng.rand(n) if rng.rand() < 0.25 else None
        self.params = self._parameters(d * k, storage)

    def _pick(self, *choices):
        return choices[self._rng.randint(len(choices))]

    def _stored(self, X, storage):
        match storage:
            case "uint8":
                return np.clip(10 * X + 30, 0, 255).astype(np.uint8)
            case "int8":
                return np.clip(10 * X, -128, 127).astype(np.int8)
            case "float16":
                return np.clip(X, -1e4, 1e4).astype(np.float16)
            case "csr32" | "csr64":
                X = np.where(self._rng.rand(*X.shape) < self._pick(0.03, 0.1, 0.4), X, 0.0)
                return sparse.csr_array(X.astype(np.float32 if storage == "csr32" else float))
        return X.astype(storage)

    def _parameters(self, n_params, storage):
        rng, pick = self._rng, self._pick
        params = {
            "C": float(pick(1e-3, 0.1, 1, 1, 10, 100, 1e4)),
            "fit_intercept": bool(rng.rand() < 0.6),
            "tol": float(pick(1e-4, 1e-6, 1e-6, 1e-8, 1e-10)),
            "max_iter": int(pick(300, 300, 100, 5)),
        }
        if rng.rand() < 0.4:
            params["standardize"] = True
        elif rng.rand() < 0.2:
            params["input_scale"] = float(pick(0.1, 1 / 255, 3))
        if rng.rand() < 0.2:
            params["label_smoothing"] = float(pick(0.01, 0.1, 0.5))
        if rng.rand() < 0.35:
            return params | {"l1_ratio": float(pick(0.01, 0.5, 0.5, 1, 1))}
        solver = pick("auto", "auto", "auto", "lbfgs", "newton-cholesky")
        if n_params > 500:
            solver = "auto"
        if rng.rand() < 0.05 and n_params < 500:
            solver, params["max_iter"] = "sgd", 5
            params |= {"learning_rate": 1e-3 / max(1.0, float(abs(self.X).max())) ** 2}
            params |= {"random_state": 0, "standardize": storage[:3] != "csr"}
        return params | {"solver": solver}


def _check_random(seed):
    fit = RandomFit(seed)
    check(FastSoftmax(**fit.params), fit.X, fit.y, fit.row_weights)


@pytest.mark.parametrize("seed", range(40))
def test_random_fits(seed):
    _check_random(seed)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("first", range(40, 2040, 50))
def test_many_random_fits(first):
    for seed in range(first, first + 50):
        try:
            _check_random(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {RandomFit(seed).params}") from error


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [2000.0, 1.7e9])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_shifted_features_without_an_intercept(real, offset, l1_ratio):
    """The bound was that of coefficients before they are rounded, and of a rounded mean."""
    rng = np.random.RandomState(0)
    X = (rng.randn(150, 4) * max(10.0, 1e-4 * offset) + offset).astype(real)
    y = (X[:, :3] - offset + 20 * rng.randn(150, 3)).argmax(axis=1)
    for C in (0.1, 1.0, 100.0):
        options = {"C": C, "l1_ratio": l1_ratio, "standardize": True, "fit_intercept": False}
        check(FastSoftmax(tol=1e-6, **options), X, y)


@pytest.mark.parametrize(
    "n_rows, n_features, density, l1_ratio",
    [(150, 3189, 0.05, 0.5), (150, 3189, 0.02, 1.0), (60, 4200, 0.1, 0.5), (60, 4200, 0.05, 1.0)],
)
def test_wide_sparse_float32_rows(n_rows, n_features, density, l1_ratio):
    """Rounds of a working set were judged in float32, whose gap did not fall: they did not end."""
    rng = np.random.RandomState(1)
    X = sparse.random(
        n_rows, n_features, density, "csr", np.float32, rng, data_rvs=rng.standard_normal
    ).astype(np.float32)
    y = rng.randint(0, 4, n_rows)
    model = FastSoftmax(C=10, l1_ratio=l1_ratio, tol=1e-8, max_iter=300)
    check(model, X, y)
    assert model.converged_


def test_wide_sparse_float32_rows_without_a_1_norm():
    """Float32 was all there was for sparse rows of more than 2048 features."""
    rng = np.random.RandomState(1)
    X = sparse.random(300, 2500, 0.02, "csr", random_state=rng, data_rvs=rng.standard_normal)
    X, y = X.astype(np.float32), rng.randint(0, 3, 300)
    model = FastSoftmax(C=10, tol=1e-9)
    check(model, X, y)
    assert model.converged_


def _lognormal(rng):
    logs = rng.randn(600, 60) * rng.uniform(1, 2, 60)
    return np.exp(logs), logs


def _missing(where):
    def features(rng):
        X = rng.randn(600, 60)
        return np.where(where(rng, X.shape), -9999.0, X), X

    return features


@pytest.mark.parametrize(
    "features",
    [
        _lognormal,
        _missing(lambda rng, shape: rng.rand(*shape) < 0.02),
        _missing(lambda rng, shape: rng.rand(shape[0], 1) < 0.02),
    ],
    ids=["lognormal", "-9999 in entries", "-9999 in rows"],
)
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_1_norm_of_features_that_differ(features, l1_ratio):
    """Orthant-wise steps made no progress: 1000 iterations to a gap of 0.4."""
    rng = np.random.RandomState(0)
    X, plain = features(rng)
    y = (plain @ rng.randn(60, 3) + rng.gumbel(size=(600, 3))).argmax(axis=1)
    # (float64 ends at 4e-4 with l1_ratio=1 and C=100 where whole rows are -9999)
    for C in (1.0, 10.0 if (X < 0.0).all(axis=1).any() else 100.0):
        model = FastSoftmax(C=C, l1_ratio=l1_ratio).fit(X, y)
        assert model.converged_
        assert true_gap(model, X, y) <= model.gap_ + _ROUNDING


def test_a_bound_of_1_is_called_nothing():
    """It was "certified to a relative gap of 1.0e+00"."""
    X = np.random.default_rng(0).normal(size=(60, 3)) ** 3 * 1e9
    y = np.arange(60) % 3
    with pytest.warns(
        ConvergenceWarning, match=r"nothing could be certified \(tol=0.0001\)"
    ) as told:
        model = FastSoftmax(C=1e6, max_iter=1, solver="lbfgs", fit_intercept=False).fit(X, y)
    assert model.gap_ > 0.95
    assert "Raise max_iter" in str(told[0].message)
    with pytest.warns(ConvergenceWarning, match=r"of the one at C=1e\+06 nothing could be certif"):
        fastsoftmax_path(X, y, [1e6], max_iter=1, fit_intercept=False)
