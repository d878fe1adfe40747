"""NaN, infinities and numbers whose sums overflow, in features."""

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import FastSoftmax
from fastsoftmax._estimator import features


@pytest.fixture
def data(rng):
    return rng.normal(size=(90, 4)), np.arange(90) % 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"fit_intercept": False},
        {"standardize": True},
        {"solver": "sgd", "max_iter": 1},
        {"class_weight": {0: 0.0}},
        {"early_stopping": True},
        {"l1_ratio": 1.0},
    ],
    ids=str,
)
def test_every_fit_refuses_what_is_not_finite(data, value, form, parameters):
    """The means of the features tell in some fits, a search in others."""
    X, y = data
    X[30, 1] = value  # of class 0
    for sample_weight in (None, np.where(np.arange(90) == 30, 0.0, 1.0)):
        with pytest.raises(ValueError, match="NaN" if np.isnan(value) else "infinity"):
            FastSoftmax(**parameters).fit(form(X), y, sample_weight)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("row", [0, 63, 64, 89])
def test_every_block_is_searched(data, form, row, monkeypatch):
    monkeypatch.setattr(features, "_BLOCK_NUMBERS", 16)
    X, _ = data
    X[row, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        features.check_finite(form(X), FastSoftmax())


def test_finite_features_whose_sums_are_not(data):
    X, y = data
    X[:, 0] = 2e38
    assert np.isfinite(FastSoftmax(tol=0.1).fit(X.astype(np.float32), y).coef_).all()
    X[:, 0] = 1e308
    with pytest.raises(ValueError, match="the fit found no finite coefficients"):
        FastSoftmax().fit(X, y)
