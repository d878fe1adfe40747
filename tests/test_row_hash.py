"""Numbers for the contents of rows: the same in every storage, others for other rows."""

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax._estimator import row_hash
from fastsoftmax._estimator.row_hash import row_hashes


def hashes_of(X, seed=0):
    return row_hashes(X, np.random.RandomState(seed))


@pytest.fixture(params=[1, 7, 1 << 15])
def block_numbers(request, monkeypatch):
    monkeypatch.setattr(row_hash, "_BLOCK_NUMBERS", request.param)


@pytest.fixture
def X(rng):
    return rng.integers(0, 3, (60, 5)).astype(float)


@pytest.mark.usefixtures("block_numbers")
def test_storage_does_not_matter(X):
    expected = hashes_of(X)
    assert expected.dtype == np.uint64
    for dtype in (np.float32, np.float16, np.uint8, np.int8):
        np.testing.assert_array_equal(hashes_of(X.astype(dtype)), expected)
    for other in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], sparse.csr_array(X)):
        np.testing.assert_array_equal(hashes_of(other), expected)
    wide = sparse.csr_array(X.astype(np.float32))
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    np.testing.assert_array_equal(hashes_of(wide), expected)


@pytest.mark.usefixtures("block_numbers")
def test_place_does_not_matter(X, rng):
    order = rng.permutation(60)
    np.testing.assert_array_equal(hashes_of(X[order]), hashes_of(X)[order])
    np.testing.assert_array_equal(hashes_of(X[3:4]), hashes_of(X)[3:4])


def test_equal_where_rows_are(X):
    _, rows = np.unique(X, axis=0, return_inverse=True)
    _, hashes = np.unique(hashes_of(X), return_inverse=True)
    same = rows.ravel()[:, np.newaxis] == rows.ravel()
    np.testing.assert_array_equal(hashes[:, np.newaxis] == hashes, same)


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(100_000.0)[:, np.newaxis],
        (np.arange(1 << 14)[:, np.newaxis] >> np.arange(14)) & 1,
        np.eye(500),
        2.0 ** np.arange(-1000, 1000)[:, np.newaxis],
    ],
    ids=["numbers", "bits", "unit vectors", "powers of 2"],
)
def test_round_numbers_do_not_collide(rows):
    """The bits of round numbers end in zeros, which a product modulo 2^64 keeps."""
    assert len(np.unique(hashes_of(rows))) == len(rows)


def test_negative_zero():
    assert hashes_of(np.array([[-0.0, 1.0]])) == hashes_of(np.array([[0.0, 1.0]]))
    assert hashes_of(sparse.csr_array(([-0.0], [0], [0, 1]), shape=(1, 2))) == hashes_of(
        np.zeros((1, 2))
    )


def test_csr_as_it_comes():
    """Indices in any order, twice, and a zero that is stored; nothing is written to."""
    parts = np.array([1.0, 2.0, 0.5, 0.0]), np.array([3, 0, 3, 1]), np.array([0, 0, 4, 4])
    for part in parts:
        part.flags.writeable = False
    X = sparse.csr_array(parts, shape=(3, 4))
    np.testing.assert_array_equal(hashes_of(X), hashes_of(X.toarray()))
    assert X.nnz == 4
    assert X.indices.tolist() == [3, 0, 3, 1]


def test_another_seed_another_order(X):
    first, second = (np.argsort(hashes_of(np.arange(50.0)[:, np.newaxis], s)) for s in (0, 1))
    assert (first != second).any()
    np.testing.assert_array_equal(hashes_of(X), hashes_of(X))


def test_the_order_is_a_random_one():
    """A line of numbers must not be cut in two: half of either end comes first."""
    ranks = np.argsort(np.argsort(hashes_of(np.arange(10_000.0)[:, np.newaxis])))
    first = np.flatnonzero(ranks < 1000)
    assert abs(np.mean(first) - 5000) < 400  # 4 standard errors
    assert np.bincount(first // 1000, minlength=10).min() > 60
