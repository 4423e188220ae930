"""The gate lets held-out questions through at the chosen level, and stops what the model has never seen."""

import numpy as np
import pytest
import torch

from mumc_model.errors import CheckpointError
from mumc_model.familiarity import SHRINKAGE, Cloud, Gate

NEW = 40


def cloud(count, seed, width=6, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) + shift


def gate(seed=0, validation=60):
    train = cloud(100, seed), cloud(100, seed + 1)
    return Gate.of(train, (cloud(validation, seed + 2), cloud(validation, seed + 3)))


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_over_many_gates_so_many_held_out_questions_are_referred_as_the_level_says(level):
    referred = []
    for seed in range(0, 1200, 10):
        found = gate(seed)
        image, question = cloud(NEW, seed + 4), cloud(NEW, seed + 5)
        referred += [found.judge(image[at : at + 1], question[at : at + 1]).joint <= level for at in range(0, NEW, 4)]
    share = sum(referred) / len(referred)
    # The points of one gate share its validation questions: 120 gates are a standard error of about 0.005 and 0.009.
    assert level - 0.04 <= share <= level + 0.02


def test_a_far_image_or_a_far_question_is_referred_and_its_own_value_tells_which():
    found, near, far = gate(), cloud(1, 8) * 0.1, cloud(1, 9, shift=9.0)
    image, question = found.judge(far, near), found.judge(near, far)
    assert image.joint <= 0.05 < image.question
    assert question.joint <= 0.05 < question.image
    assert found.judge(near, near).joint > 0.05


def test_the_distance_is_mahalanobis_of_the_shrunk_correlation():
    points = cloud(80, 3) @ cloud(6, 4)
    new = cloud(5, 5)
    scale = points.numpy().std(0)
    correlation = (1 - SHRINKAGE) * np.corrcoef(points.numpy().T) + SHRINKAGE * np.eye(6)
    centred = (new.numpy() - points.numpy().mean(0)) / scale
    expected = np.sqrt(np.einsum("bi,ij,bj->b", centred, np.linalg.inv(correlation), centred))
    assert Cloud.of(points).distance(new).tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_feature_that_never_varied_in_training_still_tells_of_a_new_one():
    points = torch.cat([cloud(50, 0), torch.ones(50, 1)], dim=1)
    found = Cloud.of(points)
    assert found.distance(torch.tensor([[0.0] * 6 + [9.0]])) > found.distance(torch.tensor([[0.0] * 6 + [1.0]])) + 3


def test_with_too_few_validation_questions_nothing_can_be_referred():
    small = gate(validation=18)
    assert small.judge(cloud(1, 9, shift=99.0), cloud(1, 9, shift=99.0)).joint > 0.05


def test_a_gate_comes_back_from_its_tensors_and_a_damaged_one_is_refused():
    found = gate()
    again = Gate.from_tensors(found.tensors())
    point = cloud(1, 7), cloud(1, 8)
    assert again.judge(*point) == found.judge(*point)
    for damaged in ({}, found.tensors() | {"image_mean_E": torch.zeros(3)}):
        with pytest.raises(CheckpointError, match="familiarity"):
            Gate.from_tensors(damaged)
