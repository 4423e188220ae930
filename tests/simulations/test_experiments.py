"""Ablation and shift run whole, in seconds: the parts fit; nothing is learned."""

import json

import pytest
from rich.console import Console

from configs.compose import compose
from configs.loader import load
from mumc_model.checkpoint import load_weights
from mumc_model.data.records import read_site
from simulations.config import SimulationConfig
from simulations.report import write_report
from simulations.run import simulate

SECONDS = (
    "screen.free_riders=false",  # two small steps cannot be told from noise
    "federation.rounds=1",
    "federation.local_steps=2",
    "pretrain.batch_size=4",
    "finetune.steps=2",
    "source.phantom.images=6",
    "source.phantom.train_questions=12",
    "source.phantom.val_questions=4",
    "source.phantom.test_questions=4",
    "engine.workers=1",
    "seeds=[0]",
)
CAPTIONED = 6


def run(name, overrides, folder):
    tiny = [part for part in overrides if not part.startswith(("experiment=", "source."))]
    config = load(
        SimulationConfig, compose("simulation", [f"experiment={name}", *tiny, *SECONDS, f"output_root={folder}"])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.measures.HELD_OUT_IMAGES", 8)
        study, out = simulate(config, f"mumc-sim run experiment={name}", Console(quiet=True))
    return config, write_report(study, out), out / "seed-0"


@pytest.fixture(scope="module")
def ablation(overrides, tmp_path_factory):
    return run("ablation", overrides, tmp_path_factory.mktemp("ablation"))


@pytest.fixture(scope="module")
def shift(overrides, tmp_path_factory):
    return run("shift", overrides, tmp_path_factory.mktemp("shift"))


def test_the_ablation_reports_every_part_in_both_settings(ablation):
    config, report, _ = ablation
    assert list(report["arms"]) == list(config.arms)
    assert {f"{a}-{b}" for a, b in config.pairs} <= report["differences"].keys()
    assert all(scores["overall"]["n"] == 2 * 4 for scores in report["arms"].values())


@pytest.mark.parametrize("setting", ["federated", "centralised"])
def test_a_part_that_is_switched_off_has_no_loss_and_the_others_have(ablation, setting):
    _, report, _ = ablation
    all_terms = {"mcl", "ucl", "itm", "mlm", "mim", "total"}
    off = {"masking": {"mim"}, "mim": {"mim"}, "mlm": {"mlm"}, "ucl": {"ucl"}, "mcl": {"mcl"}, "itm": {"itm"}}
    for part, names in off.items():
        (curve,) = report["arms"][f"{setting}-no-{part}"]["losses"]
        assert set(curve["rounds"][0]) & all_terms == all_terms - names
    (curve,) = report["arms"][setting]["losses"]
    assert set(curve["rounds"][0]) >= all_terms


def test_a_variant_is_pooled_though_the_centralised_arm_itself_is_not_run(overrides, tmp_path):
    _, report, _ = run("ablation", (*overrides, "arms=[federated,centralised-no-itm]"), tmp_path)
    assert list(report["arms"]) == ["federated", "centralised-no-itm"]


def test_only_federated_arms_of_the_ablation_move_bytes(ablation):
    _, report, _ = ablation
    assert all(bool(s["bytes_up"]) == arm.startswith("federated") for arm, s in report["arms"].items())


def test_only_the_newcomer_is_asked_and_it_takes_no_part_in_pre_training(shift):
    config, report, folder = shift
    newcomer = read_site(folder / "sites" / "hospital-4")
    assert {record.labels["modality"] for record in (*newcomer.captions, *newcomer.vqa)} == {"mr"}
    assert list(report["arms"]) == list(config.arms)
    assert all(scores["sites"].keys() == {"hospital-4"} for scores in report["arms"].values())
    assert [facts["test_questions"] for facts in report["sites"].values()] == [0, 0, 0, 4]
    assert {facts["captioned_images"] for facts in report["sites"].values()} == {CAPTIONED}
    (line,) = (folder / "runs" / "federated-members" / "journal.jsonl").read_text().splitlines()
    assert (json.loads(line)["sites_merged"], json.loads(line)["sites_expected"]) == (3, 3)


def test_all_arms_of_the_shift_that_are_federated_start_from_the_very_same_weights(shift):
    _, _, folder = shift
    merged = load_weights(folder / "runs" / "federated-members" / "weights.safetensors")
    for arm in ("federated", "federated-8-full", "federated-128-adapters"):
        weights = load_weights(folder / "runs" / arm / "weights.safetensors")
        assert all((weights[name] == merged[name]).all() for name in merged)
    random = load_weights(folder / "runs" / "scratch-8-full" / "weights.safetensors")
    assert any((random[name] != merged[name]).any() for name in merged)


def test_a_match_is_answered_by_the_merged_weights_and_by_random_ones(shift):
    _, report, folder = shift
    assert report["factors"]["federated-0"] == {"setting": "federated", "examples": 0, "tuning": "matching"}
    assert report["arms"]["federated-0"]["overall"]["n"] == report["arms"]["scratch-0"]["overall"]["n"] == 4
    assert not (folder / "runs" / "federated-0").exists()
