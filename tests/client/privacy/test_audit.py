"""The audit passes the mechanism that is shipped and fails every fault that is put into it."""

import json
from functools import cache

import pytest
import torch

from client.privacy.audit import MANY_STEPS, audit
from client.privacy.audit_canaries import CLIPPING_NORM, CanaryBatch, CanaryModel
from client.privacy.audit_text import MEANING, reasons, rows
from client.privacy.errors import PlanError
from client.privacy.gradients import LoopGradients
from client.privacy.randomness import SecureSource
from tests.client.privacy.audit_mutations import (
    MUTATIONS,
    WASTEFUL,
    only_hooks_clip_too_loose,
    only_the_others_clip_too_loose,
)
from tests.client.privacy.loop_mutations import (
    FINETUNE_MUTATIONS,
    LOOP_MUTATIONS,
    METRICS_MUTATIONS,
    no_noise_in_right_answers,
)

CANARIES = 3000


def measured(key=1, **settings):
    return audit(canaries=CANARIES, source=SecureSource(bytes([key] * 32)), **settings)


@cache
def shipped():
    return measured()


def failed(result):
    return {check.name for check in result.checks if not check.holds}


def test_the_shipped_mechanism_passes_with_a_bound_close_below_the_claim():
    result = shipped()
    assert result.passed
    assert reasons(result) == []
    assert result.claimed_epsilon == pytest.approx(4.377, abs=1e-3)
    assert 3.5 < result.lower_bound < result.claimed_epsilon
    assert 1.0 < result.one_run_lower_bound < result.lower_bound


def test_the_predicted_effect_is_that_of_the_design_and_is_met():
    result = shipped()
    assert (MANY_STEPS.sample_rate, MANY_STEPS.steps, MANY_STEPS.noise_multiplier) == (0.125, 50, 1.0)
    assert result.effect_size_expected == pytest.approx(0.861, abs=5e-4)
    assert result.effect_size == pytest.approx(0.861, abs=0.12)


def test_the_other_ways_of_summing_gradients_pass_as_well():
    for grad_sample in ("opacus", "loop"):
        result = audit(grad_sample=grad_sample, canaries=300, source=SecureSource(bytes([2] * 32)))
        assert result.passed, reasons(result)
        assert result.to_dict()["grad_sample"] == grad_sample


@pytest.mark.parametrize("fault", MUTATIONS)
def test_a_fault_fails_the_audit_and_is_named(fault, monkeypatch):
    mutate, words = MUTATIONS[fault]
    mutate(monkeypatch)
    result = measured()
    assert not result.passed
    assert words in "; ".join(reasons(result))


@pytest.mark.parametrize("fault", LOOP_MUTATIONS)
def test_a_fault_in_the_trainer_s_own_loop_fails_the_audit_and_is_named(fault, monkeypatch):
    mutate, words = LOOP_MUTATIONS[fault]
    mutate(monkeypatch)
    result = measured()
    assert not result.passed
    assert words in "; ".join(reasons(result))


def test_private_fine_tuning_passes_in_its_own_steps():
    result = measured(trainer="finetune")
    assert result.passed, reasons(result)
    assert result.to_dict()["trainer"] == "finetune"
    assert "own fine-tuning" in dict(rows(result))["what was done"]


@pytest.mark.parametrize("fault", FINETUNE_MUTATIONS)
def test_a_fault_in_private_fine_tuning_fails_its_audit_and_is_named(fault, monkeypatch):
    mutate, words = FINETUNE_MUTATIONS[fault]
    mutate(monkeypatch)
    result = measured(trainer="finetune")
    assert not result.passed
    assert words in "; ".join(reasons(result))


def released(canaries=400):
    return audit(trainer="metrics", canaries=canaries, source=SecureSource(bytes([1] * 32)))


def test_the_release_of_metrics_passes_and_one_patient_moves_it_as_far_as_is_charged():
    result = released()
    assert result.passed, reasons(result)
    assert (result.trainer, result.grad_sample, result.effect_size_expected) == ("metrics", "", 1.0)
    assert 2 < result.lower_bound < result.claimed_epsilon == pytest.approx(4.377, abs=1e-3)
    assert "own release of an accuracy" in dict(rows(result))["what was done"]


