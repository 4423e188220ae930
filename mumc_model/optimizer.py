"""AdamW, its moments as named tensors that can be kept, and FedProx's pull towards the weights a round began with."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mumc_model.config import OptimizerConfig

Weights = Mapping[str, nn.Parameter]
Anchor = list[tuple[nn.Parameter, Tensor]]
"""Weights and their values at the start of the round."""


def adamw(weights: Weights, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW in one fused kernel, with weight decay on every weight, biases and norms too, as in MUMC."""
    return torch.optim.AdamW(
        list(weights.values()),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


@torch.no_grad()
def clip(optimizer: torch.optim.Optimizer, weights: Weights, most: float) -> None:
    """Have the optimiser's next step see gradients whose norm over all weights is at most `most`.

    Its fused kernel divides them as it reads them, which saves a pass through them all. Source: arXiv 1211.5063, 3.2.
    """
    gradients = [weight.grad for weight in weights.values() if weight.grad is not None]
    excess = torch.nn.utils.get_total_norm(gradients) / most
    # The kernel reads the factor in single precision, whatever the weights are in.
    optimizer.grad_scale = excess.clamp(min=1.0).float()  # type: ignore[attr-defined]


def moments(weights: Weights, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's own tensors as `optimizer.KIND.WEIGHT`; weights that have had no gradient yet have none."""
    return {
        f"optimizer.{kind}.{name}": tensor
        for name, weight in weights.items()
        for kind, tensor in optimizer.state.get(weight, {}).items()
    }


def make_room(weights: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Give these weights moments, as places to put others' into; what is in them is nothing yet."""
    for weight in weights:
        first = torch.empty_like(weight, requires_grad=False)
        step = torch.empty((), device=weight.device)
        optimizer.state[weight] = {"step": step, "exp_avg": first, "exp_avg_sq": torch.empty_like(first)}


@torch.no_grad()
def pull(anchor: Anchor, mu: float) -> None:
    """Add the gradient of mu / 2 times the squared distance to the anchor. Source: FedProx, arXiv 1812.06127, eq. 2."""
    moved = [(weight.grad, weight.detach(), start) for weight, start in anchor if weight.grad is not None]
    if moved:
        gradients, weights, starts = ([row[column] for row in moved] for column in range(3))
        torch._foreach_add_(gradients, torch._foreach_sub(weights, starts), alpha=mu)
