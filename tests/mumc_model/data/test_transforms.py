import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mumc_model.data.transforms import DEVIATION, MEAN, Augmentation, _grid, augment, mirror_text, normalise

STILL = Augmentation(crop_scale=1, rotation_degrees=0, brightness=0, contrast=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(images=3, channels=1, size=16):
    return torch.randint(0, 256, (images, channels, size, size), dtype=torch.uint8, generator=generator())


def denormalise(image_B3SS):
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (image_B3SS * deviation + mean) * 255


@pytest.mark.parametrize("channels", [1, 3])
def test_normalising_gives_three_channels_in_the_statistics_of_the_paper(channels):
    image = pixels(channels=channels)
    torch.testing.assert_close(denormalise(normalise(image)), image.float().expand(-1, 3, -1, -1), atol=1e-3, rtol=0)


def test_an_augmentation_that_may_change_nothing_changes_nothing():
    image = pixels()
    torch.testing.assert_close(augment(image, STILL, generator()), normalise(image), atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_views_and_another_seed_others():
    image = pixels()
    first, again, other = (augment(image, Augmentation(), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)


def test_each_image_of_a_batch_is_seen_differently():
    image = pixels(images=1).expand(2, -1, -1, -1).contiguous()
    views = augment(image, Augmentation(), generator())
    assert not torch.allclose(views[0], views[1], atol=0.1)


def test_views_stay_within_the_range_of_bytes():
    image = torch.stack([torch.zeros(1, 16, 16), torch.full((1, 16, 16), 255)]).byte().repeat(8, 1, 1, 1)
    views = denormalise(augment(image, Augmentation(brightness=0.5, contrast=0.5), generator()))
    assert views.min() >= -1e-2
    assert views.max() <= 255.01


def test_nothing_is_ever_mirrored():
    ramp = torch.arange(0, 256, 16).byte().expand(64, 1, 16, 16).contiguous()
    views = augment(ramp, Augmentation(), generator())
    assert (views[..., -1].mean((1, 2)) > views[..., 0].mean((1, 2))).all()


def test_a_crop_keeps_at_least_the_given_share_of_the_area():
    ramp = torch.arange(0, 256, 4).float()
    across, down = ramp.expand(256, 1, 64, 64), ramp[:, None].expand(256, 1, 64, 64)
    settings = Augmentation(crop_scale=0.5, rotation_degrees=0, brightness=0, contrast=0)
    spans = []
    for image in (across, down):
        views = denormalise(augment(image, settings, generator()))
        spans.append((views.amax((1, 2, 3)) - views.amin((1, 2, 3))) / 252)
    share = spans[0] * spans[1]
    assert share.min() > 0.45
    assert share.min() < 0.6
    assert share.max() > 0.9


@given(st.lists(st.floats(-2, 2, width=32), min_size=12, max_size=12), st.integers(1, 9))
def test_the_sampling_grid_agrees_with_the_library(numbers, side):
    matrix = torch.tensor(numbers).view(2, 2, 3)
    expected = torch.nn.functional.affine_grid(matrix, [2, 1, side, side], align_corners=False)
    torch.testing.assert_close(_grid(matrix, side), expected, atol=1e-5, rtol=1e-5)


def test_crops_reach_every_border():
    ramp = torch.arange(0, 256, 4).float()
    settings = Augmentation(crop_scale=0.5, rotation_degrees=0, brightness=0, contrast=0)
    for image in (ramp.expand(256, 1, 64, 64), ramp[:, None].expand(256, 1, 64, 64)):
        views = denormalise(augment(image, settings, generator()))
        assert views.min() < 8
        assert views.max() > 244


def test_a_rotation_turns_without_squeezing():
    image = torch.zeros(32, 1, 65, 65)
    image[:, :, 30:35, 5:60] = 255
    settings = Augmentation(crop_scale=1, rotation_degrees=20, brightness=0, contrast=0)
    views = denormalise(augment(image, settings, generator()))[:, 0] / 255
    torch.testing.assert_close(views.sum((1, 2)), torch.full((32,), 275.0), atol=12, rtol=0)
    assert views[:, :26].sum() > 10


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("Nodule in the left lung, right-sided effusion", "Nodule in the right lung, left-sided effusion"),
        ("LEFT Left left", "RIGHT Right right"),
        ("opacity of the RUL and LLL", "opacity of the LUL and RLL"),
        ("a bright cleft upright", "a bright cleft upright"),
        ("collapse of the RML on the right", None),
        ("", ""),
    ],
)
def test_a_mirrored_sentence_swaps_the_sides_or_is_refused(text, mirrored):
    assert mirror_text(text) == mirrored


@given(st.lists(st.sampled_from(["left", "right", "lung", "Left", "RUL", "of"]), max_size=8).map(" ".join))
def test_mirroring_a_sentence_twice_gives_it_back(text):
    assert mirror_text(mirror_text(text)) == text
