"""Random sparse matrices, by any scipy that is supported."""

import scipy
from scipy import sparse

# Names its argument after SPEC 7 from scipy 1.15 on.
_RNG = "rng" if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 15) else "random_state"


def random_array(shape, *, rng, **keywords):
    """As `scipy.sparse.random_array`, with the newer name of its random numbers."""
    return sparse.random_array(shape, **{_RNG: rng}, **keywords)
