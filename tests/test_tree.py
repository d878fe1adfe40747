"""Sums in a fixed tree: who adds what changes no bit."""

import numpy as np
import pytest

from fastsoftmax.shards.tree import Node, Tree, added


def add(a, b):
    """What it adds is told, so that every order of adding is another result."""
    return f"({a}+{b})"


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, "0"), (2, "(0+1)"), (3, "((0+1)+2)"), (5, "(((0+1)+(2+3))+4)")],
)
def test_the_tree(n, expected):
    assert added(add, map(str, range(n))) == expected


@pytest.mark.parametrize("n", [*range(1, 34), 100])
def test_every_way_to_the_same_sum(n, rng):
    """By workers that have any of the leaves, in any order of theirs."""
    expected = added(add, (str(i) for i in range(n)))
    for n_workers in (1, 2, 3, n):
        total = Tree(n, add)
        for places in np.array_split(rng.permutation(n), n_workers):
            own = Tree(n, add)
            for i in places:
                own.put(Node(0, int(i)), str(i))
            for node, value in own.sums():
                assert {*node.leaves(n)} <= {*places.tolist()}
                total.put(node, value)
        (root,) = [value for _, value in total.sums()]
        assert root == expected


def test_few_sums_are_held():
    """Of adjacent leaves one for each level; in order as well."""
    n_held, most = [0], [0]

    def leaf():
        n_held[0] += 1
        most[0] = max(most[0], n_held[0])
        return 1

    def plus(a, b):
        n_held[0] -= 1
        return a + b

    assert added(plus, (leaf() for _ in range(1000))) == 1000
    assert most[0] <= 11
    total = Tree(1024, add)
    for i in range(100, 612):
        total.put(Node(0, i), str(i))
    assert len(list(total.sums())) <= 12


def test_no_shards():
    with pytest.raises(ValueError, match="no shard"):
        added(add, [])
