"""Orders to fine-tune and evaluate whose metrics leave: what they charge, what leaves, and what they refuse."""

import dataclasses
import json
import shutil

import pytest
import torch

from client.finetune import finetune_site
from client.privacy.budget import rounded_up
from client.privacy.errors import PolicyError
from client.privacy.finetune_train import PrivateFinetuner
from client.privacy.ledger import Ledger
from client.privacy.metrics import SENSITIVITY
from client.privacy.policy import check_run
from client.privacy.randomness import SecureSource
from client.site import open_folder
from client.state import RunState
from configs.loader import load
from mumc_model.config import Recipe
from mumc_model.errors import ConfigError
from mumc_model.privacy import PrivacyConfig, PrivateFinetuneConfig
from protocol.messages import Refusal
from tests.client.privacy.officer import policy
from tests.client.privacy.private_rounds import UNITS, PrivateServer, again, approve

STEPS, SIGMA, BATCH, METRICS_NOISE = 4, 1.5, 3, 2.0
RELEASE = (
    "privacy.finetune.release=metrics",
    f"privacy.finetune.noise_multiplier={SIGMA}",
    f"privacy.finetune.expected_batch={BATCH}",
    "privacy.finetune.physical_batch=2",
    "privacy.finetune.clipping_norm=0.5",
    f"privacy.finetune.metrics_noise={METRICS_NOISE}",
    "finetune.freeze=encoders",
)
RATES = ("accuracy", "accuracy_noise_se")


@pytest.fixture(scope="module")
def private():
    return PrivateServer(*RELEASE)


@pytest.fixture
def site(folder):
    approve(folder)
    return folder


@pytest.fixture
def silent(monkeypatch):
    """The release of metrics adds noise of 0; steps of training do not use `normals`."""
    monkeypatch.setattr(SecureSource, "normals", lambda source, count: torch.zeros(count))


def code(answer):
    assert isinstance(answer.message, Refusal), answer.message
    return answer.message.code


def charges(folder):
    return [(r.charge.purpose, r.charge.event.steps, r.steps_done) for r in Ledger.open(folder).reservations]


def reported(answer):
    assert not isinstance(answer.message, Refusal), answer.message
    return {name: value for name, value in answer.message.metrics.items() if name in RATES}


def test_only_accuracy_its_error_and_the_spent_epsilon_leave(private, site, silent):
    answer = private.ask(site, private.finetune())
    assert set(answer.message.metrics) == {"epsilon_spent", *RATES}
    assert (answer.message.examples, answer.arrays) == (UNITS, {})
    assert answer.message.metrics["epsilon_spent"] == rounded_up(Ledger.open(site).epsilon())


def test_the_accuracy_is_the_mean_over_patients_of_the_answers_kept_at_the_site(site, silent):
    server = PrivateServer(*RELEASE, "privacy.finetune.answers=[yes,no,left,right]")
    metrics = server.ask(site, server.finetune()).message.metrics
    rows = RunState.of(site, "trial").rows("test")
    assert {row.prediction for row in rows} <= {"yes", "no", "left", "right"}
    asked = [row for row in open_folder(site).data.vqa if row.split == "test"]
    right = {}
    for row, question in zip(rows, asked, strict=True):
        right.setdefault(question.patient_id, []).append(row.correct)
    mean = sum(sum(own) / len(own) for own in right.values()) / len(right)
    assert 0 < mean < 1
    assert metrics["accuracy"] == pytest.approx(mean, abs=1e-3)
    error = METRICS_NOISE * SENSITIVITY * (1 + (mean - 0.5) ** 2) ** 0.5 / len(right)
    assert metrics["accuracy_noise_se"] == pytest.approx(error, rel=1e-3)


def test_steps_and_release_are_charged_with_the_run_s_own_numbers(private, site):
    private.ask(site, private.finetune())
    steps, metrics = (found.charge for found in Ledger.open(site).reservations)
    assert (steps.run, steps.round, steps.attempt, steps.unit, steps.operator) == ("trial", 4, 1, "patient", "server")
    assert dataclasses.astuple(steps.event) == (BATCH / UNITS, SIGMA, STEPS)
    assert (steps.clipping_norm, steps.expected_batch) == (0.5, BATCH)
    assert dataclasses.astuple(metrics.event) == (1.0, METRICS_NOISE, 1)
    assert (metrics.run, metrics.clipping_norm) == ("trial", SENSITIVITY)
    assert charges(site) == [("finetune", STEPS, STEPS), ("metrics", 1, 1)]


