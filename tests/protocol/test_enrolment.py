import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.enrolment import (
    Enrolment,
    Join,
    Leave,
    check_follows,
    check_is_for,
    enrolment_of,
    is_address,
    split_address,
)
from protocol.errors import EnrolmentError, ProofError, SigningError, StaleJoinError, StrangerError, VersionError
from protocol.keyfiles import erase, make_private_folder, read_secret, write_secret
from protocol.node_keys import (
    new_node_key,
    node_fingerprint,
    private_bytes,
    public_pem,
    read_node_key,
    to_openssh,
)
from protocol.papers import MAX_CHARS, from_json, read_paper, to_json
from protocol.signing import new_key, public_hex

AUTH, SIGNING, OTHER_AUTH, OTHER = new_node_key(), new_key(), new_node_key(), new_key()
SERVER = new_key()
NOW = "2026-11-25T05:06:18+00:00"
ENROLMENT = enrolment_of("north", AUTH, SIGNING, units=1200, created=NOW)
ROTATION = enrolment_of("north", OTHER_AUTH, OTHER, units=1200, created=NOW, previous=SIGNING)
JOIN = Join(
    federation="lung",
    address="hub.example.org:9092",
    ca="-----BEGIN CERTIFICATE-----\n",
    server_key=public_hex(SERVER),
    site="north",
    auth_key=public_pem(AUTH),
    signing_key=public_hex(SIGNING),
    units=1200,
    peers={"south": public_hex(OTHER)},
    serial=3,
    issued=NOW,
).signed(SERVER)
LEAVE = Leave(
    server_key=public_hex(SERVER), site="north", signing_key=public_hex(SIGNING), reason="end of study", left=NOW
).signed(SIGNING)
PAPERS = [ENROLMENT, ROTATION, JOIN, LEAVE]
NAMES = ["enrolment", "rotation", "join", "leave"]


def check(paper):
    paper.verify(*([public_hex(SERVER), public_hex(SIGNING)] if isinstance(paper, Leave) else []))


def changed(paper, **values) -> str:
    return json.dumps({**json.loads(to_json(paper)), **values})


@pytest.mark.parametrize("paper", PAPERS, ids=NAMES)
def test_what_was_written_is_read_back_and_proves_itself(paper):
    read = from_json(type(paper), to_json(paper))
    assert read == paper
    check(read)


EDITS = {
    "site": "west",
    "units": 9999,
    "created": "2026-11-26T05:06:18+00:00",
    "issued": "2026-11-26T05:06:18+00:00",
    "left": "2026-11-26T05:06:18+00:00",
    "reason": "another",
    "federation": "heart",
    "address": "evil.example.org:9092",
    "ca": "-----BEGIN CERTIFICATE-----\nA",
    "serial": 4,
    "peers": {"south": public_hex(SERVER)},
    "server_key": public_hex(OTHER),
    "auth_key": public_pem(new_node_key()),
    "signing_key": public_hex(new_key()),
    "previous": public_hex(new_key()),
    "auth_proof": "30" * 102,
    "signing_proof": "00" * 64,
    "previous_proof": "00" * 64,
    "signature": "00" * 64,
}


@pytest.mark.parametrize("paper", PAPERS, ids=NAMES)
def test_no_field_can_be_changed_without_the_proofs_failing(paper):
    for name in json.loads(to_json(paper)).keys() - {"kind", "version"}:
        edited = replace(paper, **{name: EDITS[name]})
        with pytest.raises(ProofError):
            check(edited)


@pytest.mark.parametrize("proof", ["auth_proof", "signing_proof", "previous_proof"])
def test_an_enrolment_that_lacks_a_proof_is_refused_and_so_is_half_of_one(proof):
    for value in ("", getattr(ROTATION, proof)[:-2]):
        with pytest.raises(ProofError):
            replace(ROTATION, **{proof: value}).verify()


def test_a_key_that_the_sender_does_not_hold_is_refused():
    """Mallory enrols with north's public key for authentication and her own signing key."""
    mallory = replace(ENROLMENT, signing_key=public_hex(OTHER), auth_proof="", signing_proof="")
    with pytest.raises(ProofError, match="proof in this enrolment is not of the key"):
        mallory.signed(OTHER_AUTH, OTHER).verify()


def test_the_two_kinds_of_signature_are_not_interchangeable():
    """A signature that admits a key cannot serve as the old key's consent to new ones."""
    content = replace(ROTATION, previous_proof=ROTATION.signing_proof)
    with pytest.raises(ProofError):
        content.verify()


