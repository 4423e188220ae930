import itertools

import pytest

from configs.compose import FOLDER, compose, options, sweep
from configs.loader import ConfigurationError, dump, load
from server.config import RunConfig
from simulations.config import SimulationConfig

GROUPS = ["model", "objective", "pretrain", "finetune", "privacy", "strategy", "partition", "engine", "experiment"]
CHOICES = [f"{group}={name}" for group in GROUPS for name in options(group)]


def test_every_folder_of_yaml_is_tested_here():
    assert {path.name for path in FOLDER.iterdir() if path.is_dir() and not path.name.startswith("__")} == {
        *GROUPS,
        "source",
    }


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_makes_a_valid_simulation_that_spells_out_every_setting_of_its_run(choice):
    node = compose("simulation", [choice, "data_root=/data"])
    config = load(SimulationConfig, node)
    assert dump(config.run) == node["run"]
    assert load(SimulationConfig, dump(config)) == config


def test_the_server_s_run_is_the_simulation_s_run():
    assert load(RunConfig, compose("run", ["model=mid"])) == load(
        RunConfig, compose("simulation", ["experiment=plain", "model=mid"])["run"]
    )


def test_an_override_on_the_command_line_beats_the_experiment():
    assert compose("simulation", ["experiment=smoke", "federation.rounds=5"])["run"]["federation"]["rounds"] == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=base", r"unknown key 'modle'; did you mean 'model'\?"),
        ("model=bsae", r"no model is called 'bsae'; did you mean 'base'\?"),
        ("federation.round=3", r"unknown key 'federation.round'; did you mean 'federation.rounds'\?"),
        ("pretrain.batch_size", "missing EQUAL"),
    ],
)
def test_a_wrong_override_gets_a_did_you_mean(override, message):
    with pytest.raises(ConfigurationError, match=message):
        compose("simulation", [override])


def test_a_sweep_is_every_combination():
    jobs = sweep(["seed=1,2", "model=tiny,mid", "name=x"])
    assert jobs == [[f"seed={s}", f"model={m}", "name=x"] for s, m in itertools.product([1, 2], ["tiny", "mid"])]


def test_a_key_of_a_group_that_was_chosen_is_known_when_another_override_is_wrong():
    with pytest.raises(ConfigurationError, match=r"did you mean 'source\.questions'"):
        compose("simulation", ["source=public", "source.captions=roco", "source.qestions=slake"])


def test_a_run_takes_of_an_experiment_what_a_run_has():
    run = compose("run", ["experiment=smoke", "federation.rounds=5"])
    assert run["federation"] == compose("run", ["federation.rounds=5"])["federation"] | {
        "local_steps": 2,
        "sites": 2,
        "min_sites": 1,
    }
    assert run["recipe"]["pretrain"]["batch_size"] == 4
    assert run.keys() == compose("run").keys()


@pytest.mark.parametrize("override", ["engine=ray", "seeds=[1,2]", "source.phantom.images=7"])
def test_a_run_has_no_simulated_hospitals(override):
    key = override.partition("=")[0]
    with pytest.raises(ConfigurationError, match=f"{key} is about simulated hospitals"):
        compose("run", ["experiment=smoke", override])
    with pytest.raises(ConfigurationError):
        compose("run", [override])
