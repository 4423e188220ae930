"""Dropout whose random numbers cost little on a CPU: sixteen bits for a value, and no pass of its own.

Torch draws a number in single precision for every value, scales all and multiplies all, which is a seventh of a small
model's step. Here the share of zeros is p to 1 / 65,536, and the scale goes with the share that it is.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_STATES = 1 << 16


def drop(values: Tensor, share: float, *, training: bool) -> Tensor:
    """The values with a share of them at 0 and the others larger by as much, while training."""
    if not training or not share:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, share)
    kept, scale = _kept(values, share)
    return values * kept.mul_(scale)


def drop_and_add(values: Tensor, residual: Tensor, share: float, *, training: bool) -> Tensor:
    """`residual` and what `drop` leaves of the values, on a CPU in one pass."""
    if not training or not share or values.device.type != "cpu" or values.dtype != residual.dtype:
        return drop(values, share, training=training) + residual
    kept, scale = _kept(values, share)
    return torch.addcmul(residual, values, kept, value=scale)


def _kept(values: Tensor, share: float) -> tuple[Tensor, float]:
    """1 in places that are kept and 0 in the others, as the values are in shape and precision; and the scale."""
    dropped, count = round(share * _STATES), values.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    state = words.view(torch.int16)[:count].view(values.shape)
    kept = torch.ge(state, dropped - _STATES // 2, out=torch.empty(values.shape, dtype=values.dtype))
    return kept, _STATES / (_STATES - dropped)
