"""One question about one image, asked of a model folder; nothing is logged."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from client.own_model import opened
from mumc_model.answerer import Reply, is_answering, read_image, reply
from mumc_model.calibration import Calibration
from mumc_model.conformal import RISK
from mumc_model.device import choose_device
from mumc_model.errors import ConfigError
from mumc_model.model import MumcModel
from mumc_model.pretrained import load_tokenizer
from mumc_model.trust import Trust
from mumc_model.zero_shot import Matcher


def ask_here(
    model_folder: Path,
    image: Path,
    question: str,
    *,
    method: str,
    answers: Sequence[str],
    top: int,
    device: str,
    risk: float = RISK,
) -> Reply:
    """The reply of an answering model, or of encoders that weigh the given answers without any fine-tuning.

    Where answers are given in place of the model's own list, nothing that validation taught holds for them.

    Raises:
        ConfigError: encoders were given no answers to weigh.
        DataError: the image cannot be read.
    """
    where = choose_device(device)
    if is_answering(model_folder):
        answerer = opened(model_folder).answerer
        if answers:
            texts = tuple(dict.fromkeys(answers))
            answerer = replace(answerer, texts=texts, trust=Trust(), calibration=Calibration())
        return answerer.ask(image, question, device=where, method=method or answerer.method, top=top, risk=risk)
    if not answers:
        raise ConfigError(
            f"{model_folder.name} holds encoders that were not fine-tuned, so they can only weigh answers that you "
            "give: --answer yes --answer no"
        )
    model, tokenizer = MumcModel.from_pretrained(model_folder).to(where), load_tokenizer(model_folder)
    with torch.no_grad():
        token_1SD = model.visual_encoder(read_image(image, model.config.vision.image_size).to(where))
    return reply(
        answers, Matcher(model, answers, tokenizer, where, len(answers)).probability(question, token_1SD), 0.0, top
    )
