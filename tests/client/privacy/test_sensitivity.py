"""One unit more or less moves the clipped sum of MUMC's whole loss by the clipping norm, whatever the unit is."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.deferred import DeferredGradients
from client.privacy.errors import CouplingError
from client.privacy.objective import UnitBatch
from mumc_model.losses import hard_contrastive
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.objective import PretrainObjective
from tests.client.privacy.mechanism import (
    WAYS,
    Records,
    check_bounded,
    clipped,
    loss_of,
    recipe,
    trainer_of,
    units_of,
    way_of,
    without,
)

PIXELS = {
    "random": lambda image, row: image,
    "black": lambda image, row: torch.full_like(image, -1.0),
    "extreme": lambda image, row: 1e6 * image.sign(),
    "one pixel": lambda image, row: torch.zeros_like(image).index_fill_(-1, torch.tensor([3]), 1e4),
    "all the same": lambda image, row: image[row].expand_as(image).clone(),
    "not a number": lambda image, row: image.index_fill(0, torch.tensor([row]), torch.nan),
}
CAPTIONS = ("random", "only a start", "all padding", "all the same")


@cache
def tried(stem):
    return trainer_of(recipe(stem=stem), double=True)


def neighbour(trainer, count, seed, row, pixels, captions):
    units = units_of(trainer, count, seed)
    units = replace(units, image_BCHW=PIXELS[pixels](units.image_BCHW, row))
    mask_BL, labels_BL = units.mask_BL.clone(), units.labels_BL.clone()
    if captions == "all the same":
        same = {name: getattr(units, name)[row].expand_as(getattr(units, name)).clone() for name in vars(units)}
        return replace(units, **same)
    if captions != "random":
        mask_BL[row] = 0
        mask_BL[row, 0] = captions == "only a start"
        labels_BL[row] = -100
    return replace(units, mask_BL=mask_BL, labels_BL=labels_BL)


@pytest.mark.parametrize("way", WAYS)
@given(
    stem=st.sampled_from(["linear", "conv"]),
    count=st.integers(1, 4),
    row=st.integers(0, 3),
    seed=st.integers(0, 2**16),
    pixels=st.sampled_from(list(PIXELS)),
    captions=st.sampled_from(CAPTIONS),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    clipping_norm=st.sampled_from([1e-3, 1.0, 1e3]),
    alpha=st.sampled_from([0.0, 0.4, 1.0]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_unit_moves_the_clipped_sum_of_all_losses_by_the_clipping_norm_at_most(
    way, stem, count, row, seed, pixels, captions, scale, clipping_norm, alpha
):
    trainer, row = tried(stem), row % count
    units = neighbour(trainer, count, seed, row, pixels, captions)
    kept = {name: weight.detach().clone() for name, weight in trainer.weights.items()}
    try:
        for weight in trainer.weights.values():
            weight.data *= scale
        gradients = way_of(way, trainer.weights, trainer.roots)
        check_bounded(gradients, trainer.weights, loss_of(trainer, alpha), units, row, clipping_norm)
    finally:
        for name, weight in trainer.weights.items():
            weight.data.copy_(kept[name])


@pytest.mark.parametrize("way", WAYS)
def test_a_unit_far_above_the_clipping_norm_moves_the_sum_by_exactly_that(way):
    trainer, clipping_norm = tried("conv"), 1e-2
    units = units_of(trainer, 4)
    gradients = way_of(way, trainer.weights, trainer.roots)
    whole, norm_B = clipped(gradients, trainer.weights, loss_of(trainer), units, clipping_norm)
    fewer, _ = clipped(gradients, trainer.weights, loss_of(trainer), without(units, 2), clipping_norm)
    assert norm_B.min() > 100 * clipping_norm
    assert float((whole - fewer).norm()) == pytest.approx(clipping_norm, rel=1e-9)


def in_batch(trainer):
    """MUMC's contrast of images with the texts of the batch."""

    def loss(units):
        image_BE = trainer.objective._see(units)[1]
        text_BE = trainer.model.text_feature(trainer.objective._read(units)[0])
        return hard_contrastive(image_BE @ text_BE.T / trainer.model.temp) * len(units)

    return loss


def test_in_batch_negatives_break_the_bound_under_single_unit_clipping_and_the_bank_keeps_it():
    trainer, count, clipping_norm = trainer_of(recipe(losses=["mcl"]), double=True), 8, 1e-3
    gradients, units = DeferredGradients(trainer.weights, trainer.roots), units_of(trainer, count)
    # Units that are all alike push one another nowhere, and all in one direction once there is another one.
    alike = torch.tensor([0, *[1] * (count - 1)])
    units = UnitBatch(*(tensor[alike] for tensor in vars(units).values()))
    whole, _ = clipped(gradients, trainer.weights, in_batch(trainer), units, clipping_norm)
    fewer, _ = clipped(gradients, trainer.weights, in_batch(trainer), without(units, 0), clipping_norm)
    assert (whole - fewer).norm() > (count - 2) * clipping_norm
    for row in (0, 1):
        check_bounded(gradients, trainer.weights, loss_of(trainer), units, row, clipping_norm)


@pytest.mark.parametrize("losses", [["mcl"], ["ucl"], ["itm"], ["mlm"]], ids=lambda losses: losses[0])
def test_mumc_s_own_objective_of_a_whole_batch_is_refused(losses):
    trainer = trainer_of(recipe(losses=losses, distill=0.0), double=True)
    draws = Draws(torch.Generator(), SpecialTokens(cls_id=1, mask_id=2))
    objective = PretrainObjective(trainer.model, trainer.teacher, None, trainer.recipe.objective)
    pairs = Records(4, 1, dtype=torch.float64).pairs(torch.arange(4))
    with pytest.raises(CouplingError, match="one row a unit"):
        DeferredGradients(trainer.weights, trainer.roots).add(
            lambda batch: objective(batch, draws, 0.0).total, pairs, 1.0
        )
