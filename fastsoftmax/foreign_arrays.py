"""Tensors and frames of other libraries, as arrays of numpy: views of them where there can be any.

None of these libraries is imported: what a value is, its type and its methods tell.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.arrays import Array

Type = np.dtype[Any]
CommonType = Callable[[Sequence[Type]], Type]

# Libraries whose arrays numpy can read although they have no `__dlpack__` in every version.
_READABLE = {"torch", "jax", "jaxlib", "tensorflow", "xarray"}
# Libraries whose arrays are elsewhere, and what brings them to the memory that numpy reads.
_ELSEWHERE = {
    "cupy": "{name}.get()",
    "cupyx": "{name}.get()",
    "cudf": "{name}.to_pandas()",
    "dask": "{name}.compute(), or fit a fastsoftmax.dask.DaskFastSoftmax",
    "dask_expr": "{name}.compute(), or fit a fastsoftmax.dask.DaskFastSoftmax",
    "sparse": "a scipy.sparse matrix, {name}.to_scipy_sparse()",
}
_KNOWN = _READABLE | _ELSEWHERE.keys()
_ADDED = 2  # `isbuiltin` of number types that other packages add to numpy's
_HOST_DEVICES = {1, 3, 13}  # of DLPack: CPU, and what of CUDA the CPU reads: pinned, managed
_DEVICES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 14: "oneAPI"}


def as_array(value: Any, name: str) -> Array:
    """Return anything that is like an array as one of numpy, tensors and frames included."""
    if type(value) is np.ndarray and value.dtype.isbuiltin != _ADDED:
        return value
    value = as_numpy(value, name)
    if is_frame(value):
        value = frame_array(value, name, lambda types: np.result_type(*types))
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}") from error


def as_numpy(value: Any, name: str) -> Any:
    """Return an array of another library as numpy's, a view where it can; anything else as it is.

    The 8 and 16 bits that numpy lacks, bfloat16 among them, become float32.

    Raises
    ------
    TypeError
        If the array lies on another device, requires a gradient, or numpy cannot read it.
    """
    if isinstance(value, np.ndarray):
        return _with_known_type(value)
    if not _is_foreign(value):
        return value
    if hasattr(value, "requires_grad") and hasattr(value, "layout"):
        return _tensor_array(value, name)
    library = _library_of(value)
    if library in _ELSEWHERE:
        advice = _ELSEWHERE[library].format(name=name)
        raise TypeError(f"{name} must be an array that numpy reads, got {_words(value)}: {advice}")
    _check_device(value, name)
    try:
        found = np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(
            f"{name} must be an array that numpy reads, got {_words(value)}: {error}"
        ) from error
    return _with_known_type(found)


def _is_foreign(value: Any) -> bool:
    kind = type(value)
    if kind.__module__ == "builtins" or isinstance(value, np.generic):
        return False
    if hasattr(kind, "__dlpack__") or hasattr(kind, "__array_namespace__"):
        return not hasattr(kind, "to_pandas")  # an array of pyarrow is like a column of a frame
    if _library_of(value) in _KNOWN:
        return True
    if hasattr(kind, "to_numpy"):  # (pandas looks for a column where it lacks an attribute)
        return False
    typed = hasattr(value, "dtype") and not isinstance(value.dtype, np.dtype)
    return typed and hasattr(value, "__array__") and not hasattr(value, "to_numpy")


def _library_of(value: Any) -> str:
    """Return the library that an array's class, or one that it is derived from, belongs to."""
    roots = [kind.__module__.partition(".")[0] for kind in type(value).__mro__]
    return next((root for root in roots if root in _KNOWN), roots[0])


def _words(value: Any) -> str:
    return f"{_library_of(value)}'s {type(value).__name__}"


def _check_device(value: Any, name: str) -> None:
    try:
        kind = int(value.__dlpack_device__()[0])
    except Exception:  # no such method, or a device that DLPack has no number for: numpy will see
        return
    if kind not in _HOST_DEVICES:
        device = _DEVICES.get(kind, f"device type {kind} of DLPack")
        raise TypeError(
            f"{name} must be in the memory of the CPU, got {_words(value)} on {device}: copy it "
            "there first"
        )


