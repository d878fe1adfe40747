"""Values on the workers of a cluster, which are asked where they are.

Each value is a future of Dask's: its worker may die, and Dask computes it again from what it was
made of. A question is no task of Dask's. It goes as one message to the scheduler, and from there as
one to every worker that has some of the values, so that its arguments (a model) travel once to each
worker. A task for every worker took three times as long, one for every value ten times (17 and
70 ms instead of 6, on two processes of one machine).

The steps of a question, until every value has answered:
1. Which worker has which value? Every value is given to one of its workers.
2. All workers are asked at once; each answers for its values, one after another, with all of its
   threads. Where answers are added up, each adds those of its values that are neighbours in the
   `tree`.
3. Values that have not answered (their worker died, or they moved) are waited for: Dask computes
   them again elsewhere.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import dask
import distributed
from distributed.protocol.pickle import dumps, loads

from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.shards import tree

T = TypeVar("T")

# Seconds between two looks at what workers there are, while values are waited for.
_POLL = 0.5
# How often workers may fail to answer for values that they are said to have.
_MOST_FAILURES = 10

_threads: ContextVar[int] = ContextVar("fastsoftmax_dask_threads", default=1)


class NoWorkers(TimeoutError):
    """A cluster has had no worker for too long."""


class _Call(NamedTuple):
    """What values are asked; their answers are added up if there is an `add`."""

    question: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    add: tree.Add | None = None


class _Answer(NamedTuple):
    """What a value answered, or the sum of the answers of some adjacent values."""

    node: tree.Node
    value: Any
    error: Exception | None


def threads_here(n_jobs: int | None) -> int:
    """Return with how many threads a question is computed: the worker's, at most n_jobs > 0."""
    n_threads = _threads.get()
    return n_threads if n_jobs is None or n_jobs < 0 else min(n_jobs, n_threads)


def no_workers_timeout() -> float:
    """Return the seconds for which a cluster may be without workers."""
    set_by_user = dask.config.get("fastsoftmax.no-workers-timeout", "60 s")
    return float(dask.utils.parse_timedelta(set_by_user))


def client_of(client: Any) -> distributed.Client:
    """Return the client that is meant: for None the current one."""
    if client is None:
        try:
            client = distributed.get_client()
        except ValueError:
            raise ValueError(
                "client is None, and there is no current client: start one with "
                "dask.distributed.Client(), or pass one to DaskFastSoftmax"
            ) from None
    if not isinstance(client, distributed.Client):
        raise TypeError(f"client must be a dask.distributed.Client, got {type(client).__name__}")
    if client.asynchronous:
        raise TypeError("client must not be asynchronous: fits are computed by the calling process")
    return client


