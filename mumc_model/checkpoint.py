"""Weights on disk in safetensors, written whole or not at all, and read by name; and public weights to start from."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from timm.models import get_pretrained_cfg
from torch import Tensor

from mumc_model.data.files import write_atomically
from mumc_model.errors import CheckpointError
from mumc_model.text import TextEncoder
from mumc_model.vision import VisionEncoder, resize_pos_embed

WEIGHTS_FILE = "model.safetensors"
_SHOWN = 5


def save_weights(path: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights to one safetensors file; a crash leaves the old file or the new one, never half of either."""
    write_atomically(Path(path), save({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights of a safetensors file, by name, on the CPU.

    Raises:
        CheckpointError: the file is missing or is not whole.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no weights file {Path(path).name}; check its path") from error
    except SafetensorError as error:
        raise CheckpointError(f"{Path(path).name} is damaged or not safetensors ({error}); fetch it again") from error


def load_strictly(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: str, *, optional: Iterable[str] = ()
) -> None:
    """Copy `weights` into the tensors of `state`, name by name and without broadcasting, or change nothing.

    `optional` names may be missing; they keep their values.

    Raises:
        CheckpointError: names are missing or unexpected, or shapes differ; all are listed by kind.
    """
    check_fit(state, weights, what, optional=optional)
    with torch.no_grad():
        for name, weight in weights.items():
            state[name].copy_(weight)


def check_fit(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: str, *, optional: Iterable[str] = ()
) -> None:
    """Return only if `weights` have the names and shapes of `state`; `optional` names may be missing.

    Raises:
        CheckpointError: names are missing or unexpected, or shapes differ; all are listed by kind.
    """
    missing = sorted(set(state) - set(weights) - set(optional))
    unexpected = sorted(set(weights) - set(state))
    misshapen = [
        f"{name} {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in state.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(faults.values()):
        listing = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names)
        raise CheckpointError(
            f"{what} do not fit the model: {listing}; check that both use the same model configuration"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def load_vision(encoder: VisionEncoder, source: str) -> None:
    """Start the image encoder from public ViT weights: a timm model name, a local folder or a `.safetensors` file.

    Position embeddings are interpolated to the encoder's grid, and replace a fixed table too. A classifier is dropped.

    Raises:
        CheckpointError: the weights cannot be had, or are of another architecture.
    """
    weights = _public_weights(source, _timm_repository)
    weights = {name: weight for name, weight in weights.items() if not name.startswith(("head", "fc_norm"))}
    if "pos_embed" in weights:
        weights["pos_embed"] = resize_pos_embed(weights["pos_embed"], encoder.config.patches)
    load_strictly(encoder.state_dict(), weights, f"the image weights {_short(source)}")


def load_text(encoder: TextEncoder, source: str) -> None:
    """Start the text encoder from public BERT weights: a Hugging Face name, a local folder or a `.safetensors` file.

    Layers are taken by number, so a shallower encoder takes the first ones. Cross-attention, which BERT lacks, and the
    masked-token head, where the source lacks it, keep their random start.

    Raises:
        CheckpointError: the weights cannot be had, or are of another architecture or vocabulary.
    """
    state = encoder.state_dict()
    renamed = {_bert_name(name): weight for name, weight in _public_weights(source, str).items()}
    weights = {name: weight for name, weight in renamed.items() if name in state or not _left_out(name, encoder)}
    optional = [name for name in state if ".crossattention." in name or name.startswith("cls.")]
    load_strictly(state, weights, f"the text weights {_short(source)}", optional=optional)


def _bert_name(name: str) -> str:
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name if name.startswith(("bert.", "cls.")) else f"bert.{name}"


def _left_out(name: str, encoder: TextEncoder) -> bool:
    """Whether a public BERT has this weight rightly and we have no place for it."""
    if name.startswith("bert.encoder.layer."):
        return int(name.split(".")[3]) >= len(encoder.bert.encoder.layer)
    return name.startswith(("bert.pooler.", "cls.seq_relationship.")) or name.endswith("position_ids")


def _timm_repository(name: str) -> str:
    config = get_pretrained_cfg(name, allow_unregistered=True)
    repository = getattr(config, "hf_hub_id", None) or "timm/"
    return repository + name.removeprefix("timm/") if repository.endswith("/") else repository


def _public_weights(source: str, repository_of: Callable[[str], str]) -> dict[str, Tensor]:
    local = Path(source)
    if local.is_dir():
        return load_weights(local / WEIGHTS_FILE)
    if local.is_file():
        return load_weights(local)
    try:
        return load_weights(hf_hub_download(repository_of(source), WEIGHTS_FILE))
    except (OSError, RuntimeError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"{source!r} is neither a local file nor folder, and could not be fetched ({type(error).__name__}); on a "
            f"machine without a network put its {WEIGHTS_FILE} into a folder and give that folder as the source"
        ) from error


def _short(source: str) -> str:
    return Path(source).name
