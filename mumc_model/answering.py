"""Every question of a split answered: its image encoded once, the questions about it side by side.

Dimensions: N questions, A questions of a block that are asked, K candidates, L tokens, D width.
"""

from collections.abc import Sequence

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
from mumc_model.normalise import NORMALISER, normalise_answer
from mumc_model.views import Block, ImageTokens, OnAnswered, View, by_image
from mumc_model.vqa import VqaModel


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
    for block in by_image(samples, tokens, on_answered, apart=apart):
        state_ALD, mask_AL = _states(model, samples, tokens, block, device)
        probability_AK = model.rank(state_ALD, mask_AL, candidates, scoring).float().cpu()
        probability_NK[block.index_B] = probability_AK[block.answer_of_B]
    return probability_NK


def _states(
    model: VqaModel, samples: VqaSamples, tokens: ImageTokens, block: Block, device: torch.device
) -> tuple[Tensor, Tensor]:
    """States ALD and mask AL of the questions that a block asks."""
    ids_AL, mask_AL = (tensor.to(device) for tensor in samples.text(block.asked_A))
    return model.question_states(tokens(block.image_I), ids_AL, mask_AL, block.image_of_A.to(device)), mask_AL


def weigh_questions(
    model: VqaModel,
    candidates: Candidates,
    samples: VqaSamples,
    *,
    device: torch.device,
    precision: str = "fp32",
    scoring: Scoring = "mean",
    calibration: Calibration | None = None,
    types: Sequence[str] = (),
    view: View = "real",
    on_answered: OnAnswered | None = None,
    apart: Sequence[str] = (),
) -> Tensor:
    """Probability NK of every candidate for every question, calibrated if there is anything to calibrate by.

    `types` are those by which the calibration tells questions apart (`Calibration.apply`).
    `apart` names an owner of each question where no owner's answers may depend, even by rounding, on the others'.
    """
    model.to(device).eval()
    with autocast(device, precision):
        tokens = ImageTokens(model, samples, device, view=view)
        probability_NK = rank_questions(model, candidates.to(device), samples, tokens, scoring, on_answered, apart)
    return probability_NK if calibration is None else calibration.apply(probability_NK, types)


def answer_questions(
    model: VqaModel,
    candidates: Candidates,
    samples: VqaSamples,
    *,
    device: torch.device,
    precision: str = "fp32",
    scoring: Scoring = "mean",
    normaliser: str = NORMALISER,
    calibration: Calibration | None = None,
    types: Sequence[str] = (),
    view: View = "real",
    on_answered: OnAnswered | None = None,
    apart: Sequence[str] = (),
) -> list[AnswerRow]:
    """The likeliest candidate of each question, in the order of the split, right or wrong under the normaliser.

    `types` and `apart` are those of `weigh_questions`.
    """
    probability_NK = weigh_questions(
        model,
        candidates,
        samples,
        device=device,
        precision=precision,
        scoring=scoring,
        calibration=calibration,
        types=types,
        view=view,
        on_answered=on_answered,
        apart=apart,
    )
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
    normaliser: str = NORMALISER,
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
        for block in by_image(samples, tokens, on_answered, apart=apart):
            state_ALD, mask_AL = _states(model, samples, tokens, block, device)
            found = generate(
                model,
                state_ALD,
                mask_AL,
                cls_id=tokenizer.cls_id,
                sep_id=tokenizer.sep_id,
                max_tokens=model.finetune.answer_tokens,
                beams=beams,
            )
            confidence_N[block.index_B] = found.probability_B.float().cpu()[block.answer_of_B]
            written = [tokenizer.decode(ids) for ids in found.ids]
            for index, answer in zip(block.index_B.tolist(), block.answer_of_B.tolist(), strict=True):
                predictions[index] = written[answer]
    return _rows(samples, predictions, confidence_N, normaliser)


def answer_rows(
    texts: Sequence[str], samples: VqaSamples, probability_NK: Tensor, normaliser: str = NORMALISER
) -> list[AnswerRow]:
    """The most probable of the candidate texts for each question, beside the truth."""
    confidence_N, best_N = probability_NK.max(dim=1)
    return _rows(samples, [texts[best] for best in best_N.tolist()], confidence_N, normaliser)


def right_candidates(texts: Sequence[str], samples: VqaSamples, normaliser: str = NORMALISER) -> Tensor:
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
        samples.questions,
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
            question=question,
        )
        for image, question, question_type, answer_type, truth, prediction, confidence, labels in facts
    ]
