"""Whole fits to the same gap, on small data."""

import fits
from harness import entries

PROBLEMS = [
    {"name": "iris", "gap": 1e-8},
    {"name": "wine", "gap": 1e-8},
    {"name": "breast_cancer", "gap": 1e-8},
    {"name": "digits", "gap": 1e-8},
    {"name": "fashion sample", "gap": 1e-4},
]


@entries(fits.fit_to_optimum, PROBLEMS, fits.CONTESTANTS)
def test_fit(entry, contestant, timed):
    timed(entry, contestant)
