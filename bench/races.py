"""What all races share: problems by name, the native contestants, and how answers are judged.

The builders are in races_rows.py, races_pass.py, races_sgd.py and races_predict.py. Each makes the
race for given sizes; rows are multiplied by `scale` (1 for results, less to try the benchmarks
out). New storages, shapes and tasks are new arguments or new builders there; the bench_*.py files,
compare.py and scaling.py only list them.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import problems
from harness import NATIVE, ONE_THREAD
from problems import Problem

from fastsoftmax import kernels
from fastsoftmax.shards.csr_shard import columns_of

N_THREADS = kernels.max_threads()
ISAS = kernels.available_isas()
CONTESTANTS = (NATIVE, ONE_THREAD, "numpy", "scikit-learn", "torch")
SCIPY, TRANSPOSED = "scipy", "scipy, X.T as CSR"
CSR_CONTESTANTS = (NATIVE, ONE_THREAD, SCIPY, "scikit-learn", "torch")
ISA_TITLE = ", instruction sets"


def n_rows_of(n_rows: int, scale: float, multiple: int = 1) -> int:
    """n_rows * scale, at least 16, and a multiple of something where it is scaled; 1 stays 1."""
    if scale == 1 or n_rows == 1:
        return n_rows
    return max(16, 2 * multiple, int(n_rows * scale) // multiple * multiple)


def problem_of(
    kind: str,
    sizes: tuple[int, ...],
    *,
    storage: str = "float32",
    order: str = "C",
    indices: str = "int32",
    scale: float = 1,
    multiple: int = 1,
) -> Problem:
    """A problem by the name of its builder; sizes are the builder's arguments, rows first."""
    sizes = n_rows_of(sizes[0], scale, multiple), *sizes[1:]
    if kind == "text":
        return problems.text(*sizes, indices=indices).stored_as(storage)
    made = getattr(problems, kind)(*sizes)
    made = made.stored_as(storage, 1 / 255 if kind == "fashion" else 1.0)
    return made._replace(X=np.asarray(made.X, order=order))


def native_rows(problem: Problem, *, with_grad: bool = False) -> Any:
    """X as the kernels take it; CSR by columns too, where gradients are asked for."""
    X = problem.X
    if not problem.is_sparse:
        return X
    rows = kernels.CsrRows(X.data, X.indices, X.indptr, X.shape[1])
    if with_grad:
        panel_rows = kernels.panel_rows(problem.n_logits, problem.real.itemsize)
        rows.set_columns(*columns_of(X, slice(0, X.shape[0]), panel_rows))
    return rows


def threads(call: Callable[[int], Any]) -> dict[str, Callable[[], Any]]:
    """The native contestants: all threads, and one where that is fewer."""
    runs = {NATIVE: functools.partial(call, N_THREADS)}
    if N_THREADS > 1:
        runs[ONE_THREAD] = functools.partial(call, 1)
    return runs


def isas(call: Callable[[str], Any]) -> dict[str, Callable[[], Any]]:
    """The native contestants of a race of instruction sets."""
    return {isa: functools.partial(call, isa) for isa in ISAS}
