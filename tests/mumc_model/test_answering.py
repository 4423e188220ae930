"""Answering with the image, without it and with another one; by generating, and by matching before any fine-tuning."""

from dataclasses import replace

import pytest
import torch

from mumc_model.answerer import NONE_OF_THESE, Answerer, Reply, reply
from mumc_model.answering import answer_questions, generate_answers, right_candidates
from mumc_model.calibration import Calibration
from mumc_model.errors import CheckpointError, DataError
from mumc_model.model import build_model
from mumc_model.views import ImageTokens
from mumc_model.zero_shot import Matcher, match_questions
from tests.mumc_model.test_finetune import CONFIG, CPU, TOKENIZER, samples_of, tuned, write_site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def data(site):
    return samples_of(site)


@pytest.fixture(scope="module")
def result(data):
    return tuned(data, steps=60)


@pytest.fixture
def answerer(result):
    return Answerer(
        model=result.model, tokenizer=TOKENIZER, texts=result.candidates.texts, calibration=result.calibration
    )


def share(rows, kind="light"):
    own = [row.correct for row in rows if row.question_type == kind]
    return sum(own) / len(own)


def test_without_the_image_a_question_that_needs_it_is_answered_alike_everywhere(result, data):
    real, blank = (
        answer_questions(result.model, result.candidates, data.test, device=CPU, view=view)
        for view in ("real", "blank")
    )
    assert share(real) == 1.0
    assert share(blank) == 0.5
    assert len({row.prediction for row in blank if row.question_type == "light"}) == 1


def test_shuffled_images_are_the_same_images_and_none_is_its_own(result, data):
    own = ImageTokens(result.model, data.test, CPU)
    other = ImageTokens(result.model, data.test, CPU, view="shuffled")
    assert (own.image_of_N != other.image_of_N).all()
    assert own.image_of_N.unique().equal(other.image_of_N.unique())
    places = torch.arange(len(data.test.unique_image_keys))
    assert own(places).equal(other(places))


def test_generating_gives_the_answers_that_were_learned(result, data):
    rows = generate_answers(result.model, TOKENIZER, data.test, device=CPU, beams=2)
    assert share(rows) == 1.0
    assert all(0 <= row.confidence <= 1 for row in rows)
    assert {row.prediction for row in rows} <= {"very bright", "dark", "left", "right"}


def test_calibrated_confidence_changes_no_answer(result, data):
    plain, calibrated = (
        answer_questions(result.model, result.candidates, data.test, device=CPU, calibration=calibration)
        for calibration in (None, Calibration(temperature=0.2))
    )
    assert [row.prediction for row in plain] == [row.prediction for row in calibrated]
    assert sum(row.confidence for row in calibrated) > sum(row.confidence for row in plain)


def test_the_right_candidates_are_those_that_read_as_the_truth(result, data):
    right_NK = right_candidates(result.candidates.texts, data.test)
    found = [result.candidates.texts[int(row.nonzero()[0])] for row in right_NK]
    assert found == list(data.test.answers)
    assert not right_candidates(["something else"], data.test).any()


def test_an_answering_model_comes_back_from_its_folder_and_answers_the_same(answerer, site, data, tmp_path):
    answerer.save(tmp_path)
    again = Answerer.open(tmp_path)
    assert (again.texts, again.calibration) == (answerer.texts, answerer.calibration)
    image = next(row.image for row in site.vqa if row.split == "test" and row.answer == "very bright")
    replies = [one.ask(image, "How bright is it?", device=CPU) for one in (answerer, again)]
    assert replies[0] == replies[1]
    assert replies[0].answers[0][0] == "very bright"
    assert sum(probability for _, probability in replies[0].answers) == pytest.approx(1)
    assert again.ask(image, "How bright is it?", device=CPU, method="generate").answer == "very bright"


def test_an_answer_below_the_threshold_is_none_of_these():
    assert reply(["a", "b"], torch.tensor([0.4, 0.6]), 0.7, 5).answer == NONE_OF_THESE
    assert reply(["a", "b"], torch.tensor([0.4, 0.6]), 0.6, 1) == Reply(
        answers=(("b", pytest.approx(0.6)),), threshold=0.6
    )


def test_a_model_without_a_list_generates_and_says_why_it_does_not_rank(answerer, site, tmp_path):
    answerer.save(tmp_path)
    (tmp_path / "answers.json").unlink()
    bare = Answerer.open(tmp_path)
    assert bare.ask(site.vqa[0].image, "Which half?", device=CPU, method="generate").answer
    with pytest.raises(DataError, match="without a list of answers"):
        bare.ask(site.vqa[0].image, "Which half?", device=CPU)


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"answers": [1], "calibration": {}}', '{"answers": [], "calibration": {"x": 1}}']
)
def test_a_damaged_answer_list_is_refused(answerer, tmp_path, content):
    answerer.save(tmp_path)
    (tmp_path / "answers.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"answers\.json"):
        Answerer.open(tmp_path)


def test_a_file_that_is_no_image_is_named_and_refused(answerer, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "none.png"):
        with pytest.raises(DataError, match=name):
            answerer.ask(tmp_path / name, "Which half?", device=CPU)


def test_matching_weighs_the_candidates_that_lie_nearest_and_no_others(data):
    model = build_model(CONFIG, 0)
    answers = ("very bright", "dark", "left", "right")
    whole = match_questions(Matcher(model, answers, TOKENIZER, CPU), data.test)
    torch.testing.assert_close(whole.sum(1), torch.ones(len(data.test)))
    kept = match_questions(Matcher(model, answers, TOKENIZER, CPU, keep=2), data.test)
    assert ((kept > 0).sum(1) == 2).all()
    ratio = torch.where(kept > 0, kept / whole, torch.nan)
    assert torch.allclose(ratio.nan_to_num(0).max(1).values, ratio.nan_to_num(9).min(1).values, rtol=1e-4)


def test_matching_follows_the_matching_head_on_the_question_with_its_answer(data):
    model, answers = build_model(CONFIG, 0).eval(), ("left", "right")
    with torch.no_grad():
        token = model.visual_encoder(data.test.images(torch.tensor([0])))
        ids, mask = TOKENIZER.captions([f"Which half? {answer}" for answer in answers], 16)
        hidden = model.text_encoder.fuse(model.text_encoder.encode(ids, mask), mask, token, torch.tensor([0, 0]))
        logits = model.match_logits(hidden[:, 0])
        expected = (logits[:, 1] - logits[:, 0]).softmax(0)
    found = Matcher(model, answers, TOKENIZER, CPU).probability("Which half?", token)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_choosing_on_the_test_split_takes_a_flag_and_marks_the_result(data):
    honest = tuned(data, steps=4, select_every=2)
    assert honest.selection == "the best of 2 looks at 24 validation questions"
    flagged = tuned(data, steps=4, select_every=2, select_on="test")
    assert "ON THE 24 TEST QUESTIONS" in flagged.selection
    swapped = tuned(replace(data, test=data.val, val=data.test), steps=4, select_every=2)
    assert [look[1] for look in flagged.looks] == [look[1] for look in swapped.looks]
