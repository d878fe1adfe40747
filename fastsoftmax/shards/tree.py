"""Sums over shards in a fixed tree, whoever adds them.

The answers of n shards are the leaves, in their order. Two neighbours are added, the first of them
being of even number; then these sums are, and so on. What has no neighbour on its right goes one
level up as it is. So the sum depends on the number of shards alone, and whoever has the answers of
adjacent shards can add them: a worker sends one sum for its shards, not one for each.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

Add = Callable[[Any, Any], Any]
T = TypeVar("T")


class Node(NamedTuple):
    """A sum in a tree: that of the leaves from place << level on, 1 << level of them at most."""

    level: int
    place: int  # among the nodes of its level

    def leaves(self, n_leaves: int) -> range:
        """Return the numbers of the leaves that it is the sum of."""
        return range(self.place << self.level, min(n_leaves, (self.place + 1) << self.level))


class Tree:
    """Sums of some of n leaves, added up as far as that is possible.

    `add(a, b)` returns the sum of two neighbours, and may use the memory of a.
    """

    def __init__(self, n_leaves: int, add: Add) -> None:
        self._n_leaves, self._add = n_leaves, add
        self._height = max(0, n_leaves - 1).bit_length()
        self._sums: dict[Node, Any] = {}

    def put(self, node: Node, value: Any) -> None:
        """Add a sum, each leaf of which is here for the first time."""
        while node.level < self._height:
            level, other = node.level, node.place ^ 1
            if other << level < self._n_leaves:
                if (level, other) not in self._sums:
                    break
                neighbour = self._sums.pop(Node(level, other))
                first, second = (value, neighbour) if other > node.place else (neighbour, value)
                value = self._add(first, second)
            node = Node(level + 1, node.place >> 1)
        self._sums[node] = value

    def sums(self) -> Iterator[tuple[Node, Any]]:
        """Yield the sums that there are; of all leaves there is one."""
        yield from self._sums.items()


def added(add: Callable[[T, T], T], answers: Iterable[T]) -> T:
    """Return the sum of answers that come in their order; their number need not be known.

    At most one sum of each level is held, so log2(n) of them.
    """
    held: list[tuple[int, T]] = []  # levels, which decrease, and sums
    for answer in answers:
        level, value = 0, answer
        del answer
        while held and held[-1][0] == level:
            level, value = level + 1, add(held.pop()[1], value)
        held.append((level, value))
    if not held:
        raise ValueError("there is no shard to add up")
    _, total = held.pop()
    while held:
        total = add(held.pop()[1], total)
    return total


def plus(a: Any, b: Any) -> Any:
    """Return a + b, element by element where these are tuples or lists, None where either is."""
    if a is None or b is None:
        return None
    if isinstance(a, tuple | list):
        return type(a)(plus(x, y) for x, y in zip(a, b, strict=True))
    return a + b
