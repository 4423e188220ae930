"""Right or wrong: one row an answer, accuracy by kind of question, and what no image could tell.

No torch: the report and the simulation read rows that a site wrote.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, Self

from mumc_model.data.protocols import grammar_of
from mumc_model.errors import DataError
from mumc_model.normalise import NORMALISER, accepted_answers, normalise_answer

Metrics = dict[str, Any]
"""Nested dictionary of numbers."""


class Question(Protocol):
    """What a baseline that never sees the image may look at; a `VqaRecord` is one."""

    @property
    def question(self) -> str:
        """The question's text."""

    @property
    def answer(self) -> str:
        """The true answer."""

    @property
    def question_type(self) -> str:
        """What is asked for."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Facts of the image and, for a public set, its protocol."""


@dataclass(frozen=True, kw_only=True)
class AnswerRow:
    """One test question answered; a line of the site's own disk. Never leaves the site as it is."""

    image: str
    """Key of the image, the cluster of the intervals."""
    question_type: str
    answer_type: str
    """OPEN or CLOSED."""
    truth: str
    prediction: str
    correct: bool
    confidence: float
    """Probability of the prediction among the candidate answers."""
    question: str = ""
    """Its words; empty in rows that an earlier version kept."""

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The row that `to_dict` wrote.

        Raises:
            DataError: a field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(row) | {"question"} != names:
            missing, unknown = sorted(names - set(row)), sorted(set(row) - names)
            raise DataError(
                f"an answer row lacks the fields {missing} and has the unknown fields {unknown}; "
                "evaluate again with this version"
            )
        return cls(**row)


def is_correct(prediction: object, truth: object, normaliser: str = NORMALISER, grammar: str = "plain") -> bool:
    """Whether both read exactly the same once normalised; part of the truth is not the truth.

    Under a `grammar` with alternatives the prediction may read as any of them.
    """
    return normalise_answer(prediction, normaliser) in right_answers(truth, normaliser, grammar)


def right_answers(truth: object, normaliser: str = NORMALISER, grammar: str = "plain") -> set[str]:
    """Every right answer in the form in which answers are compared."""
    return {normalise_answer(wording, normaliser) for wording in accepted_answers(str(truth), grammar)}


def score(rows: Sequence[AnswerRow]) -> Metrics:
    """Number, number right and accuracy: overall, open, closed and by question type; a group without rows is left out.

    Suppresses nothing: whoever shows or sends these numbers applies the site's policy on small groups first.

    Raises:
        DataError: no rows.
    """
    if not rows:
        raise DataError("there are no answered questions to score; give the site a test split")
    metrics: Metrics = {"overall": _accuracy(rows)}
    for answer_type, members in _grouped(rows, lambda row: row.answer_type).items():
        if answer_type in ("OPEN", "CLOSED"):
            metrics[answer_type.lower()] = _accuracy(members)
    by_type = _grouped(rows, lambda row: row.question_type)
    metrics["by_question_type"] = {name: _accuracy(by_type[name]) for name in sorted(by_type)}
    return metrics


def out_of_list_share(candidates: Iterable[str], asked: Sequence[Question], normaliser: str = NORMALISER) -> float:
    """Share of questions that no candidate answers rightly: the ceiling of ranking is one minus this."""
    known = {normalise_answer(candidate, normaliser) for candidate in candidates}
    missed = [known.isdisjoint(right_answers(q.answer, normaliser, grammar_of(q.labels))) for q in asked]
    return sum(missed) / max(1, len(missed))


def majority(train: Sequence[Question], test: Sequence[Question]) -> list[str]:
    """For each test question the most frequent training answer of its type, or of all where the type is new."""
    overall = _most_frequent(train, lambda _: "")
    by_type = _most_frequent(train, lambda row: row.question_type)
    return [by_type.get(row.question_type, overall[""]) for row in test]


def question_only(train: Sequence[Question], test: Sequence[Question]) -> list[str]:
    """For each test question the most frequent training answer to the same words, then of its type, then of all."""
    by_text = _most_frequent(train, lambda row: _plain(row.question))
    fallback = majority(train, test)
    return [by_text.get(_plain(row.question), guess) for row, guess in zip(test, fallback, strict=True)]


def chance(test: Sequence[Question], normaliser: str = NORMALISER) -> list[float]:
    """For each test question how likely a uniform guess among the answers that its type has in the test is right.

    A question that names several of them, as `left or right` does, leaves only those to guess among.
    """
    answers: dict[str, set[str]] = defaultdict(set)
    for row in test:
        answers[row.question_type].add(normalise_answer(row.answer, normaliser))
    return [1 / _options(row.question, answers[row.question_type]) for row in test]


def _options(question: str, answers: Iterable[str]) -> int:
    words = f" {_plain(question)} "
    named = [f" {_plain(answer)} " in words for answer in answers]
    return sum(named) if sum(named) > 1 else len(named)


def _accuracy(rows: Sequence[AnswerRow]) -> dict[str, float]:
    correct = sum(row.correct for row in rows)
    return {"n": len(rows), "correct": correct, "accuracy": correct / len(rows)}


def _grouped(rows: Iterable[AnswerRow], key: Callable[[AnswerRow], str]) -> dict[str, list[AnswerRow]]:
    groups: dict[str, list[AnswerRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _most_frequent(train: Sequence[Question], key: Callable[[Question], str]) -> dict[str, str]:
    """The most frequent answer of each group; equally frequent answers in alphabetical order, not the file's."""
    if not train:
        raise DataError("there are no training questions to count answers of; give the site a train split")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in train:
        counts[key(row)][row.answer] += 1
    return {group: min(answers, key=lambda a: (-answers[a], a)) for group, answers in counts.items()}


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
