"""Fine-tuning to its end: a model that answers, calibrated, with all that validation taught about believing it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mumc_model.answerer import Answerer
from mumc_model.config import Recipe
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.finetune import FinetuneResult, OnStep, VqaData, finetune
from mumc_model.model import MumcModel
from mumc_model.trust import fit_trust


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """An answering model that nothing keeps yet."""

    answerer: Answerer
    result: FinetuneResult
    """How it came about."""


def finetune_answerer(
    model: MumcModel,
    data: VqaData,
    tokenizer: Tokenizer,
    recipe: Recipe,
    *,
    device: torch.device,
    precision: str,
    seed: int,
    curve: Sequence[float] = (),
    on_step: OnStep | None = None,
) -> Finetuned:
    """What pre-trained encoders become on a site's questions; they are left as they were.

    `curve` is what all sites' models scored on their questions, where that is known. All else is that of `finetune`,
    whose errors these are.
    """
    result = finetune(model, data, tokenizer, recipe, device=device, precision=precision, seed=seed, on_step=on_step)
    texts, calibration = result.candidates.texts, result.calibration
    trust = fit_trust(
        result.model,
        texts,
        calibration,
        result.validated_NK,
        train=data.train,
        validation=data.val,
        device=device,
        curve=curve,
    )
    answerer = Answerer(model=result.model, tokenizer=tokenizer, texts=texts, calibration=calibration, trust=trust)
    return Finetuned(answerer=answerer, result=result)