class Remote:
    """Values on workers, in their order; numbers are those of their partitions, for errors."""

    def __init__(
        self,
        client: distributed.Client,
        futures: Sequence[distributed.Future],
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.client, self._futures = client, list(futures)
        self._numbers = list(range(len(futures)) if numbers is None else numbers)

    def __len__(self) -> int:
        """Return how many values there are."""
        return len(self._futures)

    def some(self, places: Sequence[int]) -> "Remote":
        """Return some of the values."""
        futures = [self._futures[i] for i in places]
        return Remote(self.client, futures, [self._numbers[i] for i in places])

    def made(self, function: Callable[..., Any], *args: Any) -> "Remote":
        """Return function(value, *args) for each value, made where it is.

        These stay on the workers. What they were made of is kept only as a recipe.
        """
        # one task holds the arguments, so that they are sent once, and not lost with a worker
        shared = self.client.submit(_itself, dumps(args), pure=False)
        n = len(self._futures)
        futures = self.client.map(_made_of, [function] * n, self._futures, [shared] * n, pure=False)
        made = Remote(self.client, futures, self._numbers)
        made.wait()
        return made

    # ---- questions ----

    def ask(self, question: Callable[..., T], *args: Any, **options: Any) -> Iterator[T]:
        """Yield question(value, *args, **options) for each value, in their order.

        Raises
        ------
        NoWorkers
            If the cluster has no worker for `no_workers_timeout` seconds.
        RuntimeError
            If the scheduler is gone, or values cannot be computed again.
        """
        found = self._answers(_Call(question, args, options))
        for i in range(len(self._futures)):
            yield found.pop(tree.Node(0, i))

    def added(
        self, add: Callable[[T, T], T], question: Callable[..., T], *args: Any, **options: Any
    ) -> T:
        """Return the sum of the answers, as `tree.added` does; workers add those that they have.

        Raises as `ask` does.
        """
        total = tree.Tree(len(self._futures), add)
        found = self._answers(_Call(question, args, options, add))
        for node in list(found):
            total.put(node, found.pop(node))
        value: T
        ((_, value),) = total.sums()
        return value

    def _answers(self, call: _Call) -> dict[tree.Node, Any]:
        """Return what all values answered; raises what the first of them did that raised."""
        n, found, n_failures = len(self._futures), list[_Answer](), 0
        left = list(range(n))
        while left:
            failure, wanted, n_before = None, self._places_of(left), len(left)
            if wanted:
                answers, failure = self._collect(wanted, call)
                found += answers
                answered = {i for answer in answers for i in answer.node.leaves(n)}
                left = [i for i in left if i not in answered]
            if left:
                n_failures = n_failures + 1 if len(left) == n_before else 0
                if n_failures > _MOST_FAILURES:
                    raise RuntimeError(
                        f"the workers do not answer for their rows: {failure or 'they have none'}"
                    ) from failure
                time.sleep(0.02 * n_failures)
                self.wait()
        failed = [answer for answer in found if answer.error is not None]
        if failed:
            error = min(failed, key=lambda answer: answer.node.place).error
            assert error is not None
            raise error
        return {answer.node: answer.value for answer in found}

    def _places_of(self, places: list[int]) -> dict[str, list[tuple[int, Any]]]:
        """Return which values each worker is asked for, with their keys."""
        with _of_scheduler():
            holders = self.client.who_has([self._futures[i] for i in places])
        wanted: dict[str, list[tuple[int, Any]]] = {}
        for i in places:
            key = self._futures[i].key
            workers = holders.get(key) or ()
            if workers:  # of those that have it, the one that is asked for the fewest
                worker = min(workers, key=lambda address: (len(wanted.get(address, ())), address))
                wanted.setdefault(worker, []).append((i, key))
        return wanted

    def _collect(
        self, wanted: dict[str, list[tuple[int, Any]]], call: _Call
    ) -> tuple[list[_Answer], BaseException | None]:
        """Ask all workers; return the answers, and why one of the workers gave none."""
        n = len(self._futures)
        with _of_scheduler():
            replies = self.client.sync(_replies, self.client, wanted, (n, call))
        found, failure = list[_Answer](), None
        for worker in list(replies):
            reply = replies.pop(worker)
            if isinstance(reply, OSError):  # the worker is gone: of these, not of our questions
                failure = reply
            elif isinstance(reply, BaseException):
                raise RuntimeError(
                    f"a worker cannot be asked ({type(reply).__name__}: {reply}): every worker "
                    "needs the same version of fastsoftmax as the client"
                ) from reply
            else:
                found += loads(reply)
        return found, failure

    # ---- waiting ----

    def wait(self) -> None:
        """Wait until all values are on workers. Raises as `ask` does, or what a value raised."""
        without_workers = None
        while True:
            with _of_scheduler():
                if self._are_there_soon():
                    break
            with _of_scheduler():
                n_workers = len(self.client.nthreads())
            if n_workers:
                without_workers = None
                continue
            now = time.monotonic()
            without_workers = now if without_workers is None else without_workers
            if now - without_workers > no_workers_timeout():
                raise NoWorkers(
                    f"the cluster has had no worker for {no_workers_timeout():g} seconds (the "
                    "setting fastsoftmax.no-workers-timeout of dask.config)"
                )
        self._raise_failures()

    def _are_there_soon(self) -> bool:
        try:
            distributed.wait(self._futures, timeout=_POLL)
        except TimeoutError:
            return False
        return True

    def _raise_failures(self) -> None:
        """Raise what the first value raised that could not be computed."""
        errors = {
            i: future.exception()
            for i, future in zip(self._numbers, self._futures, strict=True)
            if future.status == "error"
        }
        died = [i for i, error in errors.items() if isinstance(error, distributed.KilledWorker)]
        for i, error in errors.items():
            if i not in died:
                raised = _copied(error)
                raised.add_note(f"raised where partition {i} (from 0) was computed")
                raise raised
            names = "partition" if len(died) == 1 else "some of the partitions"
            raise RuntimeError(
                f"{names} {', '.join(map(str, died))} (from 0) cannot be computed: every worker "
                "that tried died; the usual reason is too little memory"
            ) from error


def _copied(error: BaseException) -> BaseException:
    """Return the same error to be raised.

    The client keeps those of futures. With the traceback of a raise it would hold all rows of the
    fit on the cluster, until it is closed.
    """
    try:
        copied = loads(dumps(error))
    except Exception:
        copied = RuntimeError(repr(error))
    copied.__cause__ = error.__cause__
    raised: BaseException = copied.with_traceback(error.__traceback__)
    return raised


@contextmanager
def _of_scheduler() -> Iterator[None]:
    """Turn what the client raises where the cluster has changed into clear errors."""
    try:
        yield
    except OSError as error:
        raise RuntimeError(f"the scheduler of the cluster is gone: {error}") from error
    except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
        raise RuntimeError(
            "the rows on the cluster were cancelled: the client was closed, or scattered rows, "
            "which Dask cannot compute again, were lost with their worker"
        ) from error


async def _replies(client: distributed.Client, wanted: Any, asked_of_all: Any) -> dict[str, Any]:
    """Return what each worker says, or an error.

    The scheduler may try for half a minute to reach a worker that has just gone: that is not waited
    for.
    """
    workers = list(wanted)
    asked = asyncio.ensure_future(
        client.run(_answers, wanted, *asked_of_all, workers=workers, on_error="return")
    )
    n_looks = 0
    while not asked.done():
        await asyncio.wait([asked], timeout=_POLL)
        if not asked.done():
            there = await client.nthreads()
            n_looks = 0 if there.keys() >= wanted.keys() else n_looks + 1
            if n_looks > 1:
                asked.cancel()
                return dict.fromkeys(workers, OSError("a worker is gone"))
    found: dict[str, Any] = asked.result()
    return found


# ---- on the workers ----


def _itself(packed: bytes) -> bytes:
    return packed


@own_arithmetic
def _made_of(function: Callable[..., T], value: Any, packed: bytes) -> T:
    return function(value, *loads(packed))  # arrays of Dask's messages need not be aligned


async def _answers(
    wanted: dict[str, list[tuple[int, Any]]], n_values: int, call: _Call, dask_worker: Any
) -> bytes:
    """Return what this worker's values answer, pickled; those that it has no more are left out."""
    values = []
    for place, key in wanted.get(dask_worker.contact_address, ()):
        if key in dask_worker.data:
            values.append((place, dask_worker.data[key]))

    def run() -> bytes:
        _threads.set(dask_worker.state.nthreads)
        return _pickled(_answered(values, n_values, call))

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(dask_worker.executors["default"], run)


def _answered(values: list[tuple[int, Any]], n_values: int, call: _Call) -> list[_Answer]:
    """Ask values one after another. Answers that are added up are held no longer than needed."""
    if call.add is None:
        return [_answer(i, value, call) for i, value in values]
    total, failed = tree.Tree(n_values, own_arithmetic(call.add)), list[_Answer]()
    for i, value in values:
        answer = _answer(i, value, call)
        if answer.error is None:
            total.put(answer.node, answer.value)
        else:
            failed.append(answer)
        del answer
    return failed + [_Answer(node, value, None) for node, value in total.sums()]


@own_arithmetic
def _answer(place: int, value: Any, call: _Call) -> _Answer:
    node = tree.Node(0, place)
    try:
        return _Answer(node, call.question(value, *call.args, **call.options), None)
    except Exception as error:
        return _Answer(node, None, error)


def _pickled(answers: list[_Answer]) -> bytes:
    try:
        return bytes(dumps(answers))
    except Exception as failure:  # an error that cannot be pickled, mostly
        told = [RuntimeError(repr(answer.error or failure)) for answer in answers]
        pairs = zip(answers, told, strict=True)
        return bytes(dumps([answer._replace(value=None, error=error) for answer, error in pairs]))
