"""The one list of which weights leave a site: encoders with their fusion layers, projections, matching head.

The masked-token and painting heads, the teacher, the queue, the optimiser's state and the answer decoder stay.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mumc_model.checkpoint import load_strictly
from mumc_model.config import ModelConfig
from mumc_model.model import MumcModel, model_form

SHARED = ("visual_encoder.", "text_encoder.bert.", "vision_proj.", "text_proj.", "itm_head.", "temp")


def is_shared(name: str) -> bool:
    """Whether the parameter of this name leaves the site."""
    return name.startswith(SHARED)


def shared_weights(model: MumcModel) -> dict[str, Tensor]:
    """Copies of the shared weights on the CPU, in canonical (sorted) order. Later training does not change them."""
    state = model.state_dict()
    return {name: state[name].detach().to("cpu", copy=True) for name in sorted(state) if is_shared(name)}


def shared_form(config: ModelConfig) -> dict[str, np.ndarray[Any, Any]]:
    """The shared weights' names, shapes and types, in canonical order, as arrays without values; nothing is allocated.

    Raises:
        ConfigError: such a model cannot be.
    """
    state = model_form(config).state_dict(keep_vars=True)
    number = np.zeros(())
    return {
        name: np.broadcast_to(number.astype(str(state[name].dtype).removeprefix("torch.")), tuple(state[name].shape))
        for name in sorted(state)
        if is_shared(name)
    }


def load_shared(model: MumcModel, weights: Mapping[str, Tensor]) -> None:
    """Put merged weights into the model; what a site keeps to itself is left as it was.

    Raises:
        CheckpointError: a name is missing or unexpected, or a shape differs; nothing is loaded then.
    """
    state = {name: weight for name, weight in model.state_dict().items() if is_shared(name)}
    with torch.no_grad():
        load_strictly(state, weights, "the shared weights")


def private_weights(model: MumcModel) -> dict[str, Tensor]:
    """Copies of the weights that the site keeps, without the tied aliases of shared ones, in sorted order."""
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in sorted(model.named_parameters())
        if not is_shared(name)
    }


def load_private(model: MumcModel, kept: Mapping[str, Tensor]) -> None:
    """Put the private weights among `kept` into the model; what else a trainer kept beside them is not the model's.

    Raises:
        CheckpointError: a private weight is missing, or a shape differs; nothing is loaded then.
    """
    state = {name: weight.data for name, weight in model.named_parameters() if not is_shared(name)}
    load_strictly(state, {name: kept[name] for name in state if name in kept}, "the weights kept at this site")