def test_new_keys_that_another_key_signed_are_refused():
    forged = replace(ROTATION, auth_proof="", signing_proof="", previous_proof="").signed(OTHER_AUTH, OTHER, SERVER)
    with pytest.raises(ProofError, match="enrolment of new keys"):
        forged.verify()


def test_a_proof_without_the_key_it_is_of_is_refused():
    with pytest.raises(ProofError, match="does not name"):
        replace(ENROLMENT, previous_proof=ROTATION.previous_proof).verify()


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", EnrolmentError, "not JSON"),
        ("[]", EnrolmentError, "no enrolment file"),
        ("[" * 100_000, EnrolmentError, "not JSON"),
        ('{"kind": "enrolment", "kind": "enrolment"}', EnrolmentError, "not JSON"),
        (to_json(JOIN), EnrolmentError, "but 'join'"),
        (changed(ENROLMENT, version=2), VersionError, "install the same"),
        (changed(ENROLMENT, version=True), VersionError, "version True"),
        (changed(ENROLMENT, unit=3), EnrolmentError, "did you mean 'units'"),
        (changed(ENROLMENT, units="3"), EnrolmentError, "must be int"),
        (changed(ENROLMENT, units=True), EnrolmentError, "must be int"),
        (changed(ENROLMENT, units=3.0), EnrolmentError, "must be int"),
        (changed(ENROLMENT, units=0), EnrolmentError, "choose it from 1"),
        (changed(ENROLMENT, units=10**12), EnrolmentError, "choose it from 1"),
        (changed(ENROLMENT, site="../../etc"), EnrolmentError, "does not match"),
        (changed(ENROLMENT, site="a\n"), EnrolmentError, "does not match"),
        (changed(ENROLMENT, site="\x1b[2J"), EnrolmentError, "does not match"),
        (changed(ENROLMENT, created="yesterday"), EnrolmentError, "time zone"),
        (changed(ENROLMENT, created="2026-11-25T05:06:18"), EnrolmentError, "time zone"),
        (changed(ENROLMENT, signing_key="AB" * 32), EnrolmentError, "64 hexadecimal"),
        (changed(ENROLMENT, auth_key="AAAA"), EnrolmentError, "P-384"),
        (changed(ENROLMENT, auth_key=public_pem(AUTH) + "\n"), EnrolmentError, "spelled in another way"),
        (changed(ENROLMENT, auth_key="\N{BULLET}"), EnrolmentError, "P-384"),
        (changed(ENROLMENT, previous=public_hex(SIGNING)), EnrolmentError, "previous key is its new one"),
        (changed(ENROLMENT) + " " * MAX_CHARS, EnrolmentError, "over the limit"),
    ],
)
def test_what_is_no_enrolment_is_refused_with_its_fault(text, error, says):
    with pytest.raises(error, match=says):
        from_json(Enrolment, text)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"address": "hub.example.org"}, "HOST:PORT"),
        ({"address": "hub.example.org:0"}, "HOST:PORT"),
        ({"address": "hub example:1"}, "HOST:PORT"),
        ({"serial": 0}, "serial"),
        ({"peers": {"south": 3}}, "texts only"),
        ({"peers": {"south": "00"}}, "64 hexadecimal"),
        ({"peers": {"north": public_hex(OTHER)}}, "itself"),
        ({"peers": {"../x": public_hex(OTHER)}}, "does not match"),
        ({"ca": "A" * 10_000}, "no certificate"),
    ],
)
def test_what_is_no_join_file_is_refused_with_its_fault(values, says):
    with pytest.raises(EnrolmentError, match=says):
        from_json(Join, changed(JOIN, **values))


@pytest.mark.parametrize("name", sorted(json.loads(to_json(JOIN)).keys() - {"kind", "version"}))
def test_a_missing_field_is_named(name):
    values = json.loads(to_json(JOIN))
    del values[name]
    with pytest.raises(EnrolmentError, match=f"lacks {name}"):
        from_json(Join, json.dumps(values))


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_does_more_than_be_refused(text):
    with pytest.raises((EnrolmentError, VersionError)):
        from_json(Join, text)


def test_a_file_that_is_no_text_or_is_not_there_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    for name, says in (("a", "not text"), ("b", "cannot be read")):
        with pytest.raises(EnrolmentError, match=says):
            read_paper(Enrolment, tmp_path / name)


