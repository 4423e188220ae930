"""What a person reads when somebody cheats or a limit is passed: the exact words, at the end where they are read.

Certificates and clocks are read at `mumc-site check`: `tests/client/preflight/test_network.py`.
"""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from client.follow import told
from client.log import site_log_file
from mumc_model.errors import CheckpointError
from mumc_model.reference import import_reference
from protocol.envelope import seal
from protocol.errors import ProtocolError
from protocol.records import reply_from_record, seal_from_record, to_record
from protocol.signing import fingerprint, new_key, public_hex
from tests.client.joined import NODES


def changed(arrays):
    return {name: flat + np.float32(1) for name, flat in arrays.items()}


class Wire:
    """One order on its way to the site in the north, and its reply on the way back."""

    def __init__(self, federation):
        self.federation, self.post = federation, federation.post()
        self.order, self.base = federation.run.pretrain(), federation.run.base
        self.record = federation.sealed(self.post, self.order)
        self.seal = seal_from_record(self.record)

    def engineer_reads(self, record):
        """The line at the hospital's terminal, which is in the site's log too, and what the operator may know of it."""
        answer, _ = reply_from_record(self.federation.ask(record))
        return told(site_log_file(self.federation.sites["north"]).entries()[-1]), answer.text

    def operator_reads(self, change):
        """The reason in the journal, when the reply is changed on its way."""
        reply = self.federation.ask(self.record)
        report, arrays = reply_from_record(reply)
        with pytest.raises(ProtocolError) as refused:
            self.post.check(NODES["north"], change(report, arrays, seal_from_record(reply)), self.order)
        return str(refused.value)


def test_an_order_that_is_not_the_server_s_or_was_changed_or_came_before(federation):
    key = fingerprint(public_hex(federation.home.signer()))
    cases = [
        (
            lambda wire: to_record(wire.order, wire.base),
            "the order is not signed, and this site follows only its federation's server",
        ),
        (
            lambda wire: to_record(wire.order, wire.base, seal(wire.seal.statement, new_key())),
            f"the order is not signed by whom it names: the signature of this order is not of the key {key}; it was "
            "changed after signing, or another key signed it",
        ),
        (
            lambda wire: to_record(wire.order, changed(wire.base), wire.seal),
            "the order is not the one that was signed: its body was changed on the way, or swapped",
        ),
        (
            lambda wire: wire.federation.ask(wire.record) and wire.record,
            "the order was here before, under the same nonce: it was replayed",
        ),
    ]
    for spoil, words in cases:
        wire = Wire(federation)
        read, known = wire.engineer_reads(spoil(wire))
        assert read == f"turned away: train.pretrain (bad_seal): {words}"
        assert known == "the order cannot be followed; see the site's log"


def test_a_reply_that_is_not_the_site_s_or_was_changed(federation):
    key = fingerprint(federation.post()._sites["north"].signing_key)
    swapped = "the reply is not the one that was signed: its body was changed on the way, or swapped"
    cases = [
        (
            lambda report, arrays, found: to_record(report, arrays),
            "the reply is not signed; this federation takes none that is not",
        ),
        (
            lambda report, arrays, found: to_record(report, arrays, seal(found.statement, new_key())),
            f"the reply is not signed by whom it names: the signature of this reply is not of the key {key}; it was "
            "changed after signing, or another key signed it",
        ),
        (lambda report, arrays, found: to_record(report, changed(arrays), found), swapped),
        (
            lambda report, arrays, found: to_record(dataclasses.replace(report, examples=10**6), arrays, found),
            swapped,
        ),
    ]
    for change, words in cases:
        assert Wire(federation).operator_reads(change) == words


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"max_steps": 1},
            "(policy_steps): the order's steps is 2, and this site allows at most 1 (policy.runs.max_steps)",
        ),
        (
            {"weights": ["visual_encoder."]},
            "(policy_weights): 58 weights of the model may not leave this site, first itm_head.0.bias",
        ),
        (
            {"privacy": "required"},
            "(policy_privacy): the run is not differentially private, which this site requires (policy.runs.privacy)",
        ),
        (
            {"secure_aggregation": "required"},
            "(policy_secure_aggregation): the run sends updates without masks, and this site requires them "
            "(policy.runs.secure_aggregation)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_order_beyond_a_limit_reads_the_same_at_both_ends(federation, limits, words):
    federation.limit(**limits)
    wire = Wire(federation)
    read, known = wire.engineer_reads(wire.record)
    assert read == f"refused: train.pretrain, round 1 {words}"
    assert known == words.partition("): ")[2]


def test_metrics_that_stay_are_named_in_the_receipt(federation):
    federation.limit(metrics=["itm"])
    wire = Wire(federation)
    report, _ = reply_from_record(federation.ask(wire.record))
    receipt = site_log_file(federation.sites["north"]).entries()[-1]
    assert report.metrics.keys() == receipt["metrics"].keys() == {"itm"}
    assert receipt["withheld"] == ["mcl", "mlm", "total", "ucl"]
    assert told(receipt) == "left: 0.09 MB of weights, 1 metric; receipt in line 3 of the log"


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


def test_a_checkpoint_with_a_payload(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(CheckpointError) as refused:
        import_reference(path)
    assert str(refused.value) == (
        "weights.pth is damaged, or holds objects that would run code when opened, and was not opened; ask for a file "
        "that holds tensors and plain values only, or for safetensors"
    )
    assert not (tmp_path / "ran").exists()
