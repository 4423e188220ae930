"""The weighted mean of updates on the disk, in fixed point, so that no order of sites and no thread changes a bit.

In every block of 131,072 values all sites' shares become integers on one grid, as in secure aggregation, and are added
in words that wrap. Sums of integers are exact in any order.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from server.spool import BLOCK, Update
from server.sweep import in_parts, sizes_of, sweep

Array = np.ndarray[Any, Any]


class _Words(NamedTuple):
    """How values of one precision become integers: adding `magic` rounds to a whole number, in the lowest bits."""

    real: np.dtype[Any]
    whole: np.dtype[Any]
    magic: float
    """1.5 times a power of two: within a third of it the spacing of the type is 1."""
    most: float
    """The largest magnitude of one integer."""
    most_sum: float
    """What the magnitudes of all integers that are added may come to."""
    roundings: float
    """How often a value is rounded to the type on its way."""
    factor: float
    """The largest factor, so that none overflows: what lies below its inverse counts as nothing."""


_WORDS = {
    4: _Words(np.dtype(np.float32), np.dtype(np.int32), 1.5 * 2**23, 2.0**22, 2.0**30, 5.1, 2.0**100),
    8: _Words(np.dtype(np.float64), np.dtype(np.int64), 1.5 * 2**52, 2.0**51, 2.0**62, 7, 2.0**1000),
}
_MARGIN = 1 - 2**-20
"""The factors are rounded to the type, and the product once more; neither may pass the largest integer."""


def weighted_mean(updates: Sequence[Update], weights: Sequence[float]) -> dict[str, Array]:
    """The weighted mean of at least one update, packed, by type: float32, and float64 for float64 weights.

    One update comes back as it is. Of more, a value is off by at most `error_bound` of its block.
    """
    total = math.fsum(weights)
    if len(updates) > 1:
        return combination(updates, [weight / total for weight in weights])
    merged = empty(updates)

    def copy(dtype: str, part: slice) -> None:
        merged[dtype][part] = updates[0].arrays[dtype][part]

    sweep(updates, copy)
    return merged


def combination(updates: Sequence[Update], shares: Sequence[float]) -> dict[str, Array]:
    """The sum of share times update, packed; no share is below 0, and all come to 1 at most."""
    assert len(updates) == len(shares) > 0, "every update has one share"
    grids = {dtype: _grid(updates, shares, dtype) for dtype in updates[0].arrays}
    merged, held = empty(updates), _Held()

    def add(dtype: str, part: slice) -> None:
        scratch = held.scratch.get(dtype) or held.scratch.setdefault(dtype, _Scratch(_words(dtype)))
        for start in range(part.start, part.stop, BLOCK):
            block = slice(start, min(start + BLOCK, part.stop))
            factor = float(grids[dtype][start // BLOCK])
            rows = [update.arrays[dtype][block] for update in updates]
            scratch.add(rows, [factor * share for share in shares])
            scratch.write(1 / factor, merged[dtype][block])

    sweep(updates, add)
    return merged


def empty(updates: Sequence[Update]) -> dict[str, Array]:
    """Room for what the updates become: float32, and float64 for float64 weights."""
    return {dtype: np.empty(flat.size, _words(dtype).real) for dtype, flat in updates[0].arrays.items()}


def error_bound(updates: Sequence[Update], shares: Sequence[float], dtype: str) -> Array:
    """How far each block's values of the combination may be from the exact ones, float64, one a block.

    With u the unit of the block's grid, which is 2**-22 of the largest share * peak (2**-51 for float64 weights) as
    long as there are no more than 256 updates (2048), but never below 2**-100 (2**-1000) of the largest share: rounding
    to the grid costs u / 2 an update. The rest is the type's own rounding, of each factor and each product, of the sum,
    the unit and the result.
    """
    words, peaks = _words(dtype), _peaks(updates, shares, dtype)
    kind = np.finfo(words.real)
    grid = len(updates) / 2 / _grid(updates, shares, dtype)
    rounding = (words.roundings * float(kind.eps) / 2 * peaks).sum(axis=0)
    bound: Array = np.where(peaks.any(axis=0), grid + rounding + float(kind.smallest_subnormal), 0)
    return bound


def norm(arrays: Mapping[str, Array]) -> float:
    """L2 norm over all packed arrays together."""

    def squares(dtype: str, whole: slice) -> list[float]:
        flat = arrays[dtype][whole]
        return [float(np.sum(np.square(flat[part], dtype=np.float64))) for part in slices(flat.size)]

    return math.sqrt(math.fsum(chain.from_iterable(in_parts(sizes_of(arrays), squares))))


def difference(arrays: Mapping[str, Array], before: Mapping[str, Array]) -> dict[str, Array]:
    """The packed arrays less those before."""
    found = {dtype: np.empty_like(flat) for dtype, flat in arrays.items()}

    def subtract(dtype: str, part: slice) -> None:
        np.subtract(arrays[dtype][part], before[dtype][part], out=found[dtype][part])

    in_parts(sizes_of(arrays), subtract)
    return found


def all_finite(arrays: Mapping[str, Array]) -> bool:
    """Whether no number of the flat arrays is NaN or infinite."""

    def finite(name: str, whole: slice) -> bool:
        flat = arrays[name][whole]
        return all(np.isfinite(flat[part]).all() for part in slices(flat.size))

    return all(in_parts(sizes_of(arrays), finite))


def slices(size: int) -> Iterator[slice]:
    """Consecutive slices that cover `size` numbers, each small enough for the processor's cache."""
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _words(dtype: str) -> _Words:
    return _WORDS[max(4, np.dtype(dtype).itemsize)]