def _tensor_array(tensor: Any, name: str) -> Array:
    """Return a tensor of PyTorch as an array."""
    if tensor.device.type != "cpu":
        raise TypeError(
            f"{name} must be in the memory of the CPU, got a torch tensor on {tensor.device}: "
            f"pass {name}.cpu()"
        )
    if str(tensor.layout) != "torch.strided":
        raise TypeError(
            f"{name} must be a dense tensor, got a torch tensor of layout {tensor.layout}: pass a "
            "scipy.sparse matrix"
        )
    if tensor.requires_grad:
        raise TypeError(
            f"{name} must not require a gradient, which is not computed here, got a torch tensor "
            f"that does: pass {name}.detach()"
        )
    small = tensor.is_floating_point() and tensor.element_size() <= 2
    if small and str(tensor.dtype) != "torch.float16":
        tensor = tensor.float()
    try:
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be an array that numpy reads, got a torch tensor of {tensor.dtype}: "
            f"{error}"
        ) from error


def _with_known_type(array: Array) -> Array:
    """Return an array of bfloat16 or of a float of 8 bits, which are not numpy's, as float32."""
    added = array.dtype.isbuiltin == _ADDED
    small = added and array.dtype.name.startswith(("bfloat16", "float8_"))
    return array.astype(np.float32) if small else array


# ---- frames ----


class _Column(NamedTuple):
    name: Any
    dtype: Type  # of its numbers
    values: Any  # as the frame's library has it
    may_lack: bool  # whether a value may be missing that is not NaN


def is_frame(value: Any) -> bool:
    """Whether a value is a frame of pandas or polars, or a table of pyarrow."""
    if isinstance(value, np.ndarray | list):
        return False
    return hasattr(value, "columns") and any(
        hasattr(value, own) for own in ("iloc", "get_columns", "column_names")
    )


def frame_array(frame: Any, name: str, common_type: CommonType) -> Any:
    """Return a frame of numbers as an array; what holds anything else as it is.

    Where pandas has all columns in one block of a type of numpy, the array is a view of that. Other
    columns become the common type of all, one by one. A pandas frame whose columns are all sparse
    becomes a sparse matrix.

    Raises
    ------
    ValueError
        If a value is missing: its row and column are named.
    """
    is_pandas = hasattr(frame, "iloc")
    types = list(frame.dtypes) if is_pandas else []
    if types and all(isinstance(dtype, np.dtype) for dtype in types):
        if len(set(types)) == 1:
            return frame.to_numpy()
        return frame.to_numpy(dtype=common_type(types)) if _are_numbers(types) else frame
    if types and all(type(dtype).__name__ == "SparseDtype" for dtype in types):
        return frame.sparse.to_coo()
    columns = list(_columns_of(frame))
    types = [column.dtype for column in columns]
    if not columns or not _are_numbers(types):
        return frame
    # (by columns, as pandas and polars have them)
    array = np.empty((len(columns), frame.shape[0]), common_type(types))
    for row, (column_name, dtype, values, may_lack) in zip(array, columns, strict=True):
        if may_lack:
            _check_complete(values, name, column_name)
        row[...] = values.to_numpy(dtype=dtype) if is_pandas else values.to_numpy()
    return array.T


def _are_numbers(types: Sequence[Type]) -> bool:
    return all(dtype.kind in "biuf" for dtype in types)


def _columns_of(frame: Any) -> Iterator[_Column]:
    if hasattr(frame, "iloc"):
        for name, values in frame.items():
            own = isinstance(values.dtype, np.dtype)
            dtype = values.dtype if own else getattr(values.dtype, "numpy_dtype", np.dtype(object))
            yield _Column(name, np.dtype(dtype), values, not own)
        return
    by_method = hasattr(frame, "get_columns")
    names = frame.columns if by_method else frame.column_names
    columns = frame.get_columns() if by_method else frame.columns
    for name, values in zip(names, columns, strict=True):
        yield _Column(name, values[:0].to_numpy().dtype, values, may_lack=True)


def _check_complete(values: Any, name: str, column: Any) -> None:
    """Raise where a value is missing."""
    if hasattr(values, "null_count"):  # polars has a method and pyarrow a number
        count = values.null_count
        if not (count() if callable(count) else count):
            return
    missing = np.asarray(values.isna() if hasattr(values, "isna") else values.is_null())
    if missing.any():
        raise ValueError(
            f"{name} must not have missing values (NA, NaN), got one in row "
            f"{int(missing.argmax())} of column {column!r}"
        )
