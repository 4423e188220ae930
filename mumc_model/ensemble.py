"""Several answering models of one site as one: the mean of their probabilities, calibrated as a whole.

The members are averaged first and calibrated then, once: calibrated one by one, their mean would be too unsure.
Source: deep ensembles, arXiv 1612.01474; calibration after the mean, arXiv 2007.08792.

Dimensions: M members, N questions, K candidates.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mumc_model.answerer import Answerer, mean_of
from mumc_model.answering import right_candidates, weigh_questions
from mumc_model.calibration import Calibration, calibrate
from mumc_model.candidates import Scoring
from mumc_model.data.samples import VqaSamples
from mumc_model.errors import ConfigError
from mumc_model.trust import fit_trust
from mumc_model.views import OnAnswered, View


def join(
    members: Sequence[Answerer],
    validated: Sequence[Tensor],
    *,
    train: VqaSamples,
    validation: VqaSamples,
    device: torch.device,
    curve: Sequence[float] = (),
) -> Answerer:
    """One answerer of all members; calibration, short lists and accuracy are those of their mean on validation.

    The gate, which looks at image and question before anything is answered, is that of the first member.

    Args:
        members: Fine-tuned on the same questions.
        validated: Of each member, the probabilities NK of the validation questions before calibration.
        train: The questions that they learned from.
        validation: The questions that chose their steps.
        device: Where features are worked out.
        curve: What all sites' models scored on their questions, if known.

    Raises:
        ConfigError: the members differ in their vocabulary, image size or answers, so they cannot be averaged.
    """
    first, *others = members
    for place, other in enumerate(others, 2):
        if gap := _difference(first, other):
            raise ConfigError(f"member {place} has another {gap} than member 1; give encoders of one run")
    if not others:
        return first
    mean_NK = mean_of(validated)
    types = [first.trust.types.guess(question) for question in validation.questions]
    calibration = calibrate(mean_NK, right_candidates(first.texts, validation), types)
    trust = fit_trust(
        first.model,
        first.texts,
        calibration,
        mean_NK,
        train=train,
        validation=validation,
        device=device,
        curve=curve,
    )
    return replace(first, calibration=calibration, trust=trust, others=tuple(others))


def weigh_together(
    answerer: Answerer,
    samples: VqaSamples,
    *,
    device: torch.device,
    precision: str = "fp32",
    scoring: Scoring = "mean",
    calibration: Calibration | None = None,
    view: View = "real",
    on_answered: OnAnswered | None = None,
) -> Tensor:
    """Probability NK of every candidate for every question: the members' mean, calibrated if there is anything to."""
    each = [
        weigh_questions(
            model,
            answerer.candidates,
            samples,
            device=device,
            precision=precision,
            scoring=scoring,
            view=view,
            on_answered=on_answered,
        )
        for model in answerer.models
    ]
    types = [answerer.trust.types.guess(question) for question in samples.questions]
    return mean_of(each) if calibration is None else calibration.apply(mean_of(each), types)


def _difference(first: Answerer, other: Answerer) -> str:
    if list(first.tokenizer.vocab) != list(other.tokenizer.vocab):
        return "vocabulary"
    sides = {one.model.visual_encoder.config.image_size for one in (first, other)}
    if len(sides) > 1:
        return "image size"
    return "list of answers" if first.texts != other.texts else ""
