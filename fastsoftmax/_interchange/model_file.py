"""A fitted model in a file: a zip archive of arrays (`.npz`) in which nothing can be executed.

Members, all stored without compression, so that none is larger than the file:

- ``header.npy``: uint8, the bytes of a JSON object, `_HEADER`;
- ``classes.npy`` (n_classes,), sorted; absent where they are Python objects, which are JSON then;
- ``coef.npy`` (n_logits, n_features) and ``intercept.npy`` (n_logits,), both float32 or float64;
- ``velocity.npy``, only where mini-batch steps have momentum: of all coefficients, flat.

From format 2 on, coefficients that are mostly 0 may lack those zeros:

- ``columns.npy`` (n,), ascending: ``coef.npy`` is (n_logits, n), of these columns;
- ``columns.npy`` and ``row_starts.npy`` (n_logits + 1,): ``coef.npy`` is one row of a CSR matrix
  after another, as ``coef_`` is after `sparsify`;
- ``velocity_columns.npy`` (n,), ascending: ``velocity.npy`` is of these columns and the intercept.

A file that has none of these is of format 1. Nothing that is read is trusted before it is checked,
sizes first.
"""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from fastsoftmax._interchange.coefficients import (
    Coefficients,
    arrays_of,
    checked_columns,
    coef_from,
)
from fastsoftmax._version import __version__
from fastsoftmax.archives import (
    FilePath,
    array_from,
    members_of,
    naming_damage,
    replacing,
    write_arrays,
)
from fastsoftmax.arrays import Array

FORMAT = "fastsoftmax model"
FORMAT_VERSION = 2

File = FilePath | IO[bytes]

_ARRAYS = frozenset({"header", "coef", "intercept"})
_PLACES = frozenset({"columns", "row_starts", "velocity_columns"})  # from format 2 on
_OPTIONAL_ARRAYS = _PLACES | {"classes", "velocity"}

# Numbers of a fit, by their names in the header; null where the estimator lacks one.
NUMBERS: dict[str, type] = {
    "n_iter": int,
    "gap": float,
    "converged": bool,
    "objective": float,
    "temperature": float,  # what logits are divided by
    "weight_seen": float,
}

# Keys of the header and the types of their values.
_HEADER: dict[str, tuple[type, ...]] = {
    "format": (str,),
    "format_version": (int,),
    "fastsoftmax_version": (str,),
    "estimator": (str,),  # the name of its class, for readers
    "parameters": (dict,),
    "classes": (list, type(None)),  # null where they are an array
    "n_features_in": (int,),
    "feature_names_in": (list, type(None)),
    **{
        name: (int, float, type(None)) if kind is float else (kind, type(None))
        for name, kind in NUMBERS.items()
    },
}


class SavedModel(NamedTuple):
    """What a file holds, apart from its format."""

    estimator: str
    parameters: dict[str, Any]
    coefficients: Coefficients
    n_features_in: int
    feature_names_in: list[str] | None
    numbers: dict[str, Any]  # of `NUMBERS`; None for those that the estimator lacks
    velocity: Array | None
    velocity_columns: Array | None = None


def _is_text(file: object) -> bool:
    return isinstance(file, io.TextIOBase)


# ---- writing ----


def write_model(file: File, model: SavedModel) -> None:
    """Write a model to a path, which is replaced at once or not at all, or to an open file."""
    model = model._replace(numbers=_typed(model.numbers))
    parameters = {}
    for name, value in model.parameters.items():
        parameters[name] = _encoded(name, value)
    arrays = _arrays_of(model)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION if _PLACES & arrays.keys() else 1,
        "fastsoftmax_version": __version__,
        "estimator": model.estimator,
        "parameters": parameters,
        "classes": _labels_as_json(model.coefficients.classes),
        "n_features_in": model.n_features_in,
        "feature_names_in": model.feature_names_in,
        **model.numbers,
    }
    encoded = np.frombuffer(json.dumps(header).encode("ascii"), dtype=np.uint8)
    if header["classes"] is not None:
        del arrays["classes"]
    _check(model)
    with _opened_to_write(file) as opened:
        write_arrays(opened, {"header": encoded, **arrays})


