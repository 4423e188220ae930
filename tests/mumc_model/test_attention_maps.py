import math

import pytest
import torch
from torch.nn import functional as F

from mumc_model.attention_maps import AttentionMaps
from tests.mumc_model.test_vqa import QUESTION, QUESTION_MASK, answering, images


def attend(*tensors, **options):
    return F.scaled_dot_product_attention(*tensors, **options)


def test_the_weights_of_one_head_and_their_gradient_are_those_worked_out_by_hand():
    """Scores log 3 and 0 give weights 3/4 and 1/4; of their mix with values 2 and -1 the gradient is the values."""
    query, key = torch.tensor([[[[1.0]]]]), torch.tensor([[[[math.log(3)], [0.0]]]])
    with AttentionMaps() as seen:
        mixed = attend(query, key, torch.tensor([[[[2.0], [-1.0]]]]))
    (weights,) = seen.maps
    torch.testing.assert_close(weights, torch.tensor([[[[0.75, 0.25]]]]))
    (gradient,) = torch.autograd.grad(mixed.sum(), [weights])
    torch.testing.assert_close(gradient, torch.tensor([[[[2.0, -1.0]]]]))


def test_what_a_mask_hides_has_no_weight():
    mask = torch.tensor([True, True, False])
    with AttentionMaps() as seen:
        attend(*(torch.randn(1, 2, 3, 4) for _ in range(3)), attn_mask=mask)
    assert (seen.maps[0][..., 2] == 0).all()
    torch.testing.assert_close(seen.maps[0].sum(-1), torch.ones(1, 2, 3))


def answers(model):
    state = model.question_states(model.visual_encoder(images()), QUESTION, QUESTION_MASK)
    ids = torch.tensor([[2, 5, 7, 3]]).expand(3, -1)
    return model.answer_logits(state, QUESTION_MASK, ids, torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("learns", [True, False])
def test_a_model_that_is_looked_at_answers_the_same_and_every_map_has_a_gradient(learns):
    model = answering().requires_grad_(learns)
    plain = answers(model)
    with AttentionMaps() as seen:
        open_ = answers(model)
    torch.testing.assert_close(open_, plain, atol=1e-5, rtol=1e-5)
    blocks, text, fusion, decoder = 1, 1, 2 * 2, 2 * 2
    assert len(seen.maps) == blocks + text + fusion + decoder
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(open_.square().sum(), seen.maps))


def test_afterwards_attention_is_fused_again_and_to_the_bit_what_it_was():
    model = answering()
    with torch.no_grad():
        before = answers(model)
        with AttentionMaps() as seen:
            answers(model)
        kept = len(seen.maps)
        assert torch.equal(answers(model), before)
    assert len(seen.maps) == kept
