"""Three ways to the same clipped sum: the loop over single units is the oracle of the other two."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from client.privacy import layers
from client.privacy.deferred import DeferredGradients
from client.privacy.gradients import LoopGradients, OpacusGradients, clip_factors, total_norm
from mumc_model.device import autocast
from tests.client.privacy.mechanism import (
    CPU,
    EXPECTED,
    LOSSES,
    WAYS,
    Records,
    check_nan_adds_nothing,
    check_same_as_loop,
    clipped,
    loss_of,
    recipe,
    released,
    site_of,
    take,
    trainer_of,
    units_of,
    way_of,
)

FAST = ("hooks", "opacus")
SHAPES = {
    "linear stem": {"losses": LOSSES[:-1]},
    "convolutional stem": {"stem": "conv", "losses": LOSSES[:-1]},
    "painting": {},
    "painting on a convolutional stem": {"stem": "conv"},
    "equal captions hidden": {"mask_equal_captions": True},
    "no teacher": {"distill": 0.0},
    "adapters": {"rank": 2, "losses": LOSSES[:-1]},
    "adapters on a convolutional stem": {"rank": 2, "stem": "conv", "losses": LOSSES[:-1]},
    **{f"{loss} alone": {"losses": [loss]} for loss in LOSSES},
}


def middle(norm_B):
    """A clipping norm that cuts some units and leaves others."""
    return float(norm_B.double().median())


@pytest.mark.parametrize("way", FAST)
@pytest.mark.parametrize("shape", SHAPES)
def test_norms_and_clipped_sums_are_those_of_single_units(shape, way):
    trainer = trainer_of(recipe(**SHAPES[shape]), double=True)
    units, alpha = units_of(trainer, 5), trainer.recipe.objective.distill
    norm_B = clipped(LoopGradients(trainer.weights), trainer.weights, loss_of(trainer, alpha), units, 1.0)[1]
    gradients = way_of(way, trainer.weights, trainer.roots)
    for clipping_norm in (1e-3, middle(norm_B), 1e6):
        check_same_as_loop(gradients, trainer.weights, loss_of(trainer, alpha), units, clipping_norm)


@pytest.mark.parametrize("way", WAYS)
def test_units_in_small_physical_batches_have_the_same_sum(way):
    trainer = trainer_of(recipe(stem="conv"), double=True)
    units = units_of(trainer, 7)
    gradients = way_of(way, trainer.weights, trainer.roots)
    whole, norm_B = clipped(gradients, trainer.weights, loss_of(trainer), units, 5.0)
    for size in (1, 3):
        parts = [units.part(first, min(first + size, 7)) for first in range(0, 7, size)]
        norms = [gradients.add(loss_of(trainer), part, 5.0) for part in parts]
        assert (take(trainer.weights) - whole).norm() < 1e-9
        assert torch.allclose(torch.cat(norms).double(), norm_B, rtol=1e-9, atol=0)


class Images:
    """A batch of images alone."""

    def __init__(self, image_BCHW):
        self.image_BCHW = image_BCHW

    def __len__(self):
        return len(self.image_BCHW)

    def part(self, first, last):
        return Images(self.image_BCHW[first:last])


@pytest.mark.parametrize("way", FAST)
def test_the_memory_layout_of_an_image_changes_no_gradient(way):
    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1).double()
    image_BCHW = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = dict(layer.named_parameters())

    def loss(batch):
        return layer(batch.image_BCHW).square().sum(dim=(1, 2, 3))

    gradients = way_of(way, weights, [layer])
    plain, norm_B = clipped(gradients, weights, loss, Images(image_BCHW), 1.0)
    last = Images(image_BCHW.contiguous(memory_format=torch.channels_last))
    found, found_B = clipped(gradients, weights, loss, last, 1.0)
    check_same_as_loop(gradients, weights, loss, last, 1.0)
    assert torch.allclose(found, plain, atol=1e-12)
    assert torch.allclose(found_B, norm_B)


def test_opacus_alone_is_wrong_where_channels_come_last_so_that_its_inputs_are_laid_out_anew():
    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1).double()
    weights, image = dict(layer.named_parameters()), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    gradients = OpacusGradients(weights, [layer])
    layer._forward_pre_hooks.clear()

    def loss(batch):
        return layer(batch.image_BCHW).square().sum(dim=(1, 2, 3))

    last = Images(image.contiguous(memory_format=torch.channels_last))
    with pytest.raises(AssertionError):
        check_same_as_loop(gradients, weights, loss, last, 1.0)


class Twice(nn.Module):
    """A layer, a convolution and a table that are each called twice in a pass, and that both calls teach."""

    def __init__(self, padding):
        super().__init__()
        self.table, self.line, self.norm = nn.Embedding(5, 6, padding_idx=padding), nn.Linear(6, 6), nn.LayerNorm(6)
        self.grid = nn.Conv2d(1, 2, 2)

    def forward(self, image_BCHW):
        token_BT = image_BCHW[:, 0, 0].abs().mul(3).long().clamp(max=4)
        row_BTD = self.table(token_BT) + self.table(token_BT.flip(1)).sin()
        row_BTD = self.norm(self.line(self.norm(self.line(row_BTD)).tanh()))
        one, other = self.grid(image_BCHW[:, :1]).sin(), self.grid(image_BCHW[:, 1:2]).square()
        return row_BTD.square().mul(torch.arange(6)).sum(dim=(1, 2)) + (one + other).sum(dim=(1, 2, 3))


# Opacus 1.6 gives the padding row a gradient, where a text has one; MUMC's losses look at no padding.
@pytest.mark.parametrize(("way", "padding"), [("hooks", None), ("hooks", 0), ("opacus", None)])
def test_a_layer_that_is_called_twice_counts_with_both_calls_and_what_is_between_them(way, padding):
    generator = torch.Generator().manual_seed(0)
    module = Twice(padding).double()
    for weight in module.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=generator))
    weights = dict(module.named_parameters())
    images = Images(torch.randn(4, 2, 4, 4, dtype=torch.float64, generator=generator))
    gradients = way_of(way, weights, [module])
    for clipping_norm in (1e-2, 1e3):
        check_same_as_loop(gradients, weights, lambda batch: module(batch.image_BCHW), images, clipping_norm)


@pytest.mark.parametrize("way", WAYS)
def test_a_unit_whose_gradient_is_not_finite_adds_nothing(way):
    trainer = trainer_of(recipe(stem="conv"), double=True)
    gradients = way_of(way, trainer.weights, trainer.roots)
    check_nan_adds_nothing(gradients, trainer.weights, loss_of(trainer), units_of(trainer, 4))


@pytest.mark.parametrize("way", WAYS)
def test_a_step_of_units_that_are_all_not_finite_adds_nothing(way):
    trainer = trainer_of(recipe(), double=True)
    units = units_of(trainer, 2)
    units = replace(units, image_BCHW=units.image_BCHW * torch.inf)
    gradients = way_of(way, trainer.weights, trainer.roots)
    found, norm_B = clipped(gradients, trainer.weights, loss_of(trainer), units, 1.0)
    assert not norm_B.isfinite().any()
    assert not found.any()


def test_a_unit_is_cut_to_the_clipping_norm_or_left_as_it_is_and_never_lengthened():
    norm_B = torch.tensor([0.0, 1e-30, 0.5, 1.0, 4.0, 1e30, torch.inf, torch.nan])
    assert clip_factors(norm_B, 1.0).tolist() == pytest.approx([1, 1, 1, 1, 0.25, 1e-30, 0, 0])


PRODUCTS = {
    "few tokens": (3, 20, 20),
    "many tokens": (60, 4, 5),
    "one token": (1, 8, 8),
}


@pytest.mark.parametrize("cancelling", [False, True], ids=["random", "cancelling"])
@pytest.mark.parametrize("shape", PRODUCTS)
def test_single_precision_never_shortens_a_norm(shape, cancelling):
    tokens, inputs, outputs = PRODUCTS[shape]
    generator = torch.Generator().manual_seed(tokens)
    for exponent in range(-6, 7, 2):
        input_BTI = 10.0**exponent * torch.randn(200, tokens, inputs, generator=generator)
        gradient_BTO = torch.randn(200, tokens, outputs, generator=generator)
        if cancelling and tokens > 1:
            half = tokens // 2
            input_BTI[:, half : 2 * half] = input_BTI[:, :half] * (1 + 1e-6)
            gradient_BTO[:, half : 2 * half] = -gradient_BTO[:, :half]
        single_B = layers.squares_of_product(input_BTI, gradient_BTO).double().sqrt()
        exact_BOI = torch.bmm(gradient_BTO.double().mT, input_BTI.double())
        assert (single_B >= exact_BOI.flatten(1).norm(dim=1) * (1 - 1e-7)).all()
        if not cancelling:
            assert (single_B <= exact_BOI.flatten(1).norm(dim=1) * 1.05).all()


def test_the_norms_of_a_model_in_single_precision_are_no_shorter_than_in_double():
    settings = recipe(stem="conv")
    single, double = trainer_of(settings), trainer_of(settings, double=True)
    for seed in range(3):
        norms = [
            clipped(DeferredGradients(t.weights, t.roots), t.weights, loss_of(t), units_of(t, 6, seed), 1.0)[1]
            for t in (single, double)
        ]
        # The forward pass is rounded too; only the lengths are bounded from below.
        assert ((norms[0] - norms[1]) / norms[1]).abs().max() < 1e-3
        assert ((norms[0] - norms[1]) / norms[1]).min() > -1e-4


@pytest.mark.parametrize("way", WAYS)
def test_half_precision_changes_norms_by_few_per_cent_and_keeps_the_bound(way):
    trainer, units = trainer_of(recipe(stem="conv")), None
    units = units_of(trainer, 6)

    def half(batch):
        with autocast(CPU, "bf16"):
            return trainer.objective(batch, 0.4)[0]

    gradients = way_of(way, trainer.weights, trainer.roots)
    # The oracle works at the same precision: what is compared are lengths, not roundings of the forward pass.
    oracle_B = clipped(LoopGradients(trainer.weights), trainer.weights, half, units, 1e6)[1]
    found, norm_B = clipped(gradients, trainer.weights, half, units, 1e-2)
    assert ((norm_B - oracle_B) / oracle_B).abs().max() < 0.01
    assert found.norm() <= 1.01 * len(units) * 1e-2


@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_samples_nobody_is_a_step_of_noise(way):
    noisy = {"noise_multiplier": 2.0, "clipping_norm": 0.5, "physical_batch": 2}
    trainer = trainer_of(recipe(way=way, privacy=noisy))
    site = replace(site_of(Records(3, 1), "abc"), sample_rate=1e-15)
    before = {name: weight.detach().clone() for name, weight in trainer.weights.items()}
    (length,) = released(trainer, site)
    count = sum(weight.numel() for weight in trainer.weights.values())
    assert length == pytest.approx(2.0 * 0.5 * count**0.5, rel=5 / count**0.5)
    assert trainer.steps_done == 1
    assert all((before[name] != weight).any() for name, weight in trainer.weights.items())


@pytest.mark.parametrize("way", WAYS)
def test_one_unit_s_release_is_as_long_as_the_clipping_norm_at_most_whatever_the_physical_batch(way):
    quiet = {"noise_multiplier": 1e-9, "clipping_norm": 0.5, "physical_batch": 2}
    trainer = trainer_of(recipe(way=way, privacy=quiet))
    records = Records(5, 1)
    lengths = released(trainer, site_of(records, ["one"] * 5), steps=3)
    assert lengths == pytest.approx([0.5] * 3, rel=1e-4)
    assert max(released(trainer, site_of(records, records.keys), steps=2)) <= 5 * 0.5 * (1 + 1e-5)
    assert trainer.recipe.privacy.expected_batch == EXPECTED


def test_a_total_norm_is_taken_over_all_tensors_in_double_precision():
    tensors = [torch.full((3,), 1e4), torch.tensor([[1e-4]])]
    assert float(total_norm(tensors)) == pytest.approx((3e8 + 1e-8) ** 0.5, rel=1e-15)
    assert float(total_norm([])) == 0
