from dataclasses import replace
from pathlib import Path

import pytest

from configs.compose import compose
from configs.loader import ConfigurationError, dump, load
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


def variants(*overrides, **settings):
    """The configuration with these variants beside all arms."""
    plain = compose(
        "simulation", ["federation.sites=3", "federation.rounds=4", "federation.local_steps=50", *overrides]
    )
    arms = ["scratch", "local", "federated", "centralised", *settings]
    return load(SimulationConfig, plain | {"variants": settings, "arms": arms})


def test_a_variant_may_be_of_any_kind_and_is_that_arm_but_for_its_own_settings():
    kinds = ("scratch", "local", "federated", "centralised")
    run = {"recipe": {"objective": {"ucl": 0.0}}}
    config = variants(**{f"no-ucl-{kind}": {"arm": kind, "run": run} for kind in kinds})
    for kind in kinds:
        own, plain = (plan(arm, config, 7, HOSPITALS, POOL, Path("/out")) for arm in (f"no-ucl-{kind}", kind))
        for ours, theirs in zip((f for s in own for f in s), (f for s in plain for f in s), strict=True):
            assert (ours.sites, ours.run.federation) == (theirs.sites, theirs.run.federation)
            assert ours.run.recipe == replace(
                theirs.run.recipe, objective=replace(theirs.run.recipe.objective, ucl=0.0)
            )
            assert ours.run.output_dir == theirs.run.output_dir.replace(kind, f"no-ucl-{kind}", 1)


def test_a_variant_that_comes_after_an_arm_starts_from_its_weights():
    config = variants(later={"after": "centralised", "run": {"federation": {"rounds": 0}}})
    ((federation,),) = plan("later", config, 7, HOSPITALS, POOL, Path("/out"))
    (_, (left,)) = plan("centralised", config, 7, HOSPITALS, POOL, Path("/out"))
    assert federation.run.initial_weights == f"{left.run.output_dir}/weights.safetensors"
    assert (federation.run.federation.rounds, federation.run.federation.final) == (0, "finetune")


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"after": "public"}, "add public to arms"),
        ({"after": "local"}, "cannot start from local"),
        ({"after": "later"}, "cannot start from later"),
        ({"against": ["nobody"]}, "no arm is called 'nobody'"),
        ({"answer": "match"}, "give it one of the two"),
        ({"answer": "match", "arm": "scratch", "after": "federated"}, "give it one of the two"),
    ],
)
def test_a_variant_that_cannot_be_run_is_refused_before_anything_starts(variant, message):
    with pytest.raises(ConfigurationError, match=message):
        variants(later=variant)


@pytest.mark.parametrize("arm", ["federated", "centralised"])
def test_newcomers_only_fine_tune_what_the_others_have_pre_trained(arm):
    config = variants("newcomers=1")
    (pretrain,), (finetune,) = plan(arm, config, 7, HOSPITALS, POOL, Path("/out"))
    assert pretrain.sites == {"federated": tuple(HOSPITALS[:2]), "centralised": (POOL,)}[arm]
    assert steps(pretrain) == 2 * 4 * 50
    assert pretrain.run.federation.final == "none"
    assert (finetune.sites, finetune.run.federation.rounds) == ((HOSPITALS[2],), 0)
    assert finetune.run.initial_weights == f"{pretrain.run.output_dir}/weights.safetensors"


@pytest.mark.parametrize("arm", ["scratch", "local"])
def test_newcomers_are_asked_alone_where_nobody_pre_trains_together(arm):
    ((federation,),) = plan(arm, variants("newcomers=1"), 7, HOSPITALS, POOL, Path("/out"))
    assert federation.sites == (HOSPITALS[2],)


@pytest.mark.parametrize("count", [-1, 3])
def test_newcomers_leave_somebody_who_pre_trains(count):
    with pytest.raises(ConfigurationError, match="leave at least one that pre-trains"):
        variants(f"newcomers={count}")


def experiment(name, *overrides):
    return load(SimulationConfig, compose("simulation", [f"experiment={name}", *overrides]))


OFF = {
    "masking": {"patch_drop", "mim"},
    "mim": {"mim"},
    "mlm": {"mlm"},
    "ucl": {"ucl"},
    "mcl": {"mcl"},
    "itm": {"itm"},
}


@pytest.mark.parametrize("setting", ["federated", "centralised"])
@pytest.mark.parametrize("objective", ["tiny", "mumc_mim"])
def test_the_ablation_switches_off_one_part_at_a_time_and_nothing_else(setting, objective):
    config = experiment("ablation", f"objective={objective}")
    full = plan(setting, config, 31, HOSPITALS[:2], POOL, Path("/out"))[0][0].run
    terms = dump(full.recipe.objective)
    assert all(terms[name] > 0 for names in OFF.values() for name in names)
    for part, names in OFF.items():
        arm = f"{setting}-no-{part}"
        run = plan(arm, config, 31, HOSPITALS[:2], POOL, Path("/out"))[0][0].run
        assert dump(run.recipe.objective) == terms | dict.fromkeys(names, 0.0)
        same = replace(run, recipe=full.recipe, run_id=full.run_id, output_dir=full.output_dir)
        assert same == full
        assert config.factors[arm] == {"setting": setting, "without": part}
        assert (arm, setting) in config.pairs
    assert (f"{setting}-no-masking", f"{setting}-no-mim") in config.pairs
    assert len(config.pairs) == 14


def test_every_arm_of_the_shift_learns_from_as_many_examples_and_in_the_way_that_its_factors_say():
    config, sites = experiment("shift"), [Path(f"/sites/{i}") for i in range(4)]
    assert config.source.phantom.apart == "mr"
    seen = set()
    for arm, factors in config.factors.items():
        stages = plan(arm, config, 31, sites, POOL, Path("/out"))
        seen.add((factors["setting"], factors["examples"], factors["tuning"]))
        if factors["tuning"] == "matching":
            assert stages == []
            continue
        ((federation,),) = stages
        finetune = federation.run.recipe.finetune
        assert (finetune.examples, finetune.adapters.rank > 0) == (factors["examples"], factors["tuning"] == "adapters")
        assert (finetune.freeze, finetune.select_every) == ("none", finetune.steps)
        assert (federation.sites, federation.run.federation.rounds) == ((sites[3],), 0)
        assert bool(federation.run.initial_weights) == (factors["setting"] == "federated")
    tuned = {(s, n, t) for s in ("scratch", "federated") for n in (8, 32, 128) for t in ("full", "adapters")}
    assert seen == tuned | {("scratch", 0, "matching"), ("federated", 0, "matching")}
    assert all(config.factors[a]["examples"] == config.factors[b]["examples"] for a, b in config.pairs)
