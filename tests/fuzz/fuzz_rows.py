"""Strategies of features: their values, and the forms in which people hold them.

Hypothesis draws kinds and sizes, and a seed draws the numbers: so an example shrinks to a small
problem of one kind, and stays a problem.
"""

import tempfile
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
from hypothesis import strategies as st
from scipy import sparse

REALS = ["float64", "float32", "float16", "uint8", "int8", "bool", "int64"]
seeds = st.integers(0, 2**32 - 1)
# A function that chooses, each with the same probability. (Hypothesis itself prefers what is small
# and what it has drawn before: half of the problems had two rows.)
choices = st.randoms(use_true_random=True).map(lambda random: random.choice)


class Rows(NamedTuple):
    """Features as they are passed, and their values in float64."""

    given: Any
    values: np.ndarray  # (n, d)
    real: np.dtype  # that of coefficients
    hidden: np.ndarray  # (n, d) float64: what labels depend on, of ordinary size
    kind: str

    def __repr__(self):
        """Show what an example is of, not its numbers."""
        return f"Rows({self.values.shape}, {self.kind})"


# ---- values ----


def _plain(rng, X):
    return X


def _levels(rng, X):
    """A one-hot code of all levels: its columns sum to 1."""
    n, d = X.shape
    return np.eye(d)[rng.integers(d, size=n)]


def _missing_entries(rng, X):
    return np.where(rng.random(X.shape) < 0.02, -9999.0, X)


