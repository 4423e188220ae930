"""MUMC: an image encoder, a text encoder with fusion layers, projections into one space and a matching head.

Dimensions: B records, K kept patches, L tokens, S image tokens, D width, E embedding.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.loader import dump, load
from mumc_model.checkpoint import check_fit
from mumc_model.config import ModelConfig
from mumc_model.duplicate import duplicate
from mumc_model.errors import ConfigError
from mumc_model.pretrained import PretrainedModel
from mumc_model.text import TextEncoder
from mumc_model.vision import VisionEncoder

INIT_STD = 0.02
INIT_WIDTH = 768
"""BERT's deviation and the width that it goes with."""
TEMPERATURE_RANGE = (0.001, 0.5)
HEAD = "text_encoder.cls."
"""Beginning of the names of the masked-token head's weights."""


class MumcModel(PretrainedModel):
    """The student: everything that pre-training learns and a site shares, and the masked-token head that it keeps."""

    kind = "MumcModel"

    def __init__(self, config: ModelConfig) -> None:
        """Build it with torch's own initialisation; `build_model` is the way to a reproducible one.

        Raises:
            ConfigError: the encoders differ in width, or the vocabulary's size is open.
        """
        if config.vision.width != config.text.width:
            raise ConfigError(
                f"vision.width {config.vision.width} differs from text.width {config.text.width}, but fusion layers "
                "read image tokens at their own width; choose one width for both"
            )
        super().__init__()
        self.config = config
        self.visual_encoder = VisionEncoder(config.vision)
        self.text_encoder = TextEncoder(config.text)
        width = config.text.width
        self.vision_proj = nn.Linear(config.vision.width, config.projection)
        self.text_proj = nn.Linear(width, config.projection)
        self.itm_head = nn.Sequential(
            nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, 2)
        )
        self.temp = nn.Parameter(torch.tensor(config.temperature))

    def settings(self) -> dict[str, Any]:
        """Its configuration."""
        return {"model": dump(self.config)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """A model whose random start is that of seed 0."""
        model = build_model(load(ModelConfig, settings["model"], "model"), 0)
        assert isinstance(model, cls)
        return model

    def image_features(self, image_BCHW: Tensor, keep_BK: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens B(1+K)D and the unit-length feature BE of each image, seen through the kept patches."""
        token_BKD = self.visual_encoder(image_BCHW, keep_BK)
        return token_BKD, self.image_feature(token_BKD)

    def text_features(self, ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states BLD after the text layers and the unit-length feature BE of each text."""
        hidden_BLD = self.text_encoder.encode(ids_BL, mask_BL)
        return hidden_BLD, self.text_feature(hidden_BLD)

    def image_feature(self, token_BKD: Tensor) -> Tensor:
        """Unit-length feature BE of the image's [CLS], in single precision."""
        return F.normalize(at_least_single(self.vision_proj(token_BKD[:, 0])), dim=-1)

    def text_feature(self, hidden_BLD: Tensor) -> Tensor:
        """Unit-length feature BE of the text's [CLS], in single precision."""
        return F.normalize(at_least_single(self.text_proj(hidden_BLD[:, 0])), dim=-1)

    def match_logits(self, fused_cls_BD: Tensor) -> Tensor:
        """Logits B2 of (not matched, matched) from the [CLS] of the fusion layers."""
        logits_B2: Tensor = self.itm_head(fused_cls_BD)
        return logits_B2

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Bring the learned temperature back into [0.001, 0.5]."""
        self.temp.clamp_(*TEMPERATURE_RANGE)


def at_least_single(tensor: Tensor) -> Tensor:
    """The same numbers in single precision, or in double where they are that already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def build_model(config: ModelConfig, seed: int, weights: Mapping[str, Tensor] | None = None) -> MumcModel:
    """A model whose random start depends on the seed alone; the process's own random state is left as it was.

    Given `weights` become its parameters, not copies of them. The masked-token head may be left out of them, and starts
    as it would without.

    Raises:
        ConfigError: the vocabulary's size is still open.
        CheckpointError: the weights do not fit the model.
    """
    generator = torch.Generator().manual_seed(seed)
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            model = MumcModel(config)
        initialise(model, generator, config.vision.width)
        return model
    form = model_form(config)
    places = {place: name for name, place in form.named_parameters()}
    check_fit(
        dict(form.named_parameters()),
        weights,
        "the weights that came, or those kept,",
        optional=[name for name in places.values() if name.startswith(HEAD)],
    )

    def given(place: nn.Parameter) -> nn.Parameter:
        weight = weights.get(places[place])
        return nn.Parameter(torch.empty(place.shape) if weight is None else weight.to(place.dtype), place.requires_grad)

    model = duplicate(form, given)
    kept = [weight for name, weight in model.named_parameters() if name in weights]
    initialise(model, generator, config.vision.width, kept=kept)
    return model


@lru_cache(maxsize=4)
def model_form(config: ModelConfig) -> MumcModel:
    """The model without values, on the meta device: names, shapes and types. It is the same one for all who ask.

    Raises:
        ConfigError: the vocabulary's size is still open.
    """
    with torch.device("meta"):
        return MumcModel(config)


@torch.no_grad()
def initialise(
    module: nn.Module, generator: torch.Generator, width: int = INIT_WIDTH, *, kept: Iterable[nn.Parameter] = ()
) -> None:
    """Give every weight of `module` its random start, as BERT and ViT do: truncated normal, biases 0, norms 1.

    The deviation is BERT's 0.02 at 768 dimensions and grows as 1/sqrt(width), so that what a layer adds to its input
    has the same size at every width. At 64 dimensions 0.02 adds a twentieth of it, and attention stays uniform for
    hundreds of steps: a tiny model then learns which organ it sees, but never where in it.

    Convolutions of a stem start at He's scale instead, because a GELU and a norm follow them. Fixed tables and the
    temperature are left alone. Weights among `kept` are too, and all others start as if they were not.
    Source: arXiv 1810.04805, 2010.11929; He et al., arXiv 1502.01852.
    """
    std = INIT_STD * (INIT_WIDTH / width) ** 0.5
    start = _Start(generator, kept)
    for part in start.parts(module):
        if isinstance(part, nn.Linear | nn.Embedding) or (
            isinstance(part, nn.Conv2d) and part.kernel_size == part.stride
        ):
            start.draw(part.weight, partial(nn.init.trunc_normal_, std=std, generator=generator))
        elif isinstance(part, nn.Conv2d):
            start.draw(part.weight, partial(nn.init.kaiming_normal_, nonlinearity="relu", generator=generator))
        elif isinstance(part, nn.LayerNorm | nn.GroupNorm) and part.weight is not None:
            start.fill(part.weight, 1.0)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            start.fill(part.weight, 0.0, row=part.padding_idx)
        if isinstance(bias := getattr(part, "bias", None), nn.Parameter):
            start.fill(bias, 0.0)
        for name, weight in part.named_parameters(recurse=False):
            if name in ("cls_token", "mask_token") or (name == "pos_embed" and weight.requires_grad):
                start.draw(weight, partial(nn.init.trunc_normal_, std=std, generator=generator))


class _Start:
    """Starts weights but for those that are kept, for which as many numbers are drawn and thrown away."""

    def __init__(self, generator: torch.Generator, kept: Iterable[nn.Parameter]) -> None:
        self._generator, self._kept = generator, {id(weight) for weight in kept}
        self._drawn = torch.empty(0)

    def parts(self, module: nn.Module) -> list[nn.Module]:
        """Its modules up to the last with a weight that is not kept: what would be drawn after it, nobody sees."""
        parts = list(module.modules())
        while parts and all(id(weight) in self._kept for weight in parts[-1].parameters(recurse=False)):
            parts.pop()
        return parts

    def draw(self, weight: Tensor, fill: Callable[[Tensor], Tensor]) -> None:
        if id(weight) not in self._kept:
            fill(weight)
            return
        # Both ways to start draw from a normal distribution; so narrow a one is never outside of what is cut off.
        if self._drawn.numel() < weight.numel():
            self._drawn = torch.empty(weight.numel())
        self._drawn[: weight.numel()].normal_(generator=self._generator)

    def fill(self, weight: Tensor, value: float, row: int | slice = slice(None)) -> None:
        if id(weight) not in self._kept:
            weight[row].fill_(value)
