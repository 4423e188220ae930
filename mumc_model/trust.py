"""All that validation taught about how far to believe an answering model, beside its calibration; one file of JSON.

The gate's features are tensors, and lie in a file of their own.

Dimensions: N questions, K candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from mumc_model.answering import right_candidates
from mumc_model.calibration import Calibration
from mumc_model.conformal import RISK, AnswerSets, scores
from mumc_model.data.samples import VqaSamples
from mumc_model.errors import CheckpointError
from mumc_model.familiarity import Gate, image_features, question_features
from mumc_model.question_types import QuestionTypes
from mumc_model.reply import Familiarity, Reply
from mumc_model.selective import AccuracyTable
from mumc_model.vqa import VqaModel

VERSION = 1
LONGEST_LIST = 5
"""A short list of more answers helps nobody: a human is asked."""
_IMAGES, _QUESTIONS = 32, 128
"""Read at a time."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What validation taught; all empty for a model that nothing was validated for."""

    types: QuestionTypes = field(default_factory=QuestionTypes)
    sets: AnswerSets = field(default_factory=AnswerSets)
    accuracy: AccuracyTable = field(default_factory=AccuracyTable)
    gate: Gate | None = None

    @property
    def known(self) -> bool:
        """Whether anything was validated."""
        return self.sets.questions > 0 or bool(self.sets.curve)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the gate."""
        return {
            "version": VERSION,
            "types": self.types.to_dict(),
            "sets": self.sets.to_dict(),
            "accuracy": self.accuracy.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], gate: Gate | None = None) -> Self:
        """What `to_dict` wrote.

        Raises:
            CheckpointError: it is damaged, or of a later version.
        """
        if not isinstance(values, dict) or values.get("version") != VERSION:
            raise CheckpointError(
                f"the section 'trust' is none of version {VERSION}; fine-tune again with this version of fedmumc"
            )
        try:
            types, sets, accuracy = (values[name] for name in ("types", "sets", "accuracy"))
        except KeyError as error:
            raise CheckpointError(f"the section 'trust' lacks {error}; fine-tune again") from error
        return cls(
            types=QuestionTypes.from_dict(types),
            sets=AnswerSets.from_dict(sets),
            accuracy=AccuracyTable.from_dict(accuracy),
            gate=gate,
        )

    def judged(
        self,
        found: Reply,
        texts: Sequence[str],
        probability_K: Tensor,
        *,
        risk: float = RISK,
        familiarity: Familiarity | None = None,
    ) -> Reply:
        """The reply with its short list, its accuracy at that confidence, and why a human is to be asked, if so."""
        if not self.known:
            return replace(found, referral=_unfamiliar(familiarity) or _unsure(found), familiarity=familiarity)
        listed = tuple(texts[place] for place in self.sets.shortlist(probability_K, risk))
        return replace(
            found,
            shortlist=listed if len(listed) <= LONGEST_LIST else (),
            risk=risk,
            # Where several answers remain possible the list is the answer, and how sure the first of them is decides
            # nothing.
            referral=_unfamiliar(familiarity)
            or (_unsure(found) if len(listed) == 1 else _too_long(len(listed), risk, self.sets.least_risk)),
            accuracy=self.accuracy.at(found.answers[0][1]),
            guarantee=self.sets.promise(risk),
            familiarity=familiarity,
        )


def fit_trust(
    model: VqaModel,
    texts: Sequence[str],
    calibration: Calibration,
    probability_NK: Tensor,
    *,
    train: VqaSamples,
    validation: VqaSamples,
    device: torch.device,
    curve: Sequence[float] = (),
) -> Trust:
    """What the validation questions teach about a model with these weights and this calibration.

    `probability_NK` are those of the validation questions' candidates before calibration; where there are none, only a
    curve from elsewhere is left.
    """
    types = QuestionTypes.of(train.questions, train.question_types)
    if not len(probability_NK):
        return Trust(types=types, sets=AnswerSets(curve=tuple(curve)))
    guessed = [types.guess(question) for question in validation.questions]
    calibrated_NK = calibration.apply(probability_NK, guessed)
    right_NK = right_candidates(texts, validation)
    confidence_N, best_N = calibrated_NK.max(dim=1)
    return Trust(
        types=types,
        sets=AnswerSets.of(scores(calibrated_NK, right_NK), curve),
        accuracy=AccuracyTable.of(confidence_N, right_NK.gather(1, best_N[:, None])[:, 0]),
        gate=Gate.of(features(model, train, device), features(model, validation, device)),
    )


@torch.no_grad()
def features(model: VqaModel, samples: VqaSamples, device: torch.device) -> tuple[Tensor, Tensor]:
    """The points NE of each question's image and of its words."""
    model.to(device).eval()
    image_IE = torch.cat(
        [image_features(model.visual_encoder.patch_embed(block.to(device))) for block in samples.image_batches(_IMAGES)]
    )
    words = []
    for index_B in torch.arange(len(samples)).split(_QUESTIONS):
        ids_BL, mask_BL = (part.to(device) for part in samples.text(index_B))
        words.append(question_features(model.text_encoder.encode(ids_BL, mask_BL), mask_BL))
    return image_IE[samples.image_of_N], torch.cat(words)


def _unfamiliar(familiarity: Familiarity | None) -> str:
    if familiarity is None or familiarity.joint > familiarity.level:
        return ""
    p = min(familiarity.image, familiarity.question)
    if familiarity.image <= familiarity.question:
        what, like = "the image is unlike those", "images"
    else:
        what, like = "the question is unlike those", "questions"
    return f"{what} that this model learned from: of the validation {like} {100 * p:.2g} % lie as far away"


def _unsure(found: Reply) -> str:
    best, probability = found.answers[0]
    if probability >= found.threshold:
        return ""
    return (
        f"the likeliest answer, {best}, has {100 * probability:.0f} %, below the {100 * found.threshold:.0f} % under "
        "which validation was wrong more often than right"
    )


def _too_long(listed: int, risk: float, least_risk: float) -> str:
    if listed == 0:
        return (
            f"no short list can promise the right answer for {100 * (1 - risk):.3g} % of questions; the least risk "
            f"of one is {100 * least_risk:.2g} %"
        )
    if listed > LONGEST_LIST:
        return f"{listed} answers remain possible at a risk of {100 * risk:.3g} %, more than {LONGEST_LIST}"
    return ""
