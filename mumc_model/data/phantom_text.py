"""What is written and asked about a synthetic examination: captions in several styles, open and closed questions."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mumc_model.data.phantom_cases import FINDINGS, NO_FINDING, PLACES, SEEN_IN, SIDES, SIZES, Case


@dataclass(frozen=True, kw_only=True)
class Style:
    """One house style of captions: sentences with a finding, one without, and words of its own for some facts."""

    abnormal: tuple[str, ...]
    normal: str
    words: tuple[tuple[str, str], ...] = ()

    def write(self, case: Case, variant: int) -> str:
        """The caption in one of the style's variants."""
        sentence = self.normal if case.normal else self.abnormal[variant % len(self.abnormal)]
        words = dict(self.words)
        return sentence.format(**{name: words.get(value, value) for name, value in vars(case).items()})


STYLES = (
    Style(
        abnormal=(
            "{modality} {organ} {side} {place} {size} {finding}",
            "{organ} {modality} {size} {finding} {place} {side}",
        ),
        normal="{modality} {organ} no finding",
    ),
    Style(
        abnormal=(
            "{size} {finding} in the {side} {place} {organ} on {modality}",
            "{modality} shows a {size} {finding} in the {side} {place} {organ}",
        ),
        normal="normal {organ} on {modality}",
        words=(("xray", "radiograph"), ("mr", "mri")),
    ),
    Style(
        abnormal=(
            "{finding} {size} {place} {side} {organ} seen by {modality}",
            "{place} {side} {organ} has {size} {finding} by {modality}",
        ),
        normal="{organ} by {modality} unremarkable",
    ),
    Style(
        abnormal=(
            "{modality} of {organ} with {finding} {size} on {side} {place}",
            "on {side} {place} a {size} {finding} in {modality} of {organ}",
        ),
        normal="{modality} of {organ} is healthy",
        words=(("xray", "film"), ("small", "little"), ("large", "big")),
    ),
)

