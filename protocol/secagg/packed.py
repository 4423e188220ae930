"""The flat arrays of an update (`protocol.codec.pack`: one a type) to one vector of words, and a mean back to them.

The vector holds the arrays one after another in the order of their types' names.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from protocol.errors import DtypeError, ShapeError
from protocol.schema import FLOATS
from protocol.secagg.fixed_point import FixedPoint, encode

Array = np.ndarray[Any, Any]


def encode_packed(
    arrays: Mapping[str, Array],
    values: int,
    fixed: FixedPoint,
    share: Fraction,
    generator: np.random.Generator | None = None,
) -> tuple[Array, int]:
    """The update times `share` as a new vector of words, and how many of its coordinates were clipped.

    Raises:
        UpdateError: an array is not flat, of another type than its name, not finite, or there are not `values` numbers.
        RangeError: stochastic rounding was agreed and no generator given.
    """
    for name, array in arrays.items():
        if array.dtype != np.dtype(name) or name not in FLOATS:
            raise DtypeError(f"the flat array {name[:40]!r} is {array.dtype}; pack the update with protocol.codec")
    sizes = sum(array.size for array in arrays.values())
    if sizes != values or any(array.ndim != 1 for array in arrays.values()):
        raise ShapeError(f"the update has {sizes} numbers, and flat arrays of {values} were agreed; use the same model")
    words, start, clipped = np.empty(values, fixed.dtype), 0, 0
    for name in sorted(arrays):
        stop = start + arrays[name].size
        clipped += encode(arrays[name], words[start:stop], fixed, share, generator)
        start = stop
    return words, clipped


def unpack_mean(mean: Array, sizes: Mapping[str, int]) -> dict[str, Array]:
    """The mean as flat arrays by type, cast to it; `sizes` is `WeightSchema.flat_sizes`.

    Raises:
        ShapeError: the mean is not as long as all of them.
    """
    if mean.shape != (sum(sizes.values()),):
        raise ShapeError(f"the mean has shape {list(mean.shape)}, and the schema {sum(sizes.values())} numbers")
    arrays, start = {}, 0
    for name in sorted(sizes):
        arrays[name] = mean[start : start + sizes[name]].astype(name)
        start += sizes[name]
    return arrays
