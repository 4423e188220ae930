"""A site's questions as units for private fine-tuning, padded to public lengths.

Dimensions: N questions, B units of a batch, S image tokens, L question tokens, A answer tokens, D width, C channels,
H height, W width in pixels.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from client.privacy.answer_objective import AnswerUnits
from mumc_model.data.records import SiteData
from mumc_model.data.samples import VqaSamples
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.device import autocast
from mumc_model.errors import DataError
from mumc_model.lesson import AUGMENTATION
from mumc_model.views import ImageTokens
from mumc_model.vqa import VqaModel

_BLOCK = 128


def learning_questions(site: SiteData, tokenizer: Tokenizer, image_size: int, question_tokens: int) -> VqaSamples:
    """The questions to learn from: those of the training and the validation split.

    Nothing is chosen by validation under differential privacy. And which patients become validation, where a site
    names none, depends on who else is there: a training split made so could change by more than one patient when one
    comes or goes.

    Raises:
        DataError: there is none.
    """
    rows = tuple(replace(row, split="train") for row in site.vqa if row.split != "test")
    samples = VqaSamples(replace(site, vqa=rows), "train", tokenizer, image_size, question_tokens)
    if not len(samples):
        raise DataError("fine-tuning needs training questions, and this site has none; import some with split: train")
    return samples


def unit_names(samples: VqaSamples, unit: str) -> tuple[str, ...]:
    """The privacy unit of each question: its patient, or its image, which is a record with all questions about it."""
    return samples.patient_ids if unit == "patient" else samples.image_keys


class PrivateQuestions:
    """Questions with their answers, as the private trainer takes them. What frozen encoders make is made once."""

    def __init__(
        self,
        model: VqaModel,
        samples: VqaSamples,
        tokenizer: Tokenizer,
        unit: str,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        """The model is the one that is to learn, its encoders as they will be frozen."""
        config = model.finetune
        self.units = unit_names(samples, unit)
        self._samples, self._frozen, self._device = samples, config.freeze, device
        self._ids_NL = _widened(samples.ids_NL, config.question_tokens, tokenizer.pad_id)
        self._mask_NL = _widened(samples.mask_NL, config.question_tokens, 0)
        answer_NA, mask_NA = tokenizer.answers(samples.answers, config.answer_tokens)
        self._answer_NA = _widened(answer_NA, config.answer_tokens, tokenizer.pad_id)
        self._answer_mask_NA = _widened(mask_NA, config.answer_tokens, 0)
        model.eval()
        with torch.no_grad(), autocast(device, precision):
            self._tokens = None if self._frozen == "none" else ImageTokens(model, samples, device, keep=True)
            self._state_NLD = self._states(model) if self._frozen == "encoders" else None

    def __len__(self) -> int:
        """Questions."""
        return len(self.units)

    def batch(self, row_B: Tensor, generator: torch.Generator) -> AnswerUnits:
        """These questions; images are seen a little differently each time where their encoder learns."""
        return AnswerUnits(
            seen=self._seen(row_B, generator),
            ids_BL=self._ids_NL[row_B],
            mask_BL=self._mask_NL[row_B],
            answer_BA=self._answer_NA[row_B],
            answer_mask_BA=self._answer_mask_NA[row_B],
        ).to(self._device)

    def _seen(self, row_B: Tensor, generator: torch.Generator) -> Tensor:
        if self._state_NLD is not None:
            return self._state_NLD[row_B.to(self._state_NLD.device)]
        if self._tokens is not None:
            return self._tokens(self._samples.image_of_N[row_B])
        return self._samples.seen(row_B, AUGMENTATION, generator)

    def _states(self, model: VqaModel) -> Tensor:
        assert self._tokens is not None
        blocks = []
        for row_B in torch.split(torch.arange(len(self)), _BLOCK):
            token_BSD = self._tokens(self._samples.image_of_N[row_B])
            text = (rows[row_B].to(self._device) for rows in (self._ids_NL, self._mask_NL))
            blocks.append(model.question_states(token_BSD, *text))
        return torch.cat(blocks)


@torch.no_grad()
def made_up_units(model: VqaModel, count: int, generator: torch.Generator) -> AnswerUnits:
    """Random images, questions and answers of different lengths, to try a model on before it meets a patient."""
    config, side, words = model.finetune, model.vision_config.image_size, model.config.text.vocab_size
    ids_BL, mask_BL = _random_text(count, config.question_tokens, words, generator)
    answer_BA, answer_mask_BA = _random_text(count, config.answer_tokens, words, generator)
    weight = next(model.parameters())
    seen = torch.randn(count, 3, side, side, generator=generator).to(weight)
    if config.freeze != "none":
        seen = model.visual_encoder(seen)
    if config.freeze == "encoders":
        seen = model.question_states(seen, ids_BL.to(weight.device), mask_BL.to(weight.device))
    return AnswerUnits(seen, ids_BL, mask_BL, answer_BA, answer_mask_BA).to(weight.device)


def _random_text(count: int, tokens: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids and mask, at least two tokens each."""
    length_B1 = torch.randint(2, tokens + 1, (count, 1), generator=generator)
    mask_BL = (torch.arange(tokens) < length_B1).long()
    return torch.randint(1, words, (count, tokens), generator=generator) * mask_BL, mask_BL


def _widened(rows_NX: Tensor, width: int, filling: int) -> Tensor:
    return F.pad(rows_NX, (0, width - rows_NX.shape[1]), value=filling)
