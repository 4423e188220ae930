"""Impossible values are refused where they are read, with their name, the value and what can be."""

import pytest

from configs.compose import compose
from configs.loader import load
from mumc_model.errors import ConfigError
from server.config import RunConfig


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.vision.depth=-1", r"vision.depth is -1; choose 1 or more"),
        ("model.vision.heads=0", r"vision.heads is 0; choose 1 or more"),
        ("model.text.fusion_layers=-1", r"text.fusion_layers is -1; choose 0 or more"),
        ("model.queue_size=-1", r"model.queue_size is -1; choose 0 or more"),
        ("model.temperature=0", r"model.temperature is 0.*0.001 to 0.5"),
        ("objective.patch_drop=1", r"objective.patch_drop is 1"),
        ("pretrain.optimizer.lr=0", r"optimizer.lr is 0.*above 0"),
        ("pretrain.optimizer.betas=[0.9, 1.0]", r"optimizer.betas are \[0.9, 1.0\]"),
        ("pretrain.batch_size=1", r"pretrain.batch_size is 1"),
        ("pretrain.caption_tokens=2", r"pretrain.caption_tokens is 2; choose 3 or more"),
        ("finetune.batch_size=0", r"finetune.batch_size is 0; choose 1 or more"),
        ("finetune.select_every=0", r"finetune.select_every is 0; choose 1 or more"),
        ("finetune.momentum=1.5", r"finetune.momentum is 1.5"),
    ],
)
def test_an_impossible_value_is_refused_by_name(override, message):
    with pytest.raises(ConfigError, match=message):
        load(RunConfig, compose("run", [override]))
