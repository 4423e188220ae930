from dataclasses import replace
from pathlib import Path

import pytest

from configs.compose import compose
from configs.loader import load
from mumc_model.config import InitConfig
from simulations.arms import plan
from simulations.config import SimulationConfig

HOSPITALS = [Path(f"/sites/hospital-{i}") for i in (1, 2, 3)]
POOL = Path("/pool")


@pytest.fixture(scope="module")
def config():
    return load(
        SimulationConfig,
        compose("simulation", ["federation.sites=3", "federation.rounds=4", "federation.local_steps=50"]),
    )


def steps(federation):
    return len(federation.sites) * federation.run.federation.rounds * federation.run.federation.local_steps


@pytest.mark.parametrize("arm", ["local", "federated", "centralised"])
def test_every_pre_trained_arm_takes_the_same_number_of_steps(config, arm):
    stages = plan(arm, config, 7, HOSPITALS, POOL, Path("/out"))
    assert sum(steps(federation) for stage in stages for federation in stage) == 3 * 4 * 50


@pytest.mark.parametrize("arm", ["scratch", "local", "federated", "centralised"])
def test_every_arm_fine_tunes_every_hospital_exactly_once(config, arm):
    stages = plan(arm, config, 7, HOSPITALS, POOL, Path("/out"))
    fine_tuned = [path for stage in stages for f in stage if f.run.federation.final == "finetune" for path in f.sites]
    assert sorted(fine_tuned) == HOSPITALS


@pytest.mark.parametrize("arm", ["scratch", "local", "federated", "centralised"])
def test_every_federation_has_the_seed_and_a_folder_of_its_own(config, arm):
    federations = [f for stage in plan(arm, config, 7, HOSPITALS, POOL, Path("/out")) for f in stage]
    assert {f.run.seed for f in federations} == {7}
    assert len({f.run.output_dir for f in federations}) == len(federations)


def test_only_what_crosses_a_network_is_rounded_on_its_way(config):
    kinds = {
        arm: {f.run.codec.kind for stage in plan(arm, config, 7, HOSPITALS, POOL, Path("/out")) for f in stage}
        for arm in ("scratch", "local", "federated", "centralised")
    }
    whole = {"float32"}
    assert kinds == {"scratch": whole, "local": whole, "federated": {"auto"}, "centralised": whole}


def test_centralised_fine_tunes_from_the_weights_that_the_pool_left(config):
    (pretrain,), (finetune,) = plan("centralised", config, 7, HOSPITALS, POOL, Path("/out"))
    assert pretrain.sites == (POOL,)
    assert finetune.run.initial_weights == f"{pretrain.run.output_dir}/weights.safetensors"


def test_centralised_fine_tunes_what_the_pool_left_wherever_that_began(config):
    public = replace(config, run=replace(config.run, init=InitConfig(vision="/public")))
    (pretrain,), (finetune,) = plan("centralised", public, 7, HOSPITALS, POOL, Path("/out"))
    assert (pretrain.run.init.vision, finetune.run.init.vision) == ("/public", "")


def test_scratch_trains_its_random_encoders_in_fine_tuning(config):
    ((scratch,),) = plan("scratch", config, 7, HOSPITALS, POOL, Path("/out"))
    assert scratch.run.federation.rounds == 0
    assert scratch.run.recipe.finetune.freeze == "none"
