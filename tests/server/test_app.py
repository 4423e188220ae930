import json

import pytest
from flwr.app import Context, RecordDict

from configs.loader import ConfigurationError, dump
from mumc_model.config import ModelConfig, Recipe, TextConfig, VisionConfig
from server.app import app, run_config
from server.config import CodecConfig, FederationConfig, RunConfig
from tests.server.fake_grid import FakeGrid, site


def configured(tmp_path) -> RunConfig:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    return RunConfig(
        recipe=Recipe(
            model=ModelConfig(
                vision=VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2),
                text=TextConfig(width=8, text_layers=1, fusion_layers=1, heads=2, max_positions=16),
                projection=4,
            )
        ),
        federation=FederationConfig(rounds=1, local_steps=1, sites=2, min_sites=2),
        vocabulary=str(tmp_path / "vocab.txt"),
        codec=CodecConfig(kind="float32"),
        output_dir=str(tmp_path / "run"),
        run_id="r",
    )


def context(**values) -> Context:
    return Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=values)


def test_the_app_plays_the_run_that_run_json_describes(tmp_path):
    grid = FakeGrid({11: site("north", 1.0), 12: site("south", 2.0)})
    app(grid, context(**{"run-json": json.dumps(dump(configured(tmp_path))), "hydra-overrides": ""}))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["vqa"]["sites"].keys() == {"north", "south"}


def test_run_json_gives_back_the_run_it_was_made_from(tmp_path):
    config = configured(tmp_path)
    assert run_config({"run-json": json.dumps(dump(config))}) == config


def test_overrides_are_composed_and_may_be_quoted():
    config = run_config(
        {"hydra-overrides": "federation.rounds=3 strategy=fedadam 'output_dir=out put'", "run-json": ""}
    )
    assert (config.federation.rounds, config.strategy.optimizer, config.output_dir) == (3, "adam", "out put")


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "fedyogi"])
def test_every_shipped_strategy_loads(name):
    assert run_config({"hydra-overrides": f"strategy={name}"}).strategy.lr > 0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"run-json": "{"}, "run-json is not JSON"),
        ({"run-json": "[]"}, "must be a mapping"),
        ({"run-json": '{"recepi": {}}'}, r"unknown key 'recepi'; did you mean 'recipe'\?"),
        ({"hydra-overrides": "federation.round=3"}, r"did you mean 'federation\.rounds'"),
    ],
)
def test_a_run_that_cannot_be_read_is_refused(values, text):
    with pytest.raises(ConfigurationError, match=text):
        run_config(values)
