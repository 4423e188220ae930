"""Every question of a split answered: images encoded once, questions that share one side by side, answers ranked.

Dimensions: N questions, I unique images, B questions of a block, K candidates, S image tokens, D width.
"""

import torch
from torch import Tensor

from mumc_model.candidates import Candidates, Scoring
from mumc_model.data.samples import VqaSamples
from mumc_model.evaluate import AnswerRow, is_correct
from mumc_model.train import autocast
from mumc_model.vqa import VqaModel

_QUESTIONS = 128
_IMAGES = 32
_KEPT_BYTES = 8 << 30
"""The most image tokens that are kept; above it images are encoded anew when they are asked for."""


class ImageTokens:
    """Image tokens of a split as the model's encoder gives them now, without gradient and without augmentation."""

    def __init__(self, model: VqaModel, samples: VqaSamples, device: torch.device, *, keep: bool = False) -> None:
        """`keep` encodes all images now, for an encoder that stands still."""
        self._model, self._samples, self._device = model, samples, device
        config = model.vision_config
        needed = len(samples.unique_image_keys) * (1 + config.patches) * config.width * 4
        everything = torch.arange(len(samples.unique_image_keys))
        self._kept_ISD = self._encode(everything) if keep and 0 < needed <= _KEPT_BYTES else None

    def __call__(self, image_I: Tensor) -> Tensor:
        """Tokens ISD of the images at these places among the unique ones."""
        return self._encode(image_I) if self._kept_ISD is None else self._kept_ISD[image_I.to(self._device)]

    @torch.no_grad()
    def _encode(self, image_I: Tensor) -> Tensor:
        blocks = [self._samples.images(block).to(self._device) for block in torch.split(image_I, _IMAGES)]
        return torch.cat([self._model.visual_encoder(block) for block in blocks])


@torch.no_grad()
def rank_questions(
    model: VqaModel, candidates: Candidates, samples: VqaSamples, tokens: ImageTokens, scoring: Scoring = "mean"
) -> Tensor:
    """Probability NK of every candidate for every question, on the CPU; questions about one image go together."""
    device = candidates.order_C.device
    probability_NK = torch.zeros(len(samples), len(candidates))
    by_image_N = samples.image_of_N.argsort(stable=True)
    for index_B in torch.split(by_image_N, _QUESTIONS) if len(samples) else ():
        image_I, image_of_B = torch.unique(samples.image_of_N[index_B], return_inverse=True)
        ids_BL, mask_BL = (tensor.to(device) for tensor in samples.text(index_B))
        state_BLD = model.question_states(tokens(image_I), ids_BL, mask_BL, image_of_B.to(device))
        probability_NK[index_B] = model.rank(state_BLD, mask_BL, candidates, scoring).float().cpu()
    return probability_NK


def answer_questions(
    model: VqaModel,
    candidates: Candidates,
    samples: VqaSamples,
    *,
    device: torch.device,
    precision: str = "fp32",
    scoring: Scoring = "mean",
    normaliser: str = "mumc",
) -> list[AnswerRow]:
    """One row a question, in the order of the split, right or wrong under the normaliser."""
    model.to(device).eval()
    candidates = candidates.to(device)
    with autocast(device, precision):
        probability_NK = rank_questions(model, candidates, samples, ImageTokens(model, samples, device), scoring)
    return answer_rows(candidates, samples, probability_NK, normaliser)


def answer_rows(
    candidates: Candidates, samples: VqaSamples, probability_NK: Tensor, normaliser: str = "mumc"
) -> list[AnswerRow]:
    """The most probable candidate of each question beside the truth."""
    confidence_N, best_N = probability_NK.max(dim=1)
    predictions = [candidates.texts[best] for best in best_N.tolist()]
    facts = zip(
        samples.image_keys,
        samples.question_types,
        samples.answer_types,
        samples.answers,
        predictions,
        confidence_N.tolist(),
        strict=True,
    )
    return [
        AnswerRow(
            image=image,
            question_type=question_type,
            answer_type=answer_type,
            truth=truth,
            prediction=prediction,
            correct=is_correct(prediction, truth, normaliser),
            confidence=confidence,
        )
        for image, question_type, answer_type, truth, prediction, confidence in facts
    ]
