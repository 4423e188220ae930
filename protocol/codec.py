"""Weights to flat arrays and back: one array a type, since many small tensors travel slowly."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from protocol.errors import DtypeError, MissingWeightsError, ShapeError, UnexpectedWeightsError
from protocol.schema import WeightSchema

Array = np.ndarray[Any, Any]


def pack(weights: Mapping[str, Array], schema: WeightSchema) -> dict[str, Array]:
    """One flat array for each type of the schema, its tensors in canonical order.

    Raises:
        UpdateError: the weights differ from the schema in a name, shape or type.
    """
    _check_names(weights, schema.names)
    parts: dict[str, list[Array]] = {dtype: [] for dtype in schema.flat_sizes}
    for name, shape, dtype in schema:
        _check_array(name, weights[name], shape, dtype)
        parts[dtype].append(np.ravel(weights[name]))
    return {dtype: np.concatenate(flat) for dtype, flat in parts.items()}


def unpack(arrays: Mapping[str, Array], schema: WeightSchema) -> dict[str, Array]:
    """The named tensors, as views into the flat arrays; nothing is copied, cast or broadcast.

    Raises:
        UpdateError: the flat arrays are not exactly those that the schema asks for.
    """
    _check_names(arrays, schema.flat_sizes)
    for dtype, size in schema.flat_sizes.items():
        _check_array(f"the flat {dtype} array", arrays[dtype], (size,), dtype)
    weights: dict[str, Array] = {}
    offsets = dict.fromkeys(schema.flat_sizes, 0)
    for name, shape, dtype in schema:
        start, stop = offsets[dtype], offsets[dtype] + math.prod(shape)
        weights[name] = arrays[dtype][start:stop].reshape(shape)
        offsets[dtype] = stop
    return weights


def digest(arrays: Mapping[str, Array], schema: WeightSchema) -> str:
    """SHA-256, in hex, over the schema and the flat arrays' bytes (little-endian): equal for equal weights only."""
    return digest_under(arrays, schema.digest)


def digest_under(arrays: Mapping[str, Array], schema_digest: str) -> str:
    """The same for weights of whose schema only the digest is known."""
    sha = hashlib.sha256(schema_digest.encode())
    for dtype in sorted(arrays):
        flat = np.ascontiguousarray(arrays[dtype])
        sha.update(f"|{dtype}:{flat.size}|".encode())
        sha.update(flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8).data)
    return sha.hexdigest()


def _check_names(found: Iterable[str], expected: Iterable[str]) -> None:
    found, expected = set(found), set(expected)
    if missing := sorted(expected - found):
        raise MissingWeightsError(f"{len(missing)} arrays are missing: {_some(missing)}; {_SAME_MODEL}")
    if extra := sorted(found - expected):
        raise UnexpectedWeightsError(f"{len(extra)} arrays are not in the schema: {_some(extra)}; {_SAME_MODEL}")


def _check_array(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> None:
    if array.shape != shape:
        raise ShapeError(f"{name} has shape {list(array.shape)} instead of {list(shape)}; {_SAME_MODEL}")
    if array.dtype != np.dtype(dtype):
        raise DtypeError(f"{name} is {array.dtype} instead of {dtype}; {_SAME_MODEL}")


def _some(names: list[str]) -> str:
    return ", ".join(f"{name:.60}" for name in names[:3]) + (", ..." if len(names) > 3 else "")


_SAME_MODEL = "use the same model configuration and version of fedmumc at the server and at every site"
