"""The weighted mean of updates that arrive one at a time; it never holds more than the one being added."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from protocol.schema import WeightSchema

Array = np.ndarray[Any, Any]
_CHUNK = 1 << 16


class StreamingMean:
    """Sum of weight times update over sum of weights.

    The products of float32 updates and example counts are exact in float64, and each addition carries its rounding
    error along (TwoSum), so that the order in which sites answer does not show in float32 weights.

    Source: Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974.
    """

    def __init__(self, schema: WeightSchema) -> None:
        self.count = 0
        self.weight = 0
        self._sums = {dtype: np.zeros(size) for dtype, size in schema.flat_sizes.items()}
        self._errors = {dtype: np.zeros(size) for dtype, size in schema.flat_sizes.items()}

    def add(self, update: Mapping[str, Array], weight: int) -> None:
        """Add one site's packed update, which is left as it was."""
        assert weight > 0, "screening lets only positive weights through"
        for dtype, total in self._sums.items():
            error = self._errors[dtype]
            for part in slices(total.size):
                _add_exactly(total[part], error[part], update[dtype][part].astype(np.float64) * weight)
        self.count += 1
        self.weight += weight

    def mean(self) -> dict[str, Array]:
        """The mean so far, packed, in float64.

        Ends the stream: the sums become the mean in place.
        """
        assert self.count > 0, "there is no mean of nothing"
        for dtype, total in self._sums.items():
            for part in slices(total.size):
                total[part] = (total[part] + self._errors[dtype][part]) / self.weight
        self._errors = {}
        return self._sums


def norm(arrays: Mapping[str, Array]) -> float:
    """L2 norm over all packed arrays together."""
    squares = (
        float(np.sum(np.square(array[part], dtype=np.float64)))
        for array in arrays.values()
        for part in slices(array.size)
    )
    return math.sqrt(math.fsum(squares))


def slices(size: int) -> Iterator[slice]:
    """Consecutive slices that cover `size` numbers, each small enough for the processor's cache."""
    return (slice(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK))


def _add_exactly(total: Array, error: Array, term: Array) -> None:
    """TwoSum: `total` becomes the rounded sum, and what rounding lost is added to `error`."""
    summed = total + term
    share = summed - total
    error += (total - (summed - share)) + (term - share)
    total[:] = summed
