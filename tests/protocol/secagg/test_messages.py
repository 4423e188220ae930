import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import MessageError, ProtocolError, SignatureError, VersionError
from protocol.secagg import errors
from protocol.secagg.messages import (
    Accord,
    Agreement,
    Inbox,
    Keys,
    Masked,
    Reveal,
    Roster,
    Shares,
    Survivors,
    signed,
    verify_message,
)
from tests.protocol.secagg.federation import identity, session, wire

ROOT = Path(__file__).resolve().parents[3]
TERMS = session(3)
HEX = "1" * 64


def by_ash(cls, **fields):
    return signed(cls, TERMS, "ash", identity("ash"), **fields)


KEYS = by_ash(Keys, sealing=HEX, masking="2" * 64)
SHARES = by_ash(Shares, sealed={"birch": "3" * 184, "cedar": "4" * 184}, commitment=HEX)
MASKED = by_ash(Masked, vector=HEX)
AGREEMENT = by_ash(Agreement, sharers=TERMS.sites, survivors=TERMS.sites[:2])
REVEAL = by_ash(Reveal, self_seeds={"ash": HEX, "birch": HEX}, mask_keys={"cedar": HEX})
FROM_SITE = [KEYS, SHARES, MASKED, AGREEMENT, REVEAL]
FORWARDED = [
    Roster(session=TERMS.digest, keys=(KEYS,)),
    Inbox(session=TERMS.digest, sealed={"birch": "3" * 184}),
    Survivors(session=TERMS.digest, sites=("ash", "birch")),
    Accord(session=TERMS.digest, agreements=(AGREEMENT,)),
]
EVERY = [TERMS, *FROM_SITE, *FORWARDED]


@pytest.mark.parametrize("content", EVERY, ids=lambda c: c.kind)
def test_everything_survives_json(content):
    assert wire(content) == content


@pytest.mark.parametrize("content", EVERY, ids=lambda c: c.kind)
def test_an_unknown_or_missing_field_another_kind_or_version_is_refused(content):
    values = content.to_dict()
    cls = type(content)
    name = next(field.name for field in dataclasses.fields(content))
    with pytest.raises(MessageError, match=rf"unknown field {cls.kind}.{name}s; did you mean '{name}'\?"):
        cls.from_dict({**values, f"{name}s": 1})
    with pytest.raises(MessageError, match=f"{cls.kind} lacks {name}"):
        cls.from_dict({key: value for key, value in values.items() if key != name})
    with pytest.raises(MessageError, match="was expected, but 'order' came"):
        cls.from_dict({**values, "kind": "order"})
    for version in (2, None, True, 1.0):
        with pytest.raises(VersionError, match="install the same fedmumc"):
            cls.from_dict({**values, "version": version})
    for other in ([], None, "text"):
        with pytest.raises(MessageError, match="an object with named fields"):
            cls.from_dict(other)


@pytest.mark.parametrize("content", EVERY, ids=lambda c: c.kind)
def test_a_field_of_another_type_is_refused(content):
    values = content.to_dict()
    for name in values.keys() - {"kind", "version"}:
        for wrong in (None, 7.5j, [{}], {"a": []}, True):
            with pytest.raises(MessageError):
                type(content).from_dict({**values, name: wrong})


@pytest.mark.parametrize(
    ("content", "changes", "text"),
    [
        (KEYS, {"sealing": "1" * 62}, "secagg_keys.sealing must be 64"),
        (KEYS, {"masking": "A" * 64}, "secagg_keys.masking must be 64 lower-case"),
        (KEYS, {"site": "../ash"}, "secagg_keys.site"),
        (KEYS, {"signature": "0"}, "secagg_keys.signature"),
        (KEYS, {"session": "0"}, "secagg_keys.session"),
        (SHARES, {"sealed": {"birch": "3" * 182}}, "secagg_shares.sealed.birch must be 184"),
        (SHARES, {"sealed": {"bi rch": "3" * 184}}, "secagg_shares.sealed"),
        (SHARES, {"commitment": ""}, "secagg_shares.commitment"),
        (MASKED, {"vector": "1"}, "secagg_masked.vector"),
        (AGREEMENT, {"survivors": ["birch", "ash"]}, "not sorted"),
        (AGREEMENT, {"sharers": ["ash", "ash"]}, "free of repetition"),
        (AGREEMENT, {"sharers": ["ash"] * 257}, "257 items, over 256"),
        (REVEAL, {"mask_keys": {"cedar": "1" * 66}}, "secagg_reveal.mask_keys.cedar must be 64"),
        (FORWARDED[2], {"sites": ["b", "a"]}, "not sorted"),
        (FORWARDED[1], {"sealed": {"birch": "3"}}, "secagg_inbox.sealed"),
    ],
)
def test_a_value_that_nobody_honest_sends_is_refused(content, changes, text):
    with pytest.raises(MessageError, match=text):
        type(content).from_dict({**content.to_dict(), **changes})


def test_a_refused_share_is_not_quoted():
    secret = "5" * 60
    with pytest.raises(MessageError) as refusal:
        Reveal.from_dict({**REVEAL.to_dict(), "self_seeds": {"ash": secret}})
    assert secret[:8] not in str(refusal.value)


@pytest.mark.parametrize("message", FROM_SITE, ids=lambda m: m.kind)
def test_every_field_of_a_site_s_message_is_signed(message):
    verify_message(message, TERMS)
    changed = {
        "sealing": "9" * 64,
        "masking": "9" * 64,
        "sealed": {"birch": "9" * 184, "cedar": "4" * 184},
        "commitment": "9" * 64,
        "vector": "9" * 64,
        "sharers": ("ash",),
        "survivors": ("ash",),
        "self_seeds": {"ash": HEX},
        "mask_keys": {},
        "site": "birch",
    }
    for field in {f.name for f in dataclasses.fields(message)} - {"session", "signature"}:
        with pytest.raises(SignatureError):
            verify_message(dataclasses.replace(message, **{field: changed[field]}), TERMS)


def test_no_error_shares_its_code_with_another():
    own = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ProtocolError)]
    codes = [cls.code for cls in own]
    assert len(set(codes)) == len(codes)


def test_the_whole_of_it_loads_without_torch_and_flower():
    modules = [f"protocol.secagg.{path.stem}" for path in sorted((ROOT / "protocol/secagg").glob("[a-z]*.py"))]
    code = f"import sys, {', '.join(modules)}\nsys.exit(bool({{'torch', 'flwr'}} & sys.modules.keys()))"
    assert len(modules) >= 10
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
