"""Opacus's DPOptimizer in its assembled form: noise from a secure source on a fixed grid, a public batch size.

Weight decay and FedProx act on what the noise has already covered, so they cost nothing.
"""

from collections.abc import Callable

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

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
        noise_N = self._source.normals(sum(weight.numel() for weight in self.params))
        first = 0
        for weight in self.params:
            noise = noise_N[first : first + weight.numel()].view_as(weight).to(weight.device, weight.dtype)
            weight.grad = to_grid(weight.summed_grad.add_(noise, alpha=deviation), deviation)
            first += weight.numel()

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


def to_grid(tensor: Tensor, deviation: float) -> Tensor:
    """The tensor rounded, in place, to the grid that belongs to this deviation."""
    step = 2.0 ** torch.tensor(deviation * GRID, dtype=torch.float64).log2().floor().item()
    return tensor.div_(step).round_().mul_(step)


def clear(weights: list[nn.Parameter]) -> None:
    """Forget sums and gradients."""
    for weight in weights:
        weight.grad = weight.summed_grad = None  # type: ignore[attr-defined]
