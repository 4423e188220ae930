"""A private round through the installed ClientApp: what it charges, what leaves, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch

from client.privacy.budget import rounded_up
from client.privacy.ledger import Ledger
from client.privacy.train import PrivatePretrainer
from client.rounds import packed_difference
from client.state import RunState
from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.sharing import is_shared
from protocol.compression import Codec, decode
from protocol.messages import Refusal
from tests.client.privacy.officer import steps_of
from tests.client.privacy.private_rounds import BATCH, SIGMA, UNITS, PrivateServer, again, approve, said

STEPS = 2
PUBLIC = ("state/bank", "state/site.log", "state/verified.json", "state/pixels")
"""What a refused order may leave in a site's folder: nothing of it is trained or charged."""


@pytest.fixture(scope="module")
def private():
    return PrivateServer()


@pytest.fixture
def site(folder):
    approve(folder)
    return folder


def state_of(folder):
    """What the site keeps of patients, run and budget; neither its log nor the public bank."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted((folder / "state").rglob("*"))
        if path.is_file() and not path.relative_to(folder).as_posix().startswith(PUBLIC)
    }


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays.values()]).astype(np.float64)


def code(answer):
    assert isinstance(answer.message, Refusal), answer.message
    assert not answer.arrays
    return answer.message.code


def test_a_report_carries_the_spent_epsilon_and_the_policy_s_number_of_units_and_nothing_else(private, site):
    report = private.ask(site, private.pretrain()).message
    assert report.metrics == {"epsilon_spent": rounded_up(Ledger.open(site).epsilon())}
    assert report.examples == UNITS
    assert report.metrics["epsilon_spent"] > 0


def test_a_round_is_charged_with_the_run_s_own_numbers(private, site):
    private.ask(site, private.pretrain())
    (reservation,) = Ledger.open(site).reservations
    charge = reservation.charge
    assert (charge.run, charge.round, charge.attempt, charge.purpose, charge.unit) == (
        "trial", 1, 1, "pretrain", "patient",
    )  # fmt: skip
    assert (charge.event.sample_rate, charge.event.noise_multiplier, charge.event.steps) == (
        BATCH / UNITS,
        SIGMA,
        STEPS,
    )
    assert (charge.clipping_norm, charge.expected_batch, reservation.steps_done) == (1.0, BATCH, STEPS)


def test_the_first_step_is_taken_after_the_reservation_is_on_the_disk(private, site, monkeypatch):
    seen = []
    monkeypatch.setattr(
        PrivatePretrainer, "run", lambda *_, **__: seen.extend(r.steps_done for r in Ledger.open(site).reservations)
    )
    private.ask(site, private.pretrain())
    assert seen == [None]


def test_an_update_that_is_asked_for_again_is_the_same_bytes_and_costs_nothing(private, site):
    first = private.ask(site, private.pretrain())
    head = Ledger.open(site).head
    second = private.ask(site, private.pretrain())
    assert (second.message, second.arrays.keys()) == (first.message, first.arrays.keys())
    assert all(second.arrays[name].tobytes() == first.arrays[name].tobytes() for name in first.arrays)
    assert Ledger.open(site).head == head


def test_another_attempt_at_a_round_is_the_same_release_and_costs_nothing(private, site):
    first = private.ask(site, private.pretrain())
    head = Ledger.open(site).head
    second = private.ask(site, again(private.pretrain(), attempt=2))
    assert (second.message.attempt, second.arrays.keys()) == (2, first.arrays.keys())
    assert all(second.arrays[name].tobytes() == first.arrays[name].tobytes() for name in first.arrays)
    assert Ledger.open(site).head == head


def test_a_round_that_is_another_under_the_same_number_is_charged_again_and_is_new_noise(private, site):
    first = private.ask(site, private.pretrain())
    second = private.ask(site, again(private.pretrain(), seed=5))
    assert steps_of(Ledger.open(site)) == 2 * STEPS
    assert second.message.metrics["epsilon_spent"] > first.message.metrics["epsilon_spent"]
    assert (flat(first.arrays) != flat(second.arrays)).mean() > 0.9


def test_a_round_whose_update_never_reached_the_disk_is_charged_again(private, site, monkeypatch):
    def full(*_):
        raise OSError("no space left on the device of Zbigniew")

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "keep_sent_update", full)
        answer = private.ask(site, private.pretrain())
    assert code(answer) == "disk"
    assert b"Zbigniew" not in answer.sent
    assert steps_of(Ledger.open(site)) == STEPS
    private.ask(site, private.pretrain())
    assert steps_of(Ledger.open(site)) == 2 * STEPS


def test_a_round_that_fails_half_way_is_charged_for_the_steps_that_it_took(private, site, monkeypatch):
    whole = PrivatePretrainer.run

    def run(trainer, records, **settings):
        def fail(step, losses):
            raise torch.OutOfMemoryError

        return whole(trainer, records, on_step=fail, **settings)

    monkeypatch.setattr(PrivatePretrainer, "run", run)
    assert code(private.ask(site, private.pretrain())) == "out_of_memory"
    assert [reservation.steps_done for reservation in Ledger.open(site).reservations] == [1]


def test_a_plain_run_is_refused_where_a_policy_is_in_force(server, site):
    before = state_of(site)
    answer = server.ask(site, server.pretrain())
    assert code(answer) == "privacy_policy"
    assert state_of(site) == before


def test_a_private_run_is_refused_where_nobody_has_signed_a_policy(private, folder):
    assert code(private.ask(folder, private.pretrain())) == "privacy_policy"
    assert not (folder / "state" / "runs").exists()


def test_a_policy_that_was_edited_is_refused(private, site):
    config = site / "site.yaml"
    config.write_text(config.read_text().replace("epsilon: 6", "epsilon: 60"))
    assert code(private.ask(site, private.pretrain())) == "privacy_policy"


def test_a_run_with_less_noise_than_the_policy_asks_is_refused(private, folder):
    approve(folder, noise_multiplier=1.5)
    assert code(private.ask(folder, private.pretrain())) == "privacy_policy"


def test_a_round_above_the_cap_is_refused_and_changes_nothing(private, folder):
    approve(folder, epsilon=1.5)
    first = private.ask(folder, private.pretrain())
    assert 0 < first.message.metrics["epsilon_spent"] < 1.5
    before = state_of(folder)
    assert code(private.ask(folder, again(private.pretrain(2), steps=10**6, total_steps=10**6))) == "privacy_budget"
    assert state_of(folder) == before
    assert said(private.ask(folder, private.pretrain())) == said(first)


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_that_trained_here_without_being_charged_is_refused(server, private, folder, number):
    server.ask(folder, server.pretrain())
    approve(folder)
    assert code(private.ask(folder, private.pretrain(number))) == "privacy_provenance"
    assert not Ledger.open(folder).reservations


def test_weights_that_trained_here_uncharged_are_refused_under_another_name(server, private, folder):
    server.ask(folder, server.pretrain(2))
    approve(folder)
    assert code(private.ask(folder, again(private.pretrain(2), run_id="renamed"))) == "privacy_provenance"


def test_fine_tuning_reports_no_metric_and_no_count_and_charges_nothing(private, site):
    private.ask(site, private.pretrain())
    head, charged = Ledger.open(site).head, RunState.of(site, "trial").private_weights(2, charged=True)
    for order in (private.finetune(), private.evaluate()):
        report = private.ask(site, order).message
        assert (report.metrics, report.examples) == ({}, UNITS)
    assert Ledger.open(site).head == head
    kept = RunState.of(site, "trial").private_weights(2, charged=True)
    assert all(torch.equal(kept[name], weight) for name, weight in charged.items())


def test_names_types_and_shapes_of_an_update_are_those_without_privacy(server, private, site, untouched, tmp_path):
    other = shutil.copytree(untouched, tmp_path / "other")
    plain, noised = server.ask(other, server.pretrain()).arrays, private.ask(site, private.pretrain()).arrays
    assert {n: (a.dtype, a.shape) for n, a in plain.items()} == {n: (a.dtype, a.shape) for n, a in noised.items()}
    assert server.named(plain).keys() == private.named(noised).keys()
    assert np.isfinite(flat(noised)).all()


def test_the_run_s_seed_fixes_neither_sample_nor_noise(private, site):
    one = private.ask(site, private.pretrain()).arrays
    shutil.rmtree(site / "state" / "runs")
    other = private.ask(site, private.pretrain()).arrays
    assert (flat(one) != flat(other)).mean() > 0.9


def test_every_shared_weight_that_learns_moves_and_the_fixed_ones_do_not(private, site):
    update = private.named(private.ask(site, private.pretrain()).arrays)
    still = {name for name, weight in update.items() if not weight.any()}
    assert still <= {"temp", "visual_encoder.cls_token", "visual_encoder.pos_embed"}


def test_no_name_of_a_patient_is_in_a_byte_that_leaves(private, folder):
    path = folder / "captions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {"patient_id": "Kowalczyk-1953", "caption": row["caption"] + " Zbigniew"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    approve(folder, epsilon=3.0)
    for order in (private.pretrain(), private.pretrain(2), private.finetune()):
        sent = private.ask(folder, order).sent.lower()
        for name in (b"kowalczyk", b"1953", b"zbigniew", str(folder).encode().lower()):
            assert name not in sent


def test_the_heads_of_the_round_before_are_taken_up_from_charged_training_alone(private, site, monkeypatch):
    private.ask(site, private.pretrain())
    state, taken = RunState.of(site, "trial"), []
    charged = state.private_weights(2, charged=True)
    assert charged
    assert not [name for name in charged if is_shared(name)]
    state.keep_private_weights(1, {name: weight + 5 for name, weight in charged.items()})
    whole = PrivatePretrainer.load_state_dict
    monkeypatch.setattr(PrivatePretrainer, "load_state_dict", lambda t, kept: (taken.append(kept), whole(t, kept)))
    private.ask(site, private.pretrain(2))
    assert all(torch.equal(taken[0][name], weight) for name, weight in charged.items())


def test_without_charged_heads_others_are_not_taken_up(private, site, monkeypatch):
    private.ask(site, private.pretrain())
    runs = site / "state" / "runs" / "trial"
    kept = runs / "charged-after-round-00001.safetensors"
    save_weights(runs / "pretrain-after-round-00001.safetensors", load_weights(kept))
    kept.unlink()
    taken = []
    monkeypatch.setattr(PrivatePretrainer, "load_state_dict", lambda t, state: taken.append(state))
    private.ask(site, private.pretrain(2))
    assert taken == []


def test_the_codec_sees_the_noised_update_alone_and_what_it_owes_follows_from_such(private, site, monkeypatch):
    noised = []

    def seen(*given):
        update = packed_difference(*given)
        noised.append({name: flat.copy() for name, flat in update.items()})
        return update

    monkeypatch.setattr("client.privacy.pretrain.packed_difference", seen)
    state, codec = RunState.of(site, "trial"), Codec(kind="int8", block=64)
    state.keep_residual(1, {"float32": np.ones_like(private.base["float32"])})
    arrived = 0.0
    for round in (1, 2):
        answer = private.ask(site, again(private.pretrain(round), codec=codec.to_dict()))
        arrived = arrived + flat(decode(answer.arrays, private.schema, codec))
    owed = flat(state.residual(before_round=3, charged=True))
    assert np.allclose(arrived + owed, flat(noised[0]) + flat(noised[1]), atol=1e-7)
    assert steps_of(Ledger.open(site)) == 2 * STEPS
