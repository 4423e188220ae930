"""Updates of adapters: their factors travel, and the server multiplies them out.

Where a matrix changes only by the product of two factors, these are sent in its place, and what is merged is the mean
of the products. That is exact. (The product of mean factors, as in FedIT, arXiv 2305.05644, is another matrix.)
Weights that neither change by factors nor are sent whole are frozen: their difference is 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Self

import numpy as np

from protocol.codec import unpack
from protocol.errors import MessageError, NotFiniteError, SchemaError
from protocol.schema import WeightSchema

Array = np.ndarray[Any, Any]
LEFT, RIGHT = ".left", ".right"
"""Suffixes of a matrix's two factors; left @ right is the matrix."""
MOST_PATTERNS = 64


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Which weights of a run change by factors, and which travel whole."""

    rank: int
    factored: tuple[str, ...]
    """Patterns of names of matrices."""
    whole: tuple[str, ...]
    """Patterns of names of what travels beside them."""

    def __post_init__(self) -> None:
        """Refuse ranks that cannot be."""
        if self.rank < 1:
            raise MessageError(f"order.codec.adapters has rank {self.rank}; choose 1 or more")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The same from plain values.

        Raises:
            MessageError: they are none.
        """
        lists = [values.get("factored"), values.get("whole")]
        named = all(
            isinstance(held, list) and len(held) <= MOST_PATTERNS and all(type(name) is str for name in held)
            for held in lists
        )
        if values.keys() != {"rank", "factored", "whole"} or type(values["rank"]) is not int or not named:
            raise MessageError("order.codec.adapters holds a rank and two lists of names; install the same fedmumc")
        return cls(rank=values["rank"], factored=tuple(values["factored"]), whole=tuple(values["whole"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"rank": self.rank, "factored": list(self.factored), "whole": list(self.whole)}

    def schema(self, full: WeightSchema) -> WeightSchema:
        """What travels in the place of weights of the full schema.

        Raises:
            SchemaError: no matrix of it changes by factors.
        """
        return _schema(self, full)

    def matrices(self, full: WeightSchema) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape and type of each matrix that changes by factors."""
        return [entry for entry in full if len(entry[1]) == 2 and _matches(entry[0], self.factored)]

    def expand(self, arrays: Mapping[str, Array], full: WeightSchema) -> dict[str, Array]:
        """The packed differences of all weights, from packed factors and what came beside them.

        Raises:
            UpdateError: the arrays are not those of `schema(full)`, or a product is not finite.
        """
        sent = unpack(arrays, self.schema(full))
        flat = {dtype: np.zeros(size, dtype) for dtype, size in full.flat_sizes.items()}
        for name, weight in unpack(flat, full).items():
            if name in sent:
                weight[...] = sent[name]
            elif name + LEFT in sent:
                # A factor that overflows is the sender's fault, and found below.
                with np.errstate(over="ignore", invalid="ignore"):
                    np.matmul(sent[name + LEFT], sent[name + RIGHT], out=weight)
                if not np.isfinite(weight).all():
                    raise NotFiniteError(f"the factors of {name:.60} come to values that are NaN or infinite")
        return flat


@lru_cache(maxsize=4)
def _schema(adapters: LowRank, full: WeightSchema) -> WeightSchema:
    matrices = {name: (shape, dtype) for name, shape, dtype in adapters.matrices(full)}
    if not matrices:
        raise SchemaError("no weight of the model changes by an adapter; use the same model and version at both ends")
    forms: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, shape, dtype in full:
        if name in matrices:
            forms[name + LEFT] = (shape[0], adapters.rank), dtype
            forms[name + RIGHT] = (adapters.rank, shape[1]), dtype
        elif _matches(name, adapters.whole):
            forms[name] = shape, dtype
    names = tuple(sorted(forms))
    return WeightSchema(names=names, shapes=tuple(forms[n][0] for n in names), dtypes=tuple(forms[n][1] for n in names))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
