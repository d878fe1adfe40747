"""Evaluations of a fit to batches, which its checkpoint holds for the fit that goes on from there.

A fit that goes on needs a survey of all rows, an evaluation at the point that was left, and one at
the next point. It reads the rows once for all of them: the checkpoint says what was asked last, and
how batches became shards then, so that the first pass can ask the same. Its answers count only
where its survey finds that batches become the same shards now. Where they do not, and where another
answer is needed, the rows are read for it, as in any other fit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._estimator.batch_source import Batch
from fastsoftmax._estimator.checkpoint import Checkpoint
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._streaming.streamed import Recipe, recipe_of, shard_of
from fastsoftmax._streaming.survey import Found
from fastsoftmax.arrays import Array
from fastsoftmax.columns import numbers_of
from fastsoftmax.shards import protocol, tree
from fastsoftmax.shards.curvature import diagonals
from fastsoftmax.shards.shard import Sums, add_sums
from fastsoftmax.shards.spread import add_moments
from fastsoftmax.solvers.record import Damaged, State, array_in, count_in, number_in, part_of

# Questions that a fit that goes on repeats, each with what adds up the answers: evaluations, and
# what a problem and a solver are made from.
_EVALUATIONS = ("loss_grad", "centered_loss_grad")
_QUESTIONS: dict[str, tuple[Callable[..., Any], tree.Add]] = {
    "loss_grad": (protocol.loss_grad, add_sums),
    "centered_loss_grad": (protocol.centered_loss_grad, add_sums),
    "moments": (protocol.moments, add_moments),
    "feature_sums": (protocol.feature_sums, tree.plus),
    "squares": (protocol.squares, tree.plus),
    "sums_from": (protocol.sums_from, tree.plus),
    "centered_sums": (protocol.centered_sums, tree.plus),
    "target_entropy": (protocol.target_entropy, tree.plus),
    "diagonals": (diagonals, tree.plus),
}
# Most evaluations that are noted: the point that was left, and the first ones of a line search. And
# most others, the latest ones.
_MOST, _MOST_OTHERS = 4, 8
# Kinds of labels that a file can hold. (With others a fit that goes on takes two passes more.)
_LABELS = "biufU"


class Asked(NamedTuple):
    """A question to all shards."""

    name: str
    args: tuple[Any, ...]  # arrays and integers

    def is_same(self, other: "Asked") -> bool:
        """Whether both have the same answer."""
        same_args = len(self.args) == len(other.args) and all(map(_are_same, self.args, other.args))
        return self.name == other.name and same_args


class Evaluations:
    """What a fit asks all its shards, and those answers that its first pass has found."""

    def __init__(
        self, estimator: FitParameters, checkpoint: Checkpoint | None, classes: Any
    ) -> None:
        self._estimator, self._checkpoint, self._classes = estimator, checkpoint, classes
        self._asked: list[Asked] = []
        self._others: list[Asked] = []
        self._n_left = 0  # states that the solver had left when the latest was asked
        self._shards: State = {}
        self._foreseen: _Foreseen | None = None
        if checkpoint is not None:
            checkpoint.beside = self._state
            with checkpoint.refusing():
                self._foreseen = _foreseen(estimator, checkpoint.left_beside, classes)

    def see(self, batch: Batch) -> None:
        """Ask a batch of the first pass what a fit that goes on will ask."""
        if self._foreseen is not None and not self._foreseen.see(batch):
            self._foreseen = None  # (what is wrong is told as in any other fit)

    def surveyed(self, found: Found) -> None:
        """See what the first pass has found."""
        recipe = recipe_of(self._classes, found)
        if self._foreseen is not None and not self._foreseen.is_of(recipe, found.n_batches):
            self._foreseen = None
        if recipe.classes.dtype.kind in _LABELS:
            self._shards = _of_shards(recipe, found.n_batches)

    def answer(self, question: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return the sum of all answers if it is known. If None, the rows are read now."""
        if question.__name__ not in _QUESTIONS or self._checkpoint is None:
            return None
        asked = Asked(question.__name__, args)
        known = None if self._foreseen is None else self._foreseen.taken(asked)
        if asked.name not in _EVALUATIONS:
            self._note_other(asked)
            return known
        if self._checkpoint.n_left != self._n_left:  # the latest is the point that was left
            del self._asked[:-1]
            self._n_left = self._checkpoint.n_left
        if len(self._asked) < _MOST:
            self._asked.append(asked)
        if known is None:
            self._checkpoint.before_pass()
        return known

    def _note_other(self, asked: Asked) -> None:
        """Note what was asked, in place of the same, or of the curvature at an earlier point."""
        kept = [
            other
            for other in self._others
            if not (other.is_same(asked) or other.name == asked.name == diagonals.__name__)
        ]
        self._others = [*kept[1 - _MOST_OTHERS :], asked]

    def _state(self) -> State:
        if not self._shards:
            return {}
        asked = enumerate(self._others + self._asked)
        return {"shards": self._shards, "asked": {str(i): _state_of(each) for i, each in asked}}


