"""The image encoder: what it sees, what it must not see, and whose weights fit."""

from dataclasses import replace

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from mumc_model.config import VisionConfig
from mumc_model.errors import ConfigError
from mumc_model.masking import dropped_patches
from mumc_model.model import initialise
from mumc_model.vision import MimDecoder, VisionEncoder, blank_patches, patchify, resize_pos_embed, sincos_pos_embed

LINEAR = VisionConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2)
CONV = replace(LINEAR, stem="conv")


def built(config, seed=0):
    encoder = VisionEncoder(config)
    initialise(encoder, torch.Generator().manual_seed(seed))
    return encoder


@pytest.fixture
def image():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_learned_linear_encoder_is_timms_vit_by_name_and_by_number(image):
    ours = built(replace(LINEAR, pos_embed="learned"))
    theirs = VisionTransformer(32, 8, num_classes=0, embed_dim=16, depth=2, num_heads=2)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(image), theirs.forward_features(image))


@pytest.mark.parametrize("config", [LINEAR, CONV])
def test_keeping_every_patch_in_any_order_changes_no_cls(config, image):
    encoder = built(config)
    keep_BK = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3)])
    torch.testing.assert_close(encoder(image)[:, 0], encoder(image, keep_BK)[:, 0], atol=1e-5, rtol=1e-4)
    assert encoder(image, keep_BK[:, :5]).shape == (2, 6, 16)


def test_a_dropped_patch_has_no_influence(image):
    encoder, keep_BK = built(LINEAR), torch.arange(1, 16).repeat(2, 1)
    changed = image.clone()
    changed[:, :, :8, :8] = 7.0
    torch.testing.assert_close(encoder(image, keep_BK), encoder(changed, keep_BK))
    assert not torch.allclose(encoder(image), encoder(changed))


def test_blanked_patches_hide_their_pixels_from_overlapping_convolutions(image):
    encoder, keep_BK = built(CONV), torch.arange(1, 16).repeat(2, 1)
    drop_BD = dropped_patches(keep_BK, 16)
    changed = image.clone()
    changed[:, :, :8, :8] = 7.0
    assert not torch.allclose(encoder(image, keep_BK), encoder(changed, keep_BK))
    seen = [encoder(blank_patches(each, drop_BD, 8), keep_BK) for each in (image, changed)]
    torch.testing.assert_close(*seen)


def test_blanking_touches_only_the_dropped_patches(image):
    blank = blank_patches(image, torch.tensor([[5], [0]]), 8)
    patches, before = patchify(blank, 8), patchify(image, 8)
    assert not patches[0, 5].any()
    assert not patches[1, 0].any()
    torch.testing.assert_close(patches[0, 6:], before[0, 6:])
    torch.testing.assert_close(patches[1, 1:], before[1, 1:])


def test_patches_are_read_row_by_row_with_channels_last():
    image = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    assert patchify(image, 2)[0, 1].tolist() == [2, 18, 3, 19, 6, 22, 7, 23]


def test_an_image_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(ConfigError, match="48 x 32 pixels, but this encoder reads 32 x 32"):
        built(LINEAR)(torch.zeros(1, 3, 48, 32))


def test_the_fixed_table_is_not_trained_and_the_learned_one_is():
    assert not VisionEncoder(LINEAR).pos_embed.requires_grad
    assert VisionEncoder(replace(LINEAR, pos_embed="learned")).pos_embed.requires_grad


def test_the_table_tells_every_place_apart_and_leaves_cls_alone():
    table = sincos_pos_embed(16, 4)
    assert not table[0].any()
    assert (torch.cdist(table[1:], table[1:]) + torch.eye(16) > 0.1).all()


def test_resizing_keeps_cls_and_a_constant_grid():
    table_1ND = torch.cat([torch.full((1, 1, 4), 9.0), torch.full((1, 16, 4), 2.0)], dim=1)
    resized = resize_pos_embed(table_1ND, 36)
    assert resized.shape == (1, 37, 4)
    torch.testing.assert_close(resized[:, 0], torch.full((1, 4), 9.0))
    torch.testing.assert_close(resized[:, 1:], torch.full((1, 36, 4), 2.0))
    assert resize_pos_embed(table_1ND, 16) is table_1ND


def test_the_channels_of_a_conv_stem_double_up_to_the_width():
    encoder = VisionEncoder(replace(CONV, width=32, heads=2, stem_width=16))
    shapes = [tuple(w.shape[:2]) for name, w in encoder.named_parameters() if name.endswith("conv.weight")]
    assert shapes == [(16, 3), (32, 16), (32, 32)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 20}, r"vision.width 20 must be a multiple of 8"),
        ({"stem_width": 12}, r"vision.stem_width 12 must be a multiple of 8"),
        ({"image_size": 36, "patch_size": 12}, r"patch_size 12 must be a power of two"),
    ],
)
def test_a_conv_stem_that_does_not_divide_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(CONV, **changes)


def test_the_painting_head_knows_which_patch_is_which():
    decoder, keep_BK = MimDecoder(LINEAR, depth=1), torch.arange(12)[None]
    initialise(decoder, torch.Generator().manual_seed(0))
    token_BKD, drop_BD = torch.randn(1, 13, 16, generator=torch.Generator().manual_seed(1)), torch.arange(12, 16)[None]
    painted_BDP = decoder(token_BKD, keep_BK, drop_BD)
    assert painted_BDP.shape == (1, 4, 8 * 8 * 3)
    order = [3, 1, 0, 2]
    torch.testing.assert_close(decoder(token_BKD, keep_BK, drop_BD[:, order]), painted_BDP[:, order])
    moved = decoder(token_BKD, keep_BK.flip(1), drop_BD)
    assert not torch.allclose(moved, painted_BDP)
