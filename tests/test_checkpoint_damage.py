"""Checkpoints whose members are sound one by one, and numbers in them that cannot be."""

import io
import itertools
import warnings
import zipfile

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax

SOLVERS = {
    "lbfgs": {"solver": "lbfgs"},
    "newton": {"solver": "newton-cholesky"},
    "elastic net": {"l1_ratio": 0.5},
    "sgd": {"solver": "sgd", "momentum": 0.9, "random_state": 0},
    "early stopping": {"solver": "lbfgs", "early_stopping": True, "random_state": 0},
}
NUMBERS = [-1, 0, 7, 0.5, 2**31, 2**60, np.nan, np.inf, -np.inf, 1e308]


def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3


@pytest.fixture(params=SOLVERS)
def fit(request, tmp_path):
    """A fit that goes on from a file, and the file."""
    path, options = tmp_path / "state.npz", {**SOLVERS[request.param], "tol": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        FastSoftmax(max_iter=3, **options).fit(*rows(), checkpoint=path)
    return FastSoftmax(max_iter=6, **options), path


def replaced(path, change):
    """Change the numbers of a file by their names; returns the names that were changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = []
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            array = np.load(io.BytesIO(data))
            value = change(name.removesuffix(".npy"), array)
            if value is not None:
                changed.append(name)
                file = io.BytesIO()
                np.lib.format.write_array(file, np.asarray(value, array.dtype), (1, 0))
                data = file.getvalue()
            archive.writestr(name, data)
    return changed


@pytest.mark.parametrize("number", [-1, -(2**60), 2**31, 2**60])
def test_numbers_of_iterations_that_cannot_be(fit, number):
    """Regression: an OverflowError at the end of the fit, or a fit from its start."""
    model, path = fit

    def change(name, array):
        return number if name.endswith(("n_iter", "n_epochs")) else None

    assert replaced(path, change)
    with pytest.raises(ValueError, match=rf"{path.name}.*damaged.* is no count"):
        model.fit(*rows(), resume=path)
    assert not hasattr(model, "coef_")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_iter", [3, 6])
def test_any_number_in_any_place(fit, max_iter, tmp_path):
    """An error that names the file, or a fit whose result is finite: no other exception."""
    model, path = fit
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    for name, number in itertools.product(names, NUMBERS):
        path.write_bytes(sound)

        def change(key, array, name=name, number=number):
            if key != name or array.dtype.kind not in "iuf" or not array.size:
                return None
            if array.dtype.kind != "f":
                limits = np.iinfo(array.dtype)
                if not limits.min <= number <= limits.max:
                    return None
            array = array.copy()
            with np.errstate(over="ignore"):
                array.reshape(-1)[-1] = number
            return array

        if not replaced(path, change):
            continue
        again = clone(model).set_params(max_iter=max_iter)
        try:
            again.fit(*rows(), resume=path)
        except ValueError as error:
            # (steps from other numbers may be too long)
            assert path.name in str(error) or "sgd' diverged" in str(error), (name, number)
            assert not hasattr(again, "coef_"), (name, number)
        else:
            finite = np.isfinite(again.coef_).all() and np.isfinite(again.intercept_).all()
            assert finite, (name, number)
