"""The signed paper of a site's counts: read by who has the site's key, and refused after any change."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.datacard import MAX_CHARS, PublicCard, opened, read
from protocol.errors import MessageError, SignatureError, VersionError
from protocol.signing import new_key, public_hex
from tests.protocol.told import facts

FACTS = {"unit": "patient", "units": 300}
KEY = new_key()


def paper(**changes):
    said = {"site": "north", "made": "2026-11-26", "approved": "2026-11-27T03:00:00+00:00", "server_key": "ab" * 32}
    return PublicCard.sealed(FACTS, **(said | changes), key=KEY)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"card": {"unit": "patient", "units": 301}}, SignatureError),
        ({"made": "2020-01-01"}, SignatureError),
        ({"approved": "2026-11-28T03:00:00+00:00"}, SignatureError),
        ({"server_key": ""}, SignatureError),
        ({"signature": "0" * 128}, SignatureError),
        ({"version": 1}, VersionError),
        ({"version": 3}, VersionError),
        ({"version": True}, VersionError),
        ({"kind": "enrolment"}, MessageError),
        ({"site": "south"}, MessageError),
        ({"more": 1}, MessageError),
        ({"card": 3}, MessageError),
        ({"card": {"unit": "<script>", "units": 300}}, MessageError),
        ({"key": "0" * 64}, MessageError),
        ({"signature": 3}, MessageError),
    ],
)
def test_a_paper_that_was_changed_is_refused(change, error):
    text = paper().text()
    assert opened(text, "north", public_hex(KEY)) == FACTS
    with pytest.raises(error):
        opened(json.dumps(json.loads(text) | change), "north", public_hex(KEY))


@pytest.mark.parametrize(
    "change",
    [
        {"site": "../north"},
        {"site": ""},
        {"site": "n\ud800"},
        {"site": "\uff4eorth"},
        {"made": "2026-02-30"},
        {"made": "20261126"},
        {"made": "\uff12026-11-26"},
        {"made": 3},
        {"approved": "2026-11-27"},
        {"approved": "2026-11-27T03:00:00"},
        {"approved": "2026-11-27T03:00:00Z"},
        {"approved": "0001-01-01T00:00:00+23:59"},
        {"approved": None},
        {"server_key": "AB" * 32},
        {"server_key": None},
    ],
)
def test_not_even_the_site_itself_can_sign_values_of_another_form(change):
    with pytest.raises(MessageError, match=rf"the data card's field '{next(iter(change))}' is not of its form"):
        paper(**change)


@pytest.mark.parametrize("text", ["", "[]", "[" * 10**5, "x" * (MAX_CHARS + 1), "NaN", "1" * 5000])
def test_what_is_no_paper_is_refused(text):
    with pytest.raises(MessageError):
        opened(text, "north", "0" * 64)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"units": 300', '"units": 300, "units": 300'),
        ('"units": 300', '"units": 300.0'),
        ('"units": 300', '"units": 3e2'),
        ('"units": 300', '"units": NaN'),
        ('"site": "north"', '"site": "south", "site": "north"'),
    ],
)
def test_json_that_two_programs_could_read_differently_is_refused(old, new):
    text = paper().text()
    assert old in text
    with pytest.raises(MessageError, match="not JSON of ours"):
        opened(text.replace(old, new), "north", public_hex(KEY))


def test_the_text_gives_the_paper_back_and_its_digest_names_all_of_it():
    one = paper()
    assert PublicCard.parse(one.text()) == one
    assert one.digest() == paper().digest() != paper(made="2026-11-25").digest()


def test_another_key_s_paper_is_refused():
    with pytest.raises(MessageError, match="was signed by another key"):
        opened(paper().text(), "north", public_hex(new_key()))


def test_what_cannot_be_read_from_a_disk_is_named(tmp_path):
    (tmp_path / "card").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text(" " * (MAX_CHARS + 1))
    (tmp_path / "good").write_text(paper().text())
    assert read(tmp_path / "good") == paper()
    for name, says in (("card", "it is not text"), ("large", "over the limit of 262,144"), ("none", "No such file")):
        with pytest.raises(MessageError, match=says):
            read(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(st.data(), JSON)
def test_whatever_stands_anywhere_in_a_paper_it_is_refused_in_words_and_nothing_else_fails(data, value):
    one = PublicCard.sealed(facts(), "north", "2026-11-26", "2026-11-27T03:00:00+00:00", "", KEY)
    plain = json.loads(one.text())
    holder = plain
    while True:
        place = data.draw(st.sampled_from(list(holder) if isinstance(holder, dict) else list(range(len(holder)))))
        if not isinstance(holder[place], dict | list) or not holder[place] or data.draw(st.booleans()):
            break
        holder = holder[place]
    holder[place] = value
    try:
        found = PublicCard.parse(json.dumps(plain))
        found.verify(public_hex(KEY))
    except (MessageError, SignatureError):
        return
    assert found == one
