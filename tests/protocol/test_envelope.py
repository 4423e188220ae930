"""What a signature covers of a message: anything else that is changed, moved or sent again is refused."""

from dataclasses import fields, replace

import numpy as np
import pytest

from protocol.envelope import Seal, Statement, check_binds, check_signature, new_nonce, payload_digest, seal
from protocol.errors import EnvelopeError
from protocol.hashchain import Head
from protocol.messages import Report
from protocol.signing import new_key, public_hex

KEY = new_key()
REPORT = Report(run_id="r", round=2, attempt=1, site="north", examples=7, metrics={"loss": 1.5}, base_digest="b" * 64)
ARRAYS = {"float32": np.arange(5, dtype=np.float32)}
SAID = Statement(
    direction="reply",
    federation="f" * 64,
    site="north",
    run_id="r",
    stage="train.pretrain",
    round=2,
    attempt=1,
    nonce="0" * 32,
    base_digest="b" * 64,
    payload=payload_digest(REPORT, ARRAYS),
    head=Head(count=3, hash="c" * 64),
)
OTHER = {
    "direction": "order",
    "federation": "e" * 64,
    "site": "south",
    "run_id": "q",
    "stage": "train.finetune",
    "round": 1,
    "attempt": 2,
    "nonce": "1" * 32,
    "base_digest": "a" * 64,
    "payload": "d" * 64,
    "head": Head(count=2, hash="c" * 64),
    "seen": Head(count=1, hash="c" * 64),
    "ledger": "c" * 64,
}


def test_a_sealed_statement_is_read_back_and_verified():
    found = Seal.from_json(seal(SAID, KEY).to_json())
    check_signature(found, public_hex(KEY))
    check_binds(found.statement, REPORT, ARRAYS, {"site": "north", "round": 2})
    assert found.statement == SAID


@pytest.mark.parametrize("name", [field.name for field in fields(Statement)])
def test_no_field_can_be_changed_after_signing(name):
    forged = replace(seal(SAID, KEY), statement=replace(SAID, **{name: OTHER[name]}))
    with pytest.raises(EnvelopeError, match="is not signed by whom it names"):
        check_signature(forged, public_hex(KEY))


def test_another_key_s_signature_is_refused():
    with pytest.raises(EnvelopeError, match="is not signed by whom it names"):
        check_signature(seal(SAID, new_key()), public_hex(KEY))


@pytest.mark.parametrize(
    ("report", "arrays"),
    [
        (replace(REPORT, examples=8), ARRAYS),
        (replace(REPORT, metrics={"loss": 1.0}), ARRAYS),
        (REPORT, {"float32": np.arange(1, 6, dtype=np.float32)}),
        (REPORT, {"float16": np.arange(5, dtype=np.float16)}),
        (REPORT, {}),
    ],
    ids=["examples", "metrics", "values", "type", "no arrays"],
)
def test_a_swapped_body_is_refused(report, arrays):
    with pytest.raises(EnvelopeError, match="its body was changed on the way, or swapped"):
        check_binds(SAID, report, arrays, {})


def test_a_replay_into_another_round_is_refused():
    with pytest.raises(EnvelopeError, match="was signed for round 2, and 3 is what it came for; it was replayed"):
        check_binds(SAID, REPORT, ARRAYS, {"round": 3})


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "{" * 10000, '{"version": 1, "statement": {}, "signature": ""}', "x" * 20000],
    ids=["nothing", "empty", "list", "deep", "no statement", "long"],
)
def test_what_is_no_seal_is_refused(text):
    with pytest.raises(EnvelopeError):
        Seal.from_json(text)


def test_nonces_differ():
    assert len({new_nonce() for _ in range(100)}) == 100
