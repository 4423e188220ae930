"""One pass over updates on the disk, a few blocks of each at a time, on all processors."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from server.spool import BLOCK, Update, spans

T = TypeVar("T")

_VALUES = 1 << 23
"""Values of all updates together that one thread holds at a time: enough that starting and ending do not show."""
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
    with ThreadPoolExecutor(min(_THREADS, len(os.sched_getaffinity(0)))) as pool:
        found = list(pool.map(partial(_step, updates, work), *zip(*parts, strict=True))) if parts else []
    for update in updates:
        for dtype, array in update.arrays.items():
            update.let_go(dtype, slice(0, array.size))
    return found


def _step(updates: Sequence[Update], work: Callable[[str, slice], T], dtype: str, part: slice) -> T:
    found = work(dtype, part)
    for update in updates:
        update.let_go(dtype, part)
    return found
