"""One pass over updates on the disk, or over arrays in memory, a few blocks of each at a time, on all processors."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from server.spool import BLOCK, Update, spans

Array = np.ndarray[Any, Any]
T = TypeVar("T")

_VALUES = 1 << 23
"""Values of all updates together that one thread holds at a time: enough that starting and ending do not show."""
_PART_BLOCKS = 8
"""Blocks of an array in memory that a thread works on before it looks for the next."""
_THREADS = 4
"""More threads add memory and no speed: what bounds a pass is reading from memory."""


def sweep(updates: Sequence[Update], work: Callable[[str, slice], T]) -> list[T]:
    """What `work` returns of every type and slice of whole blocks, in the order of the values.

    `work` runs in threads and must depend on nothing but its slice. Whatever it has read of the updates leaves memory
    when it returns, so that a pass holds a few blocks of each update, whatever their size.
    """
    parts = [
        (dtype, part)
        for dtype, array in updates[0].arrays.items()
        for part in spans(array.size, max(1, _VALUES // (len(updates) * BLOCK)))
    ]
    found = _in_threads(parts, partial(_step, updates, work))
    for update in updates:
        for dtype, array in update.arrays.items():
            update.let_go(dtype, slice(0, array.size))
    return found


def in_parts(sizes: Mapping[str, int], work: Callable[[str, slice], T]) -> list[T]:
    """The same over arrays in memory of these lengths, by type; little is done without threads."""
    parts = [(dtype, part) for dtype, size in sizes.items() for part in spans(size, _PART_BLOCKS)]
    return _in_threads(parts, work)


def sizes_of(arrays: Mapping[str, Array]) -> dict[str, int]:
    """How many values there are of each type."""
    return {dtype: array.size for dtype, array in arrays.items()}


def _in_threads(parts: Sequence[tuple[str, slice]], work: Callable[[str, slice], T]) -> list[T]:
    if len(parts) < 2:
        return [work(*part) for part in parts]
    with ThreadPoolExecutor(min(_THREADS, len(os.sched_getaffinity(0)))) as pool:
        return list(pool.map(work, *zip(*parts, strict=True)))


def _step(updates: Sequence[Update], work: Callable[[str, slice], T], dtype: str, part: slice) -> T:
    found = work(dtype, part)
    for update in updates:
        update.let_go(dtype, part)
    return found
