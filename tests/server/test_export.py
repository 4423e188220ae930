import json

import pytest
import torch

from mumc_model.errors import CheckpointError
from mumc_model.model import MumcModel
from mumc_model.pretrained import load_tokenizer
from server import federation
from server.checkpoint import load_arrays
from server.errors import OutputError
from server.export import export, export_last
from tests.server.conftest import TOKENS
from tests.server.fake_grid import FakeGrid
from tests.server.test_federation import EAST, NORTH, SOUTH


@pytest.fixture
def finished(configured, tmp_path):
    """The folder of a run of one round over three sites."""
    federation.run(FakeGrid({1: NORTH, 2: SOUTH, 3: EAST}), configured())
    return tmp_path / "run"


def test_an_export_holds_the_merged_weights_and_nothing_that_sites_keep(finished, tmp_path):
    export(finished, tmp_path / "model")
    merged = load_arrays(finished / "weights.safetensors")
    model = MumcModel.from_pretrained(tmp_path / "model")
    weights = model.weights()
    assert all(torch.equal(weights[name], torch.tensor(array)) for name, array in merged.items() if name in weights)
    stored = load_arrays(tmp_path / "model" / "model.safetensors")
    assert not any(name.startswith("text_encoder.cls.") for name in stored)
    assert list(load_tokenizer(tmp_path / "model").vocab) == TOKENS


def test_an_export_names_no_site_and_tells_how_the_run_went(finished, tmp_path):
    export(finished, tmp_path / "model")
    texts = [path.read_text() for path in (tmp_path / "model").iterdir() if path.suffix in (".json", ".md")]
    assert not any(site in text for text in texts for site in ("north", "south", "east"))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["facts"]["rounds"] == 1


def test_the_first_weights_are_exported_where_no_round_was_asked_for(configured, tmp_path):
    federation.run(FakeGrid({1: NORTH, 2: SOUTH, 3: EAST}), configured(rounds=0, final="finetune"))
    export(tmp_path / "run", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["facts"]["rounds"] == 0


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path, finished):
    with pytest.raises(OutputError, match="holds no result"):
        export(tmp_path, tmp_path / "model")
    (finished / "result.json").write_text("{}")
    with pytest.raises(OutputError, match="cannot be read"):
        export(finished, tmp_path / "model")


def test_weights_that_were_damaged_are_refused(finished, tmp_path):
    (finished / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        export(finished, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_weights_of_an_earlier_round_are_exported_where_the_run_has_kept_them(configured, tmp_path):
    federation.run(FakeGrid({1: NORTH, 2: SOUTH, 3: EAST}), configured(rounds=3, keep_weights=2))
    run = tmp_path / "run"
    folders = export_last(run, tmp_path / "models", 2)
    assert [folder.name for folder in folders] == ["round-3", "round-2"]
    kept = [load_arrays(run / name) for name in ("weights.safetensors", "weights-0002.safetensors")]
    for folder, arrays, rounds in zip(folders, kept, (3, 2), strict=True):
        weights = MumcModel.from_pretrained(folder).weights()
        assert all(torch.equal(weights[name], torch.tensor(array)) for name, array in arrays.items() if name in weights)
        assert json.loads((folder / "config.json").read_text())["facts"]["rounds"] == rounds
    assert any((kept[0][name] != kept[1][name]).any() for name in kept[0])
    with pytest.raises(OutputError, match=r"no weights of round 1, but those of 2, 3; choose one of these"):
        export(run, tmp_path / "model", 1)
    with pytest.raises(OutputError, match=r"the weights of 2 rounds \(2, 3\), not of 3; ask for fewer"):
        export_last(run, tmp_path / "more", 3)
    assert not (tmp_path / "more").exists()
