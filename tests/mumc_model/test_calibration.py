import math

import pytest
import torch

from mumc_model.calibration import (
    EVEN_WITH_ALL,
    LEAST_QUESTIONS,
    TYPE_QUESTIONS,
    Calibration,
    best_threshold,
    calibrate,
)


def answers(count, sharpness, seed=0):
    """Candidates whose stated probability is a power of the true one, and the true answers drawn from the true one."""
    generator = torch.Generator().manual_seed(seed)
    true_NK = (3 * torch.randn(count, 6, generator=generator)).softmax(1)
    right_NK = torch.zeros(count, 6, dtype=torch.bool)
    right_NK.scatter_(1, torch.multinomial(true_NK, 1, generator=generator), True)
    return (true_NK.log() * sharpness).softmax(1), right_NK


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_too_sharp_and_too_flat_probabilities(sharpness):
    assert calibrate(*answers(4000, sharpness)).temperature == pytest.approx(sharpness, rel=0.08)


def test_calibrated_probabilities_sum_to_one_and_keep_their_order():
    probability_NK, _ = answers(50, 0.3)
    calibrated_NK = Calibration(temperature=0.3).apply(probability_NK)
    torch.testing.assert_close(calibrated_NK.sum(1), torch.ones(50))
    assert torch.equal(calibrated_NK.argsort(1), probability_NK.argsort(1))


def test_the_threshold_refuses_what_is_more_often_wrong_than_right():
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.4, 0.3, 0.2])
    correct = torch.tensor([True, True, True, False, False, True])
    assert best_threshold(confidence, correct) == pytest.approx(0.55)
    assert best_threshold(confidence, correct, cost_of_wrong=0.1) == 0.0


def test_equally_sure_answers_are_given_or_refused_together():
    confidence, correct = torch.tensor([0.9, 0.5, 0.5]), torch.tensor([True, True, False])
    assert best_threshold(confidence, correct, cost_of_wrong=2.0) == pytest.approx(0.7)


def test_a_model_that_is_always_wrong_should_answer_nothing():
    assert best_threshold(torch.tensor([0.9, 0.5]), torch.tensor([False, False])) == 1.0


def test_questions_whose_answer_is_not_listed_count_for_the_threshold_and_not_for_the_temperature():
    probability_NK, right_NK = answers(3000, 1.0)
    unlisted = torch.full((1500, 6), 1 / 6), torch.zeros(1500, 6, dtype=torch.bool)
    alone = calibrate(probability_NK, right_NK)
    mixed = calibrate(torch.cat([probability_NK, unlisted[0]]), torch.cat([right_NK, unlisted[1]]))
    assert mixed.temperature == pytest.approx(alone.temperature)
    assert mixed.threshold > 1 / 6


def test_too_few_validation_questions_teach_nothing():
    probability_NK, right_NK = answers(LEAST_QUESTIONS - 1, 0.3)
    assert calibrate(probability_NK, right_NK) == Calibration()


def test_a_type_with_enough_questions_has_its_own_temperature_drawn_towards_that_of_all():
    sharp, flat = answers(1500, 3.0, seed=1), answers(1500, 0.5, seed=2)
    few = answers(TYPE_QUESTIONS - 1, 0.2, seed=3)
    probability_NK, right_NK = (torch.cat(parts) for parts in zip(sharp, flat, few, strict=True))
    types = ["sharp"] * 1500 + ["flat"] * 1500 + ["few"] * len(few[0])
    found = calibrate(probability_NK, right_NK, types)
    assert set(found.by_type) == {"sharp", "flat"}
    own = {kind: calibrate(*part).temperature for kind, part in (("sharp", sharp), ("flat", flat))}
    weight = 1500 / (1500 + EVEN_WITH_ALL)
    for kind, temperature in own.items():
        expected = weight * math.log(temperature) + (1 - weight) * math.log(found.temperature)
        assert math.log(found.by_type[kind]) == pytest.approx(expected)


def test_a_question_of_a_type_without_a_temperature_has_that_of_all():
    probability_NK, _ = answers(3, 0.5)
    calibration = Calibration(temperature=0.5, by_type={"organ": 2.0})
    applied = calibration.apply(probability_NK, ["organ", "place", ""])
    torch.testing.assert_close(applied[1:], Calibration(temperature=0.5).apply(probability_NK[1:]))
    torch.testing.assert_close(applied[:1], Calibration(temperature=2.0).apply(probability_NK[:1]))
