"""What the functions and the estimator do with their arguments in common: layouts."""

import numpy as np
import pytest

from fastsoftmax import FastSoftmax
from fastsoftmax._arguments import adjacent_rows, features_in_place


def unaligned(x):
    """A copy of x, contiguous, one byte beyond an address that its type may have."""
    memory = np.empty(x.nbytes + 1, dtype=np.uint8)
    moved = memory[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


# All arrays are of the values of the argument, a C-contiguous one.
READ_IN_PLACE = {
    "contiguous": lambda x: x,
    "rows apart": lambda x: np.repeat(x, 2, axis=0)[::2],
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "columns of more": lambda x: np.hstack([x, x])[:, : x.shape[1]],
}
COPIED = {
    "columns first": np.asfortranarray,
    "columns apart": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": unaligned,
}


@pytest.mark.parametrize("layout", READ_IN_PLACE)
def test_rows_read_in_place(layout, real, rng):
    x = READ_IN_PLACE[layout](rng.normal(size=(7, 3)).astype(real))
    assert adjacent_rows(x) is x


@pytest.mark.parametrize("layout", COPIED)
def test_rows_copied(layout, real, rng):
    x = rng.normal(size=(7, 3)).astype(real)
    copy = adjacent_rows(COPIED[layout](x))
    assert copy.dtype == x.dtype
    assert copy.flags.c_contiguous
    assert copy.flags.aligned
    np.testing.assert_array_equal(copy, x)


@pytest.mark.parametrize("layout", [*READ_IN_PLACE, *COPIED])
def test_features_read_in_place(layout, real, rng):
    x = rng.normal(size=(7, 3)).astype(real)
    other = (READ_IN_PLACE | COPIED)[layout](x)
    readable = features_in_place(other)
    assert (readable is other) == (layout not in ("other byte order", "unaligned"))
    assert readable.dtype.isnative
    assert readable.flags.aligned
    np.testing.assert_array_equal(readable, other)


@pytest.mark.parametrize("layout", [*READ_IN_PLACE, *COPIED])
def test_layouts_give_one_fit(layout, rng):
    # Unaligned rows that were contiguous otherwise were once not copied, and the kernels refused.
    x = rng.normal(size=(40, 3))
    y = x.argmax(axis=1)
    other = (READ_IN_PLACE | COPIED)[layout](x)
    expected, actual = (FastSoftmax().fit(X, y, eval_set=[(X, y)]) for X in (x, other))
    # Not equal bits: numpy's products of centres and moments depend on strides.
    np.testing.assert_allclose(actual.coef_, expected.coef_, rtol=1e-9)
    np.testing.assert_allclose(actual.predict_proba(other), expected.predict_proba(x), rtol=1e-9)
