"""What leaves a site under a codec, what it still owes, and that no round is trained or owed twice."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from client.log import receipt
from client.log_check import miscounts
from client.pretrain import pretrain_site
from client.seal import check_leaves
from client.site import open_folder
from client.state import RunState
from mumc_model.checkpoint import load_weights
from mumc_model.train import Pretrainer, PretrainResult
from protocol.compression import Codec, decode, encode
from protocol.errors import UnexpectedWeightsError
from protocol.messages import Report

INT8 = {"kind": "int8", "block": 64, "adapters": {}}
STATE = ("state", "runs", "trial")


def order_of(server, round=1, codec=INT8, **changes):
    return dataclasses.replace(server.pretrain(round), codec=codec, **changes)


def read(server, answer, codec=INT8):
    assert isinstance(answer.message, Report), answer.message
    return decode(answer.arrays, server.schema, Codec.of(codec))["float32"].astype(float)


def same(one, other):
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def owed(folder, round):
    return RunState(folder.joinpath(*STATE)).residual(before_round=round + 1)["float32"]


class Training:
    """Stands in for the trainer: adds numbers that the round decides, and counts how often it was asked."""

    def __init__(self, monkeypatch):
        self.count = 0
        monkeypatch.setattr(Pretrainer, "run", self._run())

    def _run(self):
        def run(trainer, dataset, *, first_step, **_):
            self.count += 1
            generator = torch.Generator().manual_seed(first_step)
            with torch.no_grad():
                for weight in trainer.model.parameters():
                    weight.add_(torch.randn(weight.shape, generator=generator) * 0.01)
            return PretrainResult(steps=2, examples=8, losses={"total": 1.0 + first_step}, seconds=0.0, waited=0.0)

        return run


@pytest.fixture
def training(monkeypatch):
    return Training(monkeypatch)


@pytest.fixture
def true(server, folder, training, tmp_path):
    """The updates of two rounds as they are without a codec, from a copy of the site."""
    copy = shutil.copytree(folder, tmp_path / "plain" / "site")
    exact = Codec().to_dict()
    return [read(server, server.ask(copy, order_of(server, n, exact)), exact) for n in (1, 2, 3)]


def test_what_arrives_over_two_rounds_and_what_is_owed_then_are_the_true_updates(server, folder, true):
    arrived = [read(server, server.ask(folder, order_of(server, round))) for round in (1, 2)]
    assert np.abs(arrived[0] - true[0]).max() > 1e-6
    assert np.allclose(arrived[0] + owed(folder, 1), true[0], atol=1e-8)
    assert np.allclose(arrived[0] + arrived[1] + owed(folder, 2), true[0] + true[1], atol=1e-8)


def test_what_leaves_has_the_form_and_the_bytes_of_the_codec(server, folder, training):
    answer = server.ask(folder, order_of(server))
    (size,) = server.schema.flat_sizes.values()
    assert {name: (flat.dtype.name, flat.size) for name, flat in answer.arrays.items()} == {
        "float32.int8": ("int8", size),
        "float32.scales": ("float32", -(-size // 64)),
    }


def test_another_attempt_is_answered_with_the_same_bytes_and_not_trained_again(server, folder, training):
    first = server.ask(folder, order_of(server))
    before = owed(folder, 1)
    second = server.ask(folder, order_of(server, attempt=2))
    assert training.count == 1
    assert second.message == dataclasses.replace(first.message, attempt=2)
    assert same(second.arrays, first.arrays)
    assert np.array_equal(owed(folder, 1), before)


@pytest.mark.parametrize("codec", [INT8, Codec().to_dict()], ids=lambda codec: codec["kind"])
def test_a_site_that_was_killed_before_its_update_was_kept_sends_what_it_would_have_sent(
    server, folder, training, tmp_path, monkeypatch, codec
):
    undisturbed = shutil.copytree(folder, tmp_path / "undisturbed" / "site")
    expected = [server.ask(undisturbed, order_of(server, round, codec)) for round in (1, 2, 3)]

    def killed(*_):
        raise OSError("no space left")

    found = []
    for round in (1, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(RunState, "keep_sent_update", killed)
            assert server.ask(folder, order_of(server, round, codec)).message.code == "disk"
        found.append(server.ask(folder, order_of(server, round, codec)))
    assert all(same(one.arrays, other.arrays) for one, other in zip(found, expected, strict=True))
    assert [answer.message for answer in found] == [answer.message for answer in expected]


def test_a_site_that_was_killed_after_its_update_was_kept_sends_it_without_training(server, folder, training):
    first = server.ask(folder, order_of(server))
    training.count = 0
    again = server.ask(folder, order_of(server))
    assert (training.count, again.message, same(again.arrays, first.arrays)) == (0, first.message, True)


def test_what_is_owed_outlives_a_missed_round_and_is_delivered_once(server, folder, true):
    arrived = [read(server, server.ask(folder, order_of(server, round))) for round in (1, 3)]
    assert np.allclose(sum(arrived) + owed(folder, 3), true[0] + true[2], atol=1e-8)


def test_a_round_with_other_weights_to_begin_with_is_trained_anew_from_what_was_owed_before_it(server, folder, true):
    arrived = read(server, server.ask(folder, order_of(server)))
    server.ask(folder, order_of(server, 2))
    base = {dtype: flat + 1 for dtype, flat in server.base.items()}
    changed = dataclasses.replace(server.pretrain(2, base), codec=INT8)
    late = read(server, server.ask(folder, changed, base))
    # The trainer adds in float32 to weights that are larger by 1, so that its own rounding shows.
    assert np.allclose(arrived + late + owed(folder, 2), true[0] + true[1], atol=1e-6)


def test_an_update_of_captions_that_have_changed_is_not_sent_again(server, folder, training):
    server.ask(folder, order_of(server))
    path = folder / "captions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    answer = server.ask(folder, order_of(server))
    assert (training.count, answer.message.examples) == (2, len(path.read_text().splitlines()))


def test_only_what_a_round_done_again_needs_stays_on_the_disk(server, folder, training):
    for round in (1, 2, 3):
        server.ask(folder, order_of(server, round))
    names = sorted(path.name[:20] for path in folder.joinpath(*STATE).glob("*-*"))
    assert [name for name in names if name.startswith("residual")] == ["residual-after-round"] * 2
    assert [name for name in names if name.startswith("update")] == ["update-of-round-0000"]


def test_nothing_is_owed_or_kept_for_it_where_updates_go_as_they_are(server, folder, training):
    server.ask(folder, order_of(server, codec=Codec().to_dict()))
    assert not list(folder.joinpath(*STATE).glob("residual*"))


def test_under_masks_the_plain_update_is_not_kept_here(server, folder, training):
    order = order_of(server, codec=Codec().to_dict())
    pretrain_site(order, server.base, open_folder(folder), keep=False)
    assert not list(folder.joinpath(*STATE).glob("update-of-round*"))


def test_the_residual_is_no_part_of_what_leaves(server, folder, training):
    server.ask(folder, order_of(server))
    answer = server.ask(folder, order_of(server, 2))
    (path,) = folder.joinpath(*STATE).glob("residual-after-round-00002*")
    kept = load_weights(path)["float32"].numpy().tobytes()
    assert kept[:256] not in answer.sent


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_what_would_leave_in_another_codec_than_the_order_s_is_held_back(server, kind):
    order = order_of(server, codec={"kind": kind, "block": 64, "adapters": {}})
    report = Report(run_id="trial", round=1, attempt=1, site="a", examples=1, metrics={}, base_digest=order.base_digest)
    codec = Codec.of(order.codec)
    check_leaves(report, encode(server.base, codec), order, server.base)
    other = encode(server.base, Codec(kind="int8", block=32))
    for arrays in (server.base, other, encode(server.base, codec) | server.base):
        with pytest.raises(UnexpectedWeightsError):
            check_leaves(report, arrays, order, server.base)


def test_a_receipt_has_the_bytes_that_left_and_the_norm_that_the_server_reads(server, folder, training):
    order = order_of(server)
    answer = server.ask(folder, order)
    found = receipt(answer.message, answer.arrays, server.schema, Codec.of(INT8))
    (size,) = server.schema.flat_sizes.values()
    assert found["bytes"] == size + 4 * -(-size // 64)
    assert found["norm"] == pytest.approx(np.linalg.norm(read(server, answer)))
    assert sum(group["values"] for group in found["tensors"].values()) == size
    json.dumps(found)


def test_a_log_with_an_encoded_update_adds_up_and_one_with_another_codec_does_not(server, folder, training):
    answer = server.ask(folder, order_of(server))
    schema = server.schema
    place = {"run": "trial", "stage": "train.pretrain", "round": 1, "attempt": 1, "nonce": "0", "federation": "f"}
    place["base_digest"] = "b" * 64
    tensors = [[name, list(shape), dtype] for name, shape, dtype in schema]
    lines = [
        {"kind": "order", **place},
        {"kind": "schema", "digest": schema.digest, "tensors": tensors},
        {"kind": "reply", **place, **receipt(answer.message, answer.arrays, schema, Codec.of(INT8))},
    ]
    assert not list(miscounts(lines))
    lines[2] |= {"codec": Codec().to_dict()}
    assert len(list(miscounts(lines))) == 1
