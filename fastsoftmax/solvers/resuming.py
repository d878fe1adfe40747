"""Whether a run that goes on is of the same objective as the one that left its state.

Where the objective is the same to the last bit, so are all steps that come after.
"""

from fastsoftmax.blas import inner
from fastsoftmax.solvers.lower_bound import ROUNDING
from fastsoftmax.solvers.protocols import E, Objective
from fastsoftmax.solvers.record import State, number_in

# Values of the same objective differ by at most so many times what rounding usually does, on
# processors with other instructions, or where rows are cut into other shards.
_MOST = 16.0
# As a share of the value, in float64: what is lost in a logit may be more than what a value shows.
_FLOAT64 = 1e-10


class OtherObjective(ValueError):
    """A state is of another objective."""

    def __init__(self, value: float, left: float) -> None:
        super().__init__(f"the objective at its point was {left:.9g} and is {value:.9g} now")


def seen_at(at: E) -> State:
    """Return what tells an objective by its evaluation."""
    return {"value": at.value, "slope": inner(at.gradient, at.gradient)}


def is_same(objective: Objective[E], at: E, left: State) -> bool:
    """Whether an evaluation is to the last bit the one that was left.

    False where rounding may explain the difference; an `OtherObjective` where it cannot.
    """
    value = number_in(left, "value")
    if at.value == value and inner(at.gradient, at.gradient) == number_in(left, "slope"):
        return True
    rounding = ROUNDING * max(objective.epsilon, _FLOAT64) * abs(value) + objective.noise(at)
    if not abs(at.value - value) <= _MOST * rounding:
        raise OtherObjective(at.value, value)
    return False
