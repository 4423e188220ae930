"""Opacus's DPOptimizer in its assembled form: noise from a secure source on a fixed grid, a public batch size.

Weight decay and FedProx act on what the noise has already covered, so they cost nothing.
"""

import math
from collections.abc import Callable

import torch
from opacus.optimizers import DPOptimizer
from torch import nn

from client.privacy.randomness import SecureSource

GRID = 2.0**-16
"""Step of the grid that noised sums lie on, as a share of the noise's deviation (rounded down to a power of two). The
grid is the same whatever the data, so the last bits of a floating-point sum tell nothing. Source: Mironov, CCS 2012."""


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]
    """Noises `summed_grad` of each weight, divides by the public batch size, and lets the wrapped optimiser step."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        clipping_norm: float,
        expected_batch: float,
        source: SecureSource,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_step` may add to the gradients what depends on no data, such as FedProx's pull."""
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clipping_norm,
            expected_batch_size=expected_batch,
            loss_reduction="mean",
        )
        self._source, self._before_step = source, before_step

    @property
    def accumulated_iterations(self) -> int:
        """One: the sum is divided by the public batch size, over however many physical batches it was taken."""
        return 1

    def clip_and_accumulate(self) -> None:
        """Nothing: `gradients.UnitGradients` has clipped and summed already. Weights without a sum get one of zero."""
        for weight in self.params:
            if weight.summed_grad is None:
                weight.summed_grad = torch.zeros_like(weight, requires_grad=False)

    def add_noise(self) -> None:
        """Put the noised sum into `grad`: every coordinate of every weight gets noise, whatever the step's records."""
        deviation = self.noise_multiplier * self.max_grad_norm
        step = grid_step(deviation)
        held = [(weight, weight.summed_grad.detach().float().cpu().contiguous()) for weight in self.params]
        self._source.add_normals([summed.view(-1).numpy() for _, summed in held], deviation, step)
        for weight, noised in held:
            weight.grad = noised.to(weight.device, weight.dtype).view_as(weight)

    def scale_grad(self) -> None:
        """Divide by the public batch size, and add what is no secret."""
        super().scale_grad()
        self._before_step()

    def pre_step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Noise, scale and report the step; Opacus would look for unit gradients that are summed up already."""
        self.clip_and_accumulate()
        self.add_noise()
        self.scale_grad()
        if self.step_hook:
            self.step_hook(self)
        return True


def grid_step(deviation: float) -> float:
    """Step of the grid that belongs to this deviation, a power of two."""
    return 2.0 ** math.floor(math.log2(deviation * GRID))


def clear(weights: list[nn.Parameter]) -> None:
    """Forget sums and gradients."""
    for weight in weights:
        weight.grad = weight.summed_grad = None  # type: ignore[attr-defined]
