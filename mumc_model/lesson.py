"""What a fine-tuning step learns from: a batch of training questions with their answers, and its loss.

Dimensions: N training questions, B questions of a batch, A answer tokens, T learned answer tokens, L question tokens,
C channels, H height, W width in pixels, D width, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mumc_model.config import FinetuneConfig
from mumc_model.data.samples import VqaSamples
from mumc_model.data.shuffling import shuffled
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import Augmentation
from mumc_model.device import autocast
from mumc_model.views import ImageTokens
from mumc_model.vqa import AnswerTeacher, VqaModel, answer_loss

AUGMENTATION = Augmentation(crop_scale=1.0)
"""No crop: it would move and enlarge what questions about place and size ask for."""
_QUESTIONS = 128


@dataclass(frozen=True)
class LessonBatch:
    """Training questions as a step takes them. All that depends on what the numbers say is worked out on the CPU."""

    seen: Tensor
    """Images BCHW where their encoder learns; else the rows B of what frozen encoders have made of them."""
    ids_BL: Tensor
    mask_BL: Tensor
    answer_BA: Tensor
    target_T: Tensor
    learned_BA: Tensor

    def to(self, device: torch.device) -> "LessonBatch":
        """The same on a device, but for `learned_BA`, which stays."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()}
        return replace(self, **{**moved, "learned_BA": self.learned_BA})


def deal(samples: VqaSamples, tokenizer: Tokenizer, config: FinetuneConfig, seed: int) -> Iterator[LessonBatch]:
    """Training questions and their answers without end; images only where these are seen differently each time."""
    answer_NA, mask_NA = tokenizer.answers(samples.answers, config.answer_tokens)
    length_N = mask_NA.sum(1)
    for index_B, seen in _rows(samples, config, seed):
        length_B = length_N[index_B]
        answer_BA = answer_NA[index_B, : int(length_B.max())]
        learned_BA = torch.arange(answer_BA.shape[1]) < length_B[:, None] - 1
        target_T = answer_BA[:, 1:][learned_BA[:, :-1]]
        yield LessonBatch(seen, *samples.text(index_B), answer_BA, target_T, learned_BA)


def _rows(samples: VqaSamples, config: FinetuneConfig, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch's questions and what is seen: images, or places of their tokens or the questions' states."""
    if config.freeze == "none":
        for batch in samples.batches(config.batch_size, seed, augmentation=AUGMENTATION):
            yield batch.index_B, batch.image_BCHW
    for _, index_B in shuffled(len(samples), min(config.batch_size, len(samples)), seed, 0):
        yield index_B, samples.image_of_N[index_B] if config.freeze == "vision" else index_B


class Lesson:
    """The loss of a batch of training questions. What does not change during training is computed once."""

    def __init__(
        self, model: VqaModel, samples: VqaSamples, config: FinetuneConfig, device: torch.device, precision: str
    ) -> None:
        """Start the teacher, where one weighs something, and run the frozen encoders over all questions."""
        self._model, self._samples, self._device, self._precision = model, samples, device, precision
        self._teacher = AnswerTeacher(model, config.momentum) if config.distill else None
        self.steps_per_epoch = max(1, len(samples) // config.batch_size)
        with autocast(device, precision):
            self._tokens = None if config.freeze == "none" else ImageTokens(model, samples, device, keep=True)
            self._state_NLD = self._all_states() if config.freeze == "encoders" else None

    def loss(self, batch: LessonBatch, *, alpha: float) -> Tensor:
        """Nats an example, differentiable; the teacher moves first and is asked then."""
        batch, teacher_TV = batch.to(self._device), None
        # Autocast remembers its half-precision weights until it ends, so it must end before the next optimiser step.
        with autocast(self._device, self._precision):
            if self._teacher:
                self._teacher.update()
                with torch.no_grad():
                    teacher_TV = self._logits(self._teacher.model, batch)
            logits_TV = self._logits(self._model, batch)
        return answer_loss(logits_TV, batch.target_T, teacher_TV, alpha, len(batch.ids_BL))

    def _logits(self, model: VqaModel, batch: LessonBatch) -> Tensor:
        if self._state_NLD is not None:
            state_BLD = self._state_NLD[batch.seen, : batch.mask_BL.shape[1]]
        else:
            tokens_BSD = model.visual_encoder(batch.seen) if self._tokens is None else self._tokens(batch.seen)
            state_BLD = model.question_states(tokens_BSD, batch.ids_BL, batch.mask_BL)
        return model.answer_logits(state_BLD, batch.mask_BL, batch.answer_BA, batch.learned_BA)

    @torch.no_grad()
    def _all_states(self) -> Tensor:
        assert self._tokens is not None
        self._model.eval()
        blocks = []
        for index_B in torch.split(torch.arange(len(self._samples)), _QUESTIONS):
            ids_BL, mask_BL = (rows[index_B].to(self._device) for rows in (self._samples.ids_NL, self._samples.mask_NL))
            tokens_BSD = self._tokens(self._samples.image_of_N[index_B])
            blocks.append(self._model.question_states(tokens_BSD, ids_BL, mask_BL))
        return torch.cat(blocks)
