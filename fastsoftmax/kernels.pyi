# Names, order, kinds and defaults are compared with the compiled module by tests/test_stub.py.
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastsoftmax.kernel_arguments import Descent, GradientTerms, NewtonSettings, Scaling

# The number type of a call: all arrays of it agree.
_Real = TypeVar("_Real", np.float32, np.float64)
# What features may be stored in besides; float32 also where the call computes in float64.
_Stored = np.float32 | np.float16 | np.uint8 | np.int8

@disjoint_base
class CsrRows:
    def __new__(
        cls,
        data: NDArray[np.float32] | NDArray[np.float64],
        indices: NDArray[np.int32] | NDArray[np.int64],
        indptr: NDArray[np.int32] | NDArray[np.int64],
        n_features: int,
    ) -> Self: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def set_columns(
        self,
        panel_rows: int,
        panel_columns: NDArray[np.int64],
        starts: NDArray[np.int64],
        features: NDArray[np.int32],
        rows: NDArray[np.int32],
        values: NDArray[np.float32] | NDArray[np.float64],
    ) -> None: ...

@disjoint_base
class Targets:
    def __init__(
        self,
        labels: NDArray[np.int32] | None,
        target_probs: NDArray[_Real] | None,
        row_weights: NDArray[_Real],
        label_smoothing: float,
        n_classes: int,
    ) -> None: ...
    @property
    def labels(self) -> NDArray[np.int32] | None: ...
    @property
    def target_probs(self) -> NDArray[Any] | None: ...
    @property
    def row_weights(self) -> NDArray[Any]: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def n_classes(self) -> int: ...
    @property
    def n_rows(self) -> int: ...
    def __getitem__(self, rows: slice) -> Targets: ...

@disjoint_base
class FactoredBlocks:
    def __init__(
        self,
        factors: list[NDArray[_Real]],
        rows: list[NDArray[_Real] | None],
        roots: NDArray[np.float64],
        n_features: int,
    ) -> None: ...
    def solve(
        self,
        out: NDArray[np.float64],
        gradient: NDArray[np.float64],
        *,
        isa: str | None = None,
        n_threads: int = 1,
    ) -> None: ...

def factor_block(out: NDArray[_Real], rows: NDArray[_Real], *, isa: str | None = None) -> bool: ...
def available_isas() -> tuple[str, ...]: ...
def openmp() -> bool: ...
def max_threads() -> int: ...
def panel_rows(n_logits: int, real_size: int, *, isa: str | None = None) -> int: ...
def exp_values(out: NDArray[_Real], x: NDArray[_Real], *, isa: str | None = None) -> None: ...
def log_values(out: NDArray[_Real], x: NDArray[_Real], *, isa: str | None = None) -> None: ...
def softmax_rows(
    out: NDArray[_Real], logits: NDArray[_Real], *, isa: str | None = None, n_threads: int = 1
) -> None: ...
def log_softmax_rows(
    out: NDArray[_Real], logits: NDArray[_Real], *, isa: str | None = None, n_threads: int = 1
) -> None: ...
def logsumexp_rows(
    out: NDArray[_Real], logits: NDArray[_Real], *, isa: str | None = None, n_threads: int = 1
) -> None: ...
def cross_entropy_rows(
    loss: NDArray[_Real],
    grad: NDArray[_Real] | None,
    logits: NDArray[_Real],
    targets: Targets,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None: ...
def affine_rows(
    logits: NDArray[_Real],
    X: NDArray[_Real] | NDArray[_Stored] | CsrRows,
    weights: NDArray[_Real],
    bias: NDArray[_Real],
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None: ...
def predict_rows(
    probs: NDArray[_Real],
    X: NDArray[_Real] | NDArray[_Stored] | CsrRows,
    weights: NDArray[_Real],
    bias: NDArray[_Real],
    as_log: bool,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> bool: ...
def predict_top(
    classes: NDArray[np.int64],
    probs: NDArray[_Real] | None,
    X: NDArray[_Real] | NDArray[_Stored] | CsrRows,
    weights: NDArray[_Real],
    bias: NDArray[_Real],
    n_classes: int,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> bool: ...
def loss_grad(
    grad_weights: NDArray[np.float64] | None,
    grad_bias: NDArray[np.float64] | None,
    X: NDArray[_Real] | NDArray[_Stored] | CsrRows,
    targets: Targets,
    weights: NDArray[_Real],
    bias: NDArray[_Real],
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> tuple[float, float]: ...
def feature_moments(
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
    X: NDArray[_Real] | NDArray[_Stored],
    row_weights: NDArray[_Real],
    shift: NDArray[_Real],
    units: NDArray[_Real],
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> float: ...
def csr_moments(
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
    X: CsrRows,
    row_weights: NDArray[_Real],
    *,
    isa: str | None = None,
) -> None: ...
def hessian_sums(
    out: NDArray[np.float64],
    X: NDArray[_Real] | NDArray[_Stored],
    row_weights: NDArray[_Real],
    weights: NDArray[_Real],
    bias: NDArray[_Real],
    scaling: Scaling,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None: ...
def sgd_steps(
    params: NDArray[_Real],
    velocity: NDArray[_Real] | None,
    X: NDArray[_Real] | NDArray[_Stored] | CsrRows,
    targets: Targets,
    order: NDArray[np.int64],
    descent: Descent,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> tuple[float, float]: ...
def dot(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> float: ...
def add_scaled(
    out: NDArray[np.float64],
    y: NDArray[np.float64],
    scale: float,
    x: NDArray[np.float64],
    other: NDArray[np.float64] | None,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> float: ...
def round_weights(
    weights: NDArray[_Real],
    along: NDArray[np.float64],
    scaled: NDArray[np.float64],
    scale: NDArray[np.float64] | None,
    center: NDArray[np.float64],
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None: ...
def assemble_gradient(
    gradient: NDArray[np.float64],
    along: NDArray[np.float64],
    weights: NDArray[_Real],
    grad_bias: NDArray[np.float64],
    terms: GradientTerms,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> tuple[float, float, float, float, float]: ...
def within_product(
    result: NDArray[np.float64],
    along: NDArray[np.float64],
    gradient: NDArray[np.float64],
    inverse: NDArray[np.float64],
    means: NDArray[np.float64] | None,
    grad_bias: NDArray[np.float64],
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None: ...
def columns_product(
    sums: NDArray[np.float64],
    totals: NDArray[np.float64],
    X: CsrRows,
    factors: NDArray[_Real],
    panel: int,
    *,
    isa: str | None = None,
    n_threads: int = 1,
) -> None: ...
def newton_steps(
    points: NDArray[np.float64],
    records: NDArray[np.float64],
    base: NDArray[np.float64],
    start: NDArray[np.float64],
    X: NDArray[Any],
    targets: Targets,
    settings: NewtonSettings,
    *,
    isa: str | None = None,
) -> tuple[int, bool, bool]: ...
