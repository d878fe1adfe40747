"""What an evaluation costs on a cluster, on paper: operations, bytes and messages.

docs/scale.md explains the formulas. n rows of d features, of which z are stored; K classes, W
workers, P partitions; the coefficients take V = 8 K (d + 1) bytes.

    computing   4 n z K / W operations on each worker, which reads its share of X
    messages    a round from the client over the scheduler to W workers and back
    traffic     (1 + W + 2 S) V bytes through the scheduler; S sums come from the workers
    the client  20 vectors of V bytes moved, and 4 K d^2 operations of dense rows

S is W where each worker has as many adjacent partitions, a power of two; otherwise it is a few
times as large, and P at most. A preconditioner is made by the client, of rows that it has: no
message, and the operations of `cost_model`.
"""

from dataclasses import dataclass, fields, replace

from fits.cost_model import VECTOR_BYTES, VECTORS, VECTORS_MOVED

from fastsoftmax.shards import tree


@dataclass(frozen=True)
class Task:
    """Rows to fit, on a cluster."""

    n_rows: float
    n_features: int
    n_classes: int
    number_bytes: int  # of a number of X as it is stored, its place included
    numbers_per_row: int | None = None  # None for dense rows

    @property
    def stored_numbers(self) -> float:
        return float(self.n_rows) * (self.numbers_per_row or self.n_features)

    @property
    def x_bytes(self) -> float:
        return self.stored_numbers * self.number_bytes

    @property
    def pass_flops(self) -> float:
        return 4.0 * self.stored_numbers * self.n_classes

    @property
    def model_bytes(self) -> float:
        """V."""
        return float(VECTOR_BYTES) * self.n_classes * (self.n_features + 1)

    @property
    def solver_flops(self) -> float:
        """Operations of the solver in an iteration: products with matrices of d x d."""
        dense = self.numbers_per_row is None
        return 4.0 * self.n_classes * float(self.n_features) ** 2 if dense else 0.0

    @property
    def client_bytes(self) -> float:
        """Memory of the client: the solver's vectors."""
        return VECTORS * self.model_bytes


@dataclass(frozen=True)
class Machines:
    """What workers, the client and the network between them do in a second."""

    flops: float  # of a worker, in a pass of the task in question
    read_bytes: float  # of a worker, from where its rows are
    first_worker: float  # seconds of a question to one worker that has nothing to compute
    each_worker: float  # seconds that one more worker adds to that
    link_bytes: float  # bytes a second through the scheduler
    client_flops: float
    client_bytes: float  # bytes a second of the client's memory
    cores: int | None = None  # where all workers share one machine


@dataclass(frozen=True)
class Evaluation:
    """The parts of the time of an evaluation, in seconds."""

    computing: float
    messages: float
    traffic: float
    client: float

    @property
    def total(self) -> float:
        return sum(float(getattr(self, field.name)) for field in fields(self))


def sums_of(n_partitions: int, n_workers: int) -> int:
    """How many sums come from workers, each of which has adjacent partitions."""
    count = 0
    for worker in range(n_workers):
        own = tree.Tree(n_partitions, lambda a, b: None)
        for place in places_of(worker, n_partitions, n_workers):
            own.put(tree.Node(0, place), None)
        count += len(list(own.sums()))
    return count


def places_of(worker: int, n_partitions: int, n_workers: int) -> range:
    """The partitions of a worker, in about equal shares."""
    return range(*(n_partitions * i // n_workers for i in (worker, worker + 1)))


def traffic_bytes(task: Task, n_workers: int, sums: int) -> float:
    """Bytes that pass through the scheduler in an evaluation."""
    return (1.0 + n_workers + 2.0 * sums) * task.model_bytes


def evaluation(task: Task, n_workers: int, sums: int, machines: Machines) -> Evaluation:
    """Predict an evaluation, and what the solver does until the next one."""
    at_once = n_workers if machines.cores is None else min(n_workers, machines.cores)
    computing = task.pass_flops / machines.flops, task.x_bytes / machines.read_bytes
    moved = VECTORS_MOVED * task.model_bytes / machines.client_bytes
    return Evaluation(
        computing=max(computing) / at_once,
        messages=machines.first_worker + machines.each_worker * (n_workers - 1),
        traffic=traffic_bytes(task, n_workers, sums) / machines.link_bytes,
        client=moved + task.solver_flops / machines.client_flops,
    )


def all_reduced(task: Task, n_workers: int, machines: Machines) -> Evaluation:
    """Predict an evaluation of another design: workers add the sums among themselves.

    Each worker has a share of the coefficients and of the solver's vectors, and sends 2 V bytes,
    however many workers there are.
    """
    now = evaluation(task, n_workers, 0, machines)
    traffic = 2.0 * task.model_bytes / machines.link_bytes
    return replace(now, traffic=traffic, client=now.client / n_workers)


def best_workers(task: Task, machines: Machines, most: int = 1024) -> int:
    """How many workers, up to a number, make an evaluation the quickest."""
    return min(range(1, most + 1), key=lambda n: evaluation(task, n, n, machines).total)
