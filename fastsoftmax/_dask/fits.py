"""Fits to rows on a cluster: the solver is here, and the rows answer where they are."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import distributed
import numpy as np
from dask.sizeof import sizeof

from fastsoftmax._dask import evaluation
from fastsoftmax._dask.partitions import partitions
from fastsoftmax._dask.remote import Remote, threads_here
from fastsoftmax._estimator import fitting
from fastsoftmax._estimator.batch_source import Batch, naming
from fastsoftmax._estimator.fitted import set_learnt
from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax._streaming import full_batch, sample, streamed
from fastsoftmax._streaming.survey import (
    First,
    Found,
    Gathered,
    Part,
    checked,
    first_of,
    part_of,
    to_draw_from,
)
from fastsoftmax._version import __version__
from fastsoftmax.arrays import Array
from fastsoftmax.shards import protocol
from fastsoftmax.shards.protocol import Facts, Survey
from fastsoftmax.shards.shard import Shard

T = TypeVar("T")


class Given(NamedTuple):
    """What a fit is to be made to."""

    client: distributed.Client
    X: Any
    y: Any
    sample_weight: Any
    classes: Any


def fit(estimator: FitParameters, given: Given, watch: fitting.Watch) -> str | None:
    """Fit to rows on a cluster; the result says why the fit fell short, where it did."""
    full_batch.check_parameters(estimator, watch)
    found, shards = found_shards(estimator, given)
    recipe = streamed.recipe_of(given.classes, found)
    sets = evaluation.sets_of(given.client, _without_fit(estimator), watch, recipe)
    return full_batch.fit_shards(estimator, found, shards, watch._replace(eval_set=sets))


def found_shards(estimator: FitParameters, given: Given) -> tuple[Found, "DaskShards"]:
    """Return the shards of a fit, and what is known of them.

    Workers then hold the shards. What these were made of is not needed any more, and where it was
    converted, as the partitions of a dataframe are, its memory is free.
    """
    batches = partitions(given.client, given.X, given.y, given.sample_weight)
    found, places = _surveyed(estimator, batches, given.classes)
    full_batch.check_classes(found)
    plain = _without_fit(estimator).set_params(n_jobs=1)
    sizes, recipe = tuple(places.sizes), streamed.recipe_of(given.classes, found)
    shards = batches.some(places.numbers).made(_shard, plain, recipe, sizes)
    survey = streamed.survey_of(estimator, found)
    facts = streamed.facts_of(found)
    return found, DaskShards(shards, survey.sample, facts, survey, estimator.n_jobs)


def _without_fit(estimator: FitParameters) -> Any:
    """Return an estimator of the same parameters that knows the names of the features alone."""
    parameters = estimator.get_params(deep=False)
    plain = type(estimator)(**{**parameters, "client": None})
    set_learnt(plain, n_features_in=estimator.n_features_in_)
    if hasattr(estimator, "feature_names_in_"):
        set_learnt(plain, feature_names_in=estimator.feature_names_in_)
    return plain


# ---- the first passes: what `_streaming.survey` finds in one, batch after batch ----


class _First(NamedTuple):
    """What the first partition with rows decides for all."""

    first: First
    n_features: int
    names: Array | None


class _Places(NamedTuple):
    """The partitions that have rows."""

    numbers: list[int]
    sizes: list[int]  # rows of every partition, 0 of others
    first_rows: list[int]  # the number of the first row of every partition among all rows


def _surveyed(estimator: FitParameters, batches: Remote, classes: Any) -> tuple[Found, _Places]:
    """Return what a fit has to know of all rows, and where there are any."""
    looks = list(batches.ask(_look))
    others = {version for _, version in looks} - {__version__}
    if others:
        raise RuntimeError(
            f"workers have version {others.pop()} of fastsoftmax, and the client {__version__}: "
            "both must be the same"
        )
    sizes = [n_rows for n_rows, _ in looks]
    numbers = [i for i, n_rows in enumerate(sizes) if n_rows]
    if not numbers:
        raise ValueError("X must hold rows with a weight above 0, got partitions without any")
    places = _Places(numbers, sizes, [0, *np.cumsum(sizes).tolist()])
    parameters = {**estimator.get_params(deep=False), "client": None}
    given = type(estimator)(**parameters), classes
    first, n_features, names = next(batches.some(numbers[:1]).ask(_first, *given))
    set_learnt(estimator, n_features_in=n_features)
    if names is not None:
        set_learnt(estimator, feature_names_in=names)
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    counted = batches.some(numbers)
    asked = _without_fit(estimator), classes, first, places.first_rows
    gathered = Gathered(estimator, classes, full_batch.coefficients_before(estimator))
    counts = np.zeros((64, 2), dtype=np.int64)
    for part, own in counted.ask(_part, *asked):
        gathered.add(part)
        counts += own
    limit = sample.limit_of(counts)
    drawn = [rows for rows in counted.ask(_drawn, *asked, limit) if len(rows[1])]
    return gathered.found(first, sample.joined(drawn)), places


def _look(batch: Batch) -> tuple[int, str]:
    """Return how many rows a partition has, 0 where none counts, and the version here."""
    return 0 if not batch.n_rows or batch.is_weightless else batch.n_rows, __version__


def _first(batch: Batch, estimator: FitParameters, classes: Any) -> _First:
    item = checked(estimator, batch, classes, None, None)
    names = getattr(estimator, "feature_names_in_", None)
    return _First(first_of(item), item.X.shape[1], names)


def _part(
    batch: Batch, estimator: FitParameters, classes: Any, first: First, first_rows: list[int]
) -> tuple[Part, Array]:
    estimator.n_jobs = threads_here(estimator.n_jobs)
    item = checked(estimator, batch, classes, first.real, first.is_dense)
    counts = sample.halvings(first_rows[batch.number], item.X)
    return part_of(estimator, item, first), counts


def _drawn(  # the arguments of `_part`, and a limit
    batch: Batch,
    estimator: FitParameters,
    classes: Any,
    first: First,
    first_rows: list[int],
    limit: Any,
) -> list[Any]:
    item = checked(estimator, batch, classes, first.real, first.is_dense)
    return sample.drawn_from(first_rows[batch.number], limit, *to_draw_from(estimator, item))


# ---- shards ----


class DaskShards:
    """The shards of a fit on workers, as `protocol.Shards` has them."""

    def __init__(
        self,
        shards: Remote,
        like: Shard,
        facts: Facts,
        survey: Survey | None,
        n_jobs: int | None,  # most threads for a question
    ) -> None:
        self._shards, self._like, self._facts, self._survey = shards, like, facts, survey
        self._n_jobs = n_jobs

    @property
    def like(self) -> Shard:
        """Rows in this process that are as all shards are."""
        return self._like

    @property
    def facts(self) -> Facts:
        """As of `protocol.Shards`."""
        return self._facts

    @property
    def survey(self) -> Survey | None:
        """What the first passes have found."""
        return self._survey

    def ask(self, question: Callable[..., T], *args: Any, **options: Any) -> Iterator[T]:
        """Yield question(shard, *args, **options) for each shard, in their order."""
        yield from self._shards.ask(_answer, question, self._n_jobs, args, options)

    def added(
        self, add: Callable[[T, T], T], question: Callable[..., T], *args: Any, **options: Any
    ) -> T:
        """As of `protocol.Adding`: workers add up what their shards answer."""
        total: T = self._shards.added(add, _answer, question, self._n_jobs, args, options)
        return total

    def changed(self, change: Callable[..., Shard], *args: Any) -> protocol.Shards:
        """Return other shards: change(shard, *args) in the place of each, on its worker.

        Where `Streamed` would hold them, they are asked for everything, as held ones are.
        """
        like = change(self._like, *args)
        shards = self._shards.made(change, *args)
        if streamed.may_be_held(like, self._facts.n_rows):
            numbers = sum(shards.ask(_stored_numbers))
            facts, survey = self._facts._replace(stored_numbers=numbers), None
        else:
            facts = streamed.changed_facts(self._facts, self._like, like)
            survey = self._survey and replace(self._survey, spread=None, columns=None, sample=like)
        return DaskShards(shards, like, facts, survey, self._n_jobs)


def _shard(
    batch: Batch, estimator: FitParameters, recipe: streamed.Recipe, sizes: tuple[int, ...]
) -> Shard:
    with naming(batch):
        if batch.n_rows != sizes[batch.number]:
            raise ValueError(
                f"it had {sizes[batch.number]} rows, and was computed again with {batch.n_rows}: "
                "what it is read from has changed"
            )
        return streamed.shard_of(estimator, batch, recipe)


def _answer(
    shard: Shard, question: Callable[..., T], n_jobs: int | None, args: Any, options: Any
) -> T:
    shard.n_threads = threads_here(n_jobs)  # (a shard may come from a worker that has more)
    return question(shard, *args, **options)


def _stored_numbers(shard: Shard) -> float:
    return shard.numbers_per_row * shard.n_rows


@sizeof.register(Shard)  # type: ignore[untyped-decorator]
def _n_bytes(shard: Shard) -> int:
    """Return the memory of a shard, by which Dask decides where tasks run and what is spilled."""
    return int(sizeof(shard.X)) + int(shard.row_weights.nbytes)
