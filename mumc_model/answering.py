"""Every question of a split answered: images encoded once, questions that share one side by side.

Dimensions: N questions, I unique images, B questions of a block, K candidates, S image tokens, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from mumc_model.calibration import Calibration
from mumc_model.candidates import Candidates, Scoring
from mumc_model.data.protocols import grammar_of
from mumc_model.data.samples import VqaSamples
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.device import autocast
from mumc_model.evaluate import AnswerRow, is_correct, right_answers
from mumc_model.generate import generate
from mumc_model.model import MumcModel
from mumc_model.normalise import normalise_answer
from mumc_model.vqa import VqaModel

View = Literal["real", "blank", "shuffled"]
"""What is looked at: the question's image, an evenly grey one, or another question's."""

OnAnswered = Callable[[int], None]
"""Called with the number of questions that were just answered."""

_QUESTIONS = 128
_IMAGES = 32
_KEPT_BYTES = 8 << 30
"""The most image tokens that are kept; above it images are encoded anew when they are asked for."""


class ImageTokens:
    """Image tokens of a split as the model's encoder gives them now, without gradient and without augmentation."""

    def __init__(
        self,
        model: VqaModel | MumcModel,
        samples: VqaSamples,
        device: torch.device,
        *,
        keep: bool = False,
        view: View = "real",
    ) -> None:
        """`keep` encodes all images now, for an encoder that stands still."""
        self._model, self._samples, self._device, self._view = model, samples, device, view
        config, images = model.visual_encoder.config, len(samples.unique_image_keys)
        needed = images * (1 + config.patches) * config.width * 4
        self._seen_I = torch.arange(images)
        if view == "shuffled" and images > 1:
            # One cycle through a random order: every question sees an image, and none its own.
            order_I = torch.randperm(images, generator=torch.Generator().manual_seed(0))
            self._seen_I = torch.empty_like(order_I).scatter_(0, order_I, order_I.roll(1))
        self._kept_ISD = self._encode(torch.arange(images)) if keep and 0 < needed <= _KEPT_BYTES else None

    def __call__(self, image_I: Tensor) -> Tensor:
        """Tokens ISD of the images at these places among the unique ones."""
        return self._encode(image_I) if self._kept_ISD is None else self._kept_ISD[image_I.to(self._device)]

    @torch.no_grad()
    def _encode(self, image_I: Tensor) -> Tensor:
        blocks = [self._pixels(block).to(self._device) for block in torch.split(image_I, _IMAGES)]
        return torch.cat([self._model.visual_encoder(block) for block in blocks])

    def _pixels(self, image_I: Tensor) -> Tensor:
        pixels_ICHW = self._samples.images(self._seen_I[image_I])
        return torch.zeros_like(pixels_ICHW) if self._view == "blank" else pixels_ICHW