@pytest.mark.parametrize("fault", METRICS_MUTATIONS)
def test_a_fault_in_the_release_of_metrics_fails_its_audit_and_is_named(fault, monkeypatch):
    mutate, words = METRICS_MUTATIONS[fault]
    mutate(monkeypatch)
    result = released()
    assert not result.passed
    assert words in "; ".join(reasons(result))


def test_right_answers_without_noise_beside_a_noised_count_are_found(monkeypatch):
    no_noise_in_right_answers(monkeypatch)
    assert failed(released(canaries=1500)) >= {"one_step.noise", "many_steps.noise"}


@pytest.mark.parametrize("fault", WASTEFUL)
def test_too_much_protection_is_a_fault_too_and_is_told_apart(fault, monkeypatch):
    mutate, words = WASTEFUL[fault]
    mutate(monkeypatch)
    result = measured()
    assert not result.passed
    assert result.lower_bound < result.claimed_epsilon
    assert words in "; ".join(reasons(result))


@pytest.mark.parametrize(
    ("fault", "low", "high"),
    [("halved noise", 8.5, 10.0), ("a patient counted twice", 8.5, 10.0), ("clip five times too loose", 29, 34)],
)
def test_the_bound_of_a_fault_is_just_below_its_true_epsilon(fault, low, high, monkeypatch):
    MUTATIONS[fault][0](monkeypatch)
    assert low < measured(key=3).lower_bound < high


def test_halved_noise_in_sampled_steps_has_the_effect_of_the_design(monkeypatch):
    MUTATIONS["halved noise"][0](monkeypatch)
    assert measured().effect_size == pytest.approx(1.6, abs=0.13)


def test_without_noise_the_numbers_are_still_numbers(monkeypatch):
    MUTATIONS["no noise"][0](monkeypatch)
    assert json.loads(json.dumps(measured().to_dict(), allow_nan=False))["lower_bound"] == 1000


def test_a_fault_in_one_way_of_summing_fails_that_way_alone(monkeypatch):
    with monkeypatch.context() as patch:
        only_hooks_clip_too_loose(patch)
        assert not measured().passed
        assert audit(grad_sample="opacus", canaries=300, source=SecureSource(bytes(32))).passed
    only_the_others_clip_too_loose(monkeypatch)
    assert measured().passed
    for grad_sample in ("opacus", "loop"):
        found = audit(grad_sample=grad_sample, canaries=300, source=SecureSource(bytes(32)))
        assert "one_step.change" in failed(found)


def test_a_sound_mechanism_fails_far_more_rarely_than_one_audit_in_twenty():
    assert sum(not audit(canaries=300, source=SecureSource(bytes([key] * 32))).passed for key in range(10, 20)) == 0


def test_a_canarys_gradient_is_far_longer_than_the_clipping_norm_and_in_its_own_rows_alone():
    model = CanaryModel(4)
    weights = dict(model.named_parameters())
    (norm,) = LoopGradients(weights).add(model.loss, CanaryBatch(torch.tensor([[2]])), 1e9)
    assert norm > 100 * CLIPPING_NORM
    touched = {name for name, weight in weights.items() if weight.summed_grad.any()}
    assert touched == {"first.weight", "second.weight"}
    assert set(model.first.weight.summed_grad.nonzero()[:, 0].tolist()) == {2}


def test_an_unclipped_canary_scores_the_length_of_its_gradient():
    model = CanaryModel(3)
    weights = dict(model.named_parameters())
    (norm,) = LoopGradients(weights).add(model.loss, CanaryBatch(torch.tensor([[1]])), 1e9)
    for weight in weights.values():
        weight.data -= weight.summed_grad
    assert model.scores()[1] == pytest.approx(float(norm), rel=1e-5)


def test_the_same_key_gives_the_same_audit_and_none_gives_another():
    assert measured().checks == shipped().checks
    assert audit(canaries=300).checks != audit(canaries=300).checks


def test_progress_is_told_for_every_step():
    seen = []
    audit(canaries=300, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(step, 51) for step in range(1, 52)]


def test_too_few_canaries_are_refused():
    with pytest.raises(PlanError, match="10 canaries would show nothing; give at least 200"):
        audit(canaries=10)


def test_every_check_has_words_for_both_directions():
    result = shipped()
    assert [check.name for check in result.checks] == list(MEANING)
    text = dict(rows(result))
    assert text["verdict"].startswith("PASSED")
    assert "4.38" in text["claimed"]
    assert f"at least {result.lower_bound:.2f}" in text["measured"]
