"""The model as a whole: its start, its features and its size."""

from dataclasses import replace

import pytest
import torch

from mumc_model.config import ModelConfig, TextConfig, VisionConfig
from mumc_model.errors import CheckpointError, ConfigError
from mumc_model.model import MumcModel, at_least_single, build_model
from mumc_model.sharing import is_shared, load_shared, shared_weights

WORDS = "text_encoder.bert.embeddings.word_embeddings.weight"


def test_a_seed_fixes_every_weight_and_leaves_the_process_random_state_alone(small_config):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again, other = (build_model(small_config, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["vision_proj.weight"], other["vision_proj.weight"])


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_weights_start_as_bert_and_vit_do(stem, small_config):
    model = build_model(replace(small_config, vision=replace(small_config.vision, stem=stem)), 0)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif "norm" in name.lower() or ".bn." in name or name == "itm_head.1.weight":
            assert (weight == 1).all(), name
        elif "backbone" not in name and name not in ("temp", "visual_encoder.pos_embed"):
            assert weight.detach().std() == pytest.approx(0.02 * (768 / model.config.text.width) ** 0.5, rel=0.6), name


def test_a_conv_stem_starts_at_hes_scale(small_config):
    model = build_model(replace(small_config, vision=replace(small_config.vision, stem="conv")), 0)
    weight = model.get_parameter("visual_encoder.patch_embed.backbone.2.conv.weight").detach()
    assert weight.std() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.2)


@pytest.mark.parametrize("vision", [{}, {"stem": "conv"}, {"pos_embed": "learned"}], ids=str)
def test_a_model_that_is_given_its_shared_weights_is_bit_for_bit_the_one_that_starts_and_then_loads_them(
    vision, small_config
):
    config = replace(small_config, vision=replace(small_config.vision, **vision))
    weights = shared_weights(build_model(config, 1))
    loaded, given = build_model(config, 7), build_model(config, 7, weights)
    load_shared(loaded, weights)
    expected, found = dict(loaded.named_parameters()), dict(given.named_parameters())
    assert list(found) == list(expected)
    assert [w.requires_grad for w in found.values()] == [w.requires_grad for w in expected.values()]
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert given.state_dict().keys() == loaded.state_dict().keys()
    assert given.text_encoder.cls.predictions.decoder.weight is found[WORDS], "tied weights stay tied"


def test_given_weights_are_not_copied_and_only_the_head_is_drawn(small_config, monkeypatch):
    weights = shared_weights(build_model(small_config, 1))
    drawn = []
    draw = torch.nn.init.trunc_normal_

    def counted(weight, **keywords):
        drawn.append(weight)
        return draw(weight, **keywords)

    monkeypatch.setattr(torch.nn.init, "trunc_normal_", counted)
    model = build_model(small_config, 7, weights)
    assert [id(weight) for weight in drawn] == [id(model.text_encoder.cls.predictions.transform.dense.weight)]
    assert model.get_parameter(WORDS).data_ptr() == weights[WORDS].data_ptr()


def test_a_model_that_is_given_all_its_weights_draws_no_number(small_config, monkeypatch):
    weights = build_model(small_config, 1).weights()
    monkeypatch.setattr("mumc_model.model._Start.draw", None)
    found = build_model(small_config, 7, weights).weights()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_given_weights_that_do_not_fit_are_refused(small_config):
    weights = shared_weights(build_model(small_config, 1))
    del weights["temp"]
    weights[WORDS] = weights[WORDS][:, :8]
    with pytest.raises(CheckpointError, match=r"1 missing: temp; 1 of another shape: text_encoder\.bert\.embeddings"):
        build_model(small_config, 7, weights)


def test_features_have_unit_length_and_one_space(small_config, captioned):
    model, batch = build_model(small_config, 0), captioned()
    _, image_BE = model.image_features(batch.image_BCHW)
    _, text_BE = model.text_features(batch.ids_BL, batch.mask_BL)
    assert image_BE.shape == text_BE.shape == (4, 8)
    torch.testing.assert_close(torch.cat([image_BE, text_BE]).norm(dim=1), torch.ones(8))


def test_the_temperature_is_brought_back_into_its_range(small_config):
    model = build_model(small_config, 0)
    for given, kept in ((3.0, 0.5), (-1.0, 0.001), (0.07, 0.07)):
        model.temp.data.fill_(given)
        model.clamp_temperature()
        assert model.temp.item() == pytest.approx(kept)


def test_encoders_of_different_widths_are_refused(small_config):
    with pytest.raises(ConfigError, match=r"vision\.width 32 differs from text\.width 16"):
        build_model(replace(small_config, vision=replace(small_config.vision, width=32)), 0)


def test_the_paper_sized_model_shares_about_211_million_weights():
    config = ModelConfig(
        vision=VisionConfig(image_size=256, patch_size=16, width=768, depth=12, heads=12),
        text=TextConfig(width=768, text_layers=6, fusion_layers=6, heads=12, vocab_size=30522),
    )
    with torch.device("meta"):
        model = MumcModel(config)
    assert sum(w.numel() for name, w in model.named_parameters() if is_shared(name)) == pytest.approx(211e6, rel=0.005)


def test_half_precision_is_lifted_to_single_and_double_stays_double():
    kinds = [torch.bfloat16, torch.float32, torch.float64]
    lifted = [at_least_single(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert lifted == [torch.float32, torch.float32, torch.float64]
