"""What a model answers to one question, and how far the answer can be believed.

Dimensions: K candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mumc_model.selective import Measured

NONE_OF_THESE = "none of these"


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """How usual a question and its image are among those that the model was validated on."""

    image: float
    """p-value: the share of validation questions whose image lies at least as far from the training images."""
    question: float
    """The same of the question's words."""
    joint: float
    """p-value of the less usual of both; below `level` the question is referred."""
    level: float
    """So large a share of questions like the validation's is referred without need."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model answers to one question. Fields with a default are those of what validation taught."""

    answers: tuple[tuple[str, float], ...]
    """The likeliest answers with their probabilities, the best first."""
    threshold: float = 0.0
    question_type: str = ""
    """Given by the caller, or else guessed from the question's words; it chooses the temperature."""
    shortlist: tuple[str, ...] = ()
    """The answers that remain possible at the risk, the likeliest first; empty where none was worked out."""
    risk: float = 0.0
    """Of a short list that lacks the right answer; 0 where there is no list."""
    referral: str = ""
    """Why a human is to be asked, in a sentence; empty where the model answers."""
    accuracy: Measured | None = None
    """How often this site's answers of about this confidence were right."""
    guarantee: str = ""
    """What the short list promises, and the limits of that."""
    familiarity: Familiarity | None = None
    members: int = 1
    """Models whose mean this is."""
    agreement: float | None = None
    """The share of members whose own first answer this is, too; None of a single model."""

    @property
    def answer(self) -> str:
        """The best answer, or that none of the list fits."""
        best, probability = self.answers[0]
        return best if probability >= self.threshold else NONE_OF_THESE

    @property
    def outcome(self) -> str:
        """`answer`, `shortlist` (several answers remain possible), or `referral` (a human is to be asked)."""
        if self.referral:
            return "referral"
        return "shortlist" if len(self.shortlist) > 1 else "answer"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `mumc-site ask --json` prints them and a page shows them."""
        return {
            "outcome": self.outcome,
            "answer": self.answer,
            "answers": [{"answer": text, "probability": probability} for text, probability in self.answers],
            "threshold": self.threshold,
            "question_type": self.question_type,
            "shortlist": list(self.shortlist),
            "risk": self.risk,
            "referral": self.referral,
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
            "guarantee": self.guarantee,
            "members": self.members,
            "agreement": self.agreement,
            "familiarity": vars(self.familiarity).copy() if self.familiarity else None,
        }


def reply(texts: Sequence[str], probability_K: torch.Tensor, threshold: float, top: int) -> Reply:
    """The likeliest candidates and what they make of the question."""
    best = probability_K.topk(min(top, len(texts)))
    answers = zip((texts[place] for place in best.indices.tolist()), best.values.tolist(), strict=True)
    return Reply(answers=tuple(answers), threshold=threshold)
