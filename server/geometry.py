"""How updates lie to one another: all their inner products, in one pass over the disk."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from server.spool import Update
from server.sweep import sweep

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 14
"""Values of each update that are in float64 at a time: small enough for the processor's cache."""
_FEW = 10
"""Fewer rows than these are multiplied in pairs, which takes less than half of what a product of matrices does: that
has a fixed price, and gives every product twice."""


def inner_products(updates: Sequence[Update], others: Sequence[Mapping[str, Array]] = ()) -> Array:
    """The inner products of `n` updates and `k` other packed arrays, over all types together, float64 (n + k, n + k).

    The arithmetic is float64 throughout, so that squares of float32 values cannot overflow. What float64 values above
    1e150 make of their own row and column may be infinite or NaN; all other products are as if they were not there.
    """
    rows = [*(update.arrays for update in updates), *others]
    total = np.zeros((len(rows), len(rows)))
    # The pass has threads of its own. Dividing each small product among more makes these wait for one another most of
    # the time: from 32 updates on it took ten times as long.
    with threadpool_limits(1, user_api="blas"):
        parts = sweep(updates, partial(_products, rows))
    for part in parts:
        total += part
    return total


def norms(updates: Sequence[Update]) -> list[float]:
    """The L2 norm of each update over all types, in their order; infinite where the square of a value overflows.

    It hangs on the update alone: the others, and their order, change no bit of it.
    """
    squares = sweep(updates, partial(_squares, updates))
    return [math.sqrt(math.fsum(column)) for column in zip(*squares, strict=True)] or [0.0] * len(updates)


def squared_distances(gram: Array) -> Array:
    """The squared L2 distance of each pair, (n, n), from their inner products; infinite where these overflowed."""
    squares = np.diagonal(gram)
    with np.errstate(invalid="ignore", over="ignore"):
        found = squares[:, None] + squares[None, :] - 2 * gram
    found = np.where(np.isfinite(found), np.maximum(found, 0), np.inf)
    np.fill_diagonal(found, 0)
    return found


def _products(rows: Sequence[Mapping[str, Array]], dtype: str, part: slice) -> Array:
    total = np.zeros((len(rows), len(rows)))
    held = np.empty((len(rows), _CHUNK))
    for start in range(part.start, part.stop, _CHUNK):
        stop = min(start + _CHUNK, part.stop)
        chunk = held[:, : stop - start]
        for row, flat in enumerate(rows):
            chunk[row] = flat[dtype][start:stop]
        with np.errstate(over="ignore", invalid="ignore"):
            if len(rows) >= _FEW:
                total += chunk @ chunk.T
            else:
                for row in range(len(rows)):
                    total[row, row:] += np.vecdot(chunk[row:], chunk[row])
    return total if len(rows) >= _FEW else np.triu(total) + np.triu(total, 1).T


def _squares(updates: Sequence[Update], dtype: str, part: slice) -> list[float]:
    with np.errstate(over="ignore"):
        return [
            math.fsum(
                float(np.square(flat[start : min(start + _CHUNK, part.stop)], dtype=np.float64).sum())
                for start in range(part.start, part.stop, _CHUNK)
            )
            for flat in (update.arrays[dtype] for update in updates)
        ]
