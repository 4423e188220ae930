"""The authors' checkpoints as they lie on a disk, made here from the recordings; these lie outside the repository."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mumc_model.config import FinetuneConfig, ModelConfig, TextConfig, VisionConfig
from mumc_model.errors import CheckpointError
from mumc_model.model import MumcModel, build_model
from mumc_model.reference import import_reference
from mumc_model.vqa import VqaModel

GOLDENS = Path(os.environ.get("MUMC_GOLDENS", Path(__file__).parents[3] / "shared" / "goldens"))
pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason="set MUMC_GOLDENS to the folder of the recordings")


@pytest.fixture
def pth(tmp_path):
    def write(recording):
        state = load_file(GOLDENS / recording)
        torch.save({"model": state, "epoch": 29, "config": {"image_res": 64}}, tmp_path / "checkpoint.pth")
        return tmp_path / "checkpoint.pth", state

    return write


def test_golden_a_pre_training_checkpoint_becomes_a_model_with_its_very_weights(pth):
    path, state = pth("pretrain_state0.safetensors")
    model = import_reference(path, heads=4)
    assert isinstance(model, MumcModel)
    assert all(torch.equal(weight, state[name]) for name, weight in model.named_parameters())
    text, vision = model.config.text, model.config.vision
    assert (text.text_layers, text.fusion_layers, vision.image_size, vision.patch_size) == (3, 3, 64, 16)


def test_golden_a_fine_tuned_checkpoint_becomes_an_answering_model(pth):
    path, state = pth("vqa_state0.safetensors")
    model = import_reference(path, heads=4)
    assert isinstance(model, VqaModel)
    weights = model.weights()
    assert torch.equal(weights["text_decoder.cls.predictions.bias"], state["text_decoder.cls.predictions.bias"])
    layer = "encoder.layer.5.crossattention.self.query.weight"
    assert torch.equal(weights[f"text_encoder.bert.{layer}"], state[f"text_encoder.{layer}"])


def test_golden_every_weight_that_fine_tuning_starts_from_is_the_one_that_the_reference_names():
    mapping = json.loads((GOLDENS / "finetune_key_map.json").read_text())["mapping"]
    config = ModelConfig(
        vision=VisionConfig(image_size=32, patch_size=16, width=16, depth=12, heads=2),
        text=TextConfig(width=16, text_layers=6, fusion_layers=6, heads=2, vocab_size=20, max_positions=8),
        projection=8,
    )
    model = build_model(config, 0)
    with torch.no_grad():
        for index, weight in enumerate(model.parameters()):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)))
    start = model.state_dict()
    vqa = VqaModel.of_encoders(model, FinetuneConfig()).state_dict()
    checked = 0
    for theirs, source in mapping.items():
        if "_m." in theirs or theirs.endswith("position_ids"):
            continue
        name = theirs if theirs in vqa else theirs.replace("text_encoder.", "text_encoder.bert.", 1)
        assert torch.equal(vqa[name], start[source]), theirs
        checked += 1
    assert checked == len(vqa)


def test_golden_weights_that_lack_a_layer_are_listed_and_refused(tmp_path):
    state = load_file(GOLDENS / "pretrain_state0.safetensors")
    del state["itm_head.0.weight"]
    torch.save({"model": state}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: itm_head\.0\.weight"):
        import_reference(tmp_path / "part.pth", heads=4)
