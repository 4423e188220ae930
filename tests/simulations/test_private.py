"""What private arms need: hospitals with signed policies, noise for a target, settings that differ by variant."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from client.config import read_site_config
from client.privacy.charging import Charges
from client.privacy.errors import BudgetExceededError, PlanError
from client.privacy.event import Event
from client.privacy.ledger import Ledger
from client.privacy.policy import check_run, read_policy
from configs.compose import compose
from configs.loader import ConfigurationError, load
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.data.records import read_site
from mumc_model.privacy import PrivacyConfig
from simulations.arms import plan
from simulations.config import SimulationConfig
from simulations.measures import write_bank, write_public
from simulations.private import private_hospitals, public_units, with_noise
from simulations.report import build_report
from simulations.run import simulate

COUNTS = {"images": 60, "train_questions": 4, "val_questions": 2, "test_questions": 4}


def config(*overrides):
    return load(SimulationConfig, compose("simulation", ["experiment=privacy", *overrides]))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    phantom = PhantomConfig(hospitals=2, images_per_patient=2, image_size=32, **COUNTS)
    return write_hospitals(phantom, tmp_path_factory.mktemp("hospitals"), 0)


def test_private_arms_run_at_copies_whose_policy_is_signed_and_forbids_other_arms(hospitals, tmp_path):
    assert public_units(hospitals) == 30
    _, budget = with_noise(config("privacy=patient", "privacy.expected_batch=10").run, 4.0, 30, 1e-4)
    copies = private_hospitals(hospitals, tmp_path, 30, budget, "seed-1/arm")
    for copy, original in zip(copies, hospitals, strict=True):
        policy = Ledger.open(copy).policy()
        assert (policy.units, policy.delta) == (30, 1e-4)
        assert budget.epsilon_rdp <= policy.epsilon <= 1.01 * budget.epsilon_rdp
        check_run(policy, PrivacyConfig(unit="patient"))
        assert read_policy(original) is None
        assert len(read_site(copy).captions) == len(read_site(original).captions)


def test_a_bank_at_the_sites_is_the_public_archive_but_for_a_site_that_names_its_own(hospitals, tmp_path):
    settings = config("privacy=patient", "privacy.bank={source: site, size: 8}", "public_images=12")
    bank = write_bank(settings, settings.run.recipe.privacy.bank, 1, tmp_path)
    assert bank == write_public(settings, 1, tmp_path)
    assert len({record.image for record in read_site(bank).captions}) == 12
    for index, (path, own) in enumerate(zip(hospitals, ("", "/pairs/of/our/own"), strict=True)):
        site = Path(shutil.copytree(path, tmp_path / "given" / path.name))
        with (site / "site.yaml").open("a", encoding="utf-8") as file:
            file.write(f"bank: '{own}'\n")
        _, budget = with_noise(config("privacy=patient", "privacy.expected_batch=10").run, 4.0, 30, 1e-4)
        (copy,) = private_hospitals([site], tmp_path / "copies", 30, budget, f"bank-{index}", bank)
        assert read_site_config(copy).bank == (own or str(bank))
        assert Ledger.open(copy).policy().units == 30


def test_phantom_banks_need_no_public_archive(tmp_path):
    settings = config("privacy=patient")
    assert write_bank(settings, settings.run.recipe.privacy.bank, 1, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_bank_larger_than_the_public_archive_is_refused_before_any_arm_runs(tmp_path):
    settings = config("privacy=patient", "privacy.bank={source: site, size: 13}", "public_images=12")
    with pytest.raises(ConfigurationError, match=r"public_images=12 public images, and privacy.bank.size is 13"):
        write_bank(settings, settings.run.recipe.privacy.bank, 1, tmp_path)


def test_an_arm_with_a_bank_at_the_sites_runs_and_is_compared_with_its_reference(tiny, tmp_path):
    private = "{unit: patient, expected_batch: 2, physical_batch: 2, bank: {source: site, size: 4}}"
    settings = tiny(
        tmp_path,
        "engine.workers=1",
        "arms=[scratch, site-bank]",
        "references=[scratch]",
        "public_images=4",
        "delta=1e-3",
        f"+variants.site-bank={{run: {{recipe: {{privacy: {private}}}}}}}",
    )
    study, out = simulate(settings, "pytest", Console(quiet=True))
    report = build_report(study, np.random.default_rng(0))
    assert report["facts"]["site-bank"]["steps"] == 4
    assert report["differences"]["site-bank-scratch"]["arms"] == ["site-bank", "scratch"]
    for hospital in sorted((out / "seed-0" / "private" / "site-bank").iterdir()):
        assert read_site_config(hospital).bank == str(out / "seed-0" / "public" / "hospital-1")


def test_every_private_arm_is_compared_with_the_public_one_and_with_the_one_that_pays_no_privacy():
    settings = config()
    private = {arm for arm in settings.arms if arm in settings.variants and settings.variants[arm].epsilon}
    for reference in ("public", "warm-infinity"):
        assert private < {arm for arm, other in settings.pairs if other == reference}
    assert all(a != b for a, b in settings.pairs)
    assert config("arms=[public, warm-8]").pairs == [("warm-8", "public")]


def test_two_seeds_share_a_registry_though_they_number_their_patients_alike(hospitals, tmp_path):
    for seed in (1, 2):
        _, budget = with_noise(config("privacy=patient", "privacy.expected_batch=10").run, 4.0, 30, 1e-4)
        copy, _ = private_hospitals(hospitals, tmp_path / str(seed), 30, budget, f"seed-{seed}")
        names = {record.patient_id for record in read_site(copy).captions}
        assert all(name.startswith(f"seed-{seed}/") for name in names)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_noise_makes_the_whole_pre_training_cost_the_target(epsilon):
    run = config("privacy=patient", "privacy.expected_batch=32").run
    noised, budget = with_noise(run, epsilon, units=200, delta=1e-4)
    assert noised.recipe.privacy.noise_multiplier == budget.noise_multiplier
    assert (budget.sample_rate, budget.steps) == (0.16, 100)
    assert 0.97 * epsilon <= budget.epsilon <= epsilon <= budget.epsilon_rdp


@pytest.mark.parametrize("metrics_noise", [1.0, 5.0])
def test_where_metrics_leave_the_cap_is_what_all_charges_come_to_and_the_ledger_lets_them_through(
    hospitals, tmp_path, metrics_noise
):
    release = ("privacy.finetune.release=metrics", "privacy.finetune.expected_batch=20")
    overrides = ("privacy=patient", "privacy.expected_batch=10", f"privacy.finetune.metrics_noise={metrics_noise}")
    run, budget = with_noise(config(*overrides, *release).run, 4.0, 30, 1e-3)
    _, without = with_noise(config(*overrides).run, 4.0, 30, 1e-3)
    assert budget.noise_multiplier == without.noise_multiplier
    assert budget.epsilon > without.epsilon
    copy, _ = private_hospitals(hospitals, tmp_path, 30, budget, f"metrics-{metrics_noise}")
    ledger, federation = Ledger.open(copy), run.federation
    charges = Charges(run="arm", round=1, attempt=1, operator="server", recipe=run.recipe, policy=ledger.policy())
    event = Event(sample_rate=budget.sample_rate, noise_multiplier=budget.noise_multiplier, steps=1)
    rounds = [replace(charges.steps(), event=replace(event, steps=federation.local_steps))] * federation.rounds
    for charge in (*rounds, charges.steps(), charges.metrics()):
        ledger.reserve(charge, units={f"metrics-{metrics_noise}/patient"})
    assert ledger.epsilon() == ledger.policy().epsilon
    with pytest.raises(BudgetExceededError, match="a release of metrics would raise epsilon"):
        ledger.reserve(charges.metrics(), units={f"metrics-{metrics_noise}/patient"})


@pytest.mark.parametrize("name", ["privacy", "privacy.finetune"])
def test_a_step_of_more_patients_than_a_hospital_declares_is_refused_before_any_arm_runs(name):
    overrides = ("privacy=patient", "privacy.finetune.release=metrics", "privacy.expected_batch=10")
    run = config(*overrides, "privacy.finetune.expected_batch=10", f"{name}.expected_batch=31").run
    with pytest.raises(PlanError, match=rf"{name}.expected_batch is 31, and every hospital here declares 30 patients"):
        with_noise(run, 4.0, 30, 1e-4)


def test_a_variant_differs_from_the_federated_arm_in_what_it_names_and_nothing_else(tmp_path):
    settings = config()
    ((federation,),) = plan("warm-8-bank", settings, 0, [tmp_path], tmp_path, tmp_path)
    recipe = settings.run.recipe
    bank = replace(recipe.privacy.bank, size=32)
    assert federation.run.recipe == replace(recipe, privacy=replace(recipe.privacy, unit="patient", bank=bank))
    assert federation.run.initial_weights == str(tmp_path / "public" / "weights.safetensors")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms=[warm-8]", "starts from the arm public"),
        ("arms=[public,warm8]", r"did you mean 'warm-8'\?"),
        ("references=[publik]", r"did you mean 'public'\?"),
        ("variants.warm-8.run.recipe.privacy.unti=record", "unti"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_by_name(override, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        plan("warm-8", config(override.replace("variants.", "+variants.")), 0, [tmp_path], tmp_path, tmp_path)