def _arrays_of(model: SavedModel) -> dict[str, Array]:
    """Return the arrays of a model as members have them."""
    classes, coef, intercept = model.coefficients
    arrays = {"classes": classes, "intercept": intercept, **arrays_of(coef)}
    if model.velocity is not None:
        arrays["velocity"] = model.velocity
        if model.velocity_columns is not None:
            arrays["velocity_columns"] = model.velocity_columns.astype(np.int32)
    return arrays


def _typed(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a fit as Python's."""
    return {k: None if v is None else NUMBERS[k](np.max(v)) for k, v in numbers.items()}


@contextmanager
def _opened_to_write(file: File) -> Iterator[IO[bytes]]:
    if _is_text(file):
        raise TypeError('file must be open for bytes (mode "wb"), got one that is open for text')
    if not isinstance(file, str | os.PathLike):
        if not callable(getattr(file, "write", None)):
            raise TypeError(f"file must be a path or an open file, got {file!r}")
        yield file
        return
    with replacing(Path(file)) as opened:
        yield opened


def _encoded(name: str, value: Any) -> Any:
    """Return a parameter as JSON has it."""
    if name == "class_weight" and isinstance(value, dict):
        return [[_plain(name, label), _plain(name, weight)] for label, weight in value.items()]
    if isinstance(value, np.random.RandomState | np.random.Generator):
        warnings.warn(
            f"a model file holds no random number generators: {name} will be None in the model "
            "that is loaded, which changes no prediction",
            UserWarning,
            stacklevel=5,
        )
        return None
    return _plain(name, value)


def _plain(name: str, value: Any) -> Any:
    """Return a number, str, bool or None as Python's own."""
    plain = value.item() if isinstance(value, np.generic) else value
    if not (plain is None or type(plain) in (bool, int, float, str)) or _is_too_long(plain):
        raise TypeError(
            f"{name} cannot be saved: a file holds numbers of 64 bits, str, bool and None, got "
            f"{value!r} of type {type(value).__name__}; pickle and joblib save everything"
        )
    return plain


def _is_too_long(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= 2**64


def _labels_as_json(classes: Array) -> list[Any] | None:
    """Return labels that are Python objects; None for what an array without objects holds."""
    if classes.dtype.kind == "O":
        return [_plain("a label in classes_", label) for label in classes]
    dtype = classes.dtype
    if not (dtype.kind in "biuU" or (dtype.kind == "f" and dtype.itemsize <= 8)):
        raise TypeError(
            "classes_ cannot be saved: labels may be str, int, bool, float or objects of these "
            f"types, got an array of dtype {dtype}; pickle and joblib save everything"
        )
    return None


# ---- reading ----


def read_model(file: File) -> SavedModel:
    """Read a model from a path or an open file; a ValueError for everything but a sound one."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return _read_opened(opened, os.fspath(file))
    if _is_text(file) or not callable(getattr(file, "seek", None)):
        raise TypeError(
            'file must be a path or a seekable file that is open for bytes (mode "rb"), '
            f"got {file!r}"
        )
    return _read_opened(file, "the file")


def _read_opened(file: IO[bytes], name: str) -> SavedModel:
    with naming_damage(f"{name} is no model saved by FastSoftmax.save"):
        return _model_of(_members(file))


def _members(file: IO[bytes]) -> dict[str, bytes]:
    """Return the bytes of each member, by its name without ".npy"."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename.removesuffix(".npy") for entry in entries]
        known = _ARRAYS <= set(names) <= _ARRAYS | _OPTIONAL_ARRAYS
        if not (known and len(set(names)) == len(names)) or any(
            not entry.filename.endswith(".npy") for entry in entries
        ):
            shown = sorted(entry.filename[:40] for entry in entries[:10])
            raise ValueError(f"its members are not those of a model: {shown}")
        return members_of(archive, size)


def _model_of(members: dict[str, bytes]) -> SavedModel:
    header = _header_of(_array_of("header", members.pop("header"), 1))
    if header["format_version"] < 2 and _PLACES & members.keys():
        raise ValueError(f"format 1 has no {sorted(_PLACES & members.keys())[0]}")
    n_features = header["n_features_in"]
    arrays = {
        name: _array_of(name, data, 2 if name == "coef" and "row_starts" not in members else 1)
        for name, data in members.items()
    }
    arrays["coef"] = coef_from(arrays, n_features)
    velocity, velocity_columns = (arrays.pop(k, None) for k in ("velocity", "velocity_columns"))
    if velocity_columns is not None:
        velocity_columns = checked_columns("velocity_columns", velocity_columns, n_features)
    classes = header["classes"]
    if (classes is None) != ("classes" in arrays):
        raise ValueError("classes must be an array or a list in the header")
    if classes is not None:  # of one dimension, as no label is a sequence
        arrays["classes"] = np.array([_scalar(label) for label in classes], dtype=object)
    model = SavedModel(
        header["estimator"],
        {name: _decoded(name, value) for name, value in header["parameters"].items()},
        Coefficients(**arrays),
        header["n_features_in"],
        header["feature_names_in"],
        {name: header[name] for name in NUMBERS},
        velocity,
        velocity_columns,
    )
    _check(model)
    return model._replace(numbers=_typed(model.numbers))


def _array_of(name: str, data: bytes, ndim: int) -> Array:
    array = array_from(name, data)
    least = 0 if name in ("coef", "columns") and ndim == 1 else 1  # sparse, all may be 0
    if array.ndim != ndim or min(array.shape) < least:
        raise ValueError(
            f"{name} must have {ndim} dimensions of at least {least}, got {array.shape}"
        )
    return array


def _header_of(encoded: Array) -> dict[str, Any]:
    if encoded.dtype != np.uint8:
        raise ValueError(f"header must hold bytes, got {encoded.dtype}")
    header = json.loads(encoded.tobytes().decode("ascii"))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("its header is not that of a model")
    version = header.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version must be an integer >= 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"it has format {version}, of fastsoftmax {header.get('fastsoftmax_version')!r}; "
            f"fastsoftmax {__version__} reads formats up to {FORMAT_VERSION}: upgrade it"
        )
    if header.keys() != _HEADER.keys():
        raise ValueError(
            "its header must have other keys: lacks "
            f"{sorted(_HEADER.keys() - header.keys())}, unknown are "
            f"{sorted(header.keys() - _HEADER.keys())[:10]}"
        )
    for name, types in _HEADER.items():
        if type(header[name]) not in types:
            raise ValueError(f"{name} in its header is of type {type(header[name]).__name__}")
    return header


def _decoded(name: str, value: Any) -> Any:
    if name == "class_weight" and isinstance(value, list):
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise ValueError("class_weight must be a list of pairs")
        return {_scalar(label): _scalar(weight) for label, weight in value}
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise ValueError(f"its header has a {type(value).__name__} where a scalar belongs")
    if _is_too_long(value):
        raise ValueError("its header has an integer of more than 64 bits")
    return value


# ---- what holds of every model ----


def _check(model: SavedModel) -> None:
    """Raise a ValueError unless the parts of a model fit together and are finite."""
    coef, velocity, names = model.coefficients.coef, model.velocity, model.feature_names_in
    model.coefficients.check(model.n_features_in)
    if velocity is not None:
        columns = model.velocity_columns
        n_columns = model.n_features_in if columns is None else len(columns)
        length = coef.shape[0] * (n_columns + 1)
        if velocity.dtype != coef.dtype or velocity.shape != (length,):
            raise ValueError(
                f"velocity must be of {length} {coef.dtype}, got {velocity.shape} of "
                f"{velocity.dtype}"
            )
        if not np.isfinite(velocity).all():
            raise ValueError("velocity must be finite")
    if names is not None and not (
        len(names) == model.n_features_in and all(isinstance(name, str) for name in names)
    ):
        raise ValueError(
            f"feature_names_in_ must be {model.n_features_in} str, one for each feature"
        )
    numbers = {name: value for name, value in model.numbers.items() if value is not None}
    for name, shown in (("n_iter", "n_iter_"), ("gap", "gap_"), ("weight_seen", "weight_seen")):
        if not numbers.get(name, 0) >= 0:
            raise ValueError(f"{shown} must be >= 0, got {numbers[name]}")
    check_temperature(numbers.get("temperature", 1.0))
    if numbers.get("n_iter", 0) >= 2**31:
        raise ValueError(f"n_iter_ must have 32 bits, got {numbers['n_iter']}")


def check_temperature(temperature: float) -> None:
    """Raise a ValueError unless logits can be divided by it."""
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"temperature_ must be finite and > 0, got {temperature}")
