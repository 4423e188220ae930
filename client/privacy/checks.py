"""What must hold before a private step is taken, looked up in the model that is there and tried on public pairs.

A loss or layer that lets one unit's data reach another unit's gradient makes any epsilon false without a word, so it
ends the run with its reason.
"""

from collections.abc import Iterable

import torch
from timm.layers.norm_act import GroupNormAct
from torch import Tensor, nn

from client.privacy.deferred import owners
from client.privacy.errors import CouplingError
from client.privacy.gradients import LoopGradients, Loss, Sliceable, UnitGradients, Weights
from client.privacy.layers import WATCHED
from client.privacy.optimizer import clear

_STATISTICS = (nn.modules.batchnorm._NormBase, nn.LazyBatchNorm1d, nn.LazyBatchNorm2d)
_SHARED_DROPOUT = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_LEARNING = (*WATCHED, GroupNormAct)
_WITHOUT_WEIGHTS = (nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh, nn.Identity, nn.Dropout, nn.Softmax, nn.Flatten)
_TOLERANCE = 1e-3
"""Of a norm: single precision over thousands of terms, and far below what any coupling does."""


def check_modules(weights: Weights, roots: Iterable[nn.Module]) -> None:
    """Raise CouplingError for a layer that mixes units, is not known, or shares its weights with another."""
    roots = list(roots)
    for name, module in (pair for root in roots for pair in root.named_modules()):
        _check_module(name or type(module).__name__, module)
    owners(weights, roots)


def _check_module(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if isinstance(module, _STATISTICS):
        raise CouplingError(
            f"{name} is a {kind}, which normalises by statistics of the whole batch; use layer or group normalisation"
        )
    if isinstance(module, _SHARED_DROPOUT):
        raise CouplingError(
            f"{name} is a {kind}, whose layout may take the units for something else; use nn.Dropout, which draws for "
            "every number"
        )
    if any(module.children()):
        return
    learns = any(weight.requires_grad for weight in module.parameters(recurse=False))
    known = _LEARNING if learns else (*_LEARNING, *_WITHOUT_WEIGHTS)
    if not isinstance(module, known) and (learns or _hides_code(module)):
        raise CouplingError(
            f"{name} is a {kind}, a layer whose gradients are not known by unit; freeze it, or build it from linear, "
            "convolutional, embedding and normalising layers"
        )


def _hides_code(module: nn.Module) -> bool:
    """Whether an unknown layer without weights could do anything at all: empty containers cannot."""
    return not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential | nn.ParameterList | nn.ParameterDict)


def check_independence(
    gradients: UnitGradients,
    weights: Weights,
    loss: Loss,
    batch: Sliceable,
    modules: Iterable[nn.Module],
) -> None:
    """Raise CouplingError unless units have the gradients that each has alone, tried on public pairs.

    The clipped sum of all of `batch` is compared with the loop over single units: once with every unit cut to a fifth
    of the shortest norm, so that a unit that counts twice or leaks into another shows.
    """
    with _without_dropout(modules):
        loop = LoopGradients(weights)
        norm_B = loop.add(loss, batch, 1.0).float()
        clear(list(weights.values()))
        clipping_norm = 0.2 * max(float(norm_B.min()), 1e-6)
        expected = _sum(loop, weights, loss, batch, clipping_norm)
        found_B = gradients.add(loss, batch, clipping_norm).detach().float().cpu()
        found = _take(weights)
    apart = float((found - expected).norm()) / (clipping_norm * len(batch))
    longest = float(((found_B - norm_B.cpu()).abs() / norm_B.cpu().clamp(min=1e-6)).max())
    if max(apart, longest) > _TOLERANCE or not torch.isfinite(found).all():
        raise CouplingError(
            f"on public pairs the clipped sum is {apart:.2g} clipping norms from that of single units, and norms "
            f"differ by {longest:.2g}; a layer or loss mixes units, so no epsilon would hold: use this "
            "program's own model and losses"
        )


def _sum(gradients: UnitGradients, weights: Weights, loss: Loss, batch: Sliceable, norm: float) -> Tensor:
    gradients.add(loss, batch, norm)
    return _take(weights)


def _take(weights: Weights) -> Tensor:
    """The sums of all weights in one vector; they are forgotten then."""
    held = [(weight, getattr(weight, "summed_grad", None)) for weight in weights.values()]
    flat = torch.cat([(torch.zeros_like(w) if held is None else held).flatten().detach().cpu() for w, held in held])
    clear(list(weights.values()))
    return flat


class _without_dropout:  # noqa: N801
    """Dropout is off inside, since a unit alone would draw other numbers."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._layers = [m for root in modules for m in root.modules() if hasattr(m, "dropout") or hasattr(m, "p")]
        self._kept: list[tuple[nn.Module, str, float]] = []

    def __enter__(self) -> None:
        for layer in self._layers:
            for name in ("dropout", "p"):
                if isinstance(value := getattr(layer, name, None), float):
                    self._kept.append((layer, name, value))
                    setattr(layer, name, 0.0)

    def __exit__(self, *_: object) -> None:
        for layer, name, value in self._kept:
            setattr(layer, name, value)
