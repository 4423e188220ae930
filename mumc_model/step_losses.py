"""Each step's losses as numbers, read so that an accelerator never waits for the program."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mumc_model.errors import DivergedError

OnStep = Callable[[int, Mapping[str, float]], None]
"""Called once for each step, in their order, with its global number and its losses."""


@dataclass(frozen=True)
class _Reading:
    """A step's losses on their way to the CPU."""

    step: int
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None

    @staticmethod
    def begin(step: int, losses: Mapping[str, Tensor]) -> "_Reading":
        values = torch.stack([loss.detach() for loss in losses.values()])
        if values.device.type != "cuda":
            return _Reading(step, tuple(losses), values, None)
        # The event belongs to the current device, which need not be the one that computes.
        with torch.cuda.device(values.device):
            on_cpu = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        return _Reading(step, tuple(losses), on_cpu, arrived)

    def numbers(self) -> dict[str, float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


class LossReader:
    """Adds up the losses of steps and tells of each; of an accelerator's one step late, while the next is at work."""

    def __init__(self, on_step: OnStep | None = None) -> None:
        """`on_step` is told of every step."""
        self.sums: dict[str, float] = {}
        """Of each loss over the steps that were told."""
        self._on_step = on_step
        self._waiting: _Reading | None = None

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Take a step's losses, `total` among them.

        Raises:
            DivergedError: one that has arrived is no longer finite.
        """
        reading = _Reading.begin(step, losses)
        self.finish()
        self._waiting = reading
        if reading.arrived is None:
            self.finish()

    def finish(self) -> None:
        """Tell what is still to be told.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        if self._waiting is None:
            return
        step, losses, self._waiting = self._waiting.step, self._waiting.numbers(), None
        if not math.isfinite(losses["total"]):
            raise DivergedError(f"the loss is {losses['total']} at step {step}; lower optimizer.lr or clip gradients")
        self.sums = {name: self.sums.get(name, 0.0) + loss for name, loss in losses.items()}
        if self._on_step is not None:
            self._on_step(step, losses)