def _repeated(rng, X):
    return X[rng.integers(max(1, len(X) // 4), size=len(X))]


def _constant_columns(rng, X):
    X = X.copy()
    some = rng.random(X.shape[1]) < 0.5
    X[:, some] = rng.choice([0.0, 1.0, 0.3, 1e4], X.shape[1])[some]
    return X


def _dependent(rng, X):
    """Columns twice, beside a constant one."""
    d = X.shape[1]
    X = X[:, rng.integers(max(1, d // 2), size=d)]
    X[:, 0] = 0.3
    return X


def _offsets(rng, X):
    """Years, seconds, coordinates: a spread that is small beside the mean."""
    offset = rng.choice([10.0, 2e3, 1e6, 1.7e9])
    spread = offset * rng.choice([1e-4, 1e-3, 5e-3, 0.1])
    return offset * rng.choice([1.0, rng.random()], X.shape[1]) + spread * X


VALUES = {
    "plain": _plain,
    "scales": lambda rng, X: X * np.exp(2 * rng.standard_normal(X.shape[1])),
    "lognormal": lambda rng, X: np.exp(X * rng.uniform(0.5, 2.0, X.shape[1])),
    "levels": _levels,
    "-9999 for missing": _missing_entries,
    "repeated rows": _repeated,
    "constant columns": _constant_columns,
    "dependent": _dependent,
    "offsets": _offsets,
    "tiny": lambda rng, X: 1e-8 * X,
    "huge": lambda rng, X: rng.choice([1e4, 1e8, 1e10]) * X,
    "zeros": lambda rng, X: 0.0 * X,
}


def _far(rng, X):
    """Finite numbers of any size, some of them the largest of their type."""
    far = rng.choice([-3.4e38, 3.4e38, 1e38, -1e30, 1e200, -1.7e308, 1e-300, 1e18], X.shape)
    rows, entries = rng.random((len(X), 1)) < 0.2, rng.random(X.shape) < 0.05
    return np.where(rows | entries, far, X)


FAR = {"far": _far, "all far": lambda rng, X: rng.choice([1e30, 1e38, 1e150, 1e300]) * X}


def _typed(X, real, scale_integers):
    """Return values in a number type, within its range."""
    dtype = np.dtype(real)
    if dtype.kind == "b":
        return np.median(X) < X
    if dtype.kind in "iu":
        info = np.iinfo(np.int32 if dtype.itemsize > 4 else dtype)
        X = 10.0 * X + 30.0 if scale_integers else X
        return np.clip(np.round(X), info.min, info.max).astype(dtype)
    most = float(np.finfo(dtype).max)
    return np.clip(X, -most, most).astype(dtype)


# ---- forms ----


def _strided(x):
    wide = np.zeros((2 * len(x), x.shape[1] + 3), x.dtype)
    rows = wide[::-2, 1:-2]
    rows[...] = x
    return rows


def _unaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)
    moved = memory[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def _memory_map(x):
    with tempfile.TemporaryFile() as file:
        x.tofile(file)
        file.flush()
        return np.memmap(file, x.dtype, "r", shape=x.shape)


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _of_records(x):
    records = np.zeros(len(x), np.dtype([("id", "u1"), ("x", x.dtype, (x.shape[1],))]))
    records["x"] = x
    return records["x"]


FORMS = {
    "array": lambda x: x,
    "Fortran order": np.asfortranarray,
    "strided": _strided,
    "unaligned": _unaligned,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "memory map": _memory_map,
    "read-only": _read_only,
    "field of records": _of_records,
    "pandas": lambda x: pd.DataFrame(x, columns=[f"c{j}" for j in range(x.shape[1])]),
    "polars": lambda x: pl.DataFrame({f"c{j}": x[:, j] for j in range(x.shape[1])}),
    "list": lambda x: x.tolist(),
}


def _csr(x, wide, shuffled, rng):
    """A CSR matrix, perhaps with entries in any order, twice, and of 0."""
    rows, columns = np.nonzero(x)
    values = x[rows, columns]
    if shuffled:
        order = rng.permutation(len(rows))
        order = order[np.argsort(rows[order], kind="stable")]
        rows, columns, values = rows[order], columns[order], values[order]
        zero = np.zeros(1, x.dtype)
        rows, columns = np.append(rows, len(x) - 1), np.append(columns, 0)
        values = np.append(values, zero)
    starts = np.searchsorted(rows, np.arange(len(x) + 1))
    index = np.int64 if wide else np.int32
    matrix = sparse.csr_array(x.shape, dtype=x.dtype)
    matrix.data, matrix.indices = values, columns.astype(index)
    matrix.indptr = starts.astype(index)
    return matrix


SPARSE_FORMS = {
    "CSR": lambda x, rng: _csr(x, False, False, rng),
    "CSR, int64": lambda x, rng: _csr(x, True, False, rng),
    "CSR, any order": lambda x, rng: _csr(x, False, True, rng),
    "CSC": lambda x, rng: sparse.csc_matrix(x),
    "COO": lambda x, rng: sparse.coo_array(x),
}


def real_of(dtype, form):
    """The number type of coefficients (docs/data-types.md)."""
    dtype = np.dtype(dtype)
    if form == "list":
        return np.dtype(float)
    narrow = dtype.itemsize < 4 or dtype == np.float32
    return np.dtype(np.float32 if narrow or (form in SPARSE_FORMS and dtype.kind in "biu")
                    else np.float64)  # fmt: skip


@st.composite
def rows(draw, n_rows=None, values=VALUES, reals=REALS, forms=None, widths=(1, 2, 3, 7, 12, 40)):
    """Draw features of some number of rows, or of any."""
    choose = draw(choices)
    if n_rows is None:
        n_rows = choose([2, 3, 5, 20, 43, 60, 150])
    n_features, kind = choose(widths), choose(list(values))
    real = choose(reals)
    form = choose(forms or [*FORMS, *SPARSE_FORMS])
    rng = np.random.default_rng(draw(seeds))
    hidden = rng.standard_normal((n_rows, n_features))
    X = values[kind](rng, hidden)
    if form in SPARSE_FORMS:
        X = np.where(rng.random(X.shape) < choose([0.1, 0.4, 0.9]), X, 0.0)
    scale_integers = kind not in ("levels", "constant columns", "dependent", "huge", "zeros")
    typed = _typed(X, real, scale_integers and form not in SPARSE_FORMS)
    if form == "polars" and typed.dtype == np.float16:
        form = "pandas"
    if form in SPARSE_FORMS:
        if typed.dtype == np.float16:
            typed = typed.astype(np.float32)
        given = SPARSE_FORMS[form](typed, rng)
        wide = typed.dtype.kind in "iu" and (typed != typed.astype(np.float32)).any()
        own = np.dtype(float) if wide else real_of(typed.dtype, form)
    else:
        given, own = FORMS[form](typed), real_of(typed.dtype, form)
    shown = f"{kind}, {typed.dtype}, {form}"
    return Rows(given, typed.astype(float), own, hidden, shown)


def memory_of(given):
    """The bytes of an input, to compare before and after."""
    if sparse.issparse(given):
        parts = ["data", "indices", "indptr", "row", "col", "coords"]
        return {p: _bytes(getattr(given, p)) for p in parts if hasattr(given, p)}
    return _bytes(given)


def _bytes(value):
    if isinstance(value, tuple | list):
        return repr(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O":
            return repr(value.tolist())
        base = value if value.base is None else value.base
        base = base if isinstance(base, np.ndarray) else value
        return value.strides, value.dtype.str, value.tobytes(), base.tobytes()
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.to_dict(), str(getattr(value, "dtypes", None))
    if isinstance(value, pl.DataFrame | pl.Series):
        return value.clone()
    return repr(value)


def unchanged(given, before):
    """Whether an input is as it was."""
    now = memory_of(given)
    if isinstance(now, pl.DataFrame | pl.Series):
        return bool(now.equals(before))
    return bool(now == before) or repr(now) == repr(before)
