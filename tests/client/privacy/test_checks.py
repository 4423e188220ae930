"""A trainer refuses what would make any epsilon false, and says why."""

import dataclasses

import pytest
import torch
from torch import nn

from client.privacy.checks import check_independence, check_modules
from client.privacy.deferred import DeferredGradients
from client.privacy.errors import CouplingError
from mumc_model.errors import ConfigError
from tests.client.privacy.mechanism import WAYS, loss_of, recipe, trainer_of, units_of, way_of


class Odd(nn.Module):
    """A layer with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


class Silent(nn.Module):
    """A layer without weights that could do anything to its input."""

    def forward(self, input):
        return input - input.mean(dim=0)


class Bare(nn.Module):
    """A trained weight beside layers, in no layer itself."""

    def __init__(self):
        super().__init__()
        self.line, self.token = nn.Linear(2, 2), nn.Parameter(torch.zeros(2))


class Tied(nn.Module):
    """Two layers of one matrix."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.head.weight = self.words.weight


REFUSED = {
    "batch statistics": (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "normalises by statistics"),
    "batch statistics of images": (lambda: nn.BatchNorm2d(3, affine=False), "normalises by statistics"),
    "an unknown layer that learns": (Odd, "gradients are not known by unit"),
    "an unknown layer without weights": (lambda: nn.Sequential(Silent()), "gradients are not known by unit"),
    "a recurrent layer": (lambda: nn.LSTM(2, 2), "gradients are not known by unit"),
    "a bare weight": (Bare, "belong to no layer"),
    "a tied head": (Tied, "used by two layers; untie it"),
    "dropout of whole maps": (lambda: nn.Sequential(nn.Dropout2d()), "use nn.Dropout"),
    "dropout that keeps statistics": (lambda: nn.Sequential(nn.AlphaDropout()), "use nn.Dropout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_layer_that_is_not_known_to_keep_units_apart_is_refused_with_the_reason(case):
    build, reason = REFUSED[case]
    module = build()
    with pytest.raises(CouplingError, match=reason):
        check_modules(dict(module.named_parameters()), [module])


def test_a_bare_weight_that_does_not_learn_is_no_matter():
    module = Bare()
    check_modules(dict(module.line.named_parameters()), [module])


@pytest.mark.parametrize(
    "shape", [{}, {"stem": "conv"}, {"rank": 2, "losses": ["mcl", "itm"]}], ids=["linear", "conv", "lora"]
)
def test_mumc_s_own_models_are_taken(shape):
    trainer = trainer_of(recipe(**shape))
    check_modules(trainer.weights, trainer.roots)


def test_a_trainer_is_refused_whose_model_has_been_given_batch_statistics(monkeypatch):
    monkeypatch.setattr("mumc_model.model.nn.LayerNorm", nn.BatchNorm1d)
    with pytest.raises(CouplingError, match="normalises by statistics of the whole batch"):
        trainer_of(recipe())


def test_a_queue_is_refused_by_the_recipe_itself():
    settings = recipe()
    with pytest.raises(ConfigError, match="a queue contrasts a patient with earlier ones"):
        dataclasses.replace(settings, model=dataclasses.replace(settings.model, queue_size=8))


@pytest.mark.parametrize("layer", ["Linear", "LayerNorm"])
def test_a_layer_that_is_called_with_rows_that_are_no_units_is_refused(layer):
    trainer = trainer_of(recipe(losses=["mlm"]))
    inner = {"Linear": trainer.model.vision_proj, "LayerNorm": trainer.model.visual_encoder.norm}[layer]

    def loss(units):
        state_BSD = torch.ones(len(units), 2, 16, requires_grad=True)
        return inner(state_BSD.flatten(0, 1)).square().sum(dim=1).unflatten(0, (-1, 2)).sum(dim=1)

    with pytest.raises(CouplingError, match=rf"{layer} was called with \[10\] rows for 5 units"):
        DeferredGradients(trainer.weights, trainer.roots).add(loss, units_of(trainer, 5), 1.0)


def leaking(trainer, share):
    """A loss in which unit 0 hears from unit 1."""
    inner = loss_of(trainer, 0.0)

    def loss(units):
        loss_B = inner(units)
        if len(units) > 1:
            loss_B = loss_B + share * torch.cat([loss_B[:1] * loss_B[1:2], torch.zeros_like(loss_B[1:])])
        return loss_B

    return loss


@pytest.mark.parametrize("share", [1.0, 0.05])
@pytest.mark.parametrize("way", WAYS[:2])
def test_a_loss_in_which_one_unit_hears_from_another_is_found_on_public_pairs(way, share):
    trainer = trainer_of(recipe())
    gradients, units = way_of(way, trainer.weights, trainer.roots), units_of(trainer, 3)
    check_independence(gradients, trainer.weights, loss_of(trainer, 0.0), units, trainer.roots)
    with pytest.raises(CouplingError, match="mixes units, so no epsilon would hold"):
        check_independence(gradients, trainer.weights, leaking(trainer, share), units, trainer.roots)


def test_the_trial_leaves_no_sum_behind_and_dropout_as_it_was():
    trainer = trainer_of(recipe())
    dropping = [layer for layer in trainer.model.modules() if hasattr(layer, "dropout")]
    for layer in dropping:
        layer.dropout = 0.25
    check_independence(trainer.gradients, trainer.weights, loss_of(trainer, 0.0), units_of(trainer, 3), trainer.roots)
    assert dropping
    assert all(layer.dropout == 0.25 for layer in dropping)
    assert all(getattr(weight, "summed_grad", None) is None for weight in trainer.weights.values())
