"""Losses against closed forms and written-out sums."""

import math

import pytest
import torch
from torch.nn import functional as F

from mumc_model import losses


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_logits_cost_the_logarithm_of_the_number_of_keys():
    assert losses.hard_contrastive(torch.zeros(3, 7)) == pytest.approx(math.log(7))


def test_hard_contrast_is_the_written_out_info_nce():
    logits_BN = random(3, 5)
    expected = -sum(math.log(row[i].exp() / row.exp().sum()) for i, row in enumerate(logits_BN)) / 3
    assert losses.hard_contrastive(logits_BN) == pytest.approx(expected)


def test_soft_contrast_with_no_weight_on_the_teacher_is_the_hard_one():
    logits_BN = random(3, 5)
    soft = losses.soft_contrastive(logits_BN, losses.soft_targets(random(3, 5, seed=1), 0.0))
    torch.testing.assert_close(soft, losses.hard_contrastive(logits_BN))


def test_soft_targets_sum_to_one_and_mix_teacher_and_diagonal():
    teacher_BN = random(2, 4)
    targets_BN = losses.soft_targets(teacher_BN, 0.4)
    torch.testing.assert_close(targets_BN.sum(1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(targets_BN[0, 0], 0.6 + 0.4 * teacher_BN[0].softmax(0)[0])
    torch.testing.assert_close(targets_BN[0, 1], 0.4 * teacher_BN[0].softmax(0)[1])


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_hidden_keys_are_as_if_they_were_not_there(alpha):
    logits_BN, teacher_BN = random(2, 4).requires_grad_(), random(2, 4, seed=1)
    hidden_BN = torch.tensor([[False, False, True, False]] * 2)
    targets = losses.soft_targets(losses.hide(teacher_BN, hidden_BN), alpha)
    loss = losses.soft_contrastive(losses.hide(logits_BN, hidden_BN), targets)
    kept = [0, 1, 3]
    expected = losses.soft_contrastive(logits_BN[:, kept], losses.soft_targets(teacher_BN[:, kept], alpha))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not logits_BN.grad[:, 2].any()


def test_matching_counts_the_first_rows_as_pairs():
    logits_B2 = torch.tensor([[0.0, 50.0], [50.0, 0.0], [50.0, 0.0]])
    assert losses.matching(logits_B2, matched=1) == pytest.approx(0.0)
    assert losses.matching(torch.zeros(3, 2), matched=1) == pytest.approx(math.log(2))


def test_masked_tokens_cost_their_mean_cross_entropy_and_nothing_without_any():
    logits_MV, labels_M = random(4, 6), torch.tensor([0, 5, 2, 2])
    torch.testing.assert_close(losses.masked_tokens(logits_MV, labels_M), F.cross_entropy(logits_MV, labels_M))
    assert losses.masked_tokens(logits_MV[:0], labels_M[:0]) == 0
    assert losses.distilled_tokens(logits_MV[:0], logits_MV[:0]) == 0


def test_distilling_from_oneself_costs_the_entropy_and_teaches_nothing():
    logits_MV = random(4, 6).requires_grad_()
    loss = losses.distilled_tokens(logits_MV, logits_MV)
    probability = logits_MV.detach().softmax(1)
    torch.testing.assert_close(loss.detach(), -(probability * probability.log()).sum(1).mean())
    loss.backward()
    torch.testing.assert_close(logits_MV.grad, torch.zeros_like(logits_MV), atol=1e-12, rtol=0)


def test_painting_is_judged_after_each_patch_is_normalised():
    pixel_BDP = random(2, 3, 12)
    truth = (pixel_BDP - pixel_BDP.mean(-1, keepdim=True)) / pixel_BDP.std(-1, keepdim=True)
    assert losses.painted_patches(truth, pixel_BDP) == pytest.approx(0.0, abs=1e-9)
    painted_BDP = random(2, 3, 12, seed=1)
    brighter = losses.painted_patches(painted_BDP, 5 * pixel_BDP + 3)
    torch.testing.assert_close(losses.painted_patches(painted_BDP, pixel_BDP), brighter, rtol=1e-5, atol=0)
