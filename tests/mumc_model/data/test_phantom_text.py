from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mumc_model.data.phantom_cases import Case, draw_cases, pooled_shares
from mumc_model.data.phantom_text import STYLES, Question, ask_questions, corpus, write_captions
from mumc_model.data.tokenizer import Tokenizer, vocabulary

CASE = Case(modality="xray", organ="chest", finding="effusion", side="left", size="small", place="lower")


def asked_of(images: int, count: int, closed: float, seed: int) -> tuple[list[Case], list[list[Question]]]:
    rng = np.random.default_rng(seed)
    cases = draw_cases(images, pooled_shares(), 0.1, rng)
    return cases, ask_questions(cases, count, closed, rng)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("variant", [0, 1])
def test_a_caption_of_any_style_tells_every_fact_in_its_own_words(style, variant: int) -> None:
    words = dict(style.words)
    facts = {words.get(value, value) for value in CASE.labels().values()}
    assert facts <= set(style.write(CASE, variant).split())


def test_two_captions_of_one_style_are_worded_differently() -> None:
    captions = write_captions(CASE, 2, [0, 1, 0, 0], np.random.default_rng(0))
    assert len(set(captions)) == 2


def test_a_hospital_of_one_style_writes_in_no_other() -> None:
    forms = {STYLES[2].write(CASE, variant) for variant in range(2)}
    assert set(write_captions(CASE, 10, [0, 0, 1, 0], np.random.default_rng(0))) == forms


@given(st.integers(1, 40), st.floats(0, 1), st.integers(0, 1000), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_as_many_questions_as_wanted_and_none_twice_of_an_image(
    images: int, closed: float, seed: int, each: int
) -> None:
    count = images * each - images // 2
    _, asked = asked_of(images, count, closed, seed)
    assert sum(map(len, asked)) == count
    assert all(len({question.text for question in questions}) == len(questions) for questions in asked)


def test_the_text_of_a_closed_question_tells_nothing_of_its_answer() -> None:
    _, asked = asked_of(200, 400, 0.5, 1)
    answers = defaultdict(list)
    for question in (question for questions in asked for question in questions):
        if question.answer_type == "CLOSED":
            answers[question.text].append(question.answer)
    assert len(answers) > 10
    for found in answers.values():
        assert len(set(found)) == 2
        assert found.count(found[0]) * 2 == len(found)


def test_closed_questions_have_their_share() -> None:
    _, asked = asked_of(100, 200, 0.25, 1)
    assert sum(question.answer_type == "CLOSED" for questions in asked for question in questions) == 50


def test_every_answer_is_true_of_its_image() -> None:
    cases, asked = asked_of(150, 450, 0.4, 2)
    for case, questions in zip(cases, asked, strict=True):
        facts = set(vars(case).values())
        for question in questions:
            named = set(question.text.split())
            if question.answer in ("yes", "no"):
                assert (question.answer == "yes") == bool(named & facts)
            else:
                assert set(question.answer.split()) <= facts
                assert question.answer_type == "OPEN" or question.answer in named


def test_a_normal_image_is_asked_nothing_that_it_does_not_have() -> None:
    normal = [Case(modality="ct", organ="head")] * 4
    asked = ask_questions(normal, 12, 0.5, np.random.default_rng(0))
    assert {question.question_type for questions in asked for question in questions} == {"modality", "organ", "finding"}


def test_images_that_are_all_alike_are_asked_open_questions_only() -> None:
    asked = ask_questions([CASE] * 6, 12, 0.5, np.random.default_rng(0))
    assert all(question.answer_type == "OPEN" for questions in asked for question in questions)


def test_the_shipped_vocabulary_is_made_from_the_corpus_and_knows_each_of_its_words_whole() -> None:
    tokenizer = vocabulary("phantom")
    sentences = sorted(set(corpus()))
    assert tokenizer.vocab == Tokenizer.train(corpus(), 320).vocab
    assert {word for sentence in sentences for word in sentence.split()} <= set(tokenizer.vocab)


def test_a_caption_has_at_most_twelve_tokens_with_its_special_ones() -> None:
    ids_BL, _ = vocabulary("phantom").captions(sorted(set(corpus())), 40)
    assert ids_BL.shape[1] <= 12
