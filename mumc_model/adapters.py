"""Low-rank adapters in place of a frozen backbone, folded into it afterwards, so that shared names and shapes stay.

Source: LoRA, arXiv 2106.09685, through peft.
"""

import math

import torch
from torch import Tensor, nn

from mumc_model.privacy import AdapterConfig

TARGETS = ("qkv", "proj", "fc1", "fc2", "query", "key", "value", "dense")
"""Linear layers of timm's blocks and of BERT's that get an adapter."""
HEADS = ("vision_proj.", "text_proj.", "itm_head.")
"""Small parts that learn beside the adapters in pre-training."""
ENCODERS = ("visual_encoder.blocks", "text_encoder.bert.encoder")
"""Where the adapters are."""
ADAPTED = tuple(f"{place}.*.{layer}.weight" for place in ENCODERS for layer in TARGETS)
"""Patterns of the names of the matrices that change by the product of an adapter."""


class Adapters:
    """The adapters of one model, for one round or one fine-tuning."""

    def __init__(
        self,
        model: nn.Module,
        settings: AdapterConfig,
        *,
        beside: tuple[str, ...] = HEADS,
        places: tuple[str, ...] = ENCODERS,
    ) -> None:
        """Freeze the model, but for `beside`, and put adapters into `places`; what they add is 0 at first."""
        # peft takes seconds to import, and only this preset needs it.
        from peft import LoraConfig, inject_adapter_in_model

        self._model = model
        model.requires_grad_(False)
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules=_targets(model, places)
        )
        inject_adapter_in_model(config, model)
        for name, weight in model.named_parameters():
            weight.requires_grad_(".lora_" in name or name.startswith(beside))

    @torch.no_grad()
    def restart(self, generator: torch.Generator) -> None:
        """Draw the first factors anew as peft does, on the CPU; what the adapters add is 0 again."""
        for name, weight in self._model.named_parameters():
            if ".lora_A." in name:
                drawn = torch.empty(weight.shape)
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
                weight.copy_(drawn)
            elif ".lora_B." in name:
                weight.zero_()

    @torch.no_grad()
    def fold(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Add what was learned to the backbone's own weights, and take the adapters out.

        The factors of what was added come back, on the CPU, under the weights' names: left @ right is the change.
        """
        from peft.tuners.lora import LoraLayer

        factors = {}
        for name, layer in list(self._model.named_modules()):
            if isinstance(layer, LoraLayer):
                (kind,) = layer.active_adapters
                left, right = (pair[kind].get_parameter("weight") for pair in (layer.lora_B, layer.lora_A))
                factors[f"{name}.weight"] = (left * layer.scaling[kind]).cpu(), right.to("cpu", copy=True)
                layer.merge()
                parent, _, child = name.rpartition(".")
                base = layer.get_base_layer()
                assert isinstance(base, nn.Module)
                setattr(self._model.get_submodule(parent), child, base)
        return factors


def _targets(model: nn.Module, places: tuple[str, ...] = ENCODERS) -> list[str]:
    """Names of the linear layers that learn through adapters."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith(places) and name.rsplit(".", 1)[-1] in TARGETS
    ]
