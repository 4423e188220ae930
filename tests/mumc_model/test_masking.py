"""Random choices of a step: what may be chosen, how often, and that a seed fixes it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mumc_model.errors import ConfigError
from mumc_model.masking import IGNORED, Draws, SpecialTokens, dropped_patches, kept_patches, negative_weights

SPECIAL = SpecialTokens(cls_id=2, mask_id=4)


def draws(seed=0):
    return Draws(torch.Generator().manual_seed(seed), SPECIAL)


def test_as_many_patches_stay_as_in_the_reference():
    assert [kept_patches(256, 0.15), kept_patches(16, 0.15), kept_patches(16, 0.25)] == [217, 13, 12]
    with pytest.raises(ConfigError, match="leaves none of 4 patches"):
        kept_patches(4, 0.9)


@given(patches=st.integers(2, 40), drop=st.floats(0, 0.5), seed=st.integers(0, 1000))
def test_kept_and_dropped_patches_are_all_patches_once(patches, drop, seed):
    keep_BK = draws(seed).keep_patches(3, patches, drop)
    both = torch.cat([keep_BK, dropped_patches(keep_BK, patches)], dim=1)
    assert (both.sort(dim=1).values == torch.arange(patches)).all()


def test_images_lose_different_patches():
    assert len({tuple(sorted(row)) for row in draws().keep_patches(20, 16, 0.5).tolist()}) > 15


def many_tokens():
    ids_BL = torch.randint(5, 1000, (400, 50), generator=torch.Generator().manual_seed(5))
    ids_BL[:, 0] = SPECIAL.cls_id
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[:, 40:] = 0
    return ids_BL, mask_BL


def test_cls_and_padding_are_never_predicted_and_labels_are_the_truth():
    ids_BL, mask_BL = many_tokens()
    masked_BL, labels_BL = draws().mask_tokens(ids_BL, mask_BL, 0.9, 1000)
    chosen = labels_BL != IGNORED
    assert not chosen[:, 0].any()
    assert not chosen[:, 40:].any()
    assert (labels_BL[chosen] == ids_BL[chosen]).all()
    assert (masked_BL[~chosen] == ids_BL[~chosen]).all()


def test_of_the_chosen_tokens_80_percent_are_masked_10_replaced_10_left():
    ids_BL, mask_BL = many_tokens()
    masked_BL, labels_BL = draws().mask_tokens(ids_BL, mask_BL, 0.4, 1000)
    chosen = labels_BL != IGNORED
    assert chosen.sum() / (400 * 39) == pytest.approx(0.4, abs=0.02)
    masked, left = masked_BL[chosen] == SPECIAL.mask_id, masked_BL[chosen] == ids_BL[chosen]
    assert masked.float().mean() == pytest.approx(0.8, abs=0.02)
    assert left.float().mean() == pytest.approx(0.1, abs=0.02)


def test_a_seed_fixes_every_choice():
    ids_BL, mask_BL = many_tokens()
    first, second = ([*d.mask_tokens(ids_BL, mask_BL, 0.2, 9), d.keep_patches(3, 9, 0.5)] for d in (draws(), draws()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_negatives_follow_similarity_and_are_never_the_own_pair():
    logits_BB = torch.tensor([[9.0, 1.0, 3.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    weights_BB = negative_weights(logits_BB)
    assert not weights_BB.diagonal().any()
    torch.testing.assert_close(weights_BB[0, 2], logits_BB.softmax(1)[0, 2] + 1e-4)
    drawn = torch.stack([draws(seed).negatives(weights_BB) for seed in range(200)])
    assert not (drawn == torch.arange(3)).any()
    assert (drawn[:, 0] == 2).float().mean() > 0.75


def test_equal_captions_are_no_negatives_unless_there_is_nothing_else():
    logits_BB = torch.zeros(3, 3)
    equal_BB = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    weights_BB = negative_weights(logits_BB, equal_BB)
    assert (weights_BB > 0).tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    everywhere = ~torch.eye(3, dtype=torch.bool)
    assert (negative_weights(logits_BB, everywhere) > 0).equal(everywhere)


def test_negatives_are_drawn_as_torch_draws_them():
    weights_BB = negative_weights(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))
    for seed in range(50):
        expected = torch.multinomial(weights_BB, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
        assert torch.equal(draws(seed).negatives(weights_BB), expected)
