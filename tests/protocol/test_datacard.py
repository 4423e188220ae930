"""The signed paper of a site's counts: read by who has the site's key, and refused after any change."""

import json

import pytest

from protocol.datacard import MAX_CHARS, opened, seal
from protocol.errors import MessageError, SignatureError, VersionError
from protocol.signing import new_key, public_hex


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"card": {"unit": "patient"}}, SignatureError),
        ({"made": "2020-01-01"}, SignatureError),
        ({"signature": "0" * 128}, SignatureError),
        ({"version": 2}, VersionError),
        ({"kind": "enrolment"}, MessageError),
        ({"site": "south"}, MessageError),
        ({"more": 1}, MessageError),
        ({"card": 3}, MessageError),
        ({"key": "0" * 64}, MessageError),
        ({"signature": 3}, MessageError),
    ],
)
def test_a_paper_that_was_changed_is_refused(change, error):
    key = new_key()
    text = seal({"unit": "image"}, "north", "2026-11-27", key)
    assert opened(text, "north", public_hex(key)) == {"unit": "image"}
    with pytest.raises(error):
        opened(json.dumps(json.loads(text) | change), "north", public_hex(key))


@pytest.mark.parametrize("text", ["", "[]", "[" * 10**5, "x" * (MAX_CHARS + 1)])
def test_what_is_no_paper_is_refused(text):
    with pytest.raises(MessageError):
        opened(text, "north", "0" * 64)


def test_another_key_s_paper_is_refused():
    text = seal({"unit": "image"}, "north", "2026-11-27", new_key())
    with pytest.raises(MessageError, match="was signed by another key"):
        opened(text, "north", public_hex(new_key()))
