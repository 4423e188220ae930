"""Clipping after one ordinary backward pass: no unit's gradient of a matrix is ever written down.

A linear layer's gradient for unit b is G_b^T A_b, from its inputs A and output gradients G, both of which a backward
pass has at hand. Its squared length is the sum over token pairs of (A A^T) * (G G^T), and the clipped sum over units is
one matrix product with G scaled by each unit's factor: the product that an ordinary step would take for the gradient
itself. So the cost over a plain step is the lengths. Embeddings go the same way, since one-hot inputs make A A^T the
table of equal tokens. Small layers (norms) are left to Opacus's samplers. The rule of each kind stands in layers.py.

Source: book-keeping, Bu et al., arXiv 2210.00038; ghost norms, Goodfellow, arXiv 1510.01799.

Dimensions: B units.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from client.privacy.errors import CouplingError
from client.privacy.gradients import Loss, Sliceable, Weights, clip_factors
from client.privacy.layers import WATCHED, watcher


class DeferredGradients:
    """Adds clipped gradients from what hooks keep of one pass (`grad_sample=hooks`)."""

    def __init__(self, weights: Weights, roots: Iterable[nn.Module]) -> None:
        """Watch every layer under `roots` that owns one of the weights.

        Raises:
            CouplingError: a weight belongs to no layer that can be watched, or to two.
        """
        self._weights = list(weights.values())
        trained = {id(weight) for weight in self._weights}
        self._layers = [watcher(layer)(layer, trained) for layer in owners(weights, roots)]

    def add(self, loss: Loss, batch: Sliceable, clipping_norm: float) -> Tensor:
        """The norm of each unit's gradient before it was cut."""
        handles = [layer.watch() for layer in self._layers]
        # Without this, autograd would form the weights' gradients as well, which nobody reads.
        for weight in self._weights:
            weight.requires_grad_(False)
        try:
            torch.autograd.backward(loss(batch).sum())
            return self._clip(len(batch), clipping_norm)
        finally:
            for weight in self._weights:
                weight.requires_grad_(True)
            for handle, layer in zip(handles, self._layers, strict=True):
                handle.remove()
                layer.forget()

    @torch.no_grad()
    def _clip(self, units: int, clipping_norm: float) -> Tensor:
        seen = [layer for layer in self._layers if layer.take(units)]
        square_B = torch.stack([layer.squares() for layer in seen]).sum(dim=0)
        norm_B = square_B.sqrt()
        factor_B = clip_factors(norm_B, clipping_norm)
        if not bool(norm_B.isfinite().all()):
            for layer in seen:
                layer.blank(~norm_B.isfinite())
        for layer in seen:
            layer.add(factor_B)
        return norm_B


def owners(weights: Weights, roots: Iterable[nn.Module]) -> list[nn.Module]:
    """The layers that use the weights, each weight in one of them.

    Raises:
        CouplingError: a weight belongs to no layer that can be watched, or to two.
    """
    wanted = {id(weight): name for name, weight in weights.items()}
    layers: dict[int, nn.Module] = {}
    owner: dict[int, int] = {}
    for module in (module for root in roots for module in root.modules() if isinstance(module, WATCHED)):
        for weight in module.parameters(recurse=False):
            if id(weight) in wanted:
                if owner.setdefault(id(weight), id(module)) != id(module):
                    raise CouplingError(
                        f"{wanted[id(weight)]} is used by two layers; untie it, since a unit's gradient must be whole"
                    )
                layers[id(module)] = module
    if lost := [name for key, name in wanted.items() if key not in owner]:
        raise CouplingError(
            f"{len(lost)} weights belong to no layer whose gradients are known by unit: {', '.join(lost[:3])}; freeze "
            "them, or put them into a linear, convolutional, embedding or normalising layer"
        )
    return list(layers.values())
