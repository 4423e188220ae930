"""Against what the authors' own accuracy code answers; the recording lies outside the repository."""

import json
import os
from pathlib import Path

import pytest

from mumc_model.evaluate import AnswerRow, is_correct, normalise_answer, score

GOLDENS = Path(os.environ.get("MUMC_GOLDENS", Path(__file__).parents[3] / "shared" / "goldens"))
pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason="set MUMC_GOLDENS to the folder of the recordings")


@pytest.fixture(scope="module")
def recorded():
    return json.loads((GOLDENS / "vqa_eval.json").read_text())


def test_golden_every_answer_reads_as_in_the_reference(recorded):
    for case in recorded["cases"]:
        assert normalise_answer(case["gt"]) == case["gt_normalised"]
        assert normalise_answer(case["pred"]) == case["pred_normalised"]


def test_golden_every_answer_is_right_or_wrong_as_in_the_reference(recorded):
    for case in recorded["cases"]:
        assert is_correct(case["pred"], case["gt"]) is case["correct"]


def test_golden_accuracies_are_the_reference_s(recorded):
    rows = [
        AnswerRow(
            image=str(case["qid"]),
            question_type=case["question_type"],
            answer_type=case["answer_type"],
            truth=str(case["gt"]),
            prediction=case["pred"],
            correct=is_correct(case["pred"], case["gt"]),
            confidence=1.0,
        )
        for case in recorded["cases"]
    ]
    metrics, expected = score(rows), recorded["accuracy"]
    assert round(100 * metrics["overall"]["accuracy"], 2) == expected["overall"]
    assert round(100 * metrics["open"]["accuracy"], 2) == expected["perAnswerType"]["OPEN"]
    assert round(100 * metrics["closed"]["accuracy"], 2) == expected["perAnswerType"]["CLOSED"]
    by_type = {name: round(100 * group["accuracy"], 2) for name, group in metrics["by_question_type"].items()}
    assert by_type == expected["perQuestionType"]