def by_image(
    samples: VqaSamples,
    on_answered: OnAnswered | None = None,
    size: int = _QUESTIONS,
    apart: Sequence[str] = (),
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Blocks of questions of which those about one image are neighbours.

    Each is the questions' places B, their images' places I among the unique ones, and which of these each looks at, B.
    `apart` may name an owner of each question: no block then holds questions of two owners.
    """
    order_N = samples.image_of_N.argsort(stable=True)
    owned: dict[str, list[int]] = {}
    for index in order_N.tolist():
        owned.setdefault(apart[index] if apart else "", []).append(index)
    for index_B in (block for places in owned.values() for block in torch.split(torch.tensor(places), size)):
        image_I, image_of_B = torch.unique(samples.image_of_N[index_B], return_inverse=True)
        yield index_B, image_I, image_of_B
        if on_answered:
            on_answered(len(index_B))


@torch.no_grad()
def rank_questions(
    model: VqaModel,
    candidates: Candidates,
    samples: VqaSamples,
    tokens: ImageTokens,
    scoring: Scoring = "mean",
    on_answered: OnAnswered | None = None,
    apart: Sequence[str] = (),
) -> Tensor:
    """Probability NK of every candidate for every question, on the CPU."""
    device = candidates.order_C.device
    probability_NK = torch.zeros(len(samples), len(candidates))
    for index_B, image_I, image_of_B in by_image(samples, on_answered, apart=apart):
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
    calibration: Calibration | None = None,
    view: View = "real",
    on_answered: OnAnswered | None = None,
    apart: Sequence[str] = (),
) -> list[AnswerRow]:
    """The likeliest candidate of each question, in the order of the split, right or wrong under the normaliser.

    `apart` names an owner of each question where no owner's answers may depend, even by rounding, on the others'.
    """
    model.to(device).eval()
    candidates = candidates.to(device)
    with autocast(device, precision):
        tokens = ImageTokens(model, samples, device, view=view)
        probability_NK = rank_questions(model, candidates, samples, tokens, scoring, on_answered, apart)
    if calibration is not None:
        probability_NK = calibration.apply(probability_NK)
    return answer_rows(candidates.texts, samples, probability_NK, normaliser)


@torch.no_grad()
def generate_answers(
    model: VqaModel,
    tokenizer: Tokenizer,
    samples: VqaSamples,
    *,
    device: torch.device,
    precision: str = "fp32",
    beams: int = 3,
    normaliser: str = "mumc",
    view: View = "real",
    on_answered: OnAnswered | None = None,
    apart: Sequence[str] = (),
) -> list[AnswerRow]:
    """The answer that the decoder writes to each question, in the order of the split, with its probability.

    `apart` is that of `answer_questions`.
    """
    model.to(device).eval()
    predictions, confidence_N = [""] * len(samples), torch.zeros(len(samples))
    with autocast(device, precision):
        tokens = ImageTokens(model, samples, device, view=view)
        for index_B, image_I, image_of_B in by_image(samples, on_answered, apart=apart):
            ids_BL, mask_BL = (tensor.to(device) for tensor in samples.text(index_B))
            state_BLD = model.question_states(tokens(image_I), ids_BL, mask_BL, image_of_B.to(device))
            found = generate(
                model,
                state_BLD,
                mask_BL,
                cls_id=tokenizer.cls_id,
                sep_id=tokenizer.sep_id,
                max_tokens=model.finetune.answer_tokens,
                beams=beams,
            )
            confidence_N[index_B] = found.probability_B.float().cpu()
            for index, ids in zip(index_B.tolist(), found.ids, strict=True):
                predictions[index] = tokenizer.decode(ids)
    return _rows(samples, predictions, confidence_N, normaliser)


def answer_rows(
    texts: Sequence[str], samples: VqaSamples, probability_NK: Tensor, normaliser: str = "mumc"
) -> list[AnswerRow]:
    """The most probable of the candidate texts for each question, beside the truth."""
    confidence_N, best_N = probability_NK.max(dim=1)
    return _rows(samples, [texts[best] for best in best_N.tolist()], confidence_N, normaliser)


def right_candidates(texts: Sequence[str], samples: VqaSamples, normaliser: str = "mumc") -> Tensor:
    """Which candidates, NK, are a right answer to each question; none where its answer is not listed."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(normalise_answer(text, normaliser), []).append(place)
    right_NK = torch.zeros(len(samples), len(texts), dtype=torch.bool)
    for row, truth, labels in zip(right_NK, samples.answers, samples.labels, strict=True):
        for answer in right_answers(truth, normaliser, grammar_of(labels)):
            row[places.get(answer, [])] = True
    return right_NK


def _rows(samples: VqaSamples, predictions: Sequence[str], confidence_N: Tensor, normaliser: str) -> list[AnswerRow]:
    facts = zip(
        samples.image_keys,
        samples.question_types,
        samples.answer_types,
        samples.answers,
        predictions,
        confidence_N.tolist(),
        samples.labels,
        strict=True,
    )
    return [
        AnswerRow(
            image=image,
            question_type=question_type,
            answer_type=answer_type,
            truth=truth,
            prediction=prediction,
            correct=is_correct(prediction, truth, normaliser, grammar_of(labels)),
            confidence=confidence,
        )
        for image, question_type, answer_type, truth, prediction, confidence, labels in facts
    ]
