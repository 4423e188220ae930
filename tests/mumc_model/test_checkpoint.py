"""Weights on disk: whole or not at all, and public weights by their own names."""

import os

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from mumc_model.checkpoint import WEIGHTS_FILE, load_text, load_vision, load_weights, save_weights
from mumc_model.config import TextConfig, VisionConfig
from mumc_model.errors import CheckpointError
from mumc_model.text import TextEncoder
from mumc_model.vision import VisionEncoder

VISION = VisionConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2)
TEXT = TextConfig(width=16, text_layers=1, fusion_layers=1, heads=2, vocab_size=40, max_positions=16)


def test_weights_come_back_as_they_were(tmp_path):
    weights = {"b": torch.randn(2, 3), "a": torch.tensor(0.07), "n": torch.arange(3), "t": torch.randn(4, 2).T}
    save_weights(tmp_path / "deeper" / "w.safetensors", weights)
    loaded = load_weights(tmp_path / "deeper" / "w.safetensors")
    assert set(loaded) == set(weights)
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_a_crash_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(1)})

    def crash(*_):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        save_weights(path, {"a": torch.ones(1)})
    assert load_weights(path)["a"] == 0
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_missing_and_damaged_files_are_told_apart_without_their_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights file gone\.safetensors") as missing:
        load_weights(tmp_path / "gone.safetensors")
    assert str(tmp_path) not in str(missing.value)
    (tmp_path / "half.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(CheckpointError, match="damaged or not safetensors"):
        load_weights(tmp_path / "half.safetensors")


def test_the_image_encoder_starts_from_a_timm_vit_of_another_resolution(tmp_path):
    source = VisionTransformer(48, 8, num_classes=7, embed_dim=16, depth=2, num_heads=2)
    save_file(source.state_dict(), tmp_path / WEIGHTS_FILE)
    encoder = VisionEncoder(VISION)
    load_vision(encoder, str(tmp_path))
    assert torch.equal(encoder.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert encoder.pos_embed.shape == (1, 17, 16)
    assert torch.equal(encoder.pos_embed[:, 0], source.pos_embed[:, 0])


def test_image_weights_of_another_architecture_are_listed(tmp_path):
    source = VisionTransformer(32, 8, num_classes=0, embed_dim=16, depth=3, num_heads=2)
    save_file(source.state_dict(), tmp_path / "deep.safetensors")
    with pytest.raises(CheckpointError, match=r"deep\.safetensors do not fit the model: 12 unexpected: blocks\.2\."):
        load_vision(VisionEncoder(VISION), str(tmp_path / "deep.safetensors"))


def bert_of_three_layers():
    """A public BERT as it is found: old names, a pooler, more layers, no cross-attention, no head of ours."""
    source = TextEncoder(TextConfig(width=16, text_layers=3, fusion_layers=0, heads=2, vocab_size=40, max_positions=16))
    state = {name: torch.randn_like(weight) for name, weight in source.bert.state_dict().items()}
    renamed = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta") for n in state
    }
    assert len(renamed) == len(state)
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): state[n]
        for n in state
    }
    return state, old | {"pooler.dense.weight": torch.zeros(16, 16), "embeddings.position_ids": torch.arange(16)}


def test_the_text_encoder_starts_from_the_first_layers_of_a_bert(tmp_path):
    state, published = bert_of_three_layers()
    save_file(published, tmp_path / "bert.safetensors")
    encoder = TextEncoder(TEXT)
    crossing = encoder.fusion[0].crossattention.self.key.weight.clone()
    load_text(encoder, str(tmp_path / "bert.safetensors"))
    loaded = encoder.bert.state_dict()
    taken = [name for name in loaded if "crossattention" not in name]
    assert all(torch.equal(loaded[name], state[name]) for name in taken)
    assert torch.equal(encoder.fusion[0].crossattention.self.key.weight, crossing)


def test_a_bert_of_another_vocabulary_is_refused(tmp_path):
    _, published = bert_of_three_layers()
    published["embeddings.word_embeddings.weight"] = torch.zeros(99, 16)
    save_file(published, tmp_path / "bert.safetensors")
    with pytest.raises(CheckpointError, match=r"word_embeddings\.weight \[99, 16\] instead of \[40, 16\]"):
        load_text(TextEncoder(TEXT), str(tmp_path / "bert.safetensors"))


@pytest.mark.parametrize("load", [load_vision, load_text])
def test_without_a_network_the_error_says_what_to_put_where(load, monkeypatch):
    def offline(*_):
        raise OSError("no route to host")

    monkeypatch.setattr("mumc_model.checkpoint.hf_hub_download", offline)
    encoder = VisionEncoder(VISION) if load is load_vision else TextEncoder(TEXT)
    with pytest.raises(CheckpointError, match=r"put its model\.safetensors into a folder"):
        load(encoder, "some/model")


def test_public_names_lead_to_their_repositories(monkeypatch, tmp_path):
    asked = []

    def fetch(repository, name):
        asked.append((repository, name))
        raise OSError

    monkeypatch.setattr("mumc_model.checkpoint.hf_hub_download", fetch)
    for load, encoder, source in (
        (load_vision, VisionEncoder(VISION), "deit_tiny_patch16_224.fb_in1k"),
        (load_text, TextEncoder(TEXT), "google-bert/bert-base-uncased"),
    ):
        with pytest.raises(CheckpointError):
            load(encoder, source)
    assert asked == [
        ("timm/deit_tiny_patch16_224.fb_in1k", "model.safetensors"),
        ("google-bert/bert-base-uncased", "model.safetensors"),
    ]
