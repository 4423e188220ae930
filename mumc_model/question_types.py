"""Of what type a question is that comes without one: that of the most similar training question."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from mumc_model.data.tokenizer import clean_question
from mumc_model.errors import CheckpointError

_LEAST_SIMILAR = 0.2


@dataclass(frozen=True, kw_only=True)
class QuestionTypes:
    """Training questions with their types, each wording once."""

    type_of: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, questions: Sequence[str], types: Sequence[str]) -> Self:
        """Those of training questions; a wording that had several types has its most frequent one.

        Where all questions are of one type there is nothing to tell apart, and nothing is kept.
        """
        counts: dict[str, Counter[str]] = {}
        for question, kind in zip(questions, types, strict=True):
            counts.setdefault(clean_question(question), Counter())[kind] += 1
        if len({kind for found in counts.values() for kind in found}) < 2:
            return cls()
        return cls(type_of={text: min(found, key=lambda k: (-found[k], k)) for text, found in sorted(counts.items())})

    def guess(self, question: str) -> str:
        """The type of the training question that shares the most words (Jaccard); empty where none shares a fifth.

        Among equally similar ones the type that most of them have.
        """
        cleaned = clean_question(question)
        if cleaned in self.type_of:
            return self.type_of[cleaned]
        words, best, votes = _words(cleaned), _LEAST_SIMILAR, Counter[str]()
        for text, kind in self.type_of.items():
            similar = _similarity(words, _words(text))
            if similar > best:
                best, votes = similar, Counter()
            if similar == best:
                votes[kind] += 1
        return min(votes, key=lambda kind: (-votes[kind], kind), default="")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self.type_of)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """What `to_dict` wrote.

        Raises:
            CheckpointError: it is nothing of that kind.
        """
        if not isinstance(values, dict) or not all(isinstance(kind, str) for kind in values.values()):
            raise CheckpointError("the types of the training questions are damaged; fine-tune again")
        return cls(type_of=values)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


def _similarity(some: frozenset[str], other: frozenset[str]) -> float:
    return len(some & other) / max(1, len(some | other))
