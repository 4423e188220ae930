"""The model card: it names nobody, every number in it is the journal's, and no change of it goes unnoticed."""

import copy
import hashlib
import json
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from safetensors.numpy import load_file, save_file

from protocol.signing import new_key, public_hex, sign
from server.card import build
from server.card_seal import (
    CONTEXT,
    SECTIONS,
    _payload,
    check_folder,
    check_seal,
    check_weights,
    read_card,
    seal,
    to_json,
)
from server.card_text import to_markdown
from server.errors import CardError, OutputError
from server.pseudonyms import holds_name, plain_code, resolve, size_class
from tests.federation import found
from tests.server.carded import SITES, play


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return play(tmp_path_factory.mktemp("card"))


@pytest.fixture(scope="module")
def sealed(played):
    home, folder = played
    return seal(build(folder, home), home.signer())


def leaves(value, path=()):
    """The place of everything in a JSON value that holds nothing else."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [place for key, item in inner for place in leaves(item, (*path, key))]
    return found or [path]


def changed(card, path):
    """The card with one value replaced."""
    card = copy.deepcopy(card)
    *way, last = path
    place = card
    for key in way:
        place = place[key]
    place[last] = {"something": "else"} if place[last] == "else" else "else"
    return card


def test_no_site_path_or_host_stands_in_a_card(played, sealed):
    home, folder = played
    for text in (to_json(sealed), to_markdown(sealed)):
        for word in (*SITES, "hub.example", "localhost", "127.0.0.1", "vocab.txt", str(folder), str(home.root), "/srv"):
            assert word not in text, word


def test_the_card_says_of_each_site_what_the_journal_says(played, sealed):
    home, _ = played
    names = resolve("lung-1", home, {site["pseudonym"] for site in sealed["sites"]})
    rows = {names[site["pseudonym"]]: site for site in sealed["sites"]}
    assert set(rows) == set(SITES)
    assert rows["heidelberg"]["not_in_the_mean"] == {"not_finite": 2, "other": 1}
    assert {name: row["rounds_merged"] for name, row in rows.items()} == {
        "heidelberg": 0,
        "north-clinic": 3,
        "south": 3,
    }
    assert rows["south"]["not_in_the_mean"] == {}
    assert {row["units"] for row in rows.values()} == {10}
    assert sealed["screens"]["refused_updates"] == {"not_finite": 1}, "what a site itself refuses is no screen's doing"
    assert sealed["rounds"]["sites"] == [{"round": n, "merged": 2, "expected": 3} for n in (1, 2, 3)]


def test_the_largest_epsilon_is_the_statement_and_counts_are_rounded(sealed):
    assert sealed["privacy"]["epsilon"] == 1.25
    assert list(sealed["privacy"]["sites"].values()) == [1.25]
    assert {"accuracy": 0.612, "tested": 300} in sealed["evaluation"]["sites"].values()


def test_the_digests_are_those_of_the_files(played, sealed):
    _, folder = played
    files = {"weights_file": "weights.safetensors", "journal": "journal.jsonl", "result": "result.json"}
    for name, file in files.items():
        assert sealed["digests"][name] == hashlib.sha256((folder / file).read_bytes()).hexdigest()


def test_a_card_as_it_was_written_is_believed(played, sealed, tmp_path):
    home, folder = played
    (tmp_path / "card.json").write_text(to_json(sealed))
    card = read_card(tmp_path / "card.json")
    check_seal(card)
    check_seal(card, public_hex(home.signer()))
    check_folder(card, folder)


def test_the_seal_can_be_checked_without_this_program(played, sealed):
    sections = {
        name: hashlib.sha256(
            json.dumps({"content": sealed[name], "section": name}, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
        for name in SECTIONS
    }
    public = sealed["seal"]["key"]
    payload = {"kind": "fedmumc model card", "version": 1, "key": public, "sections": sections}
    content = b"fedmumc/1/model-card\n" + json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(
        bytes.fromhex(sealed["seal"]["signature"]), content
    )


def test_a_change_of_any_value_is_seen_and_its_section_named(sealed):
    places = [path for path in leaves(sealed) if path[0] in SECTIONS]
    assert len(places) > 150
    for path in places:
        with pytest.raises(CardError, match=f"the section '{path[0]}' was changed"):
            check_seal(changed(sealed, path))


def test_a_change_of_the_seal_is_seen(sealed):
    other = public_hex(new_key())
    flipped = sealed["seal"]["signature"][:-1] + ("0" if sealed["seal"]["signature"][-1] != "0" else "1")
    for name, value in (("key", other), ("signature", flipped), ("signature", "00" * 64), ("key", "zz")):
        card = copy.deepcopy(sealed)
        card["seal"][name] = value
        with pytest.raises(CardError, match="the signature does not hold"):
            check_seal(card)


def test_a_section_changed_together_with_its_digest_breaks_the_signature(sealed):
    forged = copy.deepcopy(sealed)
    forged["privacy"]["epsilon"] = 0.1
    digests = seal({name: forged[name] for name in SECTIONS}, None)["seal"]["sections"]
    with pytest.raises(CardError, match="the signature does not hold"):
        check_seal({**forged, "seal": {**forged["seal"], "sections": digests}})


def test_a_card_that_somebody_else_signed_anew_is_not_taken_for_the_federations(played, sealed):
    home, _ = played
    thief, forged = new_key(), copy.deepcopy(sealed)
    forged["privacy"]["epsilon"] = 0.1
    signed = seal({name: forged[name] for name in forged if name != "seal"}, thief)
    with pytest.raises(CardError, match="another federation, or was signed anew"):
        check_seal(signed, public_hex(home.signer()))
    with pytest.raises(CardError, match="'about' names another key"):
        check_seal(signed)


def test_a_signature_of_something_else_is_none_of_a_card(played, sealed):
    home, _ = played
    payload = _payload(sealed["seal"]["key"], sealed["seal"]["sections"])
    for context in ("order", "server-log", "enrolment"):
        assert context != CONTEXT
        card = copy.deepcopy(sealed)
        card["seal"]["signature"] = sign(home.signer(), context, payload)
        with pytest.raises(CardError, match="the signature does not hold"):
            check_seal(card)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_is_gone_or_new_is_named(sealed, name):
    with pytest.raises(CardError, match=f"'{name}' is missing"):
        check_seal({key: value for key, value in sealed.items() if key != name})
    with pytest.raises(CardError, match="'more' was added"):
        check_seal({**sealed, "more": 1})


def test_other_weights_are_seen_and_the_same_ones_in_another_file_are_not_refused(played, sealed, tmp_path):
    _, folder = played
    weights = load_file(folder / "weights.safetensors")
    save_file(weights, tmp_path / "same.safetensors", metadata={"who": "somebody"})
    check_weights(sealed, tmp_path / "same.safetensors")
    first = sorted(weights)[0]
    weights[first] = weights[first] + weights[first].dtype.type(1e-6)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(CardError, match="not those of this card"):
        check_weights(sealed, tmp_path / "other.safetensors")


@pytest.mark.parametrize(("what", "file"), [("journal", "journal.jsonl"), ("result", "result.json")])
def test_a_changed_file_of_the_run_is_named(played, sealed, tmp_path, what, file):
    _, folder = played
    shutil.copytree(folder, tmp_path / "run")
    with (tmp_path / "run" / file).open("a") as opened:
        opened.write("\n")
    with pytest.raises(CardError, match=f"the {what} .* was changed after"):
        check_folder(sealed, tmp_path / "run")


def test_a_run_whose_name_tells_a_site_goes_by_a_pseudonym_too(tmp_path):
    home, folder = play(tmp_path, "Heidelberg-1")
    card = build(folder, home)
    assert card["about"]["run"].startswith("run-")
    assert "heidelberg" not in json.dumps(card).lower()
    names = resolve(card["about"]["run"], home, {site["pseudonym"] for site in card["sites"]})
    assert sorted(names.values()) == sorted(SITES)


def test_pseudonyms_are_stable_in_a_run_and_another_federation_cannot_resolve_them(played, sealed, tmp_path):
    home, folder = played
    known = {site["pseudonym"] for site in sealed["sites"]}
    assert {site["pseudonym"] for site in build(folder, home)["sites"]} == known
    assert resolve("lung-2", home, known) == {}
    assert resolve("lung-1", found(tmp_path, *SITES), known) == {}


def test_a_run_that_has_not_finished_and_weights_of_another_run_get_no_card(played, tmp_path):
    home, folder = played
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(OutputError, match="has not finished"):
        build(tmp_path / "run", home)
    shutil.copy(folder / "result.json", tmp_path / "run")
    lines = (folder / "journal.jsonl").read_text().splitlines()
    (tmp_path / "run" / "journal.jsonl").write_text(lines[0] + "\n")
    with pytest.raises(OutputError, match="put the run's own file back"):
        build(tmp_path / "run", home)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no card"),
        ("[]", "is no card"),
        ('{"kind": "fedmumc model card", "version": 2}', "version 2"),
        ('{"kind": 1, "kind": 2}', "twice"),
        ('{"kind": NaN}', "NaN"),
        ('{"kind": "fedmumc model card", "version": 1}', "no seal"),
    ],
)
def test_what_is_no_card_is_refused_in_a_sentence(tmp_path, text, words):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(CardError, match=words):
        check_seal(read_card(tmp_path / "card.json"))


def test_counts_are_rounded_to_their_first_digit():
    assert [size_class(n) for n in (0, 4, 14, 15, 96, 347, 1250, 2500)] == [0, 4, 10, 20, 100, 300, 1000, 3000]


def test_a_name_is_found_in_a_text_by_its_words_alone():
    assert holds_name("north_clinic_closed", "north-clinic")
    assert not holds_name("least", "east")
    assert plain_code("no_answer", ["north"]) == "no_answer"
    assert plain_code("north_says_no", ["north"]) == "other"


def test_the_command_writes_checks_and_names_what_was_changed(played, call, tmp_path):
    home, folder = played
    assert "signed" in call("card", folder, "--out", tmp_path)
    card, key = tmp_path / "card.json", public_hex(home.signer())
    weights = folder / "weights.safetensors"
    told = call("card", "--verify", card, "--key", key, "--weights", weights)
    assert "every section is as it was signed" in told
    assert "NOT checked" not in told
    assert "NOT checked: whose key" in call("card", "--verify", card)
    assert "heidelberg" in call("card", folder, "--verify", card, "--home", home.root)
    (tmp_path / "card.md").write_text("# The best model\n")
    assert "not the text of this card" in call("card", "--verify", card, expect=2)
    card.write_text(card.read_text().replace('"epsilon": 1.25', '"epsilon": 0.1'))
    assert "the section 'privacy' was changed" in call("card", "--verify", card, "--key", key, expect=2)


def test_a_run_outside_a_federation_gets_a_card_only_where_it_says_that_nobody_signed_it(played, call, tmp_path):
    _, folder = played
    shutil.copytree(folder, tmp_path / "trial")
    assert "nobody would sign" in call("card", tmp_path / "trial", expect=2)
    call("card", tmp_path / "trial", "--unsigned")
    assert "**Not signed.**" in (tmp_path / "trial" / "card.md").read_text()
    assert "nobody signed this card" in call("card", "--verify", tmp_path / "trial" / "card.json", expect=2)


def test_the_command_says_what_it_needs(call):
    assert "no run is named" in call("card", expect=2)
