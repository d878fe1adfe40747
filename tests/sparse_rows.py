"""Random sparse matrices, by any scipy that is supported."""

import numpy as np
import scipy
from scipy import sparse

# Names its argument after SPEC 7 from scipy 1.15 on.
_RNG = "rng" if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 15) else "random_state"


def random_array(shape, *, rng, **keywords):
    """As `scipy.sparse.random_array`, with the newer name of its random numbers.

    Indices of CSR and CSC have 32 bits, as in newer releases: scipy 1.13 makes them of 64 bits.
    """
    made = sparse.random_array(shape, **{_RNG: rng}, **keywords)
    for name in ("indices", "indptr"):
        if hasattr(made, name):
            setattr(made, name, getattr(made, name).astype(np.int32))
    return made
