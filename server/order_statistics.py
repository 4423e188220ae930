"""Medians and trimmed means of every coordinate, a few thousand coordinates of all updates at a time.

Rows are sorted against each other by a fixed network of minima and maxima: whole rows at once, in the processor's
cache, which for the few updates of a round is many times faster than sorting every coordinate on its own.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from server.merge import empty
from server.spool import Update
from server.sweep import sweep

Array = np.ndarray[Any, Any]

_VALUES, _FEWEST = 1 << 18, 1 << 10
"""Values of all updates together that are sorted at a time, and the fewest of one."""


def middle_mean(updates: Sequence[Update], cut: int) -> dict[str, Array]:
    """The mean of every coordinate without its `cut` lowest and its `cut` highest values, packed.

    It is float32, or float64 for float64 weights; it is summed in float64 from the lowest value on, so that no order of
    the updates changes a bit, and it lies between the lowest and the highest value that was kept.
    """
    count = len(updates)
    assert 0 <= 2 * cut < count, "a value is left"
    merged = empty(updates)
    step = max(_FEWEST, _VALUES // count)

    def work(dtype: str, part: slice) -> None:
        held = np.empty((count + 1, step), merged[dtype].dtype)
        for start in range(part.start, part.stop, step):
            stop = min(start + step, part.stop)
            rows = [held[place, : stop - start] for place in range(count + 1)]
            for row, update in zip(rows, updates, strict=False):
                row[:] = update.arrays[dtype][start:stop]
            _write_mean(sort_rows(rows)[cut : count - cut], merged[dtype][start:stop])

    sweep(updates, work)
    return merged


def sort_rows(rows: Sequence[Array]) -> list[Array]:
    """All rows but the last, sorted coordinate by coordinate, lowest first; the memory of all of them is used up."""
    *ordered, spare = rows
    for low, high in network(len(ordered)):
        np.minimum(ordered[low], ordered[high], out=spare)
        np.maximum(ordered[low], ordered[high], out=ordered[high])
        ordered[low], spare = spare, ordered[low]
    return ordered


@cache
def network(count: int) -> tuple[tuple[int, int], ...]:
    """Pairs of places that, each put in order one after the other, sort so many values.

    Source: Batcher's merge exchange; Knuth, The Art of Computer Programming 3, section 5.2.2, algorithm M.
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    bit = top if count > 1 else 0
    while bit:
        wide, rest, apart = top, 0, bit
        while True:
            pairs += [(place, place + apart) for place in range(count - apart) if place & bit == rest]
            if wide == bit:
                break
            wide, rest, apart = wide // 2, bit, wide - bit
        bit //= 2
    return tuple(pairs)


def _write_mean(kept: Sequence[Array], out: Array) -> None:
    """Write the mean of sorted rows."""
    with np.errstate(over="ignore"):
        total = kept[0].astype(np.float64)
        for row in kept[1:]:
            total += row
        out[:] = np.divide(total, len(kept), out=total)
    # Rounding may step over the ends, and a sum of the largest numbers over all bounds.
    np.maximum(out, kept[0], out=out)
    np.minimum(out, kept[-1], out=out)
    # Which of two zeros is the lower one hangs on their order: there is only one zero here.
    out += 0
