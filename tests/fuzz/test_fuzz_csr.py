"""CSR arrays that are broken: an error, never a crash or a number from elsewhere.

All checks are in the bridge: C takes what has been checked. Under AddressSanitizer
(tests/c/python.sh) a check that is missing shows at once.
"""

from itertools import pairwise

import numpy as np
import pytest
from fuzz_rows import seeds
from fuzz_settings import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fastsoftmax import FastSoftmax, reference

# What an element may become: beyond the ends of both index types, and near the sizes.
_WRONG = [-1, -(2**31), 2**31 - 1, -(2**63), 2**63 - 1, 2**31, 2**32, 0, 1, 5, 6, 7, 20, 21]


def _whole(draw, rng):
    """Arrays of a sound matrix."""
    n, d = draw(st.sampled_from([0, 1, 2, 5, 40])), draw(st.sampled_from([1, 3, 6, 50]))
    n_entries = draw(st.sampled_from([0, 1, 7, 60])) if n else 0
    index = draw(st.sampled_from([np.int32, np.int64]))
    real = draw(st.sampled_from([np.float32, np.float64]))
    cuts = np.sort(rng.integers(0, n_entries + 1, max(0, n - 1)))
    indptr = np.concatenate([[0], cuts, [n_entries]])[: n + 1].astype(index)
    indices = rng.integers(0, d, n_entries).astype(index)
    return rng.standard_normal(n_entries).astype(real), indices, indptr, d


def _broken(draw, array):
    """An array with something wrong, or not."""
    kind = draw(st.sampled_from(["element", "element", "cut", "longer", "dtype", "shape", "stride",
                                 "byte order", "read-only", "none", "none"]))  # fmt: skip
    if kind == "element" and array.size:
        array = array.copy()
        value = draw(st.sampled_from(_WRONG))
        place = draw(st.integers(0, array.size - 1))
        if array.dtype.kind == "f" or abs(value) <= np.iinfo(array.dtype).max:
            array[place] = value
    elif kind == "cut":
        array = array[: draw(st.integers(0, array.size))].copy()
    elif kind == "longer":
        array = np.append(array, array[-1:]).astype(array.dtype)
    elif kind == "dtype":
        array = array.astype(draw(st.sampled_from(["i1", "u4", "u8", "i8", "i4", "f4", "f8", "O"])))
    elif kind == "shape":
        array = array.reshape(1, -1)
    elif kind == "stride":
        array = np.repeat(array, 2)[::2]
    elif kind == "byte order":
        array = array.astype(array.dtype.newbyteorder())
    elif kind == "read-only":
        array = array.copy()
        array.flags.writeable = False
    return array


@st.composite
def matrices(draw):
    """Draw data, indices, indptr and the number of features, any of them broken."""
    data, indices, indptr, d = _whole(draw, np.random.default_rng(draw(seeds)))
    which = draw(st.sampled_from(["data", "indices", "indices", "indptr", "indptr", "n", "none"]))
    data = _broken(draw, data) if which == "data" else data
    indices = _broken(draw, indices) if which == "indices" else indices
    indptr = _broken(draw, indptr) if which == "indptr" else indptr
    if which == "n":
        d = draw(st.sampled_from([*_WRONG, 2**62]))
    return data, indices, indptr, d


def _numbers_are_sound(data, indices, indptr, d):
    starts, places = [int(i) for i in indptr], [int(j) for j in indices]
    if not starts or not 0 <= d < 2**31:
        return False
    ascends = all(a <= b for a, b in pairwise(starts))
    if not (ascends and starts[0] >= 0 and starts[-1] <= min(len(places), len(data))):
        return False
    return all(0 <= j < d for j in places[starts[0] : starts[-1]])


def _is_sound(data, indices, indptr, d):
    arrays = (data, indices, indptr)
    plain = all(a.ndim == 1 and a.flags.c_contiguous and a.dtype.isnative for a in arrays)
    typed = data.dtype in (np.float32, np.float64) and indices.dtype in (np.int32, np.int64)
    if not (plain and typed and indptr.dtype == indices.dtype):
        return False
    return _numbers_are_sound(*arrays, d)


@examples(400)
@given(arrays=matrices())
def test_the_bridge_takes_sound_ones_alone(kernels, arrays):
    data, indices, indptr, d = arrays
    if not _is_sound(*arrays):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            kernels.CsrRows(data, indices, indptr, d)
        return
    rows = kernels.CsrRows(data, indices, indptr, d)
    assert rows.shape == (len(indptr) - 1, d)
    if d > 10_000:
        return
    weights = np.ones((3, d), data.dtype)
    bias = np.zeros(3, data.dtype)
    found = np.full((len(indptr) - 1, 3), np.nan, data.dtype)
    kernels.affine_rows(found, rows, weights, bias)
    expected = np.full_like(found, np.nan)
    reference.affine_rows(expected, reference.CsrRows(data, indices, indptr, d), weights, bias)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def _matrix(data, indices, indptr, d):
    """A matrix of scipy with these arrays, which it has not checked."""
    matrix = sparse.csr_array((max(0, len(np.ravel(indptr)) - 1), d), dtype=np.float64)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    return matrix


@examples(150)
@given(arrays=matrices())
def test_fits_and_predictions(arrays):
    d = arrays[3]
    if not 0 < d < 10_000:
        return
    X = _matrix(*arrays)
    n = X.shape[0]
    model = FastSoftmax(max_iter=3, tol=1.0).fit(np.eye(d)[[0] * 2], [0, 1])
    y = np.arange(n) % 2
    for call in (
        lambda: FastSoftmax(max_iter=3, tol=1.0).fit(X, y),
        lambda: FastSoftmax().partial_fit(X, y, classes=[0, 1]),
        lambda: model.predict_proba(X),
    ):
        try:
            call()
        except (ValueError, TypeError):
            continue
        one_dimensional = all(np.ndim(a) == 1 for a in arrays[:3])
        assert one_dimensional and _numbers_are_sound(*arrays), arrays
