"""A simulation of seconds: two hospitals, two rounds of two steps, a model of some thousand weights."""

import pytest
from rich.console import Console

from configs.compose import compose
from configs.loader import load
from simulations.config import SimulationConfig
from simulations.run import simulate

TINY = (
    "experiment=smoke",
    "device=cpu",
    "model.vision={image_size: 32, patch_size: 16, width: 16, depth: 1, heads: 2, mlp_ratio: 2.0}",
    "model.text={width: 16, text_layers: 1, fusion_layers: 1, heads: 2, max_positions: 24}",
    "model.projection=8",
    "source.phantom.images=6",
)


@pytest.fixture(scope="session")
def overrides():
    """What makes a simulation tiny, as one types it."""
    return TINY


@pytest.fixture(scope="session")
def tiny(overrides):
    """A maker of configurations: the tiny simulation with its output folder and further overrides."""

    def make(folder, *further):
        return load(SimulationConfig, compose("simulation", [*overrides, f"output_root={folder}", *further]))

    return make


@pytest.fixture(scope="session")
def alone(tiny, tmp_path_factory):
    """The federated arm alone, twice over: on seeds 0 and 1, one client at a time in this process."""
    config = tiny(tmp_path_factory.mktemp("alone"), "engine.workers=1", "arms=[federated]", "seeds=[0, 1]")
    return simulate(config, "pytest", Console(quiet=True))
