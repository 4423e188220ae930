"""Names, shapes and types of the weights that travel: what both sides must agree on before any number moves."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from protocol.errors import SchemaError

FLOATS = ("float16", "float32", "float64")
"""Types that may travel. An average of integers is no integer, so integer tensors have no place in an update."""


@dataclass(frozen=True, kw_only=True)
class WeightSchema:
    """The weights in canonical order, which is the order of their names."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be averaged, and any order but the canonical one."""
        if not len(self.names) == len(self.shapes) == len(self.dtypes):
            raise SchemaError(
                f"{len(self.names)} names, {len(self.shapes)} shapes and {len(self.dtypes)} types do not describe "
                "the same weights; build the schema with WeightSchema.of"
            )
        if list(self.names) != sorted(set(self.names)):
            raise SchemaError("the names are not sorted and unique; build the schema with WeightSchema.of")
        strange = [f"{n} ({d})" for n, d in zip(self.names, self.dtypes, strict=True) if d not in FLOATS]
        if strange:
            raise SchemaError(
                f"{len(strange)} tensors are not floating point and cannot be averaged: {', '.join(strange[:5])}; "
                "keep counters and index buffers at the site"
            )

    @classmethod
    def of(cls, weights: Mapping[str, np.ndarray[Any, Any]]) -> "WeightSchema":
        """The schema that describes these weights.

        Raises:
            SchemaError: a tensor is not of a floating-point type.
        """
        names = tuple(sorted(weights))
        return cls(
            names=names,
            shapes=tuple(tuple(weights[name].shape) for name in names),
            dtypes=tuple(str(weights[name].dtype) for name in names),
        )

    def __iter__(self) -> Iterator[tuple[str, tuple[int, ...], str]]:
        """Name, shape and type of each tensor, in canonical order."""
        return zip(self.names, self.shapes, self.dtypes, strict=True)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, over the canonical JSON of names, shapes and types."""
        entries = [[name, list(shape), dtype] for name, shape, dtype in self]
        return hashlib.sha256(json.dumps(entries, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def flat_sizes(self) -> dict[str, int]:
        """For each type, in sorted order, how many numbers travel in its one flat array."""
        sizes = dict.fromkeys(sorted(set(self.dtypes)), 0)
        for _, shape, dtype in self:
            sizes[dtype] += math.prod(shape)
        return sizes
