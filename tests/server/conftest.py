"""The server's program as it is typed, and small runs over a grid in this process."""

from functools import partial

import pytest

from mumc_model.config import ModelConfig, Recipe, TextConfig, VisionConfig
from server.cli import main
from server.config import CodecConfig, FederationConfig, RunConfig, StrategyConfig

RECIPE = Recipe(
    model=ModelConfig(
        vision=VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2),
        text=TextConfig(width=8, text_layers=1, fusion_layers=1, heads=2, max_positions=16),
        projection=4,
    )
)
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kidney"]


@pytest.fixture
def called(typed):
    """Exit code, output and errors of `mumc-server` with these words."""
    return partial(typed, main, "mumc-server")


@pytest.fixture
def configured(tmp_path):
    """Makes runs of a model of some thousand weights; what is not a field of `RunConfig` is one of its federation."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(TOKENS) + "\n")
    own = ("initial_weights", "init", "run_id", "recipe", "merge", "screen", "codec", "secagg")

    def configure(folder="run", strategy=None, **changes) -> RunConfig:
        rest = {name: changes.pop(name) for name in own if name in changes}
        fields = {"rounds": 1, "local_steps": 5, "sites": 3, "min_sites": 2, "wait_s": 0.05, "round_timeout_s": 5.0}
        fields |= {"rejoin_s": 0.05}
        return RunConfig(
            # The sites of these tests are functions that answer with plain arrays.
            **{"recipe": RECIPE, "codec": CodecConfig(kind="float32"), **rest},
            federation=FederationConfig(**{**fields, "final": "none", **changes}),
            vocabulary=str(vocabulary),
            strategy=strategy or StrategyConfig(),
            output_dir=str(tmp_path / folder),
            seed=3,
        )

    return configure
