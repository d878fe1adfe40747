"""The choice of the tests that a quick run takes."""

from itertools import combinations, product

import pytest
from thinning import MOST, groups_of, repeats


def grid(*sizes, name="test_x"):
    """All combinations of parameters with so many values."""
    return {
        f"{name}[{'-'.join(map(str, values))}]": dict(zip("abcdefg", values, strict=False))
        for values in product(*map(range, sizes))
    }


@pytest.mark.parametrize("sizes", [(3, 2, 5), (3, 2, 5, 10), (2, 2, 2, 2, 2)])
def test_every_pair_of_values_is_left(sizes):
    tests = grid(*sizes)
    left = set(tests) - repeats(tests)
    for (i, m), (j, n) in combinations(enumerate(sizes), 2):
        found = {(tests[name]["abcdefg"[i]], tests[name]["abcdefg"[j]]) for name in left}
        assert found == set(product(range(m), range(n)))
    assert len(left) < 0.7 * len(tests)


def test_a_large_product_becomes_small():
    tests = grid(3, 2, 5, 10)
    assert 50 <= len(tests) - len(repeats(tests)) <= 80
    assert repeats(tests) == repeats(dict(reversed(tests.items())))


@pytest.mark.parametrize("tests", [grid(60), grid(8, 9), grid(2, 2, 3), {"test_y": {}}])
def test_what_repeats_nothing_is_left(tests):
    assert not repeats(tests)


def test_functions_are_told_apart():
    tests = {**grid(2, 3), **grid(4, name="test_z")}
    assert [len(group) for group in groups_of(tests.items())] == [6, 4]
    assert len(grid(2, 2, 3)) == MOST
