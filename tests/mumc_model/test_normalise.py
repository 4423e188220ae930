import pytest
from hypothesis import given
from hypothesis import strategies as st

from mumc_model.errors import ConfigError
from mumc_model.evaluate import is_correct
from mumc_model.normalise import accepted_answers, normalise_answer


@pytest.mark.parametrize(
    ("prediction", "truth", "normaliser", "same"),
    [
        ("Chest X-ray.", "chest x ray", "mumc", True),
        ("yes", "yes ", "mumc", False),
        ("35 cm", "3.5 cm", "mumc", True),
        ("35 cm", "3.5 cm", "clinical", False),
        ("T2 weighted", "t2-weighted", "clinical", True),
        ("the left lobe", "Left  lobe ", "clinical", True),
        ("two", "2", "clinical", True),
        ("-3", "3", "clinical", False),
        ("3-5", "3 5", "clinical", True),
        ("1,200 ml", "1200 ml", "clinical", True),
        ("left/right", "left right", "clinical", True),
        ("no", "none", "clinical", False),
        ("lung", "lungs", "clinical", False),
        ("X-rays", "x ray", "clinical", True),
        ("dont know", "don't know", "vqa_v2", True),
        ("none", "0", "vqa_v2", True),
        ("a mass", "mass.", "vqa_v2", True),
        ("left lung", "right lung", "vqa_v2", False),
    ],
)
def test_answers_agree_under_a_named_normaliser(prediction, truth, normaliser, same):
    assert is_correct(prediction, truth, normaliser) is same


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("the two lungs, left/right", "2 lungs left right"),
        ("a 3.5 cm mass.", "3.5 cm mass"),
        ("dont know", "don't know"),
    ],
)
def test_vqa_v2_reads_as_the_challenge_does(text, normalised):
    assert normalise_answer(text, "vqa_v2") == normalised


@pytest.mark.parametrize("normaliser", ["mumc", "vqa_v2", "clinical"])
def test_a_part_of_the_truth_is_not_the_truth(normaliser):
    assert not is_correct("lung", "right lung", normaliser)
    assert not is_correct("", "right lung", normaliser)


@given(st.text(max_size=20))
def test_the_clinical_form_is_its_own_clinical_form(text):
    once = normalise_answer(text, "clinical")
    assert normalise_answer(once, "clinical") == once


def test_a_misspelt_normaliser_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean clinical"):
        normalise_answer("yes", "clincal")


@pytest.mark.parametrize(
    ("truth", "wordings"),
    [
        ("ct", {"ct"}),
        ("ct # mri", {"ct", "mri"}),
        ("(left) lung mass", {"left lung mass", "lung mass"}),
        (
            "acute (left) (upper) bleed",
            {"acute left upper bleed", "acute left bleed", "acute upper bleed", "acute bleed"},
        ),
        ("mr - t2 (weighted) # t2", {"mr - t2 weighted", "mr - t2", "t2"}),
        ("#", {"#"}),
    ],
)
def test_alternatives_and_optional_words_of_vqa_med_all_count(truth, wordings):
    assert set(accepted_answers(truth, "vqa_med")) == wordings
    assert accepted_answers(truth) == (truth,)
    assert all(is_correct(wording, truth, grammar="vqa_med") for wording in wordings)


def test_an_answer_of_very_many_optional_words_is_taken_whole():
    truth = " ".join(f"({word})" for word in "abcdefghijklmnop")
    assert accepted_answers(truth, "vqa_med") == ("a b c d e f g h i j k l m n o p",)
