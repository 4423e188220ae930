import json
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest

from mumc_model.errors import DataError
from mumc_model.evaluate import (
    AnswerRow,
    chance,
    majority,
    out_of_list_share,
    question_only,
    score,
)

ROW = AnswerRow(
    image="images/a.png",
    question_type="organ",
    answer_type="OPEN",
    truth="liver",
    prediction="liver",
    correct=True,
    confidence=0.75,
)


@dataclass(frozen=True)
class Asked:
    question: str
    answer: str
    question_type: str = "organ"
    labels: dict = field(default_factory=dict)


def test_a_row_survives_a_line_of_json():
    assert AnswerRow.from_dict(json.loads(json.dumps(ROW.to_dict()))) == ROW


def test_a_row_with_a_missing_or_an_unknown_field_is_refused():
    row = ROW.to_dict()
    row["patient"] = row.pop("image")
    with pytest.raises(DataError, match=r"\['image'\].*\['patient'\]"):
        AnswerRow.from_dict(row)


def test_accuracy_is_counted_overall_by_answer_type_and_by_question_type():
    wrong = replace(ROW, correct=False)
    closed = replace(ROW, answer_type="CLOSED", question_type="side")
    assert score([ROW, wrong, wrong, closed]) == {
        "overall": {"n": 4, "correct": 2, "accuracy": 0.5},
        "open": {"n": 3, "correct": 1, "accuracy": pytest.approx(1 / 3)},
        "closed": {"n": 1, "correct": 1, "accuracy": 1.0},
        "by_question_type": {
            "organ": {"n": 3, "correct": 1, "accuracy": pytest.approx(1 / 3)},
            "side": {"n": 1, "correct": 1, "accuracy": 1.0},
        },
    }


def test_a_group_without_rows_has_no_accuracy():
    assert "closed" not in score([ROW])


def test_no_rows_have_no_score():
    with pytest.raises(DataError, match="test split"):
        score([])


def test_the_out_of_list_share_counts_truths_that_no_candidate_can_give():
    asked = [Asked("?", answer) for answer in ("liver", "spleen", "yes", "gall bladder")]
    assert out_of_list_share(["Liver.", "yes"], asked) == 0.5


def test_an_answer_with_alternatives_is_in_the_list_when_one_of_them_is():
    labels = {"protocol": "vqa_med_2019"}
    asked = [Asked("?", "ct # mri", labels=labels), Asked("?", "(left) lung", labels=labels)]
    assert out_of_list_share(["MRI", "lung"], asked) == 0.0
    assert out_of_list_share(["MRI", "lung"], [replace(q, labels={}) for q in asked]) == 1.0


TRAIN = [
    Asked("Which organ?", "liver"),
    Asked("Which organ?", "liver"),
    Asked("What is bright?", "spleen"),
    Asked("Is it left?", "yes", "side"),
]


def test_majority_answers_with_the_most_frequent_of_the_type_then_of_all():
    test = [Asked("What else?", "x"), Asked("Which?", "x", "side"), Asked("Which?", "x", "never seen")]
    assert majority(TRAIN, test) == ["liver", "yes", "liver"]


def test_question_only_prefers_the_same_words_whatever_their_punctuation():
    test = [Asked("what is bright", "x"), Asked("Unheard of?", "x"), Asked("Unheard of?", "x", "side")]
    assert question_only(TRAIN, test) == ["spleen", "liver", "yes"]


def test_equally_frequent_answers_are_chosen_alike_whatever_the_order_of_the_file():
    train = [Asked("Q?", "b"), Asked("Q?", "a")]
    assert majority(train, train) == majority(train[::-1], train) == ["a", "a"]


def test_baselines_without_training_questions_are_refused():
    with pytest.raises(DataError, match="train split"):
        majority([], TRAIN)


def test_chance_guesses_uniformly_among_the_answers_of_a_type():
    yes_no = [Asked("Q?", "yes", "side"), Asked("Q?", "no", "side")]
    organs = [Asked("Q?", organ) for organ in ("liver", "Liver", "lung", "brain", "spleen", "kidney")]
    assert chance(yes_no + organs) == pytest.approx([0.5] * 2 + [0.2] * 6)


def test_chance_guesses_among_the_answers_that_the_question_offers():
    offered = [Asked("Is it left or right?", "left", "choice"), Asked("CT or MR?", "ct", "choice")]
    others = [Asked("Which?", answer, "choice") for answer in ("right", "mr", "large")]
    assert chance(offered + others) == pytest.approx([0.5] * 2 + [0.2] * 3)


def test_rows_are_read_without_torch():
    code = "import sys, mumc_model.evaluate, mumc_model.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
