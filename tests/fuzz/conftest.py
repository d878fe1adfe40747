"""How many examples the fuzzing tests try.

Without a setting they try few, always the same ones. FASTSOFTMAX_FUZZ=100 tries a hundred times as
many, other ones in each run; `--hypothesis-seed=N` chooses which.
"""

from importlib.util import find_spec

import pytest

collect_ignore = ["coverage_guided.py"]  # (a program)
if None in map(find_spec, ("hypothesis", "pandas", "polars", "pyarrow")):
    collect_ignore_glob = ["*.py"]  # of the extra "test"
else:
    from fuzz_settings import FACTOR
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "fastsoftmax",
        deadline=None,
        derandomize=FACTOR == 1.0,
        database=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("fastsoftmax")


@pytest.fixture(autouse=True)
def nothing_printed(capfd):
    """BLAS and LAPACK print what is wrong with their arguments, and go on."""
    yield
    printed = "".join(capfd.readouterr())
    assert "On entry to" not in printed, printed