def test_the_first_step_is_taken_after_both_reservations_are_on_the_disk(private, site, monkeypatch):
    seen, whole = [], PrivateFinetuner.run

    def run(trainer, *arguments, **settings):
        seen.extend(charges(site))
        return whole(trainer, *arguments, **settings)

    monkeypatch.setattr(PrivateFinetuner, "run", run)
    private.ask(site, private.finetune())
    assert seen == [("finetune", STEPS, None), ("metrics", 1, None)]


def failing_after_a_step(monkeypatch, error):
    whole = PrivateFinetuner.run

    def run(trainer, questions, sample_rate, **_):
        def fail(done, loss):
            raise error

        return whole(trainer, questions, sample_rate, on_step=fail)

    monkeypatch.setattr(PrivateFinetuner, "run", run)


def test_training_that_fails_half_way_is_charged_for_its_steps_and_no_release(private, site, monkeypatch):
    failing_after_a_step(monkeypatch, torch.OutOfMemoryError())
    assert code(private.ask(site, private.finetune())) == "out_of_memory"
    assert charges(site) == [("finetune", STEPS, 1), ("metrics", 1, 0)]


def test_a_process_that_is_stopped_half_way_has_spent_everything(private, site, monkeypatch):
    failing_after_a_step(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        finetune_site(private.finetune(), private.base, open_folder(site))
    assert charges(site) == [("finetune", STEPS, None), ("metrics", 1, None)]
    assert sum(event.steps for event in Ledger.open(site).events()) == STEPS + 1


def test_a_release_that_never_reached_the_disk_is_charged_and_made_anew(private, site, monkeypatch):
    def full(*_):
        raise OSError("no space left on the device of Zbigniew")

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "keep_released", full)
        answer = private.ask(site, private.finetune())
    assert (code(answer), b"Zbigniew" in answer.sent) == ("disk", False)
    assert charges(site) == [("finetune", STEPS, STEPS), ("metrics", 1, 1)]
    private.ask(site, private.finetune())
    assert charges(site) == 2 * [("finetune", STEPS, STEPS), ("metrics", 1, 1)]


def test_an_order_that_was_answered_is_answered_again_with_the_same_numbers_at_no_charge(private, site):
    for order in (private.finetune(), private.evaluate()):
        first = private.ask(site, order)
        head = Ledger.open(site).head
        assert private.ask(site, order).message == first.message
        assert Ledger.open(site).head == head


def test_an_order_that_is_done_again_is_charged_again_and_has_new_noise(private, site):
    answers = [private.ask(site, again(private.finetune(), attempt=attempt)) for attempt in (1, 2)]
    assert charges(site) == 2 * [("finetune", STEPS, STEPS), ("metrics", 1, 1)]
    spent = [answer.message.metrics["epsilon_spent"] for answer in answers]
    assert spent == sorted(set(spent))


def test_evaluating_is_charged_once_for_each_model(private, site):
    private.ask(site, private.finetune())
    private.ask(site, private.evaluate())
    private.ask(site, private.evaluate())
    assert charges(site)[2:] == [("metrics", 1, 1)]
    private.ask(site, again(private.finetune(), attempt=2))
    private.ask(site, private.evaluate())
    assert charges(site)[5:] == [("metrics", 1, 1)]


def test_a_model_of_plain_fine_tuning_is_never_evaluated_for_a_release(private, site):
    plain = PrivateServer()
    plain.ask(site, plain.finetune())
    assert RunState.of(site, "trial").vqa_folder.is_dir()
    assert code(private.ask(site, private.evaluate())) == "data"
    assert charges(site) == []


@pytest.mark.parametrize(("cap", "asked"), [(0.01, 0), (8.0, 1)], ids=["steps", "release"])
def test_a_budget_that_does_not_suffice_for_steps_and_release_refuses_before_any_step(folder, monkeypatch, cap, asked):
    def run(*_, **__):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(PrivateFinetuner, "run", run)
    approve(folder, epsilon=cap)
    expensive = PrivateServer(*RELEASE, "privacy.finetune.metrics_noise=0.5")
    assert code(expensive.ask(folder, expensive.finetune())) == "privacy_budget"
    assert Ledger.open(folder).events() == ()
    assert charges(folder) == asked * [("finetune", STEPS, 0)]
    assert not RunState.of(folder, "trial").private_vqa_folder.exists()


