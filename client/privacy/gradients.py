"""The sum of single units' gradients, each cut to the clipping norm: three ways that give the same numbers.

`hooks` (deferred.py) keeps activations and output gradients of one pass and clips when it sums; `opacus` holds every
unit's whole gradient; `loop` takes one unit at a time. A unit whose gradient is not finite adds nothing.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

Weights = Mapping[str, nn.Parameter]


class Sliceable(Protocol):
    """A batch in which row i of everything is unit i's."""

    def __len__(self) -> int: ...
    def part(self, first: int, last: int) -> Self:
        """The units from `first` to before `last`."""


Loss = Callable[[Any], Tensor]
"""One loss for each unit of a batch, each a function of that unit's rows alone."""


class UnitGradients(Protocol):
    """Adds clipped gradients to `summed_grad` of each weight."""

    def add(self, loss: Loss, batch: Sliceable, clipping_norm: float) -> Tensor:
        """The norm of each unit's gradient before it was cut."""


def clip_factors(norm_B: Tensor, clipping_norm: float) -> Tensor:
    """What each unit's gradient is multiplied with: at most 1, and 0 where the norm is not finite."""
    factor_B = (clipping_norm / norm_B.clamp(min=torch.finfo(norm_B.dtype).tiny)).clamp(max=1.0)
    return torch.where(norm_B.isfinite(), factor_B, torch.zeros_like(factor_B))


def add_to_sum(weight: nn.Parameter, gradient: Tensor) -> None:
    """Add to what the next step will noise."""
    gradient = gradient.to(weight.dtype).view_as(weight)
    held: Tensor | None = getattr(weight, "summed_grad", None)
    weight.summed_grad = gradient if held is None else held.add_(gradient)  # type: ignore[attr-defined]


class LoopGradients:
    """One unit, one backward pass: little memory, much time, and the oracle of the other two."""

    def __init__(self, weights: Weights) -> None:
        self._weights = list(weights.values())

    def add(self, loss: Loss, batch: Sliceable, clipping_norm: float) -> Tensor:
        """The norm of each unit's gradient before it was cut."""
        norms = [self._add_one(loss, batch.part(row, row + 1), clipping_norm) for row in range(len(batch))]
        return torch.stack(norms) if norms else torch.zeros(0)

    def _add_one(self, loss: Loss, unit: Sliceable, clipping_norm: float) -> Tensor:
        gradients = torch.autograd.grad(loss(unit).sum(), self._weights, allow_unused=True)
        norm = total_norm([gradient for gradient in gradients if gradient is not None])
        factor = clip_factors(norm, clipping_norm)
        if factor > 0:
            for weight, gradient in zip(self._weights, gradients, strict=True):
                if gradient is not None:
                    add_to_sum(weight, gradient * factor)
        return norm


class OpacusGradients:
    """Every unit's whole gradient, by Opacus's hooks: the memory of a model for each unit."""

    def __init__(self, weights: Weights, roots: Sequence[nn.Module]) -> None:
        """`roots` hold the weights between them."""
        self._weights: list[Any] = list(weights.values())
        self._module = GradSampleModule(nn.ModuleList(roots), batch_first=True, loss_reduction="sum")
        self._module.remove_hooks()
        # Opacus 1.6 unfolds a convolution's input as if it were contiguous, and is silently wrong where it is not.
        for layer in self._module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(_contiguous)

    def add(self, loss: Loss, batch: Sliceable, clipping_norm: float) -> Tensor:
        """The norm of each unit's gradient before it was cut."""
        self._module.add_hooks(loss_reduction="sum", batch_first=True)
        try:
            with warnings.catch_warnings():
                # Torch warns at every layer that reads what does not learn, such as pixels; its hook is the right one.
                warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
                loss(batch).sum().backward()
            return self._clip(clipping_norm)
        finally:
            self._module.remove_hooks()
            self._forget()

    def _clip(self, clipping_norm: float) -> Tensor:
        samples = [(weight, weight.grad_sample.detach()) for weight in self._weights if _has_sample(weight)]
        norm_B: Tensor = torch.stack([sample.flatten(1).norm(dim=1) for _, sample in samples], 1).norm(dim=1)
        factor_B = clip_factors(norm_B, clipping_norm)
        for weight, sample in samples:
            finite = sample if bool(factor_B.all()) else sample.nan_to_num(0.0, 0.0, 0.0)
            add_to_sum(weight, torch.einsum("b,b...->...", factor_B.to(sample.dtype), finite))
        return norm_B

    def _forget(self) -> None:
        """Let go of what a pass left, also in layers that no gradient reached, where the next would mistake it."""
        for weight in self._weights:
            weight.grad_sample = weight.grad = None
            weight._forward_counter = 0
        for layer in self._module.modules():
            for name in ("activations", "max_batch_len"):
                vars(layer).pop(name, None)


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def _has_sample(weight: Any) -> bool:
    return weight.grad_sample is not None


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Length of all tensors together, summed in double precision."""
    squares = [gradient.detach().double().square().sum() for gradient in gradients]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)
