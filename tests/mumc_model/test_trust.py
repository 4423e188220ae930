"""A fine-tuned model's folder says how far to believe it, and a reply says it of one question."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mumc_model.answerer import ANSWERS_FILE, GATE_FILE, MEASURED_FILE, Answerer, keep_measured
from mumc_model.calibration import Calibration
from mumc_model.conformal import AnswerSets
from mumc_model.errors import CheckpointError
from mumc_model.reply import Familiarity, Reply
from mumc_model.reply_text import headline
from mumc_model.selective import AccuracyTable
from mumc_model.trust import LONGEST_LIST, Trust, fit_trust
from mumc_model.trust_score import trust_score
from tests.mumc_model.test_finetune import CPU, TOKENIZER, samples_of, tuned, write_site

TEXTS = tuple("abcdefgh")
USUAL = Familiarity(image=0.5, question=0.5, joint=0.5, level=0.05)
VALIDATED = Trust(sets=AnswerSets.of(np.linspace(0.05, 0.8, 99)), accuracy=AccuracyTable.of([0.9] * 40, [True] * 40))


def judged(probability, threshold=0.0, familiarity=USUAL, trust=VALIDATED, risk=0.1):
    probability_K = torch.tensor(probability)
    best, place = probability_K.max(0)
    found = Reply(answers=((TEXTS[place], float(best)),), threshold=threshold)
    return trust.judged(found, TEXTS, probability_K, risk=risk, familiarity=familiarity)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def data(site):
    return samples_of(site)


@pytest.fixture(scope="module")
def answerer(data):
    result = tuned(data, steps=40)
    trust = fit_trust(
        result.model,
        result.candidates.texts,
        result.calibration,
        result.validated_NK,
        train=data.train,
        validation=data.val,
        device=CPU,
    )
    return Answerer(
        model=result.model,
        tokenizer=TOKENIZER,
        texts=result.candidates.texts,
        calibration=result.calibration,
        trust=trust,
    )


def test_one_answer_left_is_an_answer_several_are_a_list_and_too_many_are_referred():
    sure = judged([0.9, 0.02, 0.02, 0.02, 0.01, 0.01, 0.01, 0.01])
    assert (sure.outcome, sure.shortlist, sure.accuracy.n) == ("answer", ("a",), 40)
    torn = judged([0.3, 0.5, 0.15, 0.01, 0.01, 0.01, 0.01, 0.01])
    assert (torn.outcome, torn.shortlist) == ("shortlist", ("b", "a"))
    lost = judged([0.1, 0.15, 0.15, 0.15, 0.15, 0.1, 0.1, 0.1], trust=Trust(sets=AnswerSets.of([0.95] * 99)))
    assert (lost.outcome, lost.shortlist) == ("referral", ())
    assert f"more than {LONGEST_LIST}" in lost.referral


def test_a_single_answer_below_the_threshold_is_referred_and_a_list_is_not():
    alone = judged([0.6, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0], threshold=0.7)
    assert alone.shortlist == ("a",)
    assert "below the 70 %" in alone.referral
    torn = judged([0.3, 0.5, 0.15, 0.01, 0.01, 0.01, 0.01, 0.01], threshold=0.7)
    assert torn.outcome == "shortlist"


@pytest.mark.parametrize(("image", "question", "what"), [(0.01, 0.5, "the image"), (0.5, 0.01, "the question")])
def test_what_is_unfamiliar_is_referred_and_named_whatever_the_answer(image, question, what):
    foreign = Familiarity(image=image, question=question, joint=0.02, level=0.05)
    found = judged([0.97, 0.01, 0.01, 0.01, 0.0, 0.0, 0.0, 0.0], familiarity=foreign)
    assert headline(found).startswith(f"refer to a human: {what} is unlike")


def test_where_no_list_can_promise_the_risk_a_human_is_asked_and_told_the_least_one():
    few = Trust(sets=AnswerSets.of([0.1] * 5))
    found = judged([0.97, 0.01, 0.01, 0.01, 0.0, 0.0, 0.0, 0.0], trust=few)
    assert "the least risk of one is 17 %" in found.referral
    assert judged([0.97, 0.01, 0.01, 0.01, 0.0, 0.0, 0.0, 0.0], trust=few, risk=0.2).outcome == "answer"


def test_a_model_that_nothing_was_validated_for_answers_as_before():
    found = judged([0.6, 0.4, 0, 0, 0, 0, 0, 0], trust=Trust(), familiarity=None)
    assert (found.outcome, found.shortlist, found.guarantee, found.accuracy) == ("answer", (), "", None)


def test_a_reply_is_plain_json():
    values = json.loads(json.dumps(judged([0.3, 0.5, 0.15, 0.01, 0.01, 0.01, 0.01, 0.01]).to_dict()))
    assert (values["outcome"], values["shortlist"], values["risk"]) == ("shortlist", ["b", "a"], 0.1)
    assert values["familiarity"] == {"image": 0.5, "question": 0.5, "joint": 0.5, "level": 0.05}


def test_the_folder_brings_the_same_trust_back_and_keeps_nothing_of_an_earlier_model(answerer, site, tmp_path):
    answerer.save(tmp_path)
    image = site.vqa[0].image
    again = Answerer.open(tmp_path)
    assert again.trust.to_dict() == answerer.trust.to_dict()
    assert again.ask(image, "Which half?", device=CPU) == answerer.ask(image, "Which half?", device=CPU)
    keep_measured(tmp_path, AccuracyTable.of([0.5] * 50, [True] * 50, "test"))
    assert Answerer.open(tmp_path).trust.accuracy.split == "test"
    Answerer(model=answerer.model, tokenizer=TOKENIZER, texts=answerer.texts).save(tmp_path)
    assert not {GATE_FILE, MEASURED_FILE} & {path.name for path in tmp_path.iterdir()}
    assert "trust" not in json.loads((tmp_path / ANSWERS_FILE).read_text())


def test_an_old_folder_without_the_section_still_opens_and_a_damaged_section_is_refused(answerer, tmp_path):
    answerer.save(tmp_path)
    file = tmp_path / ANSWERS_FILE
    values = json.loads(file.read_text())
    del values["trust"], values["calibration"]["by_type"]
    file.write_text(json.dumps(values))
    assert not Answerer.open(tmp_path).trust.known
    for damaged in ({"version": 99}, {"version": 1}, []):
        file.write_text(json.dumps({**values, "trust": damaged}))
        with pytest.raises(CheckpointError, match="fine-tune again"):
            Answerer.open(tmp_path)


def test_an_image_of_noise_is_referred_and_a_held_out_one_is_not(answerer, site, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    found = answerer.ask(tmp_path / "noise.png", "Which half?", device=CPU, level=0.1)
    assert "the image is unlike" in found.referral
    held_out = next(row for row in site.vqa if row.split == "test")
    assert answerer.ask(held_out.image, held_out.question, device=CPU, level=0.1).familiarity.joint > 0.1


def test_a_split_is_scored_as_its_questions_are_asked(answerer, site, data):
    from mumc_model.answering import weigh_questions

    types = [answerer.trust.types.guess(question) for question in data.test.questions]
    probability_NK = weigh_questions(
        answerer.model, answerer.candidates, data.test, device=CPU, calibration=answerer.calibration, types=types
    )
    found = trust_score(
        answerer.model, answerer.texts, answerer.calibration, answerer.trust, probability_NK, data.test, device=CPU
    )
    asked = [answerer.ask(row.image, row.question, device=CPU).outcome for row in site.vqa if row.split == "test"]
    for name, outcome in (("answered", "answer"), ("short_lists", "shortlist"), ("referred", "referral")):
        assert found[name]["mean"] == pytest.approx(asked.count(outcome) / len(asked))
    assert trust_score(answerer.model, TEXTS, Calibration(), Trust(), probability_NK, data.test, device=CPU) is None