def test_a_join_file_follows_the_pinned_one_only_if_it_is_of_the_same_federation_and_newer():
    check_follows(JOIN, JOIN)
    check_follows(replace(JOIN, serial=4, address="new.example.org:1", peers={}), JOIN)
    for values in ({"serial": 2}, {"peers": {}}):
        with pytest.raises(StaleJoinError, match="is pinned; ask the operator for the newest"):
            check_follows(replace(JOIN, **values), JOIN)
    for values in ({"server_key": public_hex(OTHER)}, {"ca": "other"}, {"federation": "heart"}):
        with pytest.raises(StrangerError, match="--replace"):
            check_follows(replace(JOIN, serial=9, **values), JOIN)


def test_a_join_file_is_for_one_site_and_its_keys():
    mine = (public_pem(AUTH), public_hex(SIGNING))
    check_is_for(JOIN, "north", *mine)
    with pytest.raises(StrangerError, match="is for the site north"):
        check_is_for(JOIN, "south", *mine)
    with pytest.raises(StrangerError, match="another signing key"):
        check_is_for(JOIN, "north", public_pem(AUTH), public_hex(OTHER))
    with pytest.raises(StrangerError, match="another authentication key"):
        check_is_for(JOIN, "north", public_pem(OTHER_AUTH), public_hex(SIGNING))


def test_a_note_of_leave_holds_for_one_federation_and_one_key():
    with pytest.raises(ProofError, match="another federation"):
        LEAVE.verify(public_hex(OTHER), public_hex(SIGNING))
    with pytest.raises(ProofError, match="not signed by the key"):
        LEAVE.verify(public_hex(SERVER), public_hex(OTHER))


@pytest.mark.parametrize(
    ("text", "good"),
    [("a:1", True), ("a.b-c.org:65535", True), ("10.0.0.1:9092", True), ("[::1]:9092", True)]
    + [
        (bad, False)
        for bad in ("a", ":1", "a:", "a:65536", "a:-1", "-a:1", "::1:9092", "a:1\n", "a:\u0663", "http://a:1")
    ],
)
def test_an_address_is_a_host_and_a_port(text, good):
    assert is_address(text) is good
    if good:
        assert split_address(text) == (text.rpartition(":")[0].strip("[]"), int(text.rpartition(":")[2]))


def test_flower_itself_loads_both_halves_of_the_node_key(tmp_path):
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    write_secret(tmp_path / "auth.key", private_bytes(AUTH))
    (tmp_path / "auth.pub").write_text(to_openssh(public_pem(AUTH)), encoding="ascii")
    given = argparse.Namespace(auth_supernode_private_key=str(tmp_path / "auth.key"), auth_supernode_public_key=None)
    private, public = _try_setup_client_authentication(given)
    assert private.private_numbers() == AUTH.private_numbers()
    assert public == AUTH.public_key()
    assert try_load_public_key(tmp_path / "auth.pub").decode() == public_pem(AUTH)


def test_a_node_key_is_read_back_and_a_key_of_another_kind_is_not():
    from cryptography.hazmat.primitives.asymmetric import ec

    assert public_pem(read_node_key(private_bytes(AUTH))) == public_pem(AUTH)
    small = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(SigningError, match="P-384"):
        read_node_key(private_bytes(small))
    with pytest.raises(SigningError, match="P-384"):
        node_fingerprint(public_pem(small))
    with pytest.raises(SigningError, match="P-384"):
        read_node_key(b"")


def test_a_fingerprint_is_eight_groups_of_four():
    groups = node_fingerprint(public_pem(AUTH)).split()
    assert [len(group) for group in groups] == [4] * 8


def test_a_secret_is_its_owners_alone_and_is_not_overwritten_by_chance(tmp_path):
    path = tmp_path / "keys" / "secret"
    make_private_folder(path.parent)
    write_secret(path, b"one")
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    with pytest.raises(SigningError, match="never overwritten"):
        write_secret(path, b"two")
    write_secret(path, b"two", replace=True)
    assert read_secret(path) == b"two"
    path.chmod(0o640)
    with pytest.raises(SigningError, match="chmod 600"):
        read_secret(path)
    assert [p.name for p in path.parent.iterdir()] == ["secret"]


def test_an_erased_secret_is_gone_in_its_bytes_too(tmp_path):
    path, link = tmp_path / "secret", tmp_path / "link"
    write_secret(path, b"secret")
    Path(link).hardlink_to(path)
    erase(path)
    assert not path.exists()
    assert link.read_bytes() == bytes(6)
