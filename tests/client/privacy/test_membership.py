"""A membership attack: it finds the patients that a model has learned by heart, and none that noise has covered."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from client.privacy import audit
from client.privacy.bank import open_bank
from client.privacy.cli import app
from client.privacy.membership import MembershipResult, area, attack, found_at
from client.privacy.randomness import SecureSource
from client.privacy.train import PrivatePretrainer, PrivateSite
from mumc_model.config import (
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PretrainConfig,
    Recipe,
    TextConfig,
    VisionConfig,
)
from mumc_model.data.collate import CaptionDataset
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.data.records import read_site
from mumc_model.data.tokenizer import vocabulary
from mumc_model.errors import DataError
from mumc_model.model import build_model
from mumc_model.privacy import BankConfig, PrivacyConfig
from mumc_model.sharing import load_shared, shared_weights
from mumc_model.train import Pretrainer

CPU = torch.device("cpu")
PATIENTS = 16


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary("phantom")


@pytest.fixture(scope="module")
def recipe(tokenizer):
    text = TextConfig(
        width=32, text_layers=1, fusion_layers=1, heads=2, vocab_size=len(tokenizer.vocab), max_positions=24
    )
    return Recipe(
        model=ModelConfig(
            vision=VisionConfig(image_size=32, patch_size=16, width=32, depth=1, heads=2), text=text, projection=16
        ),
        objective=ObjectiveConfig(distill=0.0),
        pretrain=PretrainConfig(
            optimizer=OptimizerConfig(lr=3e-3, schedule="constant", weight_decay=0.0),
            batch_size=16,
            caption_tokens=24,
            crop_scale=1.0,
        ),
        privacy=PrivacyConfig(
            unit="patient", noise_multiplier=20.0, expected_batch=4, bank=BankConfig(size=16, refresh_steps=100)
        ),
    )


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Two hospitals alike in everything but their patients."""
    config = PhantomConfig(
        hospitals=2,
        images=2 * PATIENTS,
        captions_per_image=1,
        images_per_patient=2,
        train_questions=0,
        val_questions=0,
        test_questions=0,
        image_size=32,
        unlike=0.0,
    )
    return write_hospitals(config, tmp_path_factory.mktemp("hospitals"), 0)


def dataset(site, recipe, tokenizer):
    return CaptionDataset(read_site(site), tokenizer, 32, recipe.pretrain.caption_tokens, 1.0)


@pytest.fixture(scope="module")
def learned_by_heart(sites, recipe, tokenizer, tmp_path_factory):
    """The folder of a model that saw one hospital's patients over and over again."""
    plain = replace(recipe, privacy=PrivacyConfig())
    model = build_model(plain.model, 0)
    data = dataset(sites[0], plain, tokenizer)
    Pretrainer(model, plain, CPU).run(data, first_step=0, steps=250, total_steps=250, seed=0)
    folder = tmp_path_factory.mktemp("by_heart")
    model.save_pretrained(folder, tokenizer=tokenizer)
    return folder


@pytest.fixture(scope="module")
def private(sites, recipe, tokenizer, tmp_path_factory):
    """The folder of a model that learned from the same patients under strong noise."""
    model, data = build_model(recipe.model, 0), dataset(sites[0], recipe, tokenizer)
    bank = open_bank(recipe.privacy.bank, recipe, tokenizer, tmp_path_factory.mktemp("bank"), "", CPU)
    site = PrivateSite(
        records=data,
        rows=torch.arange(len(data.captions)),
        units=data.patient_ids,
        patients=frozenset(data.patient_ids),
        sample_rate=0.25,
    )
    PrivatePretrainer(model, recipe, bank, CPU, source=SecureSource(bytes(32))).run(
        site, first_step=0, steps=40, total_steps=40
    )
    learned = build_model(recipe.model, 0)
    load_shared(learned, shared_weights(model))
    folder = tmp_path_factory.mktemp("private")
    learned.save_pretrained(folder, tokenizer=tokenizer)
    return folder


def test_patients_that_were_learned_by_heart_are_found(learned_by_heart, sites):
    found = attack(learned_by_heart, sites[0], non_members=sites[1])
    assert found.auc > 0.8
    assert 0.6 < found.auc_low <= found.auc <= found.auc_high
    assert (found.members, found.non_members) == (PATIENTS, PATIENTS)
    assert "remembers patients" in str(found)
    assert "AUC" in str(found)


def test_patients_under_strong_noise_are_not_found(private, sites):
    found = attack(private, sites[0], non_members=sites[1])
    assert 0.25 < found.auc < 0.75
    assert found.auc_low <= 0.5
    assert "does not tell them apart" in str(found)
    assert "An attack that fails proves nothing" in str(found)


def test_patients_who_were_held_out_are_the_others(learned_by_heart, sites):
    patients = sorted({row.patient_id for row in read_site(sites[0]).captions})
    found = attack(learned_by_heart, sites[0], held_out=set(patients[:5]))
    assert (found.members, found.non_members) == (PATIENTS - 5, 5)
    assert found.auc < 0.9  # They were learned as well, whatever is said of them.


def test_the_same_seed_gives_the_same_numbers_and_progress_is_told(private, sites):
    seen = []
    one, two = (
        attack(private, sites[0], non_members=sites[1], on_progress=lambda *step: seen.append(step)) for _ in range(2)
    )
    assert one == two
    assert seen[1] == (32, 32)


def test_an_attack_needs_one_kind_of_others_and_two_of_them(private, sites):
    with pytest.raises(DataError, match="never saw"):
        attack(private, sites[0])
    with pytest.raises(DataError, match="never saw"):
        attack(private, sites[0], non_members=sites[1], held_out={"a"})
    with pytest.raises(DataError, match="16 members and 0 non-members"):
        attack(private, sites[0], held_out={"nobody"})


def test_the_area_counts_pairs_and_half_of_those_that_are_equal():
    inside, outside = np.array([1.0, 2.0, 2.0]), np.array([0.0, 2.0])
    pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    assert area(inside, outside) == pytest.approx(np.mean(pairs))


def test_the_threshold_lets_through_no_more_than_it_may():
    outside = np.arange(200.0)
    assert found_at(np.array([197.5, 198.5, 0.0, 300.0]), outside, 0.01) == (0.75, 0.01)
    assert found_at(np.array([5.0, 400.0]), outside[:50], 0.01) == (1 / 2, 0.0)


def test_plain_values_hold_every_number():
    numbers = {"auc": 0.5, "auc_low": 0.4, "auc_high": 0.6, "true_positive_rate": 0.0, "false_positive_rate": 0.0}
    result = MembershipResult(**numbers, members=3, non_members=4)
    assert result.to_dict() == {**numbers, "members": 3, "non_members": 4}


def test_the_command_attacks_a_model_beside_the_audit(learned_by_heart, sites, monkeypatch):
    monkeypatch.setattr(audit, "SecureSource", lambda: SecureSource(bytes(32)))
    folders = {"--model": learned_by_heart, "--site": sites[0], "--non-members": sites[1]}
    words = ["audit", "--canaries", "200", "--json", *(str(word) for pair in folders.items() for word in pair)]
    found = CliRunner().invoke(app, words, catch_exceptions=False)
    assert found.exit_code == 0
    assert json.loads(found.output)["membership"] == attack(learned_by_heart, sites[0], non_members=sites[1]).to_dict()
