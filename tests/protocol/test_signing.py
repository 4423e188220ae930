import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import SignatureError, SigningError
from protocol.signing import (
    canonical,
    fingerprint,
    new_key,
    public_hex,
    read_private_key,
    sign,
    signed_bytes,
    verify,
    write_private_key,
)

KEY = new_key()
PUBLIC = public_hex(KEY)
PAYLOAD = {"site": "north", "epsilon": 8.0}
UNTIMED = settings(deadline=None, max_examples=100)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@UNTIMED
@given(values)
def test_canonical_json_is_read_back_as_the_same_value_with_the_same_spelling(value):
    spelled = canonical(value)
    assert json.loads(spelled) == value
    assert canonical(json.loads(spelled)) == spelled
    assert b"\n" not in spelled


@UNTIMED
@given(st.dictionaries(st.text(), scalars, min_size=2))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    assert canonical(dict(reversed(value.items()))) == canonical(value)


def test_a_number_is_spelled_by_its_type():
    assert len({canonical(value) for value in (1, 1.0, True, "1", [1])}) == 5


@pytest.mark.parametrize(
    "value",
    [math.nan, [math.inf], {"a": -math.inf}, {1: "a"}, {None: 1}, {1, 2}, b"bytes", object()],
    ids=["nan", "inf", "inf in a dict", "number as name", "none as name", "set", "bytes", "object"],
)
def test_what_is_not_json_is_not_spelled(value):
    with pytest.raises(SigningError, match="cannot be signed"):
        canonical(value)


def test_a_value_nested_without_end_is_refused():
    value = []
    value.append(value)
    with pytest.raises(SigningError, match="nested"):
        canonical(value)


def test_the_signed_bytes_name_program_version_and_context():
    assert signed_bytes("policy", {"b": 1, "a": [2]}) == b'fedmumc/1/policy\n{"a":[2],"b":1}'


@pytest.mark.parametrize("context", ["", "two\nlines", "ü"])
def test_a_context_that_could_be_read_as_something_else_is_refused(context):
    with pytest.raises(SigningError, match="context"):
        sign(KEY, context, PAYLOAD)


def test_a_signature_is_good_for_its_key_context_and_payload():
    verify(PUBLIC, "policy", {"epsilon": 8.0, "site": "north"}, sign(KEY, "policy", PAYLOAD))


@pytest.mark.parametrize(
    ("public", "context", "payload"),
    [
        (public_hex(new_key()), "policy", PAYLOAD),
        (PUBLIC, "ledger", PAYLOAD),
        (PUBLIC, "policy", {**PAYLOAD, "epsilon": 80.0}),
        (PUBLIC, "policy", {**PAYLOAD, "more": None}),
    ],
    ids=["another key", "another context", "another value", "another field"],
)
def test_a_signature_is_good_for_nothing_else(public, context, payload):
    with pytest.raises(SignatureError, match="another key signed it"):
        verify(public, context, payload, sign(KEY, "policy", PAYLOAD))


@pytest.mark.parametrize("change", [str.upper, lambda text: text[:-2], lambda text: "", lambda text: "zz" + text[2:]])
def test_a_second_spelling_of_a_signature_is_refused(change):
    signature = sign(KEY, "policy", PAYLOAD)
    assert change(signature) != signature
    with pytest.raises(SignatureError):
        verify(PUBLIC, "policy", PAYLOAD, change(signature))


@pytest.mark.parametrize("public", ["", "00", "x" * 64, PUBLIC.upper()], ids=["empty", "short", "no hex", "capitals"])
def test_what_is_no_public_key_is_refused(public):
    with pytest.raises(SigningError, match="64 hexadecimal digits"):
        fingerprint(public)


def test_a_fingerprint_can_be_read_out_by_telephone():
    groups = fingerprint(PUBLIC).split(" ")
    assert [len(group) for group in groups] == [4] * 8
    assert fingerprint(PUBLIC) != fingerprint(public_hex(new_key()))


@pytest.mark.parametrize("password", [None, b"correct horse"])
def test_a_key_file_gives_the_key_back_and_is_its_owners_alone(tmp_path, password):
    path = tmp_path / "key"
    write_private_key(path, KEY, password)
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_hex(read_private_key(path, password)) == PUBLIC
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


def test_an_officers_key_is_useless_without_its_password(tmp_path):
    write_private_key(tmp_path / "key", KEY, b"correct horse")
    assert KEY.private_bytes_raw().hex().encode() not in (tmp_path / "key").read_bytes()
    for password in (None, b"wrong horse"):
        with pytest.raises(SigningError, match="password"):
            read_private_key(tmp_path / "key", password)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_helps(tmp_path, mode):
    write_private_key(tmp_path / "key", KEY)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(SigningError, match="chmod 600"):
        read_private_key(tmp_path / "key")


def test_a_key_is_never_overwritten(tmp_path):
    write_private_key(tmp_path / "key", KEY)
    with pytest.raises(SigningError, match="never overwritten"):
        write_private_key(tmp_path / "key", new_key())
    assert public_hex(read_private_key(tmp_path / "key")) == PUBLIC


def test_an_empty_password_is_no_password(tmp_path):
    with pytest.raises(SigningError, match="empty"):
        write_private_key(tmp_path / "key", KEY, b"")
    assert not (tmp_path / "key").exists()


def test_a_file_that_holds_no_key_is_refused(tmp_path):
    with pytest.raises(SigningError, match="cannot be read"):
        read_private_key(tmp_path / "key")
    (tmp_path / "key").write_text("-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(SigningError, match="not a private key"):
        read_private_key(tmp_path / "key")
