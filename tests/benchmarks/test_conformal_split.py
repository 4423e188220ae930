"""Deals of questions: whole images, every question once, and the look that fine-tuning would have kept."""

import conformal_split
import numpy as np
import pytest
import torch

QUESTIONS, ANSWERS = 120, 4


@pytest.fixture(scope="module")
def made():
    rng = torch.Generator().manual_seed(0)
    right_NK = torch.nn.functional.one_hot(torch.arange(QUESTIONS) % ANSWERS, ANSWERS).bool()
    noise_LNK = torch.randn(3, QUESTIONS, ANSWERS, generator=rng)
    strength_L11 = torch.tensor([0.2, 1.2, 0.5])[:, None, None]
    return conformal_split.Pool(
        (noise_LNK + strength_L11 * right_NK).softmax(2), right_NK, ["kind"] * QUESTIONS, np.arange(QUESTIONS) // 5
    )


@pytest.mark.parametrize(("by", "together"), [("question", 1), ("image", 5)])
def test_a_deal_holds_every_question_once_and_no_image_on_both_sides_where_images_are_dealt(made, by, together):
    parts = conformal_split.deal(made, 33, by, np.random.default_rng(0))
    assert sorted(torch.cat(parts).tolist()) == list(range(QUESTIONS))
    assert [16 <= len(parts[0]) < 16 + together, 33 <= len(parts[0]) + len(parts[1]) < 33 + together] == [True] * 2
    if together > 1:
        owners = [set(made.images[part].tolist()) for part in parts]
        assert sum(map(len, owners)) == len(set.union(*owners))


def test_the_look_that_answers_most_is_kept(made):
    assert conformal_split.best_look(made, torch.arange(QUESTIONS)) == 1


def test_every_way_covers_about_what_is_promised_of_new_questions(made):
    found = conformal_split.compared(made, 60, "question", 20, 0.2)
    assert list(found) == ["fixed", "together", "scores", "halves"]
    for row in found.values():
        assert row["coverage"] == pytest.approx(82, abs=5)
    assert found["halves"]["sd"] > found["fixed"]["sd"]
