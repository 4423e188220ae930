"""Answering: a question encoder that looks at the image and a decoder that spells or ranks the answer.

Dimensions: B questions, I images, C channels, H height, W width in pixels, S image tokens, L question tokens, A answer
tokens, T answer tokens that are learned, D width, V vocabulary, K candidates.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.loader import dump, load
from mumc_model.candidates import Candidates, Scoring
from mumc_model.config import FinetuneConfig, ModelConfig, TextConfig, VisionConfig
from mumc_model.duplicate import duplicate
from mumc_model.errors import ConfigError
from mumc_model.model import MumcModel, at_least_single
from mumc_model.pretrained import PretrainedModel
from mumc_model.ranking import COMPAT_KEPT, rank
from mumc_model.text import TextEncoder, bidirectional_mask, causal_mask
from mumc_model.vision import VisionEncoder, resize_pos_embed


class VqaModel(PretrainedModel):
    """The encoders that a federation trained and the site's own answer decoder. Parameter names are MUMC's."""

    kind = "VqaModel"

    def __init__(self, config: ModelConfig, finetune: FinetuneConfig) -> None:
        """Build it with torch's own initialisation; `VqaModel.of_encoders` is the way to one worth training.

        Raises:
            ConfigError: more decoder layers than fusion layers to start them from.
        """
        super().__init__()
        self.config, self.finetune = config, finetune
        self.vision_config = _vision_config(config.vision, finetune)
        decoder = _decoder_config(config.text, finetune)
        self.visual_encoder = VisionEncoder(self.vision_config)
        self.text_encoder = TextEncoder(config.text)
        del self.text_encoder.cls
        self.text_decoder = TextEncoder(decoder)

    @classmethod
    def of_encoders(cls, model: MumcModel, finetune: FinetuneConfig) -> Self:
        """A model that starts from a copy of pre-trained weights, the decoder from the last fusion layers and the head.

        Raises:
            ConfigError: more decoder layers than fusion layers to start them from.
        """
        with torch.random.fork_rng(devices=[]):
            vqa = cls(model.config, finetune)
        vision = model.visual_encoder.state_dict()
        vision["pos_embed"] = resize_pos_embed(vision["pos_embed"], vqa.vision_config.patches)
        vqa.visual_encoder.load_state_dict(vision)
        vqa.text_encoder.bert.load_state_dict(model.text_encoder.bert.state_dict())
        vqa.text_decoder.bert.embeddings.load_state_dict(model.text_encoder.bert.embeddings.state_dict())
        layers = model.text_encoder.fusion[-len(vqa.text_decoder.fusion) :]
        for ours, theirs in zip(vqa.text_decoder.fusion, layers, strict=True):
            ours.load_state_dict(theirs.state_dict())
        vqa.text_decoder.cls.load_state_dict(model.text_encoder.cls.state_dict())
        return vqa

    def freeze(self, part: str) -> None:
        """Keep the merged weights of `none`, the image encoder (`vision`) or both encoders (`encoders`)."""
        self.visual_encoder.requires_grad_(part == "none")
        self.text_encoder.requires_grad_(part != "encoders")

    def settings(self) -> dict[str, Any]:
        """Its configuration, and how questions and answers are read."""
        return {"model": dump(self.config), "finetune": dump(self.finetune)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """A model with a random start."""
        config = load(ModelConfig, settings["model"], "model")
        return cls(config, load(FinetuneConfig, settings.get("finetune", {}), "finetune"))

    def question_states(
        self, token_ISD: Tensor, ids_BL: Tensor, mask_BL: Tensor, image_of_B: Tensor | None = None
    ) -> Tensor:
        """Question states BLD: question b looks at image `image_of_B[b]` (at image b when left out)."""
        hidden_BLD = self.text_encoder.encode(ids_BL, mask_BL)
        return self.text_encoder.fuse(hidden_BLD, mask_BL, token_ISD, image_of_B)

    def answer_logits(self, state_BLD: Tensor, mask_BL: Tensor, answer_BA: Tensor, learned_BA: Tensor) -> Tensor:
        """Logits TV of the tokens that follow the answer's positions where `learned_BA` is true, and only of those.

        `learned_BA` lies best on the CPU: how many there are must be known, and an accelerator is not waited for then.
        """
        decoder, cross_mask = self.text_decoder, bidirectional_mask(mask_BL)
        # The last position follows nothing that is learned, and padding comes last: causality alone hides it.
        answer_BA, learned_BA = answer_BA[:, :-1], learned_BA[:, :-1]
        self_mask = causal_mask(torch.ones_like(answer_BA[:1]))
        hidden_BAD = decoder.bert.embeddings(answer_BA)
        for layer in decoder.fusion:
            cross = layer.crossattention.keys_values(state_BLD)
            hidden_BAD = layer(hidden_BAD, self_mask, cross, cross_mask=cross_mask)
        place_T = learned_BA.flatten().nonzero()[:, 0].to(hidden_BAD.device, non_blocking=True)
        return decoder.mlm_logits(hidden_BAD.flatten(0, 1)[place_T])

    def rank(
        self,
        state_BLD: Tensor,
        mask_BL: Tensor,
        candidates: Candidates,
        scoring: Scoring = "mean",
        *,
        keep: int = COMPAT_KEPT,
    ) -> Tensor:
        """Probability BK of every candidate answer, as `mumc_model.ranking` weighs them."""
        return rank(self.text_decoder, state_BLD, mask_BL, candidates, scoring, keep=keep)


class AnswerTeacher:
    """A slowly following copy of what is trained; what is frozen it shares with the student."""

    def __init__(self, student: VqaModel, momentum: float) -> None:
        """Start equal to the student."""
        self.model = duplicate(student, _average)
        self._momentum = momentum
        learned = [
            (a, w) for a, w in zip(self.model.parameters(), student.parameters(), strict=True) if w.requires_grad
        ]
        self._averages: list[Tensor] = [average for average, _ in learned]
        self._weights: list[Tensor] = [weight for _, weight in learned]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the student by 1 - momentum; in fine-tuning this comes before the teacher is asked."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self._momentum)


def _average(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(), requires_grad=False) if weight.requires_grad else weight


def answer_loss(logits_TV: Tensor, target_T: Tensor, teacher_TV: Tensor | None, alpha: float, examples: int) -> Tensor:
    """Nats an example: the sum over its answer's tokens of (1 - alpha) CE + alpha soft CE against the teacher.

    Without a teacher it is the cross-entropy. Source: MUMC's fine-tuning, after ALBEF, arXiv 2107.07651, section 3.4.
    """
    logits_TV = at_least_single(logits_TV)
    cross_entropy = F.cross_entropy(logits_TV, target_T, reduction="sum")
    if teacher_TV is None:
        return cross_entropy / examples
    soft = F.cross_entropy(logits_TV, teacher_TV.softmax(dim=1), reduction="sum")
    return ((1 - alpha) * cross_entropy + alpha * soft) / examples


def _vision_config(config: VisionConfig, finetune: FinetuneConfig) -> VisionConfig:
    """Fine-tuning trains the position table, whatever it started as."""
    return replace(config, image_size=finetune.image_size or config.image_size, pos_embed="learned")


def _decoder_config(config: TextConfig, finetune: FinetuneConfig) -> TextConfig:
    layers = finetune.decoder_layers or config.fusion_layers
    if layers > config.fusion_layers:
        raise ConfigError(
            f"finetune.decoder_layers is {layers}, but they start from the {config.fusion_layers} fusion layers; "
            f"choose at most {config.fusion_layers}"
        )
    return replace(config, text_layers=0, fusion_layers=layers)
