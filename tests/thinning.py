"""Which tests a quick run takes, of the many that differ in their parameters alone."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

# Tests of a function that are always run, whatever their parameters.
MOST = 12


def repeats(parameters: Mapping[str, Mapping[str, int]]) -> set[str]:
    """Return names of tests that combine values of parameters only as others do, two by two.

    parameters has, for each test of one function by its name, a number for the value of each of its
    parameters. Every pair of values is in a test that is left, mostly in one: faults of three
    values at once are rare, and the whole run finds them. The choice is the same in every run.
    """
    if len(parameters) <= MOST:
        return set()
    pairs = {
        name: set(combinations(sorted(values.items()), min(2, len(values))))
        for name, values in parameters.items()
    }
    order = sorted(pairs, key=lambda name: zlib.crc32(name.encode()))
    seen: set[tuple[tuple[str, int], ...]] = set()
    kept: set[str] = set()
    # first those of which much is new, which leaves less for the others
    for least in (1.0, 0.6, 0.0):
        for name in order:
            new = pairs[name] - seen
            if name not in kept and new and len(new) >= least * len(pairs[name]):
                kept.add(name)
                seen |= pairs[name]
    return set(parameters) - kept


def groups_of(tests: Iterable[tuple[str, Mapping[str, int]]]) -> list[dict[str, Mapping[str, int]]]:
    """Return tests, (name, parameters) each, by their function: its part of the name."""
    groups: dict[str, dict[str, Mapping[str, int]]] = defaultdict(dict)
    for name, parameters in tests:
        groups[name.partition("[")[0]][name] = parameters
    return list(groups.values())