def _peaks(updates: Sequence[Update], shares: Sequence[float], dtype: str) -> Array:
    """Share times peak, (updates, blocks)."""
    return np.array([share * update.peaks[dtype] for update, share in zip(updates, shares, strict=True)])


def _grid(updates: Sequence[Update], shares: Sequence[float], dtype: str) -> Array:
    """The integers a unit of value, a number a block: what all sites' shares are multiplied by."""
    words, peaks = _words(dtype), _peaks(updates, shares, dtype)
    most = min(words.most, words.most_sum / len(updates)) * _MARGIN
    with np.errstate(divide="ignore", over="ignore"):
        grid: Array = np.minimum(most / peaks.max(axis=0), words.factor / (max(shares) or 1))
    return grid


class _Scratch:
    """Memory in which one thread adds up block after block; it stays in the processor's cache.

    Each scaled value brings the bits of `magic` into the sum with it. All of them go out beforehand, at once: the words
    wrap, and what has wrapped does no harm.
    """

    def __init__(self, words: _Words) -> None:
        self._words = words
        self._magic = words.real.type(words.magic)
        self._scaled, self._sums = np.empty(BLOCK, words.real), np.empty(BLOCK, words.whole)

    def add(self, rows: Sequence[Array], factors: Sequence[float]) -> None:
        """Hold the sum of factor times row, each product rounded to a whole number."""
        size = rows[0].size
        scaled, sums = self._scaled[:size], self._sums[:size]
        whole = scaled.view(sums.dtype)
        half = 1 << (8 * sums.itemsize - 1)
        sums.fill((half - len(rows) * int(self._magic.view(sums.dtype))) % (2 * half) - half)
        for row, factor in zip(rows, factors, strict=True):
            np.multiply(row, scaled.dtype.type(factor), out=scaled)
            np.add(scaled, self._magic, out=scaled)
            np.add(sums, whole, out=sums)

    def write(self, unit: float, out: Array) -> None:
        """Write what is held, times a unit."""
        out[:] = self._sums[: out.size]
        with np.errstate(over="ignore"):
            np.multiply(out, out.dtype.type(unit), out=out)
        # A mean of the largest numbers there are, rounded up, would be infinite.
        largest = float(np.finfo(out.dtype).max)
        if unit > largest / (2 * self._words.most_sum):
            np.clip(out, -largest, largest, out=out)


class _Held(threading.local):
    """The scratch of each thread by type, so that a pass takes its memory once."""

    def __init__(self) -> None:
        self.scratch: dict[str, _Scratch] = {}