def test_weights_that_trained_here_uncharged_are_refused(server, private, folder):
    server.ask(folder, server.pretrain())
    approve(folder)
    assert code(private.ask(folder, private.finetune())) == "privacy_provenance"
    assert charges(folder) == []


def test_without_a_signed_policy_nothing_is_released(private, folder):
    assert code(private.ask(folder, private.finetune())) == "privacy_policy"
    assert code(private.ask(folder, private.evaluate())) == "privacy_policy"
    assert not (folder / "state" / "runs").exists()


def test_private_pre_training_and_fine_tuning_share_one_ledger_and_the_heads_that_were_charged(private, site):
    private.ask(site, private.pretrain())
    private.ask(site, again(private.finetune(), round=2))
    assert [purpose for purpose, _, _ in charges(site)] == ["pretrain", "finetune", "metrics"]


def test_a_site_without_test_questions_goes_through_the_same_release(private, site, silent):
    path = site / "vqa.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["split"] != "test"))
    assert reported(private.ask(site, private.finetune())) == {}
    assert charges(site) == [("finetune", STEPS, STEPS), ("metrics", 1, 1)]


def test_what_is_kept_for_leaving_lists_no_answer_and_counts_no_question_of_the_site(private, site):
    private.ask(site, private.finetune())
    folder = RunState.of(site, "trial").private_vqa_folder
    assert json.loads((folder / "answers.json").read_text())["answers"] == []
    card = (folder / "README.md").read_text()
    assert "may leave the site" in card
    assert f"epsilon | {rounded_up(Ledger.open(site).epsilon())}" in card
    assert "training questions" not in card


def test_no_name_of_a_patient_and_no_answer_is_in_a_byte_that_leaves(private, folder):
    path = folder / "vqa.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {"patient_id": "Kowalczyk-1953", "answer": row["answer"] + " Zbigniew"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    approve(folder)
    for order in (private.finetune(), private.evaluate()):
        sent = private.ask(folder, order).sent.lower()
        for name in (b"kowalczyk", b"1953", b"zbigniew", str(folder).encode().lower()):
            assert name not in sent


def test_the_run_s_seed_fixes_neither_sample_nor_noise(private, site):
    weights, order = [], private.finetune()
    for _ in range(2):
        private.ask(site, order)
        weights.append((RunState.of(site, "trial").private_vqa_folder / "model.safetensors").read_bytes())
        shutil.rmtree(site / "state" / "runs")
    assert weights[0] != weights[1]


def test_an_order_carries_the_settings_of_the_release(private):
    settings = load(Recipe, private.finetune().recipe, "").privacy.finetune
    assert (settings.release, settings.metrics_noise, settings.answers) == ("metrics", METRICS_NOISE, ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"unit": "none"},
            "privacy.finetune.release is metrics and privacy.unit is none, so nothing would be protected; set "
            "privacy=patient, or privacy.finetune.release=nothing",
        ),
        ({"metrics_noise": 0.0}, "privacy.finetune.metrics_noise is 0.0; choose a finite number above 0"),
        (
            {"noise_multiplier": float("nan")},
            "privacy.finetune.noise_multiplier is nan; choose a finite number above 0",
        ),
        ({"clipping_norm": -1.0}, "privacy.finetune.clipping_norm is -1.0; choose a finite number above 0"),
        ({"expected_batch": 0}, "privacy.finetune.expected_batch is 0; choose 1 or more"),
        ({"physical_batch": 0}, "privacy.finetune.physical_batch is 0; choose 1 or more"),
        (
            {"answers": ("yes", "yes")},
            "privacy.finetune.answers has an empty text or the same one twice; list each public answer once",
        ),
    ],
)
def test_settings_that_protect_nothing_are_refused_by_name(settings, message):
    unit = settings.pop("unit", "patient")
    with pytest.raises(ConfigError) as error:
        PrivacyConfig(unit=unit, finetune=PrivateFinetuneConfig(release="metrics", **settings))
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["noise_multiplier", "metrics_noise"])
def test_a_policy_s_least_noise_holds_for_steps_and_release(name):
    signed = policy(noise_multiplier=0.8)
    weak = PrivateFinetuneConfig(release="metrics", **{name: 0.7})
    with pytest.raises(PolicyError) as error:
        check_run(signed, PrivacyConfig(unit="patient", finetune=weak))
    assert str(error.value) == (
        f"privacy.finetune.{name} is 0.7, and this site's policy asks for at least 0.8; raise it in the run"
    )
    check_run(signed, PrivacyConfig(unit="patient", finetune=dataclasses.replace(weak, release="nothing")))
