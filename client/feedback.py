"""What leaves for an update: its codec at the site, with error feedback from round to round."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from client.state import RunState
from protocol.compression import Codec, with_feedback
from protocol.messages import Order

Arrays = dict[str, np.ndarray[Any, Any]]


def encoded(
    order: Order, update: Mapping[str, np.ndarray[Any, Any]], state: RunState, *, charged: bool = False
) -> Arrays:
    """What leaves for a packed update under the order's codec. What the codec takes is kept for the next round.

    `charged` keeps apart what follows from noised updates alone.

    Raises:
        NotFiniteError: the update has values that a lossy codec cannot send.
    """
    codec = Codec.of(order.codec)
    residual = None if codec.exact or codec.adapters else state.residual(before_round=order.round, charged=charged)
    leaving, owed = with_feedback(update, residual, codec)
    if owed is not None:
        state.keep_residual(order.round, owed, charged=charged)
    return leaving
