"""The authors' own checkpoints, `.pth` files of pre-training or of fine-tuning, as models of ours.

A file is opened without running anything in it, and its shapes say how the model is configured. Momentum copies, queues
and the second names of tied weights are left out. A fine-tuned file lists no answers: it ranks those it is given, or
generates.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mumc_model.config import FinetuneConfig, ModelConfig, TextConfig, VisionConfig
from mumc_model.errors import CheckpointError
from mumc_model.model import MumcModel
from mumc_model.vqa import VqaModel

HEAD_WIDTH = 64
"""Channels of an attention head in ViT-B and BERT-base; weights do not tell the number of heads."""
_OMITTED = re.compile(
    r"^\w+_m\.|^(image|text)_queue$|^queue_ptr$|\.position_ids$|\.cls\.predictions\.decoder\.(weight|bias)$"
)
_LAYER = re.compile(r"(?:^|\.)(?:layer|blocks)\.(\d+)\.")


def import_reference(path: str | Path, *, heads: int | None = None) -> MumcModel | VqaModel:
    """The model in a checkpoint of the authors' code, in evaluation mode on the CPU.

    Args:
        path: A `.pth` file that holds the weights under `model`, or the weights themselves.
        heads: Attention heads of both encoders, where a head is not 64 wide.

    Raises:
        CheckpointError: the file is missing, holds more than tensors and plain values, or is not of MUMC.
    """
    name, state = Path(path).name, read_reference(path)
    weights = {ours(key): tensor for key, tensor in state.items() if not _OMITTED.search(key)}
    finetuned = any(key.startswith("text_decoder.") for key in weights)
    try:
        config = _model_config(weights, state, heads)
        settings = FinetuneConfig(decoder_layers=_count(weights, "text_decoder.bert.encoder."))
        model = VqaModel(config, settings) if finetuned else MumcModel(config)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{name} does not hold MUMC's weights ({error}); give a checkpoint that the authors' pre-training or "
            "fine-tuning wrote, and --heads where an attention head is not 64 wide"
        ) from error
    model.fill(weights, f"the weights of {name}")
    return model.eval()


def read_reference(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the authors' names. Nothing in the file is run.

    Raises:
        CheckpointError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error.strerror}); check its path") from error
    except Exception as error:  # torch refuses with whatever its parts raise
        raise CheckpointError(
            f"{path.name} is damaged, or holds objects that would run code when opened, and was not opened; ask for a "
            "file that holds tensors and plain values only, or for safetensors"
        ) from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path.name} holds no weights under `model`; give a checkpoint of the authors' code")
    return dict(state)


def ours(name: str) -> str:
    """Our name of a weight: in fine-tuning the authors' question encoder is BERT without the wrapper around it."""
    return re.sub(r"^text_encoder\.(?=embeddings\.|encoder\.)", "text_encoder.bert.", name)


def _model_config(weights: Mapping[str, Tensor], state: Mapping[str, Tensor], heads: int | None) -> ModelConfig:
    embeddings = "text_encoder.bert.embeddings."
    vocabulary, text_width = weights[embeddings + "word_embeddings.weight"].shape
    layers, crossing = _layers(weights, "text_encoder.bert.encoder."), ".crossattention."
    fusion = _layers((name for name in weights if crossing in name), "text_encoder.bert.encoder.")
    text = TextConfig(
        width=text_width,
        text_layers=len(layers - fusion),
        fusion_layers=len(fusion),
        heads=heads or text_width // HEAD_WIDTH,
        vocab_size=vocabulary,
        max_positions=len(weights[embeddings + "position_embeddings.weight"]),
        dropout=0.1,
    )
    width, _, patch_size, _ = weights["visual_encoder.patch_embed.proj.weight"].shape
    patches = weights["visual_encoder.pos_embed"].shape[1] - 1
    hidden = len(weights["visual_encoder.blocks.0.mlp.fc1.weight"])
    vision = VisionConfig(
        image_size=round(patches**0.5) * patch_size,
        patch_size=patch_size,
        width=width,
        depth=_count(weights, "visual_encoder."),
        heads=heads or width // HEAD_WIDTH,
        mlp_ratio=hidden / width,
    )
    projection = weights.get("vision_proj.weight")
    queue = state.get("image_queue")
    return ModelConfig(
        vision=vision,
        text=text,
        projection=256 if projection is None else len(projection),
        queue_size=0 if queue is None else queue.shape[1],
    )


def _layers(names: Iterable[str], start: str) -> set[int]:
    return {int(found[1]) for name in names if name.startswith(start) and (found := _LAYER.search(name))}


def _count(names: Iterable[str], start: str) -> int:
    return len(_layers(names, start))
