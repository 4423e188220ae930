"""Private rounds through the installed ClientApp: whom they read, what they leave alone, and the rarer settings."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from client.privacy.budget import rounded_up
from client.privacy.cli import app
from client.privacy.ledger import Ledger
from client.privacy.optimizer import PrivateOptimizer
from client.privacy.train import PrivatePretrainer
from client.state import RunState
from mumc_model.data.collate import CaptionDataset
from protocol.messages import Report
from tests.client.privacy.mechanism import Records, recipe, site_of, trainer_of
from tests.client.privacy.private_rounds import BATCH, SIGMA, PrivateServer, approve

FEW = {"units": 6, "epsilon": 500.0}
"""A policy under which nearly everybody is in every step."""


@pytest.fixture(scope="module")
def private():
    return PrivateServer()


@contextmanager
def readers(monkeypatch):
    """The patients whose records are read while this lasts, and those of the bank."""
    seen, whole = [], CaptionDataset.pairs

    def pairs(records, row_B, generator):
        seen.extend(records.patient_ids[row] for row in row_B.tolist())
        return whole(records, row_B, generator)

    with monkeypatch.context() as patch:
        patch.setattr(CaptionDataset, "pairs", pairs)
        yield seen


def asked(server, folder, *rounds):
    for number in rounds:
        message = server.ask(folder, server.pretrain(number)).message
        assert isinstance(message, Report), message
    return message


def captions(folder):
    return [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]


def write_captions(folder, rows):
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_withdrawn_patient_is_read_in_no_round_after(private, folder, monkeypatch):
    # The bank's phantoms are numbered as the site's are.
    write_captions(folder, [row | {"patient_id": f"own {row['patient_id']}"} for row in captions(folder)])
    approve(folder, **FEW)
    patients = sorted({row["patient_id"] for row in captions(folder)})
    with readers(monkeypatch) as before:
        asked(private, folder, 1)
    assert set(patients) & set(before)
    gone = next(patient for patient in patients if patient in before)
    done = CliRunner().invoke(app, ["exclude", str(folder), "-"], input=gone, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    sites, run = [], PrivatePretrainer.run
    monkeypatch.setattr(PrivatePretrainer, "run", lambda t, site, **rest: (sites.append(site), run(t, site, **rest)))
    with readers(monkeypatch) as after:
        asked(private, folder, 2, 3)
    assert set(patients) & set(after)
    assert gone not in after
    assert [site.patients for site in sites] == [frozenset(patients) - {gone}] * 2
    assert all(gone not in site.units for site in sites)


def test_a_private_twin_of_a_bank_s_pair_is_left_out_and_the_bank_stays_as_it_is(private, folder, monkeypatch):
    approve(folder, **FEW)
    asked(private, folder, 1)
    (bank,) = [path for path in (folder / "state").iterdir() if path.name.startswith("bank-")]
    untouched = bytes_of(bank)
    (image, *_) = sorted(bank.rglob("*.png"))
    other = folder / captions(folder)[0]["image"]
    shutil.copy(image, folder / "images" / "twin.png")
    shutil.copy(other, folder / "images" / "other.png")
    rows = captions(folder)
    added = [{**rows[0], "image": f"images/{name}.png", "patient_id": name} for name in ("twin", "other")]
    write_captions(folder, rows + added)
    with readers(monkeypatch) as seen:
        asked(private, folder, 2, 3)
    assert "other" in seen
    assert "twin" not in seen
    assert bytes_of(bank) == untouched
    assert captions(folder) == rows + added


def test_negatives_from_the_batch_take_a_whole_round_at_twice_the_clipping_norm(folder, monkeypatch):
    server = PrivateServer("privacy.negatives=batch")
    approve(folder, **FEW)
    made, init = [], PrivateOptimizer.__init__

    def kept(optimizer, *args, **settings):
        init(optimizer, *args, **settings)
        made.append(optimizer)

    monkeypatch.setattr(PrivateOptimizer, "__init__", kept)
    answer = server.ask(folder, server.pretrain())
    assert isinstance(answer.message, Report), answer.message
    (optimizer,) = made
    assert (optimizer.max_grad_norm, optimizer.expected_batch_size, optimizer.noise_multiplier) == (2.0, 1, SIGMA)
    ledger = Ledger.open(folder)
    (reservation,) = ledger.reservations
    assert (reservation.steps_done, reservation.charge.event.sample_rate) == (2, BATCH / 6)
    assert answer.message.metrics == {"epsilon_spent": rounded_up(ledger.epsilon())}
    update = server.named(answer.arrays)
    assert all(np.isfinite(weight).all() for weight in update.values())
    still = {name for name, weight in update.items() if not weight.any()}
    assert still <= {"temp", "visual_encoder.cls_token", "visual_encoder.pos_embed"}


def test_rounds_with_adapters_keep_nothing_between_them_and_go_on(folder, monkeypatch):
    server = PrivateServer("privacy.adapters.rank=2")
    approve(folder, **FEW)
    taken, load = [], PrivatePretrainer.load_state_dict
    monkeypatch.setattr(PrivatePretrainer, "load_state_dict", lambda t, kept: (taken.append(dict(kept)), load(t, kept)))
    first, second = (server.ask(folder, server.pretrain(number)) for number in (1, 2))
    for answer in (first, second):
        assert isinstance(answer.message, Report), answer.message
        assert not [name for name in server.named(answer.arrays) if "lora" in name]
    assert taken == [{}]
    assert not RunState.of(folder, "trial").private_weights(3, charged=True)


def test_a_trainer_with_adapters_takes_nothing_up_from_rounds_without_them():
    plain = trainer_of(recipe())
    plain.run(site_of(Records(4, 1), "abcd"), first_step=0, steps=1, total_steps=1)
    kept = plain.state_dict()
    assert kept
    trainer = trainer_of(recipe(rank=2))
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    optimizer = trainer.optimizer
    trainer.load_state_dict(kept)
    assert trainer.optimizer is optimizer
    assert all(torch.equal(before[name], weight) for name, weight in trainer.model.named_parameters())
    assert trainer.state_dict() == {}
