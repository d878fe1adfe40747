"""How a run leaves what it needs to go on, and what it goes on from: the state of another one.

After each iteration a run leaves its state: a tree of arrays and numbers that nothing changes
later, so that it may be written at any time. It costs no pass and no copy of an array that is as
long as a point. What can be made again is not in it, such as a preconditioner: only where it was
made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsoftmax.arrays import Array

# By name: arrays, numbers, text, and states of parts.
State = dict[str, Any]


class Damaged(ValueError):
    """A state lacks something, or holds what does not belong together."""


@dataclass(frozen=True)
class Record:
    """Where a run leaves its state, if anywhere, and the state that it goes on from, if any.

    The run empties what it has found.
    """

    leave: Callable[[State], None] | None = None
    found: State | None = None

    def within(self, beside: Callable[[], State]) -> "Record":
        """Return the record of a part of a run; beside is what the whole leaves with it."""
        leave, found = self.leave, self.found

        def leave_both(inside: State) -> None:
            if leave is not None:
                leave({**beside(), "inside": inside})

        return Record(
            None if leave is None else leave_both,
            None if found is None else part_of(found, "inside"),
        )


def part_of(state: State, name: str) -> State:
    """Return the state of a part."""
    part = state.get(name, {})
    if not isinstance(part, dict):
        raise Damaged(f"{name} is no part")
    return part


def array_in(state: State, name: str, shape: tuple[int | None, ...] = (None,)) -> Array:
    """Return an array of numbers, of a shape in which None stands for any length."""
    array = state.get(name)
    if array is None:
        raise Damaged(f"it lacks {name}")
    if isinstance(array, dict) or np.asarray(array).dtype.kind not in "biuf":
        raise Damaged(f"{name} holds no numbers")
    array = np.asarray(array)
    found = array.shape
    if len(found) != len(shape) or any(
        wanted not in (None, size) for size, wanted in zip(found, shape, strict=True)
    ):
        raise Damaged(f"{name} has the shape {found}, not {shape}")
    return array


def finite_in(
    state: State, name: str, shape: tuple[int | None, ...], real: Any = np.float64
) -> Array:
    """Return an array of numbers that are finite, also as numbers of the type real."""
    array = array_in(state, name, shape)
    with np.errstate(over="ignore"):
        if not np.isfinite(array.astype(real)).all():
            raise Damaged(f"{name} is not finite")
    return array


def number_in(state: State, name: str) -> float:
    """Return a number."""
    return float(array_in(state, name, ()))


def count_in(state: State, name: str) -> int:
    """Return an integer of 0 to 2^31 - 1."""
    number = number_in(state, name)
    if not (number.is_integer() and 0.0 <= number < 2.0**31):
        raise Damaged(f"{name} is no count: {number:g}")
    return int(number)