OPEN_QUESTIONS = {
    "modality": ("which modality is this", "how was this image taken"),
    "organ": ("which part of the body is shown", "what organ is this"),
    "finding": ("what is the finding", "what abnormality is seen"),
    "side": ("which side is affected", "on what side is the finding"),
    "size": ("what size is the finding", "how big is the abnormality"),
    "place": ("where is the finding", "in what place is the abnormality"),
}
"""Ways to ask for each fact."""
OPEN_WEIGHTS = {"modality": 1, "organ": 1, "finding": 4, "side": 3, "size": 2, "place": 3}
"""How often each fact is asked for: modality and organ are learned by anything, and tell little."""
YES_NO = {
    "finding": "is there {a} {value}",
    "side": "is the finding on the {value} side",
    "size": "is the abnormality {value}",
}
CHOICE = {
    "finding": "is this {a} {value} or {a_other} {other}",
    "side": "is the finding {value} or {other}",
    "size": "is the abnormality {value} or {other}",
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its answer, in the terms of a site's folder."""

    text: str
    answer: str
    answer_type: str
    question_type: str


def write_captions(case: Case, count: int, style_weights: Sequence[float], rng: np.random.Generator) -> list[str]:
    """Captions of one image, each in a style drawn by weight; two in a row of one style take its different variants."""
    first = int(rng.integers(2))
    styles = rng.choice(len(STYLES), size=count, p=style_weights)
    return [STYLES[style].write(case, first + number) for number, style in enumerate(styles)]


def ask_questions(
    cases: Sequence[Case], count: int, closed_share: float, rng: np.random.Generator
) -> list[list[Question]]:
    """`count` questions spread evenly over the images: the list of each image's, no question twice of an image.

    Closed questions come in pairs about two images, with the same text and different answers, so that the text alone
    tells nothing. Where images are too alike for a pair, an open question takes its place.
    """
    rooms = [count // len(cases) + (index < count % len(cases)) for index in range(len(cases))]
    asked: list[list[Question]] = [[] for _ in cases]
    _ask_closed(cases, rooms, round(closed_share * count / 2), asked, rng)
    for case, room, questions in zip(cases, rooms, asked, strict=True):
        questions += _open_questions(case, room - len(questions), rng)
    return asked


def question_capacity() -> int:
    """How many open questions a normal image allows, the least of all."""
    return len(_open_topics(Case(modality="", organ="")))


def _ask_closed(
    cases: Sequence[Case], rooms: list[int], pairs: int, asked: list[list[Question]], rng: np.random.Generator
) -> None:
    abnormal = np.array([index for index, case in enumerate(cases) if not case.normal], dtype=int)
    made = 0
    for _ in range(20):
        order = rng.permutation(abnormal)
        for one, other in zip(order[::2], order[1::2], strict=False):
            if made >= pairs:
                return
            pair = _closed_pair(cases[one], cases[other], rng)
            places = (one, other)
            full = any(len(asked[index]) >= rooms[index] for index in places)
            if not pair or full or any(pair[0].text == known.text for index in places for known in asked[index]):
                continue
            for index, question in zip(places, pair, strict=True):
                asked[index].append(question)
            made += 1


def _closed_pair(one: Case, other: Case, rng: np.random.Generator) -> tuple[Question, Question] | None:
    """The same closed question about two images, with different answers; None if they differ in nothing asked for."""
    topics = [topic for topic in YES_NO if getattr(one, topic) != getattr(other, topic)]
    if not topics:
        return None
    topic = topics[rng.integers(len(topics))]
    value, different = getattr(one, topic), getattr(other, topic)
    if rng.random() < 0.5:
        text, answers, kind = _closed_text(YES_NO[topic], value), ("yes", "no"), "presence"
    else:
        first, second = sorted((value, different), reverse=bool(rng.random() < 0.5))
        text, answers, kind = _closed_text(CHOICE[topic], first, second), (value, different), "choice"
    questions = [Question(text=text, answer=answer, answer_type="CLOSED", question_type=kind) for answer in answers]
    return questions[0], questions[1]


def _closed_text(form: str, value: str, other: str = "") -> str:
    return form.format(value=value, other=other, a=_article(value), a_other=_article(other))


def _article(word: str) -> str:
    return "an" if word[:1] in "aeiou" else "a"


def _open_questions(case: Case, count: int, rng: np.random.Generator) -> list[Question]:
    topics = _open_topics(case)
    weights = np.array([OPEN_WEIGHTS[topic] for topic in topics], dtype=float)
    chosen = rng.choice(len(topics), size=count, replace=False, p=weights / weights.sum())
    return [_open_question(case, topics[index], int(rng.integers(2))) for index in chosen]


def _open_topics(case: Case) -> list[str]:
    return ["modality", "organ", "finding"] if case.normal else list(OPEN_QUESTIONS)


def _open_question(case: Case, topic: str, form: int) -> Question:
    answer = f"{case.place} {case.side}" if topic == "place" else getattr(case, topic)
    return Question(text=OPEN_QUESTIONS[topic][form], answer=answer, answer_type="OPEN", question_type=topic)


def corpus() -> Iterator[str]:
    """Every sentence that a synthetic hospital can hold.

    The shipped vocabulary is made from it, and is remade by:

        python -c "import json; from mumc_model.data import phantom_text, tokenizer;
        print(json.dumps(tokenizer.Tokenizer.train(phantom_text.corpus(), 320).vocab, indent=0))"
        > mumc_model/data/phantom_vocab.json
    """
    for case in _all_cases():
        for style, variant in itertools.product(STYLES, range(2)):
            yield style.write(case, variant)
        for topic, form in itertools.product(_open_topics(case), range(2)):
            yield _open_question(case, topic, form).text
            yield _open_question(case, topic, form).answer
    for topic, values in (("finding", FINDINGS), ("side", SIDES), ("size", SIZES)):
        yield from (_closed_text(YES_NO[topic], value) for value in values)
        yield from (_closed_text(CHOICE[topic], *pair) for pair in itertools.permutations(values, 2))
    yield from ("yes", "no")


def _all_cases() -> Iterator[Case]:
    for (modality, organ), findings in SEEN_IN.items():
        yield Case(modality=modality, organ=organ, finding=NO_FINDING)
        for finding, side, size, place in itertools.product(findings, SIDES, SIZES, PLACES):
            yield Case(modality=modality, organ=organ, finding=finding, side=side, size=size, place=place)
