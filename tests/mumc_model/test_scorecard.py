import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mumc_model.data.schema import VqaRecord
from mumc_model.errors import DataError
from mumc_model.evaluate import AnswerRow
from mumc_model.scorecard import Evaluated, scorecard
from mumc_model.scorecard_text import draw, to_markdown

QUESTION = VqaRecord(
    image=Path("/a.png"),
    question="which organ",
    answer="liver",
    answer_type="OPEN",
    question_type="organ",
    patient_id="p",
    split="test",
    labels={"protocol": "slake_en"},
)


def row(image, correct, confidence, kind="OPEN"):
    return AnswerRow(
        image=image,
        question_type="organ",
        answer_type=kind,
        truth="liver",
        prediction="liver" if correct else "left lung",
        correct=correct,
        confidence=confidence,
    )


@pytest.fixture
def found():
    rows = [row(f"{number // 2}.png", number % 4 != 0, 0.9 if number % 4 else 0.3) for number in range(40)]
    blank = [replace(one, correct=False, prediction="left lung") for one in rows]
    return Evaluated(
        rows=rows,
        asked=[QUESTION] * 40,
        train=[replace(QUESTION, split="train")] * 3 + [replace(QUESTION, split="train", answer="lung")],
        candidates=["lung"],
        method="rank, mean",
        normaliser="mumc",
        split="test",
        selection="the best of 3 looks at 10 validation questions",
        threshold=0.5,
        views={"blank_image": blank},
    )


@pytest.fixture
def card(found):
    return scorecard(found, np.random.default_rng(0))


def test_every_number_stands_beside_its_protocol_count_interval_and_selection_rule(card):
    assert card["scores"]["overall"]["mean"] == 0.75
    assert card["scores"]["overall"]["n"] == 40
    low, high = card["scores"]["overall"]["ci95"]
    assert low < 0.75 < high
    for cell in card["cells"]:
        assert {"protocol", "normaliser", "selection", "split", "method"} <= set(cell["factors"])
        assert cell["n"] == 40
    assert {cell["metric"] for cell in card["cells"]} >= {"accuracy", "token_f1", "bleu_1", "ece", "brier"}


def test_the_baselines_and_the_image_taken_away_are_compared_question_by_question(card):
    assert card["beside"]["majority"]["overall"]["mean"] == 1.0
    assert card["differences"]["majority"]["diff"] == -0.25
    assert card["differences"]["blank_image"]["diff"] == 0.75
    assert card["differences"]["blank_image"]["mcnemar_p"] < 1e-6


def test_refusing_below_the_threshold_and_the_ceiling_of_the_list_are_stated(card):
    confidence = card["confidence"]
    assert (confidence["answered"], confidence["right_of_answered"], confidence["right_of_refused"]) == (0.75, 1.0, 0.0)
    assert card["out_of_list"] == 1.0


def test_the_page_and_the_plots_hold_the_numbers_and_how_they_were_got(card, tmp_path):
    page = to_markdown(card, "Evaluation")
    for part in (
        "SLAKE, English",
        "normaliser: mumc",
        "best of 3 looks",
        "75.0 (",
        "blank image",
        "McNemar",
        "100.0 %",
    ):
        assert part in page
    draw(card, tmp_path / "evaluation.svg")
    assert "<svg" in (tmp_path / "evaluation.svg").read_text()
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_answers_written_freely_have_no_list_and_a_split_without_questions_is_an_error(found):
    assert scorecard(replace(found, candidates=()), np.random.default_rng(0))["out_of_list"] is None
    with pytest.raises(DataError, match="no test questions"):
        scorecard(replace(found, rows=[], asked=[]), np.random.default_rng(0))
