"""Shards that are read, one after another, for every question."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastsoftmax._estimator.batch_source import Batch, BatchSource, check_finite, naming
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._estimator.rows import class_weighted, computing_of, make_shard
from fastsoftmax._estimator.targets import Given, Targets, known_targets
from fastsoftmax._streaming.fits import batch_shard
from fastsoftmax._streaming.survey import Found
from fastsoftmax._streaming.totals import named_columns
from fastsoftmax.arrays import Array
from fastsoftmax.columns import numbers_of
from fastsoftmax.shards import protocol, tree
from fastsoftmax.shards.held import Held
from fastsoftmax.shards.protocol import Facts, Survey
from fastsoftmax.shards.rows import with_columns
from fastsoftmax.shards.shard import Shard, Sums, smoothed
from fastsoftmax.threads import read_ahead

# Most bytes of changed shards that are held, and those of a number with its places.
_MOST_HELD, _BYTES_PER_NUMBER = 1 << 27, 16

T = TypeVar("T")
Item = tuple[Batch, Shard]
# Returns the sum of all answers to a question with its arguments; None where that is not known.
Known = Callable[[Callable[..., Any], tuple[Any, ...]], Any]


class Streamed:
    """The shards of a fit to batches, as `protocol.Shards` has them.

    A few are in memory at a time: a thread reads the next ones while the last one is computed on.
    """

    def __init__(
        self,
        read: Callable[[bool], Iterator[Item]],
        facts: Facts,
        survey: Survey,
        known: Known | None = None,
    ) -> None:
        self._read, self._facts, self._survey = read, facts, survey
        self._known = known

    @property
    def like(self) -> Shard:
        """The sample: it is as all shards are."""
        return self._survey.sample

    @property
    def facts(self) -> Facts:
        """As of `protocol.Shards`."""
        return self._facts

    @property
    def survey(self) -> Survey:
        """What the first pass has found."""
        return self._survey

    def ask(self, question: Callable[..., T], *args: Any, **options: Any) -> Iterator[T]:
        """Yield question(shard, *args, **options) for each shard, in their order."""
        for batch, shard in self._read(question is protocol.loss_grad):
            answer = question(shard, *args, **options)
            if isinstance(answer, Sums) and not math.isfinite(answer.loss):
                check_finite(batch, shard.X, shard.columns)
            del batch, shard  # their memory may be used for the next ones
            yield answer

    def added(
        self, add: Callable[[T, T], T], question: Callable[..., T], *args: Any, **options: Any
    ) -> T:
        """As of `protocol.Adding`: some sums are known, without a pass."""
        known: T | None = None if self._known is None else self._known(question, args)
        return tree.added(add, self.ask(question, *args, **options)) if known is None else known

    def changed(self, change: Callable[..., Shard], *args: Any) -> protocol.Shards:
        """Return other shards: change(shard, *args) in the place of each.

        Small ones are held, others are made whenever they are read.
        """

        def read(with_grad: bool) -> Iterator[Item]:
            for batch, shard in self._read(False):
                yield batch, change(shard, *args)

        sample = change(self.like, *args)
        if may_be_held(sample, self._facts.n_rows):
            return Held([shard for _, shard in read(False)])
        survey = replace(self._survey, spread=None, columns=None, sample=sample)
        return Streamed(read, changed_facts(self._facts, self.like, sample), survey)


def may_be_held(like: Shard, n_rows: int) -> bool:
    """Whether so many rows like these are few enough to be held."""
    return _BYTES_PER_NUMBER * like.numbers_per_row * n_rows <= _MOST_HELD


def changed_facts(facts: Facts, before: Shard, after: Shard) -> Facts:
    """Return what is known of all shards after a change that some rows of them have seen, too."""
    share = after.numbers_per_row / max(1.0, before.numbers_per_row)
    return facts._replace(stored_numbers=share * facts.stored_numbers)


def facts_of(found: Found) -> Facts:
    """Return what the first pass has found of all shards."""
    return Facts(
        found.totals.n_rows,
        found.n_batches,
        found.stored_numbers,
        found.is_dense,
        not found.is_dense,
    )


def survey_of(estimator: FitParameters, found: Found) -> Survey:
    """Return what the first pass has found for the fit."""
    totals = found.totals
    mean = totals.weight / totals.n_rows
    assert totals.masses is not None
    return Survey(
        found.least_weight / mean,
        smoothed(totals.masses / mean, float(estimator.label_smoothing)),
        found.spread,
        found.moments,
        _sample_shard(estimator, found, mean),
    )


def streamed(
    estimator: FitParameters, source: BatchSource, classes: Any, found: Found, known: Known
) -> Streamed:
    """Return the batches of a fit as shards, by what the first pass has found of them."""
    passes = _Passes(estimator, source, classes, found)

    def read(with_grad: bool) -> Iterator[Item]:
        items = passes.read(with_grad and not found.is_dense)
        return items if source.is_in_memory else read_ahead(items)

    return Streamed(read, facts_of(found), survey_of(estimator, found), known)


class Recipe(NamedTuple):
    """How batches become shards, whose row weights have mean 1 over all batches."""

    given_classes: Any
    classes: Array
    by_class: Array | None  # weights of the classes
    mean: float  # of the row weights
    real: np.dtype[Any]
    columns: Array | None


def recipe_of(classes: Any, found: Found) -> Recipe:
    """Return how batches become shards, by what the first pass has found of them."""
    totals = found.totals
    mean = totals.weight / totals.n_rows
    return Recipe(classes, totals.classes, totals.by_class, mean, found.real, found.columns)


def shard_of(
    estimator: FitParameters, batch: Batch, recipe: Recipe, number: Array | None = None
) -> Shard:
    """Return a batch as a shard; number is `numbers_of` the columns, where that is known."""
    batch = batch._replace(y=named_columns(batch.y, recipe.given_classes))
    shard, _ = batch_shard(
        estimator, batch, recipe.classes, recipe.real, recipe.by_class, finite=False
    )
    if recipe.mean != 1.0:
        scaled = shard.row_weights.astype(np.float64) / recipe.mean
        shard = shard.reweighted(scaled.astype(recipe.real))
    return with_columns(shard, recipe.columns, number)


class _Passes:
    """Passes over the batches, each as a shard."""

    def __init__(
        self, estimator: FitParameters, source: BatchSource, classes: Any, found: Found
    ) -> None:
        self._estimator, self._source = estimator, source
        self._recipe, self._n_rows = recipe_of(classes, found), found.totals.n_rows
        self._number: Array | None = None
        if found.columns is not None:
            self._number = numbers_of(found.columns, estimator.n_features_in_)

    def read(self, with_grad: bool) -> Iterator[Item]:
        """Yield the batches, each with its shard, which is prepared for gradients where asked."""
        n_rows, wanted = 0, self._n_rows
        for batch in self._source:
            with naming(batch):
                shard = shard_of(self._estimator, batch, self._recipe, self._number)
                n_rows += shard.n_rows
                if n_rows > wanted:
                    raise ValueError(f"there are more rows than the {wanted} of the first pass")
            if with_grad:
                for rows in shard.calls(shard.n_logits * shard.numbers_per_row):
                    shard.adjacent(rows, with_grad=True)
            yield batch, shard
            del batch, shard
        if n_rows < wanted:
            raise ValueError(
                f"a pass over the batches found {n_rows} rows, and the first one {wanted}: every "
                "pass has to find the same rows"
            )


def _sample_shard(estimator: FitParameters, found: Found, mean: float) -> Shard:
    """Return the rows that were drawn. Of their targets only the weights of the classes count."""
    X, row_weights, y = found.sample
    classes, by_class = found.totals.classes, found.totals.by_class
    targets = Targets(classes, np.zeros(len(row_weights), dtype=np.int32))
    if by_class is not None:
        given = Given(y) if y.ndim == 1 else Given(None, y)
        known = known_targets(given, classes, found.real, row_weights=row_weights)
        _, row_weights = class_weighted(known, row_weights, by_class)
    own = np.ascontiguousarray(row_weights / mean, dtype=found.real)
    shard = make_shard(X, targets, own, computing_of(estimator))
    return with_columns(shard, found.columns)
