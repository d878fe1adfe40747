"""Whole fits to the same gap, on small data."""

import fits
import pytest
from harness import entries

PROBLEMS = [
    {"name": "iris", "gap": 1e-8},
    {"name": "wine", "gap": 1e-8},
    {"name": "breast_cancer", "gap": 1e-8},
    {"name": "digits", "gap": 1e-8},
    {"name": "fashion sample", "gap": 1e-4},
]


# Rivals warn of the very troubles that make them slow.
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@entries(fits.fit_to_optimum, PROBLEMS, fits.CONTESTANTS)
def test_fit(entry, contestant, timed, scale):
    if scale < 0.1 and entry[1]["name"] != "iris":
        pytest.skip("rivals take their time at any scale")
    timed(entry, contestant)
