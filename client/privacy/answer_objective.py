"""The loss of fine-tuning in the form that differential privacy allows: a function of one question and the weights.

It is the cross-entropy of MUMC's fine-tuning with hard targets. Every layer that learns is called with one row a unit,
and all texts are padded to a public length, so a row's gradient is a unit's.

Dimensions: B units, S image tokens, L question tokens, A answer tokens, T answer tokens that are predicted, D width,
V vocabulary, C channels, H height, W width in pixels.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mumc_model.model import at_least_single
from mumc_model.text import bidirectional_mask, causal_mask
from mumc_model.vqa import VqaModel


@dataclass(frozen=True)
class AnswerUnits:
    """One question of each unit with its answer; row i of everything is unit i's."""

    seen: Tensor
    """Images BCHW, or what frozen encoders make of them: image tokens BSD, or the question's states BLD."""
    ids_BL: Tensor
    mask_BL: Tensor
    answer_BA: Tensor
    answer_mask_BA: Tensor

    def __len__(self) -> int:
        """Units."""
        return len(self.ids_BL)

    def part(self, first: int, last: int) -> "AnswerUnits":
        """The units from `first` to before `last`."""
        return AnswerUnits(*(getattr(self, field.name)[first:last] for field in fields(self)))

    def to(self, device: torch.device | str) -> "AnswerUnits":
        """The same on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


class AnswerObjective:
    """Nats an answer token, for single units. It owns no weights."""

    def __init__(self, model: VqaModel) -> None:
        self.model = model

    def __call__(self, batch: AnswerUnits) -> Tensor:
        """Each unit's loss B: the mean cross-entropy over the tokens of its own answer."""
        target_BT, learned_BT = batch.answer_BA[:, 1:], batch.answer_mask_BA[:, 1:].bool()
        log_BTV = at_least_single(self._logits(batch)).log_softmax(dim=2)
        nats_BT = -log_BTV.gather(2, target_BT[:, :, None])[:, :, 0]
        return nats_BT.masked_fill(~learned_BT, 0).sum(dim=1) / learned_BT.sum(dim=1).clamp(min=1)

    def _logits(self, batch: AnswerUnits) -> Tensor:
        """Logits BTV of the token that follows each one; what follows padding is looked at by nobody."""
        decoder, state_BLD = self.model.text_decoder, self._states(batch)
        token_BT, cross_mask = batch.answer_BA[:, :-1], bidirectional_mask(batch.mask_BL)
        self_mask = causal_mask(torch.ones_like(token_BT[:1]))
        hidden_BTD = decoder.bert.embeddings.at(token_BT, _places(token_BT))
        for layer in decoder.fusion:
            cross = layer.crossattention.keys_values(state_BLD)
            hidden_BTD = layer(hidden_BTD, self_mask, cross, cross_mask=cross_mask)
        return decoder.mlm_logits(hidden_BTD)

    def _states(self, batch: AnswerUnits) -> Tensor:
        """Question states BLD."""
        frozen = self.model.finetune.freeze
        if frozen == "encoders":
            return batch.seen
        token_BSD: Tensor = batch.seen if frozen == "vision" else self.model.visual_encoder(batch.seen)
        encoder, mask_B11L = self.model.text_encoder, bidirectional_mask(batch.mask_BL)
        hidden_BLD = encoder.bert.embeddings.at(batch.ids_BL, _places(batch.ids_BL))
        for layer in encoder.layers:
            hidden_BLD = layer(hidden_BLD, mask_B11L)
        return encoder.fuse(hidden_BLD, batch.mask_BL, token_BSD)


def _places(ids_BL: Tensor) -> Tensor:
    """Positions BL: the table of positions, too, is asked with one row a unit."""
    return torch.arange(ids_BL.shape[1], device=ids_BL.device).expand_as(ids_BL)
