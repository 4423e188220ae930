"""What leaves a site and what does not."""

import pytest
import torch

from mumc_model.config import ObjectiveConfig, Recipe
from mumc_model.errors import CheckpointError
from mumc_model.model import build_model
from mumc_model.sharing import is_shared, load_private, load_shared, private_weights, shared_weights
from mumc_model.train import Pretrainer

BIAS = "text_encoder.cls.predictions.bias"


def test_every_weight_is_either_shared_or_private(small_config):
    model = build_model(small_config, 0)
    shared, private = shared_weights(model), private_weights(model)
    assert not set(shared) & set(private)
    assert set(shared) | set(private) == {name for name, _ in model.named_parameters()}


def test_heads_and_their_tied_alias_never_travel(small_config):
    model = build_model(small_config, 0)
    assert set(private_weights(model)) == {
        "text_encoder.cls.predictions.bias",
        "text_encoder.cls.predictions.transform.LayerNorm.bias",
        "text_encoder.cls.predictions.transform.LayerNorm.weight",
        "text_encoder.cls.predictions.transform.dense.bias",
        "text_encoder.cls.predictions.transform.dense.weight",
    }
    for name in ("text_encoder.cls.predictions.decoder.weight", "visual_encoder_m.cls_token", "text_decoder.x"):
        assert not is_shared(name)


def test_the_order_is_canonical(small_config):
    names = list(shared_weights(build_model(small_config, 0)))
    assert names == sorted(names)
    assert {"temp", "itm_head.3.weight", "visual_encoder.pos_embed", "text_proj.bias"} <= set(names)


def test_loading_what_was_shared_makes_two_models_one_but_for_the_heads(small_config):
    source, target = build_model(small_config, 0), build_model(small_config, 1)
    head = target.text_encoder.cls.predictions.transform.dense.weight.clone()
    load_shared(target, shared_weights(source))
    ours, theirs = target.state_dict(), source.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if is_shared(name))
    assert torch.equal(target.text_encoder.cls.predictions.transform.dense.weight, head)
    tied = target.text_encoder.cls.predictions.decoder.weight
    assert torch.equal(tied, source.text_encoder.bert.embeddings.word_embeddings.weight)


def test_training_on_does_not_change_what_was_shared_before(small_config):
    model = build_model(small_config, 0)
    before = shared_weights(model)
    kept = before["temp"].clone()
    model.temp.data.fill_(0.3)
    assert torch.equal(before["temp"], kept)


def test_weights_that_do_not_fit_are_refused_whole(small_config):
    model, weights = build_model(small_config, 0), shared_weights(build_model(small_config, 1))
    before = shared_weights(model)
    del weights["temp"]
    weights["text_encoder.cls.predictions.bias"] = torch.zeros(40)
    weights["vision_proj.bias"] = torch.zeros(1)
    with pytest.raises(
        CheckpointError, match=r"1 missing: temp; 1 unexpected: .*cls.*; 1 of another shape: vision_proj"
    ):
        load_shared(model, weights)
    after = shared_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_site_takes_its_heads_back_and_leaves_what_else_a_trainer_kept(small_config):
    source, target = build_model(small_config, 0), build_model(small_config, 1)
    shared = shared_weights(target)
    heads = {name: weight + 1 for name, weight in private_weights(source).items()}
    beside = {"moment1.text_encoder.cls.predictions.bias": torch.ones(40), "mim_decoder.embed.bias": torch.ones(3)}
    load_private(target, heads | beside | shared_weights(source))
    ours = private_weights(target)
    assert all(torch.equal(ours[name], heads[name]) for name in ours)
    after = shared_weights(target)
    assert all(torch.equal(shared[name], after[name]) for name in shared)


def test_what_a_trainer_keeps_between_rounds_holds_every_head(small_config):
    model = build_model(small_config, 0)
    recipe = Recipe(model=small_config, objective=ObjectiveConfig(mim=1.0))
    kept = Pretrainer(model, recipe, torch.device("cpu")).state_dict()
    assert any(name.startswith("mim_decoder.") for name in kept)
    other = build_model(small_config, 1)
    load_private(other, kept)
    theirs, ours = private_weights(model), private_weights(other)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


@pytest.mark.parametrize("spoil", [lambda heads: heads.popitem(), lambda heads: heads.update({BIAS: torch.zeros(1)})])
def test_heads_that_do_not_fit_are_refused_whole(small_config, spoil):
    source, target = build_model(small_config, 0), build_model(small_config, 1)
    before, heads = private_weights(target), private_weights(source)
    spoil(heads)
    with pytest.raises(CheckpointError, match=r"1 (missing|of another shape): text_encoder\.cls"):
        load_private(target, heads)
    after = private_weights(target)
    assert all(torch.equal(before[name], after[name]) for name in before)