class _Foreseen:
    """Answers of all shards to what will be asked, added up while the rows are read."""

    def __init__(
        self, estimator: FitParameters, recipe: Recipe, n_batches: int, asked: list[Asked]
    ) -> None:
        self._estimator, self._recipe, self._n_batches = estimator, recipe, n_batches
        self._asked = [(each, tree.Tree(n_batches, _QUESTIONS[each.name][1])) for each in asked]
        self._n_seen = 0
        self._number: Array | None = None

    def see(self, batch: Batch) -> bool:
        """Ask the next batch. Returns whether it has answers that can be added."""
        if self._n_seen == self._n_batches:
            return False
        columns = self._recipe.columns
        try:
            if columns is not None and self._number is None:
                self._number = numbers_of(columns, self._estimator.n_features_in_)
            shard = shard_of(self._estimator, batch, self._recipe, self._number)
            for asked, answers in self._asked:
                with np.errstate(over="ignore", invalid="ignore"):
                    answer = _QUESTIONS[asked.name][0](shard, *asked.args)
                    answers.put(tree.Node(0, self._n_seen), answer)
        except (ValueError, TypeError, IndexError):
            return False
        self._n_seen += 1
        return True

    def is_of(self, recipe: Recipe, n_batches: int) -> bool:
        """Whether the answers are those of all shards, as these are made."""
        if self._n_batches != n_batches or self._n_seen != n_batches:
            return False
        pairs = zip(self._recipe[1:], recipe[1:], strict=True)  # (the first is this fit's anyway)
        return all(map(_are_same, *zip(*pairs, strict=True)))

    def taken(self, asked: Asked) -> Any:
        """Return the answer to a question, once; None where there is none."""
        for i, (own, answers) in enumerate(self._asked):
            if own.is_same(asked):
                del self._asked[i]
                ((_, total),) = answers.sums()
                is_finite = not isinstance(total, Sums) or np.isfinite(total.loss)
                return total if is_finite else None  # (what reads the rows tells the place)
        return None


def _are_same(ours: Any, theirs: Any) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    a, b = np.asarray(ours), np.asarray(theirs)
    return a.dtype == b.dtype and np.array_equal(a, b)


# ---- what a checkpoint holds ----


def _of_shards(recipe: Recipe, n_batches: int) -> State:
    state: State = {
        "classes": recipe.classes,
        "mean": recipe.mean,
        "real": str(recipe.real),
        "n_batches": n_batches,
    }
    optional = {"by_class": recipe.by_class, "columns": recipe.columns}
    return state | {name: array for name, array in optional.items() if array is not None}


def _foreseen(estimator: FitParameters, left: State, classes: Any) -> _Foreseen | None:
    """Return what a fit will ask that goes on from a state; None where the state does not say."""
    if "shards" not in left:
        return None
    shards, asked = part_of(left, "shards"), part_of(left, "asked")
    try:
        real = np.dtype(str(np.asarray(shards["real"]).item()))
        optional = [
            array_in(shards, name) if name in shards else None for name in ("by_class", "columns")
        ]
        known = np.asarray(shards["classes"])
        recipe = Recipe(classes, known, optional[0], number_in(shards, "mean"), real, optional[1])
        questions = [_asked_in(part_of(asked, number)) for number in sorted(asked)]
        return _Foreseen(estimator, recipe, count_in(shards, "n_batches"), questions)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"what it says of the rows is of no use: {error}") from error


def _state_of(asked: Asked) -> State:
    return {"name": asked.name, **{str(i): arg for i, arg in enumerate(asked.args)}}


def _asked_in(state: State) -> Asked:
    name = str(np.asarray(state["name"]).item())
    if name not in _QUESTIONS:
        raise Damaged(f"it asks {name!r}")
    args = []
    for i in range(len(state) - 1):
        array = array_in(state, str(i), (None,) * np.ndim(state[str(i)]))
        args.append(array if array.ndim else array.item())
    return Asked(name, tuple(args))
