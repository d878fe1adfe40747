"""Shards in the memory of this process."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from fastsoftmax.shards.protocol import Facts, Shards
from fastsoftmax.shards.shard import Shard

T = TypeVar("T")


class Held:
    """Shards that this process holds: it answers for one after another."""

    survey = None

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)

    @property
    def like(self) -> Shard:
        """The first shard."""
        return self.shards[0]

    @property
    def facts(self) -> Facts:
        """As of `protocol.Shards`."""
        return Facts(
            sum(shard.n_rows for shard in self.shards),
            len(self.shards),
            sum(shard.numbers_per_row * shard.n_rows for shard in self.shards),
            all(shard.is_dense for shard in self.shards),
            not any(shard.is_dense for shard in self.shards),
        )

    def ask(self, question: Callable[..., T], *args: Any, **options: Any) -> Iterator[T]:
        """Yield question(shard, *args, **options) for each shard, in their order."""
        for shard in self.shards:
            yield question(shard, *args, **options)

    def changed(self, change: Callable[..., Shard], *args: Any) -> Shards:
        """Return other shards: change(shard, *args) in the place of each."""
        return Held([change(shard, *args) for shard in self.shards])
